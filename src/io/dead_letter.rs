//! Rejected lines, kept with the reason and where they came from, and read back for another try.
//!
//! A letter is one NDJSON line: `{"source", "position": {"line", "offset"}, "reason": {"code",
//! "field", "message"}, "raw_b64"}`. A line that is longer than the limit, or than a message of a topic
//! may be, is kept in several letters with `"part": {"index", "is_last"}`.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use super::append::AppendFile;
use super::files::{STDIN, open_file};
use super::kafka::Producer;
use super::lines::{LineReader, start_of};
use crate::batch::{Block, Medium, Origin, Part, Reject};
use crate::engine::Source;
use crate::metrics::Counter;
use crate::record::Reason;
use crate::record::text::printable;
use crate::shutdown::Shutdown;

#[derive(Serialize)]
struct Letter<'a> {
    source: &'a str,
    position: LetterPosition,
    reason: &'a Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<LetterPart>,
    raw_b64: String,
}

#[derive(Serialize, Deserialize)]
struct LetterPosition {
    line: u64,
    offset: u64,
    /// Which of the line's records it is, if it holds several.
    #[serde(default, skip_serializing_if = "is_first")]
    record: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(record: &u32) -> bool {
    *record == 0
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct LetterPart {
    index: u64,
    is_last: bool,
}

#[derive(Deserialize)]
struct ReadLetter {
    source: String,
    position: LetterPosition,
    #[serde(default)]
    part: Option<LetterPart>,
    raw_b64: String,
}

/// Bytes of a line in one message: brokers take a megabyte, of which base64 makes a third more of it and
/// what is said about it the rest.
const MESSAGE_RAW_BYTES_MAX: usize = 512 << 10;

/// Where rejected lines are kept, if anywhere. Clones keep them in the same place.
#[derive(Clone)]
pub struct DeadLetters {
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    place: Place,
    /// Something was kept that is not safe yet.
    is_dirty: bool,
    /// Letters about the line that is being kept, so far.
    n_parts: u64,
    /// More of that line follows: no other letter may come between.
    is_within_line: bool,
    /// Where it is counted, if anybody wants to know.
    counter: Option<Counter>,
}

enum Place {
    Nowhere,
    File(AppendFile),
    Topic(Box<Producer>),
}

/// What letters about one line have in common.
struct Subject<'a> {
    source: &'a str,
    line: u64,
    offset: u64,
    record: u32,
    reason: &'a Reason,
}

impl Place {
    fn write(&mut self, letter: &Letter<'_>) -> anyhow::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::File(file) => serde_json::to_writer(&mut *file, letter)
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(b"\n"))
                .map_err(|error| cannot_write(file.path(), &error)),
            Self::Topic(producer) => producer.send(None, &serde_json::to_vec(letter)?),
        }
    }
}

impl DeadLetters {
    /// Rejected lines are counted and explained, but not kept.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::at(Place::Nowhere)
    }

    /// Rejected lines are appended to a file.
    ///
    /// # Errors
    /// If the file cannot be opened for writing.
    pub fn append(path: &Path) -> anyhow::Result<Self> {
        let file = AppendFile::open(path)
            .with_context(|| format!("cannot write dead letters to {}", path.display()))?;
        Ok(Self::at(Place::File(file)))
    }

    /// Rejected lines are sent to a topic.
    #[must_use]
    pub fn send(producer: Producer) -> Self {
        Self::at(Place::Topic(Box::new(producer)))
    }

    fn at(place: Place) -> Self {
        Self {
            kept: Arc::new(Mutex::new(Kept {
                place,
                is_dirty: false,
                n_parts: 0,
                is_within_line: false,
                counter: None,
            })),
        }
    }

    /// Counts lines there that are kept from now on, if they are kept anywhere.
    pub fn count(&self, counter: &Counter) {
        self.lock().counter = Some(counter.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic ends the run anyway.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether rejected lines are kept anywhere.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !matches!(self.lock().place, Place::Nowhere)
    }

    /// Keeps one rejected line.
    ///
    /// # Errors
    /// If it cannot be written: it must not be lost, so the run has to stop.
    pub fn keep(&mut self, block: &Block, reject: &Reject) -> anyhow::Result<()> {
        let mut kept = self.lock();
        if block.part.is_none_or(|part| part.index == 0) {
            kept.n_parts = 0;
        }
        let origin = block.origin_of(reject.line_index, reject.line);
        let subject = Subject {
            source: &origin.source,
            line: origin.line,
            offset: origin.offset,
            record: origin.record,
            reason: &reject.reason,
        };
        let is_end = block.part.is_none_or(|part| part.is_last);
        kept.is_within_line = !is_end;
        // A line in one piece needs no word on it.
        let has_parts = block.part.is_some();
        kept.write(&subject, block.bytes(reject.line), has_parts, is_end)
    }

    /// Keeps a line that was accepted, but not by whoever `source` is, and makes sure that it survives
    /// a power cut; false if it has to wait, since a line is being kept.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_aside(
        &self,
        source: &str,
        number: u64,
        reason: &Reason,
        line: &[u8],
    ) -> anyhow::Result<bool> {
        let mut kept = self.lock();
        if kept.is_within_line {
            return Ok(false);
        }
        kept.n_parts = 0;
        let subject = Subject {
            source,
            line: number,
            offset: 0,
            record: 0,
            reason,
        };
        kept.write(&subject, line, false, true)?;
        kept.sync()?;
        Ok(true)
    }

    /// Makes sure that what was kept survives a power cut, before positions beyond it are kept.
    ///
    /// # Errors
    /// If it cannot be brought to the disk.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        self.lock().sync()
    }
}

impl Kept {
    /// Writes a line, or a part of one, in as many letters as it takes.
    fn write(
        &mut self,
        subject: &Subject<'_>,
        raw: &[u8],
        has_parts: bool,
        is_end: bool,
    ) -> anyhow::Result<()> {
        let raw_bytes_max = match self.place {
            Place::Nowhere => return Ok(()),
            Place::Topic(_) => MESSAGE_RAW_BYTES_MAX,
            Place::File(_) => raw.len().max(1),
        };
        self.is_dirty = true;
        let mut rest = raw;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(raw_bytes_max));
            rest = after;
            let is_last = is_end && rest.is_empty();
            let part = LetterPart {
                index: self.n_parts,
                is_last,
            };
            let letter = Letter {
                source: subject.source,
                position: LetterPosition {
                    line: subject.line,
                    offset: subject.offset,
                    record: subject.record,
                },
                reason: subject.reason,
                part: (self.n_parts > 0 || !is_last || has_parts).then_some(part),
                raw_b64: BASE64_STANDARD.encode(piece),
            };
            self.n_parts += 1;
            self.place.write(&letter)?;
            if rest.is_empty() {
                if let Some(counter) = self.counter.as_ref().filter(|_| is_last) {
                    counter.inc();
                }
                return Ok(());
            }
        }
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.is_dirty) {
            return Ok(());
        }
        match &mut self.place {
            Place::Nowhere => Ok(()),
            Place::File(file) => file
                .sync()
                .map_err(|error| cannot_write(file.path(), &error)),
            Place::Topic(producer) => producer.flush(),
        }
    }
}

/// Only its text is kept of the cause: a pipe that is closed here loses lines, and must not
/// pass for standard output being closed.
fn cannot_write(path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot write dead letters to {}: {error}", path.display())
}

/// The source over dead letters: the lines as they were, with where they came from first.
pub struct Replay {
    letters: LineReader,
    path: PathBuf,
    /// Letters that were read and not given yet, and complaints about what is no letter.
    waiting: VecDeque<anyhow::Result<RawLine>>,
    /// Parts of a long line that have been read so far, and where the line came from.
    long_line: Option<(Origin, Vec<u8>)>,
    n_parts_passed: u64,
    /// The part that the next letter has to be, if a long line has begun.
    due: Option<PartPlace>,
    /// Within the parts of a line whose beginning is missing.
    is_skipping: bool,
    is_over: bool,
    shutdown: Shutdown,
    line_bytes_max: usize,
}

/// Source, line and index of a part.
type PartPlace = (Arc<str>, u64, u64);

/// A letter, opened.
struct RawLine {
    origin: Origin,
    part: Option<LetterPart>,
    raw: Vec<u8>,
}

impl Replay {
    /// Opens a file of dead letters.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path, shutdown: &Shutdown, line_bytes_max: usize) -> anyhow::Result<Self> {
        // A letter is longer than the line in it: base64, and what is said about it. It may have
        // been written under a larger limit than this one.
        let letter_bytes_max = line_bytes_max.saturating_mul(2).max(64 << 20) + (64 << 10);
        let is_stdin = path.as_os_str() == STDIN;
        let file = open_file(if is_stdin {
            Path::new("/dev/stdin")
        } else {
            path
        })?;
        let name = path.to_string_lossy();
        let letters = LineReader::new(Box::new(file), start_of(&name), letter_bytes_max);
        Ok(Self {
            letters,
            path: path.to_owned(),
            waiting: VecDeque::new(),
            long_line: None,
            n_parts_passed: 0,
            due: None,
            is_skipping: false,
            is_over: false,
            shutdown: shutdown.clone(),
            line_bytes_max,
        })
    }

    /// Reads more letters; false at the end.
    fn read_letters(&mut self) -> anyhow::Result<bool> {
        if self.is_over || self.shutdown.is_requested() {
            return Ok(false);
        }
        let mut block = Block::new();
        let path = self.path.display().to_string();
        let is_filled = self.letters.fill(&mut block).with_context(|| {
            self.is_over = true;
            format!("cannot read {path}")
        })?;
        if !is_filled && !self.letters.fill_rest(&mut block) {
            self.is_over = true;
            if let Some(due) = self.due.take() {
                self.waiting.push_back(Err(not_whole(&due)));
            }
            return Ok(true);
        }
        let lines = block.lines.strip_suffix(b"\n").unwrap_or(&block.lines);
        for (i, line) in lines.split(|&byte| byte == b'\n').enumerate() {
            let number = block.origin.line + i as u64;
            match open_letter(line) {
                Ok(line) => self.receive(line),
                Err(error) => {
                    let error = error.context(format!("{path}:{number} is not a dead letter"));
                    self.waiting.push_back(Err(error));
                }
            }
        }
        Ok(true)
    }

    /// Lets a line wait, unless it is a part and does not follow the part before it: a run that
    /// was stopped leaves long lines without their end.
    fn receive(&mut self, line: RawLine) {
        let (index, is_last) = line
            .part
            .map_or((0, true), |part| (part.index, part.is_last));
        let place = (Arc::clone(&line.origin.source), line.origin.line, index);
        let due = self.due.take();
        let is_due = due.as_ref() == Some(&place);
        let has_beginning = index == 0 || is_due;
        match due {
            Some(due) if !is_due => self.waiting.push_back(Err(not_whole(&due))),
            None if !has_beginning && !self.is_skipping => {
                self.waiting.push_back(Err(not_whole(&place)));
            }
            _ => {}
        }
        self.is_skipping = !has_beginning;
        if has_beginning {
            self.due = (!is_last).then_some((place.0, place.1, index + 1));
            self.waiting.push_back(Ok(line));
        }
    }

    /// Takes a line into the block, or gives it back if the block has to go first.
    fn take(&mut self, line: RawLine, block: &mut Block) -> Option<RawLine> {
        let Some(part) = line.part else {
            push_line(block, line.origin, &line.raw);
            return None;
        };
        if part.index == 0 {
            // What may be left is of a line that never ended.
            self.long_line = None;
            self.n_parts_passed = 0;
        }
        let n_before = self
            .long_line
            .as_ref()
            .map_or(0, |(_, before)| before.len());
        // The last byte may be the `\r` of the line's end.
        let is_too_long =
            self.n_parts_passed > 0 || n_before + line.raw.len() > self.line_bytes_max + 1;
        if is_too_long && !block.lines.is_empty() {
            return Some(line);
        }
        let (origin, mut whole) = self.long_line.take().unwrap_or((line.origin, Vec::new()));
        whole.extend_from_slice(&line.raw);
        if is_too_long {
            // It goes on in parts, each in a block of its own.
            block.part = Some(Part {
                index: self.n_parts_passed,
                is_last: part.is_last,
            });
            block.origins.push(origin.clone());
            block.lines = whole;
            self.n_parts_passed = if part.is_last {
                0
            } else {
                self.n_parts_passed + 1
            };
            self.long_line = (!part.is_last).then(|| (origin, Vec::new()));
        } else if part.is_last {
            push_line(block, origin, &whole);
        } else {
            self.long_line = Some((origin, whole));
        }
        None
    }
}

impl Source for Replay {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        loop {
            while let Some(waiting) = self.waiting.pop_front() {
                let left = match waiting {
                    Ok(line) => self.take(line, block).map(Ok),
                    Err(error) if block.lines.is_empty() => return Err(error),
                    Err(error) => Some(Err(error)),
                };
                if let Some(left) = left {
                    self.waiting.push_front(left);
                    return Ok(true);
                }
                if block.part.is_some() {
                    return Ok(true);
                }
            }
            if !block.lines.is_empty() {
                return Ok(true);
            }
            if !self.read_letters()? {
                return Ok(false);
            }
        }
    }
}

fn open_letter(line: &[u8]) -> anyhow::Result<RawLine> {
    let letter: ReadLetter = serde_json::from_slice(line)?;
    let raw = BASE64_STANDARD.decode(&letter.raw_b64)?;
    ensure!(
        !raw.contains(&b'\n'),
        "the line in it is more than one line"
    );
    let origin = Origin {
        source: Arc::from(&*letter.source),
        line: letter.position.line,
        offset: letter.position.offset,
        record: letter.position.record,
        medium: Medium::Stream,
    };
    Ok(RawLine {
        origin,
        part: letter.part,
        raw,
    })
}

fn not_whole((source, line, _): &PartPlace) -> anyhow::Error {
    let source = printable(source);
    anyhow::anyhow!("{source}:{line} is not whole: letters with parts of it are missing")
}

fn push_line(block: &mut Block, origin: Origin, line: &[u8]) {
    block.lines.extend_from_slice(line);
    block.lines.push(b'\n');
    block.origins.push(origin);
}
