//! The thread that tells one target: takes alerts from the store, hands them over, keeps how far that
//! is. What fails is tried again, for ever unless it is the alert that the target objects to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Alert, END_TIMEOUT, Failure, Named, Telling};
use crate::io::dead_letter::DeadLetters;
use crate::metrics::{Alerting, Metrics};
use crate::query;
use crate::record::StageField;
use crate::record::{Code, Reason};
use crate::report::{say, warn};
use crate::store::{Bell, Progress, Store};

/// How long after a failure it is tried again; twice as long after each that follows.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Share of it that chance may take off.
const BY_CHANCE: f64 = 0.5;
/// How long a target may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// How often an alert is tried that the target objects to.
const N_TRIES_REFUSED: u32 = 3;
/// How many fewer alerts are handed over together after some were refused, and after how many times in a
/// row that went well twice as many are tried again.
const BATCH_DIVISOR: usize = 4;
const N_BATCHES_GOOD: u32 = 16;
/// Different things that are told of one outage.
const N_TOLD: usize = 8;
/// How long to wait for a line that is being kept among the dead letters.
const LETTER_INTERVAL: Duration = Duration::from_millis(100);

/// What has become of the alerts of a target.
#[expect(clippy::struct_field_names, reason = "counts are named so")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) n_sent: u64,
    pub(super) n_refused: u64,
    /// Of events that have gone from the store.
    pub(super) n_gone: u64,
}

pub(super) struct Sender {
    /// Which target it is.
    place: usize,
    named: Named,
    store: Arc<Store>,
    bell: Arc<Bell>,
    progress: Arc<Progress>,
    name: &'static str,
    quiet: bool,
    dead_letters: DeadLetters,
    metrics: Option<Arc<Metrics>>,
    sent: Sent,
    /// When it has got through last.
    last_success: Instant,
    outage: Option<Outage>,
    /// Alerts that are handed over together. Fewer after some were refused together, since brokers count
    /// the bytes of all of them; more again as time goes by.
    batch_max: usize,
    /// How often in a row that has gone well.
    n_batches: u32,
    /// How often the next alert was refused.
    n_refusals: u32,
}

/// What is going on while nothing gets through.
#[derive(Default)]
struct Outage {
    n_tries: u32,
    told: Vec<String>,
}

/// How a try ended that did not succeed.
struct Failed {
    failure: Failure,
    /// The alert that it was, with its number, unless it may have been one of several.
    alert: Option<Box<(u64, Alert)>>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            alert: None,
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        let why = format!("{error:#}");
        Self::from(Failure::Trouble {
            why,
            retry_after: None,
        })
    }
}

impl Sender {
    pub(super) fn new(
        place: usize,
        named: Named,
        store: &Arc<Store>,
        bell: &Arc<Bell>,
        progress: &Arc<Progress>,
        telling: &Telling,
    ) -> Self {
        Self {
            place,
            batch_max: named.target.batch_max(),
            named,
            store: Arc::clone(store),
            bell: Arc::clone(bell),
            progress: Arc::clone(progress),
            name: telling.name,
            quiet: telling.quiet,
            dead_letters: telling.dead_letters.clone(),
            metrics: telling.metrics.clone(),
            sent: Sent::default(),
            last_success: Instant::now(),
            outage: None,
            n_batches: 0,
            n_refusals: 0,
        }
    }

    /// Tells until no more come, and all are told or there is no time left.
    pub(super) fn run(mut self) -> Sent {
        while self.bell.wait_after(self.progress.of(self.place)) {
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let goes_on = match self.tell_some(deadline) {
                Ok(()) => {
                    self.all_is_well();
                    true
                }
                Err(failed) => self.fail(failed),
            };
            if !goes_on {
                break;
            }
        }
        self.sent
    }

    /// Hands over the next alerts. After a failure one at a time: then it is clear which one it is.
    fn tell_some(&mut self, deadline: Option<Instant>) -> Result<(), Failed> {
        let n_max = match self.outage {
            None => self.batch_max,
            Some(_) => 1,
        };
        let mut sent = self.sent;
        let mut last = None;
        for (number, key) in (self.progress).next_alerts(self.place, self.bell.last(), n_max)? {
            last = Some(number);
            let Some(mut found) = query::find(&self.store.view(), key)? else {
                sent.n_gone += 1;
                continue;
            };
            // It says nothing to whoever is told.
            found.block.set_stage_value(0, StageField::Embedding, b"");
            let alert = Alert::of(&found);
            let target = &mut self.named.target;
            let mut handed_over = target.send(&alert, deadline);
            if n_max == 1 {
                handed_over = handed_over.and_then(|()| target.settle());
            }
            if let Err(failure) = handed_over {
                let alert = (n_max == 1).then(|| Box::new((number, alert)));
                return Err(Failed { failure, alert });
            }
            sent.n_sent += 1;
        }
        if n_max > 1 {
            self.named.target.settle()?;
        }
        let n_sent = sent.n_sent - self.sent.n_sent;
        self.count(|alerting, kind| alerting.deliver(kind, n_sent));
        self.sent = sent;
        self.n_batches += 1;
        if self.n_batches.is_multiple_of(N_BATCHES_GOOD) {
            self.batch_max = (self.batch_max * 2).min(self.named.target.batch_max());
        }
        match last {
            Some(last) => Ok(self.pass(last)?),
            None => Ok(()),
        }
    }

    fn pass(&mut self, number: u64) -> anyhow::Result<()> {
        self.n_refusals = 0;
        self.last_success = Instant::now();
        self.progress.pass(self.place, number)
    }

    /// What to do after a failure; false if there is no time for another try.
    fn fail(&mut self, failed: Failed) -> bool {
        self.count(Alerting::fail);
        let (why, retry_after) = match (failed.failure, failed.alert) {
            (Failure::Trouble { why, retry_after }, _) => (why, retry_after),
            (Failure::Refused { .. }, None) => {
                self.batch_max = (self.batch_max / BATCH_DIVISOR).max(1);
                self.n_batches = 0;
                return true;
            }
            (Failure::Refused { why }, Some(alert)) => {
                let (number, alert) = *alert;
                self.n_refusals += 1;
                if self.n_refusals >= N_TRIES_REFUSED {
                    return self.put_aside(number, &alert, &why);
                }
                (why, None)
            }
        };
        self.tell_trouble(&why);
        let outage = self.outage.get_or_insert_default();
        outage.n_tries += 1;
        let backoff = backoff(outage.n_tries);
        match retry_after.map(|time| time.min(RETRY_AFTER_MAX)) {
            Some(time) if time > backoff => self.wait(time, true),
            _ => self.wait(backoff, false),
        }
    }

    /// Goes on behind an alert that the target will not have.
    fn put_aside(&mut self, number: u64, alert: &Alert, why: &str) -> bool {
        let shown = &self.named.shown;
        let reason = Reason::of_line(Code::AlertRefused, format!("{shown}: {why}"));
        loop {
            match (self.dead_letters).put_aside(shown, number, &reason, &alert.line) {
                Ok(true) => break,
                Ok(false) if self.deadline().is_some() => return false,
                Ok(false) => self.bell.pause(LETTER_INTERVAL),
                Err(error) => {
                    self.tell_trouble(&format!("{error:#}"));
                    return self.wait(BACKOFF_MAX, false);
                }
            }
        }
        self.sent.n_refused += 1;
        self.count(Alerting::refuse);
        if let Err(error) = self.pass(number) {
            self.tell_trouble(&format!("{error:#}"));
        }
        let text = format!(
            "alerts to {}: the one on event {} is refused ({why}), and put aside",
            self.named.shown, alert.event_id
        );
        warn(self.name, &text);
        true
    }

    /// When there is no use in going on, if no more come.
    fn deadline(&self) -> Option<Instant> {
        self.bell.deadline(self.last_success + END_TIMEOUT)
    }

    /// Waits before another try; false if there is no time for one. When no more come, a wait that
    /// nobody has asked for is over, for a last chance.
    fn wait(&mut self, time: Duration, is_asked_for: bool) -> bool {
        let until = Instant::now() + time;
        let was_ending = self.deadline().is_some();
        loop {
            let now = Instant::now();
            if now >= until {
                return true;
            }
            match self.deadline() {
                Some(_) if !was_ending && !is_asked_for => {
                    if let Some(outage) = &mut self.outage {
                        outage.n_tries = 0;
                    }
                    return true;
                }
                Some(deadline) if until > deadline => return false,
                _ => self.bell.pause(until - now),
            }
        }
    }

    /// Tells what is wrong, each thing once in an outage.
    fn tell_trouble(&mut self, why: &str) {
        let outage = self.outage.get_or_insert_default();
        if outage.told.len() < N_TOLD && !outage.told.iter().any(|told| told == why) {
            outage.told.push(why.to_owned());
            let text = format!("alerts to {}: {why}; trying again", self.named.shown);
            warn(self.name, &text);
        }
    }

    fn all_is_well(&mut self) {
        if self.outage.take().is_some() {
            let text = format!("alerts to {}: they get through again", self.named.shown);
            if !self.quiet {
                say(self.name, &text);
            }
        }
    }

    fn count(&self, count: impl FnOnce(&Alerting, &str)) {
        let metrics = self.metrics.as_ref();
        if let Some(alerting) = metrics.and_then(|metrics| metrics.alerting.as_ref()) {
            count(alerting, self.named.kind);
        }
    }
}

fn backoff(n_tries: u32) -> Duration {
    crate::io::backoff::backoff(n_tries, (BACKOFF_MIN, BACKOFF_MAX), BY_CHANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute() {
        for (n_tries, max_ms) in [
            (1, 500),
            (2, 1_000),
            (7, 32_000),
            (8, 60_000),
            (1_000, 60_000),
        ] {
            let time = backoff(n_tries);
            let max = Duration::from_millis(max_ms);
            assert!(max / 2 <= time && time <= max, "{n_tries}: {time:?}");
        }
    }
}
