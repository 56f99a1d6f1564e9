//! Analysts' verdicts in the store: each under its event's key, written together with the baselines
//! that it corrects, gone with its event.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use rocksdb::WriteBatch;

use super::admin::{Verified, parse_event, show};
use super::{Order, Store, View, Walk};
use crate::record::feedback::Feedback;
use crate::schema;

impl Store {
    /// Keeps verdicts by event key and baselines by task and user, all in one write.
    ///
    /// # Errors
    /// If the store cannot be written; nothing has changed then.
    pub fn put_feedback(
        &self,
        given: &[(Vec<u8>, Feedback)],
        baselines: &BTreeMap<(String, String), Vec<u8>>,
    ) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        for (event_key, feedback) in given {
            let key = schema::feedback_key(event_key);
            writes.put_cf(
                self.family(schema::META),
                key,
                serde_json::to_vec(feedback)?,
            );
        }
        for ((task, user), record) in baselines {
            let key = schema::baseline_key(task, user);
            writes.put_cf(self.family(schema::BASELINES), key, record);
        }
        self.write(writes, true)
    }

    /// Every verdict must be readable, and speak of the event that it is kept for.
    pub(super) fn verify_feedback(&self, verified: &mut Verified) -> anyhow::Result<()> {
        let mut walk = self.walk(schema::META, &schema::feedback_key(b""), Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()? {
            let Some(key) = schema::split_feedback_key(&key) else {
                break;
            };
            let Ok(feedback) = serde_json::from_slice::<Feedback>(&value) else {
                verified.find(format!("{}: has a verdict that is not valid", show(key)));
                continue;
            };
            let Some(event) = self.get(schema::EVENTS, key)? else {
                let shown = show(key);
                verified.find(format!(
                    "{shown}: has a verdict, but there is no such event"
                ));
                continue;
            };
            let block = parse_event(event);
            let is_of_event = block.events.first().is_some_and(|event| {
                let view = block.view(event);
                (view.timestamp_ms, view.event_id, view.user)
                    == (feedback.timestamp, &feedback.event_id, &feedback.user)
            });
            if !is_of_event {
                let shown = show(key);
                verified.find(format!("{shown}: has a verdict on another event"));
            }
        }
        Ok(())
    }

    /// Takes out the verdicts on events up to a key: they sort as the events do.
    pub(super) fn prune_feedback(
        &self,
        last_event_key: &[u8],
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let last = schema::feedback_key(last_event_key);
        let mut walk = self.walk(schema::META, &schema::feedback_key(b""), Order::OldestFirst);
        while let Some((key, _)) = walk.next_entry()?
            && key <= last
        {
            writes.delete_cf(self.family(schema::META), key);
        }
        Ok(())
    }
}

impl View<'_> {
    /// The verdict on the event with that key.
    ///
    /// # Errors
    /// If the store cannot be read, or the verdict is damaged.
    pub fn feedback(&self, event_key: &[u8]) -> anyhow::Result<Option<Feedback>> {
        let value = self.value(schema::META, &schema::feedback_key(event_key))?;
        value
            .map(|value| read_feedback(self.path, &value))
            .transpose()
    }

    /// Walks the verdicts on events up to a time, the newest event first.
    #[must_use]
    pub fn walk_feedback(&self, until_ms: i64) -> FeedbackWalk<'_> {
        let after = schema::time_prefix(until_ms.saturating_add(1));
        let from = schema::feedback_key(&after);
        FeedbackWalk {
            path: self.path,
            walk: self.walk(schema::META, &from, Order::NewestFirst),
        }
    }
}

fn read_feedback(path: &Path, value: &[u8]) -> anyhow::Result<Feedback> {
    serde_json::from_slice(value).with_context(|| {
        let shown = path.display();
        format!("a verdict in {shown} is damaged: run `sg-store verify --db {shown}`")
    })
}

/// A walk through verdicts.
pub struct FeedbackWalk<'a> {
    path: &'a Path,
    walk: Walk<'a>,
}

impl FeedbackWalk<'_> {
    /// The next verdict, or none at the end.
    ///
    /// # Errors
    /// If the store cannot be read on, or a verdict is damaged.
    pub fn next_feedback(&mut self) -> anyhow::Result<Option<Feedback>> {
        match self.walk.next_entry()? {
            Some((key, value)) if schema::split_feedback_key(&key).is_some() => {
                read_feedback(self.path, &value).map(Some)
            }
            _ => Ok(None),
        }
    }
}
