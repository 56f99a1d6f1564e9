//! Values a user was seen with, by key: one bounded table for each dimension, all in one list.
//!
//! Times are whole seconds since the user's first event, weights are halved every 30 days.

use prefetch_index::prefetch_index;

use super::features::{ABSENT, Dimension, Features, N_DIMENSIONS};
use super::{LAMBDA, decay, math};
use crate::detect::first_of;

/// Most values of each dimension that are kept for a user.
const VALUES_MAX: [usize; N_DIMENSIONS] = [32, 24, 16, 16, 16, 8, 12, 8, 8, 96, 16];
/// All of them together.
pub(super) const ENTRIES_MAX: usize = 252;
/// Entries for which room is made at a time.
const GROWTH: usize = 8;
/// A value is new until this long after its first sighting: a takeover's own events must not make
/// its address a known one while it lasts.
pub(super) const QUARANTINE_S: u32 = 12 * 3600;
/// Weight that a value must have gathered to be known.
const KNOWN_WEIGHT_MIN: f32 = 0.5;

/// One value of a user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: u64,
    /// As of `last_s`.
    pub(super) weight: f32,
    /// Last sighting.
    pub(super) last_s: u32,
    /// Time between first and last sighting, up to 18 hours.
    pub(super) age_s: u16,
}

impl Entry {
    fn is_known(self, now_s: u32) -> bool {
        self.age_at(now_s) >= QUARANTINE_S && self.weight >= KNOWN_WEIGHT_MIN
    }

    /// Time since the first sighting, as far as it is known.
    fn age_at(self, now_s: u32) -> u32 {
        (now_s - self.last_s.min(now_s)).saturating_add(u32::from(self.age_s))
    }

    /// Whether the first sighting was before that time.
    fn is_older_than(self, at_s: u32) -> bool {
        // An age that has reached its limit says no more than that it is great.
        self.age_s == u16::MAX || self.last_s.saturating_sub(u32::from(self.age_s)) < at_s
    }

    fn weight_at(self, now_s: u32) -> f64 {
        f64::from(self.weight) * decay(self.idle_h(now_s))
    }

    /// Whether [`Self::weight_at`] is less than `limit`, which is positive.
    fn is_lighter_than(self, limit: f64, now_s: u32) -> bool {
        // More than what rounding may make of either side.
        const MARGIN: f64 = 1e-9;
        let weight = f64::from(self.weight);
        // e to the power of -x is 1 - x at least, and 1 at most: mostly that tells.
        let at_least = weight * (1.0 - LAMBDA * self.idle_h(now_s));
        weight < limit || at_least < limit * (1.0 + MARGIN) && self.weight_at(now_s) < limit
    }

    fn idle_h(self, now_s: u32) -> f64 {
        f64::from(now_s.saturating_sub(self.last_s)) / 3600.0
    }
}

/// The tables of one user.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// The last bits of the keys, compared first: they fill few cache lines.
    tags: Vec<u16>,
    entries: Vec<Entry>,
    /// Where each dimension's entries end.
    ends: [u16; N_DIMENSIONS],
}

/// Where the values of an event stand in a user's tables.
#[derive(Clone, Copy)]
pub(super) struct Found {
    indexes: [Option<u16>; N_DIMENSIONS],
    known: [bool; N_DIMENSIONS],
}

impl Found {
    #[inline]
    pub(super) fn is_known(&self, dimension: Dimension) -> bool {
        self.known[dimension as usize]
    }

    /// Seen at all, known or not.
    #[inline]
    pub(super) fn is_seen(&self, dimension: Dimension) -> bool {
        self.indexes[dimension as usize].is_some()
    }
}

impl Seen {
    pub(super) const HEAP_BYTES_MAX: usize = ENTRIES_MAX * (size_of::<u16>() + size_of::<Entry>());

    pub(super) fn find(&self, features: &Features, now_s: u32) -> Found {
        let mut found = Found {
            indexes: [None; N_DIMENSIONS],
            known: [false; N_DIMENSIONS],
        };
        for (dimension, &key) in features.keys.iter().enumerate() {
            if let Some(i) = self.position(dimension, key) {
                found.indexes[dimension] = Some(i as u16);
                found.known[dimension] = self.entries[i].is_known(now_s);
            }
        }
        found
    }

    fn position(&self, dimension: usize, key: u64) -> Option<usize> {
        if key == ABSENT {
            return None;
        }
        let (mut start, end) = self.bounds(dimension);
        loop {
            let i = start + position_of(key as u16, &self.tags[start..end])?;
            if self.entries[i].key == key {
                return Some(i);
            }
            start = i + 1;
        }
    }

    /// Nothing was seen later than now.
    pub(super) fn set_back(&mut self, now_s: u32) {
        for entry in &mut self.entries {
            entry.last_s = entry.last_s.min(now_s);
        }
    }

    /// Whether the decayed weight of a value is less than `limit`, which is positive.
    pub(super) fn is_lighter_than(
        &self,
        limit: f64,
        found: &Found,
        dimension: Dimension,
        now_s: u32,
    ) -> bool {
        found.indexes[dimension as usize]
            .is_none_or(|i| self.entries[usize::from(i)].is_lighter_than(limit, now_s))
    }

    /// Fetches what [`Self::find`] begins with.
    pub(super) fn prefetch(&self) {
        for i in (0..self.tags.len()).step_by(32) {
            prefetch_index(&self.tags, i);
        }
    }

    /// Fetches the values of an event.
    pub(super) fn prefetch_values(&self, features: &Features) {
        for (dimension, &key) in features.keys.iter().enumerate() {
            if key != ABSENT {
                let (start, end) = self.bounds(dimension);
                if let Some(i) = position_of(key as u16, &self.tags[start..end]) {
                    prefetch_index(&self.entries, start + i);
                }
            }
        }
    }

    pub(super) fn has_any(&self, dimension: Dimension) -> bool {
        let (start, end) = self.bounds(dimension as usize);
        end > start
    }

    /// Adds weight to the values of an event that `is_taken` names, and tells which of all its
    /// values are known afterwards.
    pub(super) fn learn(
        &mut self,
        features: &Features,
        found: &Found,
        now_s: u32,
        weight: f64,
        is_taken: impl Fn(usize) -> bool,
    ) -> [bool; N_DIMENSIONS] {
        let mut known = found.known;
        // Most values were last seen with the same event.
        let mut last = (u32::MAX, 1.0);
        // From the last to the first, so that positions found stay right when entries move.
        for dimension in (0..N_DIMENSIONS).rev() {
            let key = features.keys[dimension];
            if key == ABSENT || !is_taken(dimension) {
                continue;
            }
            let entry = match found.indexes[dimension] {
                Some(i) => {
                    let entry = &mut self.entries[usize::from(i)];
                    let elapsed_s = now_s.saturating_sub(entry.last_s);
                    if elapsed_s != last.0 {
                        last = (elapsed_s, decay(f64::from(elapsed_s) / 3600.0));
                    }
                    entry.weight = (f64::from(entry.weight) * last.1 + weight) as f32;
                    entry.age_s = entry
                        .age_s
                        .saturating_add(elapsed_s.try_into().unwrap_or(u16::MAX));
                    entry.last_s = now_s.max(entry.last_s);
                    *entry
                }
                None => self.insert(dimension, key, now_s, weight, 0),
            };
            known[dimension] = entry.is_known(now_s);
        }
        known
    }

    /// Makes the values of an event that `is_taken` names known at once.
    pub(super) fn make_known(
        &mut self,
        features: &Features,
        now_s: u32,
        is_taken: impl Fn(usize) -> bool,
    ) {
        for (dimension, &key) in features.keys.iter().enumerate() {
            if key == ABSENT || !is_taken(dimension) {
                continue;
            }
            let Some(i) = self.position(dimension, key) else {
                self.insert(dimension, key, now_s, 1.0, QUARANTINE_S as u16);
                continue;
            };
            let entry = &mut self.entries[i];
            let age_s = entry.age_at(now_s).max(QUARANTINE_S);
            entry.age_s = age_s.try_into().unwrap_or(u16::MAX);
            entry.weight = entry.weight_at(now_s).max(1.0) as f32;
            entry.last_s = now_s.max(entry.last_s);
        }
    }

    /// Forgets the values of an event at `event_s` that `is_taken` names; of those known from before
    /// `first_s` only the weight that the event had given them.
    pub(super) fn take_back(
        &mut self,
        features: &Features,
        (first_s, event_s): (u32, u32),
        weight: f64,
        is_taken: impl Fn(usize) -> bool,
    ) {
        for (dimension, &key) in features.keys.iter().enumerate() {
            if !is_taken(dimension) {
                continue;
            }
            let Some(i) = self.position(dimension, key) else {
                continue;
            };
            let entry = &mut self.entries[i];
            if entry.is_older_than(first_s) {
                let since_h = f64::from(entry.last_s.saturating_sub(event_s)) / 3600.0;
                let left = f64::from(entry.weight) - weight * decay(since_h);
                entry.weight = left.max(0.0) as f32;
            } else {
                self.tags.remove(i);
                self.entries.remove(i);
                for end in &mut self.ends[dimension..] {
                    *end -= 1;
                }
            }
        }
    }

    fn insert(&mut self, dimension: usize, key: u64, now_s: u32, weight: f64, age_s: u16) -> Entry {
        let entry = Entry {
            key,
            weight: weight as f32,
            last_s: now_s,
            age_s,
        };
        let (start, end) = self.bounds(dimension);
        if end - start >= VALUES_MAX[dimension] {
            let i = self.least(start, end, now_s);
            self.tags[i] = key as u16;
            self.entries[i] = entry;
        } else {
            // Doubling would hold a third more for every user.
            if self.entries.len() == self.entries.capacity() {
                self.entries.reserve_exact(GROWTH);
                self.tags.reserve_exact(GROWTH);
            }
            self.tags.insert(end, key as u16);
            self.entries.insert(end, entry);
            for end in &mut self.ends[dimension..] {
                *end += 1;
            }
        }
        entry
    }

    /// The entry with the least weight; of equals the one not seen for longer, then the smaller
    /// key.
    fn least(&self, start: usize, end: usize, now_s: u32) -> usize {
        let rank = |i: usize| {
            let entry = self.entries[i];
            (entry.weight_at(now_s), entry.last_s, entry.key)
        };
        let mut least = start;
        let mut least_rank = rank(start);
        for i in start + 1..end {
            let rank = rank(i);
            let is_less = rank.0 < least_rank.0
                || math::is_equal(rank.0, least_rank.0)
                    && (rank.1, rank.2) < (least_rank.1, least_rank.2);
            if is_less {
                least = i;
                least_rank = rank;
            }
        }
        least
    }

    fn bounds(&self, dimension: usize) -> (usize, usize) {
        let start = dimension
            .checked_sub(1)
            .map_or(0, |before| usize::from(self.ends[before]));
        (start, usize::from(self.ends[dimension]))
    }

    /// The keys of a dimension that are known, the weightiest first: so many at the most.
    pub(super) fn ranked(&self, dimension: Dimension, now_s: u32, n_max: usize) -> Vec<u64> {
        let (start, end) = self.bounds(dimension as usize);
        let known: Vec<(f64, u64)> = (start..end)
            .filter(|&i| self.entries[i].is_known(now_s))
            .map(|i| (self.entries[i].weight_at(now_s), self.entries[i].key))
            .collect();
        let order = |a: &(f64, u64), b: &(f64, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let ranked = first_of(known, n_max, order);
        ranked.into_iter().map(|(_, key)| key).collect()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.tags.capacity() * size_of::<u16>() + self.entries.capacity() * size_of::<Entry>()
    }

    pub(super) fn ends(&self) -> &[u16; N_DIMENSIONS] {
        &self.ends
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether all was seen by then, each value is one, and none of a dimension stands twice.
    pub(super) fn is_possible(&self, last_s: u32) -> bool {
        let is_possible = |dimension: usize, i: usize| {
            let entry = self.entries[i];
            entry.weight >= 0.0
                && entry.last_s <= last_s
                && self.position(dimension, entry.key) == Some(i)
        };
        (0..N_DIMENSIONS).all(|dimension| {
            let (start, end) = self.bounds(dimension);
            (start..end).all(|i| is_possible(dimension, i))
        })
    }

    /// Entries to make room for where so many are read: the event that they are read for brings some, too.
    pub(super) fn room_for(n_entries: usize) -> usize {
        ((n_entries / GROWTH + 1) * GROWTH).min(ENTRIES_MAX)
    }

    /// Takes over entries as [`Self::ends`] and [`Self::entries`] gave them; none if no history can
    /// have led to them.
    pub(super) fn from_parts(ends: [u16; N_DIMENSIONS], entries: Vec<Entry>) -> Option<Self> {
        let mut start = 0;
        for (end, values_max) in ends.into_iter().zip(VALUES_MAX) {
            let n_values = usize::from(end.checked_sub(start)?);
            if n_values > values_max {
                return None;
            }
            start = end;
        }
        if usize::from(start) != entries.len() {
            return None;
        }
        let mut tags = Vec::with_capacity(entries.capacity());
        tags.extend(entries.iter().map(|entry| entry.key as u16));
        Some(Self {
            tags,
            entries,
            ends,
        })
    }
}

/// Where a tag is first. Eight are compared at once.
fn position_of(tag: u16, tags: &[u16]) -> Option<usize> {
    let (eights, rest) = tags.as_chunks::<8>();
    let is_in = |eight: &[u16; 8]| {
        let hits = eight.iter().map(|it| u16::from(*it == tag));
        hits.fold(0, |hits, hit| hits | hit) != 0
    };
    let first = eights.iter().position(is_in);
    let start = first.map_or(tags.len() - rest.len(), |i| 8 * i);
    let i = tags[start..].iter().position(|it| *it == tag)?;
    Some(start + i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(key: u64) -> Features {
        let mut features = Features {
            timestamp_ms: 0,
            keys: [ABSENT; N_DIMENSIONS],
            kind: 1,
            bytes: 0.0,
            threat_score: None,
            is_failure: false,
            is_login: false,
            is_sign_in: false,
        };
        features.keys[Dimension::Address as usize] = key;
        features.keys[Dimension::Endpoint as usize] = key;
        features
    }

    fn learn(seen: &mut Seen, key: u64, now_s: u32, weight: f64) {
        let features = address(key);
        let found = seen.find(&features, now_s);
        seen.learn(&features, &found, now_s, weight, |_| true);
    }

    fn is_known(seen: &Seen, key: u64, now_s: u32) -> bool {
        let found = seen.find(&address(key), now_s);
        found.is_known(Dimension::Address)
    }

    #[test]
    fn a_value_is_known_after_the_quarantine() {
        let mut seen = Seen::default();
        learn(&mut seen, 7, 100, 1.0);
        assert!(!is_known(&seen, 7, 100));
        assert!(!is_known(&seen, 7, 100 + QUARANTINE_S - 1));
        assert!(is_known(&seen, 7, 100 + QUARANTINE_S));
        assert!(!is_known(&seen, 8, 100 + QUARANTINE_S));
        learn(&mut seen, 9, 100, 0.4);
        assert!(!is_known(&seen, 9, 1_000_000), "it has too little weight");
        // Sightings in between do not begin the quarantine anew.
        for now_s in (0..90).map(|i| 100 + i * 1_000) {
            learn(&mut seen, 10, now_s, 1.0);
        }
        assert!(is_known(&seen, 10, 100 + 90_000));
    }

    #[test]
    fn weights_are_compared_as_if_they_were_decayed() {
        let now_s = 40_000_000;
        for weight in [0.3_f32, 1.0, 7.77, 1e6] {
            for idle_s in [0, 1, 3_600, 1_000_000, 39_000_000] {
                let entry = Entry {
                    key: 1,
                    weight,
                    last_s: now_s - idle_s,
                    age_s: 0,
                };
                let decayed = entry.weight_at(now_s);
                for limit in [
                    decayed.next_down(),
                    decayed,
                    decayed.next_up(),
                    decayed * (1.0 + 1e-9),
                    f64::from(weight),
                    f64::from(weight).next_up(),
                    decayed / 2.0,
                    decayed * 2.0,
                ] {
                    let expected = decayed < limit;
                    assert_eq!(entry.is_lighter_than(limit, now_s), expected, "{entry:?}");
                }
            }
        }
    }

    #[test]
    fn a_tag_is_found_where_it_is_first() {
        let tags: Vec<u16> = (0..40).map(|i| i * i % 23).collect();
        for len in 0..=tags.len() {
            for tag in 0..24 {
                let expected = tags[..len].iter().position(|it| *it == tag);
                assert_eq!(position_of(tag, &tags[..len]), expected);
            }
        }
        // Two keys with one tag.
        let mut seen = Seen::default();
        for key in [0x1_0007, 0x2_0007] {
            learn(&mut seen, key, 100, 1.0);
        }
        let places = [0x1_0007, 0x2_0007, 0x3_0007].map(|key| {
            let found = seen.find(&address(key), 100);
            found.indexes[Dimension::Address as usize]
        });
        assert_eq!(places, [Some(0), Some(1), None]);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_weighty() {
        assert_eq!(VALUES_MAX.iter().sum::<usize>(), ENTRIES_MAX);
        let mut seen = Seen::default();
        for now_s in 0..50 {
            learn(&mut seen, 1, now_s, 1.0);
        }
        for key in 2..1_000_000 {
            learn(&mut seen, key, 100 + key as u32, 1.0);
        }
        assert_eq!(seen.entries.len(), 32 + 96);
        assert!(is_known(&seen, 1, 2_000_000));
        let ranked = seen.ranked(Dimension::Address, 2_000_000, usize::MAX);
        assert_eq!((ranked[0], ranked[1], ranked.len()), (1, 999_999, 32));
        let first = seen.ranked(Dimension::Address, 2_000_000, 10);
        assert_eq!(first, ranked[..10]);
        // What was replaced is no longer there, what came last is.
        assert!(
            seen.find(&address(999_980), 2_000_000)
                .is_seen(Dimension::Address)
        );
        assert!(
            !seen
                .find(&address(5_000), 2_000_000)
                .is_seen(Dimension::Address)
        );
    }
}
