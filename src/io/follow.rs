//! Files that grow, as `tail -F` reads them: what is appended is taken as it comes; a file that
//! is replaced (log rotation) is read to its end first, one that is cut short from its start.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::files::{STDIN, is_compressed, open_file};
use super::lines::{LineReader, start_of};
use super::position::Positions;
use crate::batch::{Block, Medium, Origin};
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
    /// The last look at it failed.
    is_failing: bool,
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
                is_failing: false,
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
                match followed.fill(block, self.line_bytes_max) {
                    Ok(true) => {
                        followed.is_failing = false;
                        return Ok(true);
                    }
                    Ok(false) => followed.is_failing = false,
                    // Told once: it will be tried again at every look.
                    Err(error) if !mem::replace(&mut followed.is_failing, true) => {
                        return Err(error).with_context(|| {
                            format!("cannot read on in {}", followed.path.display())
                        });
                    }
                    Err(_) => {}
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
    fn fill(&mut self, block: &mut Block, line_bytes_max: usize) -> anyhow::Result<bool> {
        if self.reader.fill(block)? {
            return Ok(true);
        }
        // At the end: is this still the file of that name, and at least as long as was read?
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return Ok(false);
        };
        if metadata.ino() == self.inode {
            if metadata.len() >= self.reader.n_bytes_read() {
                return Ok(false);
            }
        } else {
            // While the new file is empty, the old one may still be written to.
            if metadata.len() == 0 {
                return Ok(false);
            }
            // Something may have been appended between the last read and the replacement.
            if self.reader.fill(block)? {
                return Ok(true);
            }
        }
        let file = open_file(&self.path)?;
        self.inode = file.metadata()?.ino();
        // Whatever stands unended in the old file will never be ended.
        let has_rest = self.reader.fill_rest(block);
        let start = Origin {
            medium: Medium::File(Arc::new(file.try_clone()?)),
            ..start_of(&self.reader.source())
        };
        self.reader = LineReader::new(Box::new(file), start, line_bytes_max);
        if has_rest {
            return Ok(true);
        }
        Ok(self.reader.fill(block)?)
    }
}

fn refuse_compressed(file: &mut File, input: &str) -> anyhow::Result<()> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    if is_compressed(&magic) {
        bail!("{input} is compressed; --follow needs a plain file");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file to which something happens right after it was read to its end.
    struct Watched {
        file: File,
        at_end: Option<Box<dyn FnOnce() + Send>>,
    }

    impl Read for Watched {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n_read = self.file.read(buffer)?;
            if n_read == 0
                && let Some(at_end) = self.at_end.take()
            {
                at_end();
            }
            Ok(n_read)
        }
    }

    /// The lines appended between the last read and the rotation were lost.
    #[test]
    fn a_rotated_file_is_read_to_its_end_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events");
        std::fs::write(&path, "one\n").expect("a file");
        let file = File::open(&path).expect("the file");
        let inode = file.metadata().expect("its metadata").ino();
        let rotate = {
            let path = path.clone();
            move || {
                std::fs::write(&path, "one\ntwo\nthr").expect("it grows");
                std::fs::rename(&path, path.with_extension("1")).expect("it is rotated");
                std::fs::write(&path, "four\n").expect("a new file");
            }
        };
        let watched = Watched {
            file,
            at_end: Some(Box::new(rotate)),
        };
        let mut followed = Followed {
            path,
            inode,
            reader: LineReader::new(Box::new(watched), start_of("events"), 100),
            is_failing: false,
        };
        let mut lines = Vec::new();
        loop {
            let mut block = Block::new();
            if !followed.fill(&mut block, 100).expect("it can be read") {
                break;
            }
            lines.extend(block.lines);
        }
        assert_eq!(String::from_utf8_lossy(&lines), "one\ntwo\nthr\nfour\n");
    }
}
