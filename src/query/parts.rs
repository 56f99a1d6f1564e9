//! The databases that a question is put to, which answer as if they were one. What each of them is
//! asked stands here and, where that is more than one call, in `keys.rs`, `stats.rs` and `user.rs`:
//! keys of events in order, its copy of an event, the verdict on it, its counters, its baseline of a
//! user. Whoever else answers that can be a part too.

use std::cmp::Ordering;

use anyhow::ensure;

use super::keys::Candidate;
use super::{Found, Stop, rank};
use crate::record::StageField;
use crate::record::feedback::Feedback;
use crate::schema;
use crate::store::{FeedbackWalk, Order, View, parse_event};

/// The databases that are asked. No answer depends on their order.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    views: &'a [View<'a>],
    stop: Option<&'a Stop>,
}

impl<'a> Parts<'a> {
    #[must_use]
    pub fn of(views: &'a [View<'a>]) -> Self {
        Self { views, stop: None }
    }

    /// The same for questions that somebody may end: they fail with [`Stopped`](super::Stopped) then.
    #[must_use]
    pub fn until(self, stop: &'a Stop) -> Self {
        let stop = Some(stop);
        Self { stop, ..self }
    }

    pub(super) fn views(self) -> &'a [View<'a>] {
        self.views
    }

    /// Whether the question is to go on.
    pub(super) fn check(self) -> anyhow::Result<()> {
        Ok(self.stop.map_or(Ok(()), Stop::check)?)
    }

    /// The event with that key, or none if there is none any more.
    ///
    /// # Errors
    /// If a database cannot be read.
    pub fn find(self, key: Vec<u8>) -> anyhow::Result<Option<Found>> {
        let holders = None;
        self.choose(Candidate { key, holders })
    }

    /// The event that was met, or none if there is none any more. Of several copies of it the one of
    /// which the most is known: all else about it would be hidden.
    pub(super) fn choose(self, met: Candidate) -> anyhow::Result<Option<Found>> {
        let Candidate { key, holders } = met;
        let holders = holders.unwrap_or_else(|| (0..self.views.len()).map(|i| (i, None)).collect());
        let mut chosen: Option<Found> = None;
        for (i, event) in holders {
            let found = match event {
                Some(event) => Some(copy_of(&self.views[i], &key, event)?),
                None => copy_in(&self.views[i], &key)?,
            };
            let Some(found) = found else {
                continue;
            };
            let is_better = (chosen.as_ref()).is_none_or(|chosen| compare(&found, chosen).is_gt());
            if is_better {
                chosen = Some(found);
            }
        }
        Ok(chosen.map(|found| Found { key, ..found }))
    }

    /// Calls `each` with the keys of events with that id in order, once however many have it, until it
    /// returns false.
    pub(super) fn keys_of_id(
        self,
        event_id: &str,
        order: Order,
        mut each: impl FnMut(Vec<u8>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut walks = Vec::new();
        for view in self.views {
            let mut walk = view.walk_id(event_id, order);
            let next = walk.next_key()?;
            walks.push((walk, next));
        }
        loop {
            self.check()?;
            let nexts = walks.iter().filter_map(|(_, next)| next.as_ref());
            let first = match order {
                Order::OldestFirst => nexts.min(),
                Order::NewestFirst => nexts.max(),
            };
            let Some(first) = first.cloned() else {
                return Ok(());
            };
            for (walk, next) in &mut walks {
                if next.take_if(|next| *next == first).is_some() {
                    *next = walk.next_key()?;
                }
            }
            if !each(first)? {
                return Ok(());
            }
        }
    }

    /// The newest verdict on the event with that key.
    pub(super) fn feedback(self, key: &[u8]) -> anyhow::Result<Option<Feedback>> {
        let mut newest = None;
        for view in self.views {
            newest = newer(newest, view.feedback(key)?);
        }
        Ok(newest)
    }

    /// Walks the newest verdict on each event, the newest event first.
    pub(super) fn walk_feedback(self) -> anyhow::Result<Verdicts<'a>> {
        let mut walks = Vec::new();
        for view in self.views {
            let mut walk = view.walk_feedback(i64::MAX);
            let next = walk.next_feedback()?;
            walks.push((walk, next));
        }
        let parts = self;
        Ok(Verdicts { parts, walks })
    }
}

/// A walk through the verdicts of all parts.
pub(super) struct Verdicts<'a> {
    parts: Parts<'a>,
    walks: Vec<(FeedbackWalk<'a>, Option<Feedback>)>,
}

impl Verdicts<'_> {
    pub(super) fn next_feedback(&mut self) -> anyhow::Result<Option<Feedback>> {
        fn key(feedback: &Feedback) -> (i64, &str) {
            (feedback.timestamp, &feedback.event_id)
        }
        self.parts.check()?;
        let nexts = self.walks.iter().filter_map(|(_, next)| next.as_ref());
        let Some(mut newest) = nexts.max_by_key(|feedback| key(feedback)).cloned() else {
            return Ok(None);
        };
        for (walk, next) in &mut self.walks {
            if let Some(feedback) = next.take_if(|feedback| key(feedback) == key(&newest)) {
                *next = walk.next_feedback()?;
                newest = newer(Some(newest), Some(feedback)).expect("one of them is there");
            }
        }
        Ok(Some(newest))
    }
}

/// The verdict that was given last.
fn newer(one: Option<Feedback>, other: Option<Feedback>) -> Option<Feedback> {
    // In the same millisecond it is any of them, but always the same.
    one.into_iter()
        .chain(other)
        .max_by_key(|feedback| (feedback.given, format!("{feedback:?}")))
}

/// What is kept of an event beside it.
const BESIDE: [&str; 4] = [
    schema::ANOMALIES,
    schema::PENDING,
    schema::AI_ANALYSIS,
    schema::EMBEDDINGS,
];

/// What one database holds of the event with that key, which is left to the caller to put in.
pub(super) fn copy_in(view: &View<'_>, key: &[u8]) -> anyhow::Result<Option<Found>> {
    let families = std::iter::once(schema::EVENTS).chain(BESIDE);
    let keys: Vec<_> = families.map(|family| (family, key)).collect();
    let mut values = view.values(&keys)?.into_iter();
    // An index entry may outlive its event for the moment of a prune.
    let event = values.next().flatten();
    let found = event.map(|event| put_together(view, event, values));
    found.transpose()
}

/// The same for an event that was read already.
fn copy_of(view: &View<'_>, key: &[u8], event: Vec<u8>) -> anyhow::Result<Found> {
    let keys = BESIDE.map(|family| (family, key));
    put_together(view, event, view.values(&keys)?.into_iter())
}

/// An event with what is kept beside it.
fn put_together(
    view: &View<'_>,
    event: Vec<u8>,
    mut beside: impl Iterator<Item = Option<Vec<u8>>>,
) -> anyhow::Result<Found> {
    let mut block = parse_event(event);
    let shown = view.path().display();
    ensure!(
        !block.events.is_empty(),
        "an event in {shown} is not valid: run sg-store verify --db {shown}"
    );
    let anomaly_json = beside.next().flatten();
    let anomaly = anomaly_json
        .as_deref()
        .and_then(|json| serde_json::from_slice(json).ok());
    if let Some(json) = &anomaly_json {
        block.set_stage_value(0, StageField::Anomaly, json);
    }
    let fields = [
        StageField::Context,
        StageField::Analysis,
        StageField::Embedding,
    ];
    for (field, value) in fields.into_iter().zip(beside) {
        if let Some(json) = value {
            block.set_stage_value(0, field, &json);
        }
    }
    Ok(Found {
        key: Vec::new(),
        block,
        anomaly,
        anomaly_json,
        feedback: None,
        feedback_json: None,
    })
}

/// Which of two copies of an event counts is the greater one: that with an anomaly, with the higher
/// score, with the higher risk, with an analysis, with an embedding. If all that is equal they are the
/// same as a rule; if not, bytes decide, so that it is not the order in which databases are named.
pub(super) fn compare(one: &Found, other: &Found) -> Ordering {
    fn ranks(found: &Found) -> (Option<(u64, u64)>, [bool; 2]) {
        let anomaly = found.anomaly.as_ref();
        let scores = anomaly.map(|anomaly| (rank(anomaly.anomaly_score), rank(anomaly.risk)));
        let event = &found.block.events[0];
        let has = |field| found.block.stage_value(event, field).is_some();
        (
            scores,
            [StageField::Analysis, StageField::Embedding].map(has),
        )
    }
    fn line(found: &Found) -> Vec<u8> {
        let mut line = Vec::new();
        found.push_line(&mut line);
        line
    }
    ranks(one)
        .cmp(&ranks(other))
        .then_with(|| line(one).cmp(&line(other)))
}
