//! Whoever has to know of checkpoints besides the sink, and what moves between programs with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{Batch, Learned, Origin};
use crate::io::position::PartitionPosition;

/// Whoever wants to know how far sources were read in what is kept, and may have to keep it too.
pub trait Keeper: Send {
    /// Keeps what tasks have learned, before the sink does; what it has come to for the sources that it
    /// keeps.
    ///
    /// # Errors
    /// An error ends the run.
    fn keep(
        &mut self,
        learned: &[Learned],
        ends: &BTreeMap<Arc<str>, Origin>,
    ) -> anyhow::Result<Vec<(Arc<str>, Logged)>>;

    /// All before these places is kept. Told again and again, and at the end.
    fn kept(&mut self, ends: &BTreeMap<Arc<str>, Origin>);

    /// Called once after the last [`Self::kept`].
    fn finish(&mut self);
}

/// How far each source was read in what a sink has taken since its last checkpoint.
#[derive(Default)]
pub struct Ends(BTreeMap<Arc<str>, Origin>);

impl Ends {
    /// Takes a batch into account. What is released without having been kept does not count.
    pub fn add(&mut self, batch: &Batch) {
        for block in &batch.blocks {
            let source = Arc::clone(&block.end.source);
            self.0.insert(source, block.next().clone());
        }
        if !batch.is_checkpoint {
            for task in &batch.released {
                self.0.remove(task);
            }
        }
    }

    /// Hands them over for a checkpoint, and begins anew.
    pub fn take(&mut self) -> BTreeMap<Arc<str>, Origin> {
        std::mem::take(&mut self.0)
    }
}

/// What has become of a task's checkpoint in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// The log holds it up to this offset.
    UpTo(i64),
    /// The task belongs to another program by now: the sink is not to keep it.
    Lost,
}

/// What is kept of a task here.
#[derive(Clone, Debug, Default)]
pub struct TaskState {
    pub position: Option<PartitionPosition>,
    /// How far its log was read or written, if all that is here is in it.
    pub log_end: Option<i64>,
}

/// The records of tasks that are kept here, for whoever moves them between programs.
pub trait TaskStore: Send + Sync {
    /// What is kept of a task; nothing, while records of it are being restored.
    ///
    /// # Errors
    /// If it cannot be read.
    fn task(&self, task: &str) -> anyhow::Result<TaskState>;

    /// Whether records of a task are being restored, or were when the program ended.
    ///
    /// # Errors
    /// If it cannot be read.
    fn is_restoring(&self, task: &str) -> anyhow::Result<bool>;

    /// Hands over a task's users with their records; that of what all share has no name.
    ///
    /// # Errors
    /// If they cannot be read, or as `each` says.
    fn each_record(
        &self,
        task: &str,
        each: &mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;

    /// Before records of a task are restored; all of them or those that have changed. Until it has
    /// ended, the task cannot be gone on with.
    ///
    /// # Errors
    /// If it cannot be written.
    fn begin_restore(&self, task: &str, is_whole: bool) -> anyhow::Result<()>;

    /// Puts records under their keys.
    ///
    /// # Errors
    /// If they cannot be written.
    fn restore(&self, records: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()>;

    /// All records are there.
    ///
    /// # Errors
    /// If it cannot be written.
    fn end_restore(
        &self,
        task: &str,
        position: &PartitionPosition,
        log_end: i64,
    ) -> anyhow::Result<()>;

    /// All that is here of a task is in its log.
    ///
    /// # Errors
    /// If it cannot be written.
    fn put_log_end(&self, task: &str, log_end: i64) -> anyhow::Result<()>;
}
