//! What `--silences` promises: the anomalies that a line covers are not raised, and counted; all
//! else is as it was.

use std::path::Path;

use serde_json::Value;

use crate::tools::{DETECTORS, Ran, digest, generated, run, shell};

fn score(detector: &str, silences: &Path, lines: &[u8]) -> Ran {
    let silences = format!("--silences={}", silences.display());
    run(
        "sg-score",
        &["--threshold=0.65", "--suppress=0", detector, &silences],
        lines,
    )
}

type Covers<'a> = &'a dyn Fn(&Value) -> bool;

/// Ids of the anomalies that `is_covered` does not cover.
fn others(events: &[Value], is_covered: impl Fn(&Value) -> bool) -> Vec<&str> {
    let anomalies = events.iter().filter(|event| event["anomaly"].is_object());
    let others = anomalies.filter(|event| !is_covered(event));
    others
        .map(|event| event["event_id"].as_str().unwrap())
        .collect()
}

#[test]
fn what_is_covered_is_not_raised() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("silences");
    let lines = generated(10_000, 25, 85);
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("").to_owned();
    let until_ms = 1_737_504_000_000; // 2025-01-22
    let cases: [(&str, Covers<'_>); 6] = [
        (r#"{"user":"user00003","reason":"r"}"#, &|event| {
            text(event, "user") == "user00003"
        }),
        (r#"{"user":"user0000*","reason":"r","by":"me"}"#, &|event| {
            text(event, "user").starts_with("user0000")
        }),
        (
            r#"{"type":"LOGIN_FAILED","user":"*","reason":"r"}"#,
            &|event| text(event, "type") == "LOGIN_FAILED",
        ),
        (r#"{"ip":"100.64.0.0/10","reason":"r"}"#, &|event| {
            let ip: Option<std::net::Ipv4Addr> = text(event, "source_ip").parse().ok();
            ip.is_some_and(|ip| ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64)
        }),
        (
            r#"{"user":"user*","until":"2025-01-22","reason":"r"}"#,
            &|event| event["timestamp"].as_i64().unwrap() < until_ms,
        ),
        (r#"{"user":"nobody","reason":"r"}"#, &|_| false),
    ];
    for detector in DETECTORS {
        std::fs::write(&file, "").unwrap();
        let all = score(detector, &file, &lines).expect_code(0);
        let events = all.json_lines();
        for (silence, is_covered) in cases {
            std::fs::write(&file, format!("\n{silence}\n")).unwrap();
            let ran = score(detector, &file, &lines).expect_code(0);
            let raised = ran.json_lines();
            let expected = others(&events, is_covered);
            assert_eq!(others(&raised, |_| false), expected, "{silence}");
            let n_silenced = others(&events, |_| false).len() - expected.len();
            let words = format!("sg-score: silenced {n_silenced} anomalies: r\n");
            assert_eq!(
                ran.stderr.contains(&words),
                n_silenced > 0,
                "{}",
                ran.stderr
            );
            // What was learned, and every other byte, is the same.
            assert_eq!(raised.len(), events.len());
            for (raised, event) in raised.iter().zip(&events) {
                assert!(raised == event || is_covered(event), "{silence}: {raised}");
            }
        }
    }
}

/// All events come with their scores for a report: it said that thousands of anomalies were silenced.
#[test]
fn a_report_counts_what_was_silenced_as_any_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("silences");
    std::fs::write(&file, r#"{"user":"*","reason":"all"}"#).unwrap();
    let lines = generated(10_000, 25, 87);
    for detector in DETECTORS {
        let silences = format!("--silences={}", file.display());
        let told = |args: &[&str]| {
            let args = [&[detector, silences.as_str()], args].concat();
            let ran = run("sg-score", &args, &lines).expect_code(0);
            let line = ran.stderr.lines().find(|line| line.contains("silenced"));
            line.unwrap().to_owned()
        };
        assert_eq!(told(&["--report"]), told(&[]));
    }
}

#[test]
fn pipe_and_fused_silence_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("in"), generated(10_000, 25, 87)).unwrap();
    std::fs::write(path("s"), r#"{"user":"user0000*","reason":"test"}"#).unwrap();
    let command = "cd FOLDER; sg-score -q --threshold 0.6 --silences s < in | sg-store -q --db a
        sg-run --threshold 0.6 --silences s in --db b
        SG_SILENCES=s sg-run -q --threshold 0.6 in --db c
        sg-run -q --threshold 0.6 in --db d";
    let ran = shell(&command.replace("FOLDER", folder.path().to_str().unwrap())).expect_code(0);
    assert!(ran.stderr.contains("sg-run: silenced "), "{}", ran.stderr);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| digest(&path(name)));
    assert!(a == b && b == c && c != d);
}

#[test]
fn silences_that_have_expired_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("silences");
    let line = |until: &str| format!("{{\"user\":\"u\",\"reason\":\"r\",\"until\":\"{until}\"}}\n");
    std::fs::write(
        &file,
        line("2020-01-01") + &line("9999-01-01") + &line("2021-01-01"),
    )
    .unwrap();
    let ran = score(DETECTORS[0], &file, b"").expect_code(0);
    let told = ran.stderr.lines().next().unwrap();
    assert!(told.contains("2 of 3 silences in "), "{told}");
    assert!(told.contains("have expired"), "{told}");
    std::fs::write(&file, line("9999-01-01")).unwrap();
    let ran = score(DETECTORS[0], &file, b"").expect_code(0);
    assert!(!ran.stderr.contains("expired"), "{}", ran.stderr);
}

#[test]
fn what_is_no_silence_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("silences");
    for (line, words) in [
        ("x", "line 2: expected value"),
        (r#"{"reason":"r"}"#, "line 2: it names no user, ip or type"),
        (r#"{"user":"u"}"#, "line 2: missing field `reason`"),
        (r#"{"user":"u","reason":" "}"#, "line 2: it has no reason"),
        (r#"{"usr":"u","reason":"r"}"#, "line 2: unknown field `usr`"),
        (
            r#"{"ip":"10.0.0","reason":"r"}"#,
            "line 2: ip \"10.0.0\" is neither",
        ),
        (
            r#"{"user":"u","reason":"r","until":"7d"}"#,
            "line 2: until \"7d\" is not a time",
        ),
    ] {
        std::fs::write(
            &file,
            format!("{{\"user\":\"u\",\"reason\":\"r\"}}\n{line}\n"),
        )
        .unwrap();
        let ran = score(DETECTORS[0], &file, b"").expect_code(2);
        assert_eq!(
            (ran.text(), ran.stderr.lines().count()),
            ("", 1),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    let ran = score(DETECTORS[0], Path::new("/nowhere"), b"").expect_code(2);
    assert!(
        ran.stderr.contains("cannot read /nowhere"),
        "{}",
        ran.stderr
    );
}
