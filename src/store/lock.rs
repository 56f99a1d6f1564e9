//! Who has a database open: one writer alone, or any number of readers, since RocksDB supports no reader
//! beside a writer of another process. A second file says that a writer has it or waits for it: readers
//! that stay let go of it then, and ask the writer.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

use crate::report::warn;

/// Made before the database itself.
pub(super) const LOCK_FILE: &str = "streamguard.lock";
/// Locked by whoever writes, or waits until it can.
const WRITER_FILE: &str = "streamguard.writer";
/// How long to wait for another writer to let go of the database.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for readers: those that stay let go at once, others come to an end.
const READERS_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// Held as long as the database is open.
pub(super) struct Locks {
    _main: File,
    _writer: Option<File>,
}

/// Waits until nobody else has the database.
///
/// # Errors
/// If another program keeps it.
pub(super) fn lock_for_writing(path: &Path) -> anyhow::Result<Locks> {
    let shown = path.display();
    let create = |name| {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let file = options.open(path.join(name));
        file.with_context(|| format!("cannot use the database {shown}"))
    };
    let (writer, main) = (create(WRITER_FILE)?, create(LOCK_FILE)?);
    let start = Instant::now();
    while flock(&writer, FlockOperation::NonBlockingLockExclusive).is_err() {
        if start.elapsed() > LOCK_TIMEOUT {
            bail!("database {shown} is in use by another program: wait for it, or stop it");
        }
        thread::sleep(PAUSE);
    }
    let start = Instant::now();
    let mut has_said = false;
    while flock(&main, FlockOperation::NonBlockingLockExclusive).is_err() {
        if start.elapsed() > READERS_TIMEOUT {
            bail!("database {shown} is being read by another program: wait for it, or stop it");
        }
        if start.elapsed() > LOCK_TIMEOUT && !std::mem::replace(&mut has_said, true) {
            warn(
                "streamguard",
                &format!("waiting for a program that reads the database {shown}"),
            );
        }
        thread::sleep(PAUSE);
    }
    Ok(Locks {
        _main: main,
        _writer: Some(writer),
    })
}

/// Takes the database for reading; none if a writer has it or waits for it.
///
/// # Errors
/// If its files cannot be used.
pub(super) fn lock_for_reading(path: &Path) -> anyhow::Result<Option<Locks>> {
    if is_written(path) {
        return Ok(None);
    }
    let main = File::open(path.join(LOCK_FILE))
        .with_context(|| format!("cannot use the database {}", path.display()))?;
    let is_ours = flock(&main, FlockOperation::NonBlockingLockShared).is_ok();
    Ok(is_ours.then_some(Locks {
        _main: main,
        _writer: None,
    }))
}

/// Whether a writer has the database, or waits for it.
pub(super) fn is_written(path: &Path) -> bool {
    // A database of before that file was has none.
    File::open(path.join(WRITER_FILE))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}
