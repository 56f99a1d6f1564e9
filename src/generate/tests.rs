//! Tests of the generator as a whole: what the lines are, and that they never change.

use super::{GenerateConfig, Summary, generate};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

struct Output {
    summary: Summary,
    events: Vec<u8>,
    labels: Vec<u8>,
}

fn run(config: &GenerateConfig, n_threads: usize) -> Output {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build()
        .unwrap();
    pool.install(|| {
        let (mut events, mut labels) = (Vec::new(), Vec::new());
        let summary = generate(config, &mut events, Some(&mut labels)).unwrap();
        Output {
            summary,
            events,
            labels,
        }
    })
}

fn config(n_events: u64, n_users: u32, seed: u64, days: u32) -> GenerateConfig {
    GenerateConfig {
        n_events,
        n_users,
        seed,
        days,
        ..GenerateConfig::default()
    }
}

fn parse(lines: &[u8]) -> Vec<Value> {
    lines
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Holds for every configuration.
fn check(config: &GenerateConfig) -> (Vec<Value>, Vec<Value>) {
    let output = run(config, 2);
    let (events, labels) = (parse(&output.events), parse(&output.labels));
    assert_eq!(output.summary.n_events, config.n_events);
    assert_eq!(events.len() as u64, config.n_events);
    assert_eq!(output.summary.n_attack_events, labels.len() as u64);
    let end_ms = config.start_ms + i64::from(config.days) * 86_400_000;
    let mut last_ms = config.start_ms;
    let mut positions = HashMap::new();
    for (position, event) in events.iter().enumerate() {
        let timestamp_ms = event["timestamp"].as_i64().unwrap();
        assert!((last_ms..end_ms).contains(&timestamp_ms), "{event}");
        last_ms = timestamp_ms;
        let id = event["event_id"].as_str().unwrap();
        assert_eq!(id, format!("evt_{timestamp_ms}_{position:07}"));
        assert!(positions.insert(id, position).is_none(), "{event}");
        check_fields(event, config.n_users);
    }
    let mut last_position = None;
    for label in &labels {
        let position = positions[label["event_id"].as_str().unwrap()];
        assert!(last_position < Some(position), "{label}");
        last_position = Some(position);
        let episode = label["episode"].as_str().unwrap();
        assert!(
            episode.starts_with(label["scenario"].as_str().unwrap()),
            "{label}"
        );
    }
    (events, labels)
}

fn check_fields(event: &Value, n_users: u32) {
    let user: u32 = event["user"]
        .as_str()
        .unwrap()
        .strip_prefix("user")
        .unwrap()
        .parse()
        .unwrap();
    assert!(user < n_users, "{event}");
    let expected = match event["type"].as_str().unwrap() {
        "ACCESS_DENIED" => vec!["blocked"],
        "LOGIN_FAILED" | "MFA_FAILED" => vec!["failed"],
        "API_CALL" | "DB_QUERY" => vec!["success", "failed"],
        _ => vec!["success"],
    };
    assert!(
        expected.contains(&event["status"].as_str().unwrap()),
        "{event}"
    );
    let address = event["source_ip"].as_str().unwrap();
    assert_eq!(
        address.parse::<std::net::IpAddr>().unwrap().to_string(),
        address
    );
    assert!(
        event["geo_location"].as_str().unwrap().contains(", "),
        "{event}"
    );
    assert!(
        (0.0..1.0).contains(&event["threat_score"].as_f64().unwrap()),
        "{event}"
    );
    for name in ["user_agent", "asn", "device", "endpoint"] {
        assert!(event["metadata"][name].is_string(), "{event}");
    }
    assert!(event["metadata"]["bytes"].is_u64(), "{event}");
}

#[test]
fn lines_are_valid_sorted_and_counted() {
    for (n_events, n_users, seed, days) in [
        (0, 1, 1, 1),
        (1, 1, 1, 1),
        (1, 1000, 2, 30),
        (599, 3, 3, 2),
        (600, 3, 3, 2),
        (4096, 7, 4, 1),
        (5000, 1, u64::MAX, 1),
        (20_000, 200, 5, 30),
        (30_000, 1_000_000, 6, 3660),
        (5000, u32::MAX, 8, 30),
    ] {
        check(&config(n_events, n_users, seed, days));
    }
    check(&GenerateConfig {
        start_ms: 1_735_689_600_123,
        ..config(9000, 50, 7, 3)
    });
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let config = config(50_000, 500, 11, 30);
    let (one, four) = (run(&config, 1), run(&config, 4));
    assert!(one.events == four.events && one.labels == four.labels);
    assert_eq!(one.summary, four.summary);
}

/// The bytes are a promise: results published for a seed must be repeatable with a later release.
#[test]
fn bytes_never_change() {
    let output = run(&config(20_000, 200, 42, 30), 2);
    // FNV-1a, as std's hasher may change between releases.
    let hash = [output.events, output.labels]
        .concat()
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
    assert_eq!(hash, 0x5f7b_d50c_1ba4_1a65, "{hash:#x}");
}

#[test]
fn seeds_differ() {
    let outputs: HashSet<Vec<u8>> = [0, 1, u64::MAX]
        .map(|seed| run(&config(100, 10, seed, 30), 1).events)
        .into();
    assert_eq!(outputs.len(), 3);
}

#[test]
fn attacks_start_late_and_cover_all_scenarios() {
    for (n_events, n_users) in [(5000, 20), (20_000, 200), (100_000, 1000)] {
        let config = config(n_events, n_users, 5, 30);
        let (_, labels) = check(&config);
        let scenarios: HashSet<&str> = labels
            .iter()
            .map(|label| label["scenario"].as_str().unwrap())
            .collect();
        assert_eq!(scenarios.len(), 6);
        assert!(
            (n_events / 400..=n_events / 200).contains(&(labels.len() as u64)),
            "{}",
            labels.len()
        );
        let first_ms: i64 = labels[0]["event_id"]
            .as_str()
            .unwrap()
            .split('_')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        assert!(first_ms >= config.start_ms + 12 * 86_400_000);
    }
    let (_, labels) = check(&GenerateConfig {
        attacks: false,
        ..config(20_000, 200, 5, 30)
    });
    assert!(labels.is_empty());
}

#[test]
fn nearly_all_users_have_enough_events_for_a_baseline() {
    for (n_events, n_users, n_events_min) in [(20_000, 200, 60), (100_000, 1000, 60)] {
        let (events, _) = check(&config(n_events, n_users, 9, 30));
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for event in &events {
            *counts.entry(event["user"].as_str().unwrap()).or_default() += 1;
        }
        assert_eq!(counts.len(), n_users as usize);
        let n_enough = counts
            .values()
            .filter(|&&count| count > n_events_min)
            .count();
        assert!(n_enough >= n_users as usize * 95 / 100, "{n_enough}");
    }
}

#[test]
fn lines_have_the_promised_length() {
    let output = run(&config(20_000, 200, 1, 30), 2);
    let mean = output.events.len() / 20_000;
    assert!((360..=390).contains(&mean), "{mean}");
}

#[test]
fn impossible_configurations_are_refused() {
    let valid = config(10, 10, 1, 1);
    for config in [
        GenerateConfig {
            n_users: 0,
            ..valid.clone()
        },
        GenerateConfig {
            n_events: u64::MAX,
            ..valid.clone()
        },
        GenerateConfig {
            days: 0,
            ..valid.clone()
        },
        GenerateConfig {
            days: u32::MAX,
            ..valid.clone()
        },
        GenerateConfig {
            start_ms: -1,
            ..valid.clone()
        },
    ] {
        let error = generate(&config, &mut Vec::new(), None).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_rate_changes_no_byte_and_is_kept() {
    let config = config(400, 20, 1, 1);
    let mut expected = Vec::new();
    generate(&config, &mut expected, None).unwrap();
    let mut lines = Vec::new();
    let start = std::time::Instant::now();
    let per_second = std::num::NonZeroU32::new(1_000).unwrap();
    let mut paced = super::Paced::new(&mut lines, per_second);
    generate(&config, &mut paced, None).unwrap();
    // The last of 400 is due after 399 ms; a machine may be slow, but never too early.
    assert!(start.elapsed().as_millis() >= 380, "{:?}", start.elapsed());
    assert!(lines == expected);
}

#[test]
fn a_write_error_ends_the_run() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = generate(&config(50_000, 10, 1, 1), &mut Full, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
