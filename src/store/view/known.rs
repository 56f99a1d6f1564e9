//! What values and walks mean: counters, ids, users with their baselines, positions.

use std::ops::ControlFlow;

use anyhow::{Context as _, ensure};

use super::{Order, View};
use crate::engine::TaskState;
use crate::io::position::{PartitionPosition, Position};
use crate::record::anomaly::Severity;
use crate::schema;
use crate::stage::EachUser;
use crate::store::{Counters, Walk};

/// A walk through the keys of events with an id.
pub struct IdWalk<'a> {
    walk: Walk<'a>,
    prefix: [u8; 8],
    event_id: String,
}

impl IdWalk<'_> {
    /// The next key, or none at the end. There need not be such an event: another id may have the same hash.
    ///
    /// # Errors
    /// If the store cannot be read on.
    pub fn next_key(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let entry = self.walk.next_entry()?;
        Ok(entry
            .filter(|(index_key, _)| index_key.starts_with(&self.prefix))
            .map(|(index_key, _)| {
                let timestamp_ms = schema::split_id_key(&index_key).unwrap_or(0);
                let mut key = Vec::new();
                schema::push_event_key(&mut key, timestamp_ms, &self.event_id);
                key
            }))
    }
}

impl View<'_> {
    /// What the store holds.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let mut counters = self.written_counters()?;
        self.add_raised(&mut counters)?;
        Ok(counters)
    }

    /// The same without what analyses have raised since: that is added to whatever the counters are.
    pub(in crate::store) fn written_counters(&self) -> anyhow::Result<Counters> {
        let counters = match self.value(schema::META, schema::META_COUNTERS.as_bytes())? {
            None => Counters::default(),
            Some(value) => serde_json::from_slice(&value).with_context(|| {
                let shown = self.path.display();
                format!("the counters of {shown} are damaged: run `sg-store verify --db {shown}`")
            })?,
        };
        Ok(counters)
    }

    /// Walks the keys of events with that id; more than one if it was used at several times.
    #[must_use]
    pub fn walk_id(&self, event_id: &str, order: Order) -> IdWalk<'_> {
        let prefix = schema::id_prefix(event_id);
        let walk = match order {
            Order::OldestFirst => self.walk(schema::BY_ID, &prefix, order),
            Order::NewestFirst => self.walk(schema::BY_ID, &schema::hash_end(prefix), order),
        };
        IdWalk {
            walk,
            prefix,
            event_id: event_id.to_owned(),
        }
    }

    /// The first of all event keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_event_key(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut walk = self.walk(schema::EVENTS, &[], Order::OldestFirst);
        Ok(walk.next_entry()?.map(|(key, _)| key))
    }

    /// The last of all event keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn last_event_key(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut walk = self.walk(schema::EVENTS, &[0xFF], Order::NewestFirst);
        Ok(walk.next_entry()?.map(|(key, _)| key))
    }

    /// What `sg-run` has learned of a user in a task, as the detector's record.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn baseline(&self, task: &str, user: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.value(schema::BASELINES, &schema::baseline_key(task, user))
    }

    /// The tasks that there are baselines of, that without a name among them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tasks(&self) -> anyhow::Result<Vec<String>> {
        let mut tasks = Vec::new();
        let mut from = Vec::new();
        loop {
            let mut walk = self.walk(schema::BASELINES, &from, Order::OldestFirst);
            let Some((key, _)) = walk.next_entry()? else {
                return Ok(tasks);
            };
            let (task, _) = schema::split_baseline_key(&key).context("a baseline has no name")?;
            let end = schema::task_end(task);
            ensure!(from < end, "a baseline has no name");
            from = end;
            tasks.push(task.to_owned());
        }
    }

    /// The detector whose baselines are kept, if any are.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn detector(&self) -> anyhow::Result<Option<String>> {
        if let Some(name) = self.value(schema::META, schema::META_DETECTOR.as_bytes())? {
            return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
        }
        let mut walk = self.walk(schema::BASELINES, &[], Order::OldestFirst);
        // There was one detector before there were names.
        Ok(walk.next_entry()?.map(|_| "classic".to_owned()))
    }

    /// Calls `each` with the name of every user of a task and the record; that of what all share has
    /// no name.
    ///
    /// # Errors
    /// If the store cannot be read, or as `each` says.
    pub fn baselines(
        &self,
        task: &str,
        mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.baselines_until(task, &mut |user, record| {
            each(user, record).map(ControlFlow::Continue)
        })
    }

    /// The same until `each` breaks off.
    pub(in crate::store) fn baselines_until(
        &self,
        task: &str,
        each: &mut EachUser<'_>,
    ) -> anyhow::Result<()> {
        let end = schema::task_end(task);
        let prefix = schema::task_prefix(task);
        let mut walk = self.walk(schema::BASELINES, &prefix, Order::OldestFirst);
        while let Some((key, record)) = walk.next_entry()?
            && key < end
        {
            let (_, user) = schema::split_baseline_key(&key).context("a baseline has no name")?;
            if each(user, &record)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How far the sources have been read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn positions(&self) -> anyhow::Result<Vec<(String, Position)>> {
        self.positions_under(schema::META_POSITION_PREFIX)
    }

    /// Positions by their sources, whose keys begin like this.
    pub(in crate::store) fn positions_under(
        &self,
        prefix: &str,
    ) -> anyhow::Result<Vec<(String, Position)>> {
        let prefix = prefix.as_bytes();
        let mut positions = Vec::new();
        let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()? {
            let Some(source) = key.strip_prefix(prefix) else {
                break;
            };
            let source = String::from_utf8(source.to_vec())?;
            let position = self.read_position(&source, &value)?;
            positions.push((source, position));
        }
        Ok(positions)
    }

    fn read_position(&self, source: &str, value: &[u8]) -> anyhow::Result<Position> {
        serde_json::from_slice(value).with_context(|| {
            let shown = self.path.display();
            format!("how far {source} was read is damaged in {shown}: restore it from a backup")
        })
    }

    /// Walks the anomalies of one severity between two times, both included.
    #[must_use]
    pub fn walk_severity(&self, severity: Severity, from_ms: i64, order: Order) -> Walk<'_> {
        let mut from = Vec::new();
        schema::push_severity_prefix(&mut from, severity, from_ms);
        if order == Order::NewestFirst {
            from.push(0xFF);
        }
        self.walk(schema::BY_SEVERITY, &from, order)
    }

    /// What is kept of a task; nothing, while records of it are being restored.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(in crate::store) fn task_state(&self, task: &str) -> anyhow::Result<TaskState> {
        if self.is_restoring(task)? {
            // Some of it is of another time than the rest.
            return Ok(TaskState::default());
        }
        let position = self.position_of_task(task)?;
        let log_end = self.value(schema::META, schema::log_end_key(task).as_bytes())?;
        let log_end = log_end.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
        Ok(TaskState { position, log_end })
    }

    fn position_of_task(&self, task: &str) -> anyhow::Result<Option<PartitionPosition>> {
        let value = self.value(schema::META, schema::position_key(task).as_bytes())?;
        Ok(match value {
            None => None,
            Some(value) => match self.read_position(task, &value)? {
                Position::Partition(position) => Some(position),
                Position::File(_) => None,
            },
        })
    }

    /// How far a task was read, if it is a partition that is whole here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn task_position(&self, task: &str) -> anyhow::Result<Option<PartitionPosition>> {
        Ok(self.task_state(task)?.position)
    }

    /// Whether records of a task are being restored, or were when the program ended.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn is_restoring(&self, task: &str) -> anyhow::Result<bool> {
        let key = schema::restoring_key(task);
        Ok(self.value(schema::META, key.as_bytes())?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Access, Store, Tuning};

    /// Whoever asked for the tasks came to the same key for ever.
    #[test]
    fn a_baseline_without_a_name_ends_a_walk_through_tasks() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Write, &Tuning::default());
        let store = store.expect("it opens");
        for task in ["", "kafka:t/3"] {
            store.put(schema::BASELINES, &schema::baseline_key(task, "u"), b"r");
        }
        let tasks = store.view().tasks().expect("they can be read");
        assert_eq!(tasks, ["", "kafka:t/3"]);
        store.put(schema::BASELINES, b"\xFF\xFFu", b"r");
        assert!(store.view().tasks().is_err());
    }

    #[test]
    fn a_position_that_cannot_be_is_told_with_its_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Write, &Tuning::default());
        let store = store.expect("it opens");
        let key = schema::position_key("kafka:t/3");
        let value = r#"{"cluster":"c","offset":9223372036854775808}"#;
        store.put(schema::META, key.as_bytes(), value.as_bytes());
        let view = store.view();
        let why = view.positions().expect_err("it is damaged");
        assert!(format!("{why:#}").contains("how far kafka:t/3 was read is damaged"));
        assert!(view.task_position("kafka:t/3").is_err());
    }
}
