//! Scores a batch, epoch after epoch. Users are spread over shards by a hash of their name; each
//! shard scores its users' events in order, with no lock, and shards run in parallel where an epoch
//! has enough events. The numbers of shards and threads show nowhere in the output.

use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::Context as _;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::Stage;
use super::findings::{Findings, apply};
use super::look::{Look, N_SHARDS, Place, Route, Span, shard_of};
use crate::batch::{Batch, Block, Records};
use crate::detect::adaptive::Adaptive;
use crate::detect::classic::Classic;
use crate::detect::{
    Detector, DetectorConfig, DetectorKind, PREFETCH_STEPS, RecordError, Silences, UserKey, Users,
};
use crate::enrich::Enrichment;

/// Events of one epoch from which it pays to spread them over threads.
const PARALLEL_MIN: usize = 2_048;

/// Events between the steps in which states are fetched.
const PREFETCH_DISTANCE: usize = 2;

/// What to score, and what to let through.
#[derive(Clone)]
pub struct ScoreConfig {
    pub detector: DetectorConfig,
    /// Anomalies that are not raised.
    pub silences: Arc<Silences>,
    /// What events do not say of their addresses.
    pub enrichment: Arc<Enrichment>,
    /// Pass on nothing but anomalies.
    pub only_anomalies: bool,
    /// Hand the changed baselines on with each checkpoint, for a sink that keeps them.
    pub with_baselines: bool,
}

/// The scoring stage, whatever the detector.
pub trait Scorer: Stage {
    /// Takes over a saved baseline.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn load(&mut self, user: &str, record: &[u8]) -> Result<(), RecordError>;

    /// Takes over what users share.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn load_shared(&mut self, record: &[u8]) -> Result<(), RecordError>;

    /// Hands over all users with their records, sorted by user.
    ///
    /// # Errors
    /// As `each` says.
    fn save(&self, each: &mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()>;

    /// What users share; empty if that is nothing.
    fn shared(&self) -> Vec<u8>;

    /// Users something is known of.
    fn n_users(&self) -> u64;

    /// Events that came an hour or more later than others before them.
    fn n_late(&self) -> u64;
}

/// The two stages that scoring takes. The first looks at events, which takes a third of the time
/// and needs no order: it works on one batch while the second scores the one before.
pub struct Scoring {
    pub look: Box<dyn Stage>,
    pub score: Box<dyn Scorer>,
}

impl Scoring {
    /// The stages for the detector that the configuration names.
    #[must_use]
    pub fn new(config: ScoreConfig) -> Self {
        let detector = config.detector.clone();
        match detector.kind {
            DetectorKind::Adaptive => Self::of(config, Adaptive::new(detector)),
            DetectorKind::Classic => Self::of(config, Classic::new(detector)),
        }
    }

    fn of<D: Detector>(config: ScoreConfig, detector: D) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self {
            look: Box::new(Look::<D> {
                hasher: hasher.clone(),
                enrichment: Arc::clone(&config.enrichment),
                detector: PhantomData,
            }),
            score: Box::new(Score::new(config, detector, hasher)),
        }
    }
}

/// The stage for one detector.
struct Score<D: Detector> {
    config: ScoreConfig,
    detector: D,
    shards: Vec<Shard<D>>,
    /// Findings of epochs that were not worth spreading over shards.
    inline: Findings,
    /// What the current epoch changes in what users share.
    deltas: D::Deltas,
    hasher: foldhash::fast::RandomState,
    /// Per block of the current batch: its events, looked at.
    routes: Vec<Route<D::Features>>,
}

impl<D: Detector> Score<D> {
    fn new(config: ScoreConfig, detector: D, hasher: foldhash::fast::RandomState) -> Self {
        Self {
            config,
            detector,
            shards: (0..N_SHARDS).map(|_| Shard::default()).collect(),
            inline: Findings::default(),
            deltas: D::Deltas::default(),
            hasher,
            routes: Vec::new(),
        }
    }
}

impl<D: Detector> Scorer for Score<D> {
    fn load(&mut self, user: &str, record: &[u8]) -> Result<(), RecordError> {
        let key = UserKey::of(user, &self.hasher);
        let state = self.detector.read_user(record)?;
        self.shards[shard_of(key)].users.insert(key, user, state);
        Ok(())
    }

    fn load_shared(&mut self, record: &[u8]) -> Result<(), RecordError> {
        self.deltas = self.detector.read_shared(record)?;
        Ok(())
    }

    fn save(&self, each: &mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let shards = self.shards.iter();
        let mut users: Vec<(&str, &D::User)> =
            shards.flat_map(|shard| shard.users.iter()).collect();
        users.sort_unstable_by_key(|(user, _)| *user);
        let mut record = Vec::new();
        for (user, state) in users {
            record.clear();
            self.detector.write_user(state, &mut record);
            each(user, &record)?;
        }
        Ok(())
    }

    fn shared(&self) -> Vec<u8> {
        self.detector.write_shared(&self.deltas)
    }

    fn n_users(&self) -> u64 {
        let shards = self.shards.iter();
        shards.map(|shard| shard.users.n_users() as u64).sum()
    }

    fn n_late(&self) -> u64 {
        self.detector.n_late()
    }
}

impl<D: Detector> Stage for Score<D> {
    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        let looks = batch.looks.take().and_then(|looks| looks.downcast().ok());
        self.routes = *looks.context("events come to the scorer before they were looked at")?;
        for shard in &mut self.shards {
            shard.findings.clear();
        }
        self.inline.clear();
        self.score(&batch.blocks, pool);

        let (shards, inline) = (&self.shards, &self.inline);
        let all_findings = || {
            let of_shards = shards.iter().map(|shard| &shard.findings);
            of_shards.chain([inline])
        };
        let only_anomalies = self.config.only_anomalies;
        let blocks = &mut batch.blocks;
        let n_findings: usize = shards.iter().map(|shard| shard.findings.len()).sum();
        if n_findings >= PARALLEL_MIN {
            pool.install(|| {
                blocks
                    .par_iter_mut()
                    .enumerate()
                    .for_each(|(i, block)| apply(i, block, all_findings(), only_anomalies));
            });
        } else {
            for (i, block) in blocks.iter_mut().enumerate() {
                apply(i, block, all_findings(), only_anomalies);
            }
        }
        if self.config.with_baselines && batch.is_checkpoint {
            pool.install(|| self.collect_baselines(batch));
        }
        Ok(())
    }
}

impl<D: Detector> Score<D> {
    /// Scores epoch after epoch: what one changes in what users share shows in the next.
    fn score(&mut self, blocks: &[Block], pool: &ThreadPool) {
        let mut from = Place::default();
        while let Some((to, n_events, is_end)) = self.end_of_epoch(from) {
            let span = Span { from, to };
            if n_events >= PARALLEL_MIN {
                pool.install(|| self.score_spread(blocks, span));
            } else {
                self.score_inline(blocks, span);
            }
            let next = is_end.then(|| &self.routes[to.block].features[to.event]);
            let n_events = n_events as u64;
            self.detector.turn_epoch(&mut self.deltas, n_events, next);
            from = to;
        }
    }

    /// Where the epoch of the events from a place on ends, how many events that are, and whether
    /// another epoch follows in this batch; none if there are no more events.
    fn end_of_epoch(&mut self, from: Place) -> Option<(Place, usize, bool)> {
        let mut n_events = 0;
        let mut at = from;
        while let Some(route) = self.routes.get(at.block) {
            for features in &route.features[at.event..] {
                if self.detector.begins_epoch(features, n_events as u64) {
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
            .for_each(|(i, shard)| {
                let Shard {
                    users,
                    deltas,
                    findings,
                } = shard;
                for (block_index, route) in routes.iter().enumerate() {
                    let Some(range) = span.within(block_index, route.features.len()) else {
                        continue;
                    };
                    let events = route.events_of(i);
                    let first = events.partition_point(|&event| (event as usize) < range.start);
                    let end = events.partition_point(|&event| (event as usize) < range.end);
                    let block = &blocks[block_index];
                    for &event in &events[first..end] {
                        let place = Place {
                            block: block_index,
                            event: event as usize,
                        };
                        observe(
                            (detector, silences),
                            users,
                            deltas,
                            findings,
                            block,
                            route,
                            place,
                        );
                    }
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
            for event in range {
                self.prefetch(block_index, event);
                let route = &self.routes[block_index];
                let place = Place {
                    block: block_index,
                    event,
                };
                let shard = &mut self.shards[route.shard_of[event] as usize];
                let (users, deltas) = (&mut shard.users, &mut self.deltas);
                let findings = &mut self.inline;
                let by = (&self.detector, &*self.config.silences);
                observe(by, users, deltas, findings, block, route, place);
            }
        }
    }

    /// Fetches the states of the users of the next events, step by step.
    fn prefetch(&mut self, block_index: usize, event: usize) {
        const FIRST: usize = (PREFETCH_STEPS + 1) * PREFETCH_DISTANCE;
        let route = &mut self.routes[block_index];
        // At the start of a block there was nobody to look ahead.
        while route.found.len() <= (event + FIRST).min(route.features.len() - 1) {
            let next = route.found.len();
            let users = &self.shards[usize::from(route.shard_of[next])].users;
            let found = users.find(route.keys[next]);
            if let Some(found) = found {
                users.prefetch(found);
            }
            route.found.push(found);
        }
        for step in 0..PREFETCH_STEPS {
            let event = event + (PREFETCH_STEPS - step) * PREFETCH_DISTANCE;
            if let Some(Some(found)) = route.found.get(event) {
                let users = &self.shards[usize::from(route.shard_of[event])].users;
                let features = &route.features[event];
                self.detector.prefetch(users.get(*found), features, step);
            }
        }
    }

    fn collect_baselines(&mut self, batch: &mut Batch) {
        let detector = &self.detector;
        batch.baselines = self
            .shards
            .par_iter_mut()
            .map(|shard| {
                let mut records = Records::default();
                shard.users.take_changed(|user, state| {
                    records.push(user, |record| detector.write_user(state, record));
                });
                records.shrink();
                records
            })
            .collect();
        batch.shared = self.shared();
    }
}

fn observe<D: Detector>(
    (detector, silences): (&D, &Silences),
    users: &mut Users<D::User>,
    deltas: &mut D::Deltas,
    findings: &mut Findings,
    block: &Block,
    route: &Route<D::Features>,
    place: Place,
) {
    let features = &route.features[place.event];
    let view = || block.view(&block.events[place.event]);
    let new = || (view().user, detector.new_user(features));
    let found = route.found.get(place.event).copied().flatten();
    let key = route.keys[place.event];
    let user = users.get_mut(found, key, new);
    let verdict = &mut findings.verdict;
    verdict.clear();
    detector.observe(key, user, deltas, features, view, verdict);
    if !verdict.anomaly.is_empty() && !silences.is_empty() && silences.cover(&view()) {
        verdict.anomaly.clear();
        // The analysis looks at some events whatever their score.
        if !view().is_threat() {
            verdict.context.clear();
        }
    }
    findings.keep(place.block, place.event);
}

/// Some of the users, and what was found in the current batch.
struct Shard<D: Detector> {
    users: Users<D::User>,
    deltas: D::Deltas,
    findings: Findings,
}

impl<D: Detector> Default for Shard<D> {
    fn default() -> Self {
        Self {
            users: Users::default(),
            deltas: D::Deltas::default(),
            findings: Findings::default(),
        }
    }
}
