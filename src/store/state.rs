//! The folder in which `sg-score` keeps its baselines between runs: a small database of its own that
//! takes checkpoints cheaply and rolls back to one of the last ones.
//!
//! Records that are put belong to the current epoch, and a commit ends it. Before the first change of
//! a record in an epoch, what it was goes to the undo log in the same write. So an epoch that a killed
//! run has left is taken back by the next one, and committed ones are when somebody asks.

mod epochs;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIteratorWithThreadMode, FlushOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};
use rustix::fs::{FlockOperation, flock};

pub use epochs::Label;

use super::block_cache;
use super::trouble::{advice, cannot};
use crate::batch::{Learned, Records};
use crate::schema;
use crate::schema::state as layout;
use crate::stage::{Backing, EachUser, Shelf, Shelves};
use epochs::Epochs;

/// Made before the database itself.
const LOCK_FILE: &str = "lock";
/// The database's folder within the state folder.
const DATABASE_FOLDER: &str = "baselines";
/// What builds before the first release kept all baselines in.
const OLD_FILE: &str = "baselines.sg";

/// Records gathered in memory before they become a file; two of these at a time, for records and for
/// what they were.
const MEMTABLE_BYTES: usize = 8 << 20;
const CACHE_BYTES: usize = 24 << 20;
/// The log of writes that are not in files yet; beyond it the oldest memtables are written out.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of records and of what they were that go into one write.
const WRITE_BYTES: usize = 1 << 20;
/// Records from which two threads write them.
const RECORDS_SPREAD_MIN: usize = 1_000;

/// Bytes of memory that it takes. Half a MiB goes to the little that is neither record nor undo.
pub const STATE_BYTES: usize = 4 * MEMTABLE_BYTES + CACHE_BYTES + 4 * WRITE_BYTES;

/// What to do about a state that is damaged.
const RESTORE: &str =
    "restore the state folder from a backup, or remove it and score the history again";

/// What is called with tasks, users and records until it breaks off.
pub type EachBaseline<'a> = dyn FnMut(&str, &str, &[u8]) -> anyhow::Result<ControlFlow<()>> + 'a;

/// A state folder, locked against a second writer.
pub struct State {
    db: DB,
    path: PathBuf,
    epochs: Mutex<Epochs>,
    // Dropped after the database, so that nobody sees it unlocked and still open.
    _lock: Lock,
}

/// The file that is locked.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it does not do while a program that is being started has a copy of it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl State {
    /// Opens the folder, and makes it if it is not there. What a killed run has left is taken back.
    ///
    /// # Errors
    /// If it cannot be made or written to, another program is using it, it is damaged, or a newer
    /// release or an earlier build has written it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the state folder {shown}"))?;
        let lock = File::create(path.join(LOCK_FILE))
            .with_context(|| format!("cannot write to the state folder {shown}"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("the state folder {shown} is in use by another sg-score");
        }
        ensure!(
            !path.join(OLD_FILE).exists(),
            "the state folder {shown} holds {OLD_FILE} of an earlier build: export it with that \
             build, and import it into a new folder with this one"
        );
        refuse_beheaded(path)?;
        let cache = block_cache(CACHE_BYTES);
        let families = layout::FAMILIES
            .iter()
            .map(|name| ColumnFamilyDescriptor::new(*name, family_options(name, &cache)));
        let opened =
            DB::open_cf_descriptors(&database_options(), path.join(DATABASE_FOLDER), families);
        let db = opened.map_err(|error| open_error(path, &error))?;
        let state = Self {
            db,
            path: path.to_owned(),
            epochs: Mutex::default(),
            _lock: Lock(lock),
        };
        state.check_version()?;
        let mut epochs = state.read_epochs()?;
        state.take_back(&mut epochs)?;
        *state.epochs() = epochs;
        Ok(state)
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let known = layout::STATE_VERSION;
        let shown = self.path.display();
        let Some(found) = self.get(layout::META, layout::META_VERSION.as_bytes())? else {
            // Just made, or a program was killed while making it.
            let mut writes = WriteBatch::default();
            let meta = self.family(layout::META);
            writes.put_cf(meta, layout::META_VERSION, known.to_string());
            return self.write(writes, true);
        };
        let text = String::from_utf8_lossy(&found).into_owned();
        match text.parse::<u32>() {
            Ok(version) if version == known => Ok(()),
            Ok(version) if version > known => bail!(
                "the state folder {shown} has version {version}, this build reads up to {known}: \
                 use the newer release that wrote it"
            ),
            _ => bail!("the state folder {shown} has an unknown version: {RESTORE}"),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The detector whose baselines are kept, if any are.
    #[must_use]
    pub fn detector(&self) -> Option<String> {
        self.epochs().detector.clone()
    }

    /// Says of which detector the records will be that are put.
    ///
    /// # Errors
    /// If those that are kept are of another one.
    pub fn claim(&self, detector: &str) -> anyhow::Result<()> {
        let mut epochs = self.epochs();
        if let Some(found) = &epochs.detector {
            ensure!(
                found == detector,
                "the state folder {} holds baselines of the {found} detector, not {detector}: use \
                 another --state folder, or --detector {found}",
                self.path.display()
            );
        }
        epochs.claimed = Some(detector.to_owned());
        Ok(())
    }

    /// The record of a user in a task; under no name, of what all share.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn baseline(&self, task: &str, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let key = schema::baseline_key(task, user);
        let value = self.db.get_pinned_cf(self.family(layout::BASELINES), key);
        let value = value.map_err(|error| read_error(&self.path, &error))?;
        let record = value.map(|value| self.split(&value).map(|(_, record)| record.to_vec()));
        record.transpose()
    }

    /// Calls `each` with task, user and record, sorted by task and user, until it breaks off. What all
    /// share has no user's name.
    ///
    /// # Errors
    /// If they cannot be read, or as `each` says.
    pub fn baselines(&self, each: &mut EachBaseline<'_>) -> anyhow::Result<()> {
        self.walk(&[], None, each)
    }

    /// The tasks that there are baselines of, that without a name among them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn tasks(&self) -> anyhow::Result<Vec<String>> {
        let mut tasks = Vec::new();
        let mut from = Vec::new();
        loop {
            let mut found = None;
            self.walk(&from, None, &mut |task, _, _| {
                found = Some(task.to_owned());
                Ok(ControlFlow::Break(()))
            })?;
            let Some(task) = found else {
                return Ok(tasks);
            };
            let end = schema::task_end(&task);
            ensure!(from < end, damaged(&self.path));
            from = end;
            tasks.push(task);
        }
    }

    /// Writes records as part of the current epoch.
    ///
    /// # Errors
    /// If they cannot be written. The state is then what the last commit has made it, once it is
    /// opened again.
    pub fn put(&self, learned: Vec<Learned>) -> anyhow::Result<()> {
        let mut epochs = self.epochs();
        let epoch = epochs.last + 1;
        for learned in learned {
            // Neighbours are in one block of a file, which is read and unpacked once that way.
            let records = learned.in_order();
            epochs.is_changed |= !records.is_empty();
            let prefix = schema::task_prefix(&learned.task);
            let write = |records: &[_]| Writing::new(self, epoch).put_all(&prefix, records);
            if records.len() < RECORDS_SPREAD_MIN {
                write(&records)?;
                continue;
            }
            // The end of a run waits for this, and nothing else is left to do then.
            let (first, second) = records.split_at(records.len() / 2);
            thread::scope(|scope| {
                let second = scope.spawn(|| write(second));
                write(first)?;
                second
                    .join()
                    .map_err(|_| anyhow::anyhow!("a writing thread panicked"))?
            })?;
        }
        Ok(())
    }

    /// Brings all to files, which open faster than a log that has to be replayed.
    ///
    /// # Errors
    /// If they cannot be written; what was committed is kept all the same.
    pub fn flush(&self) -> anyhow::Result<()> {
        let families = layout::FAMILIES.map(|name| self.family(name));
        let flushed = self.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|error| {
            anyhow::anyhow!(
                "cannot bring the log of {} to files ({}): baselines are kept in it; make room or \
                 mend it before the next run",
                self.path.display(),
                error.to_string().trim()
            )
        })
    }

    fn walk(
        &self,
        from: &[u8],
        end: Option<&[u8]>,
        each: &mut EachBaseline<'_>,
    ) -> anyhow::Result<()> {
        let mut iterator = self.iterator(layout::BASELINES);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if end.is_some_and(|end| key >= end) {
                return Ok(());
            }
            let (task, user) =
                schema::split_baseline_key(key).with_context(|| damaged(&self.path))?;
            if each(task, user, self.split(value)?.1)?.is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator
            .status()
            .map_err(|error| read_error(&self.path, &error))
    }

    /// The epoch of the last change and the record in a value.
    fn split<'a>(&self, value: &'a [u8]) -> anyhow::Result<(u64, &'a [u8])> {
        layout::split_value(value).with_context(|| damaged(&self.path))
    }

    fn iterator(&self, family: &str) -> DBRawIteratorWithThreadMode<'_, DB> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        // A walk sees each block once.
        options.fill_cache(false);
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }

    fn write(&self, writes: WriteBatch, sync: bool) -> anyhow::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db
            .write_opt(writes, &options)
            .map_err(|error| write_error(&self.path, &error))
    }

    fn get(&self, family: &str, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        self.db
            .get_cf(self.family(family), key)
            .map_err(|error| read_error(&self.path, &error))
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("all families are opened")
    }

    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        // What a panic leaves is taken back by the next run.
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on their way into the current epoch.
struct Writing<'a> {
    state: &'a State,
    epoch: u64,
    baselines: &'a ColumnFamily,
    undo: &'a ColumnFamily,
    writes: WriteBatch,
    value: Vec<u8>,
}

impl<'a> Writing<'a> {
    fn new(state: &'a State, epoch: u64) -> Self {
        Self {
            state,
            epoch,
            baselines: state.family(layout::BASELINES),
            undo: state.family(layout::UNDO),
            writes: WriteBatch::default(),
            value: Vec::new(),
        }
    }

    /// Writes records of users whose keys begin alike.
    fn put_all(mut self, prefix: &[u8], records: &[(&[u8], &[u8])]) -> anyhow::Result<()> {
        let mut key = prefix.to_vec();
        for (user, record) in records {
            key.truncate(prefix.len());
            key.extend_from_slice(user);
            self.put(&key, record)?;
        }
        self.write()
    }

    fn put(&mut self, key: &[u8], record: &[u8]) -> anyhow::Result<()> {
        let before = self.state.db.get_pinned_cf(self.baselines, key);
        let before = before.map_err(|error| read_error(&self.state.path, &error))?;
        let before = before.as_deref().unwrap_or_default();
        // The epoch that stands in a value says whether its undo is in the log already.
        if before.is_empty() || self.state.split(before)?.0 != self.epoch {
            let undo_key = layout::undo_key(self.epoch, key);
            self.writes.put_cf(self.undo, undo_key, before);
        }
        layout::write_value(&mut self.value, self.epoch, record);
        self.writes.put_cf(self.baselines, key, &self.value);
        if self.writes.size_in_bytes() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> anyhow::Result<()> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.state.write(std::mem::take(&mut self.writes), false)
    }
}

impl Shelves for Arc<State> {
    fn of_task(&self, task: &str) -> anyhow::Result<Shelf> {
        let backing = TaskBaselines {
            state: Arc::clone(self),
            task: task.to_owned(),
        };
        let mut is_backed = false;
        backing.each(&mut |_, _| {
            is_backed = true;
            Ok(ControlFlow::Break(()))
        })?;
        let name = "rocksdb.estimate-num-keys";
        let n_users = self
            .db
            .property_int_value_cf(self.family(layout::BASELINES), name)
            .map_err(|error| read_error(&self.path, &error))?;
        Ok(Shelf {
            backing: Arc::new(backing),
            is_backed,
            n_users: n_users.unwrap_or(u64::MAX),
        })
    }
}

/// Users of a task who are not in memory: checkpoints have brought their records.
struct TaskBaselines {
    state: Arc<State>,
    task: String,
}

impl Backing for TaskBaselines {
    fn get(&self, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.state.baseline(&self.task, user)
    }

    fn put(&self, _: &Records) -> anyhow::Result<()> {
        Ok(())
    }

    fn each(&self, each: &mut EachUser<'_>) -> anyhow::Result<()> {
        let (from, end) = (
            schema::task_prefix(&self.task),
            schema::task_end(&self.task),
        );
        self.state
            .walk(&from, Some(&end), &mut |_, user, record| match user {
                schema::SHARED_BASELINE => Ok(ControlFlow::Continue(())),
                _ => each(user, record),
            })
    }

    fn advice(&self) -> &'static str {
        RESTORE
    }
}

/// A database that has lost its first file would pass for one that was never written to.
fn refuse_beheaded(path: &Path) -> anyhow::Result<()> {
    let folder = path.join(DATABASE_FOLDER);
    if !folder.exists() || folder.join("CURRENT").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(&folder).with_context(|| damaged(path))? {
        let name = entry.with_context(|| damaged(path))?.file_name();
        let extension = Path::new(&name).extension();
        let is_data = extension.is_some_and(|extension| extension == "sst" || extension == "log");
        ensure!(!is_data, damaged(path));
    }
    Ok(())
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(2);
    // One thread's records go to the log while the other's go to memory.
    options.set_enable_pipelined_write(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // Dirty pages go to the disk as they come, so that a commit waits for the last of them only.
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(4);
    // Said by us where it matters; a dump every ten minutes is for RocksDB's developers.
    options.set_stats_dump_period_sec(0);
    // Corruption stops the program at once instead of being carried along.
    options.set_paranoid_checks(true);
    options
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Most users that are looked for are new.
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    // Records are read one by one, each a few KB.
    table.set_block_size(8 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // The end of a run waits for its last file. Packing saves a fifth of one, and half the time of
    // writing it: that is for files that stay.
    options.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
    ]);
    let memtable_bytes = match name {
        layout::META => WRITE_BYTES / 4,
        _ => MEMTABLE_BYTES,
    };
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(2);
    // A checkpoint changes a large share of all records: merging them after each costs more than
    // looking into some files.
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_level_zero_slowdown_writes_trigger(24);
    options.set_level_zero_stop_writes_trigger(48);
    options
}

fn damaged(path: &Path) -> String {
    format!("the state folder {} is damaged: {RESTORE}", path.display())
}

/// What to say when the database cannot be opened.
fn open_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    let shown = path.display();
    let text = error.to_string();
    let text = text.trim();
    if error.kind() == rocksdb::ErrorKind::InvalidArgument && text.contains("olumn famil") {
        return anyhow::anyhow!("the state folder {shown} is not one of this release ({text})");
    }
    cannot("open the state folder", path, error, RESTORE)
}

fn read_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    cannot("read the state folder", path, error, RESTORE)
}

fn write_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    let shown = path.display();
    let advice = advice(error, RESTORE);
    let error = error.to_string();
    anyhow::anyhow!(
        "cannot save baselines in {shown} ({}): they stay what they were at the last checkpoint; \
         {advice}",
        error.trim()
    )
}
