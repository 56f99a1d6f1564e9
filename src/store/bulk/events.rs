//! Many new events, as sorted files of them and of their indexes.

use std::sync::RwLockWriteGuard;
use std::thread;

use prefetch_index::prefetch_index;
use rocksdb::{DBCompressionType, WriteBatch};

use super::{Named, Store};
use crate::schema;
use crate::store::gathered::Gathered;

/// The families that events are written to.
pub(super) const FAMILIES: [&str; 3] = [schema::EVENTS, schema::BY_ID, schema::BY_USER];
/// Entries of an index between those that are written and those that are fetched.
const PREFETCH_DISTANCE: usize = 16;

impl Store {
    /// Writes events, and in the same step what else there is to write, all of it or nothing.
    ///
    /// `are_newest` says that all events are behind those of the store: then nothing will be merged with
    /// their file, and it is packed for good.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(in crate::store) fn write_bulk(
        &self,
        gathered: &Gathered,
        others: WriteBatch,
        are_newest: bool,
    ) -> anyhow::Result<()> {
        let gate = self.begin_events(gathered, others, are_newest)?;
        self.finish_bulk()?;
        drop(gate);
        Ok(())
    }

    /// The same as far as a crash cannot take it back.
    pub(super) fn begin_events(
        &self,
        gathered: &Gathered,
        others: WriteBatch,
        are_newest: bool,
    ) -> anyhow::Result<RwLockWriteGuard<'_, ()>> {
        let files = self.name_files(FAMILIES);
        let build = || self.build_events(gathered, &files, are_newest);
        self.begin_bulk(&files, others, build)
    }

    pub(super) fn build_events(
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
}
