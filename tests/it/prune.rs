//! What `sg-store prune` and `compact` promise: what is old goes with all that belongs to it, and
//! nothing else.

use serde_json::Value;

use crate::database::{admin, lines_of, scored, stats, store};
use crate::tools::{digest, event, shell};

#[test]
fn prune_removes_what_is_older_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let lines = scored(15_000, 12, 61);
    let pieces = lines_of(&lines);
    let time_of = |line: &[u8]| {
        let event: Value = serde_json::from_slice(line).unwrap();
        event["timestamp"].as_i64().unwrap()
    };
    let db = folder.path().join("db");
    store(&db, &lines).expect_code(0);
    let (first, last) = (time_of(pieces[0]), time_of(pieces[14_999]));
    let mut n_left = 15_000;
    for before in [
        first,
        time_of(pieces[1]),
        time_of(pieces[12_000]),
        last,
        last + 1,
    ] {
        let rest: Vec<u8> = pieces
            .iter()
            .filter(|line| time_of(line) >= before)
            .copied()
            .flatten()
            .copied()
            .collect();
        let ran = admin("prune", &db, &[&format!("--before={before}")]).expect_code(0);
        let n_kept = lines_of(&rest).len();
        let n_removed = n_left - n_kept;
        assert!(
            ran.stderr
                .starts_with(&format!("sg-store: removed {n_removed} events and ")),
            "{}",
            ran.stderr
        );
        n_left = n_kept;
        assert_eq!(stats(&db)["events"], n_kept);
        let expected = folder.path().join(format!("rest{before}"));
        store(&expected, &rest).expect_code(0);
        assert_eq!(digest(&db), digest(&expected), "before {before}");
        admin("compact", &db, &[]).expect_code(0);
        assert_eq!(digest(&db), digest(&expected), "before {before}, compacted");
    }
    assert_eq!(n_left, 0);
    for args in [
        &[][..],
        &["--retain=x"],
        &["--before=x"],
        &["--retain=1d", "--before=1"],
    ] {
        admin("prune", &db, args).expect_code(2);
    }
}

#[test]
fn prune_forgets_types_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (db, rest) = (folder.path().join("db"), folder.path().join("rest"));
    let old = event("old", "u", 1).replace("LOGIN_SUCCESS", "OLD");
    let new = event("new", "u", 2);
    store(&db, format!("{old}\n{new}\n").as_bytes()).expect_code(0);
    store(&rest, format!("{new}\n").as_bytes()).expect_code(0);
    admin("prune", &db, &["--before=2"]).expect_code(0);
    assert_eq!(stats(&db)["types"], serde_json::json!({"LOGIN_SUCCESS": 1}));
    assert_eq!(digest(&db), digest(&rest));

    // With more types than are counted one by one, none may change sides.
    let many: String = (0..300_i64)
        .map(|i| event(&format!("e{i}"), "u", i).replace("LOGIN_SUCCESS", &format!("T{i}")) + "\n")
        .collect();
    let db = folder.path().join("many");
    store(&db, many.as_bytes()).expect_code(0);
    for before in [10, 100, 280, 300] {
        admin("prune", &db, &[&format!("--before={before}")]).expect_code(0);
        digest(&db);
        store(&db, many.as_bytes()).expect_code(0);
        digest(&db);
        assert_eq!(stats(&db)["events"], 300);
    }
}

#[test]
fn compact_changes_nothing_but_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    for seed in 0..4 {
        store(&db, &scored(2_000, 5, 63 + seed)).expect_code(0);
    }
    let before = digest(&db);
    let ran = admin("compact", &db, &[]).expect_code(0);
    assert!(
        ran.stderr.contains("bytes of files became"),
        "{}",
        ran.stderr
    );
    assert_eq!(digest(&db), before);
}

/// It told that nothing had become smaller, and ended with 0.
#[test]
fn compact_tells_when_it_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    for seed in 0..3 {
        store(&db, &scored(4_000, 5, 67 + seed)).expect_code(0);
    }
    let before = digest(&db);
    // Files may not grow beyond 64 KiB, as on a disk that is full.
    let command = format!(
        "trap '' XFSZ; ulimit -f 64; sg-store compact --db {}",
        db.display()
    );
    let ran = shell(&command).expect_code(2);
    assert_eq!(ran.text(), "");
    assert!(ran.stderr.contains("nothing is lost"), "{}", ran.stderr);
    assert_eq!(digest(&db), before);
    admin("compact", &db, &[]).expect_code(0);
    assert_eq!(digest(&db), before);
}
