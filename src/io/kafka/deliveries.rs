//! What becomes of messages that are sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::Ear;

/// An ear that also hears what became of messages.
pub(super) struct Deliveries {
    pub(super) ear: Ear,
    /// The offset behind the last one, for whoever sends to one partition.
    end: AtomicI64,
    /// Why a message was not delivered.
    failure: Mutex<Option<String>>,
}

impl Deliveries {
    pub(super) fn new(ear: Ear) -> Self {
        Self {
            ear,
            end: AtomicI64::new(0),
            failure: Mutex::default(),
        }
    }

    /// The offset behind the last message that was delivered, if all went to one partition.
    pub(super) fn end(&self) -> i64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Why a message was not delivered, if one was not.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().ok()?.clone()
    }

    /// What has failed will be sent again.
    pub(super) fn forgive(&self) {
        if let Ok(mut failure) = self.failure.lock() {
            *failure = None;
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.ear.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.ear.hear_all_is_well();
                self.end.fetch_max(message.offset() + 1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                if let Ok(mut failure) = self.failure.lock() {
                    let n_bytes = message.payload_len();
                    failure.get_or_insert_with(|| format!("{error} ({n_bytes} bytes)"));
                }
            }
        }
    }
}
