//! Has events analysed by a language model: within limits, once for events that are alike, and without
//! ever losing or lowering anything because of it. [`Analyst`] does it; the stages of `sg-analyze` and
//! whoever reads what is pending bring it the events.

pub mod batches;
mod breaker;
mod cache;
mod call;
mod file;
mod follow;
mod limits;
mod service;
mod stage;
mod tally;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::llm::fingerprint::{self, Asked};
use crate::llm::price::Prices;
use crate::llm::reply::Verdict;
use crate::llm::{Redact, Subject};
use crate::record::analysis::{AnalysisRecord, Outcome};
use crate::record::anomaly::{Severity, with_severity};
use crate::report::{say, warn};
use crate::shutdown::Shutdown;
use crate::time::uptime_ms;
use breaker::{Breaker, Turned};
use cache::Cache;
use limits::Spending;
use service::Service;

pub use cache::{ANSWERS_MAX, Note, Notebook};
pub use file::NoteFile;
pub use follow::{Followed, Follower, StoreNotes};
pub use limits::{Day, Limits};
pub use service::Place;
pub use stage::{Ask, Attach, Gate};
pub use tally::Tally;

/// How to ask, and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who says what is wrong with the service.
    pub name: &'static str,
    /// Says only what does not pass by itself.
    pub quiet: bool,
    pub place: Place,
    pub model: String,
    /// Asked once more about what the first one holds for high or critical.
    pub escalate_model: Option<String>,
    pub redact: Redact,
    /// For one try, from the look-up of the name to the end of the answer.
    pub timeout: Duration,
    /// Tries after the first one.
    pub n_retries: u32,
    /// Calls that are made at the same time.
    pub concurrency: usize,
    pub limits: Limits,
    pub prices: Prices,
    /// Failures in a row after which the service is left alone.
    pub breaker_failures: u32,
    /// How long.
    pub breaker_cooldown: Duration,
}

/// Severity that an event gets at least if somebody in it talks to the model.
const HOSTILE_SEVERITY: Severity = Severity::High;
/// How long calls go on after somebody has asked for the end.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What has come of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    pub outcome: Outcome,
    /// The analysis record, JSON.
    pub record: Vec<u8>,
    /// The anomaly record with a higher severity than before, if it was raised.
    pub anomaly: Option<Vec<u8>>,
    /// The anomaly's severity as it is now, if the event is one.
    pub severity: Option<Severity>,
}

/// Answers about events. It may be shared by threads.
pub struct Analyst {
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

/// A question that is on its way.
pub struct Ticket {
    subject: Arc<Subject>,
    fingerprint: String,
    slot: Arc<Slot>,
    provider: &'static str,
}

/// Where an answer will be.
#[derive(Default)]
struct Slot {
    answer: Mutex<Option<Answered>>,
    arrived: Condvar,
}

#[derive(Clone)]
struct Answered {
    outcome: Outcome,
    /// If there is an answer.
    verdict: Option<Arc<Verdict>>,
}

/// An event that waits for the answer to another one that is alike, or for its own.
struct Waiting {
    subject: Arc<Subject>,
    slot: Arc<Slot>,
}

struct Job {
    fingerprint: String,
    waiting: Waiting,
}

struct Shared {
    config: Config,
    service: Service,
    state: Mutex<State>,
    /// Wakes whoever waits between two tries.
    stopped: Condvar,
    shutdown: Shutdown,
}

struct State {
    cache: Cache,
    /// By fingerprint: one is asked about, and these wait for what comes of it.
    flights: HashMap<String, Vec<Waiting>>,
    spending: Spending,
    breaker: Breaker,
    tally: Tally,
    /// When calls end, if somebody has asked for the end.
    deadline: Option<Instant>,
    /// Sentences that were said once, and are not said again.
    is_told: Told,
}

#[derive(Default)]
struct Told {
    refusal: bool,
    notes: bool,
}

impl Analyst {
    /// Starts an analyst, who knows what `notes` say and writes on in the notebook.
    ///
    /// # Errors
    /// If there can be no requests or no threads.
    pub fn open(
        config: Config,
        notes: Vec<Note>,
        notebook: Option<Box<dyn Notebook>>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let cache = Cache::new(notes, notebook);
        let state = State {
            spending: Spending::new(config.limits, cache.day()),
            cache,
            flights: HashMap::new(),
            breaker: Breaker::new(
                config.breaker_failures,
                config.breaker_cooldown.as_millis() as i64,
            ),
            tally: Tally {
                micro_usd: config.prices.of(&config.model).map(|_| 0),
                ..Tally::default()
            },
            deadline: None,
            is_told: Told::default(),
        };
        // Small: back-pressure, not a buffer.
        let (jobs, received) = sync_channel(config.concurrency);
        let received = Arc::new(Mutex::new(received));
        let n_workers = config.concurrency;
        let shared = Arc::new(Shared {
            service: Service::open(config.place.clone())?,
            config,
            state: Mutex::new(state),
            stopped: Condvar::new(),
            shutdown: shutdown.clone(),
        });
        let start = |_| {
            let (shared, received) = (Arc::clone(&shared), Arc::clone(&received));
            let thread = thread::Builder::new().name("analyst".to_owned());
            thread.spawn(move || work(&shared, &received))
        };
        let workers: std::io::Result<Vec<_>> = (0..n_workers).map(start).collect();
        Ok(Self {
            workers: workers.context("cannot start threads that ask")?,
            jobs: Some(jobs),
            shared,
        })
    }

    /// How it asks.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What tells an event from those that have to be asked about on their own.
    #[must_use]
    pub fn fingerprint(&self, subject: &Subject) -> String {
        self.shared.fingerprint(subject)
    }

    /// Whether the answer is known.
    #[must_use]
    pub fn knows(&self, fingerprint: &str) -> bool {
        self.shared.lock().cache.get(fingerprint).is_some()
    }

    /// The body of the request that an event is asked about with.
    #[must_use]
    pub fn body(&self, subject: &Subject) -> Vec<u8> {
        let Config { place, model, .. } = &self.shared.config;
        place.provider.body(subject, model, place.is_vendor())
    }

    /// What is hidden from the service, for whoever makes subjects.
    #[must_use]
    pub fn redact(&self) -> Redact {
        self.shared.config.redact
    }

    /// Takes an event; waits while too many others do. Of events that are alike one is asked about.
    #[must_use]
    pub fn submit(&self, subject: Subject) -> Ticket {
        let fingerprint = self.shared.fingerprint(&subject);
        let waiting = Waiting {
            subject: Arc::new(subject),
            slot: Arc::default(),
        };
        let ticket = Ticket {
            subject: Arc::clone(&waiting.subject),
            fingerprint: fingerprint.clone(),
            slot: Arc::clone(&waiting.slot),
            provider: self.shared.config.place.provider.name(),
        };
        let mut state = self.shared.lock();
        state.tally.n_asked += 1;
        if let Some(verdict) = state.cache.get(&fingerprint) {
            drop(state);
            waiting.slot.put(Answered {
                outcome: Outcome::Cached,
                verdict: Some(verdict),
            });
            return ticket;
        }
        if let Some(flight) = state.flights.get_mut(&fingerprint) {
            flight.push(waiting);
            return ticket;
        }
        state.flights.insert(fingerprint.clone(), Vec::new());
        drop(state);
        let job = Job {
            fingerprint,
            waiting,
        };
        let jobs = self
            .jobs
            .as_ref()
            .expect("it is taken when this is dropped");
        if let Err(error) = jobs.send(job) {
            // All workers have panicked.
            let job = error.0;
            self.shared
                .land(&job.fingerprint, &job.waiting, &UNAVAILABLE);
        }
        ticket
    }

    /// Waits for what comes of an event.
    #[must_use]
    pub fn wait(&self, ticket: &Ticket) -> Analysis {
        let analysis = ticket.wait();
        self.shared.count(&ticket.subject, &analysis);
        analysis
    }

    /// Takes events and waits for all of them; what comes of them is in their order.
    #[must_use]
    pub fn analyze(&self, subjects: Vec<Subject>) -> Vec<Analysis> {
        let tickets: Vec<_> = subjects
            .into_iter()
            .map(|subject| self.submit(subject))
            .collect();
        tickets.iter().map(|ticket| self.wait(ticket)).collect()
    }

    /// What all has come to so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.lock().tally.clone()
    }

    /// Lets calls go on for so long, and no others begin after it: what waits then is unavailable.
    pub fn stop_within(&self, time: Duration) {
        self.shared.end_within(time);
    }

    /// Whether a call is let through now, or would only be turned away.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.shared.lock().breaker.is_passable(uptime_ms())
    }
}

impl Drop for Analyst {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // One that has panicked has said so.
            let _ = worker.join();
        }
    }
}

const UNAVAILABLE: Answered = Answered {
    outcome: Outcome::Unavailable,
    verdict: None,
};

/// A thread that asks.
fn work(shared: &Shared, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job {
            fingerprint,
            mut waiting,
        }) = job
        else {
            return;
        };
        loop {
            let ask = std::panic::AssertUnwindSafe(|| call::ask(shared, &waiting.subject));
            // Whoever waits must hear of something, and the call may have been one that was to tell
            // whether the service is back.
            let answered = std::panic::catch_unwind(ask).unwrap_or_else(|_| {
                shared.lock().breaker.failed(uptime_ms());
                UNAVAILABLE
            });
            match shared.land(&fingerprint, &waiting, &answered) {
                Some(next) => waiting = next,
                None => break,
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fingerprint(&self, subject: &Subject) -> String {
        let config = &self.config;
        let asked = Asked {
            provider: config.place.provider,
            model: &config.model,
            escalate_model: config.escalate_model.as_deref(),
            redact: config.redact,
        };
        fingerprint::of(subject, &asked)
    }

    fn count(&self, subject: &Subject, analysis: &Analysis) {
        let tally = &mut self.lock().tally;
        *tally.outcomes.entry(analysis.outcome).or_default() += 1;
        tally.n_hostile += u64::from(subject.is_hostile());
        tally.n_raised += u64::from(analysis.anomaly.is_some());
    }

    /// Gives out what has come of asking about an event. If that was about this one only, the next of
    /// those that wait has to be asked about.
    fn land(&self, fingerprint: &str, asked: &Waiting, answered: &Answered) -> Option<Waiting> {
        let mut state = self.lock();
        if let Some(verdict) = &answered.verdict {
            let kept = state.cache.put(fingerprint, verdict);
            self.tell_of_notes(&mut state, kept);
        }
        let is_for_all = answered.verdict.is_some() || !answered.outcome.is_final();
        let mut next = None;
        let others = if is_for_all {
            state.flights.remove(fingerprint).unwrap_or_default()
        } else {
            let flight = state.flights.entry(fingerprint.to_owned()).or_default();
            // In the order in which they have come.
            if flight.is_empty() {
                state.flights.remove(fingerprint);
            } else {
                next = Some(flight.remove(0));
            }
            Vec::new()
        };
        drop(state);
        asked.slot.put(answered.clone());
        let outcome = match answered.outcome {
            Outcome::Ok => Outcome::Cached,
            other => other,
        };
        for other in others {
            other.slot.put(Answered {
                outcome,
                verdict: answered.verdict.clone(),
            });
        }
        next
    }

    /// What cannot be kept is told once; answers are given all the same.
    fn tell_of_notes(&self, state: &mut State, kept: anyhow::Result<()>) {
        if let (Err(error), false) = (kept, state.is_told.notes) {
            state.is_told.notes = true;
            let text = format!("what is found is not kept: {error:#}");
            warn(self.config.name, &text);
        }
    }

    fn tell_of_breaker(&self, turned: Option<Turned>, why: &str) {
        let place = self.service.place.shown();
        match turned {
            None => {}
            Some(Turned::Opened) => {
                let seconds = self.config.breaker_cooldown.as_secs_f64();
                let text = format!("{place} is left alone for {seconds} s: {why}");
                warn(self.config.name, &text);
            }
            Some(Turned::Closed) if self.config.quiet => {}
            Some(Turned::Closed) => say(self.config.name, &format!("{place} answers again")),
        }
    }

    /// When calls have to end, if somebody has asked for the end.
    fn deadline(&self) -> Option<Instant> {
        if self.shutdown.is_requested() {
            self.end_within(DRAIN_TIME);
        }
        self.lock().deadline
    }

    fn end_within(&self, time: Duration) {
        let mut state = self.lock();
        let deadline = Instant::now() + time;
        state.deadline = Some(state.deadline.map_or(deadline, |known| known.min(deadline)));
        drop(state);
        self.stopped.notify_all();
    }
}

impl Slot {
    fn put(&self, answered: Answered) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        self.arrived.notify_all();
    }
}

impl Ticket {
    /// Whether there is an answer already.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let answer = self.slot.answer.lock();
        answer.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn wait(&self) -> Analysis {
        let mut answer = self
            .slot
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let answered = loop {
            if let Some(answered) = &*answer {
                break answered.clone();
            }
            let woken = self.slot.arrived.wait(answer);
            answer = woken.unwrap_or_else(PoisonError::into_inner);
        };
        conclude(&self.subject, &self.fingerprint, self.provider, &answered)
    }
}

/// What an answer, or none, comes to for an event.
fn conclude(subject: &Subject, fingerprint: &str, provider: &str, answered: &Answered) -> Analysis {
    let outcome = answered.outcome;
    let mut record = match &answered.verdict {
        Some(verdict) => verdict.record(outcome, subject, provider, fingerprint),
        None => AnalysisRecord::new(outcome),
    };
    record.injection.clone_from(&subject.hostile);
    let hostile = subject.is_hostile().then_some(HOSTILE_SEVERITY);
    let raised_to = record.severity.max(hostile);
    let mut severity = subject.severity();
    let mut anomaly = None;
    // Only ever up, whatever the model says.
    if let (Some((before, json)), Some(to)) = (&subject.anomaly, raised_to)
        && to > *before
        && let Some(raised) = with_severity(json, to)
    {
        record.raised_from = Some(*before);
        severity = Some(to);
        anomaly = Some(raised);
    }
    Analysis {
        outcome,
        record: record.to_json(),
        anomaly,
        severity,
    }
}
