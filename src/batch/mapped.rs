//! What the lines of a block are mapped to.

use super::{Block, Medium, Reject};
use crate::record::{self, Checked, Code, Event, Fields, Orders, Reason, StageFields, Text, text};

/// Lines of ours with what stands in them, those that cannot be mapped as they came, and where each comes from.
#[derive(Default)]
pub struct Mapped {
    pub(super) lines: Vec<u8>,
    pub(super) places: Vec<Place>,
    pub(super) arena: Vec<u8>,
    pub(super) events: Vec<Event>,
    pub(super) stage_fields: Vec<StageFields>,
    pub(super) rejects: Vec<Reject>,
    pub(super) n_blank: u64,
    place: Place,
    orders: Orders,
}

/// Where a line of ours comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The line's number among those that were read.
    pub(super) line_index: u32,
    /// Its offset among them.
    pub(super) start: u32,
    /// The record's number in it.
    pub(super) record: u32,
}

/// How much there is of it.
#[derive(Clone, Copy)]
pub struct Mark {
    bytes: usize,
    places: usize,
    events: usize,
    rejects: usize,
}

impl Mapped {
    /// Makes room.
    pub fn reserve(&mut self, n_bytes: usize) {
        self.lines.reserve(n_bytes);
    }

    /// What comes is of the line with that number, which stands at `start` among those that were read.
    pub fn begin_line(&mut self, index: u32, start: u32) {
        self.place = Place {
            line_index: index,
            start,
            record: 0,
        };
    }

    /// What comes is of the record with that number of the line.
    pub fn begin_record(&mut self, record: u32) {
        self.place.record = record;
    }

    /// Adds a line that says nothing.
    pub fn blank(&mut self) {
        self.n_blank += 1;
        self.end_line();
    }

    /// Adds an event of ours as it came, if it is one.
    pub fn pass(&mut self, line: &str) {
        let start = self.lines.len();
        match record::parse(
            line,
            start,
            &mut self.arena,
            &mut self.stage_fields,
            &mut self.orders,
        ) {
            Ok(event) => {
                self.lines.extend_from_slice(line.as_bytes());
                self.push_event(event);
            }
            Err(reason) => self.reject(line.as_bytes(), reason),
        }
    }

    /// Adds what cannot be mapped.
    pub fn reject(&mut self, raw: &[u8], reason: Box<Reason>) {
        self.rejects.push(Reject {
            line: Text::in_lines(self.lines.len(), raw.len()),
            line_index: self.places.len() as u32,
            reason,
        });
        self.lines.extend_from_slice(raw);
        self.end_line();
    }

    /// Adds the event that `write` appends, and says where its members stand: their offsets are those in the
    /// line. Without one nothing is added.
    ///
    /// # Errors
    /// Why there is none, or what is not valid in it.
    pub(crate) fn event(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, &mut Fields) -> Checked<()>,
    ) -> Checked<()> {
        let start = self.lines.len();
        let mut fields = Fields::default();
        let written = write(&mut self.lines, &mut fields).and_then(|()| {
            if self.lines.len() > Text::BUFFER_BYTES_MAX {
                let message = "what it becomes is too long";
                return Err(Reason::of_line(Code::OutOfRange, message));
            }
            let line = &self.lines[start..];
            let line = text::utf8(line).expect("it is made of texts");
            record::event_of(line, start, &fields, &mut self.arena)
        });
        match written {
            Ok(event) => {
                self.push_event(event);
                Ok(())
            }
            Err(reason) => {
                self.lines.truncate(start);
                Err(reason)
            }
        }
    }

    fn push_event(&mut self, mut event: Event) {
        event.line_index = self.places.len() as u32;
        self.events.push(event);
        self.end_line();
    }

    fn end_line(&mut self) {
        self.lines.push(b'\n');
        self.places.push(self.place);
    }

    /// How much there is so far.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.lines.len(),
            places: self.places.len(),
            events: self.events.len(),
            rejects: self.rejects.len(),
        }
    }

    #[must_use]
    pub fn n_bytes_since(&self, mark: Mark) -> usize {
        self.lines.len() - mark.bytes
    }

    #[must_use]
    pub fn n_rejects_since(&self, mark: Mark) -> usize {
        self.rejects.len() - mark.rejects
    }

    /// Takes out what came after; nothing that is blank did.
    pub fn take_out(&mut self, mark: Mark) {
        self.lines.truncate(mark.bytes);
        self.places.truncate(mark.places);
        self.events.truncate(mark.events);
        self.rejects.truncate(mark.rejects);
    }
}

/// What sources of partitions begin with, in letters about them too: no path of a file that can be read does.
pub const PARTITION_PREFIX: &str = "kafka:";

impl Block {
    /// Room for what its lines are mapped to, in its own memory and in `lines`, both of which are empty.
    pub fn room_for_mapped(&mut self, lines: Vec<u8>) -> Mapped {
        debug_assert!(lines.is_empty() && self.events.is_empty() && self.rejects.is_empty());
        debug_assert!(
            self.places.is_empty() && self.arena.is_empty() && self.stage_fields.is_empty()
        );
        Mapped {
            lines,
            places: std::mem::take(&mut self.places),
            arena: std::mem::take(&mut self.arena),
            events: std::mem::take(&mut self.events),
            stage_fields: std::mem::take(&mut self.stage_fields),
            rejects: std::mem::take(&mut self.rejects),
            ..Mapped::default()
        }
    }

    /// Where a line that was read stands, the line with that number at that offset among them.
    #[must_use]
    pub fn place_of_line(&self, line_index: usize, start: usize) -> LinePlace<'_> {
        if let Some(origin) = self.origins.get(line_index) {
            let is_partition = origin.source.starts_with(PARTITION_PREFIX);
            return LinePlace {
                partition: if is_partition { &origin.source } else { "" },
                offset: origin.offset,
                record: origin.record,
            };
        }
        let (partition, n_before) = match self.origin.medium {
            Medium::Partition(_) => (&*self.origin.source, line_index),
            Medium::Stream | Medium::File(_) => ("", start),
        };
        LinePlace {
            partition,
            offset: self.origin.offset + n_before as u64,
            record: 0,
        }
    }
}

/// Where a line stands, as far as it matters which one it is.
pub struct LinePlace<'a> {
    /// The partition, if it is from one.
    pub partition: &'a str,
    pub offset: u64,
    /// Its number among the records of a line, if it was taken out of one.
    pub record: u32,
}

#[cfg(test)]
mod tests {
    use super::super::{BYTES_KEPT_MAX, LINES_KEPT_MAX};
    use super::*;

    #[test]
    fn memory_goes_round_unless_it_was_for_something_unusual() {
        let (mut block, mut lines) = (Block::new(), Vec::new());
        for n_rejects in [1_000, 100_000, 3] {
            block.lines.extend_from_slice(&vec![b' '; 40 * n_rejects]);
            let mut mapped = block.room_for_mapped(lines);
            for _ in 0..n_rejects {
                let reason = Reason::of_line(Code::NotAnObject, "no object");
                mapped.reject(&[b'x'; 40], reason);
            }
            lines = block.take_mapped(mapped);
            assert_eq!(
                (block.rejects.len(), block.n_lines),
                (n_rejects, n_rejects as u64)
            );
            assert_eq!(block.bytes(block.rejects[n_rejects - 1].line), [b'x'; 40]);
            assert!(lines.is_empty() && lines.capacity() >= 40_000.min(BYTES_KEPT_MAX));
            block.clear();
            let n_kept = (block.rejects.capacity(), block.lines.capacity());
            assert!(
                n_kept.0 >= 1_000 && n_kept.0 <= LINES_KEPT_MAX,
                "{n_kept:?}"
            );
            assert!(
                n_kept.1 >= 40_000 && n_kept.1 <= BYTES_KEPT_MAX,
                "{n_kept:?}"
            );
            assert!(lines.capacity() <= BYTES_KEPT_MAX);
        }
    }
}
