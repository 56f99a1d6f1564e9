//! Looks at the events of a batch: what is known of its address, what a detector wants to know of
//! each, and to which shard its user belongs. This takes a third of the time of scoring and needs no order: it is done
//! by the thread that has parsed a block, while its lines are in that core's cache, unless the run is strict.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{OfBlock, Stage};
use crate::batch::{Batch, Block};
use crate::detect::{Detector, UserKey};
use crate::enrich::Enrichment;
use crate::report::warn;

/// More shards than cores of any machine this runs on, so that rayon can balance them.
pub(super) const N_SHARDS: usize = 64;

/// Looks at events for one detector.
pub(super) struct Look<D> {
    hasher: foldhash::fast::RandomState,
    enrichment: Arc<Enrichment>,
    detector: PhantomData<D>,
    /// The tasks that some users were seen in, until one was seen in two.
    tasks: HashMap<u64, Arc<str>>,
    /// The program that is to tell of that, if it was not told yet.
    name: Option<&'static str>,
}

/// Users whose tasks are remembered, of whom one in [`USERS_SHARE`] is.
const USERS_MAX: usize = 65_536;
const USERS_SHARE: u64 = 16;

impl<D> Look<D> {
    pub(super) fn new(
        name: Option<&'static str>,
        hasher: foldhash::fast::RandomState,
        enrichment: Arc<Enrichment>,
    ) -> Self {
        Self {
            hasher,
            enrichment,
            detector: PhantomData,
            tasks: HashMap::new(),
            name,
        }
    }
}

impl<D: Detector> Look<D> {
    /// Tells once if a user is in more than one task: each would know half of them.
    fn look_at_tasks(&mut self, blocks: &[Block]) {
        let Some(name) = self.name else {
            return;
        };
        for block in blocks.iter().filter(|block| !block.task.is_empty()) {
            let looks = block.looks.as_ref();
            let Some(route) = looks.and_then(|it| it.downcast_ref::<Route<D::Features>>()) else {
                continue;
            };
            let keys = route.keys.iter().enumerate();
            for (i, key) in keys.filter(|(_, key)| key.stable % USERS_SHARE == 0) {
                match self.tasks.get(&key.stable) {
                    Some(task) if *task == block.task => {}
                    Some(task) => {
                        let user = block.view(&block.events[i]).user;
                        let text = format!(
                            "user {user} is in {task} and in {}: each knows a part of what is usual \
                             for them; give messages their user as key",
                            block.task
                        );
                        warn(name, &text);
                        self.name = None;
                        return;
                    }
                    None if self.tasks.len() < USERS_MAX => {
                        self.tasks.insert(key.stable, Arc::clone(&block.task));
                    }
                    None => {}
                }
            }
        }
    }
}

impl<D: Detector> Stage for Look<D> {
    fn name(&self) -> &'static str {
        super::SCORE
    }

    fn of_block(&self) -> Option<OfBlock> {
        let (hasher, enrichment) = (self.hasher.clone(), Arc::clone(&self.enrichment));
        Some(Box::new(move |block| {
            look::<D>(block, &hasher, &enrichment);
        }))
    }

    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        let (hasher, enrichment) = (&self.hasher, &self.enrichment);
        let blocks = &mut batch.blocks;
        if blocks.iter().any(|block| block.looks.is_none()) {
            let new = blocks.par_iter_mut().filter(|block| block.looks.is_none());
            pool.install(|| new.for_each(|block| look::<D>(block, hasher, enrichment)));
        }
        self.look_at_tasks(&batch.blocks);
        Ok(())
    }
}

/// Looks at the events of a block.
fn look<D: Detector>(
    block: &mut Block,
    hasher: &foldhash::fast::RandomState,
    enrichment: &Enrichment,
) {
    enrichment.fill(block);
    block.looks = Some(Box::new(Route::of::<D>(block, hasher)));
}

/// What is known of the events of a block before they are scored, and which go to which shard.
pub(super) struct Route<F> {
    pub(super) features: Vec<F>,
    pub(super) keys: Vec<UserKey>,
    /// Where the users' states are in their shards, as far as was looked ahead.
    pub(super) found: Vec<Option<u32>>,
    pub(super) shard_of: Vec<u8>,
    /// Event indexes, those of shard 0 first, in input order within a shard.
    order: Vec<u32>,
    /// Where in `order` each shard begins; one more for the end.
    starts: Vec<u32>,
}

impl<F> Route<F> {
    fn of<D: Detector<Features = F>>(block: &Block, hasher: &foldhash::fast::RandomState) -> Self {
        let n_events = block.events.len();
        let mut features = Vec::with_capacity(n_events);
        let mut keys = Vec::with_capacity(n_events);
        let mut shards = Vec::with_capacity(n_events);
        for event in &block.events {
            let view = block.view(event);
            let key = UserKey::of(view.user, hasher);
            features.push(D::features(&view));
            keys.push(key);
            shards.push(shard_of(key) as u8);
        }
        Self::new(features, keys, shards)
    }

    fn new(features: Vec<F>, keys: Vec<UserKey>, shard_of: Vec<u8>) -> Self {
        let mut starts = vec![0; N_SHARDS + 1];
        for &shard in &shard_of {
            starts[usize::from(shard) + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![0; shard_of.len()];
        for (i, &shard) in shard_of.iter().enumerate() {
            let slot = &mut next[shard as usize];
            order[*slot as usize] = i as u32;
            *slot += 1;
        }
        Self {
            features,
            keys,
            found: Vec::new(),
            shard_of,
            order,
            starts,
        }
    }

    /// Splits off the events from that one on, as their block is split.
    pub(super) fn split_off(&mut self, event: usize) -> Self {
        let rest = Self::new(
            self.features.split_off(event),
            self.keys.split_off(event),
            self.shard_of.split_off(event),
        );
        let (features, keys) = (take(&mut self.features), take(&mut self.keys));
        *self = Self::new(features, keys, take(&mut self.shard_of));
        rest
    }

    /// The events of a shard that are in a range.
    pub(super) fn events_of(&self, shard: usize, range: Range<usize>) -> &[u32] {
        let events = &self.order[self.starts[shard] as usize..self.starts[shard + 1] as usize];
        let first = events.partition_point(|&event| (event as usize) < range.start);
        let end = events.partition_point(|&event| (event as usize) < range.end);
        &events[first..end]
    }
}

/// The shard of a user. The table of users goes by other bits.
pub(super) fn shard_of(key: UserKey) -> usize {
    (key.table >> 24) as usize % N_SHARDS
}

/// An event's place in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) block: usize,
    pub(super) event: usize,
}

/// The events between two places.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Place,
    pub(super) to: Place,
}

impl Span {
    /// Those of a block, which has `n_events`; none if there are none.
    pub(super) fn within(self, block: usize, n_events: usize) -> Option<Range<usize>> {
        if block < self.from.block || block > self.to.block {
            return None;
        }
        let start = if block == self.from.block {
            self.from.event
        } else {
            0
        };
        let end = if block == self.to.block {
            self.to.event
        } else {
            n_events
        };
        (start < end).then_some(start..end)
    }
}
