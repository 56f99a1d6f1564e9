//! Calls and money, also over restarts; and answers that are kept.

use std::io::Write as _;

use super::{Desk, anomaly, outcomes};
use crate::llm_stub::{Reply, verdict};
use crate::tools::{run, wait_for};

/// Anomalies of as many kinds.
fn kinds(range: std::ops::Range<u32>) -> String {
    range
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect()
}

fn n_of(found: &[String], outcome: &str) -> usize {
    found.iter().filter(|found| *found == outcome).count()
}

/// Ten thousand alike cost one call, also while it is on its way.
#[test]
fn what_is_alike_is_asked_about_once() {
    let desk = Desk::new(|_, _| Reply::Gated(Box::new(verdict("high"))));
    let input: String = (0..10_000)
        .map(|i| anomaly(&i.to_string(), "A", "low"))
        .collect();
    let mut running = desk.start(&["--timeout=60s"]);
    let mut stdin = running.stdin.take().unwrap();
    let (first, rest) = input.split_at(200_000);
    stdin.write_all(first.as_bytes()).unwrap();
    assert!(wait_for(|| desk.stub.n_asked() == 1));
    let writer = {
        let rest = rest.to_owned();
        std::thread::spawn(move || stdin.write_all(rest.as_bytes()).unwrap())
    };
    desk.stub.open_gate();
    writer.join().unwrap();
    let ran = running.end().expect_code(0);
    let found = outcomes(&ran);
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[0], "ok");
    assert_eq!(n_of(&found, "cached"), 9_999);
    assert_eq!(desk.stub.n_asked(), 1);
    let lines = ran.json_lines();
    assert!(
        lines
            .iter()
            .all(|line| line["anomaly"]["severity"] == "high")
    );
    assert_eq!(lines[9_999]["analysis"]["cached_from"], "0");
}

/// What comes of one question that is about its own event holds for no other.
#[test]
fn a_refusal_is_of_one_event() {
    let desk = Desk::new(|n_before, _| match n_before {
        0 => Reply::Stops("refusal"),
        1 => Reply::Stops("max_tokens"),
        _ => verdict("low"),
    });
    let input: String = (0..5)
        .map(|i| anomaly(&i.to_string(), "A", "low"))
        .collect();
    let ran = desk.run(&[], &input).expect_code(0);
    assert_eq!(
        outcomes(&ran),
        ["refused", "truncated", "ok", "cached", "cached"]
    );
    assert_eq!(desk.stub.n_asked(), 3);
}

#[test]
fn calls_of_a_minute_and_of_a_day_are_limited() {
    let desk = Desk::new(|_, _| verdict("low"));
    let ran = desk.run(&["--per-minute=7"], &kinds(0..20)).expect_code(0);
    let found = outcomes(&ran);
    assert_eq!((n_of(&found, "ok"), n_of(&found, "over_budget")), (7, 13));
    let ran = desk.run(&["--per-day=3"], &kinds(0..20)).expect_code(0);
    let found = outcomes(&ran);
    assert_eq!((n_of(&found, "ok"), n_of(&found, "over_budget")), (3, 17));
    assert!(
        ran.stderr.contains("without --cache FILE"),
        "{}",
        ran.stderr
    );
    assert_eq!(desk.stub.n_asked(), 10);
    // What is tried again counts.
    let desk = Desk::new(|_, _| Reply::Fails(500, "retry-after-ms: 1\r\n"));
    desk.run(&["--per-minute=3", "--breaker-failures=100"], &kinds(0..20))
        .expect_code(0);
    assert_eq!(desk.stub.n_asked(), 3);
}

/// A restart, or a kill, gives nobody a new budget.
#[test]
fn a_day_goes_on_after_a_restart() {
    let desk = Desk::new(|_, _| verdict("low"));
    let cache = desk.text("cache");
    let args = ["--per-day=5", "--cache", &cache, "--concurrency=1"];
    let mut n_ok = 0;
    for from in [0, 3, 6, 9] {
        let ran = desk.run(&args, &kinds(from..from + 3)).expect_code(0);
        n_ok += n_of(&outcomes(&ran), "ok");
    }
    assert_eq!((n_ok, desk.stub.n_asked()), (5, 5));
    // What is known costs nothing.
    let ran = desk.run(&args, &kinds(0..5)).expect_code(0);
    assert_eq!(n_of(&outcomes(&ran), "cached"), 5);

    let desk = Desk::new(|_, _| Reply::Hang);
    let cache = desk.text("cache");
    let args = ["--per-day=2", "--timeout=60s", "--cache", &cache];
    let mut running = desk.start(&args);
    running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(kinds(0..2).as_bytes())
        .unwrap();
    assert!(wait_for(|| desk.stub.n_asked() == 2));
    running.signal(rustix::process::Signal::KILL);
    assert!(wait_for(|| running.has_ended()));
    let ran = desk.run(&args, &kinds(2..4)).expect_code(0);
    assert_eq!(outcomes(&ran), ["over_budget", "over_budget"]);
}

/// A call may cost its question and 4,096 tokens; it is made only if there is money for that.
#[test]
fn money_is_limited() {
    // A dollar a token of output, so that all else is small.
    let desk = Desk::new(|_, _| verdict("low"));
    let (cache, prices) = (desk.text("cache"), desk.text("prices"));
    std::fs::write(&prices, "[m]\ninput = 0\noutput = 1000000\n").unwrap();
    let args = [
        "--model=m",
        "--prices",
        &prices,
        "--cache",
        &cache,
        "--concurrency=1",
    ];
    let budget = |usd: &'static str| [&args[..], &["--budget-usd", usd]].concat();
    let ran = desk.run(&budget("4095"), &kinds(0..3)).expect_code(0);
    assert_eq!(outcomes(&ran), ["over_budget"; 3]);
    // An answer has 50 tokens: 0 + 4,096, 50 + 4,096 and 100 + 4,096 fit.
    let ran = desk.run(&budget("4200"), &kinds(0..5)).expect_code(0);
    assert_eq!(
        outcomes(&ran),
        ["ok", "ok", "ok", "over_budget", "over_budget"]
    );
    assert!(ran.stderr.contains(", 150.0000 USD"), "{}", ran.stderr);
    // Another run begins at 150.
    let ran = desk.run(&budget("4245"), &kinds(5..7)).expect_code(0);
    assert_eq!(outcomes(&ran), ["over_budget"; 2]);
    let ran = desk.run(&budget("4246"), &kinds(5..7)).expect_code(0);
    assert_eq!(outcomes(&ran), ["ok", "over_budget"]);
}

/// However many calls are made at the same time, together they do not spend more.
#[test]
fn money_is_not_spent_twice_at_the_same_time() {
    let desk = Desk::new(|_, _| verdict("low"));
    let prices = desk.text("prices");
    std::fs::write(&prices, "[m]\ninput = 0\noutput = 1000000\n").unwrap();
    let args = [
        "--model=m",
        "--prices",
        &prices,
        "--budget-usd=9000",
        "--concurrency=16",
        "-q",
    ];
    desk.run(&args, &kinds(0..64)).expect_code(0);
    assert!(desk.stub.n_most() <= 2, "{}", desk.stub.n_most());
    assert!(desk.stub.n_asked() >= 2);
}

#[test]
fn answers_are_kept_and_a_torn_or_damaged_file_is_used() {
    let desk = Desk::new(|_, _| verdict("high"));
    let cache = desk.text("cache");
    let args = ["--cache", &cache];
    desk.run(&args, &kinds(0..4)).expect_code(0);
    assert_eq!(desk.stub.n_asked(), 4);
    let whole = std::fs::read_to_string(&cache).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "{\"streamguard_answers\":1}");
    // A kill in the middle of the last line.
    std::fs::write(&cache, &whole[..whole.len() - 30]).unwrap();
    let ran = desk.run(&args, &kinds(0..4)).expect_code(0);
    assert_eq!(n_of(&outcomes(&ran), "cached"), 3);
    assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&cache).unwrap().lines().count(), 5);
    // What was torn is gone, and the next line is whole.
    let ran = desk.run(&args, &kinds(0..4)).expect_code(0);
    assert_eq!(n_of(&outcomes(&ran), "cached"), 4);
    assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
    // A line in the middle.
    let damaged = whole.replacen("severity", "sev\u{fffd}rity", 1);
    std::fs::write(&cache, damaged).unwrap();
    let ran = desk.run(&args, &kinds(0..4)).expect_code(0);
    assert_eq!(n_of(&outcomes(&ran), "cached"), 3);
    assert!(
        ran.stderr.contains("/cache:2: damaged, left out"),
        "{}",
        ran.stderr
    );
    // An answer is as good as it was, and is raised by as it was.
    assert_eq!(ran.json_lines()[3]["anomaly"]["severity"], "high");
    for (text, words) in [
        (
            "{\"streamguard_answers\":2}\n",
            "has version 2, this build reads version 1",
        ),
        ("{\"event_id\":1}\n", "something else than answers"),
        ("half", "something else than answers"),
    ] {
        std::fs::write(&cache, text).unwrap();
        let ran = desk.run(&args, "").expect_code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&cache).unwrap(), text);
    }
}

/// Lines that count no more are forgotten in time.
#[test]
fn a_file_that_has_grown_is_written_anew() {
    let desk = Desk::new(|_, _| verdict("high"));
    let cache = desk.text("cache");
    desk.run(&["--cache", &cache], &kinds(0..2)).expect_code(0);
    let mut text = std::fs::read_to_string(&cache).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    for _ in 0..2_000 {
        text += &lines[1];
        text += "\n";
    }
    std::fs::write(&cache, text).unwrap();
    desk.run(&["--cache", &cache], &kinds(0..3)).expect_code(0);
    let found = std::fs::read_to_string(&cache).unwrap();
    // The head, three answers, the day.
    assert_eq!(found.lines().count(), 5, "{found}");
    let ran = desk.run(&["--cache", &cache], &kinds(0..3)).expect_code(0);
    assert_eq!(n_of(&outcomes(&ran), "cached"), 3);
}

#[test]
fn a_file_has_one_writer() {
    let desk = Desk::new(|_, _| verdict("high"));
    let cache = desk.text("cache");
    let running = desk.start(&["--cache", &cache]);
    assert!(wait_for(
        || std::fs::metadata(&cache).is_ok_and(|found| found.len() > 0)
    ));
    let ran = desk.run(&["--cache", &cache], "").expect_code(2);
    assert!(
        ran.stderr.contains("is in use by another program"),
        "{}",
        ran.stderr
    );
    drop(running);
    let ran = run("sg-analyze", &["--dry-run", "--cache", "/dev/null"], b"").expect_code(2);
    assert!(ran.stderr.contains("is not a file"), "{}", ran.stderr);
}

/// Other models give other answers.
#[test]
fn an_answer_is_of_its_model_and_of_what_was_hidden() {
    let desk = Desk::new(|_, _| verdict("low"));
    let cache = desk.text("cache");
    for (args, n_asked) in [
        (&["--model=a"][..], 1),
        (&["--model=b"], 2),
        (&["--model=a"], 2),
        (&["--model=a", "--redact=ip"], 3),
        (&["--model=a", "--provider=openai"], 4),
        (&["--model=a", "--escalate-model=b"], 5),
    ] {
        let args = [args, &["--cache", &cache]].concat();
        desk.run(&args, &kinds(0..1)).expect_code(0);
        assert_eq!(desk.stub.n_asked(), n_asked, "{args:?}");
    }
}
