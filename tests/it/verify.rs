//! What `sg-store verify` promises: whatever is wrong in a database is found, and what is damaged
//! is never shown.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::database::{admin, raw, scored, store};
use crate::tools::{DETECTORS, event, generated, run};

fn first_key(db: &rocksdb::DB, family: &str) -> Vec<u8> {
    let family = db.cf_handle(family).unwrap();
    let mut entries = db.iterator_cf(family, rocksdb::IteratorMode::Start);
    entries.next().unwrap().unwrap().0.to_vec()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A database in which nothing is wrong.
fn good() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("good");
    store(&db, &scored(2_000, 5, 57)).expect_code(0);
    (folder, db)
}

/// `verify` finds the damage done to a copy, and names it.
#[track_caller]
fn check(good: &Path, damage: impl Fn(&rocksdb::DB), words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    copy_folder(good, &db);
    let opened = raw(&db);
    damage(&opened);
    drop(opened);
    let ran = admin("verify", &db, &[]).expect_code(1);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert!(ran.json_lines()[0]["findings"].as_u64().unwrap() > 0);
}

#[test]
fn verify_finds_nothing_in_a_good_database() {
    let (_folder, good) = good();
    let ran = admin("verify", &good, &[]).expect_code(0);
    let report = ran.json_lines().remove(0);
    assert_eq!(report["events"], 2_000);
    assert_eq!(report["findings"], 0);
    assert!(report["anomalies"].as_u64().unwrap() > 10);
    assert_eq!(ran.stderr, "");
}

#[test]
fn verify_finds_what_is_missing() {
    let (_folder, good) = good();
    for (family, words) in [
        ("by_id", "is not in the index by id"),
        ("by_user", "is not in the index by user"),
        ("by_severity", "is not in the index by severity"),
        ("default", "entries belong to no event"),
        ("anomalies", "the counters say"),
    ] {
        let delete = |db: &rocksdb::DB| {
            let key = first_key(db, family);
            db.delete_cf(db.cf_handle(family).unwrap(), key).unwrap();
        };
        check(&good, delete, words);
    }
}

#[test]
fn verify_finds_what_does_not_belong() {
    let (_folder, good) = good();
    let key = b"000000000000001:x";
    let moved = br#"{"event_id":"x","user":"u","timestamp":2,"type":"T"}"#;
    for (family, key, value, words) in [
        ("by_id", &[0; 16][..], &b""[..], "by_id: 1 entries belong"),
        ("by_user", &[0; 17], b"\0", "by_user: 1 entries belong"),
        ("by_severity", &[3; 10], b"", "by_severity: 1 entries"),
        ("anomalies", key, b"{}", "there is no such event"),
        ("pending", key, b"{}", "there is no such event"),
        ("default", key, b"{}", "is not a valid event"),
        ("default", key, moved, "another key"),
        ("meta", b"position:a", b"{}", "how far a was read"),
        ("meta", b"pipe:a", b"12", "how far a was read"),
    ] {
        let put = |db: &rocksdb::DB| {
            let family = db.cf_handle(family).unwrap();
            db.put_cf(family, key, value).unwrap();
        };
        check(&good, put, words);
    }
}

/// A record that could not be read any more was found by the next run only.
#[test]
fn verify_finds_baselines_that_cannot_be_read() {
    for detector in DETECTORS {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        let shown = good.to_str().unwrap();
        let lines = generated(500, 3, 58);
        run("sg-run", &["-q", detector, "--db", shown], &lines).expect_code(0);
        admin("verify", &good, &[]).expect_code(0);
        let cut = |db: &rocksdb::DB| {
            let baselines = db.cf_handle("baselines").unwrap();
            let record = db.get_cf(baselines, "user00001").unwrap().unwrap();
            let half = &record[..record.len() / 2];
            db.put_cf(baselines, "user00001", half).unwrap();
        };
        check(&good, cut, "baseline of user00001: baseline is damaged");
        let opened = raw(&good);
        cut(&opened);
        drop(opened);
        let others = event("e1", "user00000", 1_767_225_600_000);
        run(
            "sg-run",
            &["-q", detector, "--db", shown],
            others.as_bytes(),
        )
        .expect_code(0);
        let its_own = event("e2", "user00001", 1_767_225_600_000);
        let ran = run(
            "sg-run",
            &["-q", detector, "--db", shown],
            its_own.as_bytes(),
        );
        let ran = ran.expect_code(2);
        assert!(
            ran.stderr
                .contains("the baseline of user00001 cannot be used"),
            "{}",
            ran.stderr
        );
    }
}

/// What all users share was not looked at: the next run could not begin.
#[test]
fn verify_finds_that_what_all_share_cannot_be_read() {
    for detector in DETECTORS {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        let lines = generated(4_000, 8, 58);
        let args = [
            "-q",
            detector,
            "--threshold=0.6",
            "--db",
            good.to_str().unwrap(),
        ];
        run("sg-run", &args, &lines).expect_code(0);
        admin("verify", &good, &[]).expect_code(0);
        let damage = |db: &rocksdb::DB, length: usize| {
            let baselines = db.cf_handle("baselines").unwrap();
            let record = db.get_cf(baselines, "").unwrap().unwrap();
            let length = length.min(record.len() - 1);
            db.put_cf(baselines, "", &record[..length]).unwrap();
        };
        // Within the incidents; and, if the detector has anything of its own, within that.
        let words = "what all users share: baseline is damaged";
        check(&good, |db| damage(db, 9), words);
        if detector == DETECTORS[1] {
            check(&good, |db| damage(db, usize::MAX), words);
        }
    }
}

#[test]
fn verify_finds_wrong_counters() {
    let (_folder, good) = good();
    for (pointer, value, words) in [
        ("/events", 1_999, "the counters say 1999 events"),
        ("/failures", 0, "the counters say"),
        ("/anomalies/low", 0, "the counters say"),
        ("/types/API_CALL", 1, "the counters say"),
    ] {
        let edit = |db: &rocksdb::DB| {
            let meta = db.cf_handle("meta").unwrap();
            let counters = db.get_cf(meta, "counters").unwrap().unwrap();
            let mut counters: Value = serde_json::from_slice(&counters).unwrap();
            *counters.pointer_mut(pointer).unwrap() = value.into();
            db.put_cf(meta, "counters", counters.to_string()).unwrap();
        };
        check(&good, edit, words);
    }
}

#[test]
fn damaged_files_are_told_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    store(&good, &scored(3_000, 5, 59)).expect_code(0);
    let tables: Vec<PathBuf> = std::fs::read_dir(&good)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for (i, table) in tables.iter().enumerate() {
        let db = folder.path().join(format!("db{i}"));
        copy_folder(&good, &db);
        let path = db.join(table.file_name().unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        // In the first data block of the table.
        bytes[5] ^= 0xFF;
        std::fs::write(&path, bytes).unwrap();
        let ran = admin("verify", &db, &["--digest"]);
        assert_eq!(ran.code, 2, "{}: {}", path.display(), ran.stderr);
        assert_eq!(ran.text(), "");
        assert!(
            ran.stderr.starts_with("sg-store: ") && ran.stderr.contains("orrupt"),
            "{}",
            ran.stderr
        );
    }
    // The files that hold it all together.
    for name in ["CURRENT", "MANIFEST"] {
        let db = folder.path().join(name);
        copy_folder(&good, &db);
        let path = std::fs::read_dir(&db)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with(name)
            })
            .unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xFF;
        std::fs::write(&path, bytes).unwrap();
        for ran in [admin("verify", &db, &[]), store(&db, b"")] {
            assert_eq!((ran.code, ran.text()), (2, ""), "{name}: {}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        }
    }
}

#[test]
fn verify_finds_numbers_of_stretches_that_are_wrong() {
    let (_folder, good) = good();
    let words = "is not the number of its events and failures";
    let first = |db: &rocksdb::DB| {
        let meta = db.cf_handle("meta").unwrap();
        let mode = rocksdb::IteratorMode::From(b"stretch:", rocksdb::Direction::Forward);
        db.iterator_cf(meta, mode).next().unwrap().unwrap()
    };
    for place in [7, 15] {
        let add = |db: &rocksdb::DB| {
            let (key, mut value) = first(db);
            value[place] ^= 1;
            db.put_cf(db.cf_handle("meta").unwrap(), key, value)
                .unwrap();
        };
        check(&good, add, words);
    }
    let delete = |db: &rocksdb::DB| {
        let (key, _) = first(db);
        db.delete_cf(db.cf_handle("meta").unwrap(), key).unwrap();
    };
    check(&good, delete, words);
    let add = |db: &rocksdb::DB| {
        let (_, value) = first(db);
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, "stretch:0000000001", value).unwrap();
    };
    check(&good, add, words);
}
