//! What follows when what partitions brought is kept: into the changelog, then to the group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::changelog::Changelog;
use super::client::Ear;
use super::partition_of;
use crate::batch::{Learned, Origin};
use crate::engine::{Keeper, Logged};

/// How long a commit is tried again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a consumer may take to leave its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Commits offsets to the group, for whoever watches its lag.
pub struct Committer {
    pub(super) consumer: Arc<BaseConsumer<Ear>>,
    pub(super) changelog: Option<Arc<Changelog>>,
    pub(super) has_group: bool,
}

/// Commits offsets and waits for the answer; tries again while the group is in change.
pub(super) fn commit(consumer: &BaseConsumer<Ear>, kept: &[(Arc<str>, i64)]) {
    let list = list_of(kept.iter().map(|(source, offset)| (source, *offset)));
    let start = Instant::now();
    // It is no loss if it does not come to be: what is kept is known elsewhere, or comes twice.
    while list.count() > 0
        && !consumer.context().is_in_trouble()
        && consumer.commit(&list, CommitMode::Sync).is_err()
        && start.elapsed() < COMMIT_TIMEOUT
    {
        thread::sleep(Duration::from_millis(50));
    }
}

fn list_of<'a>(ends: impl Iterator<Item = (&'a Arc<str>, i64)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (source, offset) in ends {
        if let Some((topic, partition)) = partition_of(source) {
            // Offsets of messages are valid ones.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
    }
    list
}

impl Keeper for Committer {
    fn keep(
        &mut self,
        learned: &[Learned],
        ends: &BTreeMap<Arc<str>, Origin>,
    ) -> anyhow::Result<Vec<(Arc<str>, Logged)>> {
        match &self.changelog {
            Some(changelog) => changelog.keep(learned, ends),
            None => Ok(Vec::new()),
        }
    }

    fn kept(&mut self, ends: &BTreeMap<Arc<str>, Origin>) {
        let list = list_of(ends.iter().map(|(source, end)| (source, end.offset as i64)));
        if self.has_group
            && list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            let text = format!("Kafka: offsets could not be committed: {error}");
            self.consumer.context().warn(&text);
        }
        // Committed first: partitions are given up once this is heard.
        for (source, end) in ends {
            self.consumer.context().hear_kept(source, end.offset as i64);
        }
    }

    /// Leaves the group now, so that others need not wait until it is found out.
    fn finish(&mut self) {
        if self.has_group
            && let Ok(assigned) = self.consumer.assignment()
        {
            // Others may have come further with what is no longer ours.
            let is_ours = |source: &str| {
                let place = partition_of(source);
                place.is_some_and(|(topic, it)| assigned.find_partition(topic, it).is_some())
            };
            let mut kept = self.consumer.context().all_kept();
            kept.retain(|(source, _)| is_ours(source));
            commit(&self.consumer, &kept);
        }
        self.consumer.context().close();
        let start = Instant::now();
        if self.consumer.close_queue().is_ok() {
            while !self.consumer.closed() && start.elapsed() < CLOSE_TIMEOUT {
                let _ = self.consumer.poll(Duration::from_millis(100));
            }
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.consumer.context().close();
    }
}
