//! The stages of `sg-analyze`: one asks, and the one behind it waits for the answers, so that events of
//! several batches are on their way at the same time.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{Analysis, Analyst, Ticket};
use crate::batch::{Batch, Block};
use crate::llm::{Redact, Subject};
use crate::record::anomaly::Severity;
use crate::record::{Event, StageField};
use crate::stage::Stage;

/// What both stages are called.
const NAME: &str = "analyze";

/// Which events are analysed.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Anomalies from this severity on.
    pub severity_min: Severity,
    /// Events with this threat score at least, anomalies or not.
    pub threat_score_min: f64,
    /// Not those that have an analysis which is final.
    pub keeps: bool,
}

impl Gate {
    /// Whether an event is to be analysed.
    #[must_use]
    pub fn admits(&self, subject: &Subject) -> bool {
        let is_anomaly = subject
            .severity()
            .is_some_and(|severity| severity >= self.severity_min || subject.is_hostile());
        is_anomaly || self.is_threat(subject.threat_score())
    }

    /// Whether it takes a look at an event to know that.
    fn may_admit(&self, block: &Block, event: &Event) -> bool {
        let has_anomaly = block.stage_value(event, StageField::Anomaly).is_some();
        has_anomaly || self.is_threat(event.threat_score)
    }

    fn is_threat(&self, threat_score: Option<f64>) -> bool {
        threat_score.is_some_and(|score| score >= self.threat_score_min)
    }

    /// The events of a block that are to be analysed.
    #[must_use]
    pub fn subjects(&self, block: &Block, redact: Redact) -> Vec<(usize, Subject)> {
        let events = block.events.iter().enumerate();
        let found = events.filter_map(|(i, event)| {
            // Most events need no second look.
            if !self.may_admit(block, event) || self.is_kept(block, event) {
                return None;
            }
            let subject = Subject::of_event(block, event, redact);
            self.admits(&subject).then_some((i, subject))
        });
        found.collect()
    }

    /// Whatever an earlier run, or somebody who would like to be one, has appended is no longer true.
    pub fn drop_analyses(&self, block: &mut Block) {
        for i in 0..block.events.len() {
            let event = &block.events[i];
            if event.stage_fields != 0 && !self.is_kept(block, event) {
                block.set_stage_value(i, StageField::Analysis, &[]);
            }
        }
    }

    /// Whether an event keeps the analysis that it has.
    fn is_kept(&self, block: &Block, event: &Event) -> bool {
        #[derive(serde::Deserialize)]
        struct Beginning {
            outcome: crate::record::analysis::Outcome,
        }
        let value = self
            .keeps
            .then(|| block.stage_value(event, StageField::Analysis));
        let value = value.flatten().map(serde_json::from_slice::<Beginning>);
        value.is_some_and(|found| found.is_ok_and(|found| found.outcome.is_final()))
    }
}

/// What a block's events wait for.
type Tickets = Vec<(usize, Ticket)>;

/// Asks about events.
pub struct Ask {
    analyst: Arc<Analyst>,
    gate: Gate,
}

impl Ask {
    #[must_use]
    pub fn new(analyst: Arc<Analyst>, gate: Gate) -> Self {
        Self { analyst, gate }
    }
}

/// Events of a batch that are asked about before the rest of it is: answers come out while others are
/// waited for, and not many calls are made that nobody wants any more.
const SUBJECTS_MAX: usize = 128;

impl Ask {
    /// Leaves what comes after enough events to the next batch.
    fn cut(&self, batch: &mut Batch) {
        let mut n_left = SUBJECTS_MAX;
        for (i, block) in batch.blocks.iter_mut().enumerate() {
            let events = block.events.iter().enumerate();
            let wanted = events.filter(|(_, event)| self.gate.may_admit(block, event));
            let Some((event, _)) = wanted.clone().nth(n_left) else {
                n_left -= wanted.count();
                continue;
            };
            let rest = block.split_off(event);
            let after = batch.blocks.split_off(i + 1);
            // What is to be kept with the batch is to be kept with the last of it.
            batch.rest = Some(Box::new(Batch {
                blocks: std::iter::once(rest).chain(after).collect(),
                is_commit: std::mem::take(&mut batch.is_commit),
                is_checkpoint: std::mem::take(&mut batch.is_checkpoint),
                learned: std::mem::take(&mut batch.learned),
                released: std::mem::take(&mut batch.released),
                marker: batch.marker.take(),
                rest: None,
            }));
            return;
        }
    }
}

impl Stage for Ask {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        self.cut(batch);
        let (gate, redact) = (self.gate, self.analyst.redact());
        let found: Vec<Vec<(usize, Subject)>> = pool.install(|| {
            let blocks = batch.blocks.par_iter_mut();
            let found = blocks.map(|block| {
                let subjects = gate.subjects(block, redact);
                gate.drop_analyses(block);
                subjects
            });
            found.collect()
        });
        for (block, subjects) in batch.blocks.iter_mut().zip(found) {
            if subjects.is_empty() {
                continue;
            }
            // In input order: of events that are alike the first one is asked about.
            let tickets = subjects.into_iter();
            let tickets: Tickets = tickets
                .map(|(i, subject)| (i, self.analyst.submit(subject)))
                .collect();
            block.looks = Some(Box::new(tickets));
        }
        Ok(())
    }
}

/// Waits for what comes of it, and brings it to the events.
pub struct Attach {
    analyst: Arc<Analyst>,
    /// Events may overtake those that wait.
    is_unordered: bool,
    /// Those that wait, in input order.
    held: VecDeque<Held>,
    held_bytes: usize,
}

/// An event that others may overtake: a block of its own.
struct Held {
    block: Block,
    ticket: Ticket,
}

/// Events that are held, and bytes of their lines.
const HELD_MAX: usize = 4_096;
const HELD_BYTES_MAX: usize = 32 << 20;

impl Attach {
    #[must_use]
    pub fn new(analyst: Arc<Analyst>, is_unordered: bool) -> Self {
        Self {
            analyst,
            is_unordered,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    fn attach(&self, block: &mut Block, event: usize, ticket: &Ticket) {
        let Analysis {
            record, anomaly, ..
        } = self.analyst.wait(ticket);
        block.set_stage_value(event, StageField::Analysis, &record);
        if let Some(anomaly) = anomaly {
            block.set_stage_value(event, StageField::Anomaly, &anomaly);
        }
    }

    /// Takes an event that has no answer yet out of its block.
    fn hold(&mut self, block: &Block, event: &Event, ticket: Ticket) {
        let mut own = Block::new();
        block.push_line(event, &mut own.lines);
        own.task = Arc::clone(&block.task);
        own.read_at = block.read_at;
        self.held_bytes += own.lines.len();
        // It has been read before, and only became longer since.
        own.parse(usize::MAX);
        self.held.push_back(Held { block: own, ticket });
    }

    /// Events whose answers are there, or all.
    fn release(&mut self, is_barrier: bool) -> Vec<Block> {
        let mut released = Vec::new();
        let mut waiting = VecDeque::new();
        let mut held = std::mem::take(&mut self.held);
        while let Some(mut one) = held.pop_front() {
            let is_too_much =
                held.len() + waiting.len() >= HELD_MAX || self.held_bytes > HELD_BYTES_MAX;
            if is_barrier || is_too_much || one.ticket.is_ready() {
                self.held_bytes -= one.block.all_lines().len();
                self.attach(&mut one.block, 0, &one.ticket);
                released.push(one.block);
            } else {
                waiting.push_back(one);
            }
        }
        self.held = waiting;
        released
    }
}

impl Stage for Attach {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, batch: &mut Batch, _: &ThreadPool) -> anyhow::Result<()> {
        for block in &mut batch.blocks {
            let Some(looks) = block.looks.take() else {
                continue;
            };
            let tickets = looks.downcast::<Tickets>();
            let tickets = *tickets.map_err(|_| anyhow::anyhow!("an event has lost its answer"))?;
            let mut is_held = vec![false; block.events.len()];
            for (i, ticket) in tickets {
                if self.is_unordered && !ticket.is_ready() {
                    is_held[i] = true;
                    let event = block.events[i].clone();
                    self.hold(block, &event, ticket);
                } else {
                    self.attach(block, i, &ticket);
                }
            }
            let mut is_held = is_held.into_iter();
            block.events.retain(|_| !is_held.next().unwrap_or(false));
        }
        if self.is_unordered {
            // With a checkpoint everything before it is behind it, and so it is at the end.
            let released = self.release(batch.is_checkpoint);
            batch.blocks.extend(released);
        }
        Ok(())
    }
}
