//! Where to begin in a partition, and where to end.

use std::time::Duration;

use anyhow::{bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Ear, reach};
use super::consumer::Subscribed;
use super::{Start, source_of};

impl Subscribed {
    /// Asks the cluster, for as long as it takes it to answer.
    pub(super) fn ask<T>(
        &self,
        ask: impl Fn(&BaseConsumer<Ear>, Duration) -> rdkafka::error::KafkaResult<T>,
    ) -> anyhow::Result<T> {
        let ear = self.consumer.context();
        let ask = |timeout| ask(&self.consumer, timeout);
        reach(ear, &self.cluster, &self.shutdown, || (), ask)
    }

    /// Where to begin in a partition, and where to end.
    pub(super) fn range_of(&self, place: &(String, i32)) -> anyhow::Result<(i64, Option<i64>)> {
        let (topic, partition) = (place.0.as_str(), place.1);
        let source = source_of(topic, partition);
        let ask = |consumer: &BaseConsumer<Ear>, timeout| {
            consumer.fetch_watermarks(topic, partition, timeout)
        };
        let (low, high) = self.ask(ask)?;
        let subscription = &self.subscription;
        let end = match subscription.start {
            Start::Time {
                until: Some(until), ..
            } => Some(self.offset_at(place, until)?.unwrap_or(high)),
            _ => subscription.stops_at_end.then_some(high),
        };
        // What this program has kept already it goes on behind, unless others may have come further.
        if let Some(kept) = self.consumer.context().kept_of(&source)
            && self.changelog.is_none()
            && !subscription.follows_group
        {
            return Ok((kept, end));
        }
        let of_task = match (&self.changelog, &subscription.store) {
            (Some(_), Some(store)) => store.task(&source)?.position,
            (None, Some(store)) => {
                ensure!(
                    !store.is_restoring(&source)?,
                    "{source} is not whole here, since a run ended while its baselines were being \
                     restored: give --changelog to go on with that, or use another database"
                );
                None
            }
            _ => None,
        };
        let kept = of_task
            .as_ref()
            .or_else(|| self.positions.of_partition(&source));
        if let Some(kept) = kept.filter(|_| !subscription.is_reset) {
            ensure!(
                kept.cluster == *self.cluster_id,
                "{source} was read from another cluster (of id {}, this one is {}): use another \
                 database, or --reset to begin in this cluster where -o says",
                kept.cluster,
                self.cluster_id
            );
            let next = kept.offset as i64;
            ensure!(
                next <= high,
                "{source} was read up to offset {next}, but ends at {high}: was the topic made anew? \
                 --reset begins where -o says"
            );
            if next < low {
                let n_lost = low - next;
                let ear = self.consumer.context();
                ear.warn(&format!(
                    "{source}: {n_lost} messages from offset {next} on were deleted before they were \
                     read: keep them for longer in Kafka"
                ));
            }
            return Ok((next.max(low), end));
        }
        if subscription.follows_group
            && subscription.group.is_some()
            && !subscription.is_reset
            && let Some(offset) = self.committed(place)?
        {
            return Ok((offset.clamp(low, high), end));
        }
        let start = match self.subscription.start {
            Start::Beginning | Start::Time { from: None, .. } => low,
            Start::End => high,
            Start::Offset(offset) => offset.clamp(low, high),
            Start::Last(n) => (high - n).max(low),
            Start::Stored => self
                .committed(place)?
                .map_or(low, |offset| offset.clamp(low, high)),
            Start::Time {
                from: Some(from), ..
            } => self.offset_at(place, from)?.unwrap_or(high),
        };
        Ok((start, end))
    }

    /// The first message of a time or later.
    fn offset_at(
        &self,
        (topic, partition): &(String, i32),
        at_ms: i64,
    ) -> anyhow::Result<Option<i64>> {
        let offsets = self.ask(|consumer, timeout| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(topic, *partition, Offset::Offset(at_ms))?;
            consumer.offsets_for_times(times, timeout)
        })?;
        Ok(offset_of(&offsets))
    }

    /// Where the group has committed.
    fn committed(&self, (topic, partition): &(String, i32)) -> anyhow::Result<Option<i64>> {
        if self.subscription.group.is_none() {
            bail!("-o stored needs a group (-G) that has stored something");
        }
        let offsets = self.ask(|consumer, timeout| {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, *partition);
            consumer.committed_offsets(list, timeout)
        })?;
        Ok(offset_of(&offsets))
    }
}

fn offset_of(list: &TopicPartitionList) -> Option<i64> {
    match list.elements().first()?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
