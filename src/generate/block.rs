//! Blocks: stretches of the output that are made independently of each other, and in parallel.

use super::GenerateConfig;
use super::attack::{Attacks, Step};
use super::benign::Benign;
use super::curve::Curve;
use super::event::{Event, push, push_padded};
use super::population::Population;
use super::random::mix;

/// Benign events per block. Part of what the bytes depend on: a burst ends with its block.
const BLOCK_EVENTS: u64 = 4096;
/// Reserved per line: above the mean of 419, so that no block is copied as it grows.
const LINE_BYTES: usize = 390;

/// Everything a block is made from.
pub(super) struct Plan {
    benign: Benign,
    pub(super) attacks: Attacks,
    with_labels: bool,
}

/// The bytes of a block. Blocks are used again: fresh memory for each cost more than the writing.
#[derive(Default)]
pub(super) struct Block {
    pub(super) lines: Vec<u8>,
    pub(super) labels: Vec<u8>,
    /// The number of its first event in the output.
    first_index: u64,
    pub(super) n_events: u64,
    pub(super) n_attack_events: u64,
}

impl Plan {
    pub(super) fn new(config: &GenerateConfig, end_ms: i64, with_labels: bool) -> Self {
        let key = mix(config.seed, 0);
        let population = Population::new(config.n_users, mix(key, 1));
        let attacks = if config.attacks {
            Attacks::plan(
                population,
                config.n_events,
                config.start_ms,
                end_ms,
                mix(key, 2),
            )
        } else {
            Attacks::none(population)
        };
        let benign = Benign {
            population,
            curve: Curve::new(&population, config.start_ms, end_ms),
            n_events: config.n_events - attacks.steps.len() as u64,
            key: mix(key, 3),
        };
        Self {
            benign,
            attacks,
            with_labels,
        }
    }

    pub(super) fn n_blocks(&self) -> u64 {
        self.benign.n_events.div_ceil(BLOCK_EVENTS)
    }

    /// Fills one block: its benign events, and the attacks between its first moment and the next
    /// block's.
    pub(super) fn fill(&self, number: u64, block: &mut Block) {
        let numbers =
            number * BLOCK_EVENTS..((number + 1) * BLOCK_EVENTS).min(self.benign.n_events);
        let n_before = if number == 0 {
            0
        } else {
            self.n_steps_before(numbers.start)
        };
        let n_until = if numbers.end == self.benign.n_events {
            self.attacks.steps.len()
        } else {
            self.n_steps_before(numbers.end)
        };
        let steps = &self.attacks.steps[n_before..n_until];
        let slots = self.benign.slots(numbers.clone());
        block.restart(numbers.start + n_before as u64);
        block
            .lines
            .reserve((slots.len() + steps.len()) * LINE_BYTES);
        let mut steps = steps.iter().peekable();
        for slot in &slots {
            while let Some(step) = steps.next_if(|step| step.timestamp_ms < slot.timestamp_ms) {
                self.write_step(step, block);
            }
            block.write(&slot.event());
        }
        for step in steps {
            self.write_step(step, block);
        }
    }

    /// How many attack events precede the boundary before a benign event.
    fn n_steps_before(&self, number: u64) -> usize {
        let boundary_ms = self.benign.boundary_ms(number);
        self.attacks
            .steps
            .partition_point(|step| step.timestamp_ms < boundary_ms)
    }

    fn write_step(&self, step: &Step, block: &mut Block) {
        let event = self.attacks.event(step);
        let episode = &self.attacks.episodes[step.episode as usize];
        if episode.is_labelled(step.position) {
            block.n_attack_events += 1;
            if self.with_labels {
                let index = block.next_index();
                let labels = &mut block.labels;
                push(labels, "{\"event_id\":\"");
                event.write_id(index, labels);
                push(labels, "\",\"scenario\":\"");
                push(labels, episode.scenario_name());
                push(labels, "\",\"episode\":\"");
                push(labels, episode.scenario_name());
                push(labels, "-");
                push_padded(labels, u64::from(episode.number), 1);
                push(labels, "\"}\n");
            }
        }
        block.write(&event);
    }
}

impl Block {
    /// Empties the block but keeps its memory.
    fn restart(&mut self, first_index: u64) {
        self.lines.clear();
        self.labels.clear();
        self.first_index = first_index;
        self.n_events = 0;
        self.n_attack_events = 0;
    }

    fn write(&mut self, event: &Event) {
        event.write_line(self.next_index(), &mut self.lines);
        self.n_events += 1;
    }

    fn next_index(&self) -> u64 {
        self.first_index + self.n_events
    }
}
