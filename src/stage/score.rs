//! Scores a batch. Users are spread over shards by a hash of their name; each shard scores its
//! users' events in order, with no lock, and shards run in parallel. The number of shards is
//! fixed and the number of threads shows nowhere in the output.

use std::hash::BuildHasher;

use rayon::prelude::*;

use super::Stage;
use crate::batch::{Batch, Block};
use crate::detect::classic::Classic;
use crate::detect::{Detector, DetectorConfig, RecordError, Verdict};
use crate::record::StageField;

/// More shards than cores of any machine this runs on, so that rayon can balance them.
const N_SHARDS: usize = 64;

/// What to score, and what to let through.
#[derive(Clone)]
pub struct ScoreConfig {
    pub detector: DetectorConfig,
    /// Pass on nothing but anomalies.
    pub only_anomalies: bool,
    /// Hand the changed baselines on with each commit, for a sink that keeps them.
    pub with_baselines: bool,
}

/// The scoring stage.
pub struct Score {
    config: ScoreConfig,
    shards: Vec<Shard>,
    hasher: foldhash::fast::RandomState,
    /// Per block: its events in the order of their shards.
    routes: Vec<Route>,
}

impl Score {
    #[must_use]
    pub fn new(config: ScoreConfig) -> Self {
        let shards = (0..N_SHARDS)
            .map(|_| Shard {
                detector: Box::new(Classic::new(config.detector.clone())),
                findings: Vec::new(),
                text: Vec::new(),
                verdict: Verdict::default(),
            })
            .collect();
        Self {
            config,
            shards,
            hasher: foldhash::fast::RandomState::default(),
            routes: Vec::new(),
        }
    }

    /// Takes over a saved baseline.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    pub fn load(&mut self, user: &str, record: &[u8]) -> Result<(), RecordError> {
        let shard = self.shard_of(user);
        self.shards[shard].detector.load(user, record)
    }

    /// All users with their records, sorted by user.
    ///
    /// # Errors
    /// As `each` says.
    pub fn save(
        &self,
        mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut users: Vec<(&str, &Shard)> = self
            .shards
            .iter()
            .flat_map(|shard| shard.detector.users().map(move |user| (user, shard)))
            .collect();
        users.sort_unstable_by_key(|(user, _)| *user);
        let mut record = Vec::new();
        for (user, shard) in users {
            record.clear();
            shard.detector.save(user, &mut record);
            each(user, &record)?;
        }
        Ok(())
    }

    /// Users something is known of.
    #[must_use]
    pub fn n_users(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.detector.users().count() as u64)
            .sum()
    }

    fn shard_of(&self, user: &str) -> usize {
        (self.hasher.hash_one(user) % N_SHARDS as u64) as usize
    }
}

impl Stage for Score {
    fn process(&mut self, batch: &mut Batch) -> anyhow::Result<()> {
        let hasher = &self.hasher;
        self.routes.resize_with(batch.blocks.len(), Route::default);
        self.routes
            .par_iter_mut()
            .zip(&batch.blocks)
            .for_each(|(route, block)| route.fill(block, hasher));

        let (blocks, routes) = (&batch.blocks, &self.routes);
        self.shards
            .par_iter_mut()
            .enumerate()
            .for_each(|(i, shard)| shard.score(i, blocks, routes));

        let shards = &self.shards;
        let only_anomalies = self.config.only_anomalies;
        batch
            .blocks
            .par_iter_mut()
            .enumerate()
            .for_each(|(i, block)| apply(i, block, shards, only_anomalies));
        if self.config.with_baselines && batch.is_commit {
            self.collect_baselines(batch);
        }
        Ok(())
    }
}

impl Score {
    fn collect_baselines(&mut self, batch: &mut Batch) {
        let mut baselines: Vec<(Box<str>, Vec<u8>)> = self
            .shards
            .par_iter_mut()
            .flat_map_iter(|shard| {
                let mut changed = Vec::new();
                shard
                    .detector
                    .take_changed(&mut |user, record| changed.push((user.into(), record)));
                changed
            })
            .collect();
        baselines.par_sort_unstable_by(|a, b| a.0.cmp(&b.0));
        batch.baselines = baselines;
    }
}

/// Which events of a block go to which shard.
#[derive(Default)]
struct Route {
    /// Event indexes, those of shard 0 first, in input order within a shard.
    order: Vec<u32>,
    /// Where in `order` each shard begins; one more for the end.
    starts: Vec<u32>,
    shard_of: Vec<u8>,
}

impl Route {
    fn fill(&mut self, block: &Block, hasher: &foldhash::fast::RandomState) {
        self.shard_of.clear();
        self.starts.clear();
        self.starts.resize(N_SHARDS + 1, 0);
        for event in &block.events {
            let shard = (hasher.hash_one(block.text(event.user)) % N_SHARDS as u64) as u8;
            self.shard_of.push(shard);
            self.starts[shard as usize + 1] += 1;
        }
        for i in 1..self.starts.len() {
            self.starts[i] += self.starts[i - 1];
        }
        let mut next = self.starts.clone();
        self.order.clear();
        self.order.resize(block.events.len(), 0);
        for (i, &shard) in self.shard_of.iter().enumerate() {
            let slot = &mut next[shard as usize];
            self.order[*slot as usize] = i as u32;
            *slot += 1;
        }
    }

    fn events_of(&self, shard: usize) -> &[u32] {
        &self.order[self.starts[shard] as usize..self.starts[shard + 1] as usize]
    }
}

/// Some of the users, and what was found in the current batch.
struct Shard {
    detector: Box<dyn Detector>,
    findings: Vec<Finding>,
    /// The JSON that findings point to.
    text: Vec<u8>,
    verdict: Verdict,
}

/// An event that got a field.
struct Finding {
    block: u32,
    event: u32,
    /// End of the anomaly and of the context in the shard's text; the start is the end before.
    anomaly_end: usize,
    context_end: usize,
}

impl Shard {
    fn score(&mut self, shard: usize, blocks: &[Block], routes: &[Route]) {
        self.findings.clear();
        self.text.clear();
        for (i, (block, route)) in blocks.iter().zip(routes).enumerate() {
            for &event_index in route.events_of(shard) {
                let view = block.view(&block.events[event_index as usize]);
                self.verdict.clear();
                self.detector.observe(&view, &mut self.verdict);
                if !self.verdict.anomaly.is_empty() || !self.verdict.context.is_empty() {
                    self.text.extend_from_slice(&self.verdict.anomaly);
                    let anomaly_end = self.text.len();
                    self.text.extend_from_slice(&self.verdict.context);
                    self.findings.push(Finding {
                        block: i as u32,
                        event: event_index,
                        anomaly_end,
                        context_end: self.text.len(),
                    });
                }
            }
        }
    }

    /// The findings of one block, each with where its text starts.
    fn findings_of(&self, block: u32) -> impl Iterator<Item = (usize, &Finding)> {
        let first = self
            .findings
            .partition_point(|finding| finding.block < block);
        let start = first
            .checked_sub(1)
            .map_or(0, |i| self.findings[i].context_end);
        self.findings[first..]
            .iter()
            .take_while(move |finding| finding.block == block)
            .scan(start, |start, finding| {
                Some((std::mem::replace(start, finding.context_end), finding))
            })
    }
}

/// Brings what the shards have found to the events of a block.
fn apply(block_index: usize, block: &mut Block, shards: &[Shard], only_anomalies: bool) {
    // Whatever an earlier run has appended is no longer true.
    for i in 0..block.events.len() {
        if block.events[i].stage_fields != 0 {
            block.set_stage_value(i, StageField::Anomaly, &[]);
            block.set_stage_value(i, StageField::Context, &[]);
        }
    }
    for shard in shards {
        for (start, finding) in shard.findings_of(block_index as u32) {
            let event = finding.event as usize;
            let (anomaly_end, context_end) = (finding.anomaly_end, finding.context_end);
            block.set_stage_value(event, StageField::Anomaly, &shard.text[start..anomaly_end]);
            block.set_stage_value(
                event,
                StageField::Context,
                &shard.text[anomaly_end..context_end],
            );
        }
    }
    if only_anomalies {
        let events = std::mem::take(&mut block.events);
        let n_before = events.len();
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| block.stage_value(event, StageField::Anomaly).is_some())
            .collect();
        block.n_filtered += (n_before - events.len()) as u64;
        block.events = events;
    }
}
