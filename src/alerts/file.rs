//! Alerts to a file: their lines appended, and on the disk before they count as told.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use rustix::fs::OFlags;

use super::{Alert, Failure, Named, Target};
use crate::io::append::AppendFile;

/// Alerts in one write to the disk, at the most.
const BATCH_MAX: usize = 256;

/// Appends to a file. One that was renamed meanwhile is made again under its name.
pub struct FileTarget {
    path: PathBuf,
    file: Option<AppendFile>,
    /// All that was written is on the disk.
    is_settled: bool,
}

impl FileTarget {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(path: &Path) -> anyhow::Result<Named> {
        let shown = path.display().to_string();
        let cannot = || format!("cannot write alerts to {shown}");
        let path = std::path::absolute(path).with_context(cannot)?;
        let file = open(&path).with_context(cannot)?;
        let key = path.display().to_string();
        let target = Self {
            path,
            file: Some(file),
            is_settled: true,
        };
        Ok(Named {
            shown: key.clone(),
            key,
            kind: "file",
            target: Box::new(target),
        })
    }

    fn file(&mut self) -> io::Result<&mut AppendFile> {
        if self.is_settled && self.file.as_ref().is_some_and(AppendFile::has_moved) {
            self.file = None;
        }
        if self.file.is_none() {
            self.file = Some(open(&self.path)?);
        }
        self.is_settled = false;
        self.file
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let file = self.file()?;
        file.write_all(line)?;
        file.write_all(b"\n")
    }

    /// What is in the file by now may end within a line: it is opened again, which ends it.
    fn failed(&mut self, error: &io::Error) -> Failure {
        if let Some(file) = self.file.take() {
            file.abandon();
        }
        Failure::Trouble {
            why: error.to_string(),
            retry_after: None,
        }
    }
}

/// Opens a file. A pipe that nobody reads would be waited for without end.
fn open(path: &Path) -> io::Result<AppendFile> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_pipe {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let opened = options.write(true).custom_flags(nonblocking).open(path);
        opened.map_err(|_| io::Error::other("nobody reads this pipe"))?;
    }
    AppendFile::open(path)
}

impl Target for FileTarget {
    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn send(&mut self, alert: &Alert, _: Option<Instant>) -> Result<(), Failure> {
        self.write(&alert.line).map_err(|error| self.failed(&error))
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.sync().map_err(|error| self.failed(&error))?;
        self.is_settled = true;
        Ok(())
    }
}
