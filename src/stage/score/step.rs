//! How far into a batch the scorer goes at a time: as far as there is memory for the states that it
//! takes. They are brought there, and what is left of the batch comes next.

use std::ops::ControlFlow;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{Score, Shard};
use crate::batch::Block;
use crate::detect::{Detector, UserKey};
use crate::stage::look::Place;
use crate::stage::memory;

/// Records that are read at once at the most, and what they may take of a step.
const READS_MAX: usize = 256;
const READS_SHARE: usize = 8;
/// Bytes that a record is taken for before any was read.
const RECORD_BYTES: usize = 8 << 10;
/// Bytes that a user takes who was never seen before: about what one event teaches.
const NEW_USER_BYTES: usize = 2 << 10;

/// What a step may still take.
struct Step {
    events: usize,
    /// Bytes of states that are brought to memory.
    brought: usize,
    /// Bytes of states that change and were not changed before; no matter if none.
    changed: Option<usize>,
}

impl Step {
    fn is_over(&self) -> bool {
        self.events == 0 || self.brought == 0 || self.changed == Some(0)
    }

    fn take(&mut self, n_bytes: usize) {
        self.brought = self.brought.saturating_sub(n_bytes);
        self.change(n_bytes);
    }

    fn change(&mut self, n_bytes: usize) {
        if let Some(left) = &mut self.changed {
            *left = left.saturating_sub(n_bytes);
        }
    }
}

/// A user who is not in memory, and the first event.
struct Missing {
    key: UserKey,
    place: Place,
}

impl Missing {
    fn name<'a>(&self, blocks: &'a [Block]) -> &'a str {
        let block = &blocks[self.place.block];
        block.view(&block.events[self.place.event]).user
    }
}

impl<D: Detector> Score<D> {
    /// Finds where the users of a batch are, and brings those to memory that are elsewhere. If that
    /// is too much at once, events from some place on are taken out and returned.
    pub(super) fn bring_users(
        &mut self,
        blocks: &mut Vec<Block>,
        pool: &ThreadPool,
    ) -> anyhow::Result<Vec<Block>> {
        if self.shelf.is_backed && self.bring_all_at.is_some_and(|at| self.n_scored >= at) {
            self.bring_all()?;
        }
        let memory = &self.config.memory;
        let n_events: usize = self.routes.iter().map(|route| route.keys.len()).sum();
        let mut step = Step {
            events: memory.step_events(),
            brought: memory.step_bytes().max(1),
            changed: None,
        };
        let n_bytes_left = memory
            .changed_bytes_max()
            .saturating_sub(self.n_bytes_changed());
        let n_users = n_events.min(step.events);
        if self.n_bytes().min(n_users * D::USER_BYTES_MAX) + n_users * NEW_USER_BYTES
            >= n_bytes_left
        {
            step.changed = Some(n_bytes_left);
        }
        // Whoever is not here is new, unless there are some elsewhere; scoring finds the others a few
        // events ahead.
        if !self.shelf.is_backed && step.changed.is_none() {
            let end = self.place_of(step.events);
            return Ok(end.map_or_else(Vec::new, |end| self.cut(blocks, end)));
        }
        let last = self
            .place_of(step.events)
            .map_or(usize::MAX, |end| end.block);
        self.find(last, pool);
        let (end, has_brought) = self.walk(blocks, step, pool)?;
        let rest = end.map_or_else(Vec::new, |end| self.cut(blocks, end));
        if has_brought {
            self.find(usize::MAX, pool);
        }
        Ok(rest)
    }

    /// Brings all users of the shelf to memory, unless there is no room for them: to look for users
    /// in two places takes a sixth of the time.
    fn bring_all(&mut self) -> anyhow::Result<()> {
        self.bring_all_at = None;
        let (shards, detector, hasher) = (&mut self.shards, &self.detector, &self.hasher);
        let backing = &*self.shelf.backing;
        let n_bytes_max = self.config.memory.share() / 4 * 3;
        let mut is_room = true;
        backing.each(&mut |user, record| {
            let key = UserKey::of(user, hasher);
            let users = &mut shards[super::shard_of(key)].users;
            if users.find(key).is_none() {
                let state = memory::state(detector, user, record, backing)?;
                users.insert(key, user, state, D::user_bytes);
                is_room = users.n_bytes() < n_bytes_max;
            }
            Ok(if is_room {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        self.shelf.is_backed = !is_room;
        Ok(())
    }

    /// Goes through the events until the step is over, and brings missing users to memory; where that
    /// is, if it is not the end, and whether there were any.
    fn walk(
        &mut self,
        blocks: &[Block],
        mut step: Step,
        pool: &ThreadPool,
    ) -> anyhow::Result<(Option<Place>, bool)> {
        let mut asked = hashbrown::HashSet::with_hasher(foldhash::fast::RandomState::default());
        let mut missing = Vec::new();
        let mut n_brought = 0;
        let mut n_reads = self.n_reads();
        let mut end = None;
        let mut n_events = 0;
        'events: for block in 0..self.routes.len() {
            for event in 0..self.routes[block].keys.len() {
                let place = Place { block, event };
                // However little there is left, it goes on.
                if step.is_over() && n_events > 0 {
                    end = Some(place);
                    break 'events;
                }
                n_events += 1;
                step.events = step.events.saturating_sub(1);
                let route = &self.routes[block];
                let key = route.keys[event];
                if let Some(found) = route.found[event] {
                    if step.changed.is_some() {
                        let users = &mut self.shards[usize::from(route.shard_of[event])].users;
                        let n_bytes_before = users.n_bytes_changed();
                        users.mark_changed(found, D::user_bytes);
                        step.change(users.n_bytes_changed() - n_bytes_before);
                    }
                } else if asked.insert(key.stable) {
                    missing.push(Missing { key, place });
                    if missing.len() >= n_reads {
                        n_brought += self.bring(blocks, &mut missing, &mut step, pool)?;
                        n_reads = self.n_reads();
                    }
                }
            }
        }
        n_brought += self.bring(blocks, &mut missing, &mut step, pool)?;
        Ok((end, n_brought > 0))
    }

    /// Brings users to memory, if there are records of them; how many.
    fn bring(
        &mut self,
        blocks: &[Block],
        missing: &mut Vec<Missing>,
        step: &mut Step,
        pool: &ThreadPool,
    ) -> anyhow::Result<usize> {
        let backing = &*self.shelf.backing;
        let shards = &mut self.shards;
        let packed = missing.iter().map(|missing| {
            let packed = &mut shards[super::shard_of(missing.key)].packed;
            packed.take(missing.key, |it| memory::packed_bytes(it))
        });
        let mut records: Vec<Option<Box<[u8]>>> = packed.collect();
        if self.shelf.is_backed && records.iter().any(Option::is_none) {
            let read = |(missing, record): (&Missing, &mut Option<Box<[u8]>>)| {
                if record.is_none() {
                    *record = backing.get(missing.name(blocks))?.map(Into::into);
                }
                anyhow::Ok(())
            };
            let each = missing.par_iter().zip(&mut records);
            pool.install(|| each.try_for_each(read))?;
        }
        let mut n_brought = 0;
        // States are made on one thread: they are freed on any, and an allocator that keeps apart
        // what each thread takes held 1.4 times the limit.
        for (missing, record) in missing.drain(..).zip(records) {
            let Some(record) = record else {
                step.take(NEW_USER_BYTES);
                continue;
            };
            n_brought += 1;
            self.record_bytes_max = record.len().max(self.record_bytes_max);
            let name = missing.name(blocks);
            let state = memory::state(&self.detector, name, &record, backing)?;
            let shard = &mut self.shards[super::shard_of(missing.key)];
            let n_bytes_before = shard.users.n_bytes();
            let place = shard.users.insert(missing.key, name, state, D::user_bytes);
            if step.changed.is_some() {
                shard.users.mark_changed(place, D::user_bytes);
            }
            step.take(shard.users.n_bytes() - n_bytes_before);
        }
        Ok(n_brought)
    }

    /// Records that may be read at once.
    fn n_reads(&self) -> usize {
        let record_bytes = self.record_bytes_max.max(RECORD_BYTES);
        let n_reads = self.config.memory.step_bytes() / READS_SHARE / record_bytes;
        n_reads.clamp(1, READS_MAX)
    }

    /// Finds the states of the users of the blocks up to that one.
    fn find(&mut self, last: usize, pool: &ThreadPool) {
        let shards = &self.shards;
        let n_blocks = self.routes.len().min(last.saturating_add(1));
        let find = |shard: usize, key| shards[shard].users.find(key);
        memory::find(pool, &mut self.routes[..n_blocks], find);
    }

    /// Where the event of that number is, if there are more before the end.
    fn place_of(&self, n_events: usize) -> Option<Place> {
        let mut n_left = n_events;
        for (block, route) in self.routes.iter().enumerate() {
            if n_left < route.keys.len() {
                return Some(Place {
                    block,
                    event: n_left,
                });
            }
            n_left -= route.keys.len();
        }
        None
    }

    /// Takes out all from a place on, as it was before it came to the scorer.
    fn cut(&mut self, blocks: &mut Vec<Block>, at: Place) -> Vec<Block> {
        let n_whole = at.block + usize::from(at.event > 0);
        let mut rest = blocks.split_off(n_whole);
        let mut routes = self.routes.split_off(n_whole);
        if at.event > 0 {
            rest.insert(0, blocks[at.block].split_off(at.event));
            routes.insert(0, self.routes[at.block].split_off(at.event));
        }
        for (block, route) in rest.iter_mut().zip(routes) {
            block.looks = Some(Box::new(route));
        }
        rest
    }

    /// Bytes of all states.
    fn n_bytes(&self) -> usize {
        self.shards.iter().map(Shard::n_bytes).sum()
    }

    /// Bytes of the states that have changed since the last checkpoint.
    pub(super) fn n_bytes_changed(&self) -> usize {
        let n_bytes = |shard: &Shard<D>| shard.users.n_bytes_changed();
        self.shards.iter().map(n_bytes).sum()
    }
}
