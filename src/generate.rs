//! Made-up user activity for tests, benchmarks and demonstrations: users with habits, and attacks
//! that break them. The same configuration gives the same bytes on every machine and for any
//! number of threads. Nothing here knows the product's own types or command line.

mod attack;
mod benign;
mod block;
mod curve;
mod device;
mod episode;
mod event;
mod paced;
mod place;
mod population;
mod random;
mod role;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests;
mod user;

use block::{Block, Plan};
pub use paced::Paced;
use rayon::prelude::*;
use std::io::{self, Write};
use std::mem::swap;

use crate::progress;

/// Far below the numbers that a float cannot count.
pub const EVENTS_MAX: u64 = 1_000_000_000_000;
/// Ten years: the intensity curve is held by the hour.
pub const DAYS_MAX: u32 = 3660;
/// The last start keeps every timestamp below the year 10000.
pub const START_MS_MAX: i64 = 253_000_000_000_000;

const DAY_MS: i64 = 24 * 3_600_000;
/// Two batches exist at a time, one being written and one being made: about 22 MB at most.
const BATCH_BLOCKS_MAX: u64 = 6;

/// What to generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateConfig {
    pub n_events: u64,
    pub n_users: u32,
    pub seed: u64,
    pub days: u32,
    /// The first moment, in milliseconds since the epoch.
    pub start_ms: i64,
    /// Whether about one event in 200 is part of an attack.
    pub attacks: bool,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            n_events: 1_000_000,
            n_users: 10_000,
            seed: 1,
            days: 30,
            // Wednesday, 2025-01-01T00:00:00Z.
            start_ms: 1_735_689_600_000,
            attacks: true,
        }
    }
}

/// What was generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub n_events: u64,
    /// The events that have a label.
    pub n_attack_events: u64,
    pub n_episodes: u64,
}

/// Writes `n_events` lines to `out`, sorted by time, and a line for each attack event to `labels`.
///
/// Blocks are made by the current rayon pool and written by the calling thread, in order.
///
/// # Errors
///
/// `InvalidInput` for a configuration beyond the limits; else what the writers report.
pub fn generate(
    config: &GenerateConfig,
    out: &mut dyn Write,
    mut labels: Option<&mut dyn Write>,
) -> io::Result<Summary> {
    let end_ms = validate(config)?;
    let mut summary = Summary::default();
    if config.n_events == 0 {
        return Ok(summary);
    }
    let plan = Plan::new(config, end_ms, labels.is_some());
    summary.n_episodes = plan.attacks.episodes.len() as u64;
    let n_batch = (2 * rayon::current_num_threads() as u64).min(BATCH_BLOCKS_MAX);
    let (mut finished, mut making): (Vec<Block>, Vec<Block>) = (Vec::new(), Vec::new());
    let mut next_block = 0;
    while next_block < plan.n_blocks() || !finished.is_empty() {
        let first_block = next_block;
        next_block = plan.n_blocks().min(first_block + n_batch);
        making.resize_with((next_block - first_block) as usize, Block::default);
        rayon::in_place_scope(|scope| {
            scope.spawn(|_| {
                let numbered = making.par_iter_mut().enumerate();
                numbered.for_each(|(index, block)| plan.fill(first_block + index as u64, block));
            });
            write_blocks(&finished, out, &mut labels, &mut summary)
        })?;
        swap(&mut finished, &mut making);
    }
    out.flush()?;
    if let Some(labels) = labels {
        labels.flush()?;
    }
    Ok(summary)
}

/// Checks the limits and returns the end of the time span.
fn validate(config: &GenerateConfig) -> io::Result<i64> {
    let refusal = if config.n_users == 0 {
        "the number of users must be at least 1".to_owned()
    } else if config.n_events > EVENTS_MAX {
        format!("the number of events must be at most {EVENTS_MAX}")
    } else if !(1..=DAYS_MAX).contains(&config.days) {
        format!("the number of days must be from 1 to {DAYS_MAX}")
    } else if !(0..=START_MS_MAX).contains(&config.start_ms) {
        format!("the start must be from 0 to {START_MS_MAX} ms since the epoch")
    } else {
        return Ok(config.start_ms + i64::from(config.days) * DAY_MS);
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, refusal))
}

fn write_blocks(
    blocks: &[Block],
    out: &mut dyn Write,
    labels: &mut Option<&mut dyn Write>,
    summary: &mut Summary,
) -> io::Result<()> {
    for block in blocks {
        out.write_all(&block.lines)?;
        if let Some(labels) = labels {
            labels.write_all(&block.labels)?;
        }
        progress::things(block.n_events);
        summary.n_events += block.n_events;
        summary.n_attack_events += block.n_attack_events;
    }
    Ok(())
}
