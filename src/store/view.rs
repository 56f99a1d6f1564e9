//! What questions are put to: a database as it was at one moment, whoever has it open. It reads single
//! values and walks through families; what these mean is put together from both.

mod known;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{ReadOptions, Snapshot};

pub use known::IdWalk;

use super::protocol::{Answer, Ask, WriterInfo};
use super::remote::{Borrowed, family_number, unexpected};
use super::walk::{UserWalk, Walk};
use super::{Store, read_error};
use crate::schema;
use crate::time::now_ms;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// In which order of time to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// A database at one moment.
pub struct View<'a> {
    pub(super) path: &'a Path,
    pub(super) source: Source<'a>,
    pub(super) as_of_ms: i64,
    pub(super) writer: Option<WriterInfo>,
}

/// Who reads for it.
pub(super) enum Source<'a> {
    /// We do, and we alone write: it is as it is.
    Latest(&'a Store),
    /// We do, while others of our threads write.
    Snapshot(&'a Store, Snapshot<'a>),
    /// We do, and nobody writes.
    Opened(Arc<Store>),
    /// The program that has it open.
    Remote(Borrowed<'a>),
}

impl Store {
    /// The store as it is at any moment, for the program that writes to it. Between two reads it may
    /// change.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            path: &self.path,
            source: Source::Latest(self),
            as_of_ms: now_ms(),
            writer: None,
        }
    }

    /// The store as it is now, whatever is written to it meanwhile.
    ///
    /// # Errors
    /// If a write has failed half-way: the store has to be opened anew then.
    pub(super) fn snapshot(&self) -> anyhow::Result<View<'_>> {
        // Families take in the files of a large write one after the other.
        let gate = self.whole()?;
        let snapshot = self.db.snapshot();
        drop(gate);
        Ok(View {
            path: &self.path,
            source: Source::Snapshot(self, snapshot),
            as_of_ms: now_ms(),
            writer: None,
        })
    }
}

impl View<'_> {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path
    }

    /// Since when it does not change, in ms since 1970.
    #[must_use]
    pub fn as_of_ms(&self) -> i64 {
        self.as_of_ms
    }

    /// Who writes to the database, if somebody does.
    #[must_use]
    pub fn writer(&self) -> Option<&WriterInfo> {
        self.writer.as_ref()
    }

    /// The value of a key in a family.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn value(&self, family: &str, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let failed = |error| read_error(self.path, &error);
        match &self.source {
            Source::Latest(store) => store.get(family, key),
            Source::Opened(store) => store.get(family, key),
            Source::Snapshot(store, snapshot) => {
                let value = snapshot.get_cf(store.family(family), key);
                value.map_err(failed)
            }
            Source::Remote(_) => {
                let mut values = self.values(&[(family, key)])?;
                Ok(values.pop().flatten())
            }
        }
    }

    /// The values of several keys, each with its family, in their order.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn values(&self, keys: &[(&str, &[u8])]) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let Source::Remote(remote) = &self.source else {
            let value = |(family, key): &(&str, &[u8])| self.value(family, key);
            return keys.iter().map(value).collect();
        };
        let mut values = Vec::with_capacity(keys.len());
        // An answer holds as many as have room in it.
        while values.len() < keys.len() {
            let left = &keys[values.len()..];
            let named = left.iter();
            let named =
                named.map(|(family, key)| (family_number(family), serde_bytes::Bytes::new(key)));
            match remote.ask(&Ask::Values(named.collect()))? {
                Answer::Values(more) if (1..=left.len()).contains(&more.len()) => {
                    let more = more.into_iter();
                    values.extend(more.map(|value| value.map(serde_bytes::ByteBuf::into_vec)));
                }
                _ => return Err(unexpected()),
            }
        }
        Ok(values)
    }

    /// Walks a family from `from` on, in its order or against it. Against it, the walk begins
    /// at the last key that is not above `from`.
    #[must_use]
    pub fn walk(&self, family: &str, from: &[u8], order: Order) -> Walk<'_> {
        match &self.source {
            Source::Latest(store) => store.walk(family, from, order),
            Source::Opened(store) => store.walk(family, from, order),
            Source::Snapshot(store, snapshot) => {
                let iterator = snapshot.raw_iterator_cf_opt(store.family(family), walk_options());
                Walk::local(self.path, iterator, from, order)
            }
            Source::Remote(remote) => Walk::remote(remote, family, from, order),
        }
    }

    /// Walks the users that there are events of, by the index.
    #[must_use]
    pub fn walk_users(&self) -> UserWalk<'_> {
        let family = schema::BY_USER;
        match &self.source {
            Source::Latest(store) => UserWalk::local(store, None),
            Source::Opened(store) => UserWalk::local(store, None),
            Source::Snapshot(store, snapshot) => {
                let iterator = snapshot.raw_iterator_cf(store.family(family));
                UserWalk::local(store, Some(iterator))
            }
            Source::Remote(remote) => UserWalk::remote(remote),
        }
    }

    /// Bytes on disk by family.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn disk_bytes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        match &self.source {
            Source::Latest(store) | Source::Snapshot(store, _) => store.disk_bytes(),
            Source::Opened(store) => store.disk_bytes(),
            Source::Remote(remote) => match remote.ask(&Ask::DiskBytes)? {
                Answer::DiskBytes(sizes) => Ok(schema::FAMILIES.into_iter().zip(sizes).collect()),
                _ => Err(unexpected()),
            },
        }
    }
}

/// How walks read.
pub(super) fn walk_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    // A walk sees each block once.
    options.fill_cache(false);
    options
}
