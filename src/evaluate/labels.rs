//! Which events were attacks: NDJSON with `event_id`, `scenario` and, if there are several of one,
//! `episode`.

use std::collections::HashMap;
use std::io::BufRead;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// Labels by event.
#[derive(Debug, Default)]
pub struct Labels {
    by_event: HashMap<Box<str>, Known>,
    /// The scenario of each episode.
    pub(super) episodes: Vec<usize>,
    pub(super) scenarios: Vec<String>,
}

#[derive(Debug)]
struct Known {
    label: Label,
    /// There is such an event.
    is_found: bool,
}

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Benign,
    /// Part of the episode of that number.
    Attack(u32),
    /// Nobody knows: it is left out.
    Unknown,
}

#[derive(Deserialize)]
struct Line {
    event_id: Box<str>,
    scenario: String,
    episode: Option<String>,
}

impl Labels {
    /// Reads labels. A scenario that begins with `_` stands for not knowing; an event without a
    /// label is benign.
    ///
    /// # Errors
    /// If a line is not a label, or says something else of an event than one before it.
    pub fn read(lines: impl BufRead) -> anyhow::Result<Self> {
        let mut labels = Self::default();
        let mut episodes: HashMap<(usize, String), u32> = HashMap::new();
        for (i, line) in lines.lines().enumerate() {
            let line = line.context("cannot read on")?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).with_context(|| {
                format!("line {} is not a label: event_id, scenario, episode", i + 1)
            })?;
            if line.scenario.starts_with('_') {
                labels.add(line.event_id, Label::Unknown, i + 1)?;
                continue;
            }
            let known = labels.scenarios.iter().position(|s| *s == line.scenario);
            let scenario = known.unwrap_or_else(|| {
                labels.scenarios.push(line.scenario.clone());
                labels.scenarios.len() - 1
            });
            let episode = line.episode.unwrap_or(line.scenario);
            let episode = *episodes.entry((scenario, episode)).or_insert_with(|| {
                labels.episodes.push(scenario);
                labels.episodes.len() as u32 - 1
            });
            labels.add(line.event_id, Label::Attack(episode), i + 1)?;
        }
        Ok(labels)
    }

    fn add(&mut self, event_id: Box<str>, label: Label, line: usize) -> anyhow::Result<()> {
        let known = self.by_event.entry(event_id).or_insert(Known {
            label,
            is_found: false,
        });
        ensure!(
            known.label == label,
            "line {line} names another scenario or episode than a line before it of the same event"
        );
        Ok(())
    }

    /// What is known of an event, which is there.
    pub(super) fn find(&mut self, event_id: &str) -> Label {
        let Some(known) = self.by_event.get_mut(event_id) else {
            return Label::Benign;
        };
        known.is_found = true;
        known.label
    }

    pub(super) fn n_labels(&self) -> usize {
        self.by_event.len()
    }

    pub(super) fn n_found(&self) -> usize {
        let known = self.by_event.values();
        known.filter(|known| known.is_found).count()
    }
}
