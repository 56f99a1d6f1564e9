//! Walks through the same family of several stores at once, as if they were one.

use super::{Entry, Order, View, Walk};

/// A walk through a family of several stores, each key once, with the value of the first store that has
/// it.
pub struct Merge<'a> {
    walks: Vec<(Walk<'a>, Option<Entry>)>,
}

impl<'a> Merge<'a> {
    /// Walks from a key on.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn open(
        stores: impl IntoIterator<Item = &'a View<'a>>,
        family: &str,
        from: &[u8],
    ) -> anyhow::Result<Self> {
        let mut walks = Vec::new();
        for store in stores {
            let mut walk = store.walk(family, from, Order::OldestFirst);
            let first = walk.next_entry()?;
            walks.push((walk, first));
        }
        Ok(Self { walks })
    }

    /// The next entry, or none at the end.
    ///
    /// # Errors
    /// If a store cannot be read on.
    pub fn next_entry(&mut self) -> anyhow::Result<Option<Entry>> {
        Ok(self.next_of_all()?.map(|(entry, _)| entry))
    }

    /// The same with how many stores have the key.
    ///
    /// # Errors
    /// If a store cannot be read on.
    pub fn next_of_all(&mut self) -> anyhow::Result<Option<(Entry, usize)>> {
        let keys = self
            .walks
            .iter()
            .filter_map(|(_, next)| Some(&next.as_ref()?.0));
        let Some(least) = keys.min().cloned() else {
            return Ok(None);
        };
        let mut found = None;
        let mut n_stores = 0;
        for (walk, next) in &mut self.walks {
            if next.as_ref().is_some_and(|(key, _)| *key == least) {
                let entry = std::mem::replace(next, walk.next_entry()?);
                found = found.or(entry);
                n_stores += 1;
            }
        }
        Ok(found.map(|found| (found, n_stores)))
    }
}
