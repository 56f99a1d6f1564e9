//! What asking comes to, as metrics tell it.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole, which floats hold exactly"
)]

use std::io::Write as _;

use super::{Desk, anomaly};
use crate::llm_stub::{Reply, verdict};
use crate::metrics::{Watched, samples};
use crate::tools::{generated, run};

fn ai(name: &str) -> String {
    format!("streamguard_ai_{name}")
}

#[test]
fn what_asking_comes_to_is_counted() {
    let desk = Desk::new(|n, _| match n {
        0 => verdict("low"),
        1 => Reply::Stops("refusal"),
        _ => Reply::Gated(Box::new(verdict("low"))),
    });
    let args = desk.args(&["--concurrency=1", "--budget-usd=5"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut watched = Watched::start("sg-analyze", &args);
    let before = watched.samples();
    for name in [
        "analyses_total",
        "analysis_failed_total",
        "refusals_total",
        "pending",
    ] {
        assert_eq!(before[&ai(name)], 0.0, "{name}");
    }
    let lines = ["A", "B", "C"]
        .map(|kind| anomaly(kind, kind, "high"))
        .concat();
    let mut stdin = watched.running.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    watched.wait_until(&ai("refusals_total"), 1.0);
    watched.wait_until(&ai("pending"), 1.0);
    let counted = watched.samples();
    assert_eq!(counted[&ai("analyses_total")], 3.0);
    assert_eq!(counted[&ai("analysis_failed_total")], 1.0);
    assert_eq!(counted[&ai("budget_usd")], 5.0);
    assert_eq!(counted["streamguard_events_in_progress"], 3.0);
    assert_eq!(
        counted["streamguard_events_in_total{stage=\"analyze\"}"],
        3.0
    );
    assert_eq!(
        counted["streamguard_events_out_total{stage=\"analyze\"}"],
        0.0
    );
    let cost = |counted: &crate::metrics::Samples| {
        (
            counted[&ai("cost_usd_total")],
            counted[&ai("budget_spent_usd")],
        )
    };
    let (cost_usd, spent_usd) = cost(&counted);
    assert!(0.0 < cost_usd && cost_usd < spent_usd, "one is set aside");
    desk.stub.open_gate();
    watched.wait_until("streamguard_events_processed_total", 3.0);
    let counted = watched.samples();
    assert_eq!(counted[&ai("pending")], 0.0);
    assert_eq!(counted[&ai("analysis_failed_total")], 1.0);
    let (cost_usd, spent_usd) = cost(&counted);
    assert!(
        (cost_usd - spent_usd).abs() < 1e-9,
        "{cost_usd} {spent_usd}"
    );
    drop(stdin);
    watched.running.end().expect_code(0);
}

/// What waits in a database is counted there, in the end too.
#[test]
fn what_is_analysed_beside_the_writer_is_counted() {
    let desk = Desk::new(|n, _| match n % 3 {
        2 => Reply::Fails(500, ""),
        _ => verdict("low"),
    });
    let file = desk.text("run.prom");
    let db = desk.text("db");
    let own = [
        "--db",
        &db,
        "--threshold=0.6",
        "--analyze",
        "--retries=0",
        "--breaker-failures=1",
    ];
    let told = ["--metrics-file", &file];
    let args = desk.args(&[&own[..], &told].concat());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = run("sg-run", &args, &generated(3_000, 10, 421)).expect_code(1);
    let counted = samples(&std::fs::read_to_string(&file).unwrap());
    let n = |name: &str| counted[&format!("{}{{file=\"run\",program=\"sg-run\"}}", ai(name))];
    let number_before = |text: &str, words: &str| {
        let before = text.split(words).next().unwrap();
        before.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(
        n("pending"),
        number_before(&ran.stderr, " events wait for their analysis")
    );
    let said = ran
        .stderr
        .split("analysed: ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let outcomes: Vec<(&str, f64)> = said
        .split(", ")
        .map(|part| part.split_once(' ').unwrap())
        .map(|(outcome, n)| (outcome, n.parse().unwrap()))
        .collect();
    let sum = |is_wanted: fn(&str) -> bool| -> f64 {
        let wanted = outcomes.iter().filter(|(outcome, _)| is_wanted(outcome));
        wanted.map(|(_, n)| n).sum()
    };
    assert_eq!(n("analyses_total"), sum(|_| true));
    let failed = sum(|outcome| !["ok", "cached"].contains(&outcome));
    assert!(failed > 0.0, "{said}");
    assert_eq!(n("analysis_failed_total"), failed);
}
