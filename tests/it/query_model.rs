//! How a slow reader would answer `sg-query`: the stored lines read with `serde_json`, sorted and
//! filtered one by one, and counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::{lines_of, store};
use crate::tools::{Ran, generated, run, shell};

/// Settings that find anomalies of every severity in little input.
const SCORE: [&str; 4] = [
    "-q",
    "--threshold=0.5",
    "--min-events=20",
    "--severities=0.55,0.6,0.66",
];
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];

pub(crate) fn ask(db: &Path, args: &[&str]) -> Ran {
    let args = [&["--db", db.to_str().unwrap()], args].concat();
    run("sg-query", &args, b"")
}

/// An event of the model: its fields as `serde_json` reads them, its text cut from the line.
pub(crate) struct Item {
    pub(crate) fields: Value,
    /// The event with its anomaly, and with what the analysis would need.
    pub(crate) line: String,
    pub(crate) anomaly_line: Option<String>,
}

impl Item {
    fn of(line: &str) -> Self {
        let scored = line.split_once(",\"context\":{\"failed_login_count\":");
        let anomaly = scored.and_then(|(event, _)| event.split_once(",\"anomaly\":"));
        Self {
            fields: serde_json::from_str(line).unwrap(),
            anomaly_line: anomaly.map(|(_, anomaly)| format!("{anomaly}\n")),
            line: format!("{line}\n"),
        }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_default()
    }

    pub(crate) fn timestamp_ms(&self) -> i64 {
        self.fields["timestamp"].as_i64().unwrap()
    }

    fn key(&self) -> (i64, &str) {
        (self.timestamp_ms(), self.text("event_id"))
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.text("source_ip").parse().ok()
    }

    pub(crate) fn score(&self) -> Option<f64> {
        self.fields["anomaly"]["anomaly_score"].as_f64()
    }

    pub(crate) fn severity(&self) -> Option<&str> {
        self.fields["anomaly"]["severity"].as_str()
    }

    pub(crate) fn severity_rank(&self) -> Option<usize> {
        let severity = self.severity()?;
        SEVERITIES.iter().position(|name| *name == severity)
    }
}

/// The model of a database, the oldest event first.
pub(crate) fn items_of(lines: &[u8]) -> Vec<Item> {
    let lines = lines_of(lines).into_iter();
    let mut items: Vec<Item> = lines
        .map(|line| Item::of(std::str::from_utf8(line).unwrap().trim_end()))
        .collect();
    items.sort_by(|a, b| a.key().cmp(&b.key()));
    items
}

/// Scored events with what orders and filters stumble over: many at one time, ids of different
/// lengths that do not come in order, addresses that are absent or written in another way.
pub(crate) fn odd_lines() -> Vec<u8> {
    let lines = generated(3_000, 6, 5);
    let mut odd = String::new();
    for (i, line) in std::str::from_utf8(&lines).unwrap().lines().enumerate() {
        let fields: Value = serde_json::from_str(line).unwrap();
        let timestamp_ms = fields["timestamp"].as_i64().unwrap();
        let id = fields["event_id"].as_str().unwrap();
        let address = fields["source_ip"].as_str().unwrap();
        let n = i * 7_919 % 10_007;
        let new_id = [
            n.to_string(),
            format!("{n}:x"),
            format!("{n}ü"),
            format!("{n}-"),
        ];
        let mut line = line.replacen(id, &new_id[i % 4], 1).replacen(
            &format!("\"timestamp\":{timestamp_ms}"),
            &format!("\"timestamp\":{}", timestamp_ms / 3_600_000 * 3_600_000),
            1,
        );
        if i % 37 == 0 {
            line = line.replacen(&format!("\"source_ip\":\"{address}\","), "", 1);
        } else if i % 50 == 0 {
            line = line.replacen(address, "2001:DB8:0::1", 1);
        }
        odd.push_str(&line);
        odd.push('\n');
    }
    run("sg-score", &SCORE, odd.as_bytes())
        .expect_code(0)
        .stdout
}

/// A database and its model.
pub(crate) fn odd_database() -> (TempDir, PathBuf, Vec<Item>) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = odd_lines();
    store(&db, &lines).expect_code(0);
    (folder, db, items_of(&lines))
}

/// A question, and how a slow reader would answer it.
#[derive(Debug, Default)]
pub(crate) struct Question {
    pub(crate) is_of_anomalies: bool,
    pub(crate) since: Option<i64>,
    pub(crate) until: Option<i64>,
    pub(crate) user: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) min_score: Option<f64>,
    pub(crate) severity: Option<usize>,
    pub(crate) limit: Option<usize>,
    pub(crate) is_oldest_first: bool,
}

impl Question {
    pub(crate) fn args(&self) -> Vec<String> {
        let what = if self.is_of_anomalies {
            "anomalies"
        } else {
            "events"
        };
        let mut args = vec![what.to_owned()];
        let mut add = |name: &str, value: Option<String>| {
            args.extend(value.map(|value| format!("--{name}={value}")));
        };
        add("since", self.since.map(|ms| ms.to_string()));
        add("until", self.until.map(|ms| ms.to_string()));
        add("user", self.user.clone());
        add("type", self.kind.clone());
        add("ip", self.ip.clone());
        add("min-score", self.min_score.map(|score| score.to_string()));
        add(
            "severity",
            self.severity.map(|rank| SEVERITIES[rank].to_owned()),
        );
        add("limit", self.limit.map(|limit| limit.to_string()));
        if self.is_oldest_first {
            args.push("--oldest-first".to_owned());
        }
        args
    }

    pub(crate) fn matches(&self, item: &Item) -> bool {
        let ip: Option<IpAddr> = self.ip.as_ref().map(|ip| ip.parse().unwrap());
        (!self.is_of_anomalies || item.score().is_some())
            && self.since.is_none_or(|ms| item.timestamp_ms() >= ms)
            && self.until.is_none_or(|ms| item.timestamp_ms() <= ms)
            && self
                .user
                .as_ref()
                .is_none_or(|user| user == item.text("user"))
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| kind == item.text("type"))
            && (ip.is_none() || ip == item.ip())
            && (self.min_score.is_none() || item.score() >= self.min_score)
            && (self.severity.is_none() || item.severity_rank() >= self.severity)
    }

    /// All lines of the answer, without the limit.
    pub(crate) fn answer(&self, items: &[Item]) -> Vec<String> {
        let mut lines: Vec<String> = items
            .iter()
            .filter(|item| self.matches(item))
            .map(|item| match &item.anomaly_line {
                Some(line) if self.is_of_anomalies => line.clone(),
                _ => item.line.clone(),
            })
            .collect();
        if !self.is_oldest_first {
            lines.reverse();
        }
        lines
    }

    /// Asks, and compares all that comes back.
    #[track_caller]
    pub(crate) fn check(&self, db: &Path, items: &[Item]) -> usize {
        let args = self.args();
        let ran = ask(db, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut expected = self.answer(items);
        let limit = self.limit.unwrap_or(100);
        let has_more = limit > 0 && expected.len() > limit;
        expected.truncate(limit);
        assert!(ran.text() == expected.concat(), "{args:?}: {}", ran.text());
        assert_eq!(ran.code, i32::from(expected.is_empty()), "{args:?}");
        assert_eq!(!ran.stderr.is_empty(), has_more, "{args:?}: {}", ran.stderr);
        expected.len()
    }
}

/// Text that a terminal or a spreadsheet would obey, and text that comes close to it.
pub(crate) const HOSTILE: [&str; 28] = [
    "\u{1b}[31mred\u{1b}[0m",
    "\u{1b}]0;title\u{7}",
    "\u{9b}2J",
    "\u{9d}0;title\u{9c}",
    "\u{202e}gpj.exe",
    "\u{2066}x\u{2069}\u{200f}",
    "a\rb",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "\u{7f}\u{8}x",
    "\u{0}x",
    "x\u{85}y\u{2028}z",
    "\u{feff}x\u{ad}\u{200b}",
    "\u{e0041}\u{e007f}",
    "=1+1",
    "+1",
    "-1",
    "@x",
    "\t=1",
    "\r=1",
    "'=1",
    "a,b",
    "a\"b",
    "\"",
    "\\",
    " ",
    "日本語 e\u{301}",
];

/// One event for each hostile text, with it in all its fields.
pub(crate) fn hostile_lines() -> String {
    let line = |(i, text): (usize, &&str)| {
        // An id has no control characters, and is one event's.
        let plain: String = text.chars().filter(|c| !c.is_control()).collect();
        let id = serde_json::to_string(&format!("{plain}{i}")).unwrap();
        let timestamp_ms = 1_735_689_600_000 + i as i64 * 3_000_500;
        let text = serde_json::to_string(text).unwrap();
        let event = format!(r#""event_id":{id},"user":{text},"timestamp":{timestamp_ms}"#);
        format!(
            r#"{{{event},"type":{text},"source_ip":"192.0.2.1","geo_location":{text},"other":{text},"anomaly":{{{event},"anomaly_score":0.75,"severity":"high","reasons":[{text},"and"]}}}}
"#
        )
    };
    HOSTILE.iter().enumerate().map(line).collect()
}

/// The most frequent values, of equals the one seen last.
fn usual<'a>(values: impl Iterator<Item = &'a str>, n_events: usize) -> Value {
    let mut counts: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for (i, value) in values.enumerate().filter(|(_, value)| !value.is_empty()) {
        let count = counts.entry(value).or_default();
        *count = (count.0 + 1, i);
    }
    let mut top: Vec<_> = counts.iter().collect();
    top.sort_by_key(|&(value, &(n, last))| (u64::MAX - n, usize::MAX - last, *value));
    let top: Vec<Value> = top
        .into_iter()
        .take(20)
        .map(|(value, (n, _))| {
            json!({"value": value, "events": n, "share": rounded(*n as f64 / n_events as f64)})
        })
        .collect();
    json!({"distinct": counts.len(), "top": top})
}

fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

/// Another program's idea of time.
pub(crate) fn utc(timestamp_ms: i64) -> String {
    let seconds = timestamp_ms / 1_000;
    let date = shell(&format!("date -u -d @{seconds} +%Y-%m-%dT%H:%M:%SZ"));
    date.expect_code(0).text().trim_end().to_owned()
}

pub(crate) fn is_failure(fields: &Value) -> bool {
    let kind = fields["type"].as_str().unwrap();
    let endings = ["_FAILED", "_DENIED", "_FAILURE"];
    let status = fields["status"].as_str().unwrap_or_default();
    endings.iter().any(|ending| kind.ends_with(ending)) || ["failed", "blocked"].contains(&status)
}

/// The profile of a user, counted from the events.
pub(crate) fn profile_of(user: &str, events: &[Value]) -> Value {
    let events: Vec<&Value> = events
        .iter()
        .filter(|event| event["user"] == user)
        .collect();
    let n_events = events.len();
    let times: Vec<i64> = events
        .iter()
        .map(|event| event["timestamp"].as_i64().unwrap())
        .collect();
    let n_failed = events.iter().filter(|event| is_failure(event)).count();
    let mut hours = [0; 24];
    for ms in &times {
        hours[usize::try_from(ms / 3_600_000 % 24).unwrap()] += 1;
    }
    let threats: Vec<f64> = events
        .iter()
        .filter_map(|event| event["threat_score"].as_f64())
        .collect();
    let average = threats.iter().sum::<f64>() / threats.len() as f64;
    let values = |field: &'static str| {
        let values = events
            .iter()
            .map(move |event| event[field].as_str().unwrap_or_default());
        usual(values, n_events)
    };
    let mut newest: Vec<&&Value> = events.iter().collect();
    newest.sort_by_key(|event| std::cmp::Reverse(key_of(event)));
    let mut week = vec![vec![0; 24]; 7];
    for event in newest.iter().take(10_000) {
        let ms = event["timestamp"].as_i64().unwrap();
        // 1970 began on a Thursday.
        let (day, hour) = ((ms / 86_400_000 + 3) % 7, ms / 3_600_000 % 24);
        week[usize::try_from(day).unwrap()][usize::try_from(hour).unwrap()] += 1;
    }
    json!({
        "week": {"events": n_events.min(10_000), "hours": week},
        "anomalies": raised_of(&newest),
        "user": user, "events": n_events, "failed": n_failed,
        "failure_share": rounded(n_failed as f64 / n_events as f64),
        "first": utc(*times.iter().min().unwrap()), "last": utc(*times.iter().max().unwrap()),
        "avg_threat_score": (!threats.is_empty()).then(|| rounded(average)),
        "hours": hours,
        "addresses": values("source_ip"), "locations": values("geo_location"), "types": values("type"),
    })
}

fn key_of(event: &Value) -> (i64, &str) {
    let timestamp_ms = event["timestamp"].as_i64().unwrap();
    (timestamp_ms, event["event_id"].as_str().unwrap())
}

/// The anomalies among a user's events, the newest of which come first.
fn raised_of(newest: &[&&Value]) -> Value {
    let raised = newest.iter().filter(|event| event["anomaly"].is_object());
    let counted: Vec<_> = raised.clone().take(1_000).collect();
    let n_of = |severity: &str| {
        let is_it = |event: &&&&&Value| event["anomaly"]["severity"] == severity;
        counted.iter().filter(is_it).count()
    };
    let last = counted.iter().take(5).map(|event| {
        let anomaly = &event["anomaly"];
        json!({
            "event_id": event["event_id"], "timestamp": event["timestamp"], "type": event["type"],
            "time": utc(event["timestamp"].as_i64().unwrap()), "severity": anomaly["severity"],
            "anomaly_score": anomaly["anomaly_score"], "reasons": anomaly["reasons"],
        })
    });
    json!({
        "low": n_of("low"), "medium": n_of("medium"), "high": n_of("high"),
        "critical": n_of("critical"), "more": raised.count() > 1_000, "last": last.collect::<Vec<_>>(),
    })
}
