//! New events that were gathered for a write, with all that their keys are made of. Reads do not see
//! them yet. How they are written is said in `bulk.rs` and in `writer.rs`.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::schema;

/// Bytes of room for a few events, and for more than there are usually.
const GROWTH_BYTES: usize = 4 << 20;
/// What is known of an event besides its bytes, and its place in what is sorted.
const ENTRY_BYTES: usize = 96;

/// Events that are written together.
pub(super) struct Gathered {
    /// Bytes that events take at the most, but for the last of them.
    n_bytes_max: usize,
    /// Of each event its key, then its line.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// The first and the last event in the order of their keys.
    ends: Option<(u32, u32)>,
}

/// An event.
pub(super) struct Entry {
    start: usize,
    key_len: u16,
    end: usize,
    pub(super) timestamp_ms: i64,
    /// Hash of the event id, and of the user.
    pub(super) id: u64,
    pub(super) user: u64,
    /// See [`schema::severity_byte`].
    pub(super) severity: u8,
}

impl Gathered {
    /// For events that take about so many bytes at the most.
    pub(super) fn new(n_bytes_max: usize) -> Self {
        Self {
            n_bytes_max,
            bytes: Vec::new(),
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            ends: None,
        }
    }

    /// Another one, of the same hashes, for the events that come next.
    pub(super) fn another(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            ..Self::new(self.n_bytes_max)
        }
    }

    /// What tells keys apart quickly.
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The place of an event among those gathered.
    pub(super) fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        let is_it = |&i: &u32| self.key(&self.entries[i as usize]) == key;
        self.index.find(hash, is_it).copied()
    }

    /// Takes an event that is not there yet; `push_line` appends its line.
    pub(super) fn insert(
        &mut self,
        (key, hash): (&[u8], u64),
        timestamp_ms: i64,
        (event_id, user): (&str, &str),
        line_bytes_max: usize,
        push_line: impl FnOnce(&mut Vec<u8>),
    ) {
        let n_bytes = key.len() + line_bytes_max;
        if self.bytes.capacity() - self.bytes.len() < n_bytes {
            // Memory that is not written to is none yet; to grow step by step copies all each time.
            let n_bytes_left = match self.bytes.capacity() {
                0 => 0,
                _ => self.n_bytes_max.saturating_sub(self.bytes.len()),
            };
            self.bytes
                .reserve_exact(n_bytes.max(n_bytes_left).max(GROWTH_BYTES));
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        push_line(&mut self.bytes);
        let line = &self.bytes[start + key.len()..];
        let end = start + key.len() + line.trim_ascii_end().len();
        self.bytes.truncate(end);
        let i = self.entries.len() as u32;
        self.entries.push(Entry {
            start,
            key_len: key.len() as u16,
            end,
            timestamp_ms,
            id: schema::hash(event_id),
            user: schema::hash(user),
            severity: schema::severity_byte(None),
        });
        self.ends = Some(match self.ends {
            None => (i, i),
            Some((first, last)) if self.order(i, first).is_lt() => (i, last),
            Some((first, last)) if self.order(i, last).is_gt() => (first, i),
            Some(ends) => ends,
        });
        let (bytes, entries, hasher) = (&self.bytes, &self.entries, &self.hasher);
        let rehash = |&i: &u32| hasher.hash_one(key_of(bytes, &entries[i as usize]));
        self.index.insert_unique(hash, i, rehash);
    }

    /// How the keys of two events are ordered. Times tell mostly, and are closer than keys.
    pub(super) fn order(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (&self.entries[a as usize], &self.entries[b as usize]);
        let by_time = a.timestamp_ms.cmp(&b.timestamp_ms);
        by_time.then_with(|| self.key(a).cmp(self.key(b)))
    }

    /// The first and the last key, if there are any.
    pub(super) fn end_keys(&self) -> Option<(&[u8], &[u8])> {
        let key = |i: u32| self.key(&self.entries[i as usize]);
        self.ends.map(|(first, last)| (key(first), key(last)))
    }

    /// The event that was taken last.
    pub(super) fn last(&self) -> u32 {
        self.entries.len() as u32 - 1
    }

    pub(super) fn set_severity(&mut self, i: u32, severity: u8) {
        self.entries[i as usize].severity = severity;
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn key(&self, entry: &Entry) -> &[u8] {
        key_of(&self.bytes, entry)
    }

    pub(super) fn event_id(&self, entry: &Entry) -> &[u8] {
        schema::event_id_of_key(self.key(entry))
    }

    pub(super) fn line(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start + usize::from(entry.key_len)..entry.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that they take, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * ENTRY_BYTES
    }

    /// Begins anew. What a long line has made grow beyond what is usual is given back.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(self.n_bytes_max + GROWTH_BYTES);
        self.entries.clear();
        self.index.clear();
        self.ends = None;
    }
}

fn key_of<'a>(bytes: &'a [u8], entry: &Entry) -> &'a [u8] {
    &bytes[entry.start..entry.start + usize::from(entry.key_len)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_the_first_and_the_last_key() {
        let mut gathered = Gathered::new(1 << 20);
        for round in 0..3_i64 {
            assert_eq!(gathered.end_keys(), None);
            let mut keys = Vec::new();
            for i in 0..50 {
                let timestamp_ms = 1_000 + (i * 37 + round * 11) % 20;
                let event_id = format!("evt_{}", i * 7_919 % 50);
                let mut key = Vec::new();
                schema::push_event_key(&mut key, timestamp_ms, &event_id);
                let hash = gathered.hash(&key);
                gathered.insert((&key, hash), timestamp_ms, (&event_id, "ann"), 2, |line| {
                    line.extend_from_slice(b"{}");
                });
                keys.push(key);
                let ends = keys.iter().min().zip(keys.iter().max());
                let ends = ends.map(|(first, last)| (&first[..], &last[..]));
                assert_eq!(gathered.end_keys(), ends);
            }
            gathered.clear();
        }
    }
}
