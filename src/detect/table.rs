//! How often a user was seen with each value: one small table for all kinds of values, laid out
//! so that a look-up of all three touches one or two cache lines.

use compact_str::CompactString;
use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::first_of;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dimension {
    Ip,
    Location,
    Kind,
}

/// Most values of one dimension that are kept for a user. One more, and only the more frequent
/// half stays: a made-up million of addresses costs a fixed amount of memory, and of disk each time
/// the user's baseline is stored.
pub(crate) const VALUES_MAX: usize = 1024;

/// Most bytes of the values of one dimension, likewise.
pub(crate) const VALUES_BYTES_MAX: u32 = 64 << 10;

/// One value and how often it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub value: CompactString,
    pub n_events: u32,
    /// The user's event count when it was seen last.
    pub last_event: u32,
}

/// Values that are fetched ahead at the most.
const FETCHED_MAX: usize = 128;

/// Values with counts, of all dimensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// For each entry 30 bits of the value's hash over 2 bits of dimension: compared first.
    tags: Vec<u32>,
    entries: Vec<Seen>,
    /// Bytes of the values of each dimension.
    n_bytes: [u32; 3],
}

impl Table {
    /// About the most bytes on the heap. Tables grow by doubling.
    pub(crate) const HEAP_BYTES_MAX: usize =
        3 * (VALUES_MAX * 2 * (size_of::<u32>() + size_of::<Seen>()) + VALUES_BYTES_MAX as usize);

    /// How often the value was seen.
    pub(crate) fn count(&self, tag: u32, value: &str) -> u32 {
        self.count_at(self.find(tag, value))
    }

    /// The same of a value that was found.
    pub(crate) fn count_at(&self, found: Option<usize>) -> u32 {
        found.map_or(0, |i| self.entries[i].n_events)
    }

    /// Counts the value once more, at the user's event number `event`. `found` is where it was before others were
    /// counted.
    pub(crate) fn learn(&mut self, found: Option<usize>, tag: u32, value: &str, event: u32) {
        let is_still_there =
            |i: &usize| self.tags.get(*i) == Some(&tag) && self.entries[*i].value == value;
        let found = found.filter(is_still_there);
        if let Some(i) = found.or_else(|| self.find(tag, value)) {
            let entry = &mut self.entries[i];
            entry.n_events = entry.n_events.saturating_add(1);
            entry.last_event = event;
            return;
        }
        self.push(
            tag,
            Seen {
                value: value.into(),
                n_events: 1,
                last_event: event,
            },
        );
        let dimension = tag & DIMENSION_MASK;
        let n_values = || {
            let tags = self.tags.iter();
            tags.filter(|&&t| t & DIMENSION_MASK == dimension).count()
        };
        if self.n_bytes[dimension as usize] > VALUES_BYTES_MAX
            || self.entries.len() > VALUES_MAX && n_values() > VALUES_MAX
        {
            self.halve(dimension);
        }
    }

    /// Counts the value once less; it goes when nothing is left.
    pub(crate) fn unlearn(&mut self, tag: u32, value: &str) {
        let Some(i) = self.find(tag, value) else {
            return;
        };
        let entry = &mut self.entries[i];
        entry.n_events = entry.n_events.saturating_sub(1);
        if entry.n_events == 0 {
            self.n_bytes[(tag & DIMENSION_MASK) as usize] -= value.len() as u32;
            self.tags.remove(i);
            self.entries.remove(i);
        }
    }

    pub(crate) fn insert(&mut self, dimension: Dimension, seen: Seen) {
        self.push(tag(dimension, &seen.value), seen);
    }

    fn push(&mut self, tag: u32, seen: Seen) {
        self.n_bytes[(tag & DIMENSION_MASK) as usize] += seen.value.len() as u32;
        self.tags.push(tag);
        self.entries.push(seen);
    }

    /// The values of a dimension, the most frequent first: so many at the most.
    pub(crate) fn ranked(&self, dimension: Dimension, n_max: usize) -> Vec<&Seen> {
        let seen: Vec<&Seen> = self
            .tags
            .iter()
            .zip(&self.entries)
            .filter(|(tag, _)| *tag & DIMENSION_MASK == dimension as u32)
            .map(|(_, entry)| entry)
            .collect();
        first_of(seen, n_max, |a, b| rank(a).cmp(&rank(b)))
    }

    /// Bytes on the heap, at the most: short values have none there.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.tags.capacity() * size_of::<u32>()
            + self.entries.capacity() * size_of::<Seen>()
            + self.n_bytes.iter().sum::<u32>() as usize
    }

    /// Fetches what [`Self::count`] begins with.
    pub(crate) fn prefetch(&self) {
        for i in (0..self.tags.len().min(FETCHED_MAX)).step_by(16) {
            prefetch_index(&self.tags, i);
        }
    }

    /// Fetches the values of these tags.
    pub(crate) fn prefetch_values(&self, tags: impl Iterator<Item = u32>) {
        let first = &self.tags[..self.tags.len().min(FETCHED_MAX)];
        for tag in tags {
            if let Some(i) = position(first, tag) {
                prefetch_index(&self.entries, i);
            }
        }
    }

    /// Where a value is.
    pub(crate) fn find(&self, tag: u32, value: &str) -> Option<usize> {
        let mut from = 0;
        while let Some(at) = position(&self.tags[from..], tag) {
            let i = from + at;
            if self.entries[i].value == value {
                return Some(i);
            }
            from = i + 1;
        }
        None
    }

    /// Drops the less frequent half of a dimension; of equals, the ones not seen for longer.
    fn halve(&mut self, dimension: u32) {
        let mut of_dimension: Vec<usize> = (0..self.tags.len())
            .filter(|&i| self.tags[i] & DIMENSION_MASK == dimension)
            .collect();
        of_dimension.sort_unstable_by(|&a, &b| rank(&self.entries[a]).cmp(&rank(&self.entries[b])));
        let mut is_kept = vec![true; self.tags.len()];
        let mut n_bytes = 0;
        for (rank, &i) in of_dimension.iter().enumerate() {
            n_bytes += self.entries[i].value.len() as u32;
            is_kept[i] = rank < VALUES_MAX / 2 && n_bytes <= VALUES_BYTES_MAX / 2;
        }
        let dropped = of_dimension.iter().filter(|&&i| !is_kept[i]);
        let n_dropped: u32 = dropped.map(|&i| self.entries[i].value.len() as u32).sum();
        self.n_bytes[dimension as usize] -= n_dropped;
        let mut kept = is_kept.iter();
        self.tags.retain(|_| *kept.next().expect("one flag a tag"));
        let mut kept = is_kept.iter();
        self.entries
            .retain(|_| *kept.next().expect("one flag an entry"));
    }
}

/// Where a tag stands among others: sixteen are compared at once.
#[inline]
fn position(tags: &[u32], tag: u32) -> Option<usize> {
    let (chunks, rest) = tags.as_chunks::<16>();
    // Counted, not searched: so there is nothing to stop for within a chunk.
    let n_same = |chunk: &[u32; 16]| chunk.iter().filter(|&&other| other == tag).count();
    let (start, among) = match chunks.iter().position(|chunk| n_same(chunk) > 0) {
        Some(number) => (number * 16, &chunks[number][..]),
        None => (tags.len() - rest.len(), rest),
    };
    let at = among.iter().position(|&other| other == tag)?;
    Some(start + at)
}

const DIMENSION_MASK: u32 = 3;

/// Sorts the frequent before the rare, then the recent before the old; a total order.
fn rank(seen: &Seen) -> (std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, &str) {
    (
        std::cmp::Reverse(seen.n_events),
        std::cmp::Reverse(seen.last_event),
        &seen.value,
    )
}

/// What tells values apart most of the time: part of a hash, and the dimension.
pub(crate) fn tag(dimension: Dimension, value: &str) -> u32 {
    // Attackers choose values, but collisions cost them a string comparison and no more than
    // VALUES_MAX of those.
    let hash = SipHasher13::new().hash(value.as_bytes());
    (hash as u32) & !DIMENSION_MASK | dimension as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_addresses_stay_within_the_limit() {
        let mut table = Table::default();
        let home = tag(Dimension::Ip, "10.0.0.1");
        for event in 0..1_000_000_u32 {
            if event % 100 == 0 {
                table.learn(None, home, "10.0.0.1", event);
            }
            let address = format!("2001:db8::{event:x}");
            table.learn(None, tag(Dimension::Ip, &address), &address, event);
        }
        table.learn(None, tag(Dimension::Kind, "LOGIN"), "LOGIN", 1_000_000);
        assert!(table.entries.len() <= VALUES_MAX + 1);
        assert_eq!(table.count(home, "10.0.0.1"), 10_000);
        let ranked = table.ranked(Dimension::Ip, usize::MAX);
        assert_eq!(ranked[0].value, "10.0.0.1");
        for n_max in [0, 1, 10, ranked.len(), ranked.len() + 1] {
            let first = table.ranked(Dimension::Ip, n_max);
            assert_eq!(first, ranked[..n_max.min(ranked.len())]);
        }
        assert_eq!(table.ranked(Dimension::Kind, 10).len(), 1);
    }

    #[test]
    fn a_value_is_found_wherever_it_is() {
        let mut table = Table::default();
        for n in 0..100_u32 {
            let value = format!("10.0.0.{n}");
            let of_value = tag(Dimension::Ip, &value);
            assert_eq!(table.find(of_value, &value), None);
            table.learn(None, of_value, &value, n);
            for (i, entry) in table.entries.iter().enumerate() {
                let of_entry = tag(Dimension::Ip, &entry.value);
                assert_eq!(table.find(of_entry, &entry.value), Some(i));
            }
        }
        // Where it was before is no more than a hint.
        let value = "10.0.0.7";
        let of_value = tag(Dimension::Ip, value);
        for found in [Some(7), Some(8), Some(1_000), None] {
            table.learn(found, of_value, value, 200);
        }
        assert_eq!(table.count(of_value, value), 5);
        assert_eq!(
            table
                .entries
                .iter()
                .map(|entry| entry.n_events)
                .sum::<u32>(),
            104
        );
        // The same tag for two values.
        table.push(
            of_value,
            Seen {
                value: "another".into(),
                n_events: 9,
                last_event: 0,
            },
        );
        assert_eq!(table.count(of_value, "another"), 9);
        assert_eq!(table.find(of_value, "a third"), None);
    }

    /// A thousand places of a thousand bytes were 1 MB a user, written with each of its events.
    #[test]
    fn long_values_stay_within_the_limit() {
        let mut table = Table::default();
        for event in 0..10_000_u32 {
            let place = format!("{event:01000}");
            table.learn(None, tag(Dimension::Location, &place), &place, event);
            let of_places = |seen: &Seen| seen.value.len();
            let n_bytes: usize = table.entries.iter().map(of_places).sum();
            assert!(n_bytes <= VALUES_BYTES_MAX as usize, "{n_bytes}");
            assert_eq!(n_bytes, table.n_bytes[1] as usize);
            assert_eq!(table.count(tag(Dimension::Location, &place), &place), 1);
        }
        assert!(table.entries.len() >= 32);
    }
}
