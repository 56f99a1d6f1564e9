//! The baselines that verdicts correct: those that `sg-run` keeps in the database, or those of a
//! state folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::batch::{Learned, Records};
use crate::cli::baselines::{SHARED, kind_of};
use crate::cli::store::NAME;
use crate::detect::{Correction, Corrector};
use crate::query::Found;
use crate::record::feedback::Feedback;
use crate::report::warn;
use crate::stage;
use crate::store::{State, Store};

/// The place of baselines that are in the database.
const DATABASE: &str = "database";
/// Places that are remembered of a verdict: whoever has more state folders has them corrected
/// twice by the same verdict given twice.
const PLACES_MAX: usize = 16;

/// The baselines of some users, wherever they are kept.
pub(super) struct Baselines {
    /// Where, as verdicts name it.
    place: String,
    state: Option<State>,
    /// The detector that they are of, if there are any.
    detector: Option<String>,
    /// For each task that has baselines of these users.
    correctors: BTreeMap<String, Corrector>,
    /// By task and user. A user of several tasks has as many baselines.
    records: BTreeMap<(String, String), Vec<u8>>,
    changed: BTreeMap<(String, String), Vec<u8>>,
}

impl Baselines {
    pub(super) fn of_database(store: &Store, users: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let mut baselines = Self::none(DATABASE.to_owned());
        baselines.detector = store.view().detector()?;
        for task in store.view().tasks()? {
            baselines.add(task, users, |task, user| store.view().baseline(task, user))?;
        }
        Ok(baselines)
    }

    pub(super) fn of_folder(path: &Path, users: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let shown = path.display();
        ensure!(path.is_dir(), "there is no state folder at {shown}");
        let state = State::open(path)?;
        // The same folder has the same name, wherever the command was given.
        let place = path
            .canonicalize()
            .with_context(|| format!("cannot use the state folder {shown}"))?;
        let mut baselines = Self::none(place.to_string_lossy().into_owned());
        baselines.detector = state.detector();
        for task in state.tasks()? {
            baselines.add(task, users, |task, user| state.baseline(task, user))?;
        }
        baselines.state = Some(state);
        Ok(baselines)
    }

    fn none(place: String) -> Self {
        Self {
            place,
            state: None,
            detector: None,
            correctors: BTreeMap::new(),
            records: BTreeMap::new(),
            changed: BTreeMap::new(),
        }
    }

    /// Adds those of a task, which `get` reads by task and user.
    fn add(
        &mut self,
        task: String,
        users: &BTreeSet<&str>,
        get: impl Fn(&str, &str) -> anyhow::Result<Option<Vec<u8>>>,
    ) -> anyhow::Result<()> {
        for user in users {
            if let Some(record) = get(&task, user)? {
                let key = (task.clone(), (*user).to_owned());
                self.records.insert(key, record);
            }
        }
        let kind = kind_of(self.detector.as_deref().unwrap_or_default())?;
        let shared = get(&task, SHARED)?.unwrap_or_default();
        let shared = stage::of_detector(&shared);
        let corrector = shared.and_then(|shared| Corrector::new(kind, shared));
        let corrector = corrector.with_context(|| {
            let place = &self.place;
            format!("what all users share in {place} cannot be used")
        })?;
        self.correctors.insert(task, corrector);
        Ok(())
    }

    /// Corrects the baseline of an event's user, unless the verdict has done so already.
    pub(super) fn correct(
        &mut self,
        event: &Found,
        mut feedback: Feedback,
    ) -> anyhow::Result<Feedback> {
        if feedback.corrected.contains(&self.place) {
            return Ok(feedback);
        }
        let (Some(detector), user) = (&self.detector, &feedback.user) else {
            return Ok(feedback);
        };
        let was_otherwise = feedback.corrected_otherwise.contains(&self.place);
        let correction = Correction {
            event: event.block.view(&event.block.events[0]),
            judgement: feedback.verdict,
            before: was_otherwise.then_some(feedback.verdict.other()),
            risk: risk_of(event, detector),
        };
        let mut is_there = false;
        for (key, record) in &mut self.records {
            let Some(corrector) = self.correctors.get(&key.0).filter(|_| key.1 == *user) else {
                continue;
            };
            is_there = true;
            let corrected = corrector.correct(record, &correction).with_context(|| {
                let place = &self.place;
                format!("the baseline of {user:?} in {place} cannot be used; nothing was changed")
            })?;
            if corrected != *record {
                record.clone_from(&corrected);
                self.changed.insert(key.clone(), corrected);
            }
        }
        if !is_there {
            return Ok(feedback);
        }
        let otherwise = &mut feedback.corrected_otherwise;
        otherwise.retain(|place| *place != self.place);
        if feedback.corrected.len() == PLACES_MAX {
            feedback.corrected.remove(0);
        }
        feedback.corrected.push(self.place.clone());
        Ok(feedback)
    }

    /// Says of which users there is no baseline.
    pub(super) fn say_missing(&self, users: &BTreeSet<&str>) {
        let place = match &self.state {
            None => "the database: does sg-score keep it in a --state folder?",
            Some(_) => "the state folder",
        };
        let missing = users
            .iter()
            .filter(|user| !self.records.keys().any(|(_, other)| other == **user));
        for user in missing {
            let text =
                format!("the verdict is kept only, there is no baseline of {user} in {place}");
            warn(NAME, &text);
        }
    }

    /// Saves changed baselines of a folder; gives those back that belong into the database.
    pub(super) fn save(self) -> anyhow::Result<BTreeMap<(String, String), Vec<u8>>> {
        let Some(state) = &self.state else {
            return Ok(self.changed);
        };
        for ((task, user), record) in self.changed {
            let mut records = Records::default();
            records.push(&user, |bytes| bytes.extend_from_slice(&record));
            state.put(vec![Learned {
                task: task.into(),
                baselines: vec![records],
                shared: Vec::new(),
            }])?;
        }
        // Under the last label: whoever goes back to it wants the verdicts since, too.
        state.commit(&state.label(), 0)?;
        Ok(BTreeMap::new())
    }
}

/// The risk that a detector has seen in an event, if it was an anomaly to it.
fn risk_of(event: &Found, detector: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Learned {
        detector: String,
        risk: f64,
    }
    let learned: Learned = serde_json::from_slice(event.anomaly_json.as_deref()?).ok()?;
    (learned.detector == detector).then_some(learned.risk)
}
