//! What the adaptive detector knows of one user, and the record that it is stored as.

use prefetch_index::prefetch_index;

use super::cells::{Histogram, N_USER_CELLS};
use super::features::N_DIMENSIONS;
use super::seen::{ENTRIES_MAX, Entry, Seen};
use super::{decay, growth};
use crate::detect::RecordError;

/// Event types that are remembered of a user.
pub(super) const TYPES_MAX: usize = 24;
/// Long before any event.
const NEVER_H: f64 = -1e9;
/// Weights grow by this much before all of them are scaled down.
const GROWTH_MAX: f64 = 1e6;

/// A city, its country, and when the user was there last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) city: u64,
    pub(super) country: u64,
    pub(super) at_h: f64,
}

/// The state of a user. Times are hours since 1970.
///
/// Old events count less: instead of shrinking all counts, new ones are added with a weight that
/// grows by e^(λt) from `origin_h` on (forward decay, Cormode et al. 2009).
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub(super) first_h: f64,
    pub(super) last_h: f64,
    origin_h: f64,
    pub(super) n_events: u32,
    pub(super) n_failed: u32,
    /// Counts of events that decay within minutes or hours; of bytes; of evidence.
    pub(super) failures: f64,
    pub(super) volume: f64,
    pub(super) new_resources: f64,
    pub(super) bytes: f64,
    pub(super) evidence: f64,
    /// The last absence of more than 12 hours: how long, and when it ended.
    pub(super) gap_h: f64,
    pub(super) gap_end_h: f64,
    pub(super) last_failure_h: f64,
    /// The current place, and the one before it.
    pub(super) places: [Option<Place>; 2],
    /// Of all types, also of those not remembered.
    pub(super) types_weight: f64,
    pub(super) threat_score_sum: f64,
    pub(super) n_threat_scores: u32,
    pub(super) seen: Seen,
    // In one piece, so that a processor fetches it ahead.
    pub(super) types: Types,
    /// Of working days, then of weekends.
    pub(super) hours: [f32; 48],
    pub(super) cells: [f32; N_USER_CELLS],
}

/// Event types with their weights, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Types {
    keys: [u64; TYPES_MAX],
    weights: [f32; TYPES_MAX],
    len: usize,
}

impl Types {
    pub(super) fn weight(&self, kind: u64) -> f64 {
        let i = self.keys[..self.len].binary_search(&kind);
        i.map_or(0.0, |i| f64::from(self.weights[i]))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let weights = self.weights.iter().copied().map(f64::from);
        self.keys[..self.len].iter().copied().zip(weights)
    }

    /// Adds weight to a type; if there are too many, the lightest of the others is forgotten.
    fn learn(&mut self, kind: u64, weight: f64) {
        match self.keys[..self.len].binary_search(&kind) {
            Ok(i) => self.weights[i] = (f64::from(self.weights[i]) + weight) as f32,
            Err(_) => {
                if self.len == TYPES_MAX {
                    self.forget_lightest();
                }
                self.insert(kind, weight as f32);
            }
        }
    }

    fn unlearn(&mut self, kind: u64, weight: f64) {
        if let Ok(i) = self.keys[..self.len].binary_search(&kind) {
            self.weights[i] = (f64::from(self.weights[i]) - weight).max(0.0) as f32;
        }
    }

    fn forget_lightest(&mut self) {
        let weights = self.weights.iter().enumerate();
        let lightest = weights.min_by(|(_, a), (_, b)| a.total_cmp(b));
        let (lightest, _) = lightest.expect("there are types");
        self.keys.copy_within(lightest + 1.., lightest);
        self.weights.copy_within(lightest + 1.., lightest);
        self.len -= 1;
    }

    fn insert(&mut self, kind: u64, weight: f32) {
        let at = self.keys[..self.len].partition_point(|key| *key < kind);
        self.keys.copy_within(at..self.len, at + 1);
        self.weights.copy_within(at..self.len, at + 1);
        self.keys[at] = kind;
        self.weights[at] = weight;
        self.len += 1;
    }
}

impl User {
    /// About the most bytes that a state takes.
    pub const BYTES_MAX: usize = size_of::<Self>() + Seen::HEAP_BYTES_MAX;

    pub(super) fn new(first_h: f64) -> Self {
        Self {
            first_h,
            last_h: first_h,
            origin_h: first_h,
            n_events: 0,
            n_failed: 0,
            failures: 0.0,
            volume: 0.0,
            new_resources: 0.0,
            bytes: 0.0,
            evidence: 0.0,
            gap_h: 0.0,
            gap_end_h: NEVER_H,
            last_failure_h: 0.0,
            places: [None; 2],
            cells: [0.0; N_USER_CELLS],
            hours: [0.0; 48],
            types: Types::default(),
            types_weight: 0.0,
            threat_score_sum: 0.0,
            n_threat_scores: 0,
            seen: Seen::default(),
        }
    }

    /// Goes back to `now_h`: what came later had a wrong time, and has happened by then.
    pub(super) fn set_back(&mut self, now_h: f64) {
        for time_h in [
            &mut self.first_h,
            &mut self.last_h,
            &mut self.origin_h,
            &mut self.last_failure_h,
        ] {
            *time_h = time_h.min(now_h);
        }
        if self.gap_end_h > now_h {
            (self.gap_h, self.gap_end_h) = (0.0, NEVER_H);
        }
        for place in self.places.iter_mut().flatten() {
            place.at_h = place.at_h.min(now_h);
        }
        self.seen.set_back(self.seconds(now_h));
    }

    /// What an event at `now_h` weighs, in the units of the counts.
    pub(super) fn growth(&mut self, now_h: f64) -> f64 {
        let grown = growth(now_h - self.origin_h);
        if grown <= GROWTH_MAX {
            return grown;
        }
        let scale = decay(now_h - self.origin_h);
        let hours_and_types = self.hours.iter_mut().chain(&mut self.types.weights);
        for weight in self.cells.iter_mut().chain(hours_and_types) {
            *weight = (f64::from(*weight) * scale) as f32;
        }
        self.types_weight *= scale;
        self.origin_h = now_h;
        1.0
    }

    /// What an event at `at_h` has weighed, in the units that the counts have now.
    pub(super) fn growth_at(&self, at_h: f64) -> f64 {
        growth(at_h - self.origin_h)
    }

    /// Whole seconds since the user's first event, the unit of [`Seen`].
    pub(super) fn seconds(&self, now_h: f64) -> u32 {
        ((now_h - self.first_h) * 3600.0) as u32
    }

    pub(super) fn histogram(&self, histogram: Histogram) -> &[f32] {
        &self.cells[histogram.of_user()]
    }

    pub(super) fn learn_type(&mut self, kind: u64, weight: f64) {
        self.types_weight += weight;
        self.types.learn(kind, weight);
    }

    /// Takes weight from a type; there is none below 0.
    pub(super) fn unlearn_type(&mut self, kind: u64, weight: f64) {
        self.types_weight = (self.types_weight - weight).max(0.0);
        self.types.unlearn(kind, weight);
    }

    /// Fetches all of the state but what was seen.
    pub(super) fn prefetch(&self) {
        for i in (0..N_USER_CELLS).step_by(16) {
            prefetch_index(&self.cells[..], i);
        }
        for i in (0..48).step_by(16) {
            prefetch_index(&self.hours[..], i);
        }
        for i in (0..TYPES_MAX).step_by(8) {
            prefetch_index(&self.types.keys[..], i);
        }
        for i in (0..TYPES_MAX).step_by(16) {
            prefetch_index(&self.types.weights[..], i);
        }
        for number in [
            &self.first_h,
            &self.evidence,
            &self.last_failure_h,
            &self.threat_score_sum,
        ] {
            prefetch_index(std::slice::from_ref(number), 0);
        }
        prefetch_index(std::slice::from_ref(&self.places), 0);
        prefetch_index(std::slice::from_ref(&self.seen), 0);
    }

    /// Appends the state as a record: a version byte, then all of it, little-endian. Restored, it
    /// goes on exactly as it would have.
    pub fn write_record(&self, output: &mut Vec<u8>) {
        output.push(RECORD_VERSION);
        for number in self.numbers() {
            output.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.n_events, self.n_failed, self.n_threat_scores] {
            output.extend_from_slice(&number.to_le_bytes());
        }
        for place in self.places {
            let place = place.unwrap_or(NO_PLACE);
            output.extend_from_slice(&place.city.to_le_bytes());
            output.extend_from_slice(&place.country.to_le_bytes());
            output.extend_from_slice(&place.at_h.to_le_bytes());
        }
        write_sparse(output, &self.cells[..], |output, cell| {
            output.extend_from_slice(&cell.to_le_bytes());
        });
        write_sparse(output, &self.hours[..], |output, hour| {
            output.extend_from_slice(&hour.to_le_bytes());
        });
        output.push(self.types.len as u8);
        for (kind, weight) in self
            .types
            .keys
            .iter()
            .zip(self.types.weights)
            .take(self.types.len)
        {
            output.extend_from_slice(&kind.to_le_bytes());
            output.extend_from_slice(&weight.to_le_bytes());
        }
        for end in self.seen.ends() {
            output.push(*end as u8);
        }
        for entry in self.seen.entries() {
            output.extend_from_slice(&entry.key.to_le_bytes());
            output.extend_from_slice(&entry.weight.to_le_bytes());
            output.extend_from_slice(&entry.last_s.to_le_bytes());
            output.extend_from_slice(&entry.age_s.to_le_bytes());
        }
    }

    /// Reads what [`Self::write_record`] has written.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged("record is cut short or impossible".to_owned());
        let (&version, rest) = record.split_first().ok_or_else(damaged)?;
        if version != RECORD_VERSION {
            return Err(RecordError::Version {
                found: version,
                known: RECORD_VERSION,
            });
        }
        Self::read(&mut Reader(rest)).ok_or_else(damaged)
    }

    fn numbers(&self) -> [f64; 13] {
        [
            self.first_h,
            self.last_h,
            self.origin_h,
            self.failures,
            self.volume,
            self.new_resources,
            self.bytes,
            self.evidence,
            self.gap_h,
            self.gap_end_h,
            self.last_failure_h,
            self.types_weight,
            self.threat_score_sum,
        ]
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut user = Self::new(reader.number()?);
        for number in [
            &mut user.last_h,
            &mut user.origin_h,
            &mut user.failures,
            &mut user.volume,
            &mut user.new_resources,
            &mut user.bytes,
            &mut user.evidence,
            &mut user.gap_h,
            &mut user.gap_end_h,
            &mut user.last_failure_h,
            &mut user.types_weight,
            &mut user.threat_score_sum,
        ] {
            *number = reader.number()?;
        }
        user.n_events = reader.u32()?;
        user.n_failed = reader.u32()?;
        user.n_threat_scores = reader.u32()?;
        for place in &mut user.places {
            let read = Place {
                city: reader.u64()?,
                country: reader.u64()?,
                at_h: reader.number()?,
            };
            *place = (read.city != NO_PLACE.city).then_some(read);
        }
        reader.sparse(&mut user.cells[..], Reader::f32)?;
        reader.sparse(&mut user.hours[..], Reader::f32)?;
        let n_types = usize::from(reader.byte()?);
        if n_types > TYPES_MAX {
            return None;
        }
        for _ in 0..n_types {
            user.types.insert(reader.u64()?, reader.f32()?);
        }
        let mut ends = [0; N_DIMENSIONS];
        for end in &mut ends {
            *end = u16::from(reader.byte()?);
        }
        let n_entries = usize::from(*ends.last()?);
        let mut entries = Vec::with_capacity(n_entries);
        for _ in 0..n_entries {
            entries.push(Entry {
                key: reader.u64()?,
                weight: reader.f32()?,
                last_s: reader.u32()?,
                age_s: u16::from_le_bytes(reader.take()?),
            });
        }
        user.seen = Seen::from_parts(ends, entries)?;
        let keys = &user.types.keys[..n_types];
        let is_whole = reader.0.is_empty() && keys.is_sorted_by(|a, b| a < b);
        is_whole.then_some(user)
    }
}

/// Version of the records that [`User::write_record`] writes. Classic ones have small numbers.
pub const RECORD_VERSION: u8 = 0x41;

/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = 1
    + 13 * 8
    + 3 * 4
    + 2 * 24
    + N_USER_CELLS * 4
    + N_USER_CELLS.div_ceil(8)
    + 48 * 4
    + 6
    + 1
    + TYPES_MAX * 12
    + N_DIMENSIONS
    + ENTRIES_MAX * 18;

const NO_PLACE: Place = Place {
    city: 0,
    country: 0,
    at_h: 0.0,
};

/// Writes one bit a cell, 1 if it is not 0, then those that are not.
fn write_sparse<T: Copy + Default + PartialEq>(
    output: &mut Vec<u8>,
    cells: &[T],
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for eight in cells.chunks(8) {
        let bits = eight.iter().enumerate();
        output.push(bits.fold(0, |bits, (i, cell)| {
            bits | u8::from(*cell != T::default()) << i
        }));
    }
    for cell in cells {
        if *cell != T::default() {
            write(output, *cell);
        }
    }
}

/// What is left to read of a record.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> Option<f32> {
        let number = self.take().map(f32::from_le_bytes)?;
        number.is_finite().then_some(number)
    }

    fn number(&mut self) -> Option<f64> {
        let number = self.take().map(f64::from_le_bytes)?;
        number.is_finite().then_some(number)
    }

    fn sparse<T>(
        &mut self,
        cells: &mut [T],
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<()> {
        let (bits, rest) = self.0.split_at_checked(cells.len().div_ceil(8))?;
        self.0 = rest;
        for (i, cell) in cells.iter_mut().enumerate() {
            if bits[i / 8] >> (i % 8) & 1 == 1 {
                *cell = read(self)?;
            }
        }
        Some(())
    }
}
