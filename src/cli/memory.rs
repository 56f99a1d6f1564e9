//! How much memory a program that scores may take, and what of it is for what.

use std::sync::Arc;

use anyhow::ensure;
use clap::Args;

use super::store::TuningArgs;
use super::{COMMIT_BYTES, LineArgs};
use crate::engine::Options;
use crate::enrich::Enrichment;
use crate::stage::{Memory, Shelves};
use crate::store::{SCRATCH_BYTES, STATE_BYTES, Scratch, State, Store, Tuning};

/// The limit.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tuning")]
pub(super) struct MemoryArgs {
    /// Memory to take at the most, in whole MiB or GiB, 256MiB at the least: users beyond it are kept on
    /// disk while they are not active, which is slower and gives the same scores
    #[arg(long, value_name = "SIZE", default_value = "2GiB",
          value_parser = parse_limit)]
    memory_limit: usize,
}

/// What a program takes besides the states of users: lines on their way, threads, what users share.
const FIXED_BYTES: usize = 96 << 20;
/// The same for what a store takes besides memtables, blocks and what is gathered for it: files that are
/// written and merged.
const STORE_BYTES: usize = 28 << 20;
/// States that have to fit in, whatever else does not: some batches' worth.
const STATES_BYTES_MIN: usize = 16 << 20;
/// The least that can be asked for.
const LIMIT_BYTES_MIN: usize = 256 << 20;
/// So many bytes of states may change between two checkpoints, however little there is for states, up to a
/// fifth of it: what all users share is written with each checkpoint.
const CHANGED_BYTES: usize = 8 << 20;
/// One in so many bytes may be lines on their way, and as many what a step of scoring takes.
const LINES_SHARE: usize = 16;
const STEP_SHARE: usize = 64;
/// One in so many bytes of lines goes through the stages at once.
const BATCH_SHARE: usize = 2048;
/// One in so many bytes of lines is gathered for the store.
const COMMIT_SHARE: usize = 64;

/// How much of what has changed is in memory until it is kept.
struct Kept {
    /// So many times it is there, besides in the states.
    n_times: usize,
    /// One in so many bytes of states may change between two checkpoints.
    changed_share: usize,
}

impl MemoryArgs {
    /// For a program that keeps nothing: the rest goes to a temporary folder.
    ///
    /// # Errors
    /// If there is no room for what is known of addresses.
    pub(super) fn with_scratch(&self, enrichment: &Enrichment) -> anyhow::Result<Memory> {
        let n_bytes_left = self.left_by(FIXED_BYTES + SCRATCH_BYTES, enrichment)?;
        let scratch = Arc::new(Scratch::new(&std::env::temp_dir()));
        Ok(self.memory(n_bytes_left, None, Arc::new(scratch)))
    }

    /// For a program that keeps baselines in a state folder: the rest is there.
    ///
    /// # Errors
    /// If there is no room for what is known of addresses.
    pub(super) fn with_state(
        &self,
        state: &Arc<State>,
        enrichment: &Enrichment,
    ) -> anyhow::Result<Memory> {
        let n_bytes_left = self.left_by(FIXED_BYTES + STATE_BYTES, enrichment)?;
        // What has changed is handed over with a checkpoint, and freed memory is reused or given back
        // with a delay.
        let kept = Kept {
            n_times: 2,
            changed_share: 8,
        };
        Ok(self.memory(n_bytes_left, Some(kept), Arc::new(Arc::clone(state))))
    }

    /// For a program that keeps baselines in a store: the rest is there.
    ///
    /// # Errors
    /// If there is no room for what is known of addresses.
    pub(super) fn with_store(
        &self,
        store: &Arc<Store>,
        tuning: &Tuning,
        enrichment: &Enrichment,
    ) -> anyhow::Result<Memory> {
        let of_store =
            STORE_BYTES + self.gathered_bytes() + tuning.memtable_bytes * 4 + tuning.cache_bytes;
        let n_bytes_left = self.left_by(FIXED_BYTES + of_store, enrichment)?;
        // What has changed is handed over with a checkpoint, and goes to a file from there; a few MiB of
        // it go by a write.
        let kept = Kept {
            n_times: 1,
            changed_share: 4,
        };
        Ok(self.memory(n_bytes_left, Some(kept), Arc::new(Arc::clone(store))))
    }

    /// What is for states of what is left, and of that for those that have changed, if they are kept with
    /// checkpoints.
    fn memory(&self, n_bytes_left: usize, kept: Option<Kept>, shelves: Arc<dyn Shelves>) -> Memory {
        let n_bytes = of_states(n_bytes_left);
        let (bytes_max, changed_bytes_max) =
            (kept.as_ref()).map_or((n_bytes, usize::MAX), |kept| split(n_bytes, kept));
        Memory {
            bytes_max,
            changed_bytes_max,
            step_bytes: self.memory_limit / STEP_SHARE,
            shelves,
            n_kept: kept.map(|_| Arc::default()),
            n_tasks: Arc::default(),
        }
    }

    /// Bytes of lines that are gathered for the store.
    fn commit_bytes(&self) -> usize {
        COMMIT_BYTES.min(self.memory_limit / COMMIT_SHARE)
    }

    /// What that takes: while much is on its way to the disk, the next events are gathered.
    fn gathered_bytes(&self) -> usize {
        2 * self.commit_bytes()
    }

    /// What is left for states.
    fn left_by(&self, n_bytes: usize, enrichment: &Enrichment) -> anyhow::Result<usize> {
        let of_files = enrichment.n_bytes();
        let needed = n_bytes + of_files + STATES_BYTES_MIN;
        ensure!(
            needed <= self.memory_limit,
            "the files of --geoip and --asn take {}MiB, for which --memory-limit {}MiB has no room: \
             {}MiB would do",
            mib(of_files),
            mib(self.memory_limit),
            mib(needed)
        );
        Ok(self.memory_limit - n_bytes - of_files)
    }

    /// The sizes of a store, if they fit into the limit. Blocks that are kept for reads take an eighth
    /// of it at the most if nobody says how many.
    ///
    /// # Errors
    /// If they do not fit.
    pub(super) fn tuning(&self, asked: &TuningArgs) -> anyhow::Result<Tuning> {
        let tuning = asked.tuning();
        let others = FIXED_BYTES + STORE_BYTES + self.gathered_bytes() + STATES_BYTES_MIN;
        let cache_bytes = tuning.cache_bytes.min(self.memory_limit / 8);
        self.fit(
            "--memtable-mib",
            tuning.memtable_bytes,
            4,
            others + cache_bytes,
        )?;
        if !asked.names_cache() {
            return Ok(Tuning {
                cache_bytes,
                ..tuning
            });
        }
        let others = others + tuning.memtable_bytes * 4;
        self.fit("--cache-mib", tuning.cache_bytes, 1, others)?;
        Ok(tuning)
    }

    /// Whether something that is there so many times fits in beside all others.
    fn fit(
        &self,
        option: &str,
        n_bytes: usize,
        n_times: usize,
        others: usize,
    ) -> anyhow::Result<()> {
        let n_bytes_max = (self.memory_limit - others) / n_times;
        ensure!(
            n_bytes <= n_bytes_max,
            "{option} {} does not fit into --memory-limit {}MiB: {} would, or a limit of {}MiB",
            n_bytes >> 20,
            mib(self.memory_limit),
            n_bytes_max >> 20,
            mib(others + n_bytes * n_times)
        );
        Ok(())
    }

    /// The arguments with the longest line that there is room for, `line_bytes_max` if there is for that.
    ///
    /// # Errors
    /// If somebody asked for a longer one.
    pub(super) fn lines(
        &self,
        asked: &LineArgs,
        line_bytes_max: usize,
    ) -> anyhow::Result<LineArgs> {
        let n_bytes_max = self.memory_limit / LINES_SHARE;
        let n_bytes = asked.line_bytes_max.unwrap_or(0);
        ensure!(
            n_bytes <= n_bytes_max,
            "--line-bytes-max {n_bytes} does not fit into --memory-limit {}MiB: {n_bytes_max} would, or \
             a limit of {}MiB",
            mib(self.memory_limit),
            mib(n_bytes * LINES_SHARE)
        );
        let mut lines = asked.clone();
        lines
            .line_bytes_max
            .get_or_insert(line_bytes_max.min(n_bytes_max));
        Ok(lines)
    }

    /// How to run with lines that are bounded, where a program with room would take `batch_bytes` of
    /// them at once.
    pub(super) fn options(
        &self,
        lines: &LineArgs,
        name: &'static str,
        batch_bytes: usize,
    ) -> Options {
        Options {
            lines_bytes_max: self.memory_limit / LINES_SHARE,
            commit_bytes: self.commit_bytes(),
            ..lines.options(name, batch_bytes.min(self.memory_limit / BATCH_SHARE))
        }
    }
}

/// Whole MiB that hold so many bytes.
fn mib(n_bytes: usize) -> usize {
    n_bytes.div_ceil(1 << 20)
}

/// Bytes of states that fit into what is left: allocations are rounded up, and freed ones of one size
/// do not serve for another.
fn of_states(n_bytes_left: usize) -> usize {
    n_bytes_left / 5 * 4
}

/// How many bytes are for states, and how many of those may change between two checkpoints.
fn split(n_bytes: usize, kept: &Kept) -> (usize, usize) {
    let share = n_bytes / (kept.changed_share + kept.n_times);
    let changed_bytes_max = share.max(CHANGED_BYTES.min(n_bytes / 5));
    (
        n_bytes - kept.n_times * changed_bytes_max,
        changed_bytes_max,
    )
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
