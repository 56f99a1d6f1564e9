//! What `sg-query user` says of a user's habits, and how it looks: on terminals that are narrow or wide,
//! with and without colours, with ASCII alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::database::{SCORE, lines_of, store};
use crate::query_model::{ask, profile_of};
use crate::query_output::ask_on_terminal;
use crate::tools::{event, generated, program, shell};

#[test]
fn a_profile_is_the_same_from_the_baseline_and_from_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let (piped, fused) = (folder.path().join("piped"), folder.path().join("fused"));
    let input = folder.path().join("events.ndjson");
    // A user that roams, with nothing but what an event must have besides.
    let mut lines = generated(6_000, 5, 77);
    let roamer = |i: i64| {
        let event = event(
            &format!("r{i}"),
            "roamer",
            1_900_000_000_000 + i * 5_000_000,
        );
        let event = event.strip_suffix('}').unwrap().to_owned();
        format!("{event},\"source_ip\":\"198.51.100.{}\"}}\n", i * i % 31)
    };
    lines.extend((0..90).map(roamer).collect::<String>().into_bytes());
    std::fs::write(&input, &lines).unwrap();
    let (shown, score) = (input.display(), SCORE.join(" "));
    shell(&format!(
        "sg-score {score} < {shown} | sg-store -q --db {}",
        piped.display()
    ))
    .expect_code(0);
    shell(&format!("sg-run {score} {shown} --db {}", fused.display())).expect_code(0);
    let events = ask(&piped, &["export"]).expect_code(0).json_lines();
    assert_eq!(events.len(), lines_of(&lines).len());
    for user in ["user00000", "user00001", "user00004", "roamer"] {
        let mut expected = profile_of(user, &events);
        assert!(expected["events"].as_u64().unwrap() > 80, "{expected}");
        for (db, source) in [(&piped, "events"), (&fused, "baseline")] {
            let ran = ask(db, &["user", user]).expect_code(0);
            expected["source"] = source.into();
            assert_eq!(ran.json_lines(), [expected.clone()], "{source}");
            assert_eq!(ran.stderr, "");
            let table = ask(db, &["user", user, "--format=table"]).expect_code(0);
            let counts = format!(
                "  {} events, {} failed (",
                expected["events"], expected["failed"]
            );
            assert!(table.text().lines().nth(1).unwrap().starts_with(&counts));
            let n_addresses = format!("\n  addresses ({})\n", expected["addresses"]["distinct"]);
            assert!(table.text().contains(&n_addresses), "{}", table.text());
        }
    }
    for db in [&piped, &fused] {
        for user in ["nobody", "user0000", "USER00000"] {
            let ran = ask(db, &["user", user]);
            assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", ""), "{user}");
        }
    }
}

/// A user who works on weekdays, and has been attacked.
fn alice() -> (TempDir, PathBuf) {
    const MONDAY_MS: i64 = 1_736_121_600_000;
    const HOURS: [i64; 9] = [8, 9, 9, 10, 11, 13, 14, 15, 16];
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let mut lines = String::new();
    for day in 0..28 {
        let n_events = [9, 9, 8, 9, 6, 1, 0][day % 7];
        for (i, hour) in HOURS.iter().take(n_events).enumerate() {
            let n = day * 9 + i;
            let ms = MONDAY_MS + (day as i64 * 24 + hour) * 3_600_000 + n as i64 * 1_000;
            let (address, place) = match n % 10 {
                0..7 => ("203.0.113.26".to_owned(), "Berlin, DE"),
                7 | 8 => ("2001:db8:103:2147::9".to_owned(), "東京, JP"),
                _ => (format!("198.51.100.{n}"), "Zürich, CH"),
            };
            let kind = ["LOGIN_SUCCESS", "FILE_DOWNLOAD", "LOGIN_FAILED"][(n % 11) / 5];
            writeln!(
                lines,
                r#"{{"event_id":"e{n}","user":"alice","timestamp":{ms},"type":"{kind}","source_ip":"{address}","geo_location":"{place}","threat_score":0.{}}}"#,
                n % 10
            )
            .unwrap();
        }
    }
    let severities = ["low", "critical", "medium", "high", "low", "medium", "low"];
    for (i, severity) in severities.iter().enumerate() {
        let ms = MONDAY_MS + i as i64 * 400_000_000 + 3 * 3_600_000;
        let reasons = [
            r#"["country ZZ: new to everybody, and a good deal more that is to be said of it, at length","x"]"#,
            r#"["\u001b[31m3 failures in 30 min"]"#,
            "[]",
        ][i % 3];
        writeln!(
            lines,
            r#"{{"event_id":"a{i}","user":"alice","timestamp":{ms},"type":"MFA_FAILED","anomaly":{{"event_id":"a{i}","user":"alice","timestamp":{ms},"anomaly_score":0.99{i},"severity":"{severity}","reasons":{reasons}}}}}"#
        )
        .unwrap();
    }
    store(&db, lines.as_bytes()).expect_code(0);
    (folder, db)
}

const WIDE: &str = include_str!("query_profile/wide.txt");
const NARROW: &str = include_str!("query_profile/narrow.txt");
const ASCII: &str = include_str!("query_profile/ascii.txt");

#[track_caller]
fn check(db: &Path, setup: &str, expected: &str) {
    let ran = ask_on_terminal(db, setup, "user alice", "");
    let text = ran.text().replace("\r\n", "\n");
    assert!(text == expected, "{setup}\n{text}");
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
}

#[test]
fn a_terminal_gets_what_it_can_show() {
    let (_folder, db) = alice();
    let plain = WIDE
        .replace("\u{1b}[31m", "")
        .replace("\u{1b}[33m", "")
        .replace("\u{1b}[0m", "");
    assert_eq!(WIDE.len() - plain.len(), 3 * 9);
    let unicode = "export TERM=xterm LC_ALL=C.UTF-8; ";
    check(&db, &format!("stty cols 120; {unicode}"), WIDE);
    // A terminal that does not know its width is no narrow one.
    check(&db, &format!("stty cols 0; {unicode}"), WIDE);
    check(
        &db,
        &format!("stty cols 100; {unicode} export NO_COLOR=1; "),
        &plain,
    );
    check(
        &db,
        &format!("stty cols 300; {unicode} export TERM=dumb; "),
        &plain,
    );
    // An empty variable is none.
    check(
        &db,
        &format!("stty cols 300; {unicode} export NO_COLOR=; "),
        WIDE,
    );
    let german = "unset LC_ALL; export LC_CTYPE= LANG=de_DE.utf8 NO_COLOR=1; ";
    check(&db, &format!("stty cols 60; {german}"), NARROW);
    let ascii = "export NO_COLOR=1 LC_ALL=C LANG=C.UTF-8; ";
    check(&db, &format!("stty cols 60; {ascii}"), ASCII);
    assert!(ASCII.is_ascii());
    // Nothing is wrapped.
    for columns in [60, 66, 80, 84, 99] {
        let setup = format!("stty cols {columns}; {ascii}");
        let ran = ask_on_terminal(&db, &setup, "user alice", "");
        let longest = ran.text().split("\r\n").map(str::len).max().unwrap();
        assert!(longest <= columns, "{columns}: {}", ran.text());
    }
    // Elsewhere it is a table on demand, and has no colours.
    let mut command = program("sg-query");
    command
        .args(["user", "alice", "--format=table", "--db"])
        .arg(&db);
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), plain);
}

/// A robot has so many that they are not all read again.
#[test]
fn of_very_many_the_newest_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let line = |i: i64| {
        let (id, ms) = (format!("e{i}"), 1_736_121_600_000 + i * 700_000);
        let event = event(&id, "robot", ms);
        if i % 9 > 0 {
            return event + "\n";
        }
        let severity = ["low", "medium", "high", "critical"][i as usize % 4];
        let event = event.strip_suffix('}').unwrap();
        format!(
            r#"{event},"anomaly":{{"event_id":"{id}","user":"robot","timestamp":{ms},"anomaly_score":0.{i},"severity":"{severity}","reasons":["r{i}"]}}}}"#
        ) + "\n"
    };
    store(&db, (0..10_050).map(line).collect::<String>().as_bytes()).expect_code(0);
    let events = ask(&db, &["export"]).expect_code(0).json_lines();
    let mut expected = profile_of("robot", &events);
    expected["source"] = "events".into();
    assert_eq!(expected["anomalies"]["more"], true);
    let ran = ask(&db, &["user", "robot"]).expect_code(0);
    assert_eq!(ran.json_lines(), [expected]);
    let table = ask(&db, &["user", "robot", "--format=table"]).expect_code(0);
    let note = "(days: of the newest 10000 events stored)";
    assert!(table.text().contains(note), "{}", table.text());
    assert!(
        table
            .text()
            .contains("anomalies (the newest 1000: 250 critical, ")
    );
}
