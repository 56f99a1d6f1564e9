//! The embedded store. This module and those below it are the only ones that name `rocksdb`.

mod admin;
mod analysis;
pub mod backup;
mod bulk;
mod checkpoint;
mod counters;
mod digest;
mod feed;
mod feedback;
mod gathered;
mod guests;
mod keeping;
mod live;
mod lock;
mod merge;
mod neighbours;
mod outbox;
mod peer;
mod pipe;
mod protocol;
mod recent;
mod remote;
mod scratch;
mod session;
mod share;
mod shelves;
mod state;
mod stretches;
mod tasks;
mod trouble;
mod vectors;
mod view;
mod walk;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    LruCacheOptions, Options, WriteBatch, WriteBufferManager, WriteOptions,
};

pub(crate) use admin::parse_event;
pub use admin::{Pruned, Verified};
pub use analysis::{Analysed, Notice, PendingEvent};
pub use counters::{BySeverity, Counters};
pub use digest::Digest;
pub use feed::News;
pub use feedback::FeedbackWalk;
pub use guests::Guests;
pub use keeping::Keeping;
pub use live::{Follow, Live};
pub use merge::Merge;
pub use outbox::{Alerting, Bell, Opened, Outbox, Progress, Waiting};
pub use peer::{PEER_PATH, Peer};
pub use pipe::Pipe;
pub use protocol::{ASK_BYTES_MAX as FRAME_BYTES_MAX, Wire, WriterInfo};
pub use scratch::{SCRATCH_BYTES, Scratch};
pub use share::Shared;
pub use state::{EachBaseline, Label, STATE_BYTES, State};
pub use stretches::{Stretch, StretchWalk};
pub use vectors::{VectorSum, VectorSums};
pub use view::{Entry, IdWalk, Order, View};
pub use walk::{UserWalk, Walk};
pub use writer::{Writer, WriterOptions};

use crate::schema;
use feed::Feed;
use lock::{LOCK_TIMEOUT, Locks, PAUSE, is_written};
use trouble::{advice, cannot};

/// Sizes that trade memory for speed.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Bytes of events gathered in memory before they are sorted into a file.
    pub memtable_bytes: usize,
    /// Bytes of blocks kept in memory for reads.
    pub cache_bytes: usize,
    /// Threads that flush and compact.
    pub n_background_jobs: i32,
    /// Files that are held open at once.
    pub n_files_open_max: i32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            memtable_bytes: 8 << 20,
            cache_bytes: 512 << 20,
            n_background_jobs: 2,
            n_files_open_max: 512,
        }
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Write, and make the store if it is not there. One at a time.
    Write,
    /// Write to a store that must be there. One at a time.
    WriteExisting,
    /// Read while nobody writes.
    Read,
}

/// Memtables of all families but that of events, if those may be that large.
const SMALL_MEMTABLE_BYTES: usize = 8 << 20;
/// Log of writes not yet in files; beyond it the oldest memtables are flushed.
const WAL_BYTES_MAX: u64 = 256 << 20;

/// Zstandard's fastest level, and what RocksDB takes for all else if nobody says anything.
const ZSTD_LEVEL: i32 = 1;
/// What RocksDB takes for a packing's own; LZ4 with a level above 0 is several times as slow.
const LEVEL: i32 = 32_767;
const WINDOW_BITS: i32 = -14;
const STRATEGY: i32 = 0;
const DICTIONARY_BYTES: i32 = 0;

/// An open store.
pub struct Store {
    db: DB,
    path: PathBuf,
    /// All memtables together, those being written out too.
    memtables: WriteBufferManager,
    memtables_bytes_max: usize,
    tuning: Tuning,
    cache: Cache,
    /// Bulk writes of this run.
    n_bulks: AtomicU64,
    /// Closed while families take in the files of a write: nobody looks at the store meanwhile.
    gate: RwLock<()>,
    /// Held while files are linked for a backup, and while what is left of that is removed.
    linking: Mutex<()>,
    feed: Feed,
    // Dropped after the database, so that nobody sees it unlocked and still open.
    _locks: Locks,
}

impl Store {
    /// Opens the store in the folder `path`.
    ///
    /// # Errors
    /// If it is not there, in use, damaged, of another schema version, or cannot be written.
    pub fn open(path: &Path, access: Access, tuning: &Tuning) -> anyhow::Result<Self> {
        if access == Access::Read {
            let start = Instant::now();
            loop {
                if let Some(store) = Self::open_to_read(path, tuning)? {
                    return Ok(store);
                }
                ensure!(
                    start.elapsed() <= LOCK_TIMEOUT,
                    "database {} is in use by another program: wait for it, or stop it",
                    path.display()
                );
                thread::sleep(PAUSE);
            }
        }
        if access == Access::Write {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make the database {}", path.display()))?;
        } else {
            ensure_is_there(path)?;
        }
        refuse_others_data(path)?;
        let locks = lock::lock_for_writing(path)?;
        let store = Self::open_locked(path, access, tuning, locks)?;
        store.recover_bulk()?;
        store.clear_checkpoint();
        store.fold_raised()?;
        Ok(store)
    }

    /// Opens the store for reading, if nobody writes to it.
    fn open_to_read(path: &Path, tuning: &Tuning) -> anyhow::Result<Option<Self>> {
        ensure_is_there(path)?;
        refuse_others_data(path)?;
        let Some(locks) = lock::lock_for_reading(path)? else {
            return Ok(None);
        };
        let store = Self::open_locked(path, Access::Read, tuning, locks)?;
        if !store.has_unfinished_bulk()? {
            return Ok(Some(store));
        }
        drop(store);
        let finished = Self::open(path, Access::WriteExisting, tuning);
        drop(finished.context("a write that was interrupted has to be completed first")?);
        Self::open_to_read(path, tuning)
    }

    fn open_locked(
        path: &Path,
        access: Access,
        tuning: &Tuning,
        locks: Locks,
    ) -> anyhow::Result<Self> {
        let cache = block_cache(tuning.cache_bytes);
        let families = schema::FAMILIES
            .iter()
            .map(|name| ColumnFamilyDescriptor::new(*name, family_options(name, tuning, &cache)));
        // A quarter of the limit is for what comes in while RocksDB writes out, which it begins
        // at seven eighths of what it is told.
        let memtables_bytes_max = tuning.memtable_bytes * 4;
        let memtables =
            WriteBufferManager::new_write_buffer_manager(memtables_bytes_max / 4 * 3, false);
        let options = database_options(tuning, &memtables);
        let opened = if access == Access::Read {
            DB::open_cf_descriptors_read_only(&options, path, families, false)
        } else {
            DB::open_cf_descriptors(&options, path, families)
        };
        let db = opened.map_err(|error| open_error(path, &error))?;
        let store = Self {
            db,
            path: path.to_owned(),
            memtables,
            memtables_bytes_max,
            tuning: tuning.clone(),
            cache,
            n_bulks: AtomicU64::new(0),
            gate: RwLock::new(()),
            linking: Mutex::default(),
            feed: Feed::default(),
            _locks: locks,
        };
        store.check_version(access)?;
        Ok(store)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_version(&self, access: Access) -> anyhow::Result<()> {
        let known = schema::SCHEMA_VERSION;
        let Some(found) = self.get(schema::META, schema::META_SCHEMA_VERSION.as_bytes())? else {
            // Just made, or a program was killed while making it.
            ensure!(
                access != Access::Read,
                "database {} was never written to",
                self.path.display()
            );
            let meta = self.family(schema::META);
            self.db
                .put_cf(meta, schema::META_SCHEMA_VERSION, known.to_string())?;
            return Ok(());
        };
        let text = String::from_utf8_lossy(&found).into_owned();
        let shown = self.path.display();
        match text.parse::<u32>() {
            Ok(version) if version == known => Ok(()),
            Ok(version) if version > known => bail!(
                "database {shown} has schema {version}, this build reads {known}: \
                 use the newer release that wrote it"
            ),
            _ => bail!("database {shown} has an unknown schema version"),
        }
    }

    /// Writes a batch as a whole, then waits until memtables are within their limit again: memory
    /// is the promise, and back-pressure reaches the reader.
    ///
    /// RocksDB can make writes wait too, but then waits without end if what fills the memory is
    /// not due to be written out, such as memtables that a walk pins.
    fn write(&self, writes: WriteBatch, sync: bool) -> anyhow::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db
            .write_opt(writes, &options)
            .map_err(|error| write_error(&self.path, &error))?;
        if self.memtables.get_usage() <= self.memtables_bytes_max {
            return Ok(());
        }
        let mut sizes = Vec::new();
        for family in schema::FAMILIES {
            let size = self.property(family, "rocksdb.cur-size-all-mem-tables")?;
            sizes.push((size, family));
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        for (_, family) in sizes {
            if self.memtables.get_usage() <= self.memtables_bytes_max / 2 {
                break;
            }
            let flushed = self.db.flush_cf(self.family(family));
            flushed.map_err(|error| write_error(&self.path, &error))?;
        }
        Ok(())
    }

    /// No large write is half-way until what this returns is let go.
    ///
    /// # Errors
    /// If one has failed half-way: the store has to be opened anew then.
    fn whole(&self) -> anyhow::Result<RwLockReadGuard<'_, ()>> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.ensure_whole()?;
        Ok(gate)
    }

    fn ensure_whole(&self) -> anyhow::Result<()> {
        ensure!(
            !self.has_unfinished_bulk()?,
            "a write to the database {} has failed half-way: the next program that opens it completes it",
            self.path.display()
        );
        Ok(())
    }

    fn property(&self, family: &str, name: &str) -> anyhow::Result<u64> {
        let value = self.db.property_int_value_cf(self.family(family), name);
        let value = value.map_err(|error| read_error(&self.path, &error))?;
        Ok(value.unwrap_or(0))
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("all families are opened")
    }

    /// Puts an entry there, whatever it is.
    #[cfg(test)]
    pub(crate) fn put(&self, family: &str, key: &[u8], value: &[u8]) {
        let put = self.db.put_cf(self.family(family), key, value);
        put.expect("it can be written");
    }

    fn get(&self, family: &str, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        self.db
            .get_cf(self.family(family), key)
            .map_err(|error| read_error(&self.path, &error))
    }
}

/// Whether there is a database in a folder.
#[must_use]
pub fn is_at(path: &Path) -> bool {
    path.join("CURRENT").exists()
}

fn ensure_is_there(path: &Path) -> anyhow::Result<()> {
    ensure!(is_at(path), "there is no database at {}", path.display());
    Ok(())
}

/// Opening makes missing column families: another program's database must not get ours.
fn refuse_others_data(path: &Path) -> anyhow::Result<()> {
    if !is_at(path) || path.join(lock::LOCK_FILE).exists() {
        return Ok(());
    }
    let families = DB::list_cf(&Options::default(), path).unwrap_or_default();
    ensure!(
        families.iter().any(|family| family == schema::META),
        "{} holds no StreamGuard data, but another program's database",
        path.display()
    );
    Ok(())
}

fn database_options(tuning: &Tuning, memtables: &WriteBufferManager) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(tuning.n_background_jobs);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_write_buffer_manager(memtables);
    // Dirty pages go to the disk as they come, not in one stall at the end of a file.
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_max_open_files(tuning.n_files_open_max);
    options.set_keep_log_file_num(4);
    // Said by us where it matters; a dump every ten minutes is for RocksDB's developers.
    options.set_stats_dump_period_sec(0);
    // Hardly ever do two threads write.
    options.set_allow_concurrent_memtable_write(false);
    // Corruption stops the program at once instead of being carried along.
    options.set_paranoid_checks(true);
    options
}

/// A cache of few parts. RocksDB makes parts of half a MiB, in which the filter of a file, a quarter of
/// that and more, has no place beside others: then each read of a small cache reads and checks whole
/// filters.
fn block_cache(n_bytes: usize) -> Cache {
    const PARTS_LOG2: i32 = 2;
    let mut options = LruCacheOptions::default();
    options.set_capacity(n_bytes);
    options.set_num_shard_bits(PARTS_LOG2);
    Cache::new_lru_cache_opts(&options)
}

fn family_options(name: &str, tuning: &Tuning, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_block_size(16 << 10);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // The last file of a level is written again with each merge, if events come about in order of time.
    options.set_target_file_size_base(32 << 20);
    let is_index = matches!(name, schema::BY_ID | schema::BY_USER | schema::BY_SEVERITY);
    // Files of events overlap little, if at all: many of them are no burden to reads, and the more are
    // merged at once, the less often. Writes wait when there are several times as many.
    let n_files = if is_index || name == schema::EVENTS {
        22
    } else {
        8
    };
    options.set_level_zero_file_num_compaction_trigger(n_files);
    options.set_level_zero_slowdown_writes_trigger(n_files * 5);
    options.set_level_zero_stop_writes_trigger(n_files * 9);
    if is_index {
        set_packing(&mut options, DBCompressionType::Lz4);
    } else if name == schema::BASELINES {
        // Most of them are replaced before they are merged: only what is, is packed for good.
        set_packing(&mut options, DBCompressionType::Zstd);
        options.set_compression_per_level(&[DBCompressionType::Lz4, DBCompressionType::Zstd]);
    } else {
        // The same on all levels: a file that need not be merged is moved down as it is.
        set_packing(&mut options, DBCompressionType::Zstd);
    }
    let memtable_bytes = match name {
        schema::EVENTS => tuning.memtable_bytes,
        _ => SMALL_MEMTABLE_BYTES.min(tuning.memtable_bytes),
    };
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(3);
    // Not to be merged before they become files: now and then RocksDB then forgot one that it was told to
    // write out, and waited for it without end.
    options.set_min_write_buffer_number_to_merge(1);
    options
}

fn set_packing(options: &mut Options, packing: DBCompressionType) {
    let level = match packing {
        DBCompressionType::Zstd => ZSTD_LEVEL,
        _ => LEVEL,
    };
    options.set_compression_type(packing);
    options.set_compression_options(WINDOW_BITS, level, STRATEGY, DICTIONARY_BYTES);
}

/// What to say when the store cannot be opened.
fn open_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    let shown = path.display();
    let text = error.to_string();
    let text = text.trim();
    if error.kind() == rocksdb::ErrorKind::InvalidArgument && text.contains("olumn famil") {
        return anyhow::anyhow!("database {shown} is not one of this release ({text})");
    }
    cannot("open the database", path, error, RESTORE)
}

fn read_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    cannot("read the database", path, error, RESTORE)
}

fn write_error(path: &Path, error: &rocksdb::Error) -> anyhow::Error {
    let shown = path.display();
    let advice = advice(error, RESTORE);
    let error = error.to_string();
    anyhow::anyhow!(
        "cannot write to the database {shown} ({}): nothing of the last batch was kept; {advice}",
        error.trim()
    )
}

const RESTORE: &str = "restore it from a backup, or make a new one and read the events again";
