//! How far behind the ends of partitions a program is.

use prometheus::IntGaugeVec;

use super::Gauge;
use super::make::Maker;

pub struct Topics {
    lag: IntGaugeVec,
}

/// How far behind its end a partition is read here. The series goes with it.
pub struct Lag {
    gauge: Gauge,
    of_all: IntGaugeVec,
    place: (String, String),
}

impl Topics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            lag: maker.gauges(
                "streamguard_kafka_lag",
                "Messages in a partition that is read here which have not been read yet.",
                &["topic", "partition"],
            ),
        }
    }

    /// A partition is read here from now on.
    #[must_use]
    pub fn lag(&self, topic: &str, partition: i32) -> Lag {
        let place = (topic.to_owned(), partition.to_string());
        Lag {
            gauge: self.lag.with_label_values(&[&place.0, &place.1]),
            of_all: self.lag.clone(),
            place,
        }
    }
}

impl Lag {
    pub fn set(&self, n_messages: i64) {
        self.gauge.set(n_messages);
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        // It is gone already if somebody else has taken it away.
        let _ = self
            .of_all
            .remove_label_values(&[&self.place.0, &self.place.1]);
    }
}
