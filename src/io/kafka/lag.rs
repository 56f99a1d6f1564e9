//! How far behind the ends of its partitions a program is, for whoever reads metrics. Nobody is asked for
//! it: librdkafka knows where partitions end by what it has fetched last.

use rdkafka::consumer::Consumer as _;

use super::client::Tail;
use super::consumer::Subscribed;

impl Subscribed {
    /// Tells it of partitions, if anybody wants to know.
    pub(super) fn tell_lag(&mut self) {
        let metrics = self.subscription.metrics.as_ref();
        let Some(topics) = metrics.and_then(|metrics| metrics.topics.as_ref()) else {
            return;
        };
        for Tail {
            place,
            end,
            is_read,
        } in self.consumer.context().take_tails()
        {
            if let Some(partition) = self.partitions.get_mut(&place) {
                let lag = || topics.lag(&place.0, place.1);
                partition.lag.get_or_insert_with(lag);
                partition.tail = Some(if is_read { partition.position() } else { end });
            }
        }
        for partition in self.partitions.values() {
            if let (Some(lag), Some(tail)) = (&partition.lag, partition.tail) {
                lag.set((tail - partition.position()).max(0));
            }
        }
    }
}
