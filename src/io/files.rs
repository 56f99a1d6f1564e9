//! Events from files, globs and standard input, compressed or not.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Chain, Cursor, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::follow::Follow;
use super::lines::{LineReader, start_of};
use super::position::Positions;
use crate::batch::{Block, Origin};
use crate::engine::Source;
use crate::progress;
use crate::shutdown::Shutdown;

/// What is read as standard input.
pub const STDIN: &str = "-";

/// Reads the inputs one after the other; a missing or broken one does not stop the others.
pub struct Files {
    inputs: std::vec::IntoIter<String>,
    current: Option<LineReader>,
    positions: Positions,
    shutdown: Shutdown,
    line_bytes_max: usize,
}

/// The source over files: `inputs` are paths or `-`, see [`expand`]. Files that `positions` knows
/// are read from there on. With `follow`, waits for more at their ends.
///
/// # Errors
/// If standard input is a terminal, or a file cannot be followed.
pub fn open(
    inputs: Vec<String>,
    follow: bool,
    positions: Positions,
    shutdown: &Shutdown,
    line_bytes_max: usize,
) -> anyhow::Result<Box<dyn Source>> {
    if inputs.iter().any(|input| input == STDIN) && io::IsTerminal::is_terminal(&io::stdin()) {
        bail!("nothing to read: give a FILE, or pipe events in (--help has examples)");
    }
    if follow {
        return Ok(Box::new(Follow::open(
            &inputs,
            &positions,
            shutdown,
            line_bytes_max,
        )?));
    }
    Ok(Box::new(Files {
        inputs: inputs.into_iter(),
        current: None,
        positions,
        shutdown: shutdown.clone(),
        line_bytes_max,
    }))
}

impl Source for Files {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        loop {
            if let Some(reader) = &mut self.current {
                let name = reader.source();
                match reader.fill(block) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {
                        // A line cut off by a stop is not over; it is read again another time.
                        let is_cut_off = self.shutdown.is_requested() && &*name != STDIN;
                        let has_rest = !is_cut_off && reader.fill_rest(block);
                        self.current = None;
                        if has_rest {
                            return Ok(true);
                        }
                    }
                    // A decompressor takes being stopped for a truncated file.
                    Err(_) if self.shutdown.is_requested() => return Ok(false),
                    Err(error) => {
                        self.current = None;
                        return Err(error).with_context(|| format!("cannot read on in {name}"));
                    }
                }
            }
            if self.shutdown.is_requested() {
                return Ok(false);
            }
            let Some(input) = self.inputs.next() else {
                return Ok(false);
            };
            self.current = match self.open_input(&input) {
                // A decompressor takes being stopped for a truncated file, also while it skips what was
                // read before.
                Err(_) if self.shutdown.is_requested() => return Ok(false),
                opened => Some(opened?),
            };
        }
    }
}

impl Files {
    fn open_input(&self, input: &str) -> anyhow::Result<LineReader> {
        let (stream, start): (Box<dyn Read + Send>, Origin) = if input == STDIN {
            widen_pipe(&io::stdin());
            let stdin = io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .context("cannot read stdin")?;
            let shutdown = Interruptible::draining(File::from(stdin), &self.shutdown);
            (Box::new(shutdown), start_of(STDIN))
        } else {
            let mut file = open_file(Path::new(input))?;
            let start = self.positions.start_of(input, &file)?;
            if start.offset > 0 && !is_compressed(&head_of(&file)?) {
                file.seek(SeekFrom::Start(start.offset))?;
                progress::bytes(start.offset);
                let stream = Box::new(Interruptible::new(file, &self.shutdown));
                return Ok(LineReader::new(stream, start, self.line_bytes_max));
            }
            (Box::new(Interruptible::new(file, &self.shutdown)), start)
        };
        let mut stream = decompress(stream).with_context(|| format!("cannot read {input}"))?;
        skip(&mut *stream, start.offset).with_context(|| format!("cannot read {input}"))?;
        Ok(LineReader::new(stream, start, self.line_bytes_max))
    }
}

/// Opens a file for reading; a directory is refused.
pub(super) fn open_file(path: &Path) -> anyhow::Result<File> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(file)
    };
    open().with_context(|| format!("cannot read {}", path.display()))
}

fn skip(stream: &mut dyn Read, n_bytes: u64) -> io::Result<()> {
    io::copy(&mut stream.take(n_bytes), &mut io::sink()).map(drop)
}

/// The files that paths and glob patterns name, each pattern's in the order of their names, each
/// file once; standard input if there is none.
///
/// # Errors
/// If a pattern is invalid, matches nothing, or needs a folder that cannot be read.
pub fn expand(inputs: &[String]) -> anyhow::Result<Vec<String>> {
    if inputs.is_empty() {
        return Ok(vec![STDIN.to_owned()]);
    }
    let mut files = Vec::new();
    for input in inputs {
        let is_pattern = input.contains(['*', '?', '[']) && !Path::new(input).exists();
        if !is_pattern {
            files.push(input.clone());
            continue;
        }
        let paths = glob::glob(input).with_context(|| format!("invalid pattern {input}"))?;
        let matches: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
        if matches.is_empty() {
            bail!("no file matches {input}");
        }
        files.extend(
            matches
                .iter()
                .filter(|path| !path.is_dir())
                .map(|path| path.to_string_lossy().into_owned()),
        );
    }
    // What two patterns match is one file.
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(super::position::key(file)));
    Ok(files)
}

/// Looks at the first bytes, not at the name: gzip (RFC 1952) and Zstandard (RFC 8878) are
/// decompressed, with all their members and frames.
fn decompress(mut stream: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    stream.by_ref().take(4).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(&[0x1F, 0x8B]);
    let is_zstd = is_zstd(&magic);
    let stream: Chain<Cursor<Vec<u8>>, _> = Cursor::new(magic).chain(stream);
    if is_gzip {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(stream)));
    }
    if is_zstd {
        return Ok(Box::new(zstd::stream::read::Decoder::new(stream)?));
    }
    Ok(Box::new(stream))
}

/// The first bytes of a file, without moving on in it.
fn head_of(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; 4];
    let n_read = file.read_at(&mut head, 0)?;
    head.truncate(n_read);
    Ok(head)
}

/// Whether bytes at the start of a file say that it is compressed.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1F, 0x8B]) || head.get(..4).is_some_and(is_zstd)
}

/// A frame of Zstandard, or one to be skipped, which parallel compressors put first.
fn is_zstd(magic: &[u8]) -> bool {
    matches!(
        magic,
        [0x28, 0xB5, 0x2F, 0xFD] | [0x50..=0x5F, 0x2A, 0x4D, 0x18]
    )
}

/// Lets a pipe hold as much as the system allows without privileges, so that programs wait for
/// each other less often. Not a pipe, or not allowed: nothing changes.
pub fn widen_pipe(pipe: &impl AsFd) {
    const PIPE_BYTES: usize = 1 << 20;
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

/// A reader that ends when the program is asked to stop.
struct Interruptible {
    file: File,
    shutdown: Shutdown,
    /// Another program writes to it, and is being stopped too: take what it still has to say.
    drains: bool,
    stopping_since: Option<Instant>,
}

impl Interruptible {
    fn new(file: File, shutdown: &Shutdown) -> Self {
        Self {
            file,
            shutdown: shutdown.clone(),
            drains: false,
            stopping_since: None,
        }
    }

    fn draining(file: File, shutdown: &Shutdown) -> Self {
        Self {
            file,
            shutdown: shutdown.clone(),
            drains: true,
            stopping_since: None,
        }
    }
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const TICK: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        /// Silence after which a stopped program's input is taken to have ended.
        const QUIET_TICKS: u32 = 20;
        /// And the longest that it is listened to.
        const DRAIN_MAX: Duration = Duration::from_secs(5);
        let mut n_quiet = 0;
        loop {
            let is_stopping = self.shutdown.is_requested();
            if is_stopping {
                let since = *self.stopping_since.get_or_insert_with(Instant::now);
                if !self.drains || n_quiet == QUIET_TICKS || since.elapsed() > DRAIN_MAX {
                    return Ok(0);
                }
            }
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&TICK)) {
                Ok(0) => n_quiet += u32::from(is_stopping),
                Ok(_) => {
                    let n_read = self.file.read(buffer)?;
                    progress::bytes(n_read as u64);
                    return Ok(n_read);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
