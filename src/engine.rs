//! Runs a source through stages into a sink: one thread reads, rayon's threads parse a batch
//! while they take the ones before it through the stages, one thread writes. Channels are
//! bounded, so a slow sink stops the reader; nothing is dropped. The same engine is behind the
//! pipe programs and `sg-run`.

mod count;
mod keep;
mod pace;
mod parser;
mod room;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::ThreadPool;

use crate::batch::{Batch, Block};
use crate::io::dead_letter::DeadLetters;
use crate::mapping::Mapping;
use crate::metrics::{Flow as Counts, Metrics};
use crate::progress::Work;
use crate::record::Code;
use crate::report;
use crate::shutdown::Shutdown;
use crate::stage::Stage;
use count::{Count, Gone};
use pace::Pace;
use parser::{Input, Parser};
use room::Room;

pub use keep::{Ends, Keeper, Logged, TaskState, TaskStore};

/// Where blocks come from.
pub trait Source: Send {
    /// Fills an empty block with whole lines; false means the end. It may block only while it
    /// has nothing to give, and must return soon once shutdown is requested.
    ///
    /// # Errors
    /// Part of the input could not be read. The run is marked as failed, but goes on: the next
    /// call continues with what is left.
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool>;
}

/// Where batches go.
pub trait Sink: Send {
    /// Takes a batch; what it holds of baselines may be taken out. With a batch that is a commit all
    /// events so far are to be kept soon, once this returns for one that is a checkpoint they are.
    ///
    /// # Errors
    /// An error ends the run.
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow>;

    /// Called once after the last batch, also after an error of the source.
    ///
    /// # Errors
    /// If something cannot be brought to its place.
    fn finish(&mut self) -> anyhow::Result<()>;

    /// What it is called in metrics, if it counts as a stage.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// Whether what it has taken is where it belongs with the next commit only, not at once.
    fn gathers(&self) -> bool {
        false
    }
}

/// What a sink says after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// This many events were passed on, this many were known already.
    Written { n_out: u64, n_duplicates: u64 },
    /// The reader of the output has gone; there is no use in going on.
    Closed,
}

/// How to run.
pub struct Options {
    /// The program's name, for messages.
    pub name: &'static str,
    /// Threads that parse and score.
    pub jobs: usize,
    pub line_bytes_max: usize,
    /// Bytes of lines that go through the stages together, when that much is waiting.
    pub batch_bytes: usize,
    /// Bytes of lines that may be on their way from the source to the sink.
    pub lines_bytes_max: usize,
    /// Bytes of events, with what a sink that gathers them needs besides, after which it has to keep them
    /// at the latest.
    pub commit_bytes: usize,
    /// Bytes of lines after which it also has to keep what stages have learned, and how far sources
    /// were read.
    pub checkpoint_bytes: usize,
    /// Stop at the first reject.
    pub strict: bool,
    pub quiet: bool,
    /// What lines are, if they are no events of ours.
    pub mapping: Option<Arc<Mapping>>,
    /// Where it is counted what passes, if anybody wants to know.
    pub metrics: Option<Arc<Metrics>>,
    /// What is shown on a terminal of how far it has come.
    pub work: Work,
    /// Whether a sink writes to standard output.
    pub writes_output: bool,
}

/// What became of the input. `n_in = n_out + n_rejected + n_filtered`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub n_in: u64,
    pub n_out: u64,
    pub n_rejected: u64,
    pub n_filtered: u64,
    pub rejected_by_code: BTreeMap<Code, u64>,
    /// Parts of the input that could not be read.
    pub n_failures: u64,
    /// The reader of the output has gone.
    pub is_closed: bool,
    /// A line was rejected, and the run is strict.
    pub is_stopped: bool,
}

/// Blocks that wait between the threads: back-pressure, not a buffer.
const N_BLOCKS_WAITING: usize = 6;
const N_BATCHES_WAITING: usize = 1;
/// Blocks that wait to be filled again. Stages make more of them where they split some.
const N_BLOCKS_FREE: usize = 16;
/// How often a stage that is not ready is asked again.
const READY_INTERVAL: Duration = Duration::from_micros(200);

/// Runs until the source ends, the sink closes, shutdown is requested or an error stops it.
///
/// # Errors
/// The first error of a stage or of the sink, after everything before it has been written.
pub fn run(
    source: Box<dyn Source>,
    stages: &mut [&mut dyn Stage],
    sink: &mut dyn Sink,
    dead_letters: &mut DeadLetters,
    shutdown: &Shutdown,
    options: &Options,
) -> anyhow::Result<Outcome> {
    let _shown = report::show(options.quiet, options.work, options.writes_output);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs)
        .build()
        .context("cannot start worker threads")?;
    let (block_sender, block_receiver) = bounded(N_BLOCKS_WAITING);
    let (free_sender, free_receiver) = bounded(N_BLOCKS_FREE);
    let room = Arc::new(Room::new(options.lines_bytes_max));
    let room_of_reader = Arc::clone(&room);
    // Not joined: it may sit in a read that never returns once the sink has closed.
    thread::spawn(move || read(source, &block_sender, &free_receiver, &room_of_reader));

    let metrics = options.metrics.as_deref();
    let counts = metrics.and_then(|metrics| metrics.flow.as_ref());
    if let Some(metrics) = metrics {
        metrics.begin();
    }
    let names: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
    // Events that a strict run takes out after they were parsed would have been looked at.
    let first = stages.first().filter(|_| !options.strict);
    let of_block = first.and_then(|stage| stage.of_block());

    let (parsed_sender, parsed_receiver) = bounded::<Batch>(N_BATCHES_WAITING);
    let is_over = AtomicBool::new(false);
    let dead_letters = Mutex::new(dead_letters);
    thread::scope(|scope| {
        let (pool, is_over, dead_letters) = (&pool, &is_over, &dead_letters);
        let parser = scope.spawn(move || {
            let input = Input {
                blocks: &block_receiver,
                shutdown,
                is_over,
                batch_bytes: options.batch_bytes,
            };
            let mut parser = Parser {
                outcome: Outcome::default(),
                n_explained: 0,
                options,
                of_block,
            };
            let pace = Pace::new(options);
            let result = parser.process(&input, pool, pace, dead_letters, &parsed_sender);
            result.map(|()| parser.outcome)
        });
        let mut next = parsed_receiver;
        let mut stage_threads = Vec::new();
        for (i, stage) in stages.iter_mut().enumerate() {
            let (sender, receiver) = bounded::<Batch>(N_BATCHES_WAITING);
            let batches = std::mem::replace(&mut next, receiver);
            let count = Count::of_stage(counts, &names, i);
            stage_threads.push(scope.spawn(move || {
                let stage = &mut **stage;
                run_stage(
                    pool,
                    stage,
                    &batches,
                    &sender,
                    dead_letters,
                    is_over,
                    &count,
                )
            }));
        }
        // Receivers go with their threads: once one ends, sending to it fails instead of waiting.
        let writer = scope.spawn(move || write(sink, &next, &free_sender, &room, counts));
        let written = writer.join();
        is_over.store(true, Ordering::Relaxed);
        let written = written.map_err(|_| anyhow::anyhow!("the writing thread panicked"))?;
        let parsed = parser
            .join()
            .map_err(|_| anyhow::anyhow!("the parsing thread panicked"))?;
        let written = written?;
        let mut n_filtered = written.n_duplicates;
        for thread in stage_threads {
            let ended = thread.join();
            n_filtered += ended.map_err(|_| anyhow::anyhow!("a stage's thread panicked"))??;
        }
        let mut outcome = parsed?;
        outcome.n_out = written.n_out;
        outcome.n_filtered += n_filtered;
        outcome.is_closed = written.is_closed;
        Ok(outcome)
    })
}

/// Takes batches through a stage, in a thread of its own; how many events it has filtered out.
fn run_stage(
    pool: &ThreadPool,
    stage: &mut dyn Stage,
    received: &Receiver<Batch>,
    batches: &Sender<Batch>,
    dead_letters: &Mutex<&mut DeadLetters>,
    is_over: &AtomicBool,
    count: &Count<'_>,
) -> anyhow::Result<u64> {
    let mut n_filtered = 0;
    let mut rest = None;
    let receive = || received.recv().ok().inspect(|batch| count.came(batch));
    while let Some(mut batch) = rest.take().or_else(receive) {
        while !stage.is_ready(&batch) && !is_over.load(Ordering::Relaxed) {
            thread::sleep(READY_INTERVAL);
        }
        let of_batch =
            |batch: &Batch| -> u64 { batch.blocks.iter().map(|block| block.n_filtered).sum() };
        let n_before = of_batch(&batch);
        if pool.current_num_threads() == 1 {
            // One job is one thread.
            pool.install(|| stage.process(&mut batch, pool))?;
        } else {
            stage.process(&mut batch, pool)?;
        }
        let n_taken_out = of_batch(&batch) - n_before;
        n_filtered += n_taken_out;
        count.left(&batch, n_taken_out);
        rest = batch.rest.take().map(|rest| *rest);
        if batch.is_checkpoint {
            // It may be the stage's own, of which nobody knew when lines were rejected.
            lock(dead_letters).sync()?;
        }
        if batches.send(batch).is_err() {
            // Whoever has ended says why when it is joined.
            break;
        }
    }
    Ok(n_filtered)
}

fn lock<'a, 'b>(
    dead_letters: &'a Mutex<&'b mut DeadLetters>,
) -> MutexGuard<'a, &'b mut DeadLetters> {
    // A panic ends the run anyway.
    dead_letters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reading thread.
fn read(
    mut source: Box<dyn Source>,
    blocks: &Sender<anyhow::Result<Block>>,
    free: &Receiver<Block>,
    room: &Room,
) {
    loop {
        let mut block = free.try_recv().unwrap_or_default();
        block.clear();
        // A source that panics must not pass for one that has ended.
        let filled = panic::catch_unwind(AssertUnwindSafe(|| source.fill(&mut block)));
        let message = match filled {
            Ok(Ok(false)) => return,
            Ok(Ok(true)) => {
                block.n_bytes_read = block.lines.len();
                block.read_at = Some(Instant::now());
                room.take(block.n_bytes_read);
                Ok(block)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let error = anyhow::anyhow!("the reading thread panicked");
                // Nobody to tell it to is no harm: the run is over then.
                let _ = blocks.send(Err(error));
                return;
            }
        };
        if blocks.send(message).is_err() {
            return;
        }
    }
}

struct Written {
    n_out: u64,
    n_duplicates: u64,
    is_closed: bool,
}

/// The writing thread.
fn write(
    sink: &mut dyn Sink,
    batches: &Receiver<Batch>,
    free: &Sender<Block>,
    room: &Room,
    counts: Option<&Counts>,
) -> anyhow::Result<Written> {
    let mut gone = counts.map(|counts| Gone::of_sink(counts, sink));
    let mut written = Written {
        n_out: 0,
        n_duplicates: 0,
        is_closed: false,
    };
    while let Ok(mut batch) = batches.recv() {
        if let Some(gone) = &mut gone {
            gone.came(&batch);
        }
        match sink.write(&mut batch)? {
            Flow::Written {
                n_out,
                n_duplicates,
            } => {
                written.n_out += n_out;
                written.n_duplicates += n_duplicates;
                if let Some(gone) = &mut gone {
                    gone.left(&batch, n_out, n_duplicates);
                }
            }
            Flow::Closed => {
                written.is_closed = true;
                break;
            }
        }
        for block in batch.blocks {
            room.give_back(block.n_bytes_read);
            // Nobody to take it back, or enough of them, is no harm: it is dropped.
            let _ = free.try_send(block);
        }
    }
    sink.finish()?;
    Ok(written)
}
