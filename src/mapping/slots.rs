//! What was found of a record: for each place that a mapping looks at, what stands there.

use std::borrow::Cow;

use crate::record::text::{push_part, unescape};

/// What a value is, and how its text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Absent,
    Null,
    Bool,
    Number,
    /// The inside of a JSON string without escapes.
    Plain,
    /// The same with escapes.
    Escaped,
    /// Text that is not from a JSON string.
    Raw,
    Array,
    Object,
}

/// A value as it stands in one of the texts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// The member's name is written as the mapping writes it, not only in other letters.
    pub(super) is_exact: bool,
    text: u16,
    start: u32,
    end: u32,
}

impl Slot {
    pub(super) fn new(kind: Kind, text: u16, start: usize, end: usize) -> Self {
        Self {
            kind,
            is_exact: true,
            text,
            start: start as u32,
            end: end as u32,
        }
    }

    /// Where it stands in its text.
    pub(super) fn range(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    /// Whether it stands in the record's own text.
    pub(super) fn is_of_record(&self) -> bool {
        self.text == RECORD
    }

    /// Whether it is a string, a number or a boolean that says something.
    pub(super) fn is_scalar(&self) -> bool {
        let is_scalar = !matches!(
            self.kind,
            Kind::Absent | Kind::Null | Kind::Array | Kind::Object
        );
        is_scalar && self.end > self.start
    }
}

/// The record's own text, and texts that were made of parts of it.
pub(super) struct Texts<'a> {
    pub(super) record: &'a str,
    /// Kept for their memory beyond `n_made`.
    made: Vec<String>,
    n_made: usize,
}

/// The record's own text; the others are numbered from 1.
pub(super) const RECORD: u16 = 0;

/// Texts made of one record, at the most.
const TEXTS_MAX: usize = 256;

impl<'a> Texts<'a> {
    pub(super) fn new() -> Self {
        Self {
            record: "",
            made: Vec::new(),
            n_made: 0,
        }
    }

    /// Begins with another record.
    pub(super) fn begin(&mut self, record: &'a str) {
        self.record = record;
        self.n_made = 0;
    }

    /// Another text, empty, to be given back with [`Self::put`].
    pub(super) fn take(&mut self) -> (u16, String) {
        if self.n_made == self.made.len() {
            self.made.push(String::new());
        }
        self.n_made += 1;
        let mut text = std::mem::take(&mut self.made[self.n_made - 1]);
        text.clear();
        (self.n_made as u16, text)
    }

    /// Texts made so far.
    pub(super) fn n_made(&self) -> usize {
        self.n_made
    }

    /// Gives back those made since there were so many.
    pub(super) fn keep(&mut self, n_made: usize) {
        self.n_made = self.n_made.min(n_made);
    }

    /// Whether a record has had as many texts made of it as any honest one needs.
    pub(super) fn is_full(&self) -> bool {
        self.n_made >= TEXTS_MAX
    }

    pub(super) fn put(&mut self, number: u16, text: String) {
        self.made[number as usize - 1] = text;
    }

    fn text(&self, number: u16) -> &str {
        match number {
            RECORD => self.record,
            made => &self.made[made as usize - 1],
        }
    }

    /// The same as bytes.
    #[inline]
    pub(super) fn bytes(&self, slot: &Slot) -> &[u8] {
        &self.text(slot.text).as_bytes()[slot.start as usize..slot.end as usize]
    }

    /// Appends the same.
    #[inline]
    pub(super) fn push(&self, slot: &Slot, output: &mut Vec<u8>) {
        let text = self.text(slot.text).as_bytes();
        push_part(output, text, slot.start as usize..slot.end as usize);
    }

    /// Appends a value that is a JSON string there, with its quotes.
    #[inline]
    pub(super) fn push_quoted(&self, slot: &Slot, output: &mut Vec<u8>) {
        debug_assert!(matches!(slot.kind, Kind::Plain | Kind::Escaped));
        let text = self.text(slot.text).as_bytes();
        let quoted = slot.start as usize - 1..slot.end as usize + 1;
        debug_assert!(text[quoted.clone()].starts_with(b"\"") && text[slot.end as usize] == b'"');
        push_part(output, text, quoted);
    }

    /// A value as it stands there: the inside of a string, escapes and all.
    pub(super) fn raw(&self, slot: &Slot) -> &str {
        &self.text(slot.text)[slot.start as usize..slot.end as usize]
    }

    /// The text of a value; none for an escape that stands for no character.
    pub(super) fn get(&self, slot: &Slot) -> Option<Cow<'_, str>> {
        let raw = self.raw(slot);
        if slot.kind == Kind::Escaped {
            return unescape(raw).map(Cow::Owned);
        }
        Some(Cow::Borrowed(raw))
    }
}

/// Texts that stand for nothing.
#[derive(Default)]
pub(super) struct Empty {
    texts: Vec<String>,
    /// One bit for each length that they have, and the greatest.
    lengths: u64,
    length_max: usize,
}

impl Empty {
    pub(super) fn new(texts: &[String]) -> Self {
        let bits = texts.iter().map(|text| Self::bit(text.len()));
        Self {
            lengths: bits.fold(0, |all, bit| all | bit),
            length_max: texts.iter().map(String::len).max().unwrap_or_default(),
            texts: texts.to_vec(),
        }
    }

    /// Longer ones share one.
    fn bit(length: usize) -> u64 {
        1 << length.min(63)
    }

    /// Whether a value is one of them.
    #[inline]
    pub(super) fn has(&self, slot: &Slot, texts: &Texts<'_>) -> bool {
        /// An escape has at most so many bytes for one.
        const ESCAPE_BYTES_MAX: usize = 6;
        let (start, end) = slot.range();
        let length = end - start;
        let may_be = if slot.kind == Kind::Escaped {
            length <= self.length_max * ESCAPE_BYTES_MAX
        } else {
            self.lengths & Self::bit(length) != 0
        };
        may_be && self.is_one(slot, texts)
    }

    #[cold]
    fn is_one(&self, slot: &Slot, texts: &Texts<'_>) -> bool {
        // A sign may be written as an escape.
        let text = texts.get(slot);
        text.is_some_and(|text| self.texts.iter().any(|empty| *empty == text))
    }
}

/// One bit a place: whether anything was found, and whether that is a string, a number or a boolean that does not stand
/// for nothing.
#[derive(Clone, Copy, Default)]
struct Bits {
    found: u64,
    values: u64,
}

/// The slots of a record.
pub(super) struct Slots {
    /// What stands there of another record counts as absent.
    all: Vec<Slot>,
    bits: Vec<Bits>,
    /// Which of the members that formats are told by were found.
    signs: Signs,
    /// Whether anybody asks for those.
    pub(super) notes_signs: bool,
    /// A member that is looked at stands twice in its object.
    pub(super) has_twice: bool,
}

/// Members by which formats are told, at the most.
pub(super) const SIGNS_MAX: usize = 512;

/// One bit for each of them.
pub(super) type Signs = [u64; SIGNS_MAX / 64];

const ABSENT: Slot = Slot {
    kind: Kind::Absent,
    is_exact: false,
    text: RECORD,
    start: 0,
    end: 0,
};

/// The bits of places: words, and masks of them.
pub(super) fn bits_of(places: &[u16]) -> Box<[(u16, u64)]> {
    let bits = places.iter().map(|&place| (place / 64, 1 << (place % 64)));
    union_of(bits)
}

/// Bits of any, each word once.
pub(super) fn union_of(all: impl Iterator<Item = (u16, u64)>) -> Box<[(u16, u64)]> {
    let mut bits: Vec<(u16, u64)> = Vec::new();
    for (word, mask) in all {
        match bits.iter_mut().find(|(other, _)| *other == word) {
            Some((_, known)) => *known |= mask,
            None => bits.push((word, mask)),
        }
    }
    bits.into()
}

/// The places of a word whose bits are set.
pub(super) fn places_of(word: u16, mut bits: u64) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as u16)?;
        bits &= bits - 1;
        Some(word * 64 + bit)
    })
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            bits: Vec::new(),
            signs: [0; SIGNS_MAX / 64],
            notes_signs: true,
            has_twice: false,
        }
    }

    pub(super) fn begin(&mut self, n_slots: usize) {
        if self.all.len() < n_slots {
            self.all.resize(n_slots, ABSENT);
        }
        self.bits.clear();
        self.bits.resize(n_slots.div_ceil(64), Bits::default());
        self.signs = [0; SIGNS_MAX / 64];
        self.has_twice = false;
    }

    pub(super) fn see(&mut self, sign: u16) {
        self.signs[sign as usize / 64] |= 1 << (sign % 64);
    }

    /// All that were found.
    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }

    pub(super) fn has_seen(&self, sign: u16) -> bool {
        self.signs[sign as usize / 64] >> (sign % 64) & 1 == 1
    }

    /// At which of a word's places there is a value.
    pub(super) fn values(&self, word: u16, mask: u64) -> u64 {
        self.bits[word as usize].values & mask
    }

    /// At which of a word's places anything stands.
    pub(super) fn found(&self, word: u16, mask: u64) -> u64 {
        self.bits[word as usize].found & mask
    }

    /// Whether there is a value at any of the places.
    #[inline]
    pub(super) fn has_any(&self, bits: &[(u16, u64)]) -> bool {
        bits.iter()
            .any(|&(word, mask)| self.bits[word as usize].values & mask != 0)
    }

    #[inline]
    pub(super) fn get(&self, place: u16) -> &Slot {
        if self.bits[place as usize / 64].found >> (place % 64) & 1 == 0 {
            return &ABSENT;
        }
        &self.all[place as usize]
    }

    /// Whether there is a value at a place.
    #[inline]
    pub(super) fn is_value(&self, place: u16) -> bool {
        self.bits[place as usize / 64].values >> (place % 64) & 1 == 1
    }

    /// Notes what stands at a place, and whether that is a value if it is a string, a number or a boolean.
    #[inline]
    pub(super) fn set(&mut self, place: u16, slot: Slot, may_be_value: bool) {
        let mask = 1 << (place % 64);
        let bits = &mut self.bits[place as usize / 64];
        bits.found |= mask;
        if may_be_value && slot.is_scalar() {
            bits.values |= mask;
        } else {
            bits.values &= !mask;
        }
        self.all[place as usize] = slot;
    }

    pub(super) fn forget(&mut self, places: &[u16]) {
        for &place in places {
            let mask = !(1 << (place % 64));
            let bits = &mut self.bits[place as usize / 64];
            bits.found &= mask;
            bits.values &= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_for_nothing_however_they_are_written() {
        let long = "x".repeat(70);
        let empty = Empty::new(&["-".to_owned(), "null".to_owned(), long.clone()]);
        let check = |kind: Kind, text: &str, expected: bool| {
            let mut texts = Texts::new();
            texts.begin(text);
            let slot = Slot::new(kind, RECORD, 0, text.len());
            assert_eq!(empty.has(&slot, &texts), expected, "for {text}");
            assert!(!Empty::default().has(&slot, &texts), "for {text}");
        };
        check(Kind::Plain, "-", true);
        check(Kind::Raw, "null", true);
        check(Kind::Plain, "nul1", false);
        check(Kind::Plain, "+", false);
        check(Kind::Plain, &long, true);
        check(Kind::Plain, &"y".repeat(70), false);
        check(Kind::Plain, &"x".repeat(71), false);
        check(Kind::Escaped, r"\u002d", true);
        check(Kind::Escaped, r"\u006e\u0075\u006c\u006c", true);
        check(Kind::Escaped, r"\u002b", false);
        check(Kind::Escaped, &r"\u0078".repeat(70), true);
        check(Kind::Escaped, &r"\u0078".repeat(71), false);
    }
}
