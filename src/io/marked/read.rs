//! The source over lines of which some are ours.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::bail;
use memchr::memmem::Finder;

use super::Said;
use crate::batch::{Block, Marker, Origin};
use crate::engine::Source;
use crate::shutdown::Shutdown;

/// What the first line says.
pub struct Resume {
    /// What tells the database from others.
    pub database: String,
    /// The checkpoint that the lines come after.
    pub checkpoint: u64,
    /// The line itself.
    pub line: Vec<u8>,
}

/// Reads the first lines, and tells whether the first of all is ours; the source over the others.
#[must_use]
pub fn open(mut lines: Box<dyn Source>, shutdown: &Shutdown) -> (Box<dyn Source>, Option<Resume>) {
    let mut block = Block::new();
    let (mut first, mut resume) = (None, None);
    match lines.fill(&mut block) {
        Ok(true) => {
            resume = take_resume(&mut block);
            if !block.lines.is_empty() || block.part.is_some() {
                first = Some(Ok(block));
            }
        }
        Ok(false) => {}
        Err(error) => first = Some(Err(error)),
    }
    let lines = Begun { lines, first };
    let Some(resume) = resume else {
        return (Box::new(lines), None);
    };
    let said = Said {
        db: resume.database.clone(),
        ..Said::default()
    };
    let begin = said.line();
    let marked = Marked {
        lines,
        split: VecDeque::new(),
        begin: Finder::new(begin.strip_suffix(b"}}\n").unwrap_or(&begin)).into_owned(),
        database: resume.database.clone(),
        task: Arc::default(),
        is_kept: true,
        shutdown: shutdown.clone(),
    };
    (Box::new(marked), Some(resume))
}

/// Takes the first line out of a block, if it is ours.
fn take_resume(block: &mut Block) -> Option<Resume> {
    if block.part.is_some() {
        return None;
    }
    let end = memchr::memchr(b'\n', &block.lines)? + 1;
    let said = Said::read(&block.lines[..end])?;
    let checkpoint = said.resume?;
    let line = block.lines.drain(..end).collect();
    block.origin.line += 1;
    block.origin.offset += end as u64;
    Some(Resume {
        database: said.db,
        checkpoint,
        line,
    })
}

/// Lines of which the first ones have been read.
struct Begun {
    lines: Box<dyn Source>,
    /// What that has brought, if it was not all ours.
    first: Option<anyhow::Result<Block>>,
}

impl Source for Begun {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        match self.first.take() {
            Some(first) => {
                *block = first?;
                Ok(true)
            }
            None => self.lines.fill(block),
        }
    }
}

/// Lines of which some are ours.
struct Marked {
    lines: Begun,
    /// Blocks and marks that a block was split into.
    split: VecDeque<Block>,
    /// What each of our lines begins with.
    begin: Finder<'static>,
    database: String,
    /// Whose events come.
    task: Arc<str>,
    /// No line came since the last checkpoint.
    is_kept: bool,
    shutdown: Shutdown,
}

impl Source for Marked {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        loop {
            if let Some(next) = self.split.pop_front() {
                *block = next;
                return Ok(true);
            }
            let is_filled = self.lines.fill(block)?;
            if !is_filled && (self.is_kept || self.shutdown.is_requested()) {
                return Ok(false);
            }
            if !is_filled || block.is_unended {
                // Told once.
                self.is_kept = true;
                bail!(
                    "the programs before this one have ended without a checkpoint: run the pipe again, \
                     and it goes on at the last one"
                );
            }
            if !self.split(block) {
                return Ok(true);
            }
            // It may have held nothing but lines of ours.
            block.clear();
        }
    }
}

impl Marked {
    /// Says whose events a block holds; if there are lines of ours among them, splits it there. Whether
    /// there are.
    fn split(&mut self, block: &mut Block) -> bool {
        block.task = Arc::clone(&self.task);
        self.is_kept = false;
        if block.part.is_some() {
            return false;
        }
        let mut from = 0;
        let mut next = 0;
        while let Some(at) = self.begin.find(&block.lines[next..]) {
            let start = next + at;
            next = start + 1;
            if start > 0 && block.lines[start - 1] != b'\n' {
                continue;
            }
            let Some(length) = memchr::memchr(b'\n', &block.lines[start..]) else {
                break;
            };
            let end = start + length + 1;
            if let Some(said) = Said::read(&block.lines[start..end])
                && self.is_ours(&said)
            {
                self.push(block, from, start);
                self.obey(said, &block.lines[start..end]);
                from = end;
                next = end;
            }
        }
        if from > 0 {
            self.push(block, from, block.lines.len());
        }
        from > 0
    }

    fn is_ours(&self, said: &Said) -> bool {
        said.db == self.database && (said.from.is_some() || said.checkpoint.is_some())
    }

    fn obey(&mut self, said: Said, line: &[u8]) {
        if let Some(task) = said.from {
            self.task = task.into();
        }
        if let Some(checkpoint) = said.checkpoint {
            self.is_kept = true;
            let mut mark = Block::new();
            mark.is_mark = true;
            mark.wants_checkpoint = true;
            mark.marker = Some(Box::new(Marker {
                database: said.db,
                checkpoint,
                line: line.to_vec(),
            }));
            self.split.push_back(mark);
        }
    }

    /// Makes a block of lines of a block.
    fn push(&mut self, block: &Block, from: usize, end: usize) {
        if from == end {
            return;
        }
        self.is_kept = false;
        let place = |at: usize| Origin {
            line: block.origin.line + memchr::memchr_iter(b'\n', &block.lines[..at]).count() as u64,
            offset: block.origin.offset + at as u64,
            ..block.origin.clone()
        };
        let mut part = Block::new();
        part.origin = place(from);
        part.end = place(end);
        part.lines = block.lines[from..end].to_vec();
        part.task = Arc::clone(&self.task);
        self.split.push_back(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::lines::{LineReader, start_of};
    use crate::shutdown::Shutdown;

    /// One line a read.
    struct LineByLine(VecDeque<&'static str>);

    impl std::io::Read for LineByLine {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let line = self.0.pop_front().unwrap_or_default();
            buffer[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }

    struct Lines(LineReader);

    impl Source for Lines {
        fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
            Ok(self.0.fill(block)? || self.0.fill_rest(block))
        }
    }

    /// A line of ours that came alone was taken for one of an event.
    #[test]
    fn lines_of_ours_may_come_alone() {
        let lines = [
            "{\"sg\":{\"db\":\"d\",\"resume\":0}}\n",
            "{\"sg\":{\"db\":\"d\",\"from\":\"t\"}}\n",
            "one\n",
            "{\"sg\":{\"db\":\"other\",\"checkpoint\":1,\"positions\":{}}}\n",
            "{\"sg\":{\"db\":\"d\",\"checkpoint\":1,\"positions\":{}}}\n",
        ];
        let reader = LineReader::new(
            Box::new(LineByLine(VecDeque::from(lines))),
            start_of("-"),
            100,
        );
        let shutdown = Shutdown::default();
        let (mut source, resume) = open(Box::new(Lines(reader)), &shutdown);
        assert_eq!(resume.map(|resume| resume.checkpoint), Some(0));
        let mut found = Vec::new();
        let mut block = Block::new();
        while source.fill(&mut block).expect("all is well") {
            let lines = String::from_utf8(block.lines.clone()).expect("text");
            let marker = block.marker.as_ref().map(|marker| marker.checkpoint);
            found.push((lines, block.task.to_string(), block.origin.line, marker));
            block.clear();
        }
        let task = || "t".to_owned();
        assert_eq!(
            found,
            [
                ("one\n".to_owned(), task(), 3, None),
                (lines[3].to_owned(), task(), 4, None),
                (String::new(), String::new(), 1, Some(1)),
            ]
        );
    }
}
