//! Backups of a database in a folder, by RocksDB's own backup engine: sorted files that an earlier backup
//! has are not copied again, each file has a checksum, and a backup is there when it is whole and on the
//! disk. A folder is of one database, told by its identity, which a restored one keeps.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rocksdb::backup::{BackupEngine, BackupEngineOptions, RestoreOptions};
use rocksdb::{ColumnFamilyDescriptor, DB, Env, WriteBufferManager};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::bulk::sync_folder;
use super::checkpoint::Checkpoint;
use super::{Access, Store, Tuning, block_cache, database_options, family_options};
use crate::progress::{Shown, Work};
use crate::schema;

/// Names the database that the backups are of.
const MARK_FILE: &str = "streamguard.backups";
/// Where the engine says of each backup which files it has, with their checksums.
const LISTS: &str = "meta";
/// Copies at the same time: whoever writes to the database has the disk too.
const N_COPIES: i32 = 1;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Counts up with each; none is used twice.
    pub number: u32,
    /// What is known of it, if it is whole as far as that can be seen without reading it.
    pub found: Option<Found>,
    /// Its files that are missing, or are not as they were written.
    pub damaged: BTreeSet<String>,
}

/// What is known of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was begun, in ms.
    pub time_ms: i64,
    /// Of all its files, those of other backups too.
    pub n_bytes: u64,
    pub n_files: u32,
}

/// What making a backup has come to.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub number: u32,
    pub n_bytes: u64,
    pub n_files: u32,
    /// Those that no backup had before.
    pub n_new_bytes: u64,
    /// Older backups that were removed.
    pub n_removed: usize,
}

/// What a database was made of.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub number: u32,
    /// When that backup was begun, in ms.
    pub time_ms: i64,
}

/// Makes a backup of the database in the folder `db`, whichever program has it open, then removes all
/// but the newest `keep`. With `check` all its files are read before that, those of earlier backups too.
///
/// # Errors
/// If the database cannot be read, the folder is none for it or in use, or cannot be written to, or a backup in
/// it is not whole: earlier backups stay as they are then.
pub fn make(
    db: &Path,
    folder: &Path,
    (keep, check): (Option<NonZeroU32>, bool),
    tuning: &Tuning,
    show: &dyn Fn(Work) -> Shown,
) -> anyhow::Result<Made> {
    ensure_is_apart(db, folder)?;
    // Events are nobody else's business.
    (DirBuilder::new().recursive(true).mode(0o700).create(folder))
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let _lock = lock(folder, FlockOperation::NonBlockingLockExclusive)?;
    let checkpoint = Checkpoint::of(db, tuning)?;
    let source = open_checkpoint(&checkpoint.path(), tuning)?;
    let identity = source.get_db_identity().map_err(anyhow::Error::new)?;
    claim(folder, &String::from_utf8_lossy(&identity))?;
    let mut engine = open_engine(folder)?;
    ensure_are_whole(folder, &engine)?;
    let n_bytes_before = folder_bytes(folder);
    let failed = |error: rocksdb::Error| {
        anyhow::anyhow!(
            "cannot write a backup to {} ({}): earlier ones are as they were; make room or mend it, then \
                 run the same command again",
            folder.display(),
            error.to_string().trim()
        )
    };
    let n_bytes = new_bytes(&checkpoint.path(), folder);
    let (shown, watched) = (show(Work::Bytes { n_bytes }), folder.to_owned());
    shown.follow(move || folder_bytes(&watched).saturating_sub(n_bytes_before));
    // What was in memory is in files by now.
    (engine.create_new_backup_flush(&source, false)).map_err(failed)?;
    drop((source, shown));
    let infos = engine.get_backup_info();
    let info = infos.last().context("the backup is not there")?;
    (engine.verify_backup(info.backup_id)).map_err(failed)?;
    if check {
        let list = folder.join(LISTS).join(info.backup_id.to_string());
        let damaged = damaged(folder, &list, &mut HashMap::new())?;
        let number = info.backup_id;
        ensure!(
            damaged.is_empty(),
            "backup {number} in {} is damaged, and so are others with {}: nothing was removed; see what \
             docs/backup.md says of damage",
            folder.display(),
            Vec::from_iter(damaged).join(", ")
        );
    }
    let n_new_bytes = folder_bytes(folder).saturating_sub(n_bytes_before);
    let n_kept = keep.map_or(infos.len(), |keep| keep.get() as usize);
    (engine.purge_old_backups(n_kept)).map_err(failed)?;
    Ok(Made {
        number: info.backup_id,
        n_bytes: info.size,
        n_files: info.num_files,
        n_new_bytes,
        n_removed: infos.len().saturating_sub(n_kept),
    })
}

/// The backups in a folder, oldest first. With `check` all their files are read and compared with their
/// checksums; without it files must be there in their length.
///
/// # Errors
/// If the folder holds no backups, or cannot be read.
pub fn list(folder: &Path, check: bool) -> anyhow::Result<Vec<Backup>> {
    ensure_are_there(folder)?;
    let _lock = lock(folder, FlockOperation::NonBlockingLockShared)?;
    let engine = open_engine(folder)?;
    let mut known = HashMap::new();
    for info in engine.get_backup_info() {
        known.insert(info.backup_id, info);
    }
    let mut sums = HashMap::new();
    let mut list = Vec::new();
    for (number, path) in lists(folder)? {
        let mut backup = Backup {
            number,
            found: known.get(&number).map(|info| Found {
                time_ms: info.timestamp.saturating_mul(1_000),
                n_bytes: info.size,
                n_files: info.num_files,
            }),
            damaged: BTreeSet::new(),
        };
        if check || !known.contains_key(&number) {
            backup.damaged = damaged(folder, &path, &mut sums)?;
        }
        if !known.contains_key(&number) && backup.damaged.is_empty() {
            // The engine refuses it for another reason.
            let name = path.strip_prefix(folder).unwrap_or(&path);
            backup.damaged.insert(name.to_string_lossy().into_owned());
        }
        list.push(backup);
    }
    Ok(list)
}

/// Makes the database in the folder `db` of a backup, of the newest one if none is named: all of it,
/// with what it holds checked against checksums, or nothing.
///
/// # Errors
/// If there is something in the folder, no such backup, or it is damaged or cannot be written.
pub fn restore(
    folder: &Path,
    db: &Path,
    number: Option<u32>,
    tuning: &Tuning,
    show: &dyn Fn(Work) -> Shown,
) -> anyhow::Result<Restored> {
    ensure_are_there(folder)?;
    ensure_is_free(db)?;
    let _lock = lock(folder, FlockOperation::NonBlockingLockShared)?;
    let mut engine = open_engine(folder)?;
    let infos = engine.get_backup_info();
    let newest = lists(folder)?.last().map(|(number, _)| *number);
    let wanted = number.or(newest);
    let info = infos.iter().find(|info| Some(info.backup_id) == wanted);
    let info = info.with_context(|| {
        let which = wanted.map_or(String::new(), |number| format!(" {number}"));
        let shown = folder.display();
        format!(
            "there is no whole backup{which} in {shown}: name another one with --backup, see sg-store backups"
        )
    })?;
    let number = info.backup_id;
    let unfinished = Unfinished::beside(db)?;
    let shown = show(Work::Bytes { n_bytes: info.size });
    let watched = unfinished.path.clone();
    shown.follow(move || folder_bytes(&watched));
    let restored = engine.restore_from_backup(
        &unfinished.path,
        &unfinished.path,
        &RestoreOptions::default(),
        number,
    );
    drop(shown);
    restored.map_err(|error| {
        let advice = match error.kind() {
            rocksdb::ErrorKind::Corruption => {
                "it is damaged: restore another one with --backup, see sg-store backups --check"
            }
            _ => "make room or mend it, then run the same command again",
        };
        let error = error.to_string();
        anyhow::anyhow!(
            "cannot restore backup {number} ({}): {advice}",
            error.trim()
        )
    })?;
    // It is one that this release can go on with, and has the files that we lock.
    drop(Store::open(
        &unfinished.path,
        Access::WriteExisting,
        tuning,
    )?);
    unfinished.become_database(db)?;
    Ok(Restored {
        number,
        time_ms: info.timestamp.saturating_mul(1_000),
    })
}

fn open_engine(folder: &Path) -> anyhow::Result<BackupEngine> {
    // Files are shared by the engine's own choice, under names that no two of them have: number, session
    // and length.
    let opened = BackupEngineOptions::new(folder).and_then(|mut options| {
        options.set_sync(true);
        options.set_max_background_operations(N_COPIES);
        BackupEngine::open(&options, &Env::new()?)
    });
    opened.map_err(|error| {
        anyhow::anyhow!(
            "cannot use the backups in {} ({})",
            folder.display(),
            error.to_string().trim()
        )
    })
}

/// Opens linked files as the database that they are, and leaves them as they are.
fn open_checkpoint(path: &Path, tuning: &Tuning) -> anyhow::Result<DB> {
    let cache = block_cache(tuning.cache_bytes);
    let families = schema::FAMILIES.iter().map(|name| {
        let mut options = family_options(name, tuning, &cache);
        // What is merged here would be new to the next backup.
        options.set_disable_auto_compactions(true);
        ColumnFamilyDescriptor::new(*name, options)
    });
    let memtables = WriteBufferManager::new_write_buffer_manager(tuning.memtable_bytes, false);
    let mut options = database_options(tuning, &memtables);
    options.create_if_missing(false);
    DB::open_cf_descriptors(&options, path, families).map_err(|error| {
        anyhow::anyhow!(
            "cannot read {} ({}): run the same command again",
            path.display(),
            error.to_string().trim()
        )
    })
}

/// Says in the folder that it is for backups of that database; refuses one that is for something else.
fn claim(folder: &Path, identity: &str) -> anyhow::Result<()> {
    let shown = folder.display();
    let mark = folder.join(MARK_FILE);
    match fs::read_to_string(&mark) {
        Ok(of) if of.trim_end() == identity => return Ok(()),
        Ok(_) => bail!("{shown} holds backups of another database: name another folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", mark.display())),
    }
    let part = folder.join(format!("{MARK_FILE}.part"));
    let mut entries = fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        entries.all(|entry| entry.is_ok_and(|entry| entry.path() == part)),
        "{shown} holds something else than backups: name another folder"
    );
    let written = fs::write(&part, format!("{identity}\n"))
        .and_then(|()| File::open(&part)?.sync_all())
        .and_then(|()| fs::rename(&part, &mark));
    written.with_context(|| format!("cannot write to {shown}"))?;
    sync_folder(folder)
}

/// A backup that is not whole may become so, if a file comes back; but the engine would clear away what is
/// left of it with the next one.
fn ensure_are_whole(folder: &Path, engine: &BackupEngine) -> anyhow::Result<()> {
    let whole = engine.get_backup_info();
    for (number, list) in lists(folder)? {
        ensure!(
            whole.iter().any(|info| info.backup_id == number),
            "backup {number} in {} is not whole: bring back what sg-store backups names, or remove {} to give \
             that backup up; then run the same command again",
            folder.display(),
            list.display()
        );
    }
    Ok(())
}

/// Whoever removes the database must not remove its backups.
fn ensure_is_apart(db: &Path, folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    let path = std::path::absolute(folder).with_context(|| format!("cannot use {shown}"))?;
    // As far as it is there.
    let place = path.ancestors().find_map(|path| path.canonicalize().ok());
    let is_within = db.canonicalize().is_ok_and(|db| {
        let place = place.as_ref();
        place.is_some_and(|place| place.starts_with(&db))
    });
    ensure!(
        !is_within,
        "{shown} is in the database's own folder: name another one"
    );
    Ok(())
}

fn ensure_are_there(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.join(MARK_FILE).exists(),
        "there are no backups in {}",
        folder.display()
    );
    Ok(())
}

/// Whoever adds or removes backups of a folder does it alone; those who read them may be several.
fn lock(folder: &Path, how: FlockOperation) -> anyhow::Result<File> {
    let shown = folder.display();
    let file = File::open(folder).with_context(|| format!("cannot read {shown}"))?;
    match flock(&file, how) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            bail!("another program uses the backups in {shown}: wait for it")
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {shown}")),
    }
}

/// Numbers of all backups that a folder has lists of, and these lists; oldest first.
fn lists(folder: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    let folder = folder.join(LISTS);
    let shown = folder.display();
    let mut lists = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {shown}"))? {
        let path = entry
            .with_context(|| format!("cannot read {shown}"))?
            .path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        lists.extend(number.map(|number| (number, path)));
    }
    lists.sort_unstable();
    Ok(lists)
}

/// What a list names that is not there as it was written. `sums` are of files that were read before.
fn damaged(
    folder: &Path,
    list: &Path,
    sums: &mut HashMap<String, Option<u32>>,
) -> anyhow::Result<BTreeSet<String>> {
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", list.display())),
    };
    let mut damaged = BTreeSet::new();
    // As RocksDB writes it: `shared_checksum/000012_sABC_34.sst crc32 5678`.
    for line in text.lines() {
        let Some((name, sum)) = line.split_once(" crc32 ") else {
            continue;
        };
        let sum = sum.split(' ').next().unwrap_or_default().parse().ok();
        let found = match sums.get(name) {
            Some(known) => *known,
            None => checksum(&folder.join(name)).ok(),
        };
        sums.insert(name.to_owned(), found);
        if found.is_none() || found != sum {
            damaged.insert(name.to_owned());
        }
    }
    Ok(damaged)
}

fn checksum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            n_read => sum = crc32c::crc32c_append(sum, &buffer[..n_read]),
        }
    }
}

/// Bytes of all files in a folder, as far as they can be seen.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes of files that a folder of backups does not have yet, about: it has sorted files under their number
/// and length, and more in their names.
fn new_bytes(source: &Path, folder: &Path) -> u64 {
    let shared = fs::read_dir(folder.join("shared_checksum"));
    let known: HashSet<(String, String)> = (shared.into_iter().flatten().flatten())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (number, rest) = name.strip_suffix(".sst")?.split_once('_')?;
            Some((number.to_owned(), rest.rsplit_once('_')?.1.to_owned()))
        })
        .collect();
    let entries = fs::read_dir(source).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let (name, n_bytes) = (entry.file_name(), entry.metadata().ok()?.len());
        let number = name.to_str()?.split('.').next()?.to_owned();
        (!known.contains(&(number, n_bytes.to_string()))).then_some(n_bytes)
    });
    sizes.sum()
}

/// A database takes the place of nothing.
fn ensure_is_free(db: &Path) -> anyhow::Result<()> {
    let is_free = match fs::read_dir(db) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    ensure!(
        is_free,
        "there is something at {} already: name another folder, or move it away first",
        db.display()
    );
    // What is restored beside it takes its place by its name, which a link or a mounted disk would keep.
    let Ok(found) = fs::symlink_metadata(db) else {
        return Ok(());
    };
    let parent = db.join("..").metadata();
    let parent = parent.with_context(|| format!("cannot read {}", db.display()))?;
    ensure!(
        found.is_dir() && found.dev() == parent.dev(),
        "{} is a link, or a disk of its own: name a folder in it",
        db.display()
    );
    Ok(())
}

/// A database that is being restored, beside the place where it will be. It goes if it does not get there;
/// what is left by a program that was killed is overwritten by the next.
struct Unfinished {
    path: PathBuf,
    parent: PathBuf,
    is_done: bool,
    _lock: File,
}

impl Unfinished {
    fn beside(db: &Path) -> anyhow::Result<Self> {
        let name = db.file_name().context("--db has to name a folder")?;
        let parent = match db.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let path = parent.join(format!(".{}.restoring", name.to_string_lossy()));
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let lock = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            "another program restores {} already: wait for it",
            db.display()
        );
        Ok(Self {
            path,
            parent,
            is_done: false,
            _lock: lock,
        })
    }

    fn become_database(mut self, db: &Path) -> anyhow::Result<()> {
        sync_folder(&self.path)?;
        // An empty folder is replaced, one that somebody has filled meanwhile is not.
        fs::rename(&self.path, db)
            .with_context(|| format!("cannot make the database {}", db.display()))?;
        self.is_done = true;
        sync_folder(&self.parent)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
