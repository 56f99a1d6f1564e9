//! Has those events analysed that wait for it in a store: beside the writer, which never waits for it, or
//! alone. What waits is in the store, so a service that is away costs no memory, and a program that is
//! killed goes on with whatever has no analysis yet.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;

use super::{Analyst, Note, Notebook, Tally};
use crate::llm::Subject;
use crate::metrics::Metrics;
use crate::record::analysis::{AnalysisRecord, Outcome};
use crate::shutdown::Shutdown;
use crate::store::{Analysed, Notice, PendingEvent, Store};

/// Events that are looked at together, for each call that may be on its way.
const EVENTS_PER_CALL: usize = 4;
/// How long to wait when nothing gets an answer; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked at whether somebody has asked for the end.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The thread.
pub struct Follower {
    notice: Arc<Notice>,
    thread: JoinHandle<anyhow::Result<Followed>>,
}

/// What it has come to.
pub struct Followed {
    pub tally: Tally,
    /// Events that still wait.
    pub n_waiting: u64,
}

/// What has become of a look at what waits.
#[derive(Clone, Copy, Default)]
struct Looked {
    n_answered: usize,
    n_left: usize,
}

impl Follower {
    /// Starts; the writer is to give notice of new events.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        store: &Arc<Store>,
        analyst: Analyst,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Self, Arc<Notice>)> {
        let notice = Arc::new(Notice::default());
        let pursuit = Pursuit {
            store: Arc::clone(store),
            analyst,
            notice: Arc::clone(&notice),
            shutdown: shutdown.clone(),
        };
        let thread = thread::Builder::new().name("analysis".to_owned());
        let thread = thread
            .spawn(move || pursuit.run())
            .context("cannot start a thread for analyses")?;
        let follower = Self {
            notice: Arc::clone(&notice),
            thread,
        };
        Ok((follower, notice))
    }

    /// Lets those who read metrics know how many events of a store wait.
    pub fn report_to(store: &Arc<Store>, metrics: &Arc<Metrics>) {
        let (of_metrics, store) = (Arc::downgrade(metrics), Arc::clone(store));
        metrics.look_now_and_then(move || {
            let metrics = of_metrics.upgrade();
            let answers = metrics.as_ref().and_then(|it| it.answers.as_ref());
            // Who cannot read the store says so elsewhere.
            if let (Some(answers), Ok(n_pending)) = (answers, store.n_pending()) {
                answers.wait(n_pending);
            }
        });
    }

    /// Nothing new comes any more: what waits is analysed as far as answers come.
    ///
    /// # Errors
    /// If the store could not be read or written.
    pub fn end(self) -> anyhow::Result<Followed> {
        self.notice.end();
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the thread for analyses panicked"))?
    }
}

struct Pursuit {
    store: Arc<Store>,
    analyst: Analyst,
    notice: Arc<Notice>,
    shutdown: Shutdown,
}

impl Pursuit {
    fn run(self) -> anyhow::Result<Followed> {
        let n_together = self.analyst.config().concurrency * EVENTS_PER_CALL;
        let mut after = Vec::new();
        let mut round = Looked::default();
        let mut pause = PAUSE_MIN;
        while !self.shutdown.is_requested() {
            let is_over = self.notice.is_over();
            if !self.analyst.is_reachable() {
                // What waits goes on waiting with the next run.
                if is_over {
                    break;
                }
                self.notice.pause(LOOK_INTERVAL);
                continue;
            }
            let n_times = self.notice.n_times();
            let waiting = self.store.pending_after(&after, n_together)?;
            let Some(last) = waiting.last() else {
                let came_round = std::mem::take(&mut round);
                after.clear();
                if is_over && (came_round.n_left == 0 || came_round.n_answered == 0) {
                    break;
                }
                if came_round.n_left == 0 {
                    // With a look at the signal now and then.
                    self.notice.wait_after(n_times, LOOK_INTERVAL);
                }
                continue;
            };
            after.clone_from(&last.key);
            let looked = self.look(&waiting)?;
            round.n_answered += looked.n_answered;
            round.n_left += looked.n_left;
            if looked.n_answered > 0 {
                pause = PAUSE_MIN;
            } else if !is_over {
                // Others may be luckier, but not at once: limits have to pass, services to come back.
                self.pause(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Ok(Followed {
            tally: self.analyst.tally(),
            n_waiting: self.store.n_pending()?,
        })
    }

    fn pause(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() && !self.shutdown.is_requested() && !self.notice.is_over() {
            let step = left.min(LOOK_INTERVAL);
            self.notice.pause(step);
            left -= step;
        }
    }

    /// Asks about events, and keeps what comes of it.
    fn look(&self, waiting: &[PendingEvent]) -> anyhow::Result<Looked> {
        let redact = self.analyst.redact();
        let mut subjects = Vec::new();
        let mut asked = Vec::new();
        let mut unreadable = Vec::new();
        let mut looked = Looked::default();
        for event in waiting {
            let Some(line) = &event.line else {
                // It is being written.
                looked.n_left += 1;
                continue;
            };
            let (anomaly, context) = (event.anomaly.as_deref(), Some(&event.context[..]));
            match Subject::read(line, anomaly, context, redact) {
                Some(subject) => {
                    subjects.push(subject);
                    asked.push(event);
                }
                None => unreadable.push(event),
            }
        }
        let results = self.analyst.analyze(subjects);
        let answered = asked
            .iter()
            .zip(&results)
            .map(|(event, analysis)| Analysed {
                key: &event.key,
                record: analysis.outcome.is_final().then_some(&analysis.record[..]),
                anomaly: analysis.anomaly.as_deref(),
            });
        let invalid = AnalysisRecord::new(Outcome::Invalid).to_json();
        let unreadable = unreadable.iter().map(|event| Analysed {
            key: &event.key,
            record: Some(&invalid),
            anomaly: None,
        });
        let all: Vec<_> = answered.chain(unreadable).collect();
        let n_answered = all.iter().filter(|it| it.record.is_some()).count();
        looked.n_answered += n_answered;
        looked.n_left += all.len() - n_answered;
        self.store.keep_analyses(&all)?;
        Ok(looked)
    }
}

/// Notes in a store, so that they are where the events are.
pub struct StoreNotes {
    store: Arc<Store>,
    /// Names that have been written since the store was tidied.
    n_written: usize,
}

/// Notes that may be there besides those that count.
const NOTES_SPARE: usize = 1_024;

impl StoreNotes {
    /// What is noted in a store, and where more is noted.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open(store: &Arc<Store>) -> anyhow::Result<(Self, Vec<Note>)> {
        let notes = store.analysis_notes()?;
        let n_written = notes.len();
        // One that is not readable is as good as none: it is asked again.
        let notes = notes
            .iter()
            .filter_map(|note| serde_json::from_slice(note).ok());
        let notes = notes.collect();
        let notebook = Self {
            store: Arc::clone(store),
            n_written,
        };
        Ok((notebook, notes))
    }
}

fn name_of(note: &Note) -> &str {
    match note {
        Note::Answer { fingerprint, .. } => fingerprint,
        Note::Day(_) => "day",
    }
}

impl Notebook for StoreNotes {
    fn write(&mut self, note: &Note) -> anyhow::Result<()> {
        let json = serde_json::to_vec(note)?;
        self.n_written += usize::from(matches!(note, Note::Answer { .. }));
        self.store.put_analysis_note(name_of(note), &json)
    }

    fn tidy(
        &mut self,
        n_notes: usize,
        notes: &mut dyn Iterator<Item = Note>,
    ) -> anyhow::Result<()> {
        if self.n_written <= n_notes * 2 + NOTES_SPARE {
            return Ok(());
        }
        self.n_written = n_notes;
        let mut notes = notes.filter_map(|note| {
            let json = serde_json::to_vec(&note).ok()?;
            Some((name_of(&note).to_owned(), json))
        });
        self.store.replace_analysis_notes(&mut notes)
    }
}
