//! Small sorted files that lie beside each other are merged. Events that come in order of time overlap with nothing that
//! is there, so RocksDB moves their files down as they are: 20,000 events a second would leave 60,000 files a day.

use std::collections::BTreeMap;

use rocksdb::{BottommostLevelCompaction, CompactOptions, LiveFile};

use super::{Store, read_error};

/// A file that is smaller is merged with others: a quarter of what files are to have.
const SMALL_BYTES: usize = 8 << 20;
/// Small files that have to lie beside each other; fewer are no burden.
const TOGETHER_MIN: usize = 16;
/// Files that are merged at once, which takes a few seconds and as much room on the disk.
const TOGETHER_MAX: usize = 48;

impl Store {
    /// Merges small files of all families, until none are left that lie beside each other, or it is over.
    ///
    /// # Errors
    /// If the list of files cannot be read.
    pub(super) fn merge_neighbours(&self, is_over: &dyn Fn() -> bool) -> anyhow::Result<()> {
        let mut n_before = usize::MAX;
        while !is_over() {
            let files = self.db.live_files();
            let files = files.map_err(|error| read_error(&self.path, &error))?;
            // What fails is tried again the next time, such as when there is room again.
            if files.len() >= n_before {
                break;
            }
            n_before = files.len();
            let Some((family, start, end)) = together(files) else {
                break;
            };
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            let family = self.family(&family);
            self.db
                .compact_range_cf_opt(family, Some(start), Some(end), &options);
        }
        Ok(())
    }
}

/// The first small files that lie beside each other: their family, the first key and the last one.
fn together(files: Vec<LiveFile>) -> Option<(String, Vec<u8>, Vec<u8>)> {
    let mut levels: BTreeMap<(String, i32), Vec<_>> = BTreeMap::new();
    // What is at the first level is not in order, and will be merged or moved.
    for file in files.into_iter().filter(|file| file.level > 0) {
        if let (Some(start), Some(end)) = (file.start_key, file.end_key) {
            let level = levels.entry((file.column_family_name, file.level));
            level.or_default().push((start, end, file.size));
        }
    }
    levels.into_iter().find_map(|((family, _), mut files)| {
        files.sort_unstable();
        let mut runs = files.chunk_by(|a, b| a.2 < SMALL_BYTES && b.2 < SMALL_BYTES);
        let run = runs.find(|run| run.len() >= TOGETHER_MIN)?;
        let run = &run[..run.len().min(TOGETHER_MAX)];
        let (first, last) = (run.first()?, run.last()?);
        Some((family, first.0.clone(), last.1.clone()))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rocksdb::WriteBatch;

    use super::*;
    use crate::schema;
    use crate::store::{Access, Order, Tuning};

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
        while n_files()? < TOGETHER_MIN && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let n_small = n_files()?;
        assert!(
            n_small >= TOGETHER_MIN,
            "RocksDB merges them itself: {n_small}"
        );
        store.merge_neighbours(&|| true)?;
        assert!(n_files()? >= n_small, "it was over before");
        store.merge_neighbours(&|| false)?;
        let n_left = n_files()?;
        assert!(
            n_left < TOGETHER_MIN,
            "{n_small} files, {n_left} afterwards"
        );
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
