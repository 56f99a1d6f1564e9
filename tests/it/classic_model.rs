//! The classic detector against a plain model of it, written from its specification (detector.md,
//! section C) and slow on purpose: maps of strings, and every event's failure flag kept.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::tools::{generated, run};

/// An event as the model sees it, and how its line spells it.
#[derive(Clone, Debug)]
struct Sample {
    user: &'static str,
    timestamp_ms: i64,
    kind: &'static str,
    ip: Option<&'static str>,
    location: Option<&'static str>,
    status: Option<&'static str>,
    threat_score: Option<f64>,
    /// Type and place under their other names.
    uses_aliases: bool,
}

impl Sample {
    fn line(&self, number: usize) -> String {
        let mut event = json!({
            "event_id": format!("e{number}"),
            "user": self.user,
            "timestamp": self.timestamp_ms,
        });
        let kind_name = if self.uses_aliases {
            "event_type"
        } else {
            "type"
        };
        event[kind_name] = json!(self.kind);
        if let Some(ip) = self.ip {
            event["source_ip"] = json!(ip);
        }
        if let Some(location) = self.location {
            if self.uses_aliases {
                event["metadata"] = json!({ "geo_location": location });
            } else {
                event["geo_location"] = json!(location);
            }
        }
        if let Some(status) = self.status {
            event["status"] = json!(status);
        }
        if let Some(threat_score) = self.threat_score {
            event["threat_score"] = json!(threat_score);
        }
        event.to_string()
    }

    fn is_failure(&self) -> bool {
        let status = self.status.map(str::to_lowercase);
        matches!(status.as_deref(), Some("failed" | "blocked"))
            || ["_FAILED", "_DENIED", "_FAILURE"]
                .iter()
                .any(|ending| self.kind.ends_with(ending))
    }

    fn hour(&self) -> String {
        ((self.timestamp_ms / 3_600_000) % 24).to_string()
    }

    /// Addresses have many spellings and are one value.
    fn address(&self) -> Option<String> {
        let ip = self.ip.filter(|ip| !ip.is_empty())?;
        Some(ip.parse::<IpAddr>().unwrap().to_string())
    }

    fn place(&self) -> Option<String> {
        let location = self.location.filter(|location| !location.is_empty())?;
        Some(location.to_owned())
    }
}

/// All that happened to one user, in order.
#[derive(Default)]
struct History {
    hours: HashMap<String, u32>,
    ips: HashMap<String, u32>,
    locations: HashMap<String, u32>,
    kinds: HashMap<String, u32>,
    ip_last_seen: HashMap<String, usize>,
    failures: Vec<bool>,
    threat_scores: Vec<f64>,
}

/// What the model says of one event.
struct Expected {
    parts: [f64; 5],
    score: f64,
    n_history: usize,
    is_anomaly: bool,
    context: Option<(usize, Vec<String>, f64)>,
}

const PARTS: [&str; 5] = [
    "time_anomaly",
    "ip_anomaly",
    "location_anomaly",
    "type_anomaly",
    "failure_anomaly",
];

impl History {
    fn observe(&mut self, sample: &Sample, n_min: usize, threshold: f64) -> Expected {
        let n_history = self.failures.len();
        let parts = self.parts(sample);
        let [time, ip, location, kind, failure] = parts;
        let score = 0.25 * time + 0.30 * ip + 0.20 * location + 0.15 * kind + 0.10 * failure;
        let is_anomaly = n_history > 0 && n_history >= n_min && score >= threshold;
        let is_threat = sample.threat_score.is_some_and(|score| score >= 0.7);
        let context = (is_anomaly || is_threat).then(|| self.context());
        self.learn(sample);
        Expected {
            parts,
            score,
            n_history,
            is_anomaly,
            context,
        }
    }

    fn parts(&self, sample: &Sample) -> [f64; 5] {
        let total = self.failures.len() as f64;
        let part = |counts: &HashMap<String, u32>, value: Option<String>| match value {
            None => 0.5,
            Some(value) => 1.0 - f64::from(counts.get(&value).copied().unwrap_or(0)) / total,
        };
        let n_failed = |failures: &[bool]| failures.iter().filter(|&&failed| failed).count() as f64;
        let recent = &self.failures[self.failures.len().saturating_sub(20)..];
        let recent_share = n_failed(recent) / recent.len() as f64;
        let base = n_failed(&self.failures) / total;
        let failure = if !sample.is_failure() || base >= 1.0 {
            0.0
        } else {
            f64::max(0.0, (recent_share - base) / (1.0 - base))
        };
        [
            part(&self.hours, Some(sample.hour())),
            part(&self.ips, sample.address()),
            part(&self.locations, sample.place()),
            part(&self.kinds, Some(sample.kind.to_owned())),
            failure,
        ]
    }

    /// Failed events, the ten most frequent addresses (of equals the latest first), and the
    /// mean threat score.
    fn context(&self) -> (usize, Vec<String>, f64) {
        let mut ips: Vec<_> = self.ips.iter().collect();
        ips.sort_by_key(|(ip, n_events)| {
            (
                std::cmp::Reverse(**n_events),
                std::cmp::Reverse(self.ip_last_seen[*ip]),
            )
        });
        let ips = ips.into_iter().take(10).map(|(ip, _)| ip.clone()).collect();
        let sum: f64 = self.threat_scores.iter().sum();
        let average = sum / self.threat_scores.len().max(1) as f64;
        (
            self.failures.iter().filter(|&&failed| failed).count(),
            ips,
            average,
        )
    }

    fn learn(&mut self, sample: &Sample) {
        *self.hours.entry(sample.hour()).or_default() += 1;
        *self.kinds.entry(sample.kind.to_owned()).or_default() += 1;
        if let Some(ip) = sample.address() {
            self.ip_last_seen.insert(ip.clone(), self.failures.len());
            *self.ips.entry(ip).or_default() += 1;
        }
        if let Some(place) = sample.place() {
            *self.locations.entry(place).or_default() += 1;
        }
        self.failures.push(sample.is_failure());
        self.threat_scores.extend(sample.threat_score);
    }
}

/// What a published number may differ by: half of the sixth digit.
#[track_caller]
fn assert_six_digits(published: &Value, expected: f64, what: &str) {
    let published = published.as_f64().unwrap_or_else(|| panic!("{what}"));
    let tolerance = if expected == 0.0 {
        1e-9
    } else {
        0.500_001 * 10_f64.powf(expected.abs().log10().floor() - 5.0)
    };
    assert!(
        (published - expected).abs() <= tolerance,
        "{what}: published {published}, the model says {expected}"
    );
}

fn severity_of(score: f64) -> &'static str {
    match score {
        _ if score >= 0.9 => "critical",
        _ if score >= 0.8 => "high",
        _ if score >= 0.75 => "medium",
        _ => "low",
    }
}

/// Scores the samples with the program and holds each line against the model; the number of
/// anomalies.
fn check(samples: &[Sample], n_min: usize, threshold: f64, jobs: u32) -> usize {
    let input: String = samples
        .iter()
        .enumerate()
        .map(|(i, sample)| sample.line(i) + "\n")
        .collect();
    let args = [
        format!("--min-events={n_min}"),
        format!("--threshold={threshold}"),
        format!("-j{jobs}"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = run("sg-score", &args, input.as_bytes()).expect_code(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), samples.len());
    let mut users: HashMap<&str, History> = HashMap::new();
    let mut n_anomalies = 0;
    for (i, (sample, line)) in samples.iter().zip(&lines).enumerate() {
        let history = users.entry(sample.user).or_default();
        let expected = history.observe(sample, n_min, threshold);
        let what = format!("event {i}: {line}");
        assert_eq!(
            line.get("anomaly").is_some(),
            expected.is_anomaly,
            "{what}, the model's score is {}",
            expected.score
        );
        if let Some(anomaly) = line.get("anomaly") {
            n_anomalies += 1;
            check_anomaly(anomaly, sample, i, &expected, &what);
        }
        assert_eq!(
            line.get("context").is_some(),
            expected.context.is_some(),
            "{what}"
        );
        if let Some((n_failed, ips, average)) = &expected.context {
            let context = &line["context"];
            assert_eq!(context["failed_login_count"], *n_failed, "{what}");
            assert_eq!(context["known_ips"], json!(ips), "{what}");
            assert_six_digits(&context["avg_threat_score"], *average, &what);
        }
    }
    n_anomalies
}

fn check_anomaly(anomaly: &Value, sample: &Sample, i: usize, expected: &Expected, what: &str) {
    assert_eq!(anomaly["event_id"], format!("e{i}"), "{what}");
    assert_eq!(anomaly["user"], sample.user, "{what}");
    assert_eq!(anomaly["timestamp"], sample.timestamp_ms, "{what}");
    assert_six_digits(&anomaly["anomaly_score"], expected.score, what);
    assert_six_digits(&anomaly["risk"], expected.score, what);
    for (name, part) in PARTS.iter().zip(expected.parts) {
        assert_six_digits(&anomaly[*name], part, &format!("{name} of {what}"));
    }
    assert_eq!(anomaly["severity"], severity_of(expected.score), "{what}");
    assert_eq!(anomaly["baseline"]["events"], expected.n_history, "{what}");
    assert_eq!(anomaly["detector"], "classic", "{what}");
    let n_reasons = anomaly["reasons"].as_array().unwrap().len();
    assert!(n_reasons > 0 || expected.score < 0.7, "{what}");
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let ips = vec![
        None,
        Some(""),
        Some("10.0.0.1"),
        Some("10.0.0.1"),
        Some("10.0.0.2"),
        Some("2001:db8::1"),
        Some("2001:DB8:0::0001"),
        Some("192.0.2.1"),
        Some("192.0.2.2"),
        Some("192.0.2.3"),
        Some("192.0.2.4"),
        Some("192.0.2.5"),
        Some("192.0.2.6"),
        Some("192.0.2.7"),
        Some("192.0.2.8"),
    ];
    let kinds = vec![
        "LOGIN_SUCCESS",
        "LOGIN_SUCCESS",
        "LOGIN_FAILED",
        "ACCESS_DENIED",
        "X_FAILURE",
        "FAILED_X",
        "ü",
    ];
    let locations = vec![
        None,
        Some(""),
        Some("Berlin, DE"),
        Some("Berlin, DE"),
        Some("Zürich, CH"),
        Some("a\"b\\\n"),
    ];
    let statuses = vec![
        None,
        Some("success"),
        Some("failed"),
        Some("blocked"),
        Some("pending"),
        Some("FAILED"),
    ];
    let sample = (
        select(vec!["alice", "alice", "bob", "ü \"q\"", "\u{1b}[31m"]),
        0..72_i64,
        0..3_600_000_i64,
        select(ips),
        select(kinds),
        select(locations),
        select(statuses),
        prop::option::of(0..=20_u32),
        any::<bool>(),
    );
    let sample = sample.prop_map(
        |(user, hour, ms, ip, kind, location, status, threat, uses_aliases)| Sample {
            user,
            timestamp_ms: 1_735_689_600_000 + hour * 3_600_000 + ms,
            kind,
            ip,
            location,
            status,
            threat_score: threat.map(|twentieths| f64::from(twentieths) / 20.0),
            uses_aliases,
        },
    );
    prop::collection::vec(sample, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_streams_score_as_the_model_says(
        samples in samples(),
        n_min in 0..=30_usize,
        threshold in select(vec![0.0, 0.3, 0.5, 0.62, 0.7]),
        jobs in select(vec![1, 2, 7]),
    ) {
        check(&samples, n_min, threshold, jobs);
    }
}

#[test]
fn a_user_with_habits_is_scored_as_the_model_says() {
    let usual = Sample {
        user: "alice",
        timestamp_ms: 1_735_689_600_000,
        kind: "LOGIN_SUCCESS",
        ip: Some("10.0.0.1"),
        location: Some("Berlin, DE"),
        status: Some("success"),
        threat_score: Some(0.1),
        uses_aliases: false,
    };
    let mut samples = vec![usual.clone(); 100];
    let strange = Sample {
        timestamp_ms: usual.timestamp_ms + 5 * 3_600_000,
        kind: "ADMIN_CHANGE_DENIED",
        ip: Some("203.0.113.9"),
        location: Some("Lagos, NG"),
        ..usual.clone()
    };
    // Just before the baseline is large enough, and just after.
    let early = [&samples[..99], std::slice::from_ref(&strange)].concat();
    assert_eq!(check(&early, 100, 0.7, 1), 0);
    samples.push(strange.clone());
    assert_eq!(check(&samples, 100, 0.7, 2), 1);
    // A run of failures counts for more with each, and for less once it has left the last 20.
    samples.extend(vec![strange; 30]);
    samples.extend(vec![usual; 25]);
    assert!(check(&samples, 100, 0.0, 7) > 50);
    assert_eq!(check(&samples, 0, 0.0, 1), samples.len() - 1);
}

#[test]
fn the_number_of_jobs_changes_no_byte() {
    let lines = generated(8_000, 25, 21);
    let scored = |jobs: &str| {
        let args = ["-q", "--threshold=0.5", "--min-events=10", jobs];
        run("sg-score", &args, &lines).expect_code(0).stdout
    };
    let one = scored("-j1");
    assert!(one.len() > lines.len());
    assert!(scored("-j2") == one);
    assert!(scored("-j7") == one);
}
