//! What tasks have learned: little of it goes the way of all writes; much of it, as in large checkpoints,
//! becomes a sorted file. On the way of all writes it would be there three times, in the write and in
//! memtables too.

use std::sync::RwLockWriteGuard;

use rocksdb::{DBCompressionType, WriteBatch};

use super::{BULK_BYTES_MIN, Store};
use crate::batch::Learned;
use crate::schema;

impl Store {
    /// Writes what tasks have learned, and in the same step what else there is to write, all of it or
    /// nothing.
    ///
    /// With `sync` it waits until all is on the disk.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(in crate::store) fn write_learned(
        &self,
        learned: &[Learned],
        mut others: WriteBatch,
        sync: bool,
    ) -> anyhow::Result<()> {
        let n_bytes: usize = learned.iter().map(Learned::n_bytes).sum();
        if n_bytes >= BULK_BYTES_MIN {
            return self.write_many_baselines(learned, others);
        }
        let family = self.family(schema::BASELINES);
        each_baseline(learned, |key, record| {
            others.put_cf(family, key, record);
            Ok(())
        })?;
        self.write(others, sync)
    }

    /// The same for much of it, which is always on the disk then.
    pub(super) fn write_many_baselines(
        &self,
        learned: &[Learned],
        others: WriteBatch,
    ) -> anyhow::Result<()> {
        let gate = self.begin_baselines(learned, others)?;
        self.finish_bulk()?;
        drop(gate);
        Ok(())
    }

    /// The same as far as a crash cannot take it back.
    pub(super) fn begin_baselines(
        &self,
        learned: &[Learned],
        others: WriteBatch,
    ) -> anyhow::Result<RwLockWriteGuard<'_, ()>> {
        let files = self.name_files([schema::BASELINES]);
        let [file] = &files;
        // As what is replaced before it is merged: the next checkpoint has most of them again.
        let packing = DBCompressionType::Lz4;
        let build = || self.build_file(file, packing, |put| each_baseline(learned, put));
        self.begin_bulk(&files, others, build)
    }
}

/// Calls `each` with keys and records, in the order of keys.
fn each_baseline(
    learned: &[Learned],
    mut each: impl FnMut(&[u8], &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let prefixes = learned.iter().map(|it| schema::task_prefix(&it.task));
    let mut of_tasks: Vec<_> = prefixes.zip(learned).collect();
    of_tasks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (mut key, learned) in of_tasks {
        let n_prefix = key.len();
        for (user, record) in learned.in_order() {
            key.truncate(n_prefix);
            key.extend_from_slice(user);
            each(&key, record)?;
        }
    }
    Ok(())
}
