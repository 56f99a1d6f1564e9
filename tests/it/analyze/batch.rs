//! Message Batches: submitted in one run, collected in another.

use super::{Desk, anomaly, outcomes};
use crate::llm_stub::{Reply, verdict};

fn kinds(range: std::ops::Range<u32>) -> String {
    range
        .map(|i| anomaly(&i.to_string(), &format!("K{}", i / 2), "low"))
        .collect()
}

#[test]
fn a_batch_is_submitted_once_and_collected() {
    let desk = Desk::new(|n, _| match n {
        0 => Reply::Stops("refusal"),
        1 => Reply::Stops("max_tokens"),
        2 => Reply::Fails(400, ""),
        3 => Reply::Fails(500, ""),
        4 => Reply::Expires,
        5 => Reply::Says("nonsense".to_owned()),
        _ => verdict("critical"),
    });
    let (state, cache) = (desk.text("state"), desk.text("cache"));
    let step = |step: &'static str| {
        let args = ["--batch", step, "--batch-state", &state, "--cache", &cache];
        desk.args(&args)
    };
    let run = |name: &'static str, input: &str| {
        let args = step(name);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        crate::tools::run("sg-analyze", &args, input.as_bytes())
    };
    let input = kinds(0..20);
    let ran = run("submit", &input).expect_code(0);
    assert_eq!(ran.text(), "{\"batch\":\"msgbatch_0\",\"requests\":10}\n");
    assert!(
        ran.stderr.contains("sg-analyze: submitted 10\n"),
        "{}",
        ran.stderr
    );
    let ran = run("submit", &kinds(0..22)).expect_code(0);
    assert!(
        ran.stderr.contains("submitted 1; submitted before 10\n"),
        "{}",
        ran.stderr
    );
    let ran = run("status", "").expect_code(1);
    assert_eq!(ran.json_lines()[1]["processing_status"], "in_progress");
    // It is not there yet, and the events pass on.
    let ran = run("collect", &input).expect_code(1);
    assert_eq!(outcomes(&ran), ["unavailable"; 20]);
    assert!(
        ran.stderr.contains("2 batches have not ended yet"),
        "{}",
        ran.stderr
    );
    desk.stub.end_batches();
    run("status", "").expect_code(0);
    let ran = run("collect", &input).expect_code(1);
    let expected: Vec<_> = [
        ["refused"; 2],
        ["truncated"; 2],
        ["invalid"; 2],
        ["unavailable"; 2],
        ["unavailable"; 2],
        ["invalid"; 2],
        ["ok", "cached"],
        ["ok", "cached"],
        ["ok", "cached"],
        ["ok", "cached"],
    ]
    .concat();
    assert_eq!(outcomes(&ran), expected, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("1 questions have expired"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.json_lines()[12..]
            .iter()
            .all(|line| line["anomaly"]["severity"] == "critical")
    );
    // What never came may be submitted again; what did is known, also to those who ask one by one.
    let ran = run("submit", &input).expect_code(0);
    let said = "submitted 2; submitted before 4; answered before 8\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert_eq!(desk.stub.n_batches(), 3);
    assert_eq!(desk.stub.n_asked(), 0);
    let ran = desk
        .run(&["--cache", &cache], &kinds(12..20))
        .expect_code(0);
    assert_eq!(outcomes(&ran), ["cached"; 8]);
}

#[test]
fn a_batch_keeps_to_the_budget_at_half_the_price() {
    let desk = Desk::new(|_, _| verdict("low"));
    let (state, prices, cache) = (desk.text("state"), desk.text("prices"), desk.text("cache"));
    std::fs::write(&prices, "[m]\ninput = 0\noutput = 1000000\n").unwrap();
    let args = [
        "--model=m",
        "--prices",
        &prices,
        "--budget-usd=6200",
        "--batch-state",
        &state,
        "--cache",
        &cache,
    ];
    let run = |step: &'static str, input: &str| {
        desk.run(&[&args[..], &["--batch", step]].concat(), input)
    };
    // 2,048 each are set aside.
    let ran = run("submit", &kinds(0..10)).expect_code(1);
    assert!(
        ran.stderr.contains("submitted 3; over budget 2\n"),
        "{}",
        ran.stderr
    );
    desk.stub.end_batches();
    let ran = run("collect", &kinds(0..10)).expect_code(0);
    let expected = [&["ok", "cached"].repeat(3)[..], &["unavailable"; 4]].concat();
    assert_eq!(outcomes(&ran), expected);
    // Each has cost 25.
    run("collect", &kinds(0..10)).expect_code(0);
    let ran = run("submit", &kinds(0..10)).expect_code(0);
    assert!(
        ran.stderr.contains("submitted 2; answered before 6\n"),
        "{}",
        ran.stderr
    );
    let notes = std::fs::read_to_string(&cache).unwrap();
    let last = notes.lines().last().unwrap();
    assert!(last.contains("\"micro_usd\":4171000000"), "{last}");
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let desk = Desk::new(|_, _| verdict("low"));
    let state = desk.text("state");
    for text in ["{\"a\":1}\n", "half"] {
        std::fs::write(&state, text).unwrap();
        let ran = desk
            .run(&["--batch=status", "--batch-state", &state], "")
            .expect_code(2);
        assert!(
            ran.stderr.contains("something else than batches"),
            "{}",
            ran.stderr
        );
        assert_eq!(std::fs::read_to_string(&state).unwrap(), text);
    }
}
