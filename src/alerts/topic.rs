//! Alerts to a topic: a message each under its user's name, told once all replicas have it.

use std::time::Instant;

use super::{Alert, Failure, Named, Target};
use crate::io::kafka::{Producer, is_of_message};

/// Alerts that travel together, at the most.
const BATCH_MAX: usize = 256;

type Open = Box<dyn Fn() -> anyhow::Result<Producer> + Send>;

/// Sends to a topic.
pub struct TopicTarget {
    open: Open,
    /// None after an error that a producer does not get over.
    producer: Option<Producer>,
}

impl TopicTarget {
    /// For a topic that a producer can be opened for.
    ///
    /// # Errors
    /// If it cannot.
    pub fn open(topic: &str, open: Open) -> anyhow::Result<Named> {
        let producer = Some(open()?);
        let shown = format!("kafka:{topic}");
        Ok(Named {
            key: shown.clone(),
            shown,
            kind: "kafka",
            target: Box::new(Self { open, producer }),
        })
    }

    fn send_message(&mut self, alert: &Alert) -> anyhow::Result<()> {
        if self.producer.is_none() {
            self.producer = Some((self.open)()?);
        }
        let Some(producer) = &self.producer else {
            return Ok(());
        };
        producer.send(Some(&alert.user), &alert.line)
    }

    fn failed(&mut self, error: &anyhow::Error) -> Failure {
        let why = format!("{error:#}");
        let has_forgiven = |producer: &Producer| producer.forgive().is_ok();
        if is_of_message(error) && self.producer.as_ref().is_some_and(has_forgiven) {
            return Failure::Refused { why };
        }
        self.producer = None;
        Failure::Trouble {
            why,
            retry_after: None,
        }
    }
}

impl Target for TopicTarget {
    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn send(&mut self, alert: &Alert, _: Option<Instant>) -> Result<(), Failure> {
        let sent = self.send_message(alert);
        sent.map_err(|error| self.failed(&error))
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let settled = self.producer.as_ref().map_or(Ok(()), Producer::flush);
        settled.map_err(|error| self.failed(&error))
    }
}
