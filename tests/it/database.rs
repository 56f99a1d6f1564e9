//! Databases under test: filled, asked and compared with the lines that went into them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::tools::{Ran, generated, run};

/// Settings that find many anomalies in little input.
pub(crate) const SCORE: [&str; 3] = ["-q", "--threshold=0.5", "--min-events=20"];

pub(crate) fn store(db: &Path, input: &[u8]) -> Ran {
    run("sg-store", &["--db", db.to_str().unwrap()], input)
}

pub(crate) fn admin(command: &str, db: &Path, args: &[&str]) -> Ran {
    let args = [&[command, "--db", db.to_str().unwrap()], args].concat();
    run("sg-store", &args, b"")
}

pub(crate) fn stats(db: &Path) -> Value {
    let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
    ran.expect_code(0).json_lines().remove(0)
}

pub(crate) fn scored(n_events: u64, n_users: u32, seed: u64) -> Vec<u8> {
    run("sg-score", &SCORE, &generated(n_events, n_users, seed))
        .expect_code(0)
        .stdout
}

pub(crate) fn lines_of(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').collect()
}

/// The counters, from the lines themselves.
fn recount(lines: &[u8]) -> Value {
    let mut events: BTreeMap<(i64, String), Value> = BTreeMap::new();
    for line in lines_of(lines) {
        let event: Value = serde_json::from_slice(line).unwrap();
        let id = event["event_id"].as_str().unwrap().to_owned();
        events
            .entry((event["timestamp"].as_i64().unwrap(), id))
            .or_insert(event);
    }
    let mut anomalies = BTreeMap::from([("low", 0), ("medium", 0), ("high", 0), ("critical", 0)]);
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    let mut n_failures = 0;
    for event in events.values() {
        let kind = event["type"].as_str().unwrap();
        *types.entry(kind.to_owned()).or_default() += 1;
        let status = event["status"].as_str().unwrap_or("");
        let has_failed = ["_FAILED", "_DENIED", "_FAILURE"]
            .iter()
            .any(|ending| kind.ends_with(ending));
        n_failures += u64::from(has_failed || status == "failed" || status == "blocked");
        if let Some(severity) = event["anomaly"]["severity"].as_str() {
            *anomalies.get_mut(severity).unwrap() += 1;
        }
    }
    serde_json::json!({
        "events": events.len(), "failures": n_failures, "anomalies": anomalies, "types": types,
    })
}

#[track_caller]
pub(crate) fn assert_counts(db: &Path, lines: &[u8]) {
    let stats = stats(db);
    for (name, expected) in recount(lines).as_object().unwrap() {
        assert_eq!(stats[name], *expected, "{name}");
    }
}

/// Opens the database past StreamGuard, to damage it.
pub(crate) fn raw(db: &Path) -> rocksdb::DB {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, db).unwrap();
    rocksdb::DB::open_cf(&options, db, families).unwrap()
}

/// Changes a byte in the middle of the database's first table.
pub(crate) fn damage_a_table(db: &Path) {
    let paths = std::fs::read_dir(db).unwrap().map(|it| it.unwrap().path());
    let tables = paths.filter(|path| path.extension().is_some_and(|it| it == "sst"));
    let table = tables.min().unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(&table, bytes).unwrap();
}
