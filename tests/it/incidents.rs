//! What anomalies are folded into: by a plain model over the scored lines, whatever the threads, the
//! cuts between runs, and the way they were stored.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::tools::{DETECTORS, digest, generated, run, shell};

const HOUR_MS: i64 = 3_600_000;

fn score(detector: &str, args: &[&str], lines: &[u8]) -> Vec<Value> {
    let args = [
        &["-q", "--threshold=0.6", "--min-events=20", detector],
        args,
    ]
    .concat();
    run("sg-score", &args, lines).expect_code(0).json_lines()
}

/// The latest alert within the hour that `is_same` names, as its place.
fn latest(alerts: &[&Value], now: &Value, is_same: impl Fn(&Value) -> bool) -> Option<usize> {
    let last = alerts.iter().rposition(|alert| is_same(alert))?;
    let time = |event: &Value| event["timestamp"].as_i64().unwrap();
    ((time(now) - time(alerts[last])).abs() < HOUR_MS).then_some(last)
}

#[test]
fn incidents_are_those_of_a_plain_model() {
    let lines = generated(12_000, 25, 61);
    let events = score(DETECTORS[0], &[], &lines);
    let alerts: Vec<&Value> = events
        .iter()
        .filter(|event| event["anomaly"].is_object())
        .collect();
    assert!(alerts.len() > 100);
    // Of each alert its incident; of each incident its first alert, alerts, users, severity, success.
    let mut incident_of: Vec<usize> = Vec::new();
    let mut incidents: Vec<(String, u64, Vec<&Value>, u64)> = Vec::new();
    // Of each alert whether its user has succeeded within the incident.
    let mut had_success: Vec<bool> = Vec::new();
    let mut guessed: Vec<(&Value, i64)> = Vec::new();
    let mut campaigns: Vec<usize> = Vec::new();
    let mut campaign_ms = i64::MIN / 2;
    for (i, alert) in alerts.iter().enumerate() {
        let before = &alerts[..i];
        let now_ms = alert["timestamp"].as_i64().unwrap();
        let kind = alert["type"].as_str().unwrap();
        let has_failed = ["_FAILED", "_DENIED"].iter().any(|end| kind.ends_with(end))
            || alert["status"] == "failed"
            || alert["status"] == "blocked";
        let is_guess = has_failed && (kind.starts_with("LOGIN") || kind.starts_with("MFA"));
        let of_user = latest(before, alert, |other| other["user"] == alert["user"]);
        let ip = &alert["source_ip"];
        let of_address = latest(before, alert, |other| {
            ip.is_string() && other["source_ip"] == *ip
        });
        let known = of_user.or(of_address).map(|known| incident_of[known]);
        let in_campaign = is_guess && (now_ms - campaign_ms).abs() < HOUR_MS;
        let known = known.or_else(|| campaigns.last().copied().filter(|_| in_campaign));
        let incident = known.unwrap_or_else(|| {
            let id = alert["event_id"].as_str().unwrap().to_owned();
            incidents.push((id, 0, Vec::new(), 0));
            if is_guess {
                guessed
                    .retain(|(user, ms)| *user != &alert["user"] && (now_ms - ms).abs() < HOUR_MS);
                guessed.push((&alert["user"], now_ms));
                if guessed.len() >= 4 {
                    campaigns.push(incidents.len() - 1);
                }
            }
            incidents.len() - 1
        });
        if is_guess && campaigns.last() == Some(&incident) {
            campaign_ms = now_ms;
        }
        incident_of.push(incident);
        let (id, n_alerts, users, severity) = &mut incidents[incident];
        let in_same = of_user.filter(|before| incident_of[*before] == incident);
        let had = in_same.is_some_and(|before| had_success[before]);
        had_success.push(had || !has_failed);
        *n_alerts += 1;
        if !users.contains(&&alert["user"]) {
            users.push(&alert["user"]);
        }
        let severities = ["low", "medium", "high", "critical"];
        let this = alert["anomaly"]["severity"].as_str().unwrap();
        let this = severities.iter().position(|name| *name == this).unwrap() as u64;
        let state = match () {
            () if *n_alerts == 1 => "opened",
            () if this > *severity || !has_failed && !had => "worse",
            () => "more",
        };
        *severity = this.max(*severity);
        let kind = match users.len() {
            _ if campaigns.contains(&incident) => "campaign",
            1 => "user",
            _ => "address",
        };
        let expected = serde_json::json!({
            "id": id, "state": state, "kind": kind, "alerts": n_alerts, "users": users.len(),
        });
        assert_eq!(alert["anomaly"]["incident"], expected, "{alert}");
    }
    assert!(
        incidents.len() > 20 && incidents.len() < alerts.len(),
        "{}",
        incidents.len()
    );
}

/// It passed nothing on, and said that all was well.
#[test]
fn there_are_no_incidents_to_emit_if_nothing_is_folded() {
    let lines = generated(100, 3, 63);
    let ran = run("sg-score", &["--suppress=0", "--emit=incidents"], &lines).expect_code(2);
    assert!(ran.stdout.is_empty());
    assert!(
        ran.stderr.contains("--suppress 0 folds nothing"),
        "{}",
        ran.stderr
    );
    run(
        "sg-score",
        &["-q", "--suppress=0", "--emit=anomalies"],
        &lines,
    )
    .expect_code(0);
    let ran = run("sg-score", &["--suppress=1"], &lines).expect_code(2);
    assert!(ran.stderr.contains("in s, m, h, d or w"), "{}", ran.stderr);
}

#[test]
fn incidents_do_not_depend_on_threads_or_cuts() {
    let folder = tempfile::tempdir().unwrap();
    for (i, detector) in DETECTORS.into_iter().enumerate() {
        let lines = generated(12_000, 25, 62);
        let whole = score(detector, &["--jobs=1"], &lines);
        assert_eq!(score(detector, &["--jobs=3"], &lines), whole);
        let state = format!("--state={}", folder.path().join(i.to_string()).display());
        let mut pieces = Vec::new();
        for piece in lines
            .split_inclusive(|&byte| byte == b'\n')
            .collect::<Vec<_>>()
            .chunks(1_500)
        {
            pieces.extend(score(detector, &[&state], &piece.concat()));
        }
        assert_eq!(pieces, whole);
    }
}

#[test]
fn only_what_is_new_can_be_passed_on() {
    for detector in DETECTORS {
        let lines = generated(12_000, 25, 63);
        let is_news = |event: &Value| {
            let state = &event["anomaly"]["incident"]["state"];
            state == "opened" || state == "worse"
        };
        let mut expected = score(detector, &[], &lines);
        expected.retain(is_news);
        let found = score(detector, &["--emit=incidents"], &lines);
        assert_eq!(found, expected);
        // Without incidents there is no word of them.
        let plain = score(detector, &["--suppress=0", "--emit=anomalies"], &lines);
        assert!(!plain.is_empty());
        assert!(
            plain
                .iter()
                .all(|event| event["anomaly"]["incident"].is_null())
        );
    }
    for wrong in ["1", "x", "", "-1h"] {
        run("sg-score", &[&format!("--suppress={wrong}")], b"").expect_code(2);
    }
}

/// Twenty users at home, then somebody tries passwords on all of them, each from an address of its
/// own, twice; on the last one it works.
fn spray() -> String {
    let mut lines = String::new();
    let mut n_events = 0;
    let mut push = |minute: i64, user: usize, kind: &str, ip: &str, place: &str, agent: &str| {
        n_events += 1;
        writeln!(
            lines,
            r#"{{"event_id":"e{n_events}","user":"user{user}","timestamp":{},"type":"{kind}","source_ip":"{ip}","geo_location":"{place}","metadata":{{"user_agent":"{agent}"}}}}"#,
            1_735_689_600_000 + minute * 60_000
        )
        .unwrap();
    };
    for day in 0..60 {
        for user in 0..20 {
            for hour in 9..14 {
                let minute = (day * 24 + hour) * 60 + user as i64;
                push(
                    minute,
                    user,
                    "LOGIN_SUCCESS",
                    &format!("10.1.{user}.1"),
                    "Oslo, NO",
                    "Firefox",
                );
            }
        }
    }
    let start = 60 * 24 * 60 + 600;
    for user in 0..20 {
        for i in 0..2 {
            let minute = start + user as i64 * 2 + i;
            push(
                minute,
                user,
                "LOGIN_FAILED",
                &format!("203.{user}.113.7"),
                "Accra, GH",
                "bot",
            );
        }
    }
    push(
        start + 41,
        19,
        "LOGIN_SUCCESS",
        "203.19.113.7",
        "Accra, GH",
        "bot",
    );
    lines
}

#[test]
fn a_spray_is_one_campaign() {
    let lines = spray();
    let args = ["-q", "--detector=adaptive", "--emit=anomalies"];
    let anomalies = run("sg-score", &args, lines.as_bytes())
        .expect_code(0)
        .json_lines();
    let incident = |anomaly: &Value| anomaly["anomaly"]["incident"].clone();
    let attack: Vec<Value> = anomalies
        .iter()
        .filter(|anomaly| anomaly["source_ip"].as_str().unwrap().starts_with("203."))
        .map(incident)
        .collect();
    assert!(attack.len() > 20, "{}", attack.len());
    let opened = attack
        .iter()
        .filter(|incident| incident["state"] == "opened");
    assert!(opened.count() <= 4, "{attack:#?}");
    let last = attack.last().unwrap();
    assert_eq!(last["kind"], "campaign");
    assert!(last["users"].as_u64().unwrap() >= 12, "{last}");
    // That it worked is news.
    assert_eq!(last["state"], "worse", "{attack:#?}");
}

#[test]
fn a_database_tells_its_incidents() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("in"), generated(12_000, 25, 64)).unwrap();
    let script = format!(
        "cd {at}; export SG_DETECTOR=adaptive
         sg-score -q --threshold 0.9 < in > scored; sg-store -q --db a < scored
         sg-run -q --threshold 0.9 in --db b
         sg-query incidents --db a --limit 100000 > a.incidents
         sg-query incidents --db b --limit 100000 | cmp - a.incidents
         sg-query incidents --db a --limit 3 | cmp - <(head -n 3 a.incidents)
         cat a.incidents"
    );
    let found = shell(&script).expect_code(0).json_lines();
    assert_eq!(
        digest(&folder.path().join("a")),
        digest(&folder.path().join("b"))
    );

    let scored = std::fs::read_to_string(folder.path().join("scored")).unwrap();
    let mut expected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in scored.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if let Some(id) = event["anomaly"]["incident"]["id"].as_str() {
            expected
                .entry(id.to_owned())
                .or_default()
                .push(event["anomaly"].clone());
        }
    }
    assert!(expected.len() > 20);
    assert_eq!(found.len(), expected.len());
    for incident in &found {
        let anomalies = &expected[incident["incident"].as_str().unwrap()];
        let last = &anomalies.last().unwrap()["incident"];
        assert_eq!(incident["alerts"], anomalies.len());
        assert_eq!(incident["users"], last["users"]);
        assert_eq!(incident["kind"], last["kind"]);
        let risk = |anomaly: &&Value| anomaly["risk"].as_f64().unwrap();
        let riskiest = anomalies
            .iter()
            .rev()
            .max_by(|a, b| risk(a).total_cmp(&risk(b)))
            .unwrap();
        for field in ["event_id", "user", "reasons", "archetype", "risk"] {
            assert_eq!(incident[field], riskiest[field], "{field} {incident}");
        }
    }
    let table = run(
        "sg-query",
        &["incidents", "-f", "table", "--db", &format!("{at}/a")],
        b"",
    );
    let table = table.expect_code(0);
    assert!(table.text().contains("FIRST (UTC)"), "{}", table.text());
    assert!(table.text().lines().count() > 20);
    run(
        "sg-query",
        &[
            "incidents",
            "--db",
            &format!("{at}/a"),
            "--since=2030-01-01",
        ],
        b"",
    )
    .expect_code(1);
    let db = format!("{at}/a");
    let ask = |args: &[&str]| {
        let args = [&["incidents", "--db", &db], args].concat();
        run("sg-query", &args, b"").expect_code(0)
    };
    let csv = ask(&["-f", "csv", "-n", "100000"]);
    assert!(
        csv.text().starts_with("incident,kind,first,last,"),
        "{}",
        csv.text()
    );
    assert_eq!(
        (csv.text().lines().count(), &*csv.stderr),
        (found.len() + 1, "")
    );
    // That there are more was not said.
    let some = ask(&["-n", "3"]);
    assert!(some.stderr.contains("there is more"), "{}", some.stderr);
    assert_eq!(some.text().lines().count(), 3);
    assert_eq!(ask(&["-n", &found.len().to_string()]).stderr, "");
    // Of those with a severe anomaly the first one may have been less severe.
    let severe = ask(&["--severity=critical", "-n", "100000"]).json_lines();
    assert!(!severe.is_empty());
    for incident in severe {
        let whole = found
            .iter()
            .find(|whole| whole["incident"] == incident["incident"]);
        assert_eq!(incident["first"], whole.unwrap()["first"]);
    }
    let help = run("sg-query", &["incidents", "--help"], b"").expect_code(0);
    assert!(!help.text().contains("--cursor") && !help.text().contains("--oldest-first"));
}
