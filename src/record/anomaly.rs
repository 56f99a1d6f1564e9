//! The anomaly record: what a detector says of one event, whichever detector it was.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::EventView;
use super::scan::{Scanner, Value};
use super::text::{push_integer, push_json_string, push_number};

/// How bad an anomaly is, by thresholds on its score.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// How much is known of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineState {
    Learning,
    Active,
}

impl BaselineState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Active => "active",
        }
    }
}

/// The anomaly of one event, before it is written down.
pub struct Anomaly<'a> {
    pub event: &'a EventView<'a>,
    /// 0..=1, the score that thresholds are compared with.
    pub score: f64,
    /// What to rank by: it does not saturate.
    pub risk: f64,
    pub time: f64,
    pub ip: f64,
    pub location: f64,
    pub kind: f64,
    pub failure: f64,
    /// Sentences, the weightiest first.
    pub reasons: &'a [String],
    pub detector: &'static str,
    pub archetype: Option<&'static str>,
    pub severity: Severity,
    pub baseline: BaselineState,
    /// Events behind the baseline, this one not included.
    pub n_baseline_events: u64,
}

impl Anomaly<'_> {
    /// Appends the record as one JSON object.
    pub fn write(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"{\"event_id\":");
        push_json_string(output, self.event.event_id);
        output.extend_from_slice(b",\"user\":");
        push_json_string(output, self.event.user);
        output.extend_from_slice(b",\"timestamp\":");
        push_integer(output, self.event.timestamp_ms);
        for (name, number) in [
            (&b",\"anomaly_score\":"[..], self.score),
            (b",\"time_anomaly\":", self.time),
            (b",\"ip_anomaly\":", self.ip),
            (b",\"location_anomaly\":", self.location),
            (b",\"type_anomaly\":", self.kind),
            (b",\"failure_anomaly\":", self.failure),
        ] {
            output.extend_from_slice(name);
            push_number(output, number);
        }
        output.extend_from_slice(b",\"reasons\":[");
        for (i, reason) in self.reasons.iter().enumerate() {
            if i > 0 {
                output.push(b',');
            }
            push_json_string(output, reason);
        }
        output.extend_from_slice(b"],\"detector\":");
        push_json_string(output, self.detector);
        output.extend_from_slice(b",\"risk\":");
        push_number(output, self.risk);
        output.extend_from_slice(b",\"archetype\":");
        match self.archetype {
            Some(archetype) => push_json_string(output, archetype),
            None => output.extend_from_slice(b"null"),
        }
        output.extend_from_slice(b",\"severity\":");
        push_json_string(output, self.severity.name());
        output.extend_from_slice(b",\"baseline\":{\"state\":");
        push_json_string(output, self.baseline.name());
        output.extend_from_slice(b",\"events\":");
        push_integer(output, self.n_baseline_events);
        output.extend_from_slice(b"}}");
    }
}

/// Addresses that a context names.
pub const KNOWN_IPS_MAX: usize = 10;

/// Appends what an analyst needs to know of a baseline, as one JSON object: failed events, known
/// addresses of which the first ones are named, the average threat score.
pub fn write_context<T: AsRef<str>>(
    n_failed: u64,
    known_ips: impl Iterator<Item = T>,
    threat_score_average: f64,
    output: &mut Vec<u8>,
) {
    output.extend_from_slice(b"{\"failed_login_count\":");
    push_integer(output, n_failed);
    output.extend_from_slice(b",\"known_ips\":[");
    for (i, address) in known_ips.take(KNOWN_IPS_MAX).enumerate() {
        if i > 0 {
            output.push(b',');
        }
        push_json_string(output, address.as_ref());
    }
    output.extend_from_slice(b"],\"avg_threat_score\":");
    push_number(output, threat_score_average);
    output.push(b'}');
}

/// An anomaly record with another severity, every other byte as it was; none if it has no severity.
#[must_use]
pub fn with_severity(anomaly: &str, severity: Severity) -> Option<Vec<u8>> {
    let mut scanner = Scanner::new(anomaly);
    let mut has_next = scanner.open_object().ok()?;
    while has_next {
        let key = scanner.key().ok()?;
        let value = scanner.value(1).ok()?;
        if let ("severity", Value::String(quoted)) = (scanner.get(key.span), value) {
            let (start, end) = (quoted.span.start as usize, quoted.span.end as usize);
            let parts = [&anomaly[..start], severity.name(), &anomaly[end..]];
            return Some(parts.concat().into_bytes());
        }
        has_next = scanner.next_member().ok()?;
    }
    None
}

/// An anomaly record as it is read back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnomalyRecord {
    pub event_id: String,
    pub user: String,
    pub timestamp: i64,
    pub anomaly_score: f64,
    /// Tells apart what has the same score; unlike a score it has no upper end.
    #[serde(default)]
    pub risk: f64,
    pub severity: Severity,
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The likeliest kind of attack, if the detector knows kinds.
    #[serde(default)]
    pub archetype: Option<String>,
    #[serde(default)]
    pub incident: Option<IncidentRecord>,
}

/// What an anomaly is to the incident that it is part of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// The event that the incident began with.
    pub id: String,
    /// `opened`, `worse`, or `more` of the same.
    pub state: String,
    /// `user`, `address` or `campaign`: what its anomalies have in common.
    pub kind: String,
    /// Anomalies up to this one.
    pub alerts: u32,
    /// Their users.
    pub users: u32,
}

impl IncidentRecord {
    /// Whether the anomaly has opened the incident or made it worse.
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.state != "more"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_severity_is_replaced() {
        let check = |anomaly: &str, expected: Option<&str>| {
            let found = with_severity(anomaly, Severity::High);
            let found = found.map(|found| String::from_utf8(found).expect("text"));
            assert_eq!(found.as_deref(), expected, "{anomaly}");
        };
        check(
            r#"{"reasons":["\"severity\":\"low\"",{"severity":"low"}], "severity" : "low","n":1.50}"#,
            Some(
                r#"{"reasons":["\"severity\":\"low\"",{"severity":"low"}], "severity" : "high","n":1.50}"#,
            ),
        );
        check(r#"{"severity":3}"#, None);
        check("{}", None);
        check("[]", None);
    }
}
