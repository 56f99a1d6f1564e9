//! The classic detector: a weighted sum of how rare each of an event's features is for its user
//! (detector specification, section C). Kept exact and simple; a plain model in
//! `tests/it/classic_model.rs` holds it to its word.

mod correct;
mod record;

use std::fmt::Write;
use std::slice;

use prefetch_index::prefetch_index;
pub use record::{RECORD_VERSION, Summary};

use super::table::{Dimension, Table, tag};
use super::{
    Detector, DetectorConfig, Explanation, Observed, Piece, Raised, RecordError, UserKey, Verdict,
};
use crate::record::anomaly::{Anomaly, BaselineState, KNOWN_IPS_MAX, write_context};
use crate::record::text::shorten;
use crate::record::{EventView, Values};
use crate::time::hour_of_day;

/// The detector's name in records and options.
pub const NAME: &str = "classic";

const WEIGHT_TIME: f64 = 0.25;
const WEIGHT_IP: f64 = 0.30;
const WEIGHT_LOCATION: f64 = 0.20;
const WEIGHT_KIND: f64 = 0.15;
const WEIGHT_FAILURE: f64 = 0.10;
/// What a part says when the event lacks the field.
const PART_MISSING: f64 = 0.5;
/// Parts from here on are worth a reason. An anomaly at 0.7 has at least one.
const PART_REASON_MIN: f64 = 0.7;
/// Characters of a value that a reason quotes: values are hostile, and can be long.
const REASON_VALUE_CHARS_MAX: usize = 64;
const N_RECENT: u32 = 20;

/// The classic detector's settings.
pub struct Classic {
    config: DetectorConfig,
}

impl Classic {
    #[must_use]
    pub fn new(config: DetectorConfig) -> Self {
        Self { config }
    }
}

impl Detector for Classic {
    type Features = Features;
    type User = Baseline;
    type Deltas = ();

    const USER_BYTES_MAX: usize = size_of::<Baseline>() + Table::HEAP_BYTES_MAX;
    const READS_VALUES: bool = true;

    fn features(event: &EventView<'_>) -> Features {
        Features::of(event)
    }

    fn new_user(&self, _: &Features) -> Baseline {
        Baseline::default()
    }

    fn user_bytes(baseline: &Baseline) -> usize {
        baseline.values.heap_bytes()
    }

    fn observe<'a>(
        &self,
        _: UserKey,
        baseline: &mut Baseline,
        (): &mut (),
        features: &Features,
        event: &impl Observed<'a>,
        verdict: &mut Verdict,
    ) {
        let values = event.values();
        let found = baseline.find(features, &values);
        let config = &self.config;
        if baseline.n_events >= config.n_events_min.max(1) {
            let parts = baseline.score(features, &values, found);
            let score = parts.score();
            verdict.score = Some(score);
            if let Some(event_id) = &config.explain {
                let event = event.view();
                if event.event_id == event_id {
                    baseline
                        .explain(features, &event, &parts)
                        .write(&mut verdict.anomaly);
                }
            } else if score >= config.threshold || config.with_all_scores {
                let event = event.view();
                let reasons = baseline.reasons(features, &event, &parts);
                let anomaly = Anomaly {
                    event: &event,
                    score,
                    risk: score,
                    time: parts.time,
                    ip: parts.ip,
                    location: parts.location,
                    kind: parts.kind,
                    failure: parts.failure,
                    reasons: &reasons,
                    detector: NAME,
                    archetype: None,
                    severity: config.severities.of(score),
                    baseline: BaselineState::Active,
                    n_baseline_events: baseline.n_events,
                };
                anomaly.write(&mut verdict.anomaly);
                verdict.raised = (score >= config.threshold).then_some(Raised {
                    severity: anomaly.severity,
                    archetype: None,
                });
            }
        }
        if !verdict.anomaly.is_empty() || features.is_threat {
            baseline.write_context(&mut verdict.context);
        }
        baseline.learn(features, &values, found);
    }

    fn prefetch(&self, baseline: &Baseline, features: &Features, step: usize) {
        match step {
            0 => baseline.prefetch(features),
            1 => baseline.values.prefetch(),
            _ => {
                let tags = [features.ip, features.location, Some(features.kind)];
                baseline.values.prefetch_values(tags.into_iter().flatten());
            }
        }
    }

    fn begins_epoch(&mut self, _: UserKey, _: &Features, _: u64) -> bool {
        false
    }

    fn n_late(&self) -> u64 {
        // It has no clock that they could be late by.
        0
    }

    fn turn_epoch(&mut self, (): &mut (), _: u64, _: bool) {}

    fn merge((): &mut (), (): &mut ()) {}

    fn write_user(&self, baseline: &Baseline, record: &mut Vec<u8>) {
        baseline.write_record(record);
    }

    fn read_user(&self, record: &[u8]) -> Result<Baseline, RecordError> {
        Baseline::from_record(record)
    }

    fn write_shared(&self, (): &()) -> Vec<u8> {
        Vec::new()
    }

    fn read_shared(&mut self, _: &[u8]) -> Result<(), RecordError> {
        Err(RecordError::Damaged(
            "users share nothing with this detector".to_owned(),
        ))
    }
}

/// What the detector looks at in an event, apart from its texts.
pub struct Features {
    hour: usize,
    /// Tags of the values that are there.
    ip: Option<u32>,
    location: Option<u32>,
    kind: u32,
    is_threat: bool,
}

impl Features {
    fn of(event: &EventView<'_>) -> Self {
        let tag_of = |dimension, text: Option<&str>| text.map(|text| tag(dimension, text));
        Self {
            hour: hour_of_day(event.timestamp_ms),
            ip: tag_of(Dimension::Ip, event.source_ip),
            location: tag_of(Dimension::Location, event.geo_location),
            kind: tag(Dimension::Kind, event.kind),
            is_threat: event.is_threat(),
        }
    }

    /// Address, location and type of the event, with the tags of those that are there.
    fn tags_of<'a>(&self, event: &Values<'a>) -> [(Option<u32>, Option<&'a str>); 3] {
        [
            (self.ip, event.source_ip),
            (self.location, event.geo_location),
            (Some(self.kind), Some(event.kind)),
        ]
    }
}

/// How rare each feature is, 0..=1, and the counts behind it.
struct Parts {
    time: f64,
    ip: f64,
    location: f64,
    kind: f64,
    failure: f64,
    failure_rate: f64,
    recent_failure_rate: f64,
}

impl Parts {
    fn score(&self) -> f64 {
        WEIGHT_TIME * self.time
            + WEIGHT_IP * self.ip
            + WEIGHT_LOCATION * self.location
            + WEIGHT_KIND * self.kind
            + WEIGHT_FAILURE * self.failure
    }
}

/// Where counts end: beyond it numbers are no longer exact. No history is that long, but a damaged record may say so.
const COUNT_MAX: u64 = 1 << 53;

fn count(n: &mut u64, is_one_more: bool) {
    *n = (*n + u64::from(is_one_more)).min(COUNT_MAX);
}

/// What is known of one user.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    n_events: u64,
    n_failed: u64,
    hours: [u32; 24],
    values: Table,
    /// Whether each of the last 20 events failed; the lowest bit is the newest.
    recent_failures: u32,
    threat_score_sum: f64,
    n_threat_scores: u64,
    first_ms: i64,
    last_ms: i64,
}

impl Baseline {
    /// Counts an event that is not scored.
    pub fn learn_event(&mut self, event: &EventView<'_>) {
        self.learn(&Features::of(event), &event.into(), [None; 3]);
    }

    /// Fetches all of it but the values.
    fn prefetch(&self, features: &Features) {
        prefetch_index(&self.hours[..], features.hour);
        prefetch_index(slice::from_ref(&self.values), 0);
        prefetch_index(slice::from_ref(&self.last_ms), 0);
    }

    /// Where its address, location and type are in the table, if they are.
    fn find(&self, features: &Features, event: &Values<'_>) -> [Option<usize>; 3] {
        features.tags_of(event).map(|(tag, value)| {
            let (tag, value) = tag.zip(value)?;
            self.values.find(tag, value)
        })
    }

    fn score(
        &self,
        features: &Features,
        event: &Values<'_>,
        [ip, location, kind]: [Option<usize>; 3],
    ) -> Parts {
        let total = self.n_events as f64;
        let rarity = |n_events: u32| 1.0 - f64::from(n_events) / total;
        let value_rarity = |is_there: bool, found: Option<usize>| {
            if is_there {
                rarity(self.values.count_at(found))
            } else {
                PART_MISSING
            }
        };
        let failure_rate = self.n_failed as f64 / total;
        let n_recent = N_RECENT.min(self.n_events.try_into().unwrap_or(N_RECENT));
        let recent_failure_rate =
            f64::from(self.recent_failures.count_ones()) / f64::from(n_recent);
        let failure = if event.is_failure && failure_rate < 1.0 {
            ((recent_failure_rate - failure_rate) / (1.0 - failure_rate)).max(0.0)
        } else {
            0.0
        };
        Parts {
            time: rarity(self.hours[features.hour]),
            ip: value_rarity(features.ip.is_some(), ip),
            location: value_rarity(features.location.is_some(), location),
            kind: value_rarity(true, kind),
            failure,
            failure_rate,
            recent_failure_rate,
        }
    }

    fn learn(&mut self, features: &Features, event: &Values<'_>, found: [Option<usize>; 3]) {
        if self.n_events == 0 {
            self.first_ms = event.timestamp_ms;
            self.last_ms = event.timestamp_ms;
        }
        self.first_ms = self.first_ms.min(event.timestamp_ms);
        self.last_ms = self.last_ms.max(event.timestamp_ms);
        count(&mut self.n_events, true);
        count(&mut self.n_failed, event.is_failure);
        self.recent_failures =
            (self.recent_failures << 1 | u32::from(event.is_failure)) & ((1 << N_RECENT) - 1);
        let hour = &mut self.hours[features.hour];
        *hour = hour.saturating_add(1);
        let event_number = u32::try_from(self.n_events).unwrap_or(u32::MAX);
        for ((tag, value), found) in features.tags_of(event).into_iter().zip(found) {
            if let (Some(tag), Some(value)) = (tag, value) {
                self.values.learn(found, tag, value, event_number);
            }
        }
        if let Some(score) = event.threat_score {
            self.threat_score_sum += score;
            count(&mut self.n_threat_scores, true);
        }
    }

    /// Sentences for the parts that stand out, the weightiest first.
    fn reasons(&self, features: &Features, event: &EventView<'_>, parts: &Parts) -> Vec<String> {
        let mut reasons: Vec<(f64, String)> = Vec::new();
        let mut seen = |weight: f64, part: f64, what: String, n_events: u32| {
            if part >= PART_REASON_MIN {
                let share = (1.0 - part) * 100.0;
                let total = self.n_events;
                let reason = if n_events == 0 {
                    format!("{what}: new (0 of {total} events)")
                } else {
                    format!("{what}: {n_events} of {total} events ({share:.1}%)")
                };
                reasons.push((weight * part, reason));
            }
        };
        let hour = features.hour;
        seen(
            WEIGHT_TIME,
            parts.time,
            format!("hour {hour:02}:00 UTC"),
            self.hours[hour],
        );
        let kind = (Some(features.kind), Some(event.kind));
        for (weight, part, name, (tag, value)) in [
            (
                WEIGHT_IP,
                parts.ip,
                "address",
                (features.ip, event.source_ip),
            ),
            (
                WEIGHT_LOCATION,
                parts.location,
                "location",
                (features.location, event.geo_location),
            ),
            (WEIGHT_KIND, parts.kind, "type", kind),
        ] {
            if let (Some(tag), Some(value)) = (tag, value) {
                let what = format!("{name} {}", shorten(value, REASON_VALUE_CHARS_MAX));
                seen(weight, part, what, self.values.count(tag, value));
            }
        }
        if parts.failure > 0.0 {
            let mut reason = String::new();
            write!(
                reason,
                "failures: {:.1}% of the last {N_RECENT} events, usually {:.1}%",
                parts.recent_failure_rate * 100.0,
                parts.failure_rate * 100.0
            )
            .expect("a string takes every write");
            reasons.push((WEIGHT_FAILURE * parts.failure, reason));
        }
        reasons.sort_by(|a, b| b.0.total_cmp(&a.0));
        reasons.into_iter().map(|(_, reason)| reason).collect()
    }

    fn explain(&self, features: &Features, event: &EventView<'_>, parts: &Parts) -> Explanation {
        let seen = |what: String, n_events: u32| {
            Some(format!("{what}: {n_events} of {} events", self.n_events))
        };
        let value = |name: &str, tag: Option<u32>, value: Option<&str>| {
            let (tag, value) = tag.zip(value)?;
            let what = format!("{name} {}", shorten(value, REASON_VALUE_CHARS_MAX));
            seen(what, self.values.count(tag, value))
        };
        let hour = features.hour;
        let pieces = [
            (
                "time",
                WEIGHT_TIME,
                parts.time,
                seen(format!("hour {hour:02}:00 UTC"), self.hours[hour]),
            ),
            (
                "ip",
                WEIGHT_IP,
                parts.ip,
                value("address", features.ip, event.source_ip),
            ),
            (
                "location",
                WEIGHT_LOCATION,
                parts.location,
                value("location", features.location, event.geo_location),
            ),
            (
                "type",
                WEIGHT_KIND,
                parts.kind,
                value("type", Some(features.kind), Some(event.kind)),
            ),
            (
                "failure",
                WEIGHT_FAILURE,
                parts.failure,
                Some(format!(
                    "{:.1}% of the last {N_RECENT} events failed, usually {:.1}%",
                    parts.recent_failure_rate * 100.0,
                    parts.failure_rate * 100.0
                )),
            ),
        ];
        Explanation {
            event_id: event.event_id.to_owned(),
            user: event.user.to_owned(),
            timestamp: event.timestamp_ms,
            detector: NAME.to_owned(),
            anomaly_score: parts.score(),
            risk: parts.score(),
            baseline_events: self.n_events,
            archetypes: Vec::new(),
            components: pieces
                .into_iter()
                .map(|(component, weight, evidence, finding)| Piece {
                    component: component.to_owned(),
                    evidence,
                    weight,
                    finding,
                })
                .collect(),
        }
    }

    fn write_context(&self, output: &mut Vec<u8>) {
        let addresses = self.values.ranked(Dimension::Ip, KNOWN_IPS_MAX);
        let known_ips = addresses.into_iter().map(|seen| &seen.value);
        let average = self.average_threat_score().unwrap_or(0.0);
        write_context(self.n_failed, known_ips, average, output);
    }

    fn average_threat_score(&self) -> Option<f64> {
        (self.n_threat_scores > 0).then(|| self.threat_score_sum / self.n_threat_scores as f64)
    }
}
