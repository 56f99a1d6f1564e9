//! When what a sink has gathered has to be kept: at once on a quiet input, in large pieces on a busy one.

use std::time::{Duration, Instant};

use super::Options;
use crate::batch::Batch;

/// Bytes that an event takes where it is gathered, besides its line: its keys, and its place.
const EVENT_BYTES: usize = 128;
/// Input is busy while so many bytes of lines are gathered from one commit to the next. Then a sink goes on
/// gathering when nothing is waiting for a moment; how long such a moment may be, and how long the first
/// line waits at the most.
const BUSY_BYTES: usize = 1 << 20;
const PAUSE_INTERVAL: Duration = Duration::from_millis(10);
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// How long input may be silent before there is a checkpoint of what came before.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);
/// How long input that is not silent goes without a checkpoint: a shorter time would write the
/// baselines of most users again and again, a longer one has more to be read again after a crash.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// When what was gathered is kept.
pub(super) struct Pace<'a> {
    options: &'a Options,
    uncommitted_bytes: usize,
    unchecked_bytes: usize,
    /// Much came before the last commit.
    is_busy: bool,
    last_commit: Instant,
    last_checkpoint: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            uncommitted_bytes: 0,
            unchecked_bytes: 0,
            is_busy: false,
            last_commit: Instant::now(),
            last_checkpoint: Instant::now(),
        }
    }

    pub(super) fn is_all_kept(&self) -> bool {
        self.uncommitted_bytes == 0 && self.unchecked_bytes == 0
    }

    /// How long the input may be quiet before something is to be done about it.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.uncommitted_bytes > 0 {
            Some(PAUSE_INTERVAL)
        } else if self.unchecked_bytes > 0 {
            Some(QUIET_INTERVAL)
        } else {
            None
        }
    }

    /// Decides what has to be kept with a batch.
    pub(super) fn mark(&mut self, batch: &mut Batch, is_quiet: bool, is_last: bool) {
        let is_wanted = batch.blocks.iter().any(|block| block.wants_checkpoint);
        let is_pause = batch.blocks.is_empty() && self.uncommitted_bytes > 0;
        for block in &mut batch.blocks {
            batch.released.append(&mut block.released);
            // A mark ends its batch: there is one at the most.
            batch.marker = block.marker.take().or(batch.marker.take());
        }
        batch.blocks.retain(|block| !block.is_mark);
        let blocks = || batch.blocks.iter();
        let n_bytes: usize = blocks().map(|block| block.all_lines().len()).sum();
        let n_events: usize = blocks().map(|block| block.events.len()).sum();
        if self.uncommitted_bytes == 0 {
            self.last_commit = Instant::now();
        }
        self.uncommitted_bytes += n_bytes + n_events * EVENT_BYTES;
        self.unchecked_bytes += n_bytes;
        let is_busy = self.is_busy || self.uncommitted_bytes >= BUSY_BYTES;
        batch.is_commit = is_last
            || is_pause
            || is_quiet && !is_busy
            || self.last_commit.elapsed() >= COMMIT_INTERVAL
            || self.uncommitted_bytes >= self.options.commit_bytes;
        batch.is_checkpoint = is_last
            || is_wanted
            || batch.blocks.is_empty() && !is_pause
            || self.last_checkpoint.elapsed() >= CHECKPOINT_INTERVAL
            || self.unchecked_bytes >= self.options.checkpoint_bytes;
        if batch.is_checkpoint {
            batch.is_commit = true;
            self.unchecked_bytes = 0;
            self.last_checkpoint = Instant::now();
        }
        if batch.is_commit {
            self.is_busy = self.uncommitted_bytes >= BUSY_BYTES;
            self.uncommitted_bytes = 0;
        }
    }
}
