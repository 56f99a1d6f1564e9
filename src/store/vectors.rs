//! What the store holds of embeddings, summed up by stretches of time. Whoever has derived something from
//! the embeddings of a stretch sees by its sum whether these still are the same, whatever has happened to
//! the store meanwhile: pruned, restored, merged, scored anew.
//!
//! A sum is over hashes of all entries, so that one can be taken in or out without the others.

use std::collections::{BTreeMap, HashMap};

use rocksdb::WriteBatch;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::hash::Hasher as _;

use super::admin::{Verified, show};
use super::{Order, Store, View};
use crate::schema;

/// Fixed, since sums are stored.
const KEY: (u64, u64) = (0x7665_6374_6f72, 1);
/// Stretches whose sums a writer remembers; beyond it they are read again.
const STRETCHES_MAX: usize = 4_096;

/// The embeddings of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorSum {
    pub n_entries: u64,
    pub sum: u128,
}

impl VectorSum {
    /// Takes in an entry.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.n_entries = self.n_entries.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.n_entries = self.n_entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }

    fn read(value: &[u8]) -> Option<Self> {
        let (n_entries, sum) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            n_entries: n_entries.parse().ok()?,
            sum: u128::from_str_radix(sum, 16).ok()?,
        })
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
    hasher.write(value);
    hasher.finish128().as_u128()
}

/// Sums by stretch.
pub type VectorSums = BTreeMap<i64, VectorSum>;

/// Keeps sums right while embeddings come and go. What it says goes into the same write as they do.
#[derive(Default)]
pub(super) struct SumKeeper {
    known: HashMap<i64, VectorSum>,
    changed: Vec<i64>,
}

impl SumKeeper {
    /// Notes that the embedding of an event is another one now; none is no embedding.
    pub(super) fn change(
        &mut self,
        store: &Store,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> anyhow::Result<()> {
        if old == new {
            return Ok(());
        }
        let stretch = schema::stretch_of(key);
        let sum = match self.known.entry(stretch) {
            std::collections::hash_map::Entry::Occupied(sum) => sum.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let value = store.get(schema::META, &schema::vector_sum_key(stretch))?;
                let sum = value.and_then(|value| VectorSum::read(&value));
                vacant.insert(sum.unwrap_or_default())
            }
        };
        if let Some(old) = old {
            sum.remove(key, old);
        }
        if let Some(new) = new {
            sum.add(key, new);
        }
        self.changed.push(stretch);
        Ok(())
    }

    /// Puts what has changed into a write. It is remembered until the next one: until then it may not
    /// be in the store yet.
    pub(super) fn put(&mut self, store: &Store, writes: &mut WriteBatch) {
        let meta = store.family(schema::META);
        self.changed.sort_unstable();
        self.changed.dedup();
        if self.known.len() > STRETCHES_MAX {
            let is_changed = |stretch: &i64| self.changed.binary_search(stretch).is_ok();
            self.known.retain(|stretch, _| is_changed(stretch));
        }
        for stretch in self.changed.drain(..) {
            let sum = self.known.get(&stretch).copied().unwrap_or_default();
            let key = schema::vector_sum_key(stretch);
            if sum.n_entries == 0 {
                writes.delete_cf(meta, key);
            } else {
                writes.put_cf(meta, key, format!("{} {:032x}", sum.n_entries, sum.sum));
            }
        }
    }
}

impl Store {
    /// Sums up embeddings that an earlier release has stored, once.
    pub(super) fn make_vector_sums(&self) -> anyhow::Result<()> {
        if self.view().has_vector_sums()? {
            return Ok(());
        }
        let meta = self.family(schema::META);
        let mut keeper = SumKeeper {
            changed: Vec::new(),
            known: self.view().sum_up_vectors()?.into_iter().collect(),
        };
        keeper.changed.extend(keeper.known.keys());
        let mut writes = WriteBatch::default();
        keeper.put(self, &mut writes);
        writes.put_cf(meta, schema::META_VECTORS, b"1");
        self.write(writes, true)
    }

    pub(super) fn verify_vector_sums(&self, verified: &mut Verified) -> anyhow::Result<()> {
        if !self.view().has_vector_sums()? {
            return Ok(());
        }
        let (kept, found) = (self.view().vector_sums()?, self.view().sum_up_vectors()?);
        for stretch in kept.keys().chain(found.keys()) {
            if kept.get(stretch) != found.get(stretch) {
                let key = schema::vector_sum_key(*stretch);
                let text = "is not the sum of the embeddings";
                verified.find(format!("{}: {text}", show(&key)));
            }
        }
        Ok(())
    }
}

impl View<'_> {
    /// The sums of all embeddings.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn vector_sums(&self) -> anyhow::Result<VectorSums> {
        if !self.has_vector_sums()? {
            return self.sum_up_vectors();
        }
        let mut sums = VectorSums::new();
        let prefix = schema::META_VECTORS_PREFIX.as_bytes();
        let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()?
            && key.starts_with(prefix)
        {
            if let Some(stretch) = schema::split_vector_sum_key(&key) {
                sums.insert(stretch, VectorSum::read(&value).unwrap_or_default());
            }
        }
        Ok(sums)
    }

    fn has_vector_sums(&self) -> anyhow::Result<bool> {
        Ok(self
            .value(schema::META, schema::META_VECTORS.as_bytes())?
            .is_some())
    }

    fn sum_up_vectors(&self) -> anyhow::Result<VectorSums> {
        let mut sums = VectorSums::new();
        let mut walk = self.walk(schema::EMBEDDINGS, &[], Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()? {
            let sum = sums.entry(schema::stretch_of(&key)).or_default();
            sum.add(&key, &value);
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_order_and_are_on_disk() {
        let (mut one, mut other) = (VectorSum::default(), VectorSum::default());
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        assert_ne!(one, other);
        other.remove(b"c", b"3");
        assert_eq!(one, other);
        let text = format!("{} {:032x}", one.n_entries, one.sum);
        assert_eq!(VectorSum::read(text.as_bytes()), Some(one));
        // What belongs to the key does not pass for a part of the value.
        assert_ne!(hash(b"ab", b"c"), hash(b"a", b"bc"));
        // Another value here makes every derived file useless.
        assert_eq!(hash(b"", b""), 0x808e_75c3_1a50_c903_c2c4_5d36_13ac_30fe);
    }
}
