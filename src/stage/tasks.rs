//! Events of one task are scored against its own baselines, in their order, by a scorer of its own. A
//! partition of a topic is a task, and all other input is one: so results do not depend on how events of
//! several partitions come to be mixed, nor on which process reads which partition.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::Stage;
use super::score::{Emit, Score, Scorer};
use crate::batch::{Batch, Block};
use crate::detect::adaptive::Adaptive;
use crate::detect::classic::Classic;
use crate::detect::{DetectorConfig, DetectorKind, Silences};
use crate::enrich::Enrichment;
use crate::metrics::{Metrics, Scores};
use crate::record::text::printable;
use crate::schema::SHARED_BASELINE;
use crate::stage::Memory;
use crate::stage::look::Look;

/// What to score, and what to let through.
#[derive(Clone)]
pub struct ScoreConfig {
    /// The program that scores, if it is to say what it notices.
    pub name: Option<&'static str>,
    pub detector: DetectorConfig,
    /// Anomalies that are not raised.
    pub silences: Arc<Silences>,
    /// What events do not say of their addresses.
    pub enrichment: Arc<Enrichment>,
    pub emit: Emit,
    /// The time without anomalies that ends an incident; 0 if anomalies are not to be folded.
    pub incident_ms: i64,
    /// Hand the changed baselines on with each checkpoint, for a sink that keeps them.
    pub with_baselines: bool,
    pub memory: Memory,
    /// Where it is counted what is found, if anybody wants to know.
    pub metrics: Option<Arc<Metrics>>,
}

impl ScoreConfig {
    /// Where it is told what is found.
    pub(super) fn scores(&self) -> Option<&Scores> {
        self.metrics.as_ref()?.scores.as_ref()
    }
}

/// The two stages that scoring takes. The first looks at events, which takes a third of the time
/// and needs no order: that is done with a block as soon as it is parsed, while the second scores the batch before.
pub struct Scoring {
    pub look: Box<dyn Stage>,
    pub tasks: Tasks,
}

impl Scoring {
    /// The stages for the detector that the configuration names.
    #[must_use]
    pub fn new(config: ScoreConfig) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let (name, enrichment) = (config.name, Arc::clone(&config.enrichment));
        let look: Box<dyn Stage> = match config.detector.kind {
            DetectorKind::Adaptive => {
                Box::new(Look::<Adaptive>::new(name, hasher.clone(), enrichment))
            }
            DetectorKind::Classic => {
                Box::new(Look::<Classic>::new(name, hasher.clone(), enrichment))
            }
        };
        let tasks = Tasks {
            config,
            hasher,
            scorers: BTreeMap::new(),
            n_checkpoints: 0,
        };
        Self { look, tasks }
    }
}

/// The scoring stage: a scorer for each task.
pub struct Tasks {
    config: ScoreConfig,
    hasher: foldhash::fast::RandomState,
    scorers: BTreeMap<Arc<str>, Box<dyn Scorer>>,
    /// Checkpoints so far.
    n_checkpoints: u32,
}

impl Tasks {
    /// The scorer of a task, with what is kept of the task, if it is not there yet.
    ///
    /// # Errors
    /// If that cannot be read.
    fn task(&mut self, task: &Arc<str>) -> anyhow::Result<&mut dyn Scorer> {
        if !self.scorers.contains_key(task) {
            let scorer = self.open(task)?;
            self.scorers.insert(Arc::clone(task), scorer);
            let n_tasks = &self.config.memory.n_tasks;
            n_tasks.store(self.scorers.len(), Ordering::Relaxed);
        }
        let scorer = self.scorers.get_mut(task).expect("it was just put there");
        Ok(&mut **scorer)
    }

    fn open(&self, task: &Arc<str>) -> anyhow::Result<Box<dyn Scorer>> {
        let (config, hasher) = (self.config.clone(), self.hasher.clone());
        let on_shelf = config.memory.shelves.of_task(task)?;
        let shared = on_shelf.backing.get(SHARED_BASELINE)?;
        let advice = on_shelf.backing.advice();
        let detector = config.detector.clone();
        let begun = self.n_checkpoints;
        let mut scorer: Box<dyn Scorer> = match detector.kind {
            DetectorKind::Adaptive => {
                let detector = Adaptive::new(detector);
                Box::new(Score::new(config, detector, hasher, on_shelf, begun))
            }
            DetectorKind::Classic => {
                let detector = Classic::new(detector);
                Box::new(Score::new(config, detector, hasher, on_shelf, begun))
            }
        };
        if let Some(record) = shared {
            scorer.load_shared(&record).with_context(|| {
                let of_task = of_task(task);
                format!("what all baselines{of_task} share cannot be used: {advice}")
            })?;
        }
        Ok(scorer)
    }

    /// States that have left memory, each as often as it did.
    #[must_use]
    pub fn n_moved(&self) -> u64 {
        self.scorers.values().map(|scorer| scorer.n_moved()).sum()
    }

    /// Events that came an hour or more later than others of their task before them.
    #[must_use]
    pub fn n_late(&self) -> u64 {
        self.scorers.values().map(|scorer| scorer.n_late()).sum()
    }
}

/// Words that name a task, if it has a name.
fn of_task(task: &str) -> String {
    match task {
        "" => String::new(),
        _ => format!(" of {}", printable(task)),
    }
}

impl Stage for Tasks {
    fn name(&self) -> &'static str {
        super::SCORE
    }

    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        let first = batch.blocks.first().map(|block| Arc::clone(&block.task));
        let mut rest = Vec::new();
        if let Some(first) = first {
            rest = if batch.blocks.iter().all(|block| block.task == first) {
                self.task(&first)?.score(&mut batch.blocks, pool)?
            } else {
                self.score_each(batch, pool)?
            };
        }
        if !rest.is_empty() {
            batch.rest = Some(Box::new(Batch {
                blocks: rest,
                is_commit: take(&mut batch.is_commit),
                is_checkpoint: take(&mut batch.is_checkpoint),
                released: take(&mut batch.released),
                marker: batch.marker.take(),
                ..Batch::default()
            }));
        }
        if self.config.with_baselines && (batch.is_checkpoint || self.wants_checkpoint()) {
            batch.is_checkpoint = true;
            batch.is_commit = true;
            self.n_checkpoints += 1;
            let scorers = self.scorers.iter_mut();
            let learned = scorers.filter_map(|(task, scorer)| scorer.learned(task, pool));
            batch.learned = learned.collect();
        }
        for task in &batch.released {
            // Whoever has it now goes on with what is kept; so does this program if it gets it again.
            self.scorers.remove(task);
        }
        if let Some(scores) = self.config.scores() {
            let in_memory = || self.scorers.values().map(|scorer| scorer.in_memory());
            let n_users: usize = in_memory().map(|(n_users, _)| n_users).sum();
            let n_bytes: usize = in_memory().map(|(_, n_bytes)| n_bytes).sum();
            scores.n_users.set(n_users as i64);
            scores.n_bytes.set(n_bytes as i64);
        }
        Ok(())
    }

    fn is_ready(&self, batch: &Batch) -> bool {
        // The records of one checkpoint at a time are on their way.
        self.is_all_kept() || !batch.is_checkpoint && self.changed_share() < 0.5
    }
}

impl Tasks {
    fn is_all_kept(&self) -> bool {
        self.config.memory.kept() >= self.n_checkpoints
    }

    /// Whether so much has changed that it has to be kept now.
    fn wants_checkpoint(&self) -> bool {
        self.changed_share() >= 1.0 && self.is_all_kept()
    }

    /// How much of what may change between two checkpoints has.
    fn changed_share(&self) -> f64 {
        let shares = self.scorers.values().map(|scorer| scorer.changed_share());
        shares.fold(0.0, f64::max)
    }

    /// Scores a batch with blocks of several tasks, which know nothing of each other; what is left.
    fn score_each(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<Vec<Block>> {
        let mut of_tasks: BTreeMap<Arc<str>, Share> = BTreeMap::new();
        for (i, block) in batch.blocks.drain(..).enumerate() {
            let share = of_tasks.entry(Arc::clone(&block.task)).or_default();
            share.places.push(i);
            share.blocks.push(block);
        }
        for task in of_tasks.keys() {
            self.task(task)?;
        }
        let scorers = self.scorers.iter_mut();
        let shares = scorers.filter_map(|(task, scorer)| Some((scorer, of_tasks.remove(task)?)));
        let mut shares: Vec<(_, Share)> = shares.collect();
        let each = shares.par_iter_mut();
        pool.install(|| {
            each.try_for_each(|(scorer, share)| {
                share.rest = scorer.score(&mut share.blocks, pool)?;
                anyhow::Ok(())
            })
        })?;
        let (mut blocks, mut rest) = (Vec::new(), Vec::new());
        for (_, share) in shares {
            // The first of the rest may be of the same block as the last of what was scored.
            let n_whole = share.places.len() - share.rest.len();
            rest.extend(share.places[n_whole..].iter().copied().zip(share.rest));
            blocks.extend(share.places.into_iter().zip(share.blocks));
        }
        batch.blocks = in_order(blocks);
        Ok(in_order(rest))
    }
}

fn in_order(mut blocks: Vec<(usize, Block)>) -> Vec<Block> {
    blocks.sort_unstable_by_key(|(i, _)| *i);
    blocks.into_iter().map(|(_, block)| block).collect()
}

/// The blocks of one task in a batch, and their places among all.
#[derive(Default)]
struct Share {
    places: Vec<usize>,
    blocks: Vec<Block>,
    /// What the scorer has left.
    rest: Vec<Block>,
}
