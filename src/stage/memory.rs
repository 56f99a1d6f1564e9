//! Which users' states are in memory: those of users who were active lately. The records of the others
//! are kept elsewhere, and read back when an event of theirs comes. Scores do not depend on it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::Context as _;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::look::{N_SHARDS, Place, Route};
use crate::batch::{Block, Records};
use crate::detect::{Detector, UserKey, Users};
use crate::record::text::printable;

/// Where the records of each task are.
pub trait Shelves: Send + Sync {
    /// Those of one task.
    ///
    /// # Errors
    /// If it cannot be told whether there are any.
    fn of_task(&self, task: &str) -> anyhow::Result<Shelf>;
}

/// The records of one task.
pub struct Shelf {
    pub backing: Arc<dyn Backing>,
    /// There may be some from before.
    pub is_backed: bool,
    /// About how many users there are on all shelves.
    pub n_users: u64,
}

/// What is called with users and records until it breaks off.
pub type EachUser<'a> = dyn FnMut(&str, &[u8]) -> anyhow::Result<ControlFlow<()>> + 'a;

/// Where the records of users are for whom there is no room in memory.
pub trait Backing: Send + Sync {
    /// The record of a user, if there is one; under no name, of what all share.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, user: &str) -> anyhow::Result<Option<Vec<u8>>>;

    /// Takes over the records of users that leave memory. It need not keep those that checkpoints
    /// have brought it.
    ///
    /// # Errors
    /// If they cannot be written.
    fn put(&self, records: &Records) -> anyhow::Result<()>;

    /// Hands over all users with their records, sorted by user, until `each` breaks off.
    ///
    /// # Errors
    /// If they cannot be read, or as `each` says.
    fn each(&self, each: &mut EachUser<'_>) -> anyhow::Result<()>;

    /// What to do about a record that cannot be used.
    fn advice(&self) -> &'static str;
}

/// How much memory states may take, and where they go then.
#[derive(Clone)]
pub struct Memory {
    pub bytes_max: usize,
    pub shelves: Arc<dyn Shelves>,
    /// Checkpoints that the sink has kept, if it keeps any: states leave memory no sooner than that.
    pub n_kept: Option<Arc<AtomicU32>>,
    /// Tasks that share it.
    pub n_tasks: Arc<AtomicUsize>,
}

/// One in so many bytes of states may change between two checkpoints: they are handed over at once,
/// and cannot leave memory before.
const CHANGED_SHARE_MIN: usize = 8;

impl Memory {
    fn kept(&self) -> u32 {
        let n_kept = self.n_kept.as_ref();
        n_kept.map_or(u32::MAX, |n_kept| n_kept.load(Ordering::Acquire))
    }

    /// Whether so much has changed that it has to be kept.
    pub(super) fn wants_checkpoint<'a, T: 'a>(
        &self,
        shards: impl Iterator<Item = &'a Users<T>>,
    ) -> bool {
        let (mut n_users, mut n_changed, mut n_bytes) = (0, 0, 0);
        for users in shards {
            n_users += users.n_users();
            n_changed += users.n_changed();
            n_bytes += users.n_bytes();
        }
        self.n_kept.is_some()
            && n_bytes / n_users.max(1) * n_changed > self.of_task() / CHANGED_SHARE_MIN
    }

    /// Takes users out of memory until their shard has its share of it; how many that were.
    pub(super) fn make_room<D: Detector>(
        &self,
        detector: &D,
        users: &mut Users<D::User>,
        backing: &dyn Backing,
    ) -> anyhow::Result<usize> {
        let mut records = Records::default();
        let mut n_users = 0;
        let is_kept = self.n_kept.is_some();
        users.make_room(self.share(), self.kept(), D::user_bytes, |user, state| {
            n_users += 1;
            if !is_kept {
                records.push(user, |record| detector.write_user(state, record));
            }
        });
        if !records.is_empty() {
            backing.put(&records)?;
        }
        Ok(n_users)
    }

    /// Bytes that a task may take.
    pub(super) fn of_task(&self) -> usize {
        self.bytes_max / self.n_tasks.load(Ordering::Relaxed).max(1)
    }

    /// Bytes that a shard of a task may take.
    pub(super) fn share(&self) -> usize {
        self.of_task() / N_SHARDS
    }
}

/// Reads the records of the users of these events that are not in memory, each once.
pub(super) fn read<F>(
    backing: &dyn Backing,
    shard: usize,
    routes: &[Route<F>],
    blocks: &[Block],
) -> anyhow::Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let mut asked = hashbrown::HashSet::with_hasher(foldhash::fast::RandomState::default());
    for (block, route) in routes.iter().enumerate() {
        for &event in route.events_of(shard) {
            let event = event as usize;
            let key = route.keys[event];
            if route.found[event].is_some() || !asked.insert(key.stable) {
                continue;
            }
            let user = blocks[block].view(&blocks[block].events[event]).user;
            if let Some(record) = backing.get(user)? {
                let place = Place { block, event };
                missing.push(Missing { key, place, record });
            }
        }
    }
    Ok(missing)
}

/// A user who is not in memory: the record, and the first event.
pub(super) struct Missing {
    pub(super) key: UserKey,
    pub(super) place: Place,
    record: Vec<u8>,
}

impl Missing {
    /// The state of the user of that name.
    pub(super) fn state<D: Detector>(
        &self,
        detector: &D,
        user: &str,
        backing: &dyn Backing,
    ) -> anyhow::Result<D::User> {
        state(detector, user, &self.record, backing)
    }
}

/// The state of a user whose record comes from a shelf.
pub(super) fn state<D: Detector>(
    detector: &D,
    user: &str,
    record: &[u8],
    backing: &dyn Backing,
) -> anyhow::Result<D::User> {
    detector.read_user(record).with_context(|| {
        let (user, advice) = (printable(user), backing.advice());
        format!("the baseline of {user} cannot be used: {advice}")
    })
}

/// Finds the states of the users of all events that have one.
pub(super) fn find<F: Send + Sync>(
    pool: &ThreadPool,
    routes: &mut [Route<F>],
    find: impl Fn(usize, UserKey) -> Option<u32> + Send + Sync,
) {
    pool.install(|| {
        routes.par_iter_mut().for_each(|route| {
            let events = route.shard_of.iter().zip(&route.keys);
            let found = events.map(|(&shard, &key)| find(usize::from(shard), key));
            route.found = found.collect();
        });
    });
}
