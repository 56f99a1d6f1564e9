//! The sink of the pipe programs: lines to standard output.

use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;

use super::files::widen_pipe;
use super::marked::Marking;
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
    marking: Option<Marking>,
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
            marking: None,
        }
    }

    /// Tells how far sources were read in what was written.
    #[must_use]
    pub fn with_keeper(mut self, keeper: Option<Box<dyn Keeper>>) -> Self {
        self.keeper = keeper;
        self
    }

    /// Marks how far sources were read in what was written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn mark(&mut self, marking: Marking) -> anyhow::Result<()> {
        self.begin(&marking.resume())?;
        self.marking = Some(marking);
        Ok(())
    }

    /// Passes on the line by which the pipe begins.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&mut self, line: &[u8]) -> anyhow::Result<()> {
        // A reader that has gone is noticed when events come.
        self.put(line).map(|_| ())
    }

    /// Writes lines; false if their reader has gone.
    fn put(&mut self, lines: &[u8]) -> anyhow::Result<bool> {
        let written = self.output.write_all(lines);
        match written.and_then(|()| self.output.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }

    /// Writes a block's events; false if their reader has gone.
    fn put_block(&mut self, block: &Block) -> anyhow::Result<bool> {
        if let Some(marking) = &mut self.marking
            && !block.events.is_empty()
            && let Some(line) = marking.before(&block.task)
            && !self.put(&line)?
        {
            return Ok(false);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let lines = if is_untouched(block) {
            block.own_lines()
        } else {
            buffer.clear();
            for event in &block.events {
                block.push_line(event, &mut buffer);
            }
            &buffer
        };
        let shown = self
            .is_terminal
            .then(|| json_for_terminal(&String::from_utf8_lossy(lines)));
        let put = self.put(shown.as_ref().map_or(lines, |shown| shown.as_bytes()));
        self.buffer = buffer;
        put
    }
}

impl Sink for NdjsonSink {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let mut n_out = 0;
        for block in &batch.blocks {
            n_out += block.events.len() as u64;
            if !self.put_block(block)? {
                return Ok(Flow::Closed);
            }
        }
        if self.keeper.is_some() || self.marking.is_some() {
            self.ends.add(batch);
        }
        if batch.is_checkpoint {
            let ends = self.ends.take();
            let marking = self.marking.as_mut();
            if let Some(line) = marking.and_then(|marking| marking.checkpoint(&ends))
                && !self.put(&line)?
            {
                return Ok(Flow::Closed);
            }
            if let Some(keeper) = &mut self.keeper {
                keeper.kept(&ends);
            }
        }
        if let Some(marker) = &batch.marker
            && !self.put(&marker.line)?
        {
            return Ok(Flow::Closed);
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
