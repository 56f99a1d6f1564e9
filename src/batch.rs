//! Lines that travel together: a block is what one read brought, a batch is what the stages
//! take at a time. Results never depend on where the cuts between them fall.

mod learned;
mod mapped;
mod view;

use std::any::Any;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use crate::record::{self, Code, Event, Orders, Reason, StageField, StageFields, Text};

pub use learned::{Learned, Records};
pub use mapped::{LinePlace, Mapped, PARTITION_PREFIX};

/// Blocks in input order. Stages work on all of them; each block's order is kept.
#[derive(Default)]
pub struct Batch {
    pub blocks: Vec<Block>,
    /// A sink that gathers batches has to keep what it has with this one: nothing more is
    /// waiting, or enough has been gathered.
    pub is_commit: bool,
    /// It also has to keep what stages have learned, and how far sources were read; the batch is a
    /// commit then.
    pub is_checkpoint: bool,
    /// What each task has learned since the last checkpoint, if this is one.
    pub learned: Vec<Learned>,
    /// Tasks of which no more comes.
    pub released: Vec<Arc<str>>,
    /// The checkpoint of the pipe that comes after it; the batch is one too then.
    pub marker: Option<Box<Marker>>,
    /// What a stage has not come to yet, since it takes more memory at once than there is: the next
    /// batch.
    pub rest: Option<Box<Batch>>,
}

/// A checkpoint of all programs of a pipe, which travels among its lines.
#[derive(Debug)]
pub struct Marker {
    /// What tells the database at its end from others.
    pub database: String,
    /// Its number, from 1.
    pub checkpoint: u64,
    /// The line itself with its end.
    pub line: Vec<u8>,
}

/// What lines are read from, as far as it takes to go on there another time.
#[derive(Clone, Debug)]
pub enum Medium {
    /// Standard input and the like, which cannot be read again.
    Stream,
    /// The open file: its name may be another file's by now.
    File(Arc<File>),
    /// A partition of a topic in the Kafka cluster of that id. Its lines are messages: `line` and
    /// `offset` are both the message's offset.
    Partition(Arc<str>),
}

/// Where a block's first line stands in its source.
#[derive(Clone, Debug)]
pub struct Origin {
    /// A file's path, `-` for standard input, `kafka:TOPIC/PARTITION`.
    pub source: Arc<str>,
    /// Number of the first line, from 1.
    pub line: u64,
    /// Offset of its first byte, after decompression.
    pub offset: u64,
    /// Which of the line's records is meant, if it holds several.
    pub record: u32,
    pub medium: Medium,
}

/// A line that is not an event.
#[derive(Clone, Debug)]
pub struct Reject {
    pub line: Text,
    /// The line's number within its block, from 0.
    pub line_index: u32,
    pub reason: Box<Reason>,
}

/// What one read brought: whole lines, and what has been learned of them so far.
pub struct Block {
    /// Whole lines with their ends, until they are parsed. A line longer than any block comes in
    /// parts, see `part`.
    pub lines: Vec<u8>,
    /// Where the lines begin that are the block's own: those before went with another one.
    lines_start: usize,
    /// Bytes that were read into it, for whoever counts those on their way.
    pub n_bytes_read: usize,
    /// When that was, for whoever tells how long events take.
    pub read_at: Option<Instant>,
    /// The same once they are parsed, unless a rejected one among them is not UTF-8: checked once.
    text: Option<String>,
    pub origin: Origin,
    /// Where the line after the last one stands; within a line that comes in parts, that line.
    pub end: Origin,
    /// The block is a last line without an end: more of it may follow another time.
    pub is_unended: bool,
    /// Unescaped and produced text; whole UTF-8 strings.
    pub arena: Vec<u8>,
    pub events: Vec<Event>,
    pub stage_fields: Vec<StageFields>,
    pub rejects: Vec<Reject>,
    /// Set if the block holds a piece of one line that is longer than the limit.
    pub part: Option<Part>,
    /// Lines in the block that were read, blank ones among them.
    pub n_lines: u64,
    pub n_blank: u64,
    /// Where each line came from, if not one after the other from `origin` (replayed letters).
    pub origins: Vec<Origin>,
    /// Where each line comes from, if lines were mapped.
    places: Vec<mapped::Place>,
    /// Events that a stage took out, because they are known or not asked for.
    pub n_filtered: u64,
    /// Whose baselines its events are scored against: a partition's, or those of all input, which
    /// have no name. What users do in one task shows in no other.
    pub task: Arc<str>,
    /// The block holds nothing but what follows.
    pub is_mark: bool,
    /// All before it is to be kept now.
    pub wants_checkpoint: bool,
    /// Tasks of which no more comes, since another program has them.
    pub released: Vec<Arc<str>>,
    /// The pipe's checkpoint that this mark stands for.
    pub marker: Option<Box<Marker>>,
    /// In which order members came in lines that were in it.
    orders: Orders,
    /// What one stage has seen in the events and a later one needs.
    pub looks: Option<Box<dyn Any + Send + Sync>>,
}

/// Bytes of lines, and of what stages add to them, for which a block keeps its memory, and what is in so many.
const BYTES_KEPT_MAX: usize = 1 << 20;
const LINES_KEPT_MAX: usize = BYTES_KEPT_MAX / 64;

/// A piece of a line that is too long to be held whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub index: u64,
    pub is_last: bool,
}

impl Block {
    #[must_use]
    pub fn new() -> Self {
        let start = Origin {
            source: "-".into(),
            line: 1,
            offset: 0,
            record: 0,
            medium: Medium::Stream,
        };
        Self {
            lines: Vec::new(),
            lines_start: 0,
            n_bytes_read: 0,
            read_at: None,
            text: None,
            origin: start.clone(),
            end: start,
            is_unended: false,
            arena: Vec::new(),
            events: Vec::new(),
            stage_fields: Vec::new(),
            rejects: Vec::new(),
            part: None,
            n_lines: 0,
            n_blank: 0,
            origins: Vec::new(),
            places: Vec::new(),
            n_filtered: 0,
            task: Arc::default(),
            is_mark: false,
            wants_checkpoint: false,
            released: Vec::new(),
            marker: None,
            orders: Orders::default(),
            looks: None,
        }
    }

    /// Makes the block as new, but keeps its memory, unless that was for something unusual.
    pub fn clear(&mut self) {
        if let Some(text) = self.text.take() {
            self.lines = text.into_bytes();
        }
        for bytes in [&mut self.lines, &mut self.arena] {
            bytes.clear();
            bytes.shrink_to(BYTES_KEPT_MAX);
        }
        self.lines_start = 0;
        self.n_bytes_read = 0;
        self.read_at = None;
        clear(&mut self.events);
        clear(&mut self.stage_fields);
        clear(&mut self.rejects);
        clear(&mut self.places);
        self.part = None;
        self.n_lines = 0;
        self.n_blank = 0;
        clear(&mut self.origins);
        self.n_filtered = 0;
        self.is_unended = false;
        self.task = Arc::default();
        self.is_mark = false;
        self.wants_checkpoint = false;
        self.released.clear();
        self.marker = None;
        self.looks = None;
    }

    /// Fills `events` and `rejects` from `lines`.
    pub fn parse(&mut self, line_bytes_max: usize) {
        if let Some(part) = self.part {
            self.reject_part(part, line_bytes_max);
            return;
        }
        match String::from_utf8(std::mem::take(&mut self.lines)) {
            Ok(text) => {
                let mut start = 0;
                for end in memchr::memchr_iter(b'\n', text.as_bytes()) {
                    self.parse_line(Ok(&text[start..end]), start, end, line_bytes_max);
                    start = end + 1;
                }
                self.text = Some(text);
            }
            Err(error) => {
                let lines = error.into_bytes();
                let mut start = 0;
                for end in memchr::memchr_iter(b'\n', &lines) {
                    let text = decode(&lines[start..end], line_bytes_max);
                    self.parse_line(text, start, end, line_bytes_max);
                    start = end + 1;
                }
                self.lines = lines;
            }
        }
    }

    /// Takes what its lines were mapped to for them, and gives their memory back, empty.
    pub fn take_mapped(&mut self, mapped: Mapped) -> Vec<u8> {
        let mut read = std::mem::take(&mut self.lines);
        read.clear();
        read.shrink_to(BYTES_KEPT_MAX);
        self.n_lines = mapped.places.len() as u64;
        self.n_blank = mapped.n_blank;
        self.arena = mapped.arena;
        self.events = mapped.events;
        self.stage_fields = mapped.stage_fields;
        self.rejects = mapped.rejects;
        self.places = mapped.places;
        match String::from_utf8(mapped.lines) {
            Ok(text) => self.text = Some(text),
            Err(error) => self.lines = error.into_bytes(),
        }
        read
    }

    fn parse_line(
        &mut self,
        text: record::Checked<&str>,
        start: usize,
        end: usize,
        line_bytes_max: usize,
    ) {
        let line_index = self.n_lines as u32;
        self.n_lines += 1;
        let result = text.and_then(|line| {
            // A \r before the line end is white space to JSON; it stays, and does not count.
            if line.strip_suffix('\r').unwrap_or(line).len() > line_bytes_max {
                return Err(line_too_long(line_bytes_max));
            }
            if line.trim_ascii().is_empty() {
                return Ok(None);
            }
            let Self {
                arena,
                stage_fields,
                orders,
                ..
            } = self;
            record::parse(line, start, arena, stage_fields, orders).map(Some)
        });
        match result {
            Ok(Some(event)) => self.events.push(Event {
                line_index,
                ..event
            }),
            Ok(None) => self.n_blank += 1,
            Err(reason) => {
                let line = Text::in_lines(start, end - start);
                self.rejects.push(Reject {
                    line,
                    line_index,
                    reason,
                });
            }
        }
    }

    fn reject_part(&mut self, part: Part, line_bytes_max: usize) {
        // The whole line counts once, with its last part.
        self.n_lines = u64::from(part.is_last);
        let line = Text::in_lines(0, self.lines.len());
        let reason = line_too_long(line_bytes_max);
        self.rejects.push(Reject {
            line,
            line_index: 0,
            reason,
        });
    }

    /// All lines with their ends.
    #[must_use]
    pub fn all_lines(&self) -> &[u8] {
        self.text
            .as_ref()
            .map_or(&self.lines, |text| text.as_bytes())
    }

    /// The same without those that went with another block.
    #[must_use]
    pub fn own_lines(&self) -> &[u8] {
        &self.all_lines()[self.lines_start..]
    }

    /// Splits off the events from that one on, with their lines and those between them. All else goes
    /// with the events before; what stages have looked at is to be split by them.
    #[must_use]
    pub fn split_off(&mut self, event: usize) -> Self {
        let Event {
            line, line_index, ..
        } = self.events[event];
        let end = self.origin_of(line_index, line);
        let cut = line.start();
        let n_lines = memchr::memchr_iter(b'\n', &self.all_lines()[self.lines_start..cut]).count();
        let events = self.events.split_off(event);
        let rejects = self
            .rejects
            .partition_point(|reject| reject.line_index < line_index);
        let n_blank = (n_lines - self.events.len()) as u64;
        // Offsets are those of the whole: the rest keeps it, what goes first is copied.
        let first = Self {
            lines: self.lines.get(..cut).unwrap_or_default().to_vec(),
            lines_start: self.lines_start,
            text: self.text.as_ref().map(|text| text[..cut].to_owned()),
            origin: self.origin.clone(),
            end,
            arena: self.arena.clone(),
            events: std::mem::replace(&mut self.events, events),
            stage_fields: self.stage_fields.clone(),
            rejects: self.rejects.drain(..rejects).collect(),
            n_lines: n_lines as u64,
            n_blank: n_blank - rejects as u64,
            origins: self.origins.clone(),
            places: self.places.clone(),
            n_filtered: std::mem::take(&mut self.n_filtered),
            read_at: self.read_at,
            task: Arc::clone(&self.task),
            ..Self::new()
        };
        self.lines_start = cut;
        self.n_lines -= first.n_lines;
        self.n_blank -= first.n_blank;
        std::mem::replace(self, first)
    }

    /// The JSON value that a stage has given an event, if any.
    #[must_use]
    pub fn stage_value(&self, event: &Event, field: StageField) -> Option<&[u8]> {
        let fields = self
            .stage_fields
            .get((event.stage_fields as usize).checked_sub(1)?)?;
        let value = fields.values[field as usize];
        (!value.is_none()).then(|| self.bytes(value))
    }

    /// Gives or takes (with an empty `value`) an event's field of a stage.
    pub fn set_stage_value(&mut self, event_index: usize, field: StageField, value: &[u8]) {
        let event = &mut self.events[event_index];
        if event.stage_fields == 0 {
            if value.is_empty() {
                return;
            }
            self.stage_fields.push(StageFields::default());
            event.stage_fields = self.stage_fields.len() as u32;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(value);
        let fields = &mut self.stage_fields[event.stage_fields as usize - 1];
        fields.values[field as usize] = if value.is_empty() {
            Text::NONE
        } else {
            Text::in_arena(start, value.len())
        };
    }

    /// Appends the event's line without its end and without anything a stage has added; white
    /// space at its end stays.
    pub fn push_bare_line(&self, event: &Event, output: &mut Vec<u8>) {
        let fields = (event.stage_fields as usize)
            .checked_sub(1)
            .map(|i| &self.stage_fields[i]);
        let mut members: Vec<Text> = fields.map(StageFields::members_cut).unwrap_or_default();
        members.sort_unstable_by_key(|member| member.start());
        let mut kept = event.line.start();
        for member in members {
            // Cut with the member the comma before it, or after it if it comes first.
            let before = &self.all_lines()[kept..member.start()];
            let comma = before.trim_ascii_end().strip_suffix(b",");
            output.extend_from_slice(comma.unwrap_or(before));
            kept = member.end();
            if comma.is_none() {
                let after = &self.all_lines()[kept..event.line.end()];
                let rest = after.trim_ascii_start();
                if rest.first() == Some(&b',') {
                    kept += after.len() - rest.len() + 1;
                }
            }
        }
        output.extend_from_slice(&self.all_lines()[kept..event.line.end()]);
    }

    /// Appends the event's line with its end, as stages have made it. A line that no stage
    /// has touched leaves byte for byte.
    pub fn push_line(&self, event: &Event, output: &mut Vec<u8>) {
        let fields = (event.stage_fields as usize)
            .checked_sub(1)
            .map(|i| &self.stage_fields[i]);
        let Some(fields) = fields.filter(|fields| fields.is_changed()) else {
            output.extend_from_slice(self.bytes(event.line));
            output.push(b'\n');
            return;
        };
        self.push_bare_line(event, output);
        // What follows the closing brace is white space, and as long as it was.
        let close = output.len() - (event.line.end() - event.close as usize);
        debug_assert_eq!(output.get(close), Some(&b'}'));
        let n_after = output.len() - close;
        output.truncate(close);
        for field in StageField::ALL {
            let value = fields.values[field as usize];
            if !value.is_none() {
                output.extend_from_slice(b",\"");
                output.extend_from_slice(field.name().as_bytes());
                output.extend_from_slice(b"\":");
                output.extend_from_slice(self.bytes(value));
            }
        }
        output.extend_from_slice(&self.all_lines()[event.line.end() - n_after..event.line.end()]);
        output.push(b'\n');
    }

    /// Where another run has to go on, once this block is kept. A last line that had no end and
    /// was no event may have been half written: it is read again.
    #[must_use]
    pub fn next(&self) -> &Origin {
        if self.is_unended && self.events.is_empty() {
            return &self.origin;
        }
        &self.end
    }

    /// Where the line with that number within the block stands.
    #[must_use]
    pub fn origin_of(&self, line_index: u32, line: Text) -> Origin {
        let (line_index, start, record) = match self.places.get(line_index as usize) {
            Some(place) => (place.line_index, place.start as usize, place.record),
            None => (line_index, line.start(), 0),
        };
        if let Some(origin) = self.origins.get(line_index as usize) {
            return Origin {
                record: origin.record.max(record),
                ..origin.clone()
            };
        }
        let n_before = match self.origin.medium {
            Medium::Partition(_) => u64::from(line_index),
            Medium::Stream | Medium::File(_) => start as u64,
        };
        Origin {
            line: self.origin.line + u64::from(line_index),
            offset: self.origin.offset + n_before,
            record,
            ..self.origin.clone()
        }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

impl StageFields {
    /// True if a value is not the one that stands in the line.
    fn is_changed(&self) -> bool {
        self.values
            .iter()
            .zip(&self.is_ours)
            .any(|(value, is_ours)| value.is_in_arena() || value.is_none() == *is_ours)
    }

    /// Members that a stage has written, or that make room for one.
    fn members_cut(&self) -> Vec<Text> {
        (0..self.members.len())
            .filter(|&i| self.is_ours[i] || !self.values[i].is_none())
            .map(|i| self.members[i])
            .filter(|member| !member.is_none())
            .collect()
    }
}

/// Empties a list, which keeps its memory unless it was an unusual one.
fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(LINES_KEPT_MAX);
}

/// The text of a line. Its length is looked at first: a line that came in parts was, too.
pub(crate) fn decode(line: &[u8], line_bytes_max: usize) -> record::Checked<&str> {
    if line.strip_suffix(b"\r").unwrap_or(line).len() > line_bytes_max {
        return Err(line_too_long(line_bytes_max));
    }
    std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        Reason::of_line(Code::InvalidUtf8, format!("invalid UTF-8 at byte {at}"))
    })
}

pub(crate) fn line_too_long(line_bytes_max: usize) -> Box<Reason> {
    Reason::of_line(
        Code::LineTooLong,
        format!("line is longer than {line_bytes_max} bytes"),
    )
}
