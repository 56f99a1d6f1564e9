//! Baselines for which there is no room in memory, for as long as a run takes: a database of its own
//! in a temporary folder, made when it is first needed and removed at the end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Context as _;
use rocksdb::{BlockBasedOptions, DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use tempfile::TempDir;

use super::block_cache;
use crate::batch::Records;
use crate::schema;
use crate::stage::{Backing, EachUser, Shelf, Shelves};

/// What the names of its folders begin with.
const FOLDER_PREFIX: &str = "sg-scratch-";
/// Records gathered in memory before they become a file; two of these at a time.
const MEMTABLE_BYTES: usize = 16 << 20;
const CACHE_BYTES: usize = 32 << 20;
/// What it takes to write and merge files.
const FILES_BYTES: usize = 32 << 20;

/// Bytes of memory that it takes, once it is needed.
pub const SCRATCH_BYTES: usize = 2 * MEMTABLE_BYTES + CACHE_BYTES + FILES_BYTES;

/// The database, if it was needed.
pub struct Scratch {
    parent: PathBuf,
    opened: OnceLock<Opened>,
    opening: Mutex<()>,
}

struct Opened {
    // Closed before its folder is removed.
    db: DB,
    folder: TempDir,
}

impl Scratch {
    /// Nothing yet, but if it is needed then in the folder `parent`.
    #[must_use]
    pub fn new(parent: &Path) -> Self {
        Self {
            parent: parent.to_owned(),
            opened: OnceLock::new(),
            opening: Mutex::new(()),
        }
    }

    fn open(&self) -> anyhow::Result<&Opened> {
        let _guard = self.opening.lock();
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let folder = tempfile::Builder::new()
            .prefix(FOLDER_PREFIX)
            .tempdir_in(&self.parent)
            .with_context(|| {
                format!(
                    "cannot make a folder in {} for baselines that exceed --memory-limit",
                    self.parent.display()
                )
            })?;
        let db =
            DB::open(&options(), folder.path()).map_err(|error| failure(folder.path(), &error))?;
        Ok(self.opened.get_or_init(|| Opened { db, folder }))
    }
}

impl Shelves for Arc<Scratch> {
    fn of_task(&self, task: &str) -> anyhow::Result<Shelf> {
        let backing = OfTask {
            scratch: Arc::clone(self),
            task: task.to_owned(),
        };
        Ok(Shelf {
            backing: Arc::new(backing),
            is_backed: false,
            n_users: 0,
        })
    }
}

/// The records of one task.
struct OfTask {
    scratch: Arc<Scratch>,
    task: String,
}

impl Backing for OfTask {
    fn get(&self, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(Opened { db, folder }) = self.scratch.opened.get() else {
            return Ok(None);
        };
        let key = schema::baseline_key(&self.task, user);
        db.get(key).map_err(|error| failure(folder.path(), &error))
    }

    fn put(&self, records: &Records) -> anyhow::Result<()> {
        let Opened { db, folder } = self.scratch.open()?;
        let mut key = schema::task_prefix(&self.task);
        let n_prefix = key.len();
        let n_key_bytes = (16 + n_prefix) * records.len();
        let mut writes = WriteBatch::with_capacity_bytes(records.n_bytes() + n_key_bytes);
        for (user, record) in records.iter() {
            key.truncate(n_prefix);
            key.extend_from_slice(user);
            writes.put(&key, record);
        }
        let mut options = WriteOptions::default();
        // It does not outlive the run.
        options.disable_wal(true);
        db.write_opt(writes, &options)
            .map_err(|error| failure(folder.path(), &error))
    }

    /// Before the run nobody was here.
    fn each(&self, _: &mut EachUser<'_>) -> anyhow::Result<()> {
        Ok(())
    }

    fn advice(&self) -> &'static str {
        "mend the disk, then run the same command again"
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&block_cache(CACHE_BYTES));
    // Most users that are looked for were never here.
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    // Records are read one by one, each a few KB.
    table.set_block_size(8 << 10);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_stats_dump_period_sec(0);
    options
}

fn failure(folder: &Path, error: &rocksdb::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot keep baselines that exceed --memory-limit in {} ({}): make room there or mend it, \
         or raise the limit, then run the same command again",
        folder.display(),
        error.to_string().trim()
    )
}
