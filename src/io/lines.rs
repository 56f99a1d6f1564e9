//! Cuts a byte stream into blocks of whole lines.

use std::io::{self, Read};
use std::sync::Arc;

use crate::batch::{Block, Medium, Origin, Part};

/// Bytes asked for in one read.
const READ_BYTES: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads blocks from one stream and counts lines and bytes.
pub struct LineReader {
    reader: Box<dyn Read + Send>,
    /// Where the next unread line stands.
    next: Origin,
    /// The start of a line whose end has not been read yet.
    carry: Vec<u8>,
    /// Set while within a line that is too long: the number of parts it has given so far.
    long_line_parts: Option<u64>,
    /// Where that line starts. No other place within it is one to go on from.
    long_line_start: Origin,
    line_bytes_max: usize,
}

impl LineReader {
    /// Reads from `reader`, which stands at `start`.
    #[must_use]
    pub fn new(reader: Box<dyn Read + Send>, start: Origin, line_bytes_max: usize) -> Self {
        Self {
            reader,
            long_line_start: start.clone(),
            next: start,
            carry: Vec::new(),
            long_line_parts: None,
            line_bytes_max,
        }
    }

    /// The name of the stream.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.next.source)
    }

    /// Bytes taken from the stream so far, and before it was opened here.
    #[must_use]
    pub fn n_bytes_read(&self) -> u64 {
        self.next.offset + self.carry.len() as u64
    }

    /// Fills an empty block; false at the end of the stream. What stands after the last line
    /// end is kept for a later call, or for [`Self::fill_rest`].
    ///
    /// # Errors
    /// Of the underlying reader.
    pub fn fill(&mut self, block: &mut Block) -> io::Result<bool> {
        std::mem::swap(&mut block.lines, &mut self.carry);
        self.carry.clear();
        let mut n_searched = 0;
        loop {
            if self.long_line_parts.is_some()
                && let Some(end) = memchr::memchr(b'\n', &block.lines[n_searched..])
            {
                self.split_off_carry(block, n_searched + end + 1);
                block.lines.pop();
                self.place(block, true);
                return Ok(true);
            }
            if let Some(end) = memchr::memrchr(b'\n', &block.lines[n_searched..]) {
                self.split_off_carry(block, n_searched + end + 1);
                self.place(block, false);
                return Ok(true);
            }
            n_searched = block.lines.len();
            // The last byte may be the first of `\r\n`, which is no part of the line.
            if n_searched > self.line_bytes_max + 1 {
                self.place(block, false);
                return Ok(true);
            }
            block.lines.resize(n_searched + READ_BYTES, 0);
            let result = self.reader.read(&mut block.lines[n_searched..]);
            block
                .lines
                .truncate(n_searched + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => {
                    std::mem::swap(&mut block.lines, &mut self.carry);
                    return Ok(false);
                }
                Ok(_) => {
                    if self.skip_byte_order_mark(&mut block.lines, n_searched) {
                        n_searched = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    std::mem::swap(&mut block.lines, &mut self.carry);
                    return Err(error);
                }
            }
        }
    }

    /// Fills the block with a last line that has no end; false if there is none.
    pub fn fill_rest(&mut self, block: &mut Block) -> bool {
        if self.carry.is_empty() && self.long_line_parts.is_none() {
            return false;
        }
        std::mem::swap(&mut block.lines, &mut self.carry);
        self.carry.clear();
        if self.long_line_parts.is_some() {
            self.place(block, true);
            // A long line without an end goes on, if its file does.
            block.end = self.long_line_start.clone();
        } else {
            block.lines.push(b'\n');
            self.place(block, false);
            block.is_unended = true;
            // The line end is ours, not the stream's.
            self.next.offset -= 1;
            block.end.offset -= 1;
        }
        true
    }

    fn split_off_carry(&mut self, block: &mut Block, end: usize) {
        self.carry.extend_from_slice(&block.lines[end..]);
        block.lines.truncate(end);
    }

    /// True if there was one at the start of the stream, and is no longer.
    fn skip_byte_order_mark(&mut self, lines: &mut Vec<u8>, n_before: usize) -> bool {
        let is_there = self.next.offset == 0 && n_before < 3 && lines.starts_with(BYTE_ORDER_MARK);
        if is_there {
            lines.drain(..3);
            self.next.offset = 3;
        }
        is_there
    }

    /// Says where the block's lines stand, and moves on to the line after them. Without a line
    /// end in it, or at the end of a line that is too long, the block is a part of that line.
    fn place(&mut self, block: &mut Block, is_last_part: bool) {
        block.origin = self.next.clone();
        self.next.offset += block.lines.len() as u64;
        let n_lines = memchr::memchr_iter(b'\n', &block.lines).count() as u64;
        if is_last_part || n_lines == 0 {
            let index = self.long_line_parts.unwrap_or(0);
            if index == 0 {
                self.long_line_start = block.origin.clone();
            }
            block.part = Some(Part {
                index,
                is_last: is_last_part,
            });
            self.long_line_parts = (!is_last_part).then_some(index + 1);
            if is_last_part {
                self.next.line += 1;
                self.next.offset += 1;
            }
        } else {
            self.next.line += n_lines;
        }
        let is_within = self.long_line_parts.is_some();
        block.end = if is_within {
            &self.long_line_start
        } else {
            &self.next
        }
        .clone();
    }
}

/// The first line of a stream.
#[must_use]
pub fn start_of(source: &str) -> Origin {
    Origin {
        source: Arc::from(source),
        line: 1,
        offset: 0,
        record: 0,
        medium: Medium::Stream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte a read.
    struct Slow(io::Cursor<&'static [u8]>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n_bytes = buffer.len().min(1);
            self.0.read(&mut buffer[..n_bytes])
        }
    }

    /// A mark whose bytes came one by one made the reader look behind the end of its buffer.
    #[test]
    fn a_byte_order_mark_may_come_in_pieces() {
        let input: &[u8] = b"\xEF\xBB\xBF\none\n\xEF\xBB\xBFtwo";
        let reader = Box::new(Slow(io::Cursor::new(input)));
        let mut reader = LineReader::new(reader, start_of("-"), 100);
        let mut block = Block::new();
        let mut found = Vec::new();
        while reader.fill(&mut block).expect("a cursor does not fail")
            || reader.fill_rest(&mut block)
        {
            found.push((block.lines.clone(), block.origin.line, block.origin.offset));
            block.clear();
        }
        assert_eq!(
            found,
            [
                (b"\n".to_vec(), 1, 3),
                (b"one\n".to_vec(), 2, 4),
                (b"\xEF\xBB\xBFtwo\n".to_vec(), 3, 8),
            ]
        );
    }
}
