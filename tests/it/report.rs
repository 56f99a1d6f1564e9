//! What `sg-score --report` promises: the numbers that a plain count over the scored lines gives.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::tools::{DETECTORS, Ran, run, testdata};

/// A scored event, as the lines say.
struct Item {
    timestamp_ms: i64,
    user: String,
    ip: Option<String>,
    score: f64,
    risk: f64,
    episode: Option<String>,
}

fn demo() -> Vec<u8> {
    zstd::decode_all(std::fs::File::open(testdata("demo.ndjson.zst")).unwrap()).unwrap()
}

/// Episode by event.
fn labels() -> BTreeMap<String, String> {
    let labels = std::fs::read_to_string(testdata("demo_labels.ndjson")).unwrap();
    let field = |label: &Value, name: &str| label[name].as_str().unwrap().to_owned();
    labels
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|label: Value| (field(&label, "event_id"), field(&label, "episode")))
        .collect()
}

fn items(detector: &str, lines: &[u8], since_ms: i64) -> Vec<Item> {
    let labels = labels();
    let ran = run("sg-score", &["-q", "--threshold=0", detector], lines).expect_code(0);
    let items = ran.json_lines().into_iter().map(|event| Item {
        timestamp_ms: event["timestamp"].as_i64().unwrap(),
        user: event["user"].as_str().unwrap().to_owned(),
        ip: event["source_ip"].as_str().map(str::to_owned),
        score: event["anomaly"]["anomaly_score"].as_f64().unwrap_or(0.0),
        risk: event["anomaly"]["risk"]
            .as_f64()
            .unwrap_or(f64::NEG_INFINITY),
        episode: labels.get(event["event_id"].as_str().unwrap()).cloned(),
    });
    items.filter(|item| item.timestamp_ms >= since_ms).collect()
}

/// Alerts with no other of the same user or address within the hour before them.
fn n_incidents<'a>(alerts: impl Iterator<Item = &'a Item>) -> usize {
    let mut before: Vec<&Item> = Vec::new();
    let mut n_incidents = 0;
    for alert in alerts {
        let latest = |is_same: &dyn Fn(&Item) -> bool| {
            let same = before.iter().rev().find(|item| is_same(item));
            same.is_some_and(|item| alert.timestamp_ms - item.timestamp_ms < 3_600_000)
        };
        let is_open = latest(&|item| item.user == alert.user)
            || alert.ip.is_some() && latest(&|item| item.ip == alert.ip);
        n_incidents += usize::from(!is_open);
        before.push(alert);
    }
    n_incidents
}

#[track_caller]
fn assert_close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

fn share(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}

fn check_thresholds(report: &Value, items: &[Item], days: f64) {
    let n_users = items
        .iter()
        .map(|item| &item.user)
        .collect::<BTreeSet<_>>()
        .len();
    let n_attacks = items.iter().filter(|item| item.episode.is_some()).count();
    let episodes: BTreeSet<_> = items
        .iter()
        .filter_map(|item| item.episode.as_ref())
        .collect();
    assert_eq!(report["events"], items.len());
    assert_eq!(report["users"], n_users);
    assert_close(&report["days"], days);
    for found in report["thresholds"].as_array().unwrap() {
        let threshold = found["threshold"].as_f64().unwrap();
        let alerts: Vec<&Item> = items
            .iter()
            .filter(|item| item.score >= threshold)
            .collect();
        let n_incidents = n_incidents(alerts.iter().copied());
        assert_eq!(found["alerts"], alerts.len());
        assert_eq!(found["incidents"], n_incidents, "at {threshold}");
        assert_close(&found["alerts_per_day"], alerts.len() as f64 / days);
        assert_close(&found["incidents_per_day"], n_incidents as f64 / days);
        let a_month = n_incidents as f64 / n_users as f64 / days * 30.0;
        assert_close(&found["incidents_per_user_month"], a_month);
        let attacks: Vec<_> = alerts
            .iter()
            .filter_map(|item| item.episode.as_ref())
            .collect();
        assert_close(&found["precision"], share(attacks.len(), alerts.len()));
        assert_close(&found["recall"], share(attacks.len(), n_attacks));
        let n_found = attacks.iter().collect::<BTreeSet<_>>().len();
        assert_close(&found["episode_recall"], share(n_found, episodes.len()));
    }
}

fn check_quality(quality: &Value, items: &[Item], days: f64) {
    let n_users = items
        .iter()
        .map(|item| &item.user)
        .collect::<BTreeSet<_>>()
        .len();
    let mut ranked: Vec<(usize, &Item)> = items.iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.risk.total_cmp(&a.1.risk).then(a.0.cmp(&b.0)));
    let is_attack = |item: &Item| item.episode.is_some();
    let n_attacks = items.iter().filter(|item| is_attack(item)).count();
    assert_eq!(quality["attack_events"], n_attacks);
    // Precision at the last event of each risk, for each attack of that risk.
    let area: f64 = items
        .iter()
        .filter(|item| is_attack(item))
        .map(|attack| {
            let above: Vec<&Item> = items
                .iter()
                .filter(|item| item.risk >= attack.risk)
                .collect();
            share(
                above.iter().filter(|item| is_attack(item)).count(),
                above.len(),
            )
        })
        .sum();
    assert_close(&quality["pr_auc"], area / n_attacks as f64);

    // One event more would be one incident too many.
    let n_within = quality["budgets"][3]["events"].as_u64().unwrap() as usize;
    let n_of_top = |n_events: usize| {
        let mut top: Vec<(usize, &Item)> = ranked[..n_events].to_vec();
        top.sort_by_key(|(i, item)| (item.timestamp_ms, *i));
        n_incidents(top.into_iter().map(|(_, item)| item)) as f64
    };
    let n_max = (n_users as f64 * days / 30.0).floor().max(1.0);
    assert!(n_of_top(n_within) <= n_max && n_of_top(n_within + 1) > n_max);
    let budgets = quality["budgets"].as_array().unwrap();
    let expected = [0.001, 0.005, 0.01].map(|share| (items.len() as f64 * share).round() as usize);
    for (budget, n_events) in budgets.iter().zip(expected.into_iter().chain([n_within])) {
        assert_eq!(budget["events"], n_events);
        let top = ranked[..n_events].iter().map(|(_, item)| *item);
        let n_found = top.filter(|item| is_attack(item)).count();
        assert_close(&budget["precision"], share(n_found, n_events));
        assert_close(&budget["recall"], share(n_found, n_attacks));
    }
    let scenarios = quality["scenarios"].as_array().unwrap();
    let n_episodes: u64 = scenarios
        .iter()
        .map(|s| s["episodes"].as_u64().unwrap())
        .sum();
    assert_eq!(quality["episodes"], n_episodes);
    assert!(budgets.len() == 4 && !scenarios.is_empty());
}

#[test]
fn a_report_is_a_plain_count() {
    let lines = demo();
    let labels = testdata("demo_labels.ndjson");
    let labels = labels.to_str().unwrap();
    for (detector, since_ms) in [
        (DETECTORS[0], 0),
        (DETECTORS[1], 0),
        (DETECTORS[1], 1_736_900_000_000),
    ] {
        let since = format!("--report-since={since_ms}");
        let args = ["-q", "--report", "--labels", labels, &since, detector];
        let ran = run("sg-score", &args, &lines).expect_code(0);
        let report = ran.json_lines().remove(0);
        let items = items(detector, &lines, since_ms);
        let times = || items.iter().map(|item| item.timestamp_ms);
        let days = (times().max().unwrap() - times().min().unwrap()) as f64 / 86_400_000.0;
        check_thresholds(&report, &items, days);
        check_quality(&report["quality"], &items, days);
    }
}

#[test]
fn a_report_needs_no_labels_and_no_events() {
    let ran = run("sg-score", &["--report"], b"").expect_code(1);
    assert!(ran.stderr.contains("there are no events"), "{}", ran.stderr);
    let report = ran.json_lines().remove(0);
    assert_eq!(report["events"], 0);
    assert!(report.get("quality").is_none());
    let thresholds = report["thresholds"].as_array().unwrap();
    assert!(thresholds.iter().all(|threshold| threshold["alerts"] == 0));
    assert!(
        thresholds
            .iter()
            .any(|threshold| threshold["threshold"] == 0.7)
    );
    assert!(thresholds[0].get("precision").is_none());
}

#[test]
fn labels_that_are_none_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels");
    std::fs::write(
        &file,
        "{\"event_id\":\"a\",\"scenario\":\"s\"}\n{\"event_id\":\"a\"}\n",
    )
    .unwrap();
    let check = |args: &[&str], words: &str| {
        let Ran {
            code,
            stdout,
            stderr,
        } = run("sg-score", args, b"");
        assert_eq!((code, stdout.len()), (2, 0), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    let shown = file.to_str().unwrap();
    check(&["--report", "--labels", shown], "line 2 is not a label");
    check(
        &["--report", "--labels", "/nowhere"],
        "cannot read /nowhere",
    );
    check(&["--report", "--report-since", "x"], "--report-since \"x\"");
    check(&["--labels", shown], "--report");
    let twice =
        "{\"event_id\":\"a\",\"scenario\":\"s\"}\n\n{\"event_id\":\"a\",\"scenario\":\"t\"}\n";
    std::fs::write(&file, twice).unwrap();
    check(&["--report", "--labels", shown], "line 3 names another");
    // What nobody knows is left out.
    let event = crate::tools::event("a", "u", 1) + "\n" + &crate::tools::event("b", "u", 2);
    std::fs::write(&file, "{\"event_id\":\"a\",\"scenario\":\"_unknown\"}\n").unwrap();
    let args = ["-q", "--report", "--labels", shown];
    let ran = run("sg-score", &args, event.as_bytes()).expect_code(0);
    assert_eq!(ran.json_lines()[0]["events"], 1);
}

/// Labels of another file gave a report without an attack, and no word on it.
#[test]
fn labels_of_other_events_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels");
    let label = |i: usize| format!("{{\"event_id\":\"e{i}\",\"scenario\":\"s\"}}\n\n");
    let events: String = (0..10)
        .map(|i| crate::tools::event(&format!("e{i}"), "u", i) + "\n")
        .collect();
    let args = ["--report", "--labels", file.to_str().unwrap()];
    for (labels, n_matched, words) in [
        (0..10, 10, None),
        (5..15, 5, None),
        (8..18, 2, Some("2 of 10 labels name an event: most are")),
        (20..22, 0, Some("0 of 2 labels name an event: these are")),
    ] {
        std::fs::write(&file, labels.map(label).collect::<String>()).unwrap();
        let ran = run("sg-score", &args, events.as_bytes()).expect_code(0);
        let quality = &ran.json_lines()[0]["quality"];
        assert_eq!(quality["labels_matched"], n_matched);
        assert_eq!(ran.stderr.lines().count(), 1 + usize::from(words.is_some()));
        assert!(ran.stderr.contains(words.unwrap_or("")), "{}", ran.stderr);
    }
}

/// One event of the year 9999 made millions of days of a month.
#[test]
fn a_report_counts_no_years_without_events() {
    let lines = demo();
    let days = |lines: &[u8], n_left_out_min: i64| {
        let ran = run("sg-score", &["--report"], lines).expect_code(0);
        let report = ran.json_lines().remove(0);
        let n_left_out = report["days_left_out"].as_i64().unwrap();
        assert!(n_left_out >= n_left_out_min, "{n_left_out}");
        assert_eq!(ran.stderr.contains("days are not counted"), n_left_out > 0);
        report["days"].as_f64().unwrap()
    };
    let expected = days(&lines, 0);
    let far = crate::tools::event("far", "u", 253_402_300_000_000) + "\n";
    let early = crate::tools::event("early", "u", 0) + "\n";
    let with = [early.as_bytes(), &lines, far.as_bytes()].concat();
    let found = days(&with, 2_900_000);
    assert!((found - expected).abs() <= 4.0, "{found} {expected}");
    // A quiet weekend is no gap.
    let at = |day: i64| crate::tools::event(&format!("e{day}"), "u", day * 86_400_000) + "\n";
    assert!((days((at(0) + &at(8)).as_bytes(), 0) - 8.0).abs() < 1e-9);
    assert!((days((at(0) + &at(9)).as_bytes(), 8) - 1.0).abs() < 1e-9);
}

/// On a terminal it is a table; names of scenarios are anybody's text.
#[test]
fn a_report_is_a_table_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (labels, events) = (folder.path().join("labels"), folder.path().join("events"));
    std::fs::write(
        &labels,
        "{\"event_id\":\"a\",\"scenario\":\"s\\u001b[31m\\u202e\"}\n",
    )
    .unwrap();
    std::fs::write(&events, crate::tools::event("a", "u", 1)).unwrap();
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_sg-score")).display();
    let (labels, events) = (labels.display(), events.display());
    let command = format!("{path} -q --report --labels {labels} < {events}");
    let output = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 events of 1 users") && text.contains("THRESHOLD"),
        "{text}"
    );
    assert!(text.contains("s<001B>[31m<202E>"), "{text}");
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{202e}'),
        "{text:?}"
    );
}
