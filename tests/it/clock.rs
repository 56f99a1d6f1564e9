//! What time it is for all users together, while some clocks are wrong: the adaptive detector sees one
//! address fail for many users whatever a few others say of the time.

use std::fmt::Write as _;

use serde_json::Value;

use crate::tools::{event, generated, run};

const ARGS: [&str; 3] = ["-q", "--detector=adaptive", "--emit=anomalies"];
const DAY_MS: i64 = 86_400_000;
const N_SPRAYED: usize = 40;

/// Half a month of fifty users.
fn history() -> String {
    String::from_utf8(generated(12_500, 50, 131)).unwrap()
}

fn end_ms(lines: &str) -> i64 {
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    last["timestamp"].as_i64().unwrap()
}

/// One address fails for forty users, one every half a minute.
fn spray(from_ms: i64) -> String {
    let mut lines = String::new();
    for i in 0..N_SPRAYED {
        let timestamp_ms = from_ms + i as i64 * 30_000;
        writeln!(
            lines,
            r#"{{"event_id":"spray{i}","user":"user{:05}","timestamp":{timestamp_ms},"type":"LOGIN_FAILED","source_ip":"45.155.205.33","metadata":{{"asn":"AS64999"}}}}"#,
            i + 5
        )
        .unwrap();
    }
    lines
}

/// How many events of the spray are seen to be part of one.
fn n_seen(lines: &str) -> usize {
    let ran = run("sg-score", &ARGS, lines.as_bytes()).expect_code(0);
    let of_spray = |line: &&str| line.starts_with(r#"{"event_id":"spray"#);
    let lines = ran.text().lines().filter(of_spray);
    lines
        .filter(|line| line.contains("failed from this address"))
        .count()
}

/// Events of one user in a row stopped the time of all for years; one of six days ahead, shortly before
/// a spray, did until then.
#[test]
fn nobody_alone_moves_the_time_of_all() {
    let history = history();
    let now_ms = end_ms(&history);
    let expected = n_seen(&(history.clone() + &spray(now_ms + 1_800_000)));
    assert!(expected > N_SPRAYED / 2, "{expected}");
    let check = |wrong: &[(&str, i64)]| {
        let mut lines = history.clone();
        for (i, (user, ahead_ms)) in wrong.iter().enumerate() {
            let wrong = event(&format!("wrong{i}"), user, now_ms + i as i64 + ahead_ms);
            lines += &(wrong + "\n");
        }
        // Others go on.
        for i in 0..10 {
            let user = format!("user{:05}", 46 + i % 4);
            lines += &(event(&format!("on{i}"), &user, now_ms + i * 60_000) + "\n");
        }
        let seen = n_seen(&(lines + &spray(now_ms + 1_800_000)));
        assert!(seen + 2 >= expected, "{wrong:?}: {seen} of {expected}");
    };
    check(&[("user00001", 3_652 * DAY_MS); 3]);
    check(&[("user00001", 3_652 * DAY_MS); 200]);
    check(&[("user00001", 6 * DAY_MS)]);
    check(&[("user00001", 40 * 60_000)]);
    check(&[("user00001", 6 * DAY_MS), ("user00002", 5 * DAY_MS)]);
    // Step by step.
    let steps: Vec<_> = (1..60).map(|i| ("user00001", i * 3 * DAY_MS)).collect();
    check(&steps);
    // Several who agree are believed, until more say otherwise.
    let several = ["user00001", "user00002", "user00003", "user00004"];
    check(&several.map(|user| (user, 3_652 * DAY_MS)));
    check(&[("user00001", -now_ms); 100]);
}

/// All along with every other event: it costs time, and nothing else.
#[test]
fn a_clock_that_is_always_wrong_harms_only_its_user() {
    let history = history();
    let lines = history.clone() + &spray(end_ms(&history) + 60_000);
    let expected = n_seen(&lines);
    for ahead_ms in [6 * DAY_MS, 3_652 * DAY_MS, 30 * 60_000, -3_652 * DAY_MS] {
        let mut mixed = String::new();
        for (i, line) in lines.lines().enumerate() {
            writeln!(mixed, "{line}").unwrap();
            if i % 3 == 0 {
                let line: Value = serde_json::from_str(line).unwrap();
                let timestamp_ms = line["timestamp"].as_i64().unwrap() + ahead_ms;
                let wrong = event(&format!("wrong{i}"), "broken", timestamp_ms.max(0));
                writeln!(mixed, "{wrong}").unwrap();
            }
        }
        let seen = n_seen(&mixed);
        assert!(seen + 3 >= expected, "{ahead_ms}: {seen} of {expected}");
    }
}

/// Who was ahead for a moment is not ahead for days: one failure an hour is no burst.
#[test]
fn a_user_comes_back_from_a_wrong_clock() {
    let history = history();
    let now_ms = end_ms(&history);
    let mut lines = history;
    lines += &(event("wrong", "user00001", now_ms + 6 * DAY_MS) + "\n");
    for i in 0..40 {
        let other = format!("user{:05}", 10 + i % 20);
        lines += &(event(&format!("on{i}"), &other, now_ms + i * 3_600_000) + "\n");
        let failed = event(&format!("failed{i}"), "user00001", now_ms + i * 3_600_000)
            .replace("LOGIN_SUCCESS", "LOGIN_FAILED");
        lines += &(failed + "\n");
    }
    let ran = run("sg-score", &ARGS, lines.as_bytes()).expect_code(0);
    let raised = ran.text().lines();
    let of_user = raised.filter(|line| line.starts_with(r#"{"event_id":"failed"#));
    // A single one is told of, too.
    let is_wrong = |line: &str| {
        line.contains("first activity after")
            || line.contains("failures in 30 min") && !line.contains("\"1 failures in 30 min")
    };
    let wrong: Vec<_> = of_user.filter(|line| is_wrong(line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The second of two files may be of earlier times: what its users share is learned nonetheless.
#[test]
fn files_of_earlier_times_are_learned() {
    let earlier = history();
    let later = earlier.replace("\"timestamp\":1735", "\"timestamp\":1745");
    let later = later.replace("\"timestamp\":1736", "\"timestamp\":1746");
    let lines = |first: &str| first.to_owned() + &earlier + &spray(end_ms(&earlier) + 60_000);
    let expected = n_seen(&lines(""));
    let seen = n_seen(&lines(&later));
    assert!(seen + 3 >= expected, "{seen} of {expected}");
    let args = ["--detector=adaptive", "--emit=anomalies"];
    let ran = run("sg-score", &args, lines(&later).as_bytes()).expect_code(0);
    assert!(ran.stderr.contains("later than others"), "{}", ran.stderr);
    // Those that set the clock back were counted twice.
    let n_late: Option<usize> = ran.stderr.split(' ').find_map(|word| word.parse().ok());
    let mut latest_ms = 0;
    let all = lines(&later);
    let is_late = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let at_ms = event["timestamp"].as_i64().unwrap();
        latest_ms = latest_ms.max(at_ms);
        // Time is told in whole minutes.
        latest_ms - at_ms >= 59 * 60_000
    };
    let n_late_at_most = all.lines().filter(is_late).count();
    assert!(n_late.unwrap() <= n_late_at_most, "{}", ran.stderr);
}

/// There is nobody to agree with, and a holiday is longer than a week.
#[test]
fn one_user_alone_has_weekends_and_holidays() {
    for days in [3, 10] {
        let mut lines = String::new();
        let mut at_ms = 1_735_800_000_000;
        for day in 0..40 {
            for i in 0..8 {
                at_ms += 3_600_000;
                lines += &(event(&format!("e{day}-{i}"), "alice", at_ms) + "\n");
            }
            at_ms += 16 * 3_600_000 + if day == 30 { days * DAY_MS } else { 0 };
        }
        let args = ["-q", "--detector=adaptive", "--threshold=0"];
        let ran = run("sg-score", &args, lines.as_bytes()).expect_code(0);
        let is_back = |event: &&Value| {
            let reasons = event["anomaly"]["reasons"].to_string();
            reasons.contains(&format!("first activity after {days}"))
        };
        let events = ran.json_lines();
        let back: Vec<_> = events.iter().filter(is_back).collect();
        assert!(!back.is_empty(), "{days}");
        let first = back[0]["event_id"].as_str().unwrap();
        assert!(["e31-0", "e31-2"].contains(&first), "{first}");
    }
}

/// What the clock has been told is kept with what all users share.
#[test]
fn restarts_do_not_show_in_what_time_it_is() {
    let history = history();
    let now_ms = end_ms(&history);
    let mut lines = history;
    for (i, days) in [4_000, 4_000, 6, 6, 4_000, 4_000, 4_000, 4_000]
        .iter()
        .enumerate()
    {
        let user = format!("user{:05}", 1 + i % 3);
        lines += &(event(&format!("w{i}"), &user, now_ms + days * DAY_MS) + "\n");
    }
    lines += &spray(now_ms + 60_000);
    let whole = run("sg-score", &ARGS, lines.as_bytes()).expect_code(0);
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--state={}", folder.path().display());
    let args = [&ARGS[..], &[&state]].concat();
    let all: Vec<&str> = lines.split_inclusive('\n').collect();
    let (first, rest) = all.split_at(all.len() - N_SPRAYED - 9);
    let mut parts = run("sg-score", &args, first.concat().as_bytes())
        .expect_code(0)
        .stdout;
    for line in rest {
        parts.extend(
            run("sg-score", &args, line.as_bytes())
                .expect_code(0)
                .stdout,
        );
    }
    assert!(parts == whole.stdout);
}
