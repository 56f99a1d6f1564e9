//! What `sg-store backup`, `backups` and `restore` promise: a database of one moment, whoever writes to it,
//! whole or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;

use crate::database::{admin, lines_of, scored, stats, store};
use crate::kills::kill_and_repeat;
use crate::tools::{
    DETECTORS, Ran, Running, digest, generated, program, run, shell, wait_for, wait_within,
};

/// How long writers may take beside all else that runs.
const PATIENCE: Duration = Duration::from_secs(120);

fn backup(db: &Path, to: &Path, args: &[&str]) -> Ran {
    let to = format!("--to={}", to.display());
    admin("backup", db, &[&[&to[..]], args].concat())
}

fn backups(from: &Path, args: &[&str]) -> Ran {
    let from = format!("--from={}", from.display());
    run("sg-store", &[&["backups", &from[..]], args].concat(), b"")
}

fn restore(from: &Path, db: &Path, args: &[&str]) -> Ran {
    let from = format!("--from={}", from.display());
    admin("restore", db, &[&[&from[..]], args].concat())
}

/// All that a database holds, baselines too.
fn full(db: &Path) -> Value {
    let ran = admin("verify", db, &["--digest"]).expect_code(0);
    ran.json_lines().remove(0)
}

fn numbers(from: &Path) -> Vec<u64> {
    let list = backups(from, &["--check"]).expect_code(0).json_lines();
    list.iter()
        .map(|backup| backup["backup"].as_u64().unwrap())
        .collect()
}

/// All regular files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[test]
fn each_backup_is_the_database_of_its_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (db, to) = (folder.path().join("db"), folder.path().join("backups"));
    let lines = scored(20_000, 12, 61);
    let pieces = lines_of(&lines);
    let mut digests = Vec::new();
    for (i, part) in pieces.chunks(5_000).enumerate() {
        store(&db, &part.concat()).expect_code(0);
        let ran = backup(&db, &to, &[]).expect_code(0);
        let begins = format!("sg-store: backup {}: ", i + 1);
        assert!(ran.stderr.starts_with(&begins), "{}", ran.stderr);
        assert_eq!(ran.text(), "");
        let n_bytes: Vec<u64> = (ran.stderr.split(' '))
            .filter_map(|word| word.parse().ok())
            .collect();
        let [all, _, new] = n_bytes[..] else {
            panic!("{}", ran.stderr);
        };
        // Files of the backups before are not copied again.
        let may_be_new = if i == 0 { all * 2 } else { all / 2 + 100_000 };
        assert!(new > 0 && new < may_be_new, "{}", ran.stderr);
        digests.push(full(&db));
        assert!(!db.join("checkpoint").exists());
    }
    assert_eq!(numbers(&to), [1, 2, 3, 4]);
    let list = backups(&to, &[]).expect_code(0).json_lines();
    assert!(list[3]["bytes"].as_u64() > list[0]["bytes"].as_u64());
    assert!(list[0]["time"].as_str().unwrap().ends_with('Z'));
    for (i, expected) in digests.iter().enumerate() {
        let db = folder.path().join(format!("restored{i}"));
        // An empty folder is as good as none.
        if i == 0 {
            fs::create_dir(&db).unwrap();
        }
        let ran = restore(&to, &db, &[&format!("--backup={}", i + 1)]).expect_code(0);
        let says = format!(" is as backup {} has it, of 20", i + 1);
        assert!(ran.stderr.contains(&says), "{}", ran.stderr);
        assert_eq!(full(&db), *expected);
    }
    // What was restored goes on, and has its backups beside those of the first.
    let restored = folder.path().join("restored1");
    store(&restored, &lines).expect_code(0);
    assert_eq!(full(&restored), digests[3]);
    let ran = backup(&restored, &to, &["--keep=2"]).expect_code(0);
    assert!(ran.stderr.contains("removed 3 older"), "{}", ran.stderr);
    assert_eq!(numbers(&to), [4, 5]);
    let newest = folder.path().join("newest");
    assert_eq!(restore(&to, &newest, &["-q"]).expect_code(0).stderr, "");
    assert_eq!(full(&newest), digests[3]);
}

/// Each backup that is made meanwhile, restored and read on, ends as if nothing had happened.
#[test]
fn a_backup_is_made_while_a_program_writes() {
    for detector in DETECTORS {
        check_backup_beside_a_writer(detector);
    }
}

fn check_backup_beside_a_writer(detector: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (db, to, input) = (path("db"), path("backups"), path("events"));
    let lines = generated(40_000, 60, 71);
    let pieces = lines_of(&lines);
    fs::write(&input, pieces[..30_000].concat()).unwrap();
    let sg_run = |db: &Path, more: &[&str]| {
        let args = ["-q", "--threshold=0.5", detector, "--db"];
        let paths = [db.to_str().unwrap(), input.to_str().unwrap()];
        [&args[..], &paths, more].concat().join(" ")
    };
    let args = sg_run(&db, &["--follow"]);
    let running = Running::start("sg-run", &args.split(' ').collect::<Vec<_>>());
    assert!(wait_for(|| db.join("CURRENT").exists()));
    let is_at = |n_events: u64| {
        let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
        ran.code == 0 && ran.json_lines()[0]["events"] == n_events
    };
    let reached = wait_within(PATIENCE, || {
        backup(&db, &to, &["--keep=2"]).expect_code(0);
        is_at(30_000)
    });
    assert!(reached, "{}", running.stderr());
    let mut file = fs::File::options().append(true).open(&input).unwrap();
    for part in pieces[30_000..].chunks(5_000) {
        std::io::Write::write_all(&mut file, &part.concat()).unwrap();
        backup(&db, &to, &[]).expect_code(0);
    }
    assert!(
        wait_within(PATIENCE, || is_at(40_000)),
        "{}",
        running.stderr()
    );
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    let quiet = path("quiet");
    shell(&format!("sg-run {}", sg_run(&quiet, &[]))).expect_code(0);
    let expected = full(&quiet);
    assert_eq!(full(&db), expected);
    let mut n_before = 0;
    for number in numbers(&to) {
        let restored = path(&format!("restored{number}"));
        restore(&to, &restored, &[&format!("--backup={number}")]).expect_code(0);
        // It is whole as it is.
        digest(&restored);
        let n_events = stats(&restored)["events"].as_u64().unwrap();
        assert!(n_events >= n_before && n_events <= 40_000);
        n_before = n_events;
        shell(&format!("sg-run {}", sg_run(&restored, &[]))).expect_code(0);
        assert_eq!(full(&restored), expected, "backup {number}");
        fs::remove_dir_all(&restored).unwrap();
    }
}

#[test]
fn a_backup_that_was_killed_leaves_those_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (db, to, input) = (path("db"), path("backups"), path("events"));
    let lines = generated(60_000, 60, 73);
    fs::write(&input, &lines).unwrap();
    let args = ["-q", "--follow", "--db", db.to_str().unwrap()];
    let args = [&args[..], &[input.to_str().unwrap()]].concat();
    let running = Running::start("sg-run", &args);
    assert!(wait_within(PATIENCE, || {
        let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
        ran.code == 0 && ran.json_lines()[0]["events"] == 60_000
    }));
    backup(&db, &to, &[]).expect_code(0);
    let (first, first_files) = (numbers(&to), files(&to));
    assert_eq!(first, [1]);
    // Something new for each, or there is nothing to copy.
    let mut file = fs::File::options().append(true).open(&input).unwrap();
    let more = generated(100_000, 60, 79);
    let more = lines_of(&more);
    let n_given = std::cell::Cell::new(0);
    let n_killed = kill_and_repeat(
        &|| {
            let part = more[n_given.get()..n_given.get() + 2_000].concat();
            n_given.set(n_given.get() + 2_000);
            std::io::Write::write_all(&mut &file, &part).unwrap();
            let mut command = program("sg-store");
            command.args(["backup", "-q", "--db"]).arg(&db);
            command.arg("--to").arg(&to).stderr(Stdio::null());
            command.spawn().unwrap()
        },
        12,
        61,
    );
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    std::io::Write::flush(&mut file).unwrap();
    // The program that writes clears up after them.
    assert!(wait_for(|| !db.join("checkpoint").exists()));
    assert!(numbers(&to).starts_with(&[1]));
    for file in &first_files {
        assert!(file.exists(), "{}", file.display());
    }
    backup(&db, &to, &[]).expect_code(0);
    let last = numbers(&to);
    restore(&to, &path("first"), &["--backup=1"]).expect_code(0);
    assert_eq!(stats(&path("first"))["events"], 60_000);
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    backup(&db, &to, &["--keep=1"]).expect_code(0);
    assert_eq!(numbers(&to), [last[last.len() - 1] + 1]);
    restore(&to, &path("last"), &[]).expect_code(0);
    assert_eq!(full(&path("last")), full(&db));
    // What was not finished is gone: only the one backup's files are left.
    let content = fs::read_to_string(to.join("meta").join((last[last.len() - 1] + 1).to_string()));
    let n_files = content
        .unwrap()
        .lines()
        .filter(|line| line.contains(" crc32 "))
        .count();
    assert_eq!(files(&to).len(), n_files + 2, "{:?}", files(&to));
}

/// Whoever copies needs nobody once the files are linked, and nobody waits for who was killed.
#[test]
fn what_a_killed_backup_has_left_goes_with_the_next_program() {
    let folder = tempfile::tempdir().unwrap();
    let (db, to) = (folder.path().join("db"), folder.path().join("backups"));
    store(&db, &scored(2_000, 5, 3)).expect_code(0);
    fs::create_dir(db.join("checkpoint")).unwrap();
    fs::write(db.join("checkpoint").join("000001.sst"), b"x").unwrap();
    fs::create_dir(db.join("checkpoint.tmp")).unwrap();
    store(&db, b"").expect_code(0);
    assert!(!db.join("checkpoint").exists() && !db.join("checkpoint.tmp").exists());
    fs::create_dir(db.join("checkpoint")).unwrap();
    fs::create_dir_all(folder.path().join(".restored.restoring/x")).unwrap();
    backup(&db, &to, &[]).expect_code(0);
    assert!(!db.join("checkpoint").exists());
    let restored = folder.path().join("restored");
    restore(&to, &restored, &[]).expect_code(0);
    assert_eq!(full(&restored), full(&db));
    assert!(!folder.path().join(".restored.restoring").exists());
}

/// Also if nobody could clear up at once, since the next backup had begun, and that one has been killed before
/// it asked for anything.
#[test]
fn what_killed_backups_have_left_goes_while_a_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (db, input) = (folder.path().join("db"), folder.path().join("events"));
    fs::write(&input, generated(1_000, 5, 3)).unwrap();
    let args = ["-q", "--follow", "--db", db.to_str().unwrap()];
    let running = Running::start("sg-run", &[&args[..], &[input.to_str().unwrap()]].concat());
    assert!(wait_for(|| db.join("streamguard.sock").exists()));
    let next = fs::File::create(db.join("streamguard.backup")).unwrap();
    flock(&next, FlockOperation::LockExclusive).unwrap();
    fs::create_dir(db.join("checkpoint")).unwrap();
    fs::create_dir(db.join("checkpoint.tmp")).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(db.join("checkpoint").exists(), "somebody copies it");
    drop(next);
    assert!(wait_for(|| !db.join("checkpoint").exists()));
    assert!(wait_for(|| !db.join("checkpoint.tmp").exists()));
    running.signal(Signal::TERM);
    running.end().expect_code(0);
}

#[test]
fn a_full_disk_is_told_and_leaves_what_was() {
    let folder = tempfile::tempdir().unwrap();
    let (db, to) = (folder.path().join("db"), folder.path().join("backups"));
    let restored = folder.path().join("restored");
    store(&db, &scored(2_000, 5, 3)).expect_code(0);
    backup(&db, &to, &[]).expect_code(0);
    store(&db, &scored(20_000, 12, 5)).expect_code(0);
    admin("compact", &db, &[]).expect_code(0);
    // Files may not grow beyond 256 KiB, as on a disk that is full.
    let limited = |command: &str| shell(&format!("trap '' XFSZ; ulimit -f 256; {command}"));
    let paths = format!("--db {} --to {}", db.display(), to.display());
    let ran = limited(&format!("sg-store backup {paths}")).expect_code(2);
    assert!(
        ran.stderr.contains("cannot write a backup"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("make room"), "{}", ran.stderr);
    assert_eq!(numbers(&to), [1]);
    assert!(!db.join("checkpoint").exists());
    backup(&db, &to, &[]).expect_code(0);
    let n_backups = numbers(&to).len();
    assert_eq!(n_backups, 2);
    let paths = format!("--db {} --from {}", restored.display(), to.display());
    let ran = limited(&format!("sg-store restore {paths}")).expect_code(2);
    assert!(ran.stderr.contains("make room"), "{}", ran.stderr);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    restore(&to, &restored, &[]).expect_code(0);
    assert_eq!(full(&restored), full(&db));
}

#[test]
fn damage_is_found_and_restored_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (db, to) = (folder.path().join("db"), folder.path().join("backups"));
    let restored = folder.path().join("restored");
    store(&db, &scored(2_000, 5, 3)).expect_code(0);
    backup(&db, &to, &[]).expect_code(0);
    let of_first = files(&to.join("shared_checksum"));
    store(&db, &scored(3_000, 5, 5)).expect_code(0);
    backup(&db, &to, &[]).expect_code(0);
    let all = files(&to.join("shared_checksum"));
    let new = all.iter().find(|file| !of_first.contains(file)).unwrap();
    let mut bytes = fs::read(new).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(new, &bytes).unwrap();
    let name = new.strip_prefix(&to).unwrap().to_str().unwrap();
    let list = backups(&to, &["--check"]).expect_code(1).json_lines();
    assert_eq!(list[0].get("damaged"), None);
    assert_eq!(list[1]["damaged"], serde_json::json!([name]));
    let ran = restore(&to, &restored, &[]).expect_code(2);
    assert!(ran.stderr.contains("it is damaged"), "{}", ran.stderr);
    assert!(!restored.exists());
    // One that is missing is seen at once, and what is left of its backup stays: it may come back.
    fs::remove_file(new).unwrap();
    let list = backups(&to, &[]).expect_code(1).json_lines();
    assert_eq!(list[1]["damaged"], serde_json::json!([name]));
    assert_eq!(list[1]["time"], Value::Null);
    for args in [&[][..], &["--backup=2"]] {
        let ran = restore(&to, &restored, args).expect_code(2);
        assert!(ran.stderr.contains("no whole backup 2"), "{}", ran.stderr);
    }
    let before = files(&to);
    let ran = backup(&db, &to, &[]).expect_code(2);
    assert!(ran.stderr.contains("backup 2 in "), "{}", ran.stderr);
    assert_eq!(files(&to), before);
    restore(&to, &restored, &["--backup=1"]).expect_code(0);
    assert_eq!(stats(&restored)["events"], 2_000);
    bytes[middle] ^= 1;
    fs::write(new, &bytes).unwrap();
    assert_eq!(numbers(&to), [1, 2]);
    // What the next one would have of it is read if that is wanted, before anything is removed.
    bytes[middle] ^= 1;
    fs::write(new, &bytes).unwrap();
    let ran = backup(&db, &to, &["--check", "--keep=1"]).expect_code(2);
    assert!(ran.stderr.contains(name), "{}", ran.stderr);
    let list = backups(&to, &["--check"]).expect_code(1).json_lines();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0].get("damaged"), None);
    // Given up, and made anew.
    for file in ["meta/2", "meta/3", name] {
        fs::remove_file(to.join(file)).unwrap();
    }
    backup(&db, &to, &["--check"]).expect_code(0);
    let third = folder.path().join("third");
    restore(&to, &third, &[]).expect_code(0);
    assert_eq!(full(&third), full(&db));
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (db, other, to) = (path("db"), path("other"), path("backups"));
    let (file, full_folder) = (path("file"), path("full"));
    store(&db, &scored(2_000, 5, 3)).expect_code(0);
    store(&other, &scored(1_000, 5, 4)).expect_code(0);
    fs::write(&file, b"x").unwrap();
    fs::create_dir(&full_folder).unwrap();
    fs::write(full_folder.join("x"), b"x").unwrap();
    backup(&db, &to, &[]).expect_code(0);
    let check = |ran: Ran, says: &str| {
        let ran = ran.expect_code(2);
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    };
    let before = (full(&db), full(&other), files(&to));
    check(backup(&other, &to, &[]), "of another database");
    check(
        backup(&db, &full_folder, &[]),
        "something else than backups",
    );
    check(backup(&db, &file, &[]), "cannot make the folder");
    check(backup(&path("none"), &path("new"), &[]), "no database at");
    check(backup(&full_folder, &path("new"), &[]), "no database at");
    check(restore(&to, &other, &[]), "there is something at");
    check(restore(&to, &full_folder, &[]), "there is something at");
    check(restore(&to, &file, &[]), "there is something at");
    let (empty, link) = (path("empty"), path("link"));
    fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, &link).unwrap();
    check(restore(&to, &link, &[]), "is a link");
    check(
        restore(&to, &path("new"), &["--backup=7"]),
        "no whole backup 7",
    );
    check(restore(&full_folder, &path("new"), &[]), "no backups in");
    check(backups(&full_folder, &[]), "no backups in");
    check(backups(&path("none"), &[]), "no backups in");
    check(backup(&db, &to, &["--keep=0"]), "--keep");
    check(
        backup(&db, &db.join("backups"), &[]),
        "database's own folder",
    );
    assert!(!db.join("backups").exists());
    assert_eq!((full(&db), full(&other), files(&to)), before);
    assert_eq!(files(&full_folder).len(), 1);
    let mode = fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
