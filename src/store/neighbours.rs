//! Small sorted files that lie beside each other are merged. Events that come in order of time overlap with nothing that
//! is there, so RocksDB moves their files down as they are: 20,000 events a second would leave 60,000 files a day.

use rocksdb::{BottommostLevelCompaction, CompactOptions, LiveFile};

use super::{Store, read_error};
use crate::schema;

/// A file that is smaller is merged with others: a quarter of what files are to have.
const SMALL_BYTES: usize = 8 << 20;
/// Small files that lie beside each other and are merged at once; fewer are no burden.
const TOGETHER: usize = 16;
/// What may lie between the first and the last of them on all levels, since all of that is written again. It takes a few
/// seconds, and as much room on the disk.
const BYTES_MAX: usize = 2 * TOGETHER * SMALL_BYTES;

impl Store {
    /// Merges small files of all families, until none are left that lie beside each other, or it is over.
    ///
    /// # Errors
    /// If the list of files cannot be read.
    pub(super) fn merge_neighbours(&self, is_over: &dyn Fn() -> bool) -> anyhow::Result<()> {
        for name in schema::FAMILIES {
            let mut n_before = usize::MAX;
            while !is_over() {
                let files = self.db.live_files();
                let files = files.map_err(|error| read_error(&self.path, &error))?;
                let files: Vec<_> = files.iter().filter_map(|file| known(file, name)).collect();
                // What fails is tried again the next time, such as when there is room again.
                if files.len() >= n_before {
                    break;
                }
                n_before = files.len();
                let Some((start, end)) = together(&files) else {
                    break;
                };
                let mut options = CompactOptions::default();
                options.set_exclusive_manual_compaction(false);
                options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
                let family = self.family(name);
                self.db
                    .compact_range_cf_opt(family, Some(start), Some(end), &options);
            }
        }
        Ok(())
    }
}

/// A file of a family.
struct Known<'a> {
    level: i32,
    start: &'a [u8],
    end: &'a [u8],
    n_bytes: usize,
}

fn known<'a>(file: &'a LiveFile, family: &str) -> Option<Known<'a>> {
    (file.column_family_name == family).then_some(())?;
    Some(Known {
        level: file.level,
        start: file.start_key.as_deref()?,
        end: file.end_key.as_deref()?,
        n_bytes: file.size,
    })
}

/// The first key and the last one of small files that lie beside each other, and have little between them elsewhere.
fn together<'a>(files: &[Known<'a>]) -> Option<(&'a [u8], &'a [u8])> {
    // What is at the first level is not in order, and will be merged or moved.
    let mut in_order: Vec<_> = files.iter().filter(|file| file.level > 0).collect();
    in_order.sort_unstable_by_key(|file| (file.level, file.start));
    let is_small = |file: &Known<'_>| file.n_bytes < SMALL_BYTES;
    let runs = in_order.chunk_by(|a, b| a.level == b.level && is_small(a) && is_small(b));
    let mut parts = runs.flat_map(|run| run.chunks_exact(TOGETHER));
    let part = parts.find(|part| {
        let between = files
            .iter()
            .filter(|file| file.start <= part[TOGETHER - 1].end && file.end >= part[0].start);
        between.map(|file| file.n_bytes).sum::<usize>() <= BYTES_MAX
    })?;
    Some((part[0].start, part[TOGETHER - 1].end))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rocksdb::WriteBatch;

    use super::*;
    use crate::store::{Access, Order, Tuning};

    #[test]
    fn files_with_much_between_them_are_left_alone() {
        let names: Vec<_> = (0..40_u8).map(|number| [number]).collect();
        let of = |number: usize, level, n_bytes| Known {
            level,
            start: &names[number],
            end: &names[number],
            n_bytes,
        };
        let mut files: Vec<_> = (0..40).map(|number| of(number, 5, 1_000)).collect();
        let (first, next) = (
            (&names[0][..], &names[15][..]),
            (&names[16][..], &names[31][..]),
        );
        assert_eq!(together(&files), Some(first));
        // Large ones below the first of them, and then below the others, too.
        files.push(of(3, 6, BYTES_MAX));
        assert_eq!(together(&files), Some(next));
        files.push(of(20, 6, BYTES_MAX));
        assert_eq!(together(&files), None);
        files.truncate(15);
        assert_eq!(together(&files), None);
    }

    #[test]
    fn what_comes_in_order_does_not_stay_in_small_files() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path(), Access::Write, &Tuning::default())?;
        let n_files = || -> anyhow::Result<usize> {
            let files = store.db.live_files()?;
            let is_low =
                |file: &&LiveFile| file.level > 0 && file.column_family_name == schema::EVENTS;
            Ok(files.iter().filter(is_low).count())
        };
        for part in 0..80 {
            let mut writes = WriteBatch::default();
            for number in 0..20 {
                let mut key = Vec::new();
                schema::push_event_key(&mut key, part * 20 + number, "e");
                writes.put_cf(store.family(schema::EVENTS), key, [part as u8; 100]);
            }
            store.write(writes, false)?;
            store.flush()?;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while n_files()? < TOGETHER && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let n_small = n_files()?;
        assert!(n_small >= TOGETHER, "RocksDB merges them itself: {n_small}");
        store.merge_neighbours(&|| true)?;
        assert!(n_files()? >= n_small, "it was over before");
        store.merge_neighbours(&|| false)?;
        let n_left = n_files()?;
        assert!(n_left < TOGETHER, "{n_small} files, {n_left} afterwards");
        let mut walk = store.walk(schema::EVENTS, &[], Order::OldestFirst);
        let mut n_events = 0;
        while let Some((key, value)) = walk.next_entry()? {
            let at = schema::split_event_key(&key).map(|it| it.0);
            assert_eq!((at, value[0]), (Some(n_events), (n_events / 20) as u8));
            n_events += 1;
        }
        assert_eq!(n_events, 1_600);
        Ok(())
    }
}
