//! Users who are not in memory: checkpoints have brought their records into the store.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Store;
use crate::batch::Records;
use crate::schema;
use crate::stage::{Backing, EachUser, Shelf, Shelves};

impl Shelves for Arc<Store> {
    fn of_task(&self, task: &str) -> anyhow::Result<Shelf> {
        let backing = TaskBaselines {
            store: Arc::clone(self),
            task: task.to_owned(),
        };
        Ok(Shelf {
            backing: Arc::new(backing),
            is_backed: self.view().detector()?.is_some(),
            n_users: self.property(schema::BASELINES, "rocksdb.estimate-num-keys")?,
        })
    }
}

/// Users of a task who are not in memory: checkpoints have brought their records.
struct TaskBaselines {
    store: Arc<Store>,
    task: String,
}

impl Backing for TaskBaselines {
    fn get(&self, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.store.view().baseline(&self.task, user)
    }

    fn put(&self, _: &Records) -> anyhow::Result<()> {
        Ok(())
    }

    fn each(&self, each: &mut EachUser<'_>) -> anyhow::Result<()> {
        let task = &self.task;
        (self.store.view()).baselines_until(task, &mut |user, record| match user {
            schema::SHARED_BASELINE => Ok(ControlFlow::Continue(())),
            _ => each(user, record),
        })
    }

    fn advice(&self) -> &'static str {
        "restore the database from a backup, or export its events into a new one"
    }
}
