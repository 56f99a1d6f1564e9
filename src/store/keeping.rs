//! A sink that keeps what stages have learned in a state, once another sink has passed the events on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::State;
use crate::batch::Batch;
use crate::engine::{Flow, Sink};

/// Passes batches on, then puts what comes with checkpoints. It commits nothing.
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

    /// Bytes of all lines so far.
    #[must_use]
    pub fn n_line_bytes(&self) -> u64 {
        self.n_line_bytes
    }
}

impl Sink for Keeping<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let blocks = batch.blocks.iter();
        let n_bytes: usize = blocks.map(|block| block.own_lines().len()).sum();
        self.n_line_bytes += n_bytes as u64;
        let flow = self.inner.write(batch)?;
        if batch.is_checkpoint && flow != Flow::Closed {
            self.state.put(std::mem::take(&mut batch.learned))?;
            self.n_kept.fetch_add(1, Ordering::Release);
        }
        Ok(flow)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.inner.finish()
    }
}
