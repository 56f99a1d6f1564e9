//! What a stage is. Stages know batches; they know nothing of stdin, Kafka, threads or RocksDB.

mod embed;
mod findings;
mod incident;
mod look;
mod memory;
mod score;
mod tasks;

pub use embed::{Embed, Embedded, Embedder};
pub use incident::{Alert, Incidents, of_detector};
pub use memory::{Backing, EachUser, Memory, Shelf, Shelves};
pub use score::{Emit, Scorer};
pub use tasks::{ScoreConfig, Scoring, Tasks};

use rayon::ThreadPool;

use crate::batch::{Batch, Block};

/// What the stages of scoring are called.
const SCORE: &str = "score";

/// What a stage does with each block by itself.
pub type OfBlock = Box<dyn Fn(&mut Block) + Send + Sync>;

/// One step of the pipeline.
///
/// `process` gets every batch once, in input order. It may add fields to events, take events
/// out and count them as filtered, and must leave the order of the others alone. What it
/// produces must not depend on how the input was cut into batches and blocks.
///
/// A stage that has no memory for all of a batch leaves what it has not come to in `rest`, together
/// with what is to be kept with the last of it. One that holds too much that no sink has kept makes a
/// checkpoint of a batch.
pub trait Stage: Send {
    /// What it is called in metrics. Stages that stand one after the other and have the same name count
    /// as one.
    fn name(&self) -> &'static str;

    /// What can be done with each block before the batch comes: it needs no order, and is done best by the thread that
    /// has just parsed the lines. It is asked of the first stage of a run only, and only if nobody takes events out of
    /// a block afterwards, as strict runs do: [`Self::process`] has to do it with blocks with which it was not done.
    fn of_block(&self) -> Option<OfBlock> {
        None
    }

    /// Works on a batch. It is called on a thread of its own; what can be spread goes to `pool`.
    ///
    /// # Errors
    /// An error ends the run; bad events are not errors.
    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()>;

    /// Whether it can take that batch now, or first has to see kept what it has handed on. Asked until
    /// it can.
    fn is_ready(&self, _: &Batch) -> bool {
        true
    }
}
