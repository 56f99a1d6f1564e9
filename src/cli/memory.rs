//! How much memory a program that scores may take, and what of it is for what.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use clap::Args;

use crate::enrich::Enrichment;
use crate::stage::Memory;
use crate::store::{SCRATCH_BYTES, STATE_BYTES, Scratch, State, Store, Tuning};

/// The limit.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tuning")]
pub(super) struct MemoryArgs {
    /// Memory to take at the most, such as 2GiB: users beyond it are kept on disk while they are not
    /// active, which is slower and gives the same scores
    #[arg(long, value_name = "SIZE", default_value = "2GiB", env = "SG_MEMORY_LIMIT",
          value_parser = parse_limit)]
    memory_limit: usize,
}

/// What a program takes besides the states of users: lines on their way, threads, what users share.
const FIXED_BYTES: usize = 128 << 20;
/// The same for what a store takes besides memtables and blocks.
const STORE_BYTES: usize = 32 << 20;
/// The least that can be asked for.
const LIMIT_BYTES_MIN: usize = 256 << 20;

impl MemoryArgs {
    /// For a program that keeps nothing: the rest goes to a temporary folder.
    pub(super) fn with_scratch(&self, enrichment: &Enrichment) -> Memory {
        let fixed = FIXED_BYTES + SCRATCH_BYTES + enrichment.n_bytes();
        Memory {
            bytes_max: of_states(self.memory_limit.saturating_sub(fixed)),
            shelves: Arc::new(Arc::new(Scratch::new(&std::env::temp_dir()))),
            n_kept: None,
            n_tasks: Arc::default(),
        }
    }

    /// For a program that keeps baselines in a state folder: the rest is there.
    pub(super) fn with_state(&self, state: &Arc<State>, enrichment: &Enrichment) -> Memory {
        let fixed = FIXED_BYTES + STATE_BYTES + enrichment.n_bytes();
        Memory {
            // What has changed is handed over with a checkpoint: an eighth of all states.
            bytes_max: of_states(self.memory_limit.saturating_sub(fixed)) / 9 * 8,
            shelves: Arc::new(Arc::clone(state)),
            n_kept: Some(Arc::new(AtomicU32::new(0))),
            n_tasks: Arc::default(),
        }
    }

    /// For a program that keeps baselines in a store: the rest is there.
    pub(super) fn with_store(
        &self,
        store: &Arc<Store>,
        tuning: &Tuning,
        enrichment: &Enrichment,
    ) -> Memory {
        let of_store =
            STORE_BYTES + tuning.memtable_bytes * 4 + self.cache_bytes(tuning.cache_bytes);
        let fixed = FIXED_BYTES + of_store + enrichment.n_bytes();
        Memory {
            // What has changed is handed over with a checkpoint and copied into its write: at an
            // eighth of all states that is a quarter more.
            bytes_max: of_states(self.memory_limit.saturating_sub(fixed)) / 5 * 4,
            shelves: Arc::new(Arc::clone(store)),
            n_kept: Some(Arc::new(AtomicU32::new(0))),
            n_tasks: Arc::default(),
        }
    }

    /// What is left of the blocks that were to be kept in memory for reads: an eighth at the most.
    pub(super) fn cache_bytes(&self, cache_bytes: usize) -> usize {
        cache_bytes.min(self.memory_limit / 8)
    }
}

/// Bytes of states that fit into what is left: allocations are rounded up, and freed ones of one size
/// do not serve for another. Some have to, whatever else takes all of it.
fn of_states(n_bytes_left: usize) -> usize {
    n_bytes_left.max(LIMIT_BYTES_MIN / 8) / 5 * 4
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit_bytes = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("expected a size such as 512MiB or 2GiB".to_owned()),
    };
    let n_units: usize = digits
        .trim_end()
        .parse()
        .map_err(|_| "expected a size such as 512MiB or 2GiB".to_owned())?;
    match n_units.checked_mul(unit_bytes) {
        Some(n_bytes) if n_bytes >= LIMIT_BYTES_MIN => Ok(n_bytes),
        Some(_) => Err(format!("expected {}MiB or more", LIMIT_BYTES_MIN >> 20)),
        None => Err("that is more than any machine has".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, n_bytes) in [
            ("256MiB", Some(256 << 20)),
            ("512m", Some(512 << 20)),
            ("2GiB", Some(2 << 30)),
            ("2 GB", Some(2 << 30)),
            ("255MiB", None),
            ("2", None),
            ("", None),
            ("GiB", None),
            ("-1GiB", None),
            ("1.5GiB", None),
            ("99999999999999999999GiB", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(parse_limit(text).ok(), n_bytes, "{text}");
        }
    }
}
