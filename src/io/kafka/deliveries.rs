//! What becomes of messages that are sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::Ear;

/// Why messages were not delivered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot send to topic {topic}: {why}")]
pub(super) struct Undelivered {
    pub(super) topic: String,
    pub(super) why: String,
    /// It is a message that no broker will ever take.
    pub(super) is_message: bool,
}

/// Whether brokers refuse a message for what it is.
pub(super) fn is_about_message(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

/// An ear that also hears what became of messages.
pub(super) struct Deliveries {
    pub(super) ear: Ear,
    /// The offset behind the last one, for whoever sends to one partition.
    end: AtomicI64,
    /// Why a message was not delivered, and whether that was for what it is.
    failure: Mutex<Option<(String, bool)>>,
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
        Some(self.failure_and_kind()?.0)
    }

    /// The same, and whether that was for what the message is.
    pub(super) fn failure_and_kind(&self) -> Option<(String, bool)> {
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
                    failure.get_or_insert_with(|| {
                        let why = format!("{error} ({n_bytes} bytes)");
                        (why, is_about_message(error))
                    });
                }
            }
        }
    }
}
