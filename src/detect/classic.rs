//! The classic detector: a weighted sum of how rare each of an event's features is for its user
//! (detector specification, section C). Kept exact and simple; a plain model in
//! `tests/it/classic_model.rs` holds it to its word.

use std::fmt::Write;

use compact_str::CompactString;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use super::table::{Dimension, Seen, Table, VALUES_BYTES_MAX, VALUES_MAX, tag};
use super::{Detector, DetectorConfig, RecordError, THREAT_SCORE_HIGH, Verdict};
use crate::record::EventView;
use crate::record::anomaly::Anomaly;
use crate::record::text::{push_integer, push_json_string, push_number, shorten};
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
/// Addresses that the context names.
const CONTEXT_IPS_MAX: usize = 10;
/// Characters of a value that a reason quotes: values are hostile, and can be long.
const REASON_VALUE_CHARS_MAX: usize = 64;
const N_RECENT: u32 = 20;

/// Classic baselines of some users.
pub struct Classic {
    config: DetectorConfig,
    hasher: foldhash::fast::RandomState,
    /// Indexes into `users`, found by name.
    index: HashTable<u32>,
    /// Names are inline in most entries: one cache line less to touch.
    users: Vec<(CompactString, Baseline)>,
    /// Indexes of users whose baselines have changed, each once.
    changed: Vec<u32>,
}

impl Classic {
    #[must_use]
    pub fn new(config: DetectorConfig) -> Self {
        Self {
            config,
            hasher: foldhash::fast::RandomState::default(),
            index: HashTable::new(),
            users: Vec::new(),
            changed: Vec::new(),
        }
    }

    fn baseline(&self, user: &str) -> Option<&Baseline> {
        let i = self
            .index
            .find(self.hash(user), |&i| self.users[i as usize].0 == user)?;
        Some(&self.users[*i as usize].1)
    }

    /// The baseline of a user, which is about to change.
    fn baseline_mut(&mut self, user: &str) -> &mut Baseline {
        let i = self.find_or_add(user);
        let baseline = &mut self.users[i as usize].1;
        if !baseline.is_changed {
            baseline.is_changed = true;
            self.changed.push(i);
        }
        baseline
    }

    fn find_or_add(&mut self, user: &str) -> u32 {
        let hash = self.hash(user);
        let found = self.index.find(hash, |&i| self.users[i as usize].0 == user);
        if let Some(&i) = found {
            return i;
        }
        let i = self.users.len() as u32;
        self.users.push((user.into(), Baseline::default()));
        let (users, hasher) = (&self.users, &self.hasher);
        self.index
            .insert_unique(hash, i, |&i| hash_with(hasher, &users[i as usize].0));
        i
    }

    fn hash(&self, user: &str) -> u64 {
        hash_with(&self.hasher, user)
    }
}

fn hash_with(hasher: &foldhash::fast::RandomState, user: &str) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, user)
}

impl Detector for Classic {
    fn observe(&mut self, event: &EventView<'_>, verdict: &mut Verdict) {
        let features = Features::of(event);
        let config = self.config.clone();
        let baseline = self.baseline_mut(event.user);
        let parts =
            (baseline.n_events >= config.n_events_min.max(1)).then(|| baseline.score(&features));
        if let Some(parts) = parts {
            let score = parts.score();
            if score >= config.threshold {
                let reasons = baseline.reasons(&features, &parts);
                let anomaly = Anomaly {
                    event,
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
                    n_baseline_events: baseline.n_events,
                };
                anomaly.write(&mut verdict.anomaly);
            }
        }
        let is_threat = event
            .threat_score
            .is_some_and(|score| score >= THREAT_SCORE_HIGH);
        if is_threat || !verdict.anomaly.is_empty() {
            baseline.write_context(&mut verdict.context);
        }
        baseline.learn(&features);
    }

    fn save(&self, user: &str, record: &mut Vec<u8>) -> bool {
        let Some(baseline) = self.baseline(user) else {
            return false;
        };
        baseline.write_record(record);
        true
    }

    fn take_changed(&mut self, each: &mut dyn FnMut(&str, Vec<u8>)) {
        for i in std::mem::take(&mut self.changed) {
            let (user, baseline) = &mut self.users[i as usize];
            baseline.is_changed = false;
            let mut record = Vec::new();
            baseline.write_record(&mut record);
            each(user, record);
        }
    }

    fn load(&mut self, user: &str, record: &[u8]) -> Result<(), RecordError> {
        let loaded = Baseline::from_record(record)?;
        let i = self.find_or_add(user);
        let is_changed = self.users[i as usize].1.is_changed;
        self.users[i as usize].1 = Baseline {
            is_changed,
            ..loaded
        };
        Ok(())
    }

    fn users(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.users.iter().map(|(user, _)| user.as_str()))
    }
}

/// What the detector looks at in an event.
struct Features<'a> {
    event: &'a EventView<'a>,
    hour: usize,
    ip: Option<(u32, &'a str)>,
    location: Option<(u32, &'a str)>,
    kind: (u32, &'a str),
}

impl<'a> Features<'a> {
    fn of(event: &'a EventView<'a>) -> Self {
        Self {
            event,
            hour: hour_of_day(event.timestamp_ms),
            ip: event.source_ip.map(|ip| (tag(Dimension::Ip, ip), ip)),
            location: event
                .geo_location
                .map(|place| (tag(Dimension::Location, place), place)),
            kind: (tag(Dimension::Kind, event.kind), event.kind),
        }
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
    /// Not saved since it was changed.
    is_changed: bool,
}

impl Baseline {
    /// Counts an event that is not scored.
    pub fn learn_event(&mut self, event: &EventView<'_>) {
        self.learn(&Features::of(event));
    }

    fn score(&self, features: &Features<'_>) -> Parts {
        let total = self.n_events as f64;
        let rarity = |n_events: u32| 1.0 - f64::from(n_events) / total;
        let value_rarity = |value: Option<(u32, &str)>| {
            value.map_or(PART_MISSING, |(tag, value)| {
                rarity(self.values.count(tag, value))
            })
        };
        let failure_rate = self.n_failed as f64 / total;
        let n_recent = N_RECENT.min(self.n_events.try_into().unwrap_or(N_RECENT));
        let recent_failure_rate =
            f64::from(self.recent_failures.count_ones()) / f64::from(n_recent);
        let failure = if features.event.is_failure && failure_rate < 1.0 {
            ((recent_failure_rate - failure_rate) / (1.0 - failure_rate)).max(0.0)
        } else {
            0.0
        };
        Parts {
            time: rarity(self.hours[features.hour]),
            ip: value_rarity(features.ip),
            location: value_rarity(features.location),
            kind: value_rarity(Some(features.kind)),
            failure,
            failure_rate,
            recent_failure_rate,
        }
    }

    fn learn(&mut self, features: &Features<'_>) {
        let event = features.event;
        if self.n_events == 0 {
            self.first_ms = event.timestamp_ms;
            self.last_ms = event.timestamp_ms;
        }
        self.first_ms = self.first_ms.min(event.timestamp_ms);
        self.last_ms = self.last_ms.max(event.timestamp_ms);
        self.n_events += 1;
        self.n_failed += u64::from(event.is_failure);
        self.recent_failures =
            (self.recent_failures << 1 | u32::from(event.is_failure)) & ((1 << N_RECENT) - 1);
        let hour = &mut self.hours[features.hour];
        *hour = hour.saturating_add(1);
        let event_number = u32::try_from(self.n_events).unwrap_or(u32::MAX);
        for (tag, value) in [features.ip, features.location, Some(features.kind)]
            .into_iter()
            .flatten()
        {
            self.values.learn(tag, value, event_number);
        }
        if let Some(score) = event.threat_score {
            self.threat_score_sum += score;
            self.n_threat_scores += 1;
        }
    }

    /// Sentences for the parts that stand out, the weightiest first.
    fn reasons(&self, features: &Features<'_>, parts: &Parts) -> Vec<String> {
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
        for (weight, part, name, value) in [
            (WEIGHT_IP, parts.ip, "address", features.ip),
            (
                WEIGHT_LOCATION,
                parts.location,
                "location",
                features.location,
            ),
            (WEIGHT_KIND, parts.kind, "type", Some(features.kind)),
        ] {
            if let Some((tag, value)) = value {
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

    fn write_context(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"{\"failed_login_count\":");
        push_integer(output, self.n_failed);
        output.extend_from_slice(b",\"known_ips\":[");
        for (i, seen) in self
            .values
            .ranked(Dimension::Ip)
            .iter()
            .take(CONTEXT_IPS_MAX)
            .enumerate()
        {
            if i > 0 {
                output.push(b',');
            }
            push_json_string(output, &seen.value);
        }
        output.extend_from_slice(b"],\"avg_threat_score\":");
        push_number(output, self.average_threat_score().unwrap_or(0.0));
        output.push(b'}');
    }

    fn average_threat_score(&self) -> Option<f64> {
        (self.n_threat_scores > 0).then(|| self.threat_score_sum / self.n_threat_scores as f64)
    }

    /// Appends the baseline as a compact record: a version byte, then postcard.
    pub fn write_record(&self, output: &mut Vec<u8>) {
        output.push(RECORD_VERSION);
        postcard::to_io(&self.summary(), output).expect("memory takes every write");
    }

    /// Reads what [`Self::write_record`] has written.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged("record is empty".to_owned());
        let (&version, record) = record.split_first().ok_or_else(damaged)?;
        if version != RECORD_VERSION {
            return Err(RecordError::Version {
                found: version,
                known: RECORD_VERSION,
            });
        }
        let summary: Summary = postcard::from_bytes(record)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        Self::from_summary(summary)
    }

    /// The baseline as plain values, the most frequent first.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let ranked = |dimension| self.values.ranked(dimension).into_iter().cloned().collect();
        Summary {
            n_events: self.n_events,
            n_failed: self.n_failed,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            hours: self.hours,
            recent_failures: self.recent_failures,
            threat_score_sum: self.threat_score_sum,
            n_threat_scores: self.n_threat_scores,
            ips: ranked(Dimension::Ip),
            locations: ranked(Dimension::Location),
            types: ranked(Dimension::Kind),
        }
    }

    /// Takes over plain values.
    ///
    /// # Errors
    /// If no history can have led to them: they would give scores outside of 0..=1.
    pub fn from_summary(summary: Summary) -> Result<Self, RecordError> {
        summary.check().map_err(RecordError::Damaged)?;
        let mut values = Table::default();
        for (dimension, seen) in [
            (Dimension::Ip, summary.ips),
            (Dimension::Location, summary.locations),
            (Dimension::Kind, summary.types),
        ] {
            for seen in seen {
                values.insert(dimension, seen);
            }
        }
        Ok(Self {
            n_events: summary.n_events,
            n_failed: summary.n_failed,
            hours: summary.hours,
            values,
            recent_failures: summary.recent_failures,
            threat_score_sum: summary.threat_score_sum,
            n_threat_scores: summary.n_threat_scores,
            first_ms: summary.first_ms,
            last_ms: summary.last_ms,
            is_changed: false,
        })
    }
}

/// Version of the records that [`Baseline::write_record`] writes.
pub const RECORD_VERSION: u8 = 1;

/// A baseline as it is stored, exported and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub n_events: u64,
    pub n_failed: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Events by hour of the day, UTC.
    pub hours: [u32; 24],
    /// Bits of the last 20 events, 1 for a failure, the lowest bit the newest.
    pub recent_failures: u32,
    pub threat_score_sum: f64,
    pub n_threat_scores: u64,
    pub ips: Vec<Seen>,
    pub locations: Vec<Seen>,
    pub types: Vec<Seen>,
}

impl Summary {
    /// Whether the counts can come from a history; if not, which ones.
    fn check(&self) -> Result<(), String> {
        let total = self.n_events;
        let n_by_hour: u64 = self.hours.iter().copied().map(u64::from).sum();
        let n_scores = self.n_threat_scores;
        // Beyond it numbers are no longer exact, and near the end they wrap.
        let is_possible = total <= 1 << 53
            && self.n_failed <= total
            && n_by_hour <= total
            && n_scores <= total
            && (0.0..=n_scores as f64).contains(&self.threat_score_sum)
            && u64::from(self.recent_failures.count_ones()) <= self.n_failed
            && self.recent_failures >> N_RECENT == 0;
        if !is_possible {
            return Err(format!("counts beyond those of {total} events"));
        }
        for (name, seen) in [
            ("ips", &self.ips),
            ("locations", &self.locations),
            ("types", &self.types),
        ] {
            let n_seen: u64 = seen.iter().map(|seen| u64::from(seen.n_events)).sum();
            let distinct: std::collections::HashSet<_> =
                seen.iter().map(|seen| &seen.value).collect();
            let n_bytes: usize = seen.iter().map(|seen| seen.value.len()).sum();
            let is_possible = n_seen <= total
                && distinct.len() == seen.len()
                && seen.len() <= VALUES_MAX
                && n_bytes <= VALUES_BYTES_MAX as usize;
            if !is_possible {
                return Err(format!("{name} beyond those of {total} events"));
            }
        }
        Ok(())
    }
}
