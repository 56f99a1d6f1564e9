//! What the threads of a run count of the batches that pass them, if anybody wants to know.

use super::Sink;
use crate::batch::Batch;
use crate::metrics::{Counter, Flow, Leaving, Passed};

/// What a stage's thread counts.
pub(super) struct Count<'a> {
    counts: Option<&'a Flow>,
    /// Of stages with the same name the first counts what comes, the last what leaves.
    n_in: Option<Counter>,
    n_out: Option<Counter>,
}

impl<'a> Count<'a> {
    /// That of one of several stages.
    pub(super) fn of_stage(counts: Option<&'a Flow>, names: &[&str], i: usize) -> Self {
        let passed = counts.map(|counts| counts.stage(names[i]));
        let is_first = i == 0 || names[i - 1] != names[i];
        let is_last = names.get(i + 1) != Some(&names[i]);
        let (n_in, n_out) = passed.map(|Passed { n_in, n_out }| (n_in, n_out)).unzip();
        Self {
            counts,
            n_in: n_in.filter(|_| is_first),
            n_out: n_out.filter(|_| is_last),
        }
    }

    pub(super) fn came(&self, batch: &Batch) {
        if let Some(n_in) = &self.n_in {
            n_in.inc_by(n_events(batch));
        }
    }

    pub(super) fn left(&self, batch: &Batch, n_filtered: u64) {
        if let Some(n_out) = &self.n_out {
            n_out.inc_by(n_events(batch));
        }
        if let Some(counts) = self.counts.filter(|_| n_filtered > 0) {
            counts.filter(n_filtered);
        }
    }
}

/// What the sink's thread counts.
pub(super) struct Gone<'a> {
    counts: &'a Flow,
    passed: Option<Passed>,
    gathers: bool,
    leaving: Leaving,
}

impl<'a> Gone<'a> {
    pub(super) fn of_sink(counts: &'a Flow, sink: &dyn Sink) -> Self {
        Self {
            passed: sink.name().map(|name| counts.stage(name)),
            gathers: sink.gathers(),
            leaving: counts.leaving(),
            counts,
        }
    }

    pub(super) fn came(&mut self, batch: &Batch) {
        if let Some(passed) = &self.passed {
            passed.n_in.inc_by(n_events(batch));
        }
        for block in &batch.blocks {
            self.leaving.add_block(block.read_at, block.events.len());
        }
    }

    pub(super) fn left(&mut self, batch: &Batch, n_out: u64, n_known: u64) {
        if let Some(passed) = &self.passed {
            passed.n_out.inc_by(n_out);
        }
        self.leaving.add(n_out, n_known);
        if batch.is_commit || !self.gathers {
            self.counts.leave(&mut self.leaving);
        }
    }
}

fn n_events(batch: &Batch) -> u64 {
    let blocks = batch.blocks.iter();
    blocks.map(|block| block.events.len() as u64).sum()
}
