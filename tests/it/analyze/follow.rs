//! What waits in a database is analysed there, beside `sg-run` or by `sg-analyze --db`: with the same
//! result as in a pipe, whatever the service and the programs do meanwhile.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Desk, anomaly};
use crate::database::{admin, raw, stats, store};
use crate::llm_stub::{Asked, Reply, verdict, verdict_with};
use crate::tools::{Ran, Running, generated, run, wait_for, wait_within};

/// The same about the same, and something else about others: some anomalies are raised.
fn judge(_: usize, asked: &Asked) -> Reply {
    let data = asked.data();
    let kind = data["event"]["type"].as_str().unwrap_or_default();
    let severity = match kind.len() % 4 {
        0 => "critical",
        1 => "low",
        2 => "high",
        _ => "medium",
    };
    verdict_with(severity, "event.type", &format!("about {kind}"))
}

fn fails(_: usize, _: &Asked) -> Reply {
    Reply::Fails(529, "")
}

/// All that is in a database, once it is known to be whole.
fn content(db: &Path) -> String {
    let verified = admin("verify", db, &["--digest"]).expect_code(0);
    let lines = verified.text().lines();
    // How far programs have come may differ.
    let content = lines.filter(|line| !line.contains("\"baselines\""));
    content.collect::<Vec<_>>().join("\n")
}

fn n_of(db: &Path, family: &str) -> usize {
    let db = raw(db);
    let family = db.cf_handle(family).unwrap();
    db.iterator_cf(family, rocksdb::IteratorMode::Start).count()
}

/// Events of which some are anomalies, in a file.
fn events(desk: &Desk) -> String {
    std::fs::write(desk.path("events"), generated(30_000, 40, 7)).unwrap();
    desk.text("events")
}

impl Desk {
    fn sg_run(&self, db: &str, args: &[&str]) -> Vec<String> {
        let (db, events) = (self.text(db), self.text("events"));
        let own = [
            "--analyze",
            "--detector=adaptive",
            "--threshold=0.9",
            "--db",
            &db,
            &events,
        ];
        self.args(&[&own[..], args].concat())
    }

    fn run_beside(&self, db: &str, args: &[&str]) -> Ran {
        let args = self.sg_run(db, args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        run("sg-run", &args, b"")
    }

    fn start_beside(&self, db: &str, args: &[&str]) -> Running {
        let args = self.sg_run(db, args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Running::start("sg-run", &args)
    }

    fn catch_up(&self, db: &str, args: &[&str]) -> Ran {
        let db = self.text(db);
        self.run(&[&["--db", &db][..], args].concat(), "")
    }

    /// What a pipe makes of the events.
    fn pipe(&self, db: &str) {
        let scored = run(
            "sg-score",
            &["-q", "--detector=adaptive", "--threshold=0.9"],
            &std::fs::read(self.path("events")).unwrap(),
        );
        let analysed = self.run(&["-q"], scored.text()).expect_code(0);
        store(&self.path(db), analysed.stdout.as_slice()).expect_code(0);
    }
}

#[test]
fn beside_sg_run_comes_out_what_a_pipe_gives() {
    let desk = Desk::new(judge);
    events(&desk);
    desk.pipe("piped");
    let n_calls = desk.stub.n_asked();
    let ran = desk.run_beside("fused", &[]).expect_code(0);
    assert!(ran.stderr.contains("analysed: ok "), "{}", ran.stderr);
    assert_eq!(content(&desk.path("fused")), content(&desk.path("piped")));
    assert_eq!(desk.stub.n_asked(), 2 * n_calls);
    assert_eq!(n_of(&desk.path("fused"), "pending"), 0);
    assert!(n_of(&desk.path("fused"), "ai_analysis") > 50);
    // Some were raised.
    let ask = ["analyses", "-n", "10000", "--db", &desk.text("fused")];
    let found = run("sg-query", &ask, b"").expect_code(0).json_lines();
    assert_eq!(found.len(), n_of(&desk.path("fused"), "ai_analysis"));
    let raised = found
        .iter()
        .find(|it| it["analysis"]["raised_from"] != Value::Null);
    let raised = raised.unwrap_or_else(|| panic!("none of {found:?}"));
    assert_eq!(
        raised["anomaly"]["severity"],
        raised["analysis"]["severity"]
    );
    let table = run("sg-query", &[&["-f", "table"], &ask[..]].concat(), b"").expect_code(0);
    assert!(table.text().contains("about LOGIN"), "{}", table.text());
    let csv = run("sg-query", &[&["-f", "csv"], &ask[..]].concat(), b"").expect_code(2);
    assert!(csv.stderr.contains("no CSV"), "{}", csv.stderr);

    // What was found is known to the next run, and so are the events.
    desk.run_beside("fused", &["--reset"]).expect_code(0);
    assert_eq!(desk.stub.n_asked(), 2 * n_calls);
    assert_eq!(content(&desk.path("fused")), content(&desk.path("piped")));
}

#[test]
fn a_service_that_is_away_costs_nothing_but_time() {
    let desk = Desk::new(judge);
    events(&desk);
    desk.pipe("piped");
    let dead = Desk {
        folder: desk.folder,
        stub: crate::llm_stub::Stub::start(fails),
    };
    let patience = [
        "--retries=0",
        "--breaker-failures=2",
        "--breaker-cooldown=10m",
    ];
    let ran = dead.run_beside("fused", &patience).expect_code(1);
    assert!(
        ran.stderr.contains("events wait for their analysis"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("is left alone for 600 s"),
        "{}",
        ran.stderr
    );
    let n_asked = dead.stub.n_asked();
    assert!((2..=5).contains(&n_asked), "{n_asked}");
    let db = dead.path("fused");
    assert_eq!(stats(&db)["events"], 30_000);
    assert_eq!(n_of(&db, "ai_analysis"), 0);
    assert!(n_of(&db, "pending") > 50);
    // Still away.
    dead.catch_up("fused", &patience).expect_code(1);

    // And back.
    let desk = Desk {
        folder: dead.folder,
        stub: crate::llm_stub::Stub::start(judge),
    };
    desk.catch_up("fused", &[]).expect_code(0);
    assert_eq!(content(&desk.path("fused")), content(&desk.path("piped")));
    assert_eq!(n_of(&desk.path("fused"), "pending"), 0);
}

/// Storing goes on while the service takes questions and says nothing.
#[test]
fn a_service_that_hangs_keeps_nobody_waiting() {
    let desk = Desk::new(|_, _| Reply::Hang);
    events(&desk);
    let mut running = desk.start_beside("fused", &["--follow", "--timeout=20s", "--tee"]);
    assert!(wait_for(|| running.stdout().lines().count() == 30_000));
    assert!(wait_for(|| desk.stub.n_asked() > 0));
    assert!(!running.has_ended());
    running.signal(Signal::TERM);
    // Calls that are on their way end first.
    assert!(wait_within(Duration::from_secs(60), || running.has_ended()));
    let ran = running.end().expect_code(1);
    assert!(
        ran.stderr.contains("events wait for their analysis"),
        "{}",
        ran.stderr
    );
    assert_eq!(stats(&desk.path("fused"))["events"], 30_000);
}

#[test]
fn a_kill_at_any_time_leaves_nothing_without_its_analysis() {
    let desk = Desk::new(|i, asked| {
        // So that some are on their way whenever it is killed.
        Reply::Late(Duration::from_millis(3), Box::new(judge(i, asked)))
    });
    events(&desk);
    desk.pipe("piped");
    let n_before = desk.stub.n_asked();
    for n_more in [1, 3, 8, 17, 30] {
        let mut running = desk.start_beside("fused", &[]);
        let n_asked = desk.stub.n_asked();
        assert!(wait_for(
            || desk.stub.n_asked() >= n_asked + n_more || running.has_ended()
        ));
        if !running.has_ended() {
            running.signal(Signal::KILL);
        }
        running.end();
    }
    desk.run_beside("fused", &[]).expect_code(0);
    assert_eq!(n_of(&desk.path("fused"), "pending"), 0);
    assert!(desk.stub.n_asked() > n_before);
    // Which of those alike was asked about depends on the kills; all else does not.
    let plain = |db: &str| {
        let ran = run(
            "sg-query",
            &["analyses", "-n", "10000", "--db", &desk.text(db)],
            b"",
        );
        let mut lines = ran.expect_code(0).json_lines();
        for line in &mut lines {
            let analysis = line["analysis"].as_object_mut().unwrap();
            for name in [
                "outcome",
                "cached_from",
                "input_tokens",
                "output_tokens",
                "raised_from",
            ] {
                analysis.remove(name);
            }
        }
        lines
    };
    content(&desk.path("fused"));
    assert_eq!(plain("fused"), plain("piped"));
}

#[test]
fn a_limit_of_the_day_holds_over_runs_in_a_database() {
    let desk = Desk::new(judge);
    events(&desk);
    let limit = ["--per-day=3"];
    desk.run_beside("fused", &limit).expect_code(1);
    assert_eq!(desk.stub.n_asked(), 3);
    desk.catch_up("fused", &limit).expect_code(1);
    desk.run_beside("fused", &limit).expect_code(1);
    assert_eq!(desk.stub.n_asked(), 3);
    let n_waiting = n_of(&desk.path("fused"), "pending");
    desk.catch_up("fused", &["--per-day=5"]).expect_code(1);
    assert_eq!(desk.stub.n_asked(), 5);
    assert!(n_of(&desk.path("fused"), "pending") < n_waiting);
}

/// Events were stored before somebody had them analysed: what waits for it gets it, once.
#[test]
fn an_analysis_that_comes_late_finds_its_event() {
    let desk = Desk::new(|_, _| verdict("critical"));
    let db = desk.path("db");
    let input: String = ["a", "b", "c"].map(|id| anomaly(id, id, "low")).concat();
    store(&db, input.as_bytes()).expect_code(0);
    assert_eq!(n_of(&db, "pending"), 3);
    let severities = |db: &Path| stats(db)["anomalies"].clone();
    assert_eq!(severities(&db)["low"], 3);
    let analysed = desk.run(&["-q"], &input).expect_code(0);
    // Twice in one write, and again in the next one.
    let twice = format!("{0}{0}", analysed.text());
    for _ in 0..2 {
        store(&db, twice.as_bytes()).expect_code(0);
        assert_eq!(n_of(&db, "pending"), 0);
        assert_eq!(n_of(&db, "ai_analysis"), 3);
        assert_eq!(
            (&severities(&db)["low"], &severities(&db)["critical"]),
            (&0.into(), &3.into())
        );
        content(&db);
    }
    // The same in one go, and as if it had been analysed before.
    store(
        &desk.path("at_once"),
        format!("{input}{}", analysed.text()).as_bytes(),
    )
    .expect_code(0);
    store(&desk.path("before"), analysed.text().as_bytes()).expect_code(0);
    assert_eq!(content(&desk.path("at_once")), content(&db));
    assert_eq!(content(&desk.path("before")), content(&db));
}

/// An attempt that has come to nothing does not end the waiting; what passes for an analysis of ours
/// and is none is kept, and does not end it either.
#[test]
fn only_an_answer_ends_the_waiting() {
    let desk = Desk::new(fails);
    let input = anomaly("a", "A", "low");
    let ran = desk.run(&["--retries=0"], &input).expect_code(0);
    assert!(
        ran.text().contains("\"outcome\":\"unavailable\""),
        "{}",
        ran.text()
    );
    store(&desk.path("db"), ran.text().as_bytes()).expect_code(0);
    assert_eq!(n_of(&desk.path("db"), "pending"), 1);
    assert_eq!(n_of(&desk.path("db"), "ai_analysis"), 0);

    let line = input.trim_end();
    let foreign = format!(
        "{},\"analysis\":{{\"outcome\":\"guilty\"}}}}\n",
        &line[..line.len() - 1]
    );
    store(&desk.path("foreign"), foreign.as_bytes()).expect_code(0);
    assert_eq!(n_of(&desk.path("foreign"), "pending"), 1);
    assert_eq!(n_of(&desk.path("foreign"), "ai_analysis"), 1);
    let desk = Desk {
        folder: desk.folder,
        stub: crate::llm_stub::Stub::start(|_, _| verdict("low")),
    };
    desk.catch_up("foreign", &[]).expect_code(0);
    assert_eq!(n_of(&desk.path("foreign"), "pending"), 0);
}

/// Whoever writes events could take them out of the queue, or put words into the model's mouth.
#[test]
fn an_analysis_that_an_event_brings_along_is_not_one() {
    let desk = Desk::new(judge);
    let path = events(&desk);
    desk.run_beside("honest", &[]).expect_code(0);
    let n_calls = desk.stub.n_asked();
    let honest = std::fs::read_to_string(&path).unwrap();
    let forged = r#","analysis":{"outcome":"refused"}}"#;
    let forged = honest
        .lines()
        .map(|line| format!("{}{forged}\n", &line[..line.len() - 1]));
    std::fs::write(&path, forged.collect::<String>()).unwrap();
    desk.run_beside("forged", &[]).expect_code(0);
    assert_eq!(desk.stub.n_asked(), 2 * n_calls);
    assert_eq!(content(&desk.path("forged")), content(&desk.path("honest")));
    desk.pipe("piped");
    assert_eq!(content(&desk.path("piped")), content(&desk.path("honest")));
}

/// Scored anew, an event keeps what the model has raised it to.
#[test]
fn what_was_raised_stays_raised_when_it_is_scored_anew() {
    let desk = Desk::new(|_, _| verdict("critical"));
    events(&desk);
    desk.run_beside("db", &[]).expect_code(0);
    let db = desk.path("db");
    let n_critical = stats(&db)["anomalies"]["critical"].clone();
    assert!(n_critical.as_u64().unwrap() > 50);
    let exported = run("sg-query", &["export", "--db", &desk.text("db")], b"");
    let args = ["-q", "--detector=adaptive", "--threshold=0.9"];
    let scored = run("sg-score", &args, &exported.stdout).expect_code(0);
    let ran = run(
        "sg-store",
        &["--rescore", "--db", &desk.text("db")],
        &scored.stdout,
    );
    ran.expect_code(0);
    content(&db);
    assert_eq!(stats(&db)["anomalies"]["critical"], n_critical);
}
