//! Files that grow, as `tail -F` reads them: what is appended is taken as it comes; a file that
//! is replaced (log rotation) is read to its end first, one that is cut short from its start.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::files::{STDIN, open_file};
use super::lines::{LineReader, start_of};
use super::position::Positions;
use crate::batch::Block;
use crate::engine::Source;
use crate::shutdown::Shutdown;

/// How often a file that has been read to its end is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// The source over growing files, which ends only when it is asked to stop.
pub(super) struct Follow {
    files: Vec<Followed>,
    next: usize,
    shutdown: Shutdown,
    line_bytes_max: usize,
}

struct Followed {
    path: PathBuf,
    inode: u64,
    reader: LineReader,
}

impl Follow {
    pub(super) fn open(
        inputs: &[String],
        positions: &Positions,
        shutdown: &Shutdown,
        line_bytes_max: usize,
    ) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for input in inputs {
            if input == STDIN {
                bail!("--follow needs files; standard input is followed as it is");
            }
            let path = Path::new(input);
            let mut file = open_file(path)?;
            refuse_compressed(&mut file, input)?;
            let start = positions.start_of(input, &file)?;
            file.seek(SeekFrom::Start(start.offset))?;
            let inode = file.metadata()?.ino();
            let reader = LineReader::new(Box::new(file), start, line_bytes_max);
            files.push(Followed {
                path: path.to_owned(),
                inode,
                reader,
            });
        }
        Ok(Self {
            files,
            next: 0,
            shutdown: shutdown.clone(),
            line_bytes_max,
        })
    }
}

impl Source for Follow {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        loop {
            for _ in 0..self.files.len() {
                if self.shutdown.is_requested() {
                    return Ok(false);
                }
                let followed = &mut self.files[self.next];
                let is_filled = followed
                    .fill(block, self.line_bytes_max)
                    .with_context(|| format!("cannot read on in {}", followed.path.display()))?;
                if is_filled {
                    return Ok(true);
                }
                self.next = (self.next + 1) % self.files.len();
            }
            if self.shutdown.is_requested() {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }
}

impl Followed {
    fn fill(&mut self, block: &mut Block, line_bytes_max: usize) -> io::Result<bool> {
        if self.reader.fill(block)? {
            return Ok(true);
        }
        // At the end: is this still the file of that name, and at least as long as was read?
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return Ok(false);
        };
        let is_replaced = metadata.ino() != self.inode;
        if !is_replaced && metadata.len() >= self.reader.n_bytes_read() {
            return Ok(false);
        }
        // Whatever stands unended in the old file will never be ended.
        let has_rest = self.reader.fill_rest(block);
        let file = File::open(&self.path)?;
        self.inode = file.metadata()?.ino();
        let start = start_of(&self.reader.source());
        self.reader = LineReader::new(Box::new(file), start, line_bytes_max);
        if has_rest {
            return Ok(true);
        }
        self.reader.fill(block)
    }
}

fn refuse_compressed(file: &mut File, input: &str) -> anyhow::Result<()> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    if magic.starts_with(&[0x1F, 0x8B]) || magic == [0x28, 0xB5, 0x2F, 0xFD] {
        bail!("{input} is compressed; --follow needs a plain file");
    }
    Ok(())
}
