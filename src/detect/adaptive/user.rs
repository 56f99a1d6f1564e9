//! What the adaptive detector knows of one user, and the record that it is stored as.

use prefetch_index::prefetch_index;

use super::cells::{Histogram, N_USER_CELLS};
use super::features::N_DIMENSIONS;
use super::seen::{ENTRIES_MAX, Entry, Seen};
use super::{decay, growth, hours};
use crate::detect::RecordError;
use crate::record::TIMESTAMP_MS_MAX;

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

    /// Whether events, and verdicts on them, can lead to it. By other states an event may have a risk that is no
    /// number, and those who come later are measured by it.
    fn is_possible(&self) -> bool {
        let until_last = 0.0..=self.last_h;
        let times_h = [self.first_h, self.origin_h, self.last_failure_h];
        let places_h = self.places.iter().flatten().map(|place| place.at_h);
        let is_gap = if self.gap_end_h >= 0.0 {
            until_last.contains(&self.gap_end_h)
        } else {
            self.gap_end_h.total_cmp(&NEVER_H).is_eq()
        };
        let amounts = [
            self.failures,
            self.volume,
            self.new_resources,
            self.bytes,
            self.evidence,
            self.gap_h,
            self.types_weight,
            self.threat_score_sum,
        ];
        let weights = self.cells.iter().chain(&self.hours);
        let mut weights = weights.chain(&self.types.weights);
        // Counts end where they have no more room, and sums go on.
        let is_counted = self.n_threat_scores == u32::MAX
            || self.threat_score_sum <= f64::from(self.n_threat_scores);
        self.n_events > 0
            && self.n_events >= self.n_failed.max(self.n_threat_scores)
            && is_counted
            && self.last_h <= hours(TIMESTAMP_MS_MAX)
            && times_h
                .into_iter()
                .chain(places_h)
                .all(|at_h| until_last.contains(&at_h))
            && self.first_h <= self.origin_h
            && is_gap
            && amounts.iter().all(|amount| *amount >= 0.0)
            && weights.all(|weight| *weight >= 0.0)
            && self.seen.is_possible(self.seconds(self.last_h))
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
        let mut before = None;
        for _ in 0..n_types {
            let kind = reader.u64()?;
            if before.is_some_and(|before| kind <= before) {
                return None;
            }
            before = Some(kind);
            user.types.insert(kind, reader.f32()?);
        }
        let mut ends = [0; N_DIMENSIONS];
        for end in &mut ends {
            *end = u16::from(reader.byte()?);
        }
        let n_entries = usize::from(*ends.last()?);
        let mut entries = Vec::with_capacity(Seen::room_for(n_entries));
        for _ in 0..n_entries {
            entries.push(Entry {
                key: reader.u64()?,
                weight: reader.f32()?,
                last_s: reader.u32()?,
                age_s: u16::from_le_bytes(reader.take()?),
            });
        }
        user.seen = Seen::from_parts(ends, entries)?;
        let is_whole = reader.0.is_empty() && user.is_possible();
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

#[cfg(test)]
mod tests {
    use super::super::features::ABSENT;
    use super::*;

    /// The record of a user with one event of each kind, and where nothing is as it was.
    fn user() -> User {
        let mut user = User::new(480_000.0);
        (user.last_h, user.origin_h) = (481_000.0, 480_500.0);
        (user.n_events, user.n_failed, user.n_threat_scores) = (9, 2, 3);
        (user.gap_h, user.gap_end_h) = (20.0, 480_900.0);
        user.last_failure_h = 480_100.0;
        user.threat_score_sum = 3.0;
        user.places[0] = Some(Place {
            city: 1,
            country: 2,
            at_h: 481_000.0,
        });
        user.learn_type(7, 1.0);
        user.learn_type(3, 1.0);
        let entry = |key, last_s| Entry {
            key,
            weight: 1.0,
            last_s,
            age_s: 9,
        };
        let mut ends = [2; N_DIMENSIONS];
        ends[N_DIMENSIONS - 1] = 3;
        let entries = vec![entry(5, 0), entry(6, 3_600_000), entry(5, 1)];
        user.seen = Seen::from_parts(ends, entries).expect("they are within limits");
        user
    }

    fn read(user: &User) -> Option<User> {
        let mut record = Vec::new();
        user.write_record(&mut record);
        User::from_record(&record).ok()
    }

    #[test]
    fn a_state_that_no_events_lead_to_is_refused() {
        let whole = user();
        assert_eq!(read(&whole), Some(whole.clone()));
        let mut old = whole.clone();
        old.set_back(480_000.5);
        assert_eq!(read(&old), Some(old), "with a clock that was set back");
        let spoilt: [fn(&mut User); 20] = [
            |user| user.origin_h = 1e9,
            |user| user.first_h = -1.0,
            |user| user.last_h = 1e9,
            |user| user.last_failure_h = 481_001.0,
            |user| user.gap_end_h = -5.0,
            |user| user.gap_h = -1.0,
            |user| user.volume = -1.5,
            |user| user.bytes = -0.5,
            |user| user.evidence = -1.0,
            |user| user.types_weight = -1.0,
            |user| user.threat_score_sum = 3.5,
            |user| user.n_events = 0,
            |user| user.n_failed = 10,
            |user| user.n_threat_scores = 10,
            |user| user.cells[3] = -1.0,
            |user| user.hours[3] = -1.0,
            |user| user.types.weights[1] = -1.0,
            |user| user.types.keys.swap(0, 1),
            |user| user.types.keys[0] = 7,
            |user| {
                user.places[0] = Some(Place {
                    at_h: -1.0,
                    ..user.places[0].expect("it is there")
                });
            },
        ];
        for (i, spoil) in spoilt.into_iter().enumerate() {
            let mut user = whole.clone();
            spoil(&mut user);
            assert_eq!(read(&user), None, "number {i}");
        }
        // Of what was seen: nothing, the same twice, later than the last event, less than nothing.
        let spoilt: [fn(&mut Entry); 4] = [
            |entry| entry.key = ABSENT,
            |entry| entry.key = 5,
            |entry| entry.last_s = 3_600_001,
            |entry| entry.weight = -1.0,
        ];
        for (i, spoil) in spoilt.into_iter().enumerate() {
            let mut entries = whole.seen.entries().to_vec();
            spoil(&mut entries[1]);
            let mut user = whole.clone();
            user.seen =
                Seen::from_parts(*whole.seen.ends(), entries).expect("so many there may be");
            assert_eq!(read(&user), None, "entry {i}");
        }
    }
}
