//! Scores a batch, epoch after epoch. Users are spread over shards by a hash of their name; each
//! shard scores its users' events in order, with no lock, and shards run in parallel where an epoch
//! has enough events. The numbers of shards and threads show nowhere in the output.

mod ahead;
mod step;

use std::sync::Arc;

use anyhow::Context as _;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::findings::{Findings, Folded, apply};
use super::incident::{self, Incidents};
use super::look::{N_SHARDS, Place, Route, Span, shard_of};
use super::memory::{Backing, Memory, Packed, Shelf};
use super::tasks::ScoreConfig;
use crate::batch::{Block, Learned, Records};
use crate::detect::{Detector, Observed, RecordError, Silences, Users};
use crate::metrics::{Scores, Seen};
use crate::record::{Event, EventView, Values};

/// Events of one epoch from which it pays to spread them over threads.
const PARALLEL_MIN: usize = 2_048;

/// Which events to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Emit {
    /// Every event
    All,
    /// Only events that are anomalies
    Anomalies,
    /// Only anomalies that open an incident or make it worse
    Incidents,
}

/// Scores the events of one task, whatever the detector.
pub trait Scorer: Send {
    /// Scores blocks, in their order; those of them that there is no memory for yet are taken out and
    /// returned.
    ///
    /// # Errors
    /// If states cannot be brought to memory, or out of it.
    fn score(&mut self, blocks: &mut Vec<Block>, pool: &ThreadPool) -> anyhow::Result<Vec<Block>>;

    /// What has been learned since the last checkpoint, for the one that is being made; none if
    /// nothing has.
    fn learned(&mut self, task: &Arc<str>, pool: &ThreadPool) -> Option<Learned>;

    /// How much has changed since the last checkpoint of what may change between two: from 1 on there
    /// has to be one.
    fn changed_share(&self) -> f64;

    /// Takes over what users share.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn load_shared(&mut self, record: &[u8]) -> Result<(), RecordError>;

    /// States that have left memory, each as often as it did.
    fn n_moved(&self) -> u64;

    /// Events that came an hour or more later than others before them.
    fn n_late(&self) -> u64;

    /// Users whose states are in memory, and the bytes of those.
    fn in_memory(&self) -> (usize, usize);
}

/// The scorer with one detector.
pub(super) struct Score<D: Detector> {
    config: ScoreConfig,
    shelf: Shelf,
    detector: D,
    shards: Vec<Shard<D>>,
    /// Findings of epochs that were not worth spreading over shards.
    inline: Findings,
    incidents: Incidents,
    folded: Folded,
    /// What the current epoch changes in what users share.
    deltas: D::Deltas,
    hasher: foldhash::fast::RandomState,
    /// Per block of the current batch: its events, looked at.
    routes: Vec<Route<D::Features>>,
    /// Something was scored since the last checkpoint.
    is_changed: bool,
    /// Bytes of the longest record that was read.
    record_bytes_max: usize,
    n_scored: u64,
    /// Scored events from which it pays to have all users in memory; never, if none.
    bring_all_at: Option<u64>,
    /// Scores that are told to whoever wants to know.
    seen: Option<Seen>,
}

impl<D: Detector> Score<D> {
    /// A scorer of a task whose records are on a shelf, made after so many checkpoints.
    pub(super) fn new(
        config: ScoreConfig,
        detector: D,
        hasher: foldhash::fast::RandomState,
        shelf: Shelf,
        n_checkpoints: u32,
    ) -> Self {
        let n_users = shelf.n_users;
        let n_bytes = n_users.saturating_mul(size_of::<D::User>() as u64);
        let with_scores = config.scores().is_some();
        let is_room = n_bytes < (config.memory.of_task() / 2) as u64;
        Self {
            bring_all_at: (shelf.is_backed && is_room).then_some(n_users),
            n_scored: 0,
            seen: config.scores().map(Scores::seen),
            incidents: Incidents::new(config.incident_ms),
            folded: Folded::default(),
            config,
            detector,
            shelf,
            shards: (0..N_SHARDS)
                .map(|_| Shard::new(n_checkpoints, with_scores))
                .collect(),
            inline: Findings::new(with_scores),
            deltas: D::Deltas::default(),
            hasher,
            routes: Vec::new(),
            is_changed: false,
            record_bytes_max: 0,
        }
    }
}

impl<D: Detector> Scorer for Score<D> {
    fn score(&mut self, blocks: &mut Vec<Block>, pool: &ThreadPool) -> anyhow::Result<Vec<Block>> {
        self.routes.clear();
        for block in &mut *blocks {
            let looks = block.looks.take().and_then(|looks| looks.downcast().ok());
            let route = looks.context("events come to the scorer before they were looked at")?;
            self.is_changed |= !block.events.is_empty();
            self.routes.push(*route);
        }
        let rest = self.bring_users(blocks, pool)?;
        let n_events = |block: &Block| block.events.len() as u64;
        self.n_scored += blocks.iter().map(n_events).sum::<u64>();
        for shard in &mut self.shards {
            shard.findings.clear();
        }
        self.inline.clear();
        self.score_epochs(blocks, pool);

        let (shards, inline) = (&self.shards, &self.inline);
        let all_findings = || {
            let of_shards = shards.iter().map(|shard| &shard.findings);
            of_shards.chain([inline])
        };
        if let (Some(seen), Some(scores)) = (&mut self.seen, self.config.scores()) {
            for findings in all_findings() {
                seen.tell(findings.scores().iter().copied());
            }
            let raised = all_findings().flat_map(Findings::raised);
            scores.detect(raised.map(|(place, severity)| {
                let block = &blocks[place.block];
                let user = move || block.view(&block.events[place.event]).user;
                (severity, user)
            }));
        }
        if self.config.incident_ms > 0 {
            let (incidents, routes) = (&mut self.incidents, &self.routes);
            self.folded.fold(incidents, all_findings(), routes, blocks);
        }
        let (folded, emit) = (&self.folded, self.config.emit);
        let n_findings: usize = all_findings().map(Findings::len).sum();
        if n_findings >= PARALLEL_MIN {
            pool.install(|| {
                blocks
                    .par_iter_mut()
                    .enumerate()
                    .for_each(|(i, block)| apply(i, block, all_findings(), folded, emit));
            });
        } else {
            for (i, block) in blocks.iter_mut().enumerate() {
                apply(i, block, all_findings(), folded, emit);
            }
        }
        self.make_room(pool)?;
        Ok(rest)
    }

    fn learned(&mut self, task: &Arc<str>, pool: &ThreadPool) -> Option<Learned> {
        let detector = &self.detector;
        let take = |shard: &mut Shard<D>| {
            let mut records = Records::default();
            shard.users.take_changed(|user, state| {
                records.push(user, |record| detector.write_user(state, record));
            });
            records.shrink();
            records
        };
        let shards = self.shards.par_iter_mut();
        let baselines = pool.install(|| shards.map(take).collect());
        std::mem::take(&mut self.is_changed).then(|| Learned {
            task: Arc::clone(task),
            baselines,
            shared: self.shared(),
        })
    }

    fn changed_share(&self) -> f64 {
        self.n_bytes_changed() as f64 / self.config.memory.changed_bytes_max() as f64
    }

    fn load_shared(&mut self, record: &[u8]) -> Result<(), RecordError> {
        let (incidents, of_detector) = incident::read(record)?;
        if let Some(incidents) = incidents {
            self.incidents = incidents.with_window(self.config.incident_ms);
        }
        if !of_detector.is_empty() {
            self.deltas = self.detector.read_shared(of_detector)?;
        }
        Ok(())
    }

    fn n_moved(&self) -> u64 {
        self.shards.iter().map(|shard| shard.n_moved).sum()
    }

    fn n_late(&self) -> u64 {
        self.detector.n_late()
    }

    fn in_memory(&self) -> (usize, usize) {
        let shards = || self.shards.iter();
        (
            (shards().map(|shard| shard.users.n_users() + shard.packed.n_users())).sum(),
            shards().map(Shard::n_bytes).sum(),
        )
    }
}

impl<D: Detector> Score<D> {
    /// The record of what users share; empty if that is nothing.
    fn shared(&self) -> Vec<u8> {
        let mut record = self.incidents.record();
        record.extend_from_slice(&self.detector.write_shared(&self.deltas));
        record
    }

    /// Lets users go for whom there is no room in memory.
    fn make_room(&mut self, pool: &ThreadPool) -> anyhow::Result<()> {
        let (detector, memory) = (&self.detector, &self.config.memory);
        let is_full = |shard: &Shard<D>| shard.n_bytes() > memory.share();
        if !self.shards.iter().any(is_full) {
            return Ok(());
        }
        let backing = &*self.shelf.backing;
        let shards = self.shards.par_iter_mut();
        pool.install(|| shards.try_for_each(|shard| shard.make_room(detector, memory, backing)))?;
        self.shelf.is_backed = true;
        self.bring_all_at = None;
        Ok(())
    }

    /// Scores epoch after epoch: what one changes in what users share shows in the next.
    fn score_epochs(&mut self, blocks: &[Block], pool: &ThreadPool) {
        let mut from = Place::default();
        while let Some((to, n_events, is_end)) = self.end_of_epoch(from) {
            let span = Span { from, to };
            if n_events >= PARALLEL_MIN {
                pool.install(|| self.score_spread(blocks, span));
            } else {
                self.score_inline(blocks, span);
            }
            let n_events = n_events as u64;
            self.detector.turn_epoch(&mut self.deltas, n_events, is_end);
            from = to;
        }
    }

    /// Where the epoch of the events from a place on ends, how many events that are, and whether
    /// another epoch follows in this batch; none if there are no more events.
    fn end_of_epoch(&mut self, from: Place) -> Option<(Place, usize, bool)> {
        let mut n_events = 0;
        let mut at = from;
        while let Some(route) = self.routes.get(at.block) {
            let keys = &route.keys[at.event..];
            for (features, key) in route.features[at.event..].iter().zip(keys) {
                if self.detector.begins_epoch(*key, features, n_events as u64) {
                    return Some((at, n_events, true));
                }
                n_events += 1;
                at.event += 1;
            }
            at = Place {
                block: at.block + 1,
                event: 0,
            };
        }
        (n_events > 0).then_some((at, n_events, false))
    }

    fn score_spread(&mut self, blocks: &[Block], span: Span) {
        let (detector, routes) = (&self.detector, &self.routes);
        let silences = &*self.config.silences;
        self.shards
            .par_iter_mut()
            .enumerate()
            .for_each(|(shard_index, shard)| {
                shard.places.clear();
                shard.found.clear();
                for (block, route) in routes.iter().enumerate() {
                    if let Some(range) = span.within(block, route.features.len()) {
                        for &event in route.events_of(shard_index, range) {
                            let event = event as usize;
                            // Looked for already, if there may be states elsewhere.
                            if let Some(found) = route.found.get(event)
                                && shard.found.len() == shard.places.len()
                            {
                                shard.found.push(*found);
                            }
                            shard.places.push(Place { block, event });
                        }
                    }
                }
                let Shard {
                    users,
                    deltas,
                    findings,
                    places,
                    found,
                    ..
                } = shard;
                for (i, &place) in places.iter().enumerate() {
                    if D::READS_VALUES {
                        ahead::fetch_values(blocks, &places[i..]);
                    }
                    ahead::fetch(detector, found, i, places.len(), |next| {
                        let Place { block, event } = places[next];
                        let route = &routes[block];
                        (&*users, route.keys[event], &route.features[event])
                    });
                    let (by, block) = ((detector, silences), &blocks[place.block]);
                    let route = &routes[place.block];
                    observe(by, (users, found[i]), deltas, findings, block, route, place);
                }
            });
        for shard in &mut self.shards {
            D::merge(&mut self.deltas, &mut shard.deltas);
        }
    }

    fn score_inline(&mut self, blocks: &[Block], span: Span) {
        for (block_index, block) in blocks.iter().enumerate() {
            let n_events = self.routes[block_index].features.len();
            let Some(range) = span.within(block_index, n_events) else {
                continue;
            };
            let found = &mut self.routes[block_index].found;
            if found.len() < range.start {
                found.resize(range.start, None);
            }
            for event in range {
                let (detector, shards) = (&self.detector, &self.shards);
                let Route {
                    found,
                    keys,
                    features,
                    shard_of,
                    ..
                } = &mut self.routes[block_index];
                ahead::fetch(detector, found, event, n_events, |event| {
                    let users = &shards[usize::from(shard_of[event])].users;
                    (users, keys[event], &features[event])
                });
                let route = &self.routes[block_index];
                let place = Place {
                    block: block_index,
                    event,
                };
                let shard = &mut self.shards[route.shard_of[event] as usize];
                let (users, deltas) = (&mut shard.users, &mut self.deltas);
                let (findings, found) = (&mut self.inline, route.found[event]);
                let by = (&self.detector, &*self.config.silences);
                observe(by, (users, found), deltas, findings, block, route, place);
            }
        }
    }
}

fn observe<D: Detector>(
    (detector, silences): (&D, &Silences),
    (users, found): (&mut Users<D::User>, Option<u32>),
    deltas: &mut D::Deltas,
    findings: &mut Findings,
    block: &Block,
    route: &Route<D::Features>,
    place: Place,
) {
    let features = &route.features[place.event];
    let event = InBlock {
        block,
        event: &block.events[place.event],
    };
    let new = || (event.view().user, detector.new_user(features));
    let key = route.keys[place.event];
    let verdict = &mut findings.verdict;
    verdict.clear();
    users.change(found, key, new, D::user_bytes, |user| {
        detector.observe(key, user, deltas, features, &event, verdict);
    });
    if !verdict.anomaly.is_empty()
        && !silences.is_empty()
        && silences.cover(&event.view(), verdict.raised.is_some())
    {
        verdict.anomaly.clear();
        verdict.raised = None;
        // The analysis looks at some events whatever their score.
        if !event.view().is_threat() {
            verdict.context.clear();
        }
    }
    findings.keep(place.block, place.event);
}

/// An event of a block.
struct InBlock<'a> {
    block: &'a Block,
    event: &'a Event,
}

impl<'a> Observed<'a> for InBlock<'a> {
    fn view(&self) -> EventView<'a> {
        self.block.view(self.event)
    }

    fn values(&self) -> Values<'a> {
        self.block.values(self.event)
    }
}

/// Some of the users, and what was found in the current batch.
struct Shard<D: Detector> {
    users: Users<D::User>,
    packed: Packed,
    /// How often a state has left memory.
    n_moved: u64,
    deltas: D::Deltas,
    findings: Findings,
    /// Its events in the current epoch, and where the states of their users are.
    places: Vec<Place>,
    found: Vec<Option<u32>>,
}

impl<D: Detector> Shard<D> {
    /// A shard of a scorer that is made after so many checkpoints.
    fn new(n_checkpoints: u32, with_scores: bool) -> Self {
        Self {
            users: Users::after(n_checkpoints),
            packed: Packed::default(),
            n_moved: 0,
            deltas: D::Deltas::default(),
            findings: Findings::new(with_scores),
            places: Vec::new(),
            found: Vec::new(),
        }
    }

    fn make_room(
        &mut self,
        detector: &D,
        memory: &Memory,
        backing: &dyn Backing,
    ) -> anyhow::Result<()> {
        let (users, packed) = (&mut self.users, &mut self.packed);
        let n_users = memory.make_room(detector, users, packed, backing)?;
        self.n_moved += n_users as u64;
        Ok(())
    }

    /// Bytes of all that is in memory of users.
    fn n_bytes(&self) -> usize {
        self.users.n_bytes() + self.packed.n_bytes()
    }
}
