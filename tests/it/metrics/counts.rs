//! What is counted.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole, which floats hold exactly"
)]

use std::collections::BTreeSet;
use std::io::Write as _;

use rustix::process::Signal;

use super::{Watched, check, documented, names, programs, samples};
use crate::database::store;
use crate::tools::{event, generated, n_lines, run, wait_for};

const STAGES: [(&str, &[&str]); 6] = [
    ("sg-consume", &["read"]),
    ("sg-score", &["read", "score"]),
    ("sg-analyze", &["analyze", "read"]),
    ("sg-embed", &["embed", "read"]),
    ("sg-store", &["read", "store"]),
    ("sg-run", &["embed", "read", "score", "store"]),
];

#[test]
fn all_is_there_at_zero_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut found = BTreeSet::new();
    for (program, args) in programs(&path("db"), &path("state")) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let watched = Watched::start(program, &args);
        let text = watched.text();
        check(&text);
        found.extend(names(&text));
        let samples = samples(&text);
        let version = env!("CARGO_PKG_VERSION");
        let info = format!(r#"streamguard_build_info{{program="{program}",version="{version}"}}"#);
        assert_eq!(samples[&info], 1.0);
        let is_known = |name: &str| {
            [
                "build_info",
                "last_progress",
                "streamguard_db_",
                "streamguard_disk_",
                "process_",
            ]
            .iter()
            .any(|known| name.contains(known))
        };
        for (name, value) in samples.iter().filter(|(name, _)| !is_known(name)) {
            assert_eq!(*value, 0.0, "{program}: {name}");
        }
        let values_of = |metric: &str, label: &str| -> Vec<String> {
            let begin = format!("{metric}{{{label}=\"");
            let names = samples.keys().filter_map(|name| name.strip_prefix(&begin));
            names
                .map(|rest| rest.trim_end_matches("\"}").to_owned())
                .collect()
        };
        let (_, stages) = STAGES.iter().find(|(name, _)| *name == program).unwrap();
        for metric in [
            "streamguard_events_in_total",
            "streamguard_events_out_total",
        ] {
            assert_eq!(values_of(metric, "stage"), **stages, "{program}");
        }
        let reasons = values_of("streamguard_events_rejected_total", "reason");
        assert_eq!(reasons.len(), 12, "{reasons:?}");
        let severities = values_of("streamguard_anomalies_detected_total", "severity");
        let scores = ["sg-score", "sg-run"].contains(&program);
        assert_eq!(severities.len(), if scores { 4 } else { 0 }, "{program}");
        let started = samples["streamguard_last_progress_timestamp_seconds"];
        assert!(started > 1.7e9, "{started}");
        watched.running.signal(Signal::TERM);
    }
    let served = path("served");
    store(served.as_ref(), event("a", "u", 1).as_bytes()).expect_code(0);
    let args = ["serve", "--db", &served, "--listen", "127.0.0.1:0"];
    let watched = Watched::start("sg-query", &args);
    let text = watched.text();
    check(&text);
    found.extend(names(&text));

    // Those two are there with what they are about.
    let later = ["streamguard_kafka_lag", "streamguard_user_anomalies"].map(str::to_owned);
    found.extend(later);
    assert_eq!(found, documented());
}

/// The numbers in a summary such as `in 3 = out 1 + rejected 1 + filtered 1`.
fn summary(stderr: &str) -> [f64; 4] {
    let line = stderr.lines().find(|line| line.contains(": in ")).unwrap();
    let numbers = line.split(|it: char| !it.is_ascii_digit());
    let numbers = numbers.filter_map(|number| number.parse().ok());
    numbers.take(4).collect::<Vec<f64>>().try_into().unwrap()
}

#[test]
fn counters_say_what_the_summary_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (log, db, dead) = (path("log"), path("db"), path("dead"));
    let mut lines = generated(3_000, 20, 401);
    let again = lines.clone();
    lines.extend_from_slice(b"\n{}\nnot JSON\n\xff\n\n");
    lines.extend_from_slice(&again[..again.len() / 2]);
    let end = lines.iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    lines.truncate(end);
    std::fs::write(&log, &lines).unwrap();
    let args = [
        "--follow",
        &log,
        "--db",
        &db,
        "--dead-letter",
        &dead,
        "--threshold=0.5",
        "--embed",
    ];
    let watched = Watched::start("sg-run", &args);
    watched.wait_until("streamguard_events_processed_total", 3_000.0);
    watched.wait_until("streamguard_events_in_progress", 0.0);
    let text = watched.text();
    check(&text);
    let counted = samples(&text);
    let n = |name: &str| counted[&format!("streamguard_{name}")];
    let passed = |stage: &str| {
        let of = |side: &str| n(&format!("events_{side}_total{{stage=\"{stage}\"}}"));
        (of("in"), of("out"))
    };
    let n_all = n_lines(&lines) as f64;
    let n_events = n_all - 5.0;
    assert_eq!(passed("read"), (n_all, n_events));
    assert_eq!(passed("score"), (n_events, n_events));
    assert_eq!(passed("embed"), (n_events, n_events));
    assert_eq!(passed("store"), (n_events, 3_000.0));
    assert_eq!(n("events_rejected_total{reason=\"missing_field\"}"), 1.0);
    assert_eq!(n("events_rejected_total{reason=\"invalid_json\"}"), 1.0);
    assert_eq!(n("events_rejected_total{reason=\"invalid_utf8\"}"), 1.0);
    assert_eq!(n("dead_letters_total"), 3.0);
    assert_eq!(n("processing_latency_seconds_count"), n_events);
    assert_eq!(n("state_users"), 20.0);
    assert!(n("state_bytes") > 1_000.0);
    // Files are looked at once a second.
    let n_bytes = || samples(&watched.text())["streamguard_db_bytes"];
    assert!(wait_for(|| n_bytes() > 10_000.0), "{}", n_bytes());
    assert!(n("disk_free_bytes") > 0.0 && n("disk_free_bytes") <= n("disk_size_bytes"));
    assert!(n("last_progress_timestamp_seconds") > 1.7e9);
    // Whoever scores again counts again: also what is stored already.
    let anomalies = run(
        "sg-score",
        &["--emit=anomalies", "--threshold=0.5", "-q"],
        &lines,
    );
    let severities = ["low", "medium", "high", "critical"];
    let n_detected =
        severities.map(|it| n(&format!("anomalies_detected_total{{severity=\"{it}\"}}")));
    let n_anomalies = n_lines(&anomalies.stdout) as f64;
    assert!(n_anomalies > 10.0);
    assert_eq!(n_detected.iter().sum::<f64>(), n_anomalies);
    let scored = n("anomaly_score_count");
    assert!(n_anomalies <= scored && scored < n_events, "{scored}");
    let below = n("anomaly_score_bucket{le=\"0.5\"}");
    assert!(scored - below <= n_anomalies, "{below} of {scored}");

    watched.running.signal(Signal::TERM);
    let ran = watched.running.end().expect_code(1);
    let filtered = n("events_filtered_total");
    assert_eq!(summary(&ran.stderr), [n_all, 3_000.0, 3.0, filtered]);
}

#[test]
fn what_is_not_passed_on_is_filtered() {
    let lines = generated(3_000, 20, 403);
    let mut watched = Watched::start("sg-score", &["--emit=anomalies", "--threshold=0.5"]);
    watched
        .running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&lines)
        .unwrap();
    watched.wait_until("streamguard_events_in_total{stage=\"read\"}", 3_000.0);
    watched.wait_until("streamguard_events_in_progress", 0.0);
    let counted = watched.samples();
    drop(watched.running.stdin.take());
    let ran = watched.running.end().expect_code(0);
    let n_out = n_lines(&ran.stdout) as f64;
    assert_eq!(counted["streamguard_events_processed_total"], n_out);
    assert_eq!(
        counted["streamguard_events_filtered_total"],
        3_000.0 - n_out
    );
    assert_eq!(
        counted["streamguard_events_out_total{stage=\"score\"}"],
        n_out
    );
    assert_eq!(
        counted["streamguard_processing_latency_seconds_count"],
        n_out
    );
}

#[test]
fn results_are_the_same_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.prom");
    let lines = generated(20_000, 50, 405);
    for detector in crate::tools::DETECTORS {
        let args = [detector, "--threshold=0.5", "-q"];
        let plain = run("sg-score", &args, &lines).expect_code(0);
        let told = [
            "--metrics-file",
            file.to_str().unwrap(),
            "--metrics-users=5",
        ];
        let watched = run("sg-score", &[&args[..], &told].concat(), &lines).expect_code(0);
        assert!(plain.stdout == watched.stdout, "{detector}");
    }
}

#[test]
fn requests_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("a", "u", 1).as_bytes()).expect_code(0);
    let args = [
        "serve",
        "--db",
        db.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let watched = Watched::start("sg-query", &args);
    let begin = "sg-query: listening on ";
    let said = || {
        let stderr = watched.running.stderr();
        stderr
            .lines()
            .find_map(|line| Some(line.strip_prefix(begin)?.to_owned()))
    };
    assert!(wait_for(|| said().is_some()));
    assert!(wait_for(|| watched.get("/ready").0 == 200));
    let ask = |path: &str| {
        let url = format!("{}{path}", said().unwrap());
        watched.agent.get(url).call().unwrap().status().as_u16()
    };
    assert_eq!(ask("/api/events"), 200);
    assert_eq!(ask("/api/events/a"), 200);
    assert_eq!(ask("/api/events/b"), 404);
    let counted = watched.samples();
    assert_eq!(
        counted["streamguard_http_requests_total{code=\"2xx\"}"],
        2.0
    );
    assert_eq!(
        counted["streamguard_http_requests_total{code=\"4xx\"}"],
        1.0
    );
    assert!(counted["streamguard_db_bytes"] > 0.0);
    watched.running.signal(Signal::TERM);
    watched.running.end().expect_code(0);
}
