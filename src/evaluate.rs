//! What each threshold would have raised on events that were scored, so that one can be chosen by
//! what can be looked at in a day; and how good scores are, if it is known which events were attacks.

mod labels;
mod ranking;

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use labels::Label;
pub use labels::Labels;
use ranking::Scored;
pub use ranking::{Budget, Quality, Scenario};

use crate::batch::Batch;
use crate::detect::Raised;
use crate::detect::adaptive::archetype_number;
use crate::engine::{Flow, Sink};
use crate::record::StageField;
use crate::record::anomaly::{AnomalyRecord, Severity};
use crate::stage::{Alert, Incidents};

const DAY_MS: i64 = 86_400_000;
/// Days without an event from which on they do not count.
const QUIET_DAYS_MAX: i64 = 7;
const DAYS_A_MONTH: f64 = 30.0;

/// The sink that counts. Events have to come with their scores, however low.
pub struct Evaluation {
    /// What comes before is learned from, but not counted.
    since_ms: i64,
    thresholds: Vec<AtThreshold>,
    labels: Option<Labels>,
    /// Every event, if there are labels.
    scored: Vec<Scored>,
    names: Names,
    n_events: u64,
    first_ms: i64,
    last_ms: i64,
    /// Days since 1970 on which something has happened.
    days: BTreeSet<i64>,
}

/// Numbers for users and addresses, which are many times the same.
#[derive(Default)]
struct Names {
    users: HashMap<Box<str>, u32>,
    addresses: HashMap<Box<str>, u32>,
}

/// What was raised from one threshold on.
struct AtThreshold {
    threshold: f64,
    n_alerts: u64,
    n_attacks: u64,
    episodes: BTreeSet<u32>,
    incidents: Incidents,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub events: u64,
    pub users: usize,
    /// Time from the first event to the last, without the days left out.
    pub days: f64,
    /// Days of more than a week in a row without an event.
    pub days_left_out: i64,
    pub thresholds: Vec<Threshold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// What one threshold would have raised.
#[derive(Debug, Serialize)]
pub struct Threshold {
    pub threshold: f64,
    pub alerts: u64,
    pub alerts_per_day: f64,
    /// Alerts of a user or an address within the time that ends an incident are one, and so are those
    /// of a campaign.
    pub incidents: u64,
    pub incidents_per_day: f64,
    pub incidents_per_user_month: f64,
    /// The share of alerts that were attacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// The share of attack events, and of episodes, that were raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episode_recall: Option<f64>,
}

impl Evaluation {
    /// Counts for these thresholds; with `labels`, also how good the scores are.
    #[must_use]
    pub fn new(
        thresholds: &[f64],
        since_ms: i64,
        incident_ms: i64,
        labels: Option<Labels>,
    ) -> Self {
        let raised = |threshold: &f64| AtThreshold {
            threshold: *threshold,
            n_alerts: 0,
            n_attacks: 0,
            episodes: BTreeSet::new(),
            incidents: Incidents::new(incident_ms),
        };
        Self {
            since_ms,
            thresholds: thresholds.iter().map(raised).collect(),
            labels,
            scored: Vec::new(),
            names: Names::default(),
            n_events: 0,
            first_ms: i64::MAX,
            last_ms: i64::MIN,
            days: BTreeSet::new(),
        }
    }

    fn add(&mut self, alert: &Alert<'_>, score: f64, event: Scored, label: Label) {
        let episode = match label {
            Label::Unknown => return,
            Label::Benign => None,
            Label::Attack(episode) => Some(episode),
        };
        let event = Scored { episode, ..event };
        self.n_events += 1;
        self.first_ms = self.first_ms.min(event.timestamp_ms);
        self.last_ms = self.last_ms.max(event.timestamp_ms);
        self.days.insert(event.timestamp_ms.div_euclid(DAY_MS));
        for raised in &mut self.thresholds {
            if score >= raised.threshold {
                raised.n_alerts += 1;
                raised.incidents.fold(alert);
                raised.n_attacks += u64::from(episode.is_some());
                raised.episodes.extend(episode);
            }
        }
        if self.labels.is_some() {
            self.scored.push(event);
        }
    }

    /// What came of it.
    #[must_use]
    pub fn report(self) -> Report {
        let days_left_out = self.days_left_out();
        let span_ms = self.last_ms - self.first_ms.min(self.last_ms) - days_left_out * DAY_MS;
        let days = (span_ms as f64 / DAY_MS as f64).max(1.0);
        let n_users = self.names.users.len();
        let quality = self
            .labels
            .as_ref()
            .map(|labels| Quality::of(&self.scored, labels, n_users, days));
        let share = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        let thresholds = self.thresholds.into_iter().map(|raised| {
            let n_incidents = raised.incidents.n_opened();
            let with_labels = quality.as_ref();
            Threshold {
                threshold: raised.threshold,
                alerts: raised.n_alerts,
                alerts_per_day: raised.n_alerts as f64 / days,
                incidents: n_incidents,
                incidents_per_day: n_incidents as f64 / days,
                incidents_per_user_month: n_incidents as f64 / n_users.max(1) as f64 / days
                    * DAYS_A_MONTH,
                precision: with_labels.map(|_| share(raised.n_attacks, raised.n_alerts)),
                recall: with_labels.map(|quality| share(raised.n_attacks, quality.attack_events)),
                episode_recall: with_labels
                    .map(|quality| share(raised.episodes.len() as u64, quality.episodes)),
            }
        });
        Report {
            events: self.n_events,
            users: n_users,
            days,
            days_left_out,
            thresholds: thresholds.collect(),
            quality,
        }
    }

    /// Days of more than a week in which nothing has happened. One wrong clock would make years of the
    /// time from the first event to the last.
    fn days_left_out(&self) -> i64 {
        let next = self.days.iter().skip(1);
        let gaps = self.days.iter().zip(next).map(|(day, next)| next - day - 1);
        gaps.filter(|days| *days > QUIET_DAYS_MAX).sum()
    }
}

impl Names {
    fn number(of: &mut HashMap<Box<str>, u32>, name: &str) -> u32 {
        if let Some(number) = of.get(name) {
            return *number;
        }
        let number = of.len() as u32;
        of.insert(name.into(), number);
        number
    }
}

impl Sink for Evaluation {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let mut n_out = 0;
        for block in &batch.blocks {
            n_out += block.events.len() as u64;
            for event in &block.events {
                let view = block.view(event);
                let labels = self.labels.as_mut();
                let label = labels.map_or(Label::Benign, |labels| labels.find(view.event_id));
                if view.timestamp_ms < self.since_ms {
                    continue;
                }
                // An event that was not scored is the least of all.
                let anomaly: Option<AnomalyRecord> = block
                    .stage_value(event, StageField::Anomaly)
                    .and_then(|json| serde_json::from_slice(json).ok());
                let (score, risk) = anomaly
                    .as_ref()
                    .map_or((0.0, f64::NEG_INFINITY), |anomaly| {
                        (anomaly.anomaly_score, anomaly.risk)
                    });
                let raised = Raised {
                    severity: anomaly
                        .as_ref()
                        .map_or(Severity::Low, |anomaly| anomaly.severity),
                    archetype: anomaly
                        .and_then(|anomaly| anomaly.archetype)
                        .and_then(|name| archetype_number(&name)),
                };
                let scored = Scored {
                    risk,
                    timestamp_ms: view.timestamp_ms,
                    user: Names::number(&mut self.names.users, view.user),
                    address: view
                        .source_ip
                        .map(|ip| Names::number(&mut self.names.addresses, ip)),
                    episode: None,
                };
                let alert = Alert::new(&view, u64::from(scored.user), raised);
                self.add(&alert, score, scored, label);
            }
        }
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
