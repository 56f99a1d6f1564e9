//! What the lines of a block are mapped to.

use crate::record::Reason;

/// For each line its number among those that were read, and its offset among them.
pub(super) type Places = Vec<(u32, u32)>;
/// Numbers of lines, and why they are rejected.
pub(super) type Reasons = Vec<(u32, Box<Reason>)>;

/// Lines of ours, those that cannot be mapped as they came, and
/// where each comes from.
#[derive(Debug, Default)]
pub struct Mapped {
    lines: Vec<u8>,
    places: Places,
    reasons: Reasons,
    place: (u32, u32),
}

impl Mapped {
    /// Makes room.
    pub fn reserve(&mut self, n_bytes: usize) {
        self.lines.reserve(n_bytes);
    }

    /// What comes is of the line with that number, which stands at `start` among those that were read.
    pub fn begin_line(&mut self, index: u32, start: u32) {
        self.place = (index, start);
    }

    /// Adds a line that says nothing.
    pub fn blank(&mut self) {
        self.end_event();
    }

    /// Adds an event as it came.
    pub fn pass(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.end_event();
    }

    /// Adds what cannot be mapped.
    pub fn reject(&mut self, raw: &[u8], reason: Box<Reason>) {
        self.reasons.push((self.places.len() as u32, reason));
        self.pass(raw);
    }

    /// Where to append an event, which [`Self::end_event`] ends.
    pub fn begin_event(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    pub fn end_event(&mut self) {
        self.lines.push(b'\n');
        self.places.push(self.place);
    }

    /// How much there is so far.
    #[must_use]
    pub fn at(&self) -> (usize, usize, usize) {
        (self.lines.len(), self.places.len(), self.reasons.len())
    }

    /// Takes out what came after.
    pub fn take_out(&mut self, (n_bytes, n_places, n_reasons): (usize, usize, usize)) {
        self.lines.truncate(n_bytes);
        self.places.truncate(n_places);
        self.reasons.truncate(n_reasons);
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Places, Reasons) {
        (self.lines, self.places, self.reasons)
    }
}
