//! A sink that keeps what stages have learned in a state, once another sink has passed the events on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Label, State};
use crate::batch::{Batch, Block};
use crate::engine::{Flow, Sink};

/// What a block counts for at the most.
const BLOCK_BYTES: usize = 1 << 20;

/// Passes batches on, then puts what comes with checkpoints. It commits that with the checkpoints of a
/// pipe, and only with them.
pub struct Keeping<'a> {
    inner: &'a mut dyn Sink,
    state: Arc<State>,
    /// Told how many checkpoints have been put.
    n_kept: Arc<AtomicU32>,
    n_line_bytes: u64,
}

impl<'a> Keeping<'a> {
    #[must_use]
    pub fn new(inner: &'a mut dyn Sink, state: Arc<State>, n_kept: Arc<AtomicU32>) -> Self {
        Self {
            inner,
            state,
            n_kept,
            n_line_bytes: 0,
        }
    }

    /// Bytes of all lines since the last commit.
    #[must_use]
    pub fn n_line_bytes(&self) -> u64 {
        self.n_line_bytes
    }
}

impl Sink for Keeping<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        // A long line is alone on its way: what was before it has arrived.
        let n_bytes = |block: &Block| block.own_lines().len().min(BLOCK_BYTES);
        self.n_line_bytes += batch.blocks.iter().map(n_bytes).sum::<usize>() as u64;
        let marker = batch.marker.take();
        let flow = self.inner.write(batch)?;
        if flow == Flow::Closed {
            return Ok(flow);
        }
        if batch.is_checkpoint {
            self.state.put(std::mem::take(&mut batch.learned))?;
            self.n_kept.fetch_add(1, Ordering::Release);
        }
        let Some(marker) = marker else {
            return Ok(flow);
        };
        let label = Label {
            database: marker.database.clone(),
            checkpoint: marker.checkpoint,
        };
        self.state
            .commit(&label, std::mem::take(&mut self.n_line_bytes))?;
        // It goes on when all before it is kept here.
        let passed_on = self.inner.write(&mut Batch {
            marker: Some(marker),
            ..Batch::default()
        })?;
        Ok(match passed_on {
            Flow::Closed => Flow::Closed,
            Flow::Written { .. } => flow,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.inner.finish()
    }
}
