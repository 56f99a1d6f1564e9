//! Databases that cannot be used: of other releases, of other programs, in use, not there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use crate::database::{admin, raw, stats, store};
use crate::tools::{event, program, run};

#[test]
fn databases_of_other_releases_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (version, words) in [
        ("2", "has schema 2, this build reads 1"),
        ("4000000000", "has schema 4000000000, this build reads 1"),
        ("0", "unknown schema version"),
        ("", "unknown schema version"),
        ("one", "unknown schema version"),
    ] {
        let db = folder.path().join(format!("db{version}"));
        let line = event("e", "u", 1) + "\n";
        store(&db, line.as_bytes()).expect_code(0);
        let opened = raw(&db);
        opened
            .put_cf(opened.cf_handle("meta").unwrap(), "schema_version", version)
            .unwrap();
        drop(opened);
        let shown = db.to_str().unwrap();
        for ran in [
            store(&db, line.as_bytes()),
            admin("verify", &db, &[]),
            admin("prune", &db, &["--retain=1d"]),
            admin("compact", &db, &[]),
            run("sg-query", &["stats", "--db", shown], b""),
            run("sg-run", &["--db", shown], line.as_bytes()),
        ] {
            assert_eq!((ran.code, ran.text()), (2, ""), "{}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(words), "{}", ran.stderr);
        }
    }
}

#[test]
fn a_folder_that_is_no_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for ran in [
        admin("verify", &missing, &[]),
        admin("prune", &missing, &["--retain=1d"]),
        admin("compact", &missing, &[]),
        run(
            "sg-query",
            &["stats", "--db", missing.to_str().unwrap()],
            b"",
        ),
    ] {
        assert_eq!((ran.code, ran.text()), (2, ""));
        assert!(
            ran.stderr.contains("there is no database at"),
            "{}",
            ran.stderr
        );
        assert!(!missing.exists());
    }
    // Another program's database keeps what it has.
    let others = folder.path().join("others");
    let opened = rocksdb::DB::open_default(&others).unwrap();
    opened.put(b"key", b"value").unwrap();
    drop(opened);
    for ran in [
        store(&others, event("e", "u", 1).as_bytes()),
        run("sg-run", &["--db", others.to_str().unwrap()], b""),
    ] {
        assert_eq!((ran.code, ran.text()), (2, ""), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("holds no StreamGuard data"),
            "{}",
            ran.stderr
        );
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for db in [
        file.as_path(),
        Path::new("/proc/nowhere"),
        Path::new("/proc"),
    ] {
        let ran = store(db, event("e", "u", 1).as_bytes()).expect_code(2);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("the database"), "{}", ran.stderr);
    }
}

#[test]
fn a_database_in_use_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let shown = db.to_str().unwrap();
    let mut holder = program("sg-store")
        .args(["-q", "--tee", "--db", shown])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = holder.stdin.take().unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    writeln!(input, "{}", event("e", "u", 1)).unwrap();
    output.read_line(&mut String::new()).unwrap();
    // At the same time, since each waits a while.
    let line = event("f", "u", 1) + "\n";
    std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| store(&db, line.as_bytes())),
            scope.spawn(|| admin("verify", &db, &[])),
        ];
        for other in others {
            let ran = other.join().unwrap();
            assert_eq!((ran.code, ran.text()), (2, ""));
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(
                ran.stderr.contains("is in use by another program"),
                "{}",
                ran.stderr
            );
        }
    });
    drop(input);
    assert!(holder.wait().unwrap().success());
    assert_eq!(stats(&db)["events"], 1);
}
