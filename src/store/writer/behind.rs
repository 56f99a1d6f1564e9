//! Large writes, which are done behind the writer's back: while files are built, brought to the disk and
//! taken in, the next events are gathered. One such write is on its way at the most, and what the writer
//! asks the store, or writes to it, comes after that.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use rocksdb::WriteBatch;

use super::{Told, Writer};
use crate::store::gathered::Gathered;

/// A large write on its way.
pub(super) struct Behind {
    thread: JoinHandle<anyhow::Result<()>>,
    gathered: Arc<Gathered>,
}

impl Behind {
    /// Whether it holds an event.
    pub(super) fn holds(&self, key: &[u8], hash: u64) -> bool {
        self.gathered.find(key, hash).is_some()
    }

    /// Waits until it is done; what was gathered for it.
    fn join(self) -> anyhow::Result<Option<Gathered>> {
        let joined = self.thread.join();
        joined.unwrap_or_else(|_| anyhow::bail!("the thread that stores events panicked"))?;
        Ok(Arc::into_inner(self.gathered))
    }
}

impl Writer {
    /// Begins to write what was gathered, and what else there is to write; begins to gather anew.
    pub(super) fn write_behind(
        &mut self,
        writes: WriteBatch,
        are_newest: bool,
        told: Told,
    ) -> anyhow::Result<()> {
        self.settle()?;
        let next = self.spare.take().unwrap_or_else(|| self.gathered.another());
        let gathered = Arc::new(std::mem::replace(&mut self.gathered, next));
        let (store, events) = (Arc::clone(&self.store), Arc::clone(&gathered));
        let write = move || {
            store.write_bulk(&events, writes, are_newest)?;
            told.tell(&store, &events);
            Ok(())
        };
        let thread = thread::Builder::new().spawn(write);
        let thread = thread.context("cannot start a thread")?;
        self.behind = Some(Behind { thread, gathered });
        Ok(())
    }

    /// Waits until a write that is on its way is done: then the store holds all that was committed.
    ///
    /// # Errors
    /// If it has failed.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        if let Some(behind) = self.behind.take() {
            self.spare = behind.join()?;
            if let Some(spare) = &mut self.spare {
                spare.clear();
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// Whoever ends early must not end the process amid a write.
    fn drop(&mut self) {
        // That it has failed, too, is no news then.
        let _ = self.settle();
    }
}
