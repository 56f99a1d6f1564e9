//! What a writer has gathered and not written yet: reads of the store do not see it.

use std::collections::HashMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;

/// Keys in the write batch, which reads do not see yet.
#[derive(Default)]
pub(super) struct Pending {
    keys: Vec<u8>,
    ends: Vec<usize>,
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// Anomalies and embeddings in the write batch by key, for a rescore.
    pub(super) anomalies: HashMap<u32, Vec<u8>>,
    pub(super) embeddings: HashMap<u32, Vec<u8>>,
}

impl Pending {
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        self.index.find(hash, |&i| self.key(i) == key).copied()
    }

    pub(super) fn insert(&mut self, key: &[u8], hash: u64) -> u32 {
        let i = self.ends.len() as u32;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        let (keys, ends, hasher) = (&self.keys, &self.ends, &self.hasher);
        let rehash = |&i: &u32| hasher.hash_one(key_at(keys, ends, i));
        self.index.insert_unique(hash, i, rehash);
        i
    }

    fn key(&self, i: u32) -> &[u8] {
        key_at(&self.keys, &self.ends, i)
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.index.clear();
        self.anomalies.clear();
        self.embeddings.clear();
    }
}

fn key_at<'a>(keys: &'a [u8], ends: &[usize], i: u32) -> &'a [u8] {
    let i = i as usize;
    let start = i.checked_sub(1).map_or(0, |before| ends[before]);
    &keys[start..ends[i]]
}
