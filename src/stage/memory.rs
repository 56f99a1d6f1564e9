//! Which users' states are in memory: those of users who were active lately, then the records of as many others as
//! there is room for. The records of the rest are kept elsewhere, and read back when an event of theirs comes. Scores
//! do not depend on it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::Context as _;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::look::{N_SHARDS, Route};
use crate::batch::Records;
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

    /// Hands over all users who were there before the run with their records, sorted by user, until `each` breaks off.
    /// Called before any user has left memory.
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
    /// Bytes of states that may change between two checkpoints, if there are any: they are handed over
    /// at once, and cannot leave memory before.
    pub changed_bytes_max: usize,
    /// Bytes of states that are brought to memory before there is room made for more, and of what is
    /// said of events before it is handed on.
    pub step_bytes: usize,
    pub shelves: Arc<dyn Shelves>,
    /// Checkpoints that the sink has kept, if it keeps any: states leave memory no sooner than that.
    pub n_kept: Option<Arc<AtomicU32>>,
    /// Tasks that share it.
    pub n_tasks: Arc<AtomicUsize>,
}

/// States of users who were not active lately, packed to records: about half of the bytes, and nothing is read from a
/// shelf to have them back.
pub(super) type Packed = Users<Box<[u8]>>;

/// One in so many bytes of a shard is for states, however many are packed.
const STATES_SHARE: usize = 4;

/// Bytes of a state that is packed, with what an allocator rounds up.
pub(super) fn packed_bytes(record: &[u8]) -> usize {
    record.len() / 8 * 9 + 16
}

/// Bytes that may be said of an event: its anomaly and its context.
const SAID_BYTES: usize = 4 << 10;

impl Memory {
    /// Checkpoints that have been kept; all there will ever be, if none are.
    pub(super) fn kept(&self) -> u32 {
        let n_kept = self.n_kept.as_ref();
        n_kept.map_or(u32::MAX, |n_kept| n_kept.load(Ordering::Acquire))
    }

    /// Bytes of states of a task that may change before they have to be kept.
    pub(super) fn changed_bytes_max(&self) -> usize {
        match self.n_kept {
            Some(_) => self.changed_bytes_max / self.n_tasks(),
            None => usize::MAX,
        }
    }

    /// Bytes of states that a task may bring to memory before it makes room.
    pub(super) fn step_bytes(&self) -> usize {
        self.step_bytes / self.n_tasks()
    }

    /// Events that a task may score before it hands them on.
    pub(super) fn step_events(&self) -> usize {
        (self.step_bytes() / SAID_BYTES).max(1)
    }

    /// Packs states, then takes users out of memory, until their shard has its share of it; how many left.
    pub(super) fn make_room<D: Detector>(
        &self,
        detector: &D,
        users: &mut Users<D::User>,
        packed: &mut Packed,
        backing: &dyn Backing,
    ) -> anyhow::Result<usize> {
        let (share, kept) = (self.share(), self.kept());
        let mut record = Vec::new();
        while users.n_bytes() + packed.n_bytes() > share
            && users.n_bytes() > share / STATES_SHARE
            && let Some((key, user, state)) = users.take_idle(kept, D::user_bytes)
        {
            record.clear();
            detector.write_user(&state, &mut record);
            packed.insert(key, &user, Box::from(&*record), |it| packed_bytes(it));
        }
        let mut records = Records::default();
        let mut n_users = 0;
        while users.n_bytes() + packed.n_bytes() > share
            && let Some((_, user, record)) = packed.take_idle(kept, |it| packed_bytes(it))
        {
            n_users += 1;
            if self.n_kept.is_none() {
                records.push(&user, |bytes| bytes.extend_from_slice(&record));
            }
        }
        if !records.is_empty() {
            backing.put(&records)?;
        }
        Ok(n_users)
    }

    /// Bytes that a task may take.
    pub(super) fn of_task(&self) -> usize {
        self.bytes_max / self.n_tasks()
    }

    fn n_tasks(&self) -> usize {
        self.n_tasks.load(Ordering::Relaxed).max(1)
    }

    /// Bytes that a shard of a task may take.
    pub(super) fn share(&self) -> usize {
        self.of_task() / N_SHARDS
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
