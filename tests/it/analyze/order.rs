//! The order of what comes out, whatever comes in between: other events, answers, lines of a pipe's
//! checkpoints, signals, and readers that go away.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Desk, anomaly, outcomes};
use crate::llm_stub::{Reply, verdict};
use crate::tools::{event, shell, wait_for};

/// Every third one is an anomaly of a kind of its own.
fn mixed(range: std::ops::Range<u32>) -> String {
    let line = |i: u32| match i % 3 {
        0 => anomaly(&i.to_string(), &format!("K{i}"), "low"),
        _ => event(&i.to_string(), "u", i64::from(i)) + "\n",
    };
    range.map(line).collect()
}

fn ids(text: &str) -> Vec<u32> {
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["event_id"].as_str().unwrap().parse().unwrap()
    };
    text.lines().map(id).collect()
}

#[test]
fn what_comes_out_has_the_order_of_what_went_in() {
    // The first ones take the longest.
    let desk = Desk::new(|n_before, _| {
        let ms = 60_u64.saturating_sub(n_before as u64 * 5);
        Reply::Late(Duration::from_millis(ms), Box::new(verdict("low")))
    });
    let input = mixed(0..300);
    let ran = desk.run(&["--concurrency=8"], &input).expect_code(0);
    assert_eq!(ids(ran.text()), (0..300).collect::<Vec<_>>());
    assert_eq!(desk.stub.n_most(), 8);
    // The number of calls at the same time changes no byte.
    let again = Desk::new(|_, _| verdict("low"));
    let one = again
        .run(&["--concurrency=1", "--jobs=1"], &input)
        .expect_code(0);
    assert!(one.stdout == ran.stdout);
}

#[test]
fn unordered_events_do_not_wait_for_others() {
    let desk = Desk::new(|_, asked| match asked.user().as_str() {
        "user-of-0" => Reply::Gated(Box::new(verdict("low"))),
        _ => verdict("low"),
    });
    let mut running = desk.start(&["--unordered", "--timeout=60s"]);
    let stdin = running.stdin.as_mut().unwrap();
    stdin.write_all(mixed(0..2).as_bytes()).unwrap();
    // It comes out although the one before it waits.
    assert!(wait_for(|| running.stdout().contains("\"event_id\":\"1\"")));
    assert!(!running.stdout().contains("\"event_id\":\"0\""));
    desk.stub.open_gate();
    // And so does that one, without anything that comes behind it.
    assert!(wait_for(|| running.stdout().contains("\"event_id\":\"0\"")));
    let stdin = running.stdin.as_mut().unwrap();
    stdin.write_all(mixed(2..900).as_bytes()).unwrap();
    drop(running.stdin.take());
    let ran = running.end().expect_code(0);
    let mut found = ids(ran.text());
    found.sort_unstable();
    assert_eq!(found, (0..900).collect::<Vec<_>>());
    assert!(
        outcomes(&ran)
            .iter()
            .filter(|outcome| *outcome == "ok")
            .count()
            == 300
    );
    let summary = "in 900 = out 900 + rejected 0 + filtered 0";
    assert!(ran.stderr.contains(summary), "{}", ran.stderr);
}

/// A quiet input is answered at once.
#[test]
fn nobody_waits_for_more_input() {
    let desk = Desk::new(|_, _| verdict("low"));
    for args in [&[][..], &["--unordered"]] {
        let mut running = desk.start(args);
        for i in 0..3 {
            let start = Instant::now();
            let line = anomaly(&i.to_string(), "A", "low");
            running
                .stdin
                .as_mut()
                .unwrap()
                .write_all(line.as_bytes())
                .unwrap();
            assert!(wait_for(|| running.stdout().lines().count() == i + 1));
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
        }
    }
}

/// Events that come one by one are asked about at the same time.
#[test]
fn events_that_trickle_in_do_not_wait_for_each_others_calls() {
    let desk = Desk::new(|_, _| Reply::Gated(Box::new(verdict("low"))));
    let mut running = desk.start(&["--timeout=60s"]);
    for i in 0..2 {
        let line = anomaly(&i.to_string(), &format!("K{i}"), "low");
        running
            .stdin
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        assert!(wait_for(|| desk.stub.n_asked() == i + 1), "{i}");
    }
    desk.stub.open_gate();
    assert!(wait_for(|| running.stdout().lines().count() == 2));
}

/// Checkpoints of a pipe stay behind all events that came before them, and before all others.
#[test]
fn lines_of_checkpoints_stay_where_they_are() {
    let desk = Desk::new(|n_before, _| {
        let ms = (n_before as u64 * 7) % 40;
        Reply::Late(Duration::from_millis(ms), Box::new(verdict("low")))
    });
    let ours = |text: &str| format!("{{\"sg\":{{\"db\":\"d\",{text}}}}}\n");
    let resume = ours("\"resume\":3");
    let checkpoint = |n: u32| ours(&format!("\"checkpoint\":{n},\"positions\":{{}}"));
    let input = [
        resume.clone(),
        mixed(0..100),
        checkpoint(4),
        mixed(100..101),
        checkpoint(5),
        checkpoint(6),
        mixed(101..200),
        checkpoint(7),
    ]
    .concat();
    let bounds = [(0, 100), (100, 101), (101, 101), (101, 200)];
    for args in [
        &["--concurrency=8"][..],
        &["--concurrency=8", "--unordered"],
    ] {
        let ran = desk.run(args, &input).expect_code(0);
        let text = ran.text().strip_prefix(&resume).unwrap();
        let mut rest = text;
        for (n, (from, until)) in (4..).zip(bounds) {
            let (events, after) = rest.split_once(&checkpoint(n)).unwrap();
            let mut found = ids(events);
            if args.len() == 2 {
                found.sort_unstable();
            }
            assert_eq!(found, (from..until).collect::<Vec<_>>(), "{args:?}");
            rest = after;
        }
        assert_eq!(rest, "");
    }
    // A pipe that ends without one is told.
    let ran = desk
        .run(&[], &(resume.clone() + &mixed(0..3)))
        .expect_code(2);
    assert!(
        ran.stderr.contains("have ended without a checkpoint"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.text().lines().count(), 4);
}

/// The whole pipe: a database of it is that of another run of it, and has what was raised.
#[test]
fn a_pipe_goes_on_where_it_was_with_analyses() {
    let desk = Desk::new(|_, _| verdict("critical"));
    let folder = desk.folder.path().to_str().unwrap();
    std::fs::write(desk.path("log"), crate::tools::generated(20_000, 40, 301)).unwrap();
    let args = desk.args(&["-q", "--cache", &desk.text("cache")]).join(" ");
    let pipe = format!(
        "cd {folder} && sg-consume -q log --resume-from db | \
         sg-score -q --state state --threshold 0.5 --min-events 20 | sg-analyze {args} | sg-store -q --db db"
    );
    shell(&pipe).expect_code(0);
    let n_asked = desk.stub.n_asked();
    assert!(n_asked > 10, "{n_asked}");
    let before = crate::tools::digest(&desk.path("db"));
    shell(&pipe).expect_code(0);
    assert_eq!(crate::tools::digest(&desk.path("db")), before);
    assert_eq!(desk.stub.n_asked(), n_asked);
    let db = desk.text("db");
    let args = ["anomalies", "--db", &db, "--limit=1000000"];
    let found = crate::tools::run("sg-query", &args, b"").expect_code(0);
    let lines = found.json_lines();
    assert!(lines.len() >= n_asked, "{}", lines.len());
    for line in &lines {
        let severity = line["severity"]
            .as_str()
            .or(line["anomaly"]["severity"].as_str());
        assert_eq!(severity, Some("critical"), "{line}");
    }
}

#[test]
fn bad_lines_are_rejected_as_everywhere() {
    let desk = Desk::new(|_, _| verdict("low"));
    let dead = desk.text("dead");
    let input = format!(
        "not json\n{}{{\"event_id\":\"x\"}}\n",
        anomaly("1", "A", "low")
    );
    let ran = desk.run(&["--dead-letter", &dead], &input).expect_code(1);
    assert_eq!(ids(ran.text()), [1]);
    assert_eq!(std::fs::read_to_string(&dead).unwrap().lines().count(), 2);
    let summary =
        "in 3 = out 1 + rejected 2 + filtered 0 (rejected: invalid_json 1, missing_field 1)";
    assert!(ran.stderr.contains(summary), "{}", ran.stderr);
    desk.run(&["--strict"], &input).expect_code(2);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let desk = Desk::new(|_, _| verdict("low"));
    std::fs::write(desk.path("in"), mixed(0..30_000)).unwrap();
    let args = desk.args(&["--per-minute=20"]).join(" ");
    let script = format!(
        "sg-analyze {args} < {} | head -n 2; echo ${{PIPESTATUS[0]}}",
        desk.text("in")
    );
    let ran = shell(&script);
    let lines: Vec<_> = ran.text().lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.stderr);
    assert_eq!(lines[2], "0", "{}", ran.stderr);
}

/// A reader that has gone pays for no more calls.
#[test]
fn nobody_is_asked_for_a_reader_that_has_gone() {
    let desk = Desk::new(|_, _| verdict("low"));
    let input: String = (0..3_000)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    std::fs::write(desk.path("in"), input).unwrap();
    let args = desk.args(&["-q"]).join(" ");
    let script = format!(
        "sg-analyze {args} < {} | head -n 1; echo ${{PIPESTATUS[0]}}",
        desk.text("in")
    );
    let ran = shell(&script);
    assert!(ran.text().ends_with("\n0\n"), "{}", ran.stderr);
    let n_asked = desk.stub.n_asked();
    assert!(n_asked < 1_500, "{n_asked}");
}

/// Whoever asks for the end gets what is there, and does not wait for a service that hangs.
#[test]
fn a_signal_ends_it_with_all_events() {
    let desk = Desk::new(|_, _| Reply::Fails(503, "retry-after: 50\r\n"));
    let mut running = desk.start(&["--breaker-failures=1000"]);
    let input = mixed(0..90);
    running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    assert!(wait_for(|| desk.stub.n_asked() == 4));
    let start = Instant::now();
    running.signal(Signal::TERM);
    let ended = crate::tools::wait_within(Duration::from_secs(30), || running.has_ended());
    assert!(ended, "{}", running.stderr());
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "calls go on for a while"
    );
    let ran = running.end().expect_code(0);
    assert_eq!(ids(ran.text()), (0..90).collect::<Vec<_>>());
    let found = outcomes(&ran);
    assert_eq!(
        found
            .iter()
            .filter(|outcome| *outcome == "unavailable")
            .count(),
        30
    );
}
