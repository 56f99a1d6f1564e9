//! Answers by fingerprint, as many as there is room for, and where they outlive the program.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::Day;
use crate::llm::reply::Verdict;

/// Answers that are kept. Each takes some 2 KiB.
pub const ANSWERS_MAX: usize = 16_384;

/// Something to be known again after a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// An answer to all events of a fingerprint. A later one replaces it.
    Answer {
        fingerprint: String,
        verdict: Verdict,
    },
    /// What a day has come to so far. A later one replaces it.
    Day(Day),
}

/// Where notes are kept. Notes that were written are there for the next run, also after a kill.
pub trait Notebook: Send {
    /// Writes a note behind all others.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn write(&mut self, note: &Note) -> anyhow::Result<()>;

    /// Called after each note. `notes` gives those that still count; all others may be forgotten.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn tidy(&mut self, n_notes: usize, notes: &mut dyn Iterator<Item = Note>)
    -> anyhow::Result<()>;
}

/// What is known.
pub(super) struct Cache {
    verdicts: HashMap<String, Arc<Verdict>>,
    /// The oldest first.
    order: VecDeque<String>,
    day: Day,
    notebook: Option<Box<dyn Notebook>>,
}

impl Cache {
    pub(super) fn new(notes: Vec<Note>, notebook: Option<Box<dyn Notebook>>) -> Self {
        let mut cache = Self {
            verdicts: HashMap::new(),
            order: VecDeque::new(),
            day: Day::default(),
            notebook,
        };
        for note in notes {
            match note {
                Note::Answer {
                    fingerprint,
                    verdict,
                } => cache.insert(fingerprint, Arc::new(verdict)),
                Note::Day(day) => cache.day = day,
            }
        }
        cache
    }

    pub(super) fn day(&self) -> Day {
        self.day
    }

    pub(super) fn get(&self, fingerprint: &str) -> Option<Arc<Verdict>> {
        self.verdicts.get(fingerprint).cloned()
    }

    fn insert(&mut self, fingerprint: String, verdict: Arc<Verdict>) {
        if self.verdicts.insert(fingerprint.clone(), verdict).is_none() {
            self.order.push_back(fingerprint);
        }
        while self.order.len() > ANSWERS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.verdicts.remove(&oldest);
            }
        }
    }

    /// Keeps an answer.
    pub(super) fn put(&mut self, fingerprint: &str, verdict: &Arc<Verdict>) -> anyhow::Result<()> {
        self.insert(fingerprint.to_owned(), Arc::clone(verdict));
        self.write(&Note::Answer {
            fingerprint: fingerprint.to_owned(),
            verdict: (**verdict).clone(),
        })
    }

    /// Keeps what the day has come to.
    pub(super) fn put_day(&mut self, day: Day) -> anyhow::Result<()> {
        self.day = day;
        self.write(&Note::Day(day))
    }

    fn write(&mut self, note: &Note) -> anyhow::Result<()> {
        let Some(notebook) = &mut self.notebook else {
            return Ok(());
        };
        notebook.write(note)?;
        let answers = self.order.iter().filter_map(|fingerprint| {
            Some(Note::Answer {
                fingerprint: fingerprint.clone(),
                verdict: (**self.verdicts.get(fingerprint)?).clone(),
            })
        });
        let mut notes = answers.chain([Note::Day(self.day)]);
        notebook.tidy(self.order.len() + 1, &mut notes)
    }
}
