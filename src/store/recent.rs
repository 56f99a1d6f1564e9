//! Which event keys a writer has stored lately, in little memory: sources that are read side by side, such
//! as partitions, bring keys in no order, and to look each of them up in the store takes longer than
//! all else that is done with it.

use prefetch_index::prefetch_index;

/// Bytes of a filter; there are two.
const FILTER_BYTES: usize = 2 << 20;
/// Bits of a filter for each key: one in a hundred keys that it does not hold seems to be there.
const BITS_PER_KEY: usize = 12;
/// Bits of a block, which is a cache line, and how many of them a key sets.
const BLOCK_BITS: usize = 512;
const N_BITS_SET: u32 = 6;

/// A set of keys that may claim to hold one that it does not. A block-split Bloom filter (Putze, Sanders,
/// Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007).
struct Filter {
    blocks: Vec<[u64; BLOCK_BITS / 64]>,
    n_keys: usize,
}

impl Filter {
    fn new(n_bytes: usize) -> Self {
        Self {
            blocks: vec![[0; BLOCK_BITS / 64]; n_bytes * 8 / BLOCK_BITS],
            n_keys: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.n_keys * BITS_PER_KEY >= self.blocks.len() * BLOCK_BITS
    }

    /// The block of a hash, and the bits in it.
    fn places(&self, hash: u64) -> (usize, impl Iterator<Item = usize> + use<>) {
        let block = ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize;
        // The block is made of the upper bits, these are made of all others.
        let bits = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bit = move |i| (bits >> (9 * i)) as usize % BLOCK_BITS;
        (block, (0..N_BITS_SET).map(bit))
    }

    fn insert(&mut self, hash: u64) {
        let (block, bits) = self.places(hash);
        for bit in bits {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
        self.n_keys += 1;
    }

    fn may_hold(&self, hash: u64) -> bool {
        let (block, mut bits) = self.places(hash);
        bits.all(|bit| self.blocks[block][bit / 64] >> (bit % 64) & 1 == 1)
    }

    fn clear(&mut self) {
        self.blocks.fill([0; BLOCK_BITS / 64]);
        self.n_keys = 0;
    }
}

/// Keys that were stored lately. Every key of the store is in one of the filters, or no greater than
/// `floor`.
pub(super) struct Recent {
    current: Filter,
    previous: Filter,
    floor: Vec<u8>,
    /// No key in `previous` is greater.
    previous_max: Vec<u8>,
    /// The last key of the store.
    max: Vec<u8>,
}

impl Recent {
    /// For a store whose last key that is.
    pub(super) fn new(last: Vec<u8>) -> Self {
        Self::with_bytes(last, FILTER_BYTES)
    }

    fn with_bytes(last: Vec<u8>, n_bytes: usize) -> Self {
        Self {
            current: Filter::new(n_bytes),
            previous: Filter::new(n_bytes),
            floor: last.clone(),
            previous_max: last.clone(),
            max: last,
        }
    }

    /// Whether the store may hold a key; if not, it does not.
    pub(super) fn may_hold(&self, key: &[u8], hash: u64) -> bool {
        *key <= *self.max
            && (*key <= *self.floor || self.current.may_hold(hash) || self.previous.may_hold(hash))
    }

    /// Fetches what [`Self::may_hold`] and [`Self::insert`] look at.
    pub(super) fn prefetch(&self, key: &[u8], hash: u64) {
        prefetch_index(&self.current.blocks, self.current.places(hash).0);
        if *key <= *self.max {
            prefetch_index(&self.previous.blocks, self.previous.places(hash).0);
        }
    }

    /// Takes note of a key that is stored.
    pub(super) fn insert(&mut self, key: &[u8], hash: u64) {
        if *key > *self.max {
            self.max.clear();
            self.max.extend_from_slice(key);
        }
        if self.current.is_full() {
            self.floor.clone_from(&self.previous_max);
            self.previous_max.clone_from(&self.max);
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
        self.current.insert(hash);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    /// Sources in turns, each in order of its own, and far more keys than the filters hold.
    #[test]
    fn what_is_stored_is_never_denied() {
        let hasher = RandomState::new();
        let hash = |key: &[u8]| hasher.hash_one(key);
        let key = |i: u64| i.to_be_bytes();
        let mut stored: BTreeSet<u64> = (0..500).map(|i| i * 3).collect();
        let mut recent = Recent::with_bytes(key(1497).to_vec(), 4 << 10);
        let mut n_asked_for_nothing = 0;
        for i in 0..50_000_u64 {
            // Three that are close to each other, one far behind, and some that come again.
            let number = match i % 5 {
                0..3 => 1_000 + i + i % 5 * 40,
                3 => i / 5,
                _ => i.wrapping_mul(7_919) % (i + 1),
            };
            let may_hold = recent.may_hold(&key(number), hash(&key(number)));
            if stored.insert(number) {
                n_asked_for_nothing += u64::from(may_hold && i % 5 < 3);
                recent.insert(&key(number), hash(&key(number)));
            } else {
                assert!(may_hold, "{number}");
            }
        }
        // Of 30,000 new ones that come in about their order.
        assert!(n_asked_for_nothing < 900, "{n_asked_for_nothing}");
    }
}
