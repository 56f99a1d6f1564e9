//! Puts blocks together to batches, parses them, and gives account of what is rejected: what is done with
//! lines before the stages get them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::pace::Pace;
use super::{Options, Outcome, lock};
use crate::batch::{Batch, Block};
use crate::io::dead_letter::DeadLetters;
use crate::progress;
use crate::report::{self, Level};
use crate::shutdown::Shutdown;
use crate::stage::OfBlock;

/// Rejects that are explained one by one before only their number is told.
const N_EXPLAINED: u64 = 5;
/// How long input may be silent after a request to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Blocks as they arrive, put together to batches.
pub(super) struct Input<'a> {
    pub(super) blocks: &'a Receiver<anyhow::Result<Block>>,
    pub(super) shutdown: &'a Shutdown,
    /// Nobody takes batches any more.
    pub(super) is_over: &'a AtomicBool,
    pub(super) batch_bytes: usize,
}

impl Input<'_> {
    /// Blocks only for the first block of a batch, then takes what is waiting already.
    /// An input that stays quiet for longer than `patience` gives an empty batch.
    fn next(
        &self,
        batch: &mut Vec<Block>,
        failures: &mut Vec<anyhow::Error>,
        patience: Option<Duration>,
    ) -> bool {
        batch.clear();
        let first = match self.first(patience) {
            First::Arrived(first) => *first,
            First::Quiet => return true,
            First::Over => return false,
        };
        let mut n_bytes = 0;
        let mut is_full = |message: anyhow::Result<Block>| match message {
            Ok(block) => {
                n_bytes += block.lines.len();
                let is_last = block.is_mark;
                batch.push(block);
                is_last || n_bytes >= self.batch_bytes
            }
            Err(error) => {
                failures.push(error);
                false
            }
        };
        let mut is_last = is_full(first);
        while !is_last {
            let Ok(message) = self.blocks.try_recv() else {
                break;
            };
            is_last = is_full(message);
        }
        true
    }

    fn first(&self, patience: Option<Duration>) -> First {
        let start = Instant::now();
        loop {
            let timeout = if self.shutdown.is_requested() {
                DRAIN_TIMEOUT
            } else {
                let short = Duration::from_millis(200);
                patience.map_or(short, |patience| patience.min(short))
            };
            match self.blocks.recv_timeout(timeout) {
                Ok(message) => return First::Arrived(Box::new(message)),
                Err(RecvTimeoutError::Disconnected) => return First::Over,
                Err(RecvTimeoutError::Timeout) if timeout == DRAIN_TIMEOUT => return First::Over,
                Err(RecvTimeoutError::Timeout) if self.is_over.load(Ordering::Relaxed) => {
                    return First::Over;
                }
                Err(RecvTimeoutError::Timeout)
                    if patience.is_some_and(|patience| start.elapsed() >= patience) =>
                {
                    return First::Quiet;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// What comes first.
enum First {
    Arrived(Box<anyhow::Result<Block>>),
    /// Nothing for a while.
    Quiet,
    Over,
}

/// What is done with blocks before the stages get them.
pub(super) struct Parser<'a> {
    pub(super) outcome: Outcome,
    pub(super) n_explained: u64,
    pub(super) options: &'a Options,
    /// What the first stage does with each block by itself.
    pub(super) of_block: Option<OfBlock>,
}

impl Parser<'_> {
    pub(super) fn process(
        &mut self,
        input: &Input<'_>,
        pool: &ThreadPool,
        mut pace: Pace<'_>,
        dead_letters: &Mutex<&mut DeadLetters>,
        batches: &Sender<Batch>,
    ) -> anyhow::Result<()> {
        let mut failures = Vec::new();
        let mut is_stopped = false;
        while !is_stopped {
            let mut batch = Batch::default();
            let is_over = !input.next(&mut batch.blocks, &mut failures, pace.patience());
            if let Some(metrics) = self.options.metrics.as_ref().filter(|_| is_over) {
                metrics.drain();
            }
            if is_over && pace.is_all_kept() {
                break;
            }
            for failure in failures.drain(..) {
                self.outcome.n_failures += 1;
                report::fail(self.options.name, &format!("{failure:#}"));
            }
            self.parse(&mut batch.blocks, pool);
            is_stopped = is_over || self.options.strict && cut_at_first_reject(&mut batch);
            pace.mark(&mut batch, input.blocks.is_empty(), is_stopped);
            self.account(&batch, &mut lock(dead_letters))?;
            if batches.send(batch).is_err() {
                // Whoever has ended says why when it is joined.
                return Ok(());
            }
        }
        self.outcome.is_stopped = self.options.strict && self.outcome.n_rejected > 0;
        Ok(())
    }

    fn parse(&self, blocks: &mut [Block], pool: &ThreadPool) {
        let line_bytes_max = self.options.line_bytes_max;
        let mapping = self.options.mapping.as_deref();
        let ahead = mapping.map(|mapping| mapping.look_ahead(blocks));
        let parse = |(i, block): (usize, &mut Block)| {
            match (mapping, &ahead) {
                (Some(mapping), Some(ahead)) => mapping.parse(block, &ahead[i], line_bytes_max),
                _ => block.parse(line_bytes_max),
            }
            if let Some(of_block) = &self.of_block {
                of_block(block);
            }
        };
        pool.install(|| blocks.par_iter_mut().enumerate().for_each(parse));
    }

    fn account(&mut self, batch: &Batch, dead_letters: &mut DeadLetters) -> anyhow::Result<()> {
        let metrics = self.options.metrics.as_ref();
        let counts = metrics.and_then(|metrics| metrics.flow.as_ref());
        progress::things(batch.blocks.iter().map(|block| block.n_lines).sum());
        for block in &batch.blocks {
            if let Some(counts) = counts {
                counts.read(block.n_lines, block.n_blank, block.events.len() as u64);
            }
            self.outcome.n_in += block.n_lines;
            self.outcome.n_filtered += block.n_blank;
            for reject in &block.rejects {
                if block.part.is_none_or(|part| part.is_last) {
                    self.outcome.n_rejected += 1;
                    if let Some(counts) = counts {
                        counts.reject(reject.reason.code);
                    }
                    *self
                        .outcome
                        .rejected_by_code
                        .entry(reject.reason.code)
                        .or_default() += 1;
                    self.explain(block, reject, dead_letters.keeps());
                }
                dead_letters.keep(block, reject)?;
            }
        }
        if batch.is_commit {
            dead_letters.sync()?;
        }
        Ok(())
    }

    /// Says why a line is rejected: also to whoever wants to hear little, if nobody else keeps it.
    fn explain(&mut self, block: &Block, reject: &crate::batch::Reject, is_kept: bool) {
        if self.options.quiet && is_kept || self.n_explained == N_EXPLAINED {
            return;
        }
        self.n_explained += 1;
        let origin = block.origin_of(reject.line_index, reject.line);
        let source = &origin.source;
        let field = reject
            .reason
            .field
            .map(|field| format!(" {field}:"))
            .unwrap_or_default();
        let (code, message) = (reject.reason.code.name(), &reject.reason.message);
        let text = format!(
            "{source}:{}: rejected, {code}:{field} {message}",
            origin.line
        );
        let fields = [
            ("file", source.as_ref().into()),
            ("line", origin.line.into()),
            ("offset", origin.offset.into()),
            ("reason", code.into()),
        ];
        report::tell(Level::Warning, self.options.name, &text, &fields);
    }
}

/// Takes out all that comes after the first reject; true if there was one. A line that comes in
/// parts is one with its last part: it is counted and kept as a whole.
fn cut_at_first_reject(batch: &mut Batch) -> bool {
    let Some(at) = batch
        .blocks
        .iter()
        .position(|block| !block.rejects.is_empty() && block.part.is_none_or(|part| part.is_last))
    else {
        return false;
    };
    batch.blocks.truncate(at + 1);
    let block = &mut batch.blocks[at];
    block.rejects.truncate(1);
    let line_index = block.rejects[0].line_index;
    block.events.retain(|event| event.line_index < line_index);
    // Where to go on: at that line, which has to be dealt with first.
    block.end = block.origin_of(line_index, block.rejects[0].line);
    block.n_lines = u64::from(line_index) + 1;
    block.n_blank = block.n_lines - 1 - block.events.len() as u64;
    true
}
