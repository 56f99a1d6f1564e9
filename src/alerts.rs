//! Tells targets of alerts. What waits is in the store, written with the events; a thread for each
//! target takes it from there, one after the other. So nobody waits for a target, one that is away costs
//! no memory, and a program that is killed goes on with whatever was not told.

mod file;
mod sender;
mod topic;
mod webhook;

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

pub use file::FileTarget;
pub use topic::TopicTarget;
pub use webhook::{Secrets, WebhookTarget};

use crate::io::dead_letter::DeadLetters;
use crate::metrics::Metrics;
use crate::query::Found;
use crate::record::text::hex;
use crate::report::{self, Level};
use crate::shutdown::Shutdown;
use crate::store::{Alerting, Bell, Opened, Outbox, Progress, Store};
use sender::{Sender, Sent};

/// How long alerts that wait at the end of a run are tried for; unless somebody has asked it to stop, how
/// long after the last that got through.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What a target is told.
pub struct Alert {
    /// Always the same for the same event, wherever it is stored: whoever is told twice can tell.
    pub id: String,
    pub timestamp_ms: i64,
    pub event_id: String,
    pub user: String,
    /// The event with all that stages have added, as one JSON object without a line end.
    pub line: Vec<u8>,
}

/// Why an alert is not where it should be.
#[derive(Debug)]
pub enum Failure {
    /// It will pass: the same again later, and not before that time if one is named.
    Trouble {
        why: String,
        retry_after: Option<Duration>,
    },
    /// The target has an objection to this very alert.
    Refused { why: String },
}

/// Who is told of alerts. They come in order; after a failure come those again that were not settled.
pub trait Target: Send {
    /// How many to hand over before they are settled.
    fn batch_max(&self) -> usize;

    /// Hands over an alert; it may still be on its way when this returns. At the end of a run there is a
    /// time after which it is of no use to wait.
    ///
    /// # Errors
    /// If it cannot be handed over. All of the batch count as not told then, unless they are settled.
    fn send(&mut self, alert: &Alert, deadline: Option<Instant>) -> Result<(), Failure>;

    /// Waits until the target has for good what was handed over.
    ///
    /// # Errors
    /// If it does not come to that.
    fn settle(&mut self) -> Result<(), Failure>;
}

/// A target by its name.
pub struct Named {
    /// What it is known by in the store. It holds no secret.
    pub key: String,
    /// What it is called in messages.
    pub shown: String,
    /// `file`, `kafka` or `webhook`.
    pub kind: &'static str,
    pub target: Box<dyn Target>,
}

/// How to tell.
pub struct Telling {
    /// The program's name, for messages.
    pub name: &'static str,
    pub quiet: bool,
    pub alerting: Alerting,
    /// Where alerts are kept that a target refuses.
    pub dead_letters: DeadLetters,
    /// Where it is counted what becomes of alerts, if anybody wants to know.
    pub metrics: Option<Arc<Metrics>>,
}

/// Threads that tell targets.
pub struct Alerts {
    telling: Telling,
    bell: Arc<Bell>,
    progress: Arc<Progress>,
    threads: Vec<(String, JoinHandle<Sent>)>,
}

impl Alert {
    /// The alert on an event that was found.
    fn of(found: &Found) -> Self {
        let view = found.block.view(&found.block.events[0]);
        let digest = Sha256::digest(&found.key);
        let mut line = Vec::new();
        found.push_line(&mut line);
        line.truncate(line.trim_ascii_end().len());
        Self {
            id: format!("alert_{}", hex(&digest[..16])),
            timestamp_ms: view.timestamp_ms,
            event_id: view.event_id.to_owned(),
            user: view.user.to_owned(),
            line,
        }
    }
}

impl Alerts {
    /// Begins to tell targets; what the writer needs to put alerts where they are found.
    ///
    /// # Errors
    /// If the store cannot be read or written, or threads cannot be started.
    pub fn start(
        store: &Arc<Store>,
        targets: Vec<Named>,
        telling: Telling,
    ) -> anyhow::Result<(Self, Outbox)> {
        let keys: Vec<String> = targets.iter().map(|target| target.key.clone()).collect();
        let Opened {
            outbox,
            bell,
            progress,
            dropped,
        } = store.open_outbox(telling.alerting, &keys)?;
        for target in dropped {
            let shown = shown_of(&target.target);
            let mut text = format!("{shown} is told of alerts no more");
            if target.n_waiting > 0 {
                write!(text, "; {} were waiting for it", target.n_waiting)?;
            }
            let level = if target.n_waiting > 0 {
                Level::Warning
            } else {
                Level::Info
            };
            report::tell(level, telling.name, &text, &[]);
        }
        let mut threads = Vec::new();
        for (place, target) in targets.into_iter().enumerate() {
            let shown = target.shown.clone();
            let sender = Sender::new(place, target, store, &bell, &progress, &telling);
            let thread = thread::Builder::new().name("alerts".to_owned());
            let thread = thread.spawn(move || sender.run());
            threads.push((shown, thread.context("cannot start a thread for alerts")?));
        }
        if let Some(metrics) = &telling.metrics {
            tell_waiting(metrics, (&bell, &progress), threads.len());
        }
        let alerts = Self {
            telling,
            bell,
            progress,
            threads,
        };
        Ok((alerts, outbox))
    }

    /// Lets what waits be told, as long as it gets through and some time more, and says what has become of
    /// it; whether everybody was told of everything.
    ///
    /// # Errors
    /// If a thread has panicked.
    pub fn end(self, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let is_patient = !shutdown.is_requested();
        // Clients of Kafka wait for brokers until they hear of this. A signal now ends the program at
        // once, which costs nothing: what waits is in the store.
        shutdown.request();
        self.bell.end_by(Instant::now() + END_TIMEOUT, is_patient);
        let mut is_all = true;
        for (place, (shown, thread)) in self.threads.into_iter().enumerate() {
            let sent = thread.join();
            let sent = sent.map_err(|_| anyhow::anyhow!("a thread for alerts panicked"))?;
            let n_waiting = self.bell.last() - self.progress.of(place);
            let is_whole = n_waiting == 0 && sent.n_refused == 0;
            is_all &= is_whole;
            if is_whole && self.telling.quiet {
                continue;
            }
            let mut text = format!("alerts to {shown}: sent {}", sent.n_sent);
            if sent.n_refused > 0 {
                write!(text, ", refused {}", sent.n_refused)?;
            }
            if sent.n_gone > 0 {
                write!(text, ", removed from the store before {}", sent.n_gone)?;
            }
            if n_waiting > 0 {
                write!(text, ", waiting {n_waiting}: they go out with the next run")?;
            }
            let level = if is_whole {
                Level::Info
            } else {
                Level::Warning
            };
            let fields = [
                ("target", shown.into()),
                ("sent", sent.n_sent.into()),
                ("refused", sent.n_refused.into()),
                ("waiting", n_waiting.into()),
            ];
            report::tell(level, self.telling.name, &text, &fields);
        }
        Ok(is_all)
    }
}

/// Lets those who read metrics know how many alerts wait.
fn tell_waiting(
    metrics: &Arc<Metrics>,
    (bell, progress): (&Arc<Bell>, &Arc<Progress>),
    n_targets: usize,
) {
    let of_metrics = Arc::downgrade(metrics);
    let (bell, progress) = (Arc::clone(bell), Arc::clone(progress));
    metrics.look(move || {
        let metrics = of_metrics.upgrade();
        if let Some(alerting) = metrics.as_ref().and_then(|it| it.alerting.as_ref()) {
            let n_waiting = |place| bell.last().saturating_sub(progress.of(place));
            let n_waiting: u64 = (0..n_targets).map(n_waiting).sum();
            alerting.pending.set(n_waiting as i64);
        }
    });
}

/// What separates the name of a target from what tells it from others of that name.
const KEY_MARK: &str = " #";

/// What a target is known by whose name is not all that there is to it; the rest may be secret.
fn key_of(shown: &str, secret: &str) -> String {
    let digest = Sha256::digest(secret);
    format!("{shown}{KEY_MARK}{}", hex(&digest[..8]))
}

/// The name in what a target is known by.
#[must_use]
pub fn shown_of(key: &str) -> &str {
    match key.rsplit_once(KEY_MARK) {
        Some((shown, _)) if key.starts_with(webhook::PREFIX) => shown,
        _ => key,
    }
}
