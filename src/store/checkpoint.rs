//! A database's files as they are at one moment, for a backup: the program that has the database open links
//! them in a folder of their own, however long it then takes to copy them. Sorted files never change, so
//! that costs neither time nor room, until merging would have made room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

use super::live::TRIES;
use super::protocol::{Answer, Ask};
use super::remote::{Lost, Remote, unexpected};
use super::{
    Access, LOCK_TIMEOUT, PAUSE, Store, Tuning, ensure_is_there, is_written, share, write_error,
};

/// Where the files are linked, in the database's folder.
pub(super) const FOLDER: &str = "checkpoint";
/// Where RocksDB gathers them before they have that name.
const UNFINISHED: &str = "checkpoint.tmp";
/// Locked by whoever copies them.
const LOCK_FILE: &str = "streamguard.backup";
/// How long a backup waits for a program that may just be clearing up.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A database as it was at one moment, until this is dropped.
pub(super) struct Checkpoint {
    db: PathBuf,
    // Kept to the end: nobody else clears up or makes another one meanwhile.
    _lock: File,
}

impl Checkpoint {
    /// The database as it is now, whichever program has it open.
    ///
    /// # Errors
    /// If it is not there or damaged, its folder cannot be written to, another program makes a backup of it,
    /// or the one that has it open does not answer.
    pub(super) fn of(db: &Path, tuning: &Tuning) -> anyhow::Result<Self> {
        ensure_is_there(db)?;
        let lock = lock_soon(db)?.with_context(|| {
            format!(
                "another program makes a backup of the database {}: wait for it",
                db.display()
            )
        })?;
        // From here on it clears up, also if nothing comes of it.
        let checkpoint = Self {
            db: db.to_owned(),
            _lock: lock,
        };
        for _ in 1..TRIES {
            match make(db, tuning) {
                Err(error) if error.is::<Lost>() => {}
                made => return made.map(|()| checkpoint),
            }
        }
        make(db, tuning).map(|()| checkpoint)
    }

    /// The folder, which is a database of its own.
    pub(super) fn path(&self) -> PathBuf {
        self.db.join(FOLDER)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // What stays is removed by whoever has the database open, or opens it next.
        let _ = remove(&self.db);
    }
}

impl Store {
    /// Links the store's files as they are now, in the folder that is for it.
    ///
    /// # Errors
    /// If a write has failed half-way, or the files cannot be linked.
    pub(super) fn make_checkpoint(&self) -> anyhow::Result<()> {
        let failed = |error| write_error(&self.path, &error);
        // Whoever asked may have been killed, and somebody else asks while its files are still being linked.
        let _linking = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
        // Families take in the files of a large write one after the other, and links have none that are not
        // taken in yet.
        let _gate = self.whole()?;
        remove(&self.path)?;
        // What is in memory is written out first: links to a log would change under whoever copies them.
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(failed)?;
        checkpoint
            .create_checkpoint(self.path.join(FOLDER))
            .map_err(failed)
    }

    /// Whether a program makes a backup: it holds the lock, and nobody else has a use for the files.
    pub(super) fn is_copied(&self) -> anyhow::Result<bool> {
        Ok(lock(&self.path)?.is_none())
    }

    /// Removes what a program has left that was killed while it copied.
    pub(super) fn clear_checkpoint(&self) {
        if self.path.join(FOLDER).exists() || self.path.join(UNFINISHED).exists() {
            let _linking = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds the lock still copies, and clears up by itself.
            if let Ok(Some(_lock)) = lock(&self.path) {
                let _ = remove(&self.path);
            }
        }
    }
}

/// The lock of those who copy, unless somebody has it.
fn lock(db: &Path) -> anyhow::Result<Option<File>> {
    // To be locked it need not be ours: it may be of whoever made a backup first.
    let path = db.join(LOCK_FILE);
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = File::open(&path)
        .or_else(|_| options.open(&path))
        .with_context(|| format!("cannot write to the database's folder {}", db.display()))?;
    let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok(is_ours.then_some(file))
}

/// The same, also if a program clears up just now after one that was killed.
fn lock_soon(db: &Path) -> anyhow::Result<Option<File>> {
    let start = Instant::now();
    loop {
        let locked = lock(db)?;
        if locked.is_some() || start.elapsed() > LOCK_PATIENCE {
            return Ok(locked);
        }
        thread::sleep(PAUSE);
    }
}

/// Links the files, whichever program has the database open.
fn make(db: &Path, tuning: &Tuning) -> anyhow::Result<()> {
    if is_written(db) {
        return ask(db);
    }
    let store = Store::open(db, Access::WriteExisting, tuning);
    let made = store.and_then(|store| store.make_checkpoint());
    if made.is_err() && is_written(db) {
        // A program has come to the database before us.
        return Err(lost(db).into());
    }
    made
}

/// Has the program do it that has the database open.
fn ask(db: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        if let Some(wire) = share::connect(db) {
            let mut remote = Remote::open(wire, db.display().to_string())?;
            return match remote.ask(&Ask::Checkpoint)? {
                Answer::Done => Ok(()),
                _ => Err(unexpected()),
            };
        }
        if !is_written(db) {
            return Err(lost(db).into());
        }
        if start.elapsed() > LOCK_TIMEOUT {
            bail!(
                "database {} is in use by another program that does not answer: wait for it, or stop it",
                db.display()
            );
        }
        thread::sleep(PAUSE);
    }
}

fn lost(db: &Path) -> Lost {
    Lost {
        path: db.display().to_string(),
    }
}

fn remove(db: &Path) -> anyhow::Result<()> {
    for name in [FOLDER, UNFINISHED] {
        match fs::remove_dir_all(db.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let shown = db.join(name);
                return Err(error).with_context(|| format!("cannot remove {}", shown.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was said that nobody answers, where somebody had just ended.
    #[test]
    fn a_program_may_end_while_a_backup_begins() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        // It answers nobody.
        let store = Store::open(folder.path(), Access::Write, &Tuning::default())?;
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                drop(store);
            });
            let checkpoint = Checkpoint::of(folder.path(), &Tuning::default())?;
            assert!(checkpoint.path().join("CURRENT").exists());
            assert!(
                lock(folder.path())?.is_none(),
                "somebody else would copy, too"
            );
            drop(checkpoint);
            assert!(!folder.path().join(FOLDER).exists());
            anyhow::Ok(())
        })
    }

    #[test]
    fn a_program_that_does_not_answer_is_told() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let _store = Store::open(folder.path(), Access::Write, &Tuning::default())?;
        let start = Instant::now();
        let made = Checkpoint::of(folder.path(), &Tuning::default());
        let error = made
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("does not answer"), "{error}");
        // Once is enough.
        assert!(start.elapsed() < 2 * LOCK_TIMEOUT);
        Ok(())
    }

    #[test]
    fn what_a_killed_program_has_left_goes_when_nobody_copies() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path(), Access::Write, &Tuning::default())?;
        for name in [FOLDER, UNFINISHED] {
            let left = folder.path().join(name);
            fs::create_dir(&left)?;
            let copying = lock(folder.path())?;
            assert!(copying.is_some() && store.is_copied()?);
            store.clear_checkpoint();
            assert!(left.exists(), "somebody copies");
            drop(copying);
            assert!(!store.is_copied()?);
            store.clear_checkpoint();
            assert!(!left.exists());
        }
        Ok(())
    }
}
