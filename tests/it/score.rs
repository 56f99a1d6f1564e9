//! What `sg-score` does to a line: it appends its fields and leaves every other byte alone.

use serde_json::Value;

use crate::tools::{Ran, event, generated, run, shell};

/// Every event after a user's first is an anomaly.
const ALWAYS: [&str; 3] = ["-q", "--min-events=1", "--threshold=0"];
/// No event is an anomaly.
const NEVER: [&str; 2] = ["-q", "--min-events=1000000"];

fn score(args: &[&str], input: &str) -> Ran {
    run("sg-score", args, input.as_bytes())
}

/// The last line of what `--threshold 0` makes of the lines of one user.
#[track_caller]
fn last_scored(lines: &[&str]) -> String {
    let ran = score(&ALWAYS, &(lines.join("\n") + "\n")).expect_code(0);
    ran.text().lines().last().unwrap().to_owned()
}

#[test]
fn all_other_bytes_stay() {
    let check = |line: &str| {
        let first = event("first", "u", 1);
        let scored = last_scored(&[&first, line]);
        let close = line.rfind('}').unwrap();
        let (before, after) = line.split_at(close);
        let added = scored
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .unwrap_or_else(|| panic!("{line}\nbecame {scored}"));
        let added: Value =
            serde_json::from_str(&format!("{{{}}}", added.strip_prefix(',').unwrap())).unwrap();
        let names: Vec<&String> = added.as_object().unwrap().keys().collect();
        assert_eq!(names, ["anomaly", "context"], "{scored}");
        // Without an anomaly nothing at all changes.
        let plain = format!("{first}\n{line}\n");
        assert_eq!(score(&NEVER, &plain).expect_code(0).text(), plain);
    };
    for line in [
        r#"{"event_id":"e","user":"u","timestamp":2,"type":"T"}"#,
        r#"  { "event_id" : "e" ,"user":"u",	"timestamp":2 , "type":"T" }  "#,
        r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","z":[1,{"}":"}"}],"y":1.50e+3,"":null}"#,
        r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","note":"ünï 你好 😀 \u00fc \/ \\","ü":"\ud83d\ude00"}"#,
        r#"{"metadata":{"anomaly":1,"context":{},"a":{"b":[]}},"event_id":"e","user":"u","timestamp":2,"type":"T","x":"} ,"}"#,
        r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","sg":{"source":"x"},"Anomaly":1,"contexts":2}"#,
    ] {
        check(line);
    }
}

#[test]
fn the_fields_are_those_of_the_design() {
    let strange = r#"{"event_id":"e2","user":"u","timestamp":2,"type":"LOGIN_FAILED","source_ip":"10.0.0.1","geo_location":"Rome, IT","threat_score":0.5,"status":"failed"}"#;
    let scored: Value =
        serde_json::from_str(&last_scored(&[&event("e1", "u", 1), strange])).unwrap();
    let names = |value: &Value| -> Vec<String> {
        let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let event_fields = [
        "event_id",
        "user",
        "timestamp",
        "type",
        "source_ip",
        "geo_location",
        "threat_score",
        "status",
        "anomaly",
        "context",
    ];
    assert_eq!(names(&scored), sorted(event_fields.to_vec()));
    let anomaly_fields = [
        "event_id",
        "user",
        "timestamp",
        "anomaly_score",
        "time_anomaly",
        "ip_anomaly",
        "location_anomaly",
        "type_anomaly",
        "failure_anomaly",
        "reasons",
        "detector",
        "risk",
        "archetype",
        "severity",
        "baseline",
        "incident",
    ];
    assert_eq!(names(&scored["anomaly"]), sorted(anomaly_fields.to_vec()));
    let context_fields = ["failed_login_count", "known_ips", "avg_threat_score"];
    assert_eq!(names(&scored["context"]), sorted(context_fields.to_vec()));
    assert_eq!(scored["anomaly"]["baseline"]["state"], "active");
    assert_eq!(scored["anomaly"]["baseline"]["events"], 1);
    assert_eq!(scored["anomaly"]["archetype"], Value::Null);
}

#[test]
fn old_fields_are_replaced_or_removed() {
    const OURS: &str = r#"{"event_id":"stale","user":"u","timestamp":2,"anomaly_score":0.123}"#;
    const CONTEXT: &str = r#"{"failed_login_count":99,"known_ips":[],"avg_threat_score":0}"#;
    let first = event("first", "u", 1);
    let bare = r#"{"event_id":"e","user":"u","timestamp":2,"type":"T"}"#;
    let fresh = last_scored(&[&first, bare]);
    let check = |line: &str, expected_bare: &str| {
        let line = line.replace("OURS", OURS).replace("CONTEXT", CONTEXT);
        let scored = last_scored(&[&first, &line]);
        let close = expected_bare.rfind('}').unwrap();
        let added = &fresh[bare.len() - 1..fresh.len() - 1];
        let expected = format!(
            "{}{added}{}",
            &expected_bare[..close],
            &expected_bare[close..]
        );
        assert_eq!(scored, expected, "from {line}");
        // No longer an anomaly: what an earlier run has added goes.
        let ran = score(&NEVER, &format!("{first}\n{line}\n")).expect_code(0);
        assert_eq!(
            ran.text(),
            format!("{first}\n{expected_bare}\n"),
            "from {line}"
        );
    };
    for (line, expected_bare) in [
        (
            r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","anomaly":OURS}"#,
            bare,
        ),
        (
            r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","anomaly":OURS,"context":CONTEXT}"#,
            bare,
        ),
        (
            r#"{"anomaly":OURS,"event_id":"e","user":"u","timestamp":2,"type":"T"}"#,
            bare,
        ),
        (
            r#"{"context":CONTEXT,"anomaly":OURS,"event_id":"e","user":"u","timestamp":2,"type":"T"}"#,
            bare,
        ),
        (
            r#"{"event_id":"e","anomaly":OURS,"user":"u","context":CONTEXT,"timestamp":2,"type":"T"}"#,
            bare,
        ),
        (
            r#"{ "anomaly" : OURS , "event_id":"e","user":"u","timestamp":2,"type":"T"}"#,
            r#"{  "event_id":"e","user":"u","timestamp":2,"type":"T"}"#,
        ),
        (
            r#"{"event_id":"e","user":"u","timestamp":2,"type":"T" , "anomaly" : OURS }"#,
            r#"{"event_id":"e","user":"u","timestamp":2,"type":"T"  }"#,
        ),
        (
            r#"{"event_id":"e","user":"u","timestamp":2,"\u0061nomaly":OURS,"type":"T"}  "#,
            r#"{"event_id":"e","user":"u","timestamp":2,"type":"T"}  "#,
        ),
    ] {
        check(line, expected_bare);
    }
}

#[test]
fn fields_of_others_pass_until_they_have_to_make_room() {
    for value in [r#""home""#, "null", "[1, 2]", r#"{"request":"x"}"#, r"{ }"] {
        for name in ["anomaly", "context", "analysis", "embedding"] {
            let line = format!(
                r#"{{"{name}": {value} ,"event_id":"e","user":"u","timestamp":2,"type":"T"}}"#
            );
            let ran = score(&NEVER, &format!("{line}\n")).expect_code(0);
            assert_eq!(ran.text(), format!("{line}\n"));
            let scored = last_scored(&[&event("first", "u", 1), &line]);
            let is_kept = name == "analysis" || name == "embedding";
            assert_eq!(
                scored.contains(value) && scored.starts_with(&format!("{{\"{name}\"")),
                is_kept,
                "{scored}"
            );
            let names = scored.matches(&format!("\"{name}\":")).count();
            assert_eq!(names, 1, "{scored}");
            serde_json::from_str::<Value>(&scored).unwrap();
        }
    }
}

#[test]
fn a_high_threat_score_brings_the_context_alone() {
    let line = r#"{"event_id":"e","user":"u","timestamp":2,"type":"T","threat_score":0.7}"#;
    let ran = score(&NEVER, &format!("{line}\n")).expect_code(0);
    let expected = r#","context":{"failed_login_count":0,"known_ips":[],"avg_threat_score":0}}"#;
    assert_eq!(
        ran.text(),
        format!("{}{expected}\n", line.strip_suffix('}').unwrap())
    );
    let below = line.replace("0.7", "0.699");
    let ran = score(&NEVER, &format!("{below}\n")).expect_code(0);
    assert_eq!(ran.text(), format!("{below}\n"));
}

#[test]
fn scoring_again_gives_the_same_bytes() {
    let lines = generated(6_000, 12, 31);
    for args in [
        &["-q", "--threshold=0.5"][..],
        &["-q", "--threshold=0", "--min-events=0"],
        &["-q"],
    ] {
        let once = run("sg-score", args, &lines).expect_code(0).stdout;
        let twice = run("sg-score", args, &once).expect_code(0).stdout;
        assert!(once.len() > lines.len());
        assert!(once == twice, "with {args:?}");
        // And back: a run that finds nothing leaves what came in, but for contexts of threats.
        let back = run("sg-score", &NEVER, &once).expect_code(0).stdout;
        let plain = run("sg-score", &NEVER, &lines).expect_code(0).stdout;
        assert!(back == plain, "with {args:?}");
    }
}

#[test]
fn emit_anomalies_passes_on_nothing_else() {
    let lines = generated(6_000, 12, 33);
    let all = run("sg-score", &["--threshold=0.6"], &lines).expect_code(0);
    let args = ["--threshold=0.6", "--emit=anomalies"];
    let some = run("sg-score", &args, &lines).expect_code(0);
    let expected: Vec<&str> = all
        .text()
        .lines()
        .filter(|line| line.contains("\"anomaly\":{"))
        .collect();
    assert!(expected.len() > 10);
    assert_eq!(some.text().lines().collect::<Vec<_>>(), expected);
    let (n_out, n_filtered) = (expected.len(), 6_000 - expected.len());
    assert_eq!(
        some.stderr,
        format!("sg-score: in 6000 = out {n_out} + rejected 0 + filtered {n_filtered}\n")
    );
}

#[test]
fn the_threshold_decides_by_the_score() {
    let lines = generated(6_000, 12, 35);
    let scores = |threshold: &str| -> Vec<(String, f64)> {
        let args = ["-q", "--emit=anomalies", threshold];
        run("sg-score", &args, &lines)
            .expect_code(0)
            .json_lines()
            .iter()
            .map(|line| {
                let anomaly = &line["anomaly"];
                (
                    anomaly["event_id"].as_str().unwrap().to_owned(),
                    anomaly["anomaly_score"].as_f64().unwrap(),
                )
            })
            .collect()
    };
    let all = scores("--threshold=0");
    assert!(all.len() > 2_000);
    // Between two numbers of six digits, so that rounding is on neither side.
    for threshold in [0.300_000_5, 0.550_000_5, 0.650_000_5] {
        let expected: Vec<_> = all
            .iter()
            .filter(|(_, score)| *score >= threshold)
            .cloned()
            .collect();
        assert!(!expected.is_empty());
        assert!(scores(&format!("--threshold={threshold}")) == expected);
    }
    for bad in ["1.1", "-0.1", "NaN", "x", ""] {
        let ran = score(&[&format!("--threshold={bad}")], "");
        assert_eq!(ran.expect_code(2).text(), "");
    }
}

#[test]
fn hostile_values_give_valid_json() {
    let long = "x".repeat(1024);
    let too_long = "x".repeat(10 << 10);
    let field = |text: &str| serde_json::to_string(text).unwrap();
    for hostile in [
        "a\"b",
        "a\\",
        "\u{1b}[31mred\u{1b}]0;title\u{7}",
        "two\nlines\r\n",
        "\u{0}\u{1}\u{1f}\u{7f}\u{9b}",
        "\u{202e}reversed\u{2066}",
        "},\"anomaly\":{",
        "=1+1",
        &long,
    ] {
        let line = format!(
            r#"{{"event_id":"e","user":{},"timestamp":2,"type":{},"geo_location":{}}}"#,
            field(hostile),
            field(hostile),
            field(hostile)
        );
        let first = line
            .replace("\"e\"", "\"first\"")
            .replace(":2,", ":7200000,");
        let scored = last_scored(&[&first, &line]);
        assert!(!scored.bytes().any(|byte| byte < 0x20), "{scored:?}");
        let scored: Value = serde_json::from_str(&scored).unwrap();
        assert_eq!(scored["anomaly"]["user"], hostile);
        // Two unseen values: their reasons quote them, cut short.
        let strange = line.replace(&field(hostile), &field(&format!("{hostile}2")));
        let strange = strange.replacen(&field(&format!("{hostile}2")), &field(hostile), 1);
        if hostile.len() < 1024 {
            let scored: Value = serde_json::from_str(&last_scored(&[&first, &strange])).unwrap();
            let reasons = scored["anomaly"]["reasons"].to_string();
            assert!(reasons.contains("location"), "{reasons}");
            assert!(reasons.len() < 1_000, "{reasons}");
        }
    }
    let line = event("e", &too_long, 2);
    let ran = score(&NEVER, &format!("{line}\n")).expect_code(1);
    assert_eq!(ran.text(), "");
}

#[test]
fn numbers_have_at_most_six_digits() {
    let lines = generated(4_000, 7, 37);
    let args = ["-q", "--threshold=0", "--min-events=1", "--emit=anomalies"];
    let ran = run("sg-score", &args, &lines).expect_code(0);
    let mut n_long = 0;
    for line in ran.text().lines() {
        let added = &line[line.find(",\"anomaly\":").unwrap()..];
        for name in [
            "anomaly_score",
            "time_anomaly",
            "ip_anomaly",
            "location_anomaly",
            "type_anomaly",
            "failure_anomaly",
            "risk",
            "avg_threat_score",
        ] {
            let needle = format!("\"{name}\":");
            let start = added.find(&needle).unwrap() + needle.len();
            let number = added[start..].split([',', '}']).next().unwrap();
            let digits = number.replace('.', "");
            let n_digits = digits.trim_start_matches('0').len();
            assert!(n_digits <= 6 && !number.contains('e'), "{name} {number}");
            n_long += usize::from(n_digits == 6);
        }
    }
    assert!(
        n_long > 1_000,
        "the numbers are not rounded, they are short"
    );
}

#[test]
fn rejects_are_counted_and_the_rest_goes_on() {
    let input = format!(
        "{}\nnot json\n\n{}\n{{\"user\":\"u\"}}\n{}",
        event("a", "u", 1),
        event("b", "u", 2),
        event("c", "u", 3)
    );
    let ran = score(&[], &input).expect_code(1);
    assert_eq!(ran.text().lines().count(), 3);
    let summary = ran.stderr.lines().last().unwrap();
    assert_eq!(
        summary,
        "sg-score: in 6 = out 3 + rejected 2 + filtered 1 (rejected: invalid_json 1, missing_field 1)"
    );
    // In the middle of a pipe, with what the first program let through.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    std::fs::write(&path, &input).unwrap();
    let db = folder.path().join("db");
    let script = format!(
        "(cat {}; echo broken) | sg-score | sg-store --db {}; echo ${{PIPESTATUS[*]}}",
        path.display(),
        db.display()
    );
    assert_eq!(shell(&script).text(), "0 1 0\n");
}

#[test]
fn a_reader_that_leaves_is_no_trouble() {
    for command in [
        "sg-gen --events 200000 --users 100 | sg-score | head -1 | wc -l",
        "sg-gen --events 200000 --users 100 | sg-score --threshold 0 | head -1 | wc -l",
    ] {
        let ran = shell(&format!("{command}; echo ${{PIPESTATUS[*]}}"));
        assert_eq!(ran.text(), "1\n0 0 0 0\n", "{command}");
        assert_eq!(ran.stderr, "", "{command}");
    }
}

#[test]
fn wrong_usage_is_told() {
    for args in [
        &["--no-such-flag"][..],
        &["--emit=some"],
        &["--severities=0.9,0.8,0.7"],
        &["--severities=0.5"],
        &["-j0"],
        &["export"],
    ] {
        let ran = score(args, "").expect_code(2);
        assert_eq!(ran.text(), "");
        assert!(!ran.stderr.is_empty());
    }
}

#[test]
fn severities_follow_the_scale() {
    let lines = generated(6_000, 12, 39);
    let args = [
        "-q",
        "--threshold=0.3",
        "--severities=0.4000005,0.5000005,0.6000005",
        "--emit=anomalies",
    ];
    let mut n_of = std::collections::BTreeMap::new();
    for line in run("sg-score", &args, &lines).expect_code(0).json_lines() {
        let severity = line["anomaly"]["severity"].as_str().unwrap().to_owned();
        let expected = match line["anomaly"]["anomaly_score"].as_f64().unwrap() {
            score if score > 0.6 => "critical",
            score if score > 0.5 => "high",
            score if score > 0.4 => "medium",
            _ => "low",
        };
        assert_eq!(severity, expected, "{line}");
        *n_of.entry(severity).or_insert(0) += 1;
    }
    assert_eq!(n_of.len(), 4, "{n_of:?}");
}

/// Events are looked at where they were parsed, unless a strict run may take some out.
#[test]
fn strict_runs_score_as_others_do() {
    let events = String::from_utf8(generated(20_000, 50, 1)).unwrap();
    for detector in ["adaptive", "classic"] {
        let args = [
            "-q",
            "--threshold=0.3",
            "--min-events=5",
            "--detector",
            detector,
        ];
        let scored = |more: &[&str], input: &str| score(&[&args[..], more].concat(), input);
        let expected = scored(&[], &events).expect_code(0);
        assert!(expected.text().contains("\"anomaly\":"));
        let strict = scored(&["--strict"], &events).expect_code(0);
        assert!(strict.text() == expected.text(), "{detector}");
        // What comes after a bad line was parsed with it, and shows nowhere.
        let half = events.match_indices('\n').nth(10_000).unwrap().0 + 1;
        let (before, after) = events.split_at(half);
        let cut = scored(&["--strict"], &format!("{before}bad\n{after}")).expect_code(2);
        let n_bytes: usize = expected
            .text()
            .split_inclusive('\n')
            .take(10_001)
            .map(str::len)
            .sum();
        assert!(
            cut.text() == &expected.text()[..n_bytes],
            "{detector}: cut off"
        );
    }
}
