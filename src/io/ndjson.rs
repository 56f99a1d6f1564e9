//! The sink of the pipe programs: lines to standard output.

use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;

use super::files::widen_pipe;
use crate::batch::{Batch, Block};
use crate::engine::{Ends, Flow, Keeper, Sink};
use crate::record::text::json_for_terminal;

/// Writes every event's line, one write a batch, so that a reader sees it at once.
pub struct NdjsonSink {
    output: Box<dyn Write + Send>,
    /// Terminals get the same values, but nothing that they would obey.
    is_terminal: bool,
    buffer: Vec<u8>,
    /// How far each source was read in what is written.
    ends: Ends,
    keeper: Option<Box<dyn Keeper>>,
}

impl NdjsonSink {
    /// Writes to standard output.
    #[must_use]
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        widen_pipe(&stdout);
        Self {
            is_terminal: stdout.is_terminal(),
            output: Box::new(stdout),
            buffer: Vec::new(),
            ends: Ends::default(),
            keeper: None,
        }
    }

    /// Tells how far sources were read in what was written.
    #[must_use]
    pub fn with_keeper(mut self, keeper: Option<Box<dyn Keeper>>) -> Self {
        self.keeper = keeper;
        self
    }
}

impl Sink for NdjsonSink {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let mut n_out = 0;
        for block in &batch.blocks {
            n_out += block.events.len() as u64;
            let lines = if is_untouched(block) {
                block.own_lines()
            } else {
                self.buffer.clear();
                for event in &block.events {
                    block.push_line(event, &mut self.buffer);
                }
                &self.buffer
            };
            let shown = self
                .is_terminal
                .then(|| json_for_terminal(&String::from_utf8_lossy(lines)));
            let lines = shown.as_ref().map_or(lines, |shown| shown.as_bytes());
            let result = self
                .output
                .write_all(lines)
                .and_then(|()| self.output.flush());
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Flow::Closed),
                Err(error) => return Err(error).context("cannot write to standard output"),
            }
        }
        if let Some(keeper) = &mut self.keeper {
            self.ends.add(batch);
            if batch.is_checkpoint {
                keeper.kept(&self.ends.take());
            }
        }
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(keeper) = &mut self.keeper {
            keeper.finish();
        }
        Ok(())
    }
}

/// True if the block leaves as it came, so that its bytes need not be copied.
fn is_untouched(block: &Block) -> bool {
    let is_whole = block.events.len() as u64 == block.n_lines && block.part.is_none();
    is_whole && block.stage_fields.is_empty()
}
