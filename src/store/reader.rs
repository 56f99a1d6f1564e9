//! Reads from the store: single records, and walks through families and indexes.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use super::counters::Counters;
use super::{Store, read_error};
use crate::batch::Records;
use crate::io::position::Position;
use crate::record::anomaly::Severity;
use crate::schema;
use crate::stage::{Backing, EachUser, Shelf, Shelves};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// In which order of time to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

impl Store {
    /// What the store holds.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let mut counters = match self.get(schema::META, schema::META_COUNTERS.as_bytes())? {
            None => Counters::default(),
            Some(value) => serde_json::from_slice(&value).with_context(|| {
                let shown = self.path.display();
                format!("the counters of {shown} are damaged: run `sg-store verify --db {shown}`")
            })?,
        };
        self.add_raised(&mut counters)?;
        Ok(counters)
    }

    /// The value of an event's key in one of the families that have such keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn value(&self, family: &str, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        self.get(family, key)
    }

    /// The keys of the events with that id; more than one if it was used at several times.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn keys_of_id(&self, event_id: &str) -> anyhow::Result<Vec<Vec<u8>>> {
        let prefix = schema::id_prefix(event_id);
        let mut keys = Vec::new();
        let mut walk = self.walk(schema::BY_ID, &prefix, Order::OldestFirst);
        while let Some((index_key, _)) = walk.next_entry()? {
            if !index_key.starts_with(&prefix) {
                break;
            }
            let mut key = Vec::new();
            schema::push_event_key(
                &mut key,
                schema::split_id_key(&index_key).unwrap_or(0),
                event_id,
            );
            // Another id may have the same hash.
            if self.get(schema::EVENTS, &key)?.is_some() {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The first of all event keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_event_key(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut walk = self.walk(schema::EVENTS, &[], Order::OldestFirst);
        Ok(walk.next_entry()?.map(|(key, _)| key))
    }

    /// The last of all event keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn last_event_key(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut walk = self.walk(schema::EVENTS, &[0xFF], Order::NewestFirst);
        Ok(walk.next_entry()?.map(|(key, _)| key))
    }

    /// Walks a family from `from` on, in its order or against it. Against it, the walk begins
    /// at the last key that is not above `from`.
    #[must_use]
    pub fn walk(&self, family: &str, from: &[u8], order: Order) -> Walk<'_> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        // A walk sees each block once.
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family), options);
        match order {
            Order::OldestFirst => iterator.seek(from),
            Order::NewestFirst => iterator.seek_for_prev(from),
        }
        Walk {
            store: self,
            iterator,
            order,
        }
    }

    /// Walks the users that there are events of, by the index.
    #[must_use]
    pub fn walk_users(&self) -> UserWalk<'_> {
        let mut iterator = self.db.raw_iterator_cf(self.family(schema::BY_USER));
        iterator.seek_to_first();
        UserWalk {
            store: self,
            iterator,
        }
    }

    /// What `sg-run` has learned of a user in a task, as the detector's record.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn baseline(&self, task: &str, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.get(schema::BASELINES, &schema::baseline_key(task, user))
    }

    /// The tasks that there are baselines of, that without a name among them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tasks(&self) -> anyhow::Result<Vec<String>> {
        let mut tasks = Vec::new();
        let mut from = Vec::new();
        loop {
            let mut walk = self.walk(schema::BASELINES, &from, Order::OldestFirst);
            let Some((key, _)) = walk.next_entry()? else {
                return Ok(tasks);
            };
            let (task, _) = schema::split_baseline_key(&key).context("a baseline has no name")?;
            from = schema::task_end(task);
            tasks.push(task.to_owned());
        }
    }

    /// The detector whose baselines are kept, if any are.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn detector(&self) -> anyhow::Result<Option<String>> {
        if let Some(name) = self.get(schema::META, schema::META_DETECTOR.as_bytes())? {
            return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
        }
        let mut walk = self.walk(schema::BASELINES, &[], Order::OldestFirst);
        // There was one detector before there were names.
        Ok(walk.next_entry()?.map(|_| "classic".to_owned()))
    }

    /// Calls `each` with the name of every user of a task and the record; that of what all share has
    /// no name.
    ///
    /// # Errors
    /// If the store cannot be read, or as `each` says.
    pub fn baselines(
        &self,
        task: &str,
        mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.baselines_until(task, &mut |user, record| {
            each(user, record).map(ControlFlow::Continue)
        })
    }

    /// The same until `each` breaks off.
    fn baselines_until(&self, task: &str, each: &mut EachUser<'_>) -> anyhow::Result<()> {
        let end = schema::task_end(task);
        let prefix = schema::task_prefix(task);
        let mut walk = self.walk(schema::BASELINES, &prefix, Order::OldestFirst);
        while let Some((key, record)) = walk.next_entry()?
            && key < end
        {
            let (_, user) = schema::split_baseline_key(&key).context("a baseline has no name")?;
            if each(user, &record)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How far the sources have been read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn positions(&self) -> anyhow::Result<Vec<(String, Position)>> {
        self.positions_under(schema::META_POSITION_PREFIX)
    }

    /// Positions by their sources, whose keys begin like this.
    pub(super) fn positions_under(&self, prefix: &str) -> anyhow::Result<Vec<(String, Position)>> {
        let prefix = prefix.as_bytes();
        let mut positions = Vec::new();
        let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()? {
            let Some(source) = key.strip_prefix(prefix) else {
                break;
            };
            positions.push((
                String::from_utf8(source.to_vec())?,
                serde_json::from_slice(&value)?,
            ));
        }
        Ok(positions)
    }

    /// Walks the anomalies of one severity between two times, both included.
    #[must_use]
    pub fn walk_severity(&self, severity: Severity, from_ms: i64, order: Order) -> Walk<'_> {
        let mut from = Vec::new();
        schema::push_severity_prefix(&mut from, severity, from_ms);
        if order == Order::NewestFirst {
            from.push(0xFF);
        }
        self.walk(schema::BY_SEVERITY, &from, order)
    }
}

impl Shelves for Arc<Store> {
    fn of_task(&self, task: &str) -> anyhow::Result<Shelf> {
        let backing = TaskBaselines {
            store: Arc::clone(self),
            task: task.to_owned(),
        };
        Ok(Shelf {
            backing: Arc::new(backing),
            is_backed: self.detector()?.is_some(),
            n_users: self.property(schema::BASELINES, "rocksdb.estimate-num-keys")?,
        })
    }
}

/// Users of a task who are not in memory: checkpoints have brought their records.
struct TaskBaselines {
    store: Arc<Store>,
    task: String,
}

impl Backing for TaskBaselines {
    fn get(&self, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.store.baseline(&self.task, user)
    }

    fn put(&self, _: &Records) -> anyhow::Result<()> {
        Ok(())
    }

    fn each(&self, each: &mut EachUser<'_>) -> anyhow::Result<()> {
        let task = &self.task;
        (self.store).baselines_until(task, &mut |user, record| match user {
            schema::SHARED_BASELINE => Ok(ControlFlow::Continue(())),
            _ => each(user, record),
        })
    }

    fn advice(&self) -> &'static str {
        "restore the database from a backup, or export its events into a new one"
    }
}

/// A walk through a family.
pub struct Walk<'a> {
    store: &'a Store,
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    order: Order,
}

impl Walk<'_> {
    /// The next entry, or none at the end.
    ///
    /// # Errors
    /// If the store cannot be read on.
    pub fn next_entry(&mut self) -> anyhow::Result<Option<Entry>> {
        let entry = self
            .iterator
            .item()
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        if entry.is_none() {
            self.iterator
                .status()
                .map_err(|error| read_error(&self.store.path, &error))?;
            return Ok(None);
        }
        match self.order {
            Order::OldestFirst => self.iterator.next(),
            Order::NewestFirst => self.iterator.prev(),
        }
        Ok(entry)
    }
}

/// A walk through users, each by what its keys in the index begin with. Users whose hashes are equal
/// are one.
pub struct UserWalk<'a> {
    store: &'a Store,
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
}

impl UserWalk<'_> {
    /// The next user, or none at the end.
    ///
    /// # Errors
    /// If the store cannot be read on.
    pub fn next_user(&mut self) -> anyhow::Result<Option<[u8; 8]>> {
        let Some(user) = self.iterator.key().and_then(|key| key.first_chunk()) else {
            self.iterator
                .status()
                .map_err(|error| read_error(&self.store.path, &error))?;
            return Ok(None);
        };
        let user = *user;
        self.iterator.seek(schema::user_end(user));
        Ok(Some(user))
    }
}
