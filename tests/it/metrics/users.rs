//! Names of users, which others choose.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Watched, check, samples};
use crate::tools::event;

/// Two events of a user: with a threshold of 0 the second one is an anomaly.
const ALL_BUT_THE_FIRST: [&str; 2] = ["--threshold=0", "--min-events=0"];

/// What a label's value stands for.
fn unescaped(value: &str) -> String {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next().unwrap() {
                'n' => '\n',
                other => other,
            },
            other => other,
        });
    }
    text
}

/// Users that are named, with their anomalies.
fn users(text: &str) -> Vec<(String, f64)> {
    let users = samples(text).into_iter().filter_map(|(name, n_anomalies)| {
        let value = name.strip_prefix("streamguard_user_anomalies{user=\"")?;
        Some((unescaped(value.strip_suffix("\"}").unwrap()), n_anomalies))
    });
    users.collect()
}

fn lines_of(users: impl Iterator<Item = (String, usize)>) -> (String, usize) {
    let (mut lines, mut n_events) = (String::new(), 0);
    for (user, n) in users {
        let user = serde_json::to_string(&user).unwrap();
        for _ in 0..n {
            n_events += 1;
            let line = event(&format!("e{n_events}"), "USER", n_events as i64);
            writeln!(lines, "{}", line.replace("\"USER\"", &user)).unwrap();
        }
    }
    (lines, n_events)
}

#[test]
fn names_come_back_as_they_are() {
    let hostile = [
        "plain",
        "quote\" } 1\nstreamguard_fake_total 7",
        "back\\slash\\n",
        "line\nend",
        "escape\u{1b}[31m",
        "\u{202e}turned {a=\"b\"}",
        "tab\tand \r return",
        "ключ 🗝",
    ];
    let (lines, n_events) = lines_of(hostile.iter().map(|&user| (user.to_owned(), 4)));
    let args = [&ALL_BUT_THE_FIRST[..], &["--metrics-users=100"]].concat();
    let mut watched = Watched::start("sg-score", &args);
    let mut stdin = watched.running.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    watched.wait_until("streamguard_events_processed_total", n_events as f64);
    let text = watched.text();
    check(&text);
    let mut expected: Vec<_> = hostile.iter().map(|&user| (user.to_owned(), 3.0)).collect();
    let mut found = users(&text);
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
    assert!(!samples(&text).contains_key("streamguard_fake_total"));
}

/// Many users with one anomaly each do not crowd out those with many, and make no series.
#[test]
fn a_flood_of_users_makes_no_series() {
    let args = [&ALL_BUT_THE_FIRST[..], &["--metrics-users=3"]].concat();
    let mut watched = Watched::start("sg-score", &args);
    let n_before = watched.samples().len();
    let mut stdin = watched.running.stdin.take().unwrap();
    let long = "x".repeat(255);
    let some = [("early".to_owned(), 20), ("other".to_owned(), 10)];
    let (lines, n_some) = lines_of(some.into_iter());
    stdin.write_all(lines.as_bytes()).unwrap();
    watched.wait_until("streamguard_events_processed_total", n_some as f64);
    assert_eq!(
        users(&watched.text()),
        [("early".to_owned(), 19.0), ("other".to_owned(), 9.0)]
    );
    let mut n_all = n_some;
    let many = [
        ("often".to_owned(), 301),
        (long.clone(), 201),
        ("third".to_owned(), 101),
    ];
    let flood = (0..5_000).map(|i| (format!("flood{i}"), 2));
    for (lines, n_events) in [lines_of(flood), lines_of(many.into_iter())] {
        stdin.write_all(lines.as_bytes()).unwrap();
        n_all += n_events;
        watched.wait_until("streamguard_events_processed_total", n_all as f64);
    }
    let text = watched.text();
    let mut found = users(&text);
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(
        found,
        [
            ("often".to_owned(), 300.0),
            (long[..128].to_owned(), 200.0),
            ("third".to_owned(), 100.0)
        ]
    );
    assert_eq!(samples(&text).len(), n_before + 3);
}

#[test]
fn users_are_named_only_if_somebody_asks() {
    let mut watched = Watched::start("sg-score", &ALL_BUT_THE_FIRST);
    let n_before = watched.samples().len();
    let (lines, n_events) = lines_of([("alice".to_owned(), 5)].into_iter());
    let mut stdin = watched.running.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    watched.wait_until("streamguard_events_processed_total", n_events as f64);
    let text = watched.text();
    assert!(!text.contains("alice"), "{text}");
    assert_eq!(samples(&text).len(), n_before);
    let ran = crate::tools::run("sg-score", &["--metrics-users=3"], b"").expect_code(2);
    assert!(
        ran.stderr.contains("--metrics-users goes with"),
        "{}",
        ran.stderr
    );
    let args = ["--metrics-users=101", "--metrics-listen=0"];
    crate::tools::run("sg-score", &args, b"").expect_code(2);
}
