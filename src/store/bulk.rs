//! Many new entries at once: sorted files are built of them, which the store takes in as they are. That
//! saves the log, the memtables and most merging, which is half the time of a backfill.
//!
//! Several families have to take in files of one write, each by itself. So the files are built first,
//! then named in `meta`, in one write with all else that is to be kept with them: from then on the
//! entries are stored, and whoever opens the store next takes in what a crash has left over. One that is
//! not there any more has been taken in. To take in a file twice changes nothing: a crash loses no more than
//! the end of the log, and files, of memtables or of another write, never get ahead of the log. So whatever
//! came after a file is lost, unless the word that the file was taken in is kept.

mod baselines;
mod events;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockWriteGuard};

use anyhow::Context as _;
use rocksdb::{DBCompressionType, IngestExternalFileOptions, SstFileWriter, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{Store, family_options, set_packing, write_error};
use crate::schema;

/// Bytes of entries from which they are written like this: smaller files would have to be merged
/// again and again.
pub(super) const BULK_BYTES_MIN: usize = 4 << 20;
/// Where the files are until the store has taken them in.
const FOLDER: &str = "bulk";

/// A file for a family, as `meta` names it.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    family: String,
    file: String,
}

impl Store {
    /// Names for the files of the next write, one for each family.
    fn name_files<const N: usize>(&self, families: [&str; N]) -> [Named; N] {
        let number = self.n_bulks.fetch_add(1, Ordering::Relaxed);
        families.map(|family| Named {
            family: family.to_owned(),
            file: format!("{number}-{family}.sst"),
        })
    }

    /// Builds the files and names them, and in the same step writes what else there is to write: all is
    /// stored then, though nobody sees the files' entries yet. Nobody looks at the store until what this
    /// returns is let go.
    fn begin_bulk(
        &self,
        files: &[Named],
        mut others: WriteBatch,
        build: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<RwLockWriteGuard<'_, ()>> {
        self.ensure_whole()?;
        let folder = self.path.join(FOLDER);
        if !folder.is_dir() {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
            sync_folder(&self.path)?;
        }
        let named = build().and_then(|()| {
            sync_folder(&folder)?;
            let names = serde_json::to_vec(files)?;
            others.put_cf(self.family(schema::META), schema::META_BULK, names);
            Ok(())
        });
        if named.is_err() {
            // Nobody will ask for them; what cannot be removed is when the store is opened next.
            for it in files {
                let _ = fs::remove_file(folder.join(&it.file));
            }
        }
        named?;
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // A write that fails may be on the disk nonetheless: whoever opens the store next finds out, and
        // takes in the files or removes them.
        self.write(others, true)?;
        Ok(gate)
    }

    /// Builds a file of what `each` puts, in the order of keys, and waits until it is on the disk.
    fn build_file(
        &self,
        named: &Named,
        packing: DBCompressionType,
        each: impl FnOnce(&mut Put<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut options = family_options(&named.family, &self.tuning, &self.cache);
        set_packing(&mut options, packing);
        // What a family says of its levels would go before.
        options.set_compression_per_level(&[packing]);
        let failed = |error| write_error(&self.path, &error);
        let mut writer = SstFileWriter::create(&options);
        let path = self.path.join(FOLDER).join(&named.file);
        writer.open(&path).map_err(failed)?;
        each(&mut |key, value| writer.put(key, value).map_err(failed))?;
        writer.finish().map_err(failed)
    }

    /// Takes in files that a write has named, if there are any; whether there were.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub(super) fn finish_bulk(&self) -> anyhow::Result<bool> {
        let Some(names) = self.get(schema::META, schema::META_BULK.as_bytes())? else {
            return Ok(false);
        };
        let shown = self.path.display();
        let names: Vec<Named> = serde_json::from_slice(&names).with_context(|| {
            format!("database {shown} is damaged: what it says of unfinished files is not readable")
        })?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Of several families the events come last: whoever sees one, such as a thread that keeps what a model says of it, finds it
        // in all indexes, and what is written to those then is not hidden by these files.
        for named in names.into_iter().rev() {
            self.take_in(&named, &options)?;
        }
        let mut writes = WriteBatch::default();
        writes.delete_cf(self.family(schema::META), schema::META_BULK);
        self.write(writes, false)?;
        Ok(true)
    }

    fn take_in(&self, named: &Named, options: &IngestExternalFileOptions) -> anyhow::Result<()> {
        let shown = self.path.display();
        let path = self.path.join(FOLDER).join(&named.file);
        let family = self.db.cf_handle(&named.family);
        let family = family.filter(|_| is_plain(&named.file)).with_context(|| {
            format!("database {shown} is damaged: it names a file that is none of its own")
        })?;
        let is_there = path.try_exists();
        if !is_there.with_context(|| format!("cannot read {}", path.display()))? {
            return Ok(());
        }
        let taken = self
            .db
            .ingest_external_file_cf_opts(family, options, vec![&path]);
        taken.map_err(|error| {
            anyhow::anyhow!(
                "cannot write to the database {shown} ({}): make room or mend it, then run the \
                 same command again, which goes on with what was not complete",
                error.to_string().trim()
            )
        })?;
        // Gone already, unless something has come in between.
        let _ = fs::remove_file(&path);
        Ok(())
    }

    /// Takes in what a crash has left over, and removes files that nobody names.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub(super) fn recover_bulk(&self) -> anyhow::Result<()> {
        if self.finish_bulk()? {
            // The next files may have the names of these.
            self.flush_log()?;
        }
        match fs::remove_dir_all(self.path.join(FOLDER)) {
            Ok(()) => sync_folder(&self.path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context("cannot remove unfinished files"),
        }
    }

    /// Whether files are to be taken in that were named.
    pub(super) fn has_unfinished_bulk(&self) -> anyhow::Result<bool> {
        Ok(self
            .get(schema::META, schema::META_BULK.as_bytes())?
            .is_some())
    }

    fn flush_log(&self) -> anyhow::Result<()> {
        let flushed = self.db.flush_wal(true);
        flushed.map_err(|error| write_error(&self.path, &error))
    }
}

/// Puts a key and a value behind all others.
type Put<'a> = dyn FnMut(&[u8], &[u8]) -> anyhow::Result<()> + 'a;

/// A file's name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let path = PathBuf::from(name);
    path.file_name()
        .is_some_and(|file| file == path.as_os_str())
}

/// Waits until the names of files in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot write to {}", folder.display()))
}
