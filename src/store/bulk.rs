//! Many new events at once: sorted files are built of them, which the store takes in as they are. That
//! saves the log, the memtables and most merging, which is half the time of a backfill.
//!
//! Several families have to take in files of one write, each by itself. So the files are built first,
//! then named in `meta`, in one write with all that is said of the events: from then on the events
//! are stored, and whoever opens the store next takes in what a crash has left over. To take in a
//! file twice changes nothing, and one that is not there any more has been taken in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockWriteGuard};
use std::thread;

use anyhow::Context as _;
use prefetch_index::prefetch_index;
use rocksdb::{DBCompressionType, IngestExternalFileOptions, SstFileWriter, WriteBatch};
use serde::{Deserialize, Serialize};

use super::gathered::Gathered;
use super::{Store, family_options, set_packing, write_error};
use crate::schema;

/// Bytes of events from which they are written like this: smaller files would have to be merged
/// again and again.
pub const BULK_BYTES_MIN: usize = 8 << 20;
/// Entries of an index between those that are written and those that are fetched.
const PREFETCH_DISTANCE: usize = 16;
/// Where the files are until the store has taken them in.
const FOLDER: &str = "bulk";

/// A file for a family, as `meta` names it.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    family: String,
    file: String,
}

impl Store {
    /// Writes events, and in the same step what else there is to write, all of it or nothing.
    ///
    /// `are_newest` says that all events are behind those of the store: then nothing will be merged with
    /// their file, and it is packed for good.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) fn write_bulk(
        &self,
        gathered: &Gathered,
        others: WriteBatch,
        are_newest: bool,
    ) -> anyhow::Result<()> {
        let gate = self.begin_bulk(gathered, others, are_newest)?;
        self.finish_bulk()?;
        drop(gate);
        Ok(())
    }

    /// Builds the files and names them: the events are stored, though nobody sees them yet. Nobody looks
    /// at the store until what this returns is let go.
    fn begin_bulk(
        &self,
        gathered: &Gathered,
        mut others: WriteBatch,
        are_newest: bool,
    ) -> anyhow::Result<RwLockWriteGuard<'_, ()>> {
        let number = self.n_bulks.fetch_add(1, Ordering::Relaxed);
        let files = [schema::EVENTS, schema::BY_ID, schema::BY_USER].map(|family| Named {
            family: family.to_owned(),
            file: format!("{number}-{family}.sst"),
        });
        let folder = self.path.join(FOLDER);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let built = self.build(gathered, &files, are_newest);
        let named = built.and_then(|()| {
            sync_folder(&folder)?;
            let names = serde_json::to_vec(&files)?;
            others.put_cf(self.family(schema::META), schema::META_BULK, names);
            Ok(())
        });
        if named.is_err() {
            // Nobody will ask for them; what cannot be removed is when the store is opened next.
            for it in &files {
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

    fn build(
        &self,
        gathered: &Gathered,
        [events, by_id, by_user]: &[Named; 3],
        are_newest: bool,
    ) -> anyhow::Result<()> {
        let entries = gathered.entries();
        let mut order: Vec<u32> = (0..entries.len() as u32).collect();
        let entry = |i: u32| &entries[i as usize];
        order.sort_unstable_by(|&a, &b| gathered.order(a, b));
        let build_events = || {
            // Sorted files that overlap are merged, and packed for good then.
            let packing = if are_newest {
                DBCompressionType::Zstd
            } else {
                DBCompressionType::Lz4
            };
            self.build_file(events, packing, |put| {
                for &i in &order {
                    put(gathered.key(entry(i)), gathered.line(entry(i)))?;
                }
                Ok(())
            })
        };
        let build_indexes = || {
            let mut key = Vec::new();
            let mut ids: Vec<(u64, i64)> =
                entries.iter().map(|it| (it.id, it.timestamp_ms)).collect();
            ids.sort_unstable();
            // Of two ids with one hash: a key stands for all of them.
            ids.dedup();
            self.build_file(by_id, DBCompressionType::Lz4, |put| {
                for &(id, timestamp_ms) in &ids {
                    key.clear();
                    schema::push_hashed_id_key(&mut key, id, timestamp_ms);
                    put(&key, b"")?;
                }
                Ok(())
            })?;
            // In the order of users they are all over the memory: what their keys are made of is brought
            // close together first.
            let mut event_ids = Vec::new();
            let made_of = order.iter().map(|&i| {
                let (it, start) = (entry(i), event_ids.len());
                event_ids.extend_from_slice(gathered.event_id(it));
                (it.timestamp_ms, start..event_ids.len(), it.severity)
            });
            let made_of: Vec<_> = made_of.collect();
            let places = order.iter().zip(0_u32..);
            let mut users: Vec<(u64, u32)> =
                places.map(|(&i, place)| (entry(i).user, place)).collect();
            users.sort_unstable();
            self.build_file(by_user, DBCompressionType::Lz4, |put| {
                for (i, &(user, place)) in users.iter().enumerate() {
                    if let Some((_, next)) = users.get(i + PREFETCH_DISTANCE) {
                        prefetch_index(&made_of, *next as usize);
                    }
                    if let Some((_, next)) = users.get(i + PREFETCH_DISTANCE / 2) {
                        prefetch_index(&event_ids, made_of[*next as usize].1.start);
                    }
                    let (timestamp_ms, event_id, severity) = &made_of[place as usize];
                    let event_id = &event_ids[event_id.clone()];
                    key.clear();
                    schema::push_hashed_user_key(&mut key, user, *timestamp_ms, event_id);
                    put(&key, &[*severity])?;
                }
                Ok(())
            })
        };
        thread::scope(|scope| {
            let indexes = scope.spawn(build_indexes);
            build_events()?;
            indexes
                .join()
                .unwrap_or_else(|_| anyhow::bail!("the thread that sorts indexes panicked"))
        })
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
        // Events come last: whoever sees one, such as a thread that keeps what a model says of it, finds it
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
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove unfinished files")
            }
            _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::mpsc::{TryRecvError, channel};
    use std::time::Duration;

    use super::*;
    use crate::store::checkpoint;
    use crate::store::{Access, Order, Tuning};

    fn gathered(numbers: Range<i64>) -> Gathered {
        let mut gathered = Gathered::new(1 << 20);
        // A thousand in no order, then those of the next second; with ids and users that come again.
        for number in numbers {
            let timestamp_ms = 1_000_000 + number / 1_000 * 1_000 + number * 7_919 % 1_000;
            let (event_id, user) = (
                format!("evt_{}", number / 2),
                format!("user_{}", number % 5),
            );
            let mut key = Vec::new();
            schema::push_event_key(&mut key, timestamp_ms, &event_id);
            let hash = gathered.hash(&key);
            let line = format!("{{\"line\":{number}}} ");
            let names = (&event_id[..], &user[..]);
            gathered.insert((&key, hash), timestamp_ms, names, line.len(), |bytes| {
                bytes.extend_from_slice(line.as_bytes());
            });
        }
        gathered
    }

    fn open(path: &Path, access: Access) -> Store {
        Store::open(path, access, &Tuning::default()).expect("it opens")
    }

    fn n_entries(store: &Store, family: &str) -> usize {
        let mut walk = store.walk(family, b"", Order::OldestFirst);
        let mut n_entries = 0;
        while walk.next_entry().expect("it can be read").is_some() {
            n_entries += 1;
        }
        n_entries
    }

    /// All events are there, and what was written with them, and nothing else.
    fn check(path: &Path, access: Access, n_events: usize) {
        let store = open(path, access);
        for family in [schema::EVENTS, schema::BY_ID, schema::BY_USER] {
            assert_eq!(n_entries(&store, family), n_events, "{family}");
        }
        let others = store.get(schema::META, b"others").expect("it can be read");
        assert_eq!(others.is_some(), n_events > 0);
        assert!(!store.has_unfinished_bulk().expect("it can be read"));
        assert!(!path.join(FOLDER).exists() || access == Access::Read);
    }

    fn others(store: &Store) -> WriteBatch {
        let mut writes = WriteBatch::default();
        writes.put_cf(store.family(schema::META), "others", "1");
        writes
    }

    #[test]
    fn what_a_crash_has_left_is_taken_in_by_whoever_opens_next() {
        for access in [Access::Read, Access::Write, Access::WriteExisting] {
            for n_taken in 0..=3 {
                let folder = tempfile::tempdir().expect("a folder");
                let store = open(folder.path(), Access::Write);
                let gathered = gathered(0..700);
                let begun = store.begin_bulk(&gathered, others(&store), true);
                drop(begun.expect("it is written"));
                let names = store.get(schema::META, schema::META_BULK.as_bytes());
                let names = names.expect("it can be read").expect("files are named");
                let names: Vec<Named> = serde_json::from_slice(&names).expect("they are readable");
                let mut options = IngestExternalFileOptions::default();
                options.set_move_files(true);
                for named in &names[..n_taken] {
                    store.take_in(named, &options).expect("it is taken in");
                }
                drop(store);
                check(folder.path(), access, 700);
                check(folder.path(), Access::Write, 700);
            }
        }
    }

    #[test]
    fn files_that_nobody_names_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path(), Access::Write);
        let files = [schema::EVENTS, schema::BY_ID, schema::BY_USER].map(|family| Named {
            family: family.to_owned(),
            file: format!("0-{family}.sst"),
        });
        fs::create_dir(folder.path().join(FOLDER)).expect("a folder");
        store
            .build(&gathered(0..100), &files, false)
            .expect("it is built");
        drop(store);
        check(folder.path(), Access::Write, 0);
    }

    /// The next write has other files, also when the last word on the one before it got lost.
    #[test]
    fn writes_follow_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        for numbers in [0..300, 300..600] {
            let store = open(folder.path(), Access::Write);
            for from in [numbers.start, numbers.start + 150] {
                let gathered = gathered(from..from + 150);
                (store.write_bulk(&gathered, others(&store), false)).expect("it is written");
            }
        }
        check(folder.path(), Access::Write, 600);
    }

    /// Neither who writes nor who copies notices that files are merged meanwhile.
    #[test]
    fn files_are_merged_beside_writes_and_copies() {
        const N_PARTS: usize = 80;
        const N_EVENTS: usize = 100;
        let folder = tempfile::tempdir().expect("a folder");
        let open_one = open(folder.path(), Access::Write);
        let store = &open_one;
        let n_files = || {
            let files = store.db.live_files().expect("it can be read");
            let names = files.iter().map(|file| &file.column_family_name);
            names.filter(|name| *name == schema::EVENTS).count()
        };
        let (running, ends) = channel::<()>();
        thread::scope(|scope| {
            let running = running;
            scope.spawn(move || {
                let is_over = || ends.try_recv() == Err(TryRecvError::Disconnected);
                while !is_over() {
                    store.merge_neighbours(&is_over).expect("it can be read");
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let mut n_most = 0;
            for part in 0..N_PARTS {
                let from = (part * 1_000) as i64;
                let gathered = gathered(from..from + N_EVENTS as i64);
                (store.write_bulk(&gathered, others(store), true)).expect("it is written");
                n_most = n_most.max(n_files());
                if part % 8 == 7 {
                    store.make_checkpoint().expect("it is copied");
                    let copy = folder.path().join(checkpoint::FOLDER);
                    check(&copy, Access::Write, (part + 1) * N_EVENTS);
                    store.clear_checkpoint();
                }
            }
            drop(running);
            assert!(n_most < N_PARTS, "nothing was merged: {n_most} files");
        });
        drop(open_one);
        check(folder.path(), Access::Write, N_PARTS * N_EVENTS);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path(), Access::Write);
        for (family, file) in [
            ("default", "../../x.sst"),
            ("nobody", "0.sst"),
            ("default", "/x"),
        ] {
            let (family, file) = (family.to_owned(), file.to_owned());
            let names = serde_json::to_vec(&[Named { family, file }]).expect("it is JSON");
            let meta = store.family(schema::META);
            store
                .db
                .put_cf(meta, schema::META_BULK, names)
                .expect("it is written");
            assert!(store.finish_bulk().is_err());
        }
    }
}
