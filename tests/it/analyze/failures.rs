//! Every way in which a service fails: what is said of the event, how often it is asked, and that the
//! event passes on.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{Desk, anomaly, outcomes};
use crate::llm_stub::{Reply, Stub, verdict};
use crate::tools::run;

const NOW: &str = "retry-after-ms: 1\r\n";

/// Asks about one event, and about it alone.
fn check(reply: &Reply, outcome: &str, n_asked: usize) -> String {
    let mut words = String::new();
    for provider in [&[][..], &["--provider=openai", "--model=m"]] {
        let reply = reply.clone();
        let desk = Desk::new(move |_, _| reply.clone());
        let input = anomaly("a", "A", "high");
        let args = [provider, &["--timeout=400ms", "--retries=2"]].concat();
        let ran = desk.run(&args, &input).expect_code(0);
        assert_eq!(outcomes(&ran), [outcome], "{provider:?}: {}", ran.stderr);
        assert_eq!(desk.stub.n_asked(), n_asked, "{provider:?}: {}", ran.stderr);
        let analysis = format!(",\"analysis\":{{\"outcome\":\"{outcome}\"}}}}\n");
        assert_eq!(ran.text(), input[..input.len() - 2].to_owned() + &analysis);
        words = ran.stderr;
    }
    words
}

#[test]
fn what_is_about_the_question_is_not_tried_again() {
    check(&Reply::Fails(400, ""), "invalid", 1);
    check(&Reply::Fails(413, ""), "invalid", 1);
    check(&Reply::Fails(422, ""), "invalid", 1);
    check(
        &Reply::Fails(500, "x-should-retry: false\r\n"),
        "invalid",
        1,
    );
}

#[test]
fn what_is_about_every_question_is_said_once() {
    for status in [401, 402, 403, 404, 302] {
        let words = check(&Reply::Fails(status, ""), "unavailable", 1);
        let said = format!("refuses every question, it answers {status}");
        assert!(words.contains(&said), "{words}");
    }
    let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"spent","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    let words = check(&Reply::Raw(429, spent.to_owned()), "unavailable", 1);
    assert!(words.contains("it answers 429: spent"), "{words}");
}

#[test]
fn what_passes_is_tried_again() {
    for status in [408, 409, 429, 500, 503, 504, 529] {
        check(&Reply::Fails(status, NOW), "unavailable", 3);
    }
    check(
        &Reply::Fails(400, "x-should-retry: true\r\nretry-after-ms: 1\r\n"),
        "unavailable",
        3,
    );
    check(&Reply::Cut, "unavailable", 3);
    check(&Reply::Gibberish, "unavailable", 3);
    // A proxy with something to say, or an answer in another protocol.
    check(
        &Reply::Raw(200, "<html>hello</html>".to_owned()),
        "unavailable",
        3,
    );
    check(&Reply::Raw(200, "{}".to_owned()), "unavailable", 3);
    check(&Reply::Hang, "timeout", 3);
    check(
        &Reply::Late(Duration::from_secs(2), Box::new(verdict("low"))),
        "timeout",
        3,
    );
}

#[test]
fn an_answer_that_is_none_says_nothing_of_the_event() {
    check(&Reply::Stops("refusal"), "refused", 1);
    check(&Reply::Stops("max_tokens"), "truncated", 1);
    check(&Reply::Stops("tool_use"), "invalid", 1);
    let says = |text: &str| Reply::Says(text.to_owned());
    check(&says("It is harmless."), "invalid", 1);
    check(&says(""), "invalid", 1);
    check(
        &says(
            r#"{"severity":"none","confidence":0.5,"indicators":[],"summary":"s","recommendation":"r"}"#,
        ),
        "invalid",
        1,
    );
    check(
        &says(
            r#"{"severity":"low","confidence":7,"indicators":[],"summary":"s","recommendation":"r"}"#,
        ),
        "invalid",
        1,
    );
    check(
        &says(r#"{"severity":"low","confidence":0.5}"#),
        "invalid",
        1,
    );
}

/// It waits as long as it is told, or by itself if nobody says how long, and then goes on.
#[test]
fn a_service_that_is_busy_is_waited_for() {
    for (header, least_ms, most_ms) in [
        ("retry-after: 1\r\n", 1_000, 2_500),
        ("retry-after: 0.6\r\n", 600, 2_500),
        ("retry-after-ms: 300\r\nretry-after: 30\r\n", 300, 2_500),
        ("", 375, 2_500),
    ] {
        let desk = Desk::new(move |n_before, _| match n_before {
            0 => Reply::Fails(429, header),
            _ => verdict("low"),
        });
        let start = Instant::now();
        let ran = desk.run(&[], &anomaly("a", "A", "low")).expect_code(0);
        let ms = start.elapsed().as_millis();
        assert_eq!(outcomes(&ran), ["ok"], "{header}");
        assert!((least_ms..most_ms).contains(&ms), "{header}: {ms}");
        assert_eq!(desk.stub.n_asked(), 2);
    }
    // Whoever wants to be left alone for an hour is not waited for.
    let desk = Desk::new(|_, _| Reply::Fails(429, "retry-after: 3600\r\n"));
    let ran = desk.run(&[], &anomaly("a", "A", "low")).expect_code(0);
    assert_eq!(outcomes(&ran), ["unavailable"]);
    assert_eq!(desk.stub.n_asked(), 1);
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let args = [
        "--provider=openai",
        "--model=m",
        "--retries=1",
        "--base-url",
        &base,
    ];
    let ran = run("sg-analyze", &args, anomaly("a", "A", "low").as_bytes()).expect_code(0);
    assert_eq!(outcomes(&ran), ["unavailable"]);
}

/// Half of the events meet a service that fails; all pass on, those after it has come to itself with an
/// analysis.
#[test]
fn a_breaker_opens_tries_and_closes() {
    let desk = Desk::new(|n_before, _| match n_before {
        0..4 => Reply::Fails(503, NOW),
        _ => verdict("low"),
    });
    let args = [
        "--retries=0",
        "--concurrency=1",
        "--breaker-failures=3",
        "--breaker-cooldown=700ms",
    ];
    let mut running = desk.start(&args);
    let mut send = |range: std::ops::Range<u32>| {
        use std::io::Write as _;
        let lines: String = range
            .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
            .collect();
        running
            .stdin
            .as_mut()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
    };
    send(0..10);
    assert!(crate::tools::wait_for(|| desk.stub.n_asked() >= 3));
    // The cool-down is over: one call tries, and fails.
    std::thread::sleep(Duration::from_millis(800));
    send(10..13);
    assert!(crate::tools::wait_for(|| desk.stub.n_asked() == 4));
    std::thread::sleep(Duration::from_millis(800));
    send(13..16);
    drop(running.stdin.take());
    let ran = running.end().expect_code(0);
    let (failed, open) = ("unavailable", "breaker_open");
    let expected = [
        &[failed; 3][..],
        &[open; 7],
        &[failed],
        &[open; 2],
        &["ok"; 3],
    ]
    .concat();
    assert_eq!(outcomes(&ran), expected, "{}", ran.stderr);
    assert_eq!(desk.stub.n_asked(), 7);
    let said = format!(
        "sg-analyze: {} is left alone for 0.7 s: it answers 503",
        desk.stub.url()
    );
    assert_eq!(
        ran.stderr.matches("is left alone").count(),
        1,
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    let said = format!("sg-analyze: {} answers again\n", desk.stub.url());
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

/// A wrong key: one call, whatever comes.
#[test]
fn nobody_knocks_at_a_door_that_is_locked() {
    let desk = Desk::new(|_, _| Reply::Fails(401, ""));
    let input: String = (0..200)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    let ran = desk.run(&["--concurrency=1"], &input).expect_code(0);
    assert_eq!(desk.stub.n_asked(), 1);
    let found = outcomes(&ran);
    assert_eq!(found[0], "unavailable");
    assert!(found[1..].iter().all(|outcome| outcome == "breaker_open"));
    // Its port may be any number.
    let said = ran.stderr.replace(&desk.stub.url(), "");
    assert_eq!(said.matches("401").count(), 1, "{said}");
}

/// A service that hangs: nobody waits for each event in turn.
#[test]
fn a_service_that_hangs_stops_nobody_for_long() {
    let desk = Desk::new(|_, _| Reply::Hang);
    let input: String = (0..2_000)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    let start = Instant::now();
    let args = ["--timeout=300ms", "--retries=0", "--breaker-failures=4"];
    let ran = desk.run(&args, &input).expect_code(0);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    let found = outcomes(&ran);
    assert_eq!(found.len(), 2_000);
    assert!(
        found
            .iter()
            .all(|outcome| outcome == "timeout" || outcome == "breaker_open")
    );
    assert!(desk.stub.n_asked() <= 8, "{}", desk.stub.n_asked());
}

/// Bad requests in a row are the fault of something else than the events.
#[test]
fn events_are_not_given_up_for_a_setting_that_is_wrong() {
    let desk = Desk::new(|_, _| Reply::Fails(400, ""));
    let input: String = (0..20)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    let args = ["--concurrency=1", "--breaker-failures=3"];
    let ran = desk.run(&args, &input).expect_code(0);
    let found = outcomes(&ran);
    assert_eq!(
        found.iter().filter(|outcome| *outcome == "invalid").count(),
        3
    );
    assert_eq!(
        found
            .iter()
            .filter(|outcome| *outcome == "breaker_open")
            .count(),
        17
    );
}

/// The service is another one by the time that it answers: what was not final is asked again.
#[test]
fn what_was_not_final_is_asked_again() {
    let desk = Desk::new(|_, _| Reply::Fails(401, ""));
    let input = anomaly("a", "A", "low") + &anomaly("b", "B", "low");
    let ran = desk.run(&["--concurrency=1"], &input).expect_code(0);
    assert_eq!(outcomes(&ran), ["unavailable", "breaker_open"]);
    let again = Stub::start(|_, _| verdict("low"));
    let args = [
        "--keep",
        "--api-key-file",
        &desk.text("key"),
        "--base-url",
        &again.url(),
    ];
    let ran = run("sg-analyze", &args, &ran.stdout).expect_code(0);
    assert_eq!(outcomes(&ran), ["ok", "ok"]);
    let ran = run("sg-analyze", &args, &ran.stdout).expect_code(0);
    assert_eq!(outcomes(&ran), ["ok", "ok"]);
    assert_eq!(again.n_asked(), 2);
}
