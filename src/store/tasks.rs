//! Records of tasks that move between programs: read, and restored from where others have written them.
//! Neither happens while a checkpoint has been named and its file is not taken in yet.

use rocksdb::WriteBatch;

use super::Store;
use crate::engine::{TaskState, TaskStore};
use crate::io::position::{PartitionPosition, Position};
use crate::schema;

impl TaskStore for Store {
    fn task(&self, task: &str) -> anyhow::Result<TaskState> {
        let _gate = self.whole()?;
        self.view().task_state(task)
    }

    fn is_restoring(&self, task: &str) -> anyhow::Result<bool> {
        self.view().is_restoring(task)
    }

    fn each_record(
        &self,
        task: &str,
        each: &mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.snapshot()?.baselines(task, each)
    }

    fn begin_restore(&self, task: &str, is_whole: bool) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        writes.put_cf(meta, schema::restoring_key(task), b"");
        if is_whole {
            let (from, end) = (schema::task_prefix(task), schema::task_end(task));
            writes.delete_range_cf(self.family(schema::BASELINES), from, end);
        }
        let _gate = self.whole()?;
        self.write(writes, true)
    }

    fn restore(&self, records: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let baselines = self.family(schema::BASELINES);
        for (key, record) in records {
            writes.put_cf(baselines, key, record);
        }
        let _gate = self.whole()?;
        self.write(writes, false)
    }

    fn end_restore(
        &self,
        task: &str,
        position: &PartitionPosition,
        log_end: i64,
    ) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        let position = Position::Partition(position.clone());
        writes.put_cf(
            meta,
            schema::position_key(task),
            serde_json::to_vec(&position)?,
        );
        writes.put_cf(meta, schema::log_end_key(task), log_end.to_string());
        writes.delete_cf(meta, schema::restoring_key(task));
        let _gate = self.whole()?;
        self.write(writes, true)
    }

    fn put_log_end(&self, task: &str, log_end: i64) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        writes.put_cf(meta, schema::log_end_key(task), log_end.to_string());
        let _gate = self.whole()?;
        self.write(writes, true)
    }
}
