//! Serving what is being written, by the program that writes and by another one.

use std::fs::File;
use std::io::Write as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Served;
use crate::tools::{Running, event, run, wait_for};

#[test]
fn what_is_being_written_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (db, log) = (path("db"), path("log"));
    let mut file = File::create(&log).unwrap();
    let args = ["--follow", &log, "--db", &db, "--serve", "127.0.0.1:0"];
    let writer = Served::of(Running::start("sg-run", &args), "sg-run");
    let n_events = |served: &Served| {
        let count = served.get("/api/events/count").ok().json();
        count["count"].as_u64().unwrap()
    };
    assert_eq!(n_events(&writer), 0);
    writeln!(file, "{}", event("a", "u", 1)).unwrap();
    assert!(wait_for(|| n_events(&writer) == 1));
    let other = Served::start(folder.path().join("db").as_path(), &[]);
    for served in [&writer, &other] {
        let ready = served.get("/api/ready").ok().json();
        assert_eq!(ready["writer"]["program"], "sg-run");
        assert_eq!(served.get("/api/events/a").ok().items().len(), 1);
        assert_eq!(served.get("/api/stats/summary").ok().json()["users"], 1);
    }
    writeln!(file, "{}", event("b", "v", 2)).unwrap();
    assert!(wait_for(|| n_events(&other) == 2));
    assert_eq!(n_events(&writer), 2);

    // The writer ends; who only reads goes on, and lets the next one write.
    writer.running.signal(Signal::TERM);
    let ran = writer.running.end().expect_code(0);
    assert!(
        ran.stderr.contains(" GET /api/events/count 200 "),
        "{}",
        ran.stderr
    );
    assert!(wait_for(
        || other.get("/api/ready").ok().json()["writer"] == Value::Null
    ));
    assert_eq!(n_events(&other), 2);
    let stored = run("sg-store", &["--db", &db], event("c", "w", 3).as_bytes());
    stored.expect_code(0);
    assert_eq!(n_events(&other), 3);
    let newest = other.get("/api/events?limit=1").ok().json();
    assert_eq!(
        newest["items"],
        json!([serde_json::from_str::<Value>(&event("c", "w", 3)).unwrap()])
    );
}

#[test]
fn what_goes_with_serving_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let db = db.to_str().unwrap();
    let check = |args: &[&str], said: &str| {
        let ran = run("sg-run", &[&["-q", "--db", db], args].concat(), b"").expect_code(2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    };
    check(&["--keys", "keys"], "--serve <ADDRESS:PORT>");
    check(&["--host-name", "a"], "--serve <ADDRESS:PORT>");
    check(&["--serve", "0.0.0.0:0"], "--keys");
}
