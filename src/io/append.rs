//! A file that lines are appended to. What was written counts once it is synced; a line that a killed
//! program has left half written is ended, so that the next one is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use serde::Serialize;

/// Appends to a file that is open for that, all or nothing: half of it would spoil what comes next.
///
/// # Errors
/// If it cannot be written.
pub fn append_whole(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    let n_before = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| {
        let _ = file.set_len(n_before);
    })
}

/// Something as one line of JSON, to be appended.
///
/// # Panics
/// If it is no plain data, such as a map whose keys are no texts.
pub fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("it is plain data");
    line.push(b'\n');
    line
}

/// Makes room behind a file's end, so that what is appended next does not fail for want of it. Where the file system
/// cannot do that, there may be none.
///
/// # Errors
/// If there is no such room.
pub fn make_room(file: &File, n_bytes: usize) -> io::Result<()> {
    let end = file.metadata()?.len();
    match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, end, n_bytes as u64)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        made => Ok(made?),
    }
}

/// A file that is open for more lines.
pub struct AppendFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// False for pipes and devices, which cannot be synced.
    is_regular: bool,
}

impl AppendFile {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Not for reading too: a pipe whose reader has gone would still have one, us.
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_regular {
            end_last_line(path, &file)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            is_regular,
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that what was written survives a power cut.
    ///
    /// # Errors
    /// If it cannot be brought to the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        if self.is_regular {
            self.file.get_ref().sync_data()?;
        }
        Ok(())
    }

    /// Whether its path leads to another file by now, or to none: somebody has rotated it.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        let identity = |metadata: io::Result<std::fs::Metadata>| {
            metadata
                .ok()
                .map(|metadata| (metadata.dev(), metadata.ino()))
        };
        identity(std::fs::metadata(&self.path)) != identity(self.file.get_ref().metadata())
    }

    /// Closes it without what was not written yet.
    pub fn abandon(self) {
        drop(self.file.into_parts());
    }
}

impl Write for AppendFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Ends a line that a killed program has left half written.
fn end_last_line(path: &Path, mut file: &File) -> io::Result<()> {
    let n_bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if n_bytes > 0 {
        File::open(path)?.read_exact_at(&mut last, n_bytes - 1)?;
    }
    if last == [b'\n'] {
        Ok(())
    } else {
        file.write_all(b"\n")
    }
}
