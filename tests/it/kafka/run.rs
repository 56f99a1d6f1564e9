//! `sg-run` on topics: what is stored, and where it goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::broker::{
    delete_before, make_topic, remove_topic, send, send_messages, shared, topic, wait_long,
};
use crate::database::{admin, damage_a_table, raw, stats};
use crate::kills::kill_and_repeat;
use crate::tools::{DETECTORS, Ran, Running, digest, generated, program, run};

/// A member of a group that was killed is found out within a second.
const SOON_FOUND_OUT: [&str; 4] = [
    "-X",
    "session.timeout.ms=1000",
    "-X",
    "heartbeat.interval.ms=300",
];

fn sg_run(topic: &str, db: &Path, args: &[&str]) -> Ran {
    let db = db.to_str().unwrap();
    let common = [
        "-b",
        shared(),
        "-t",
        topic,
        "--db",
        db,
        "--threshold=0.5",
        "-q",
        "-e",
    ];
    run("sg-run", &[&common, args].concat(), b"")
}

/// The same, with all that it says.
fn run_loud(topic: &str, db: &Path) -> Ran {
    let db = db.to_str().unwrap();
    run(
        "sg-run",
        &["-b", shared(), "-t", topic, "--db", db, "-e"],
        b"",
    )
}

/// The digest with that of the baselines.
fn full(db: &Path) -> String {
    let ran = admin("verify", db, &["--digest"]).expect_code(0);
    ran.text().to_owned()
}

#[test]
fn a_topic_is_stored_as_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generated(20_000, 40, 221);
    let topic = topic(1);
    send(&topic, &lines);
    let (of_topic, of_file) = (folder.path().join("topic"), folder.path().join("file"));
    sg_run(&topic, &of_topic, &[]).expect_code(0);
    let args = ["--db", of_file.to_str().unwrap(), "--threshold=0.5", "-q"];
    run("sg-run", &args, &lines).expect_code(0);
    assert_eq!(digest(&of_topic), digest(&of_file));
}

/// Partitions come mixed in any way, and each has baselines of its own.
#[test]
fn how_partitions_are_mixed_shows_nowhere() {
    for detector in DETECTORS {
        let folder = tempfile::tempdir().unwrap();
        let topic = topic(4);
        send(&topic, &generated(30_000, 60, 223));
        let dbs = ["a", "b", "c"].map(|name| folder.path().join(name));
        sg_run(&topic, &dbs[0], &["-j1", detector]).expect_code(0);
        sg_run(
            &topic,
            &dbs[1],
            &["-j2", detector, "-X", "max.partition.fetch.bytes=20000"],
        )
        .expect_code(0);
        sg_run(
            &topic,
            &dbs[2],
            &["-G", &topic, "--memory-limit=256MiB", detector],
        )
        .expect_code(0);
        assert_eq!(full(&dbs[0]), full(&dbs[1]));
        assert_eq!(full(&dbs[0]), full(&dbs[2]));
        assert_eq!(stats(&dbs[0])["events"], 30_000);
    }
}

#[test]
fn the_position_in_the_store_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (db, fresh) = (folder.path().join("db"), folder.path().join("fresh"));
    let topic = topic(2);
    let lines = generated(8_000, 40, 227);
    let half = lines.len() / 2;
    let cut = half + memchr::memchr(b'\n', &lines[half..]).unwrap() + 1;
    send(&topic, &lines[..cut]);
    let group = ["-G", &topic];
    sg_run(&topic, &db, &group).expect_code(0);
    send(&topic, &lines[cut..]);
    // Neither what others commit nor -o moves it.
    let args = ["-b", shared(), "-t", &topic, "-G", &topic, "-e", "-q"];
    run("sg-consume", &args, b"").expect_code(0);
    sg_run(&topic, &db, &[&group[..], &["-o", "end"]].concat()).expect_code(0);
    // A store that knows nothing begins at the start, whatever the group has read.
    sg_run(&topic, &fresh, &group).expect_code(0);
    assert_eq!(full(&db), full(&fresh));
    assert_eq!(stats(&db)["events"], 8_000);
}

#[test]
fn a_topic_that_was_made_anew_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let topic = topic(1);
    send(&topic, &generated(2_000, 10, 229));
    sg_run(&topic, &db, &[]).expect_code(0);
    remove_topic(shared(), &topic);
    // The broker removes a topic some time after it was told to.
    let is_gone = wait_long(|| {
        let args = ["-b", shared(), "-t", &topic, "-e", "-q"];
        run("sg-consume", &args, b"")
            .stderr
            .contains("there is no topic")
    });
    assert!(is_gone);
    make_topic(shared(), &topic, 1, 1);
    send(&topic, &generated(100, 10, 231));
    let ran = sg_run(&topic, &db, &[]).expect_code(2);
    assert!(
        ran.stderr
            .contains("was read up to offset 2000, but ends at 100"),
        "{}",
        ran.stderr
    );
    sg_run(&topic, &db, &["--reset"]).expect_code(0);
    assert_eq!(stats(&db)["events"], 2_100);
    sg_run(&topic, &db, &[]).expect_code(0);
    assert_eq!(stats(&db)["events"], 2_100);
}

/// Kafka keeps messages for a while only.
#[test]
fn messages_that_were_deleted_unread_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let topic = topic(1);
    send(&topic, &generated(500, 10, 261));
    sg_run(&topic, &db, &[]).expect_code(0);
    send(&topic, &generated(500, 10, 263));
    delete_before(shared(), &topic, 700);
    let ran = run_loud(&topic, &db).expect_code(0);
    let told = "200 messages from offset 500 on were deleted before they were read";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert_eq!(stats(&db)["events"], 800);
}

/// What a task's baselines are was interrupted while it was being put together: half of it is of another
/// time. It was gone on with.
#[test]
fn a_task_that_is_not_whole_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let topic = topic(1);
    send(&topic, &generated(500, 10, 265));
    sg_run(&topic, &db, &[]).expect_code(0);
    {
        let db = raw(&db);
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, format!("restoring:kafka:{topic}/0"), b"")
            .unwrap();
    }
    let ran = sg_run(&topic, &db, &[]).expect_code(2);
    assert!(ran.stderr.contains("give --changelog"), "{}", ran.stderr);
}

/// What was read is kept within seconds, and a stop keeps all of it.
#[test]
fn a_running_program_keeps_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let topic = topic(1);
    let shown = db.to_str().unwrap();
    let args = ["-b", shared(), "-t", &topic, "-G", &topic, "--db", shown];
    let args = [&args[..], &SOON_FOUND_OUT].concat();
    let running = Running::start("sg-run", &args);
    send(&topic, &generated(1_000, 10, 233));
    // There is no sign of it from outside: wait longer than it may take.
    std::thread::sleep(Duration::from_secs(4));
    running.signal(Signal::KILL);
    running.end();
    assert_eq!(stats(&db)["events"], 1_000);
    let running = Running::start("sg-run", &args);
    send(&topic, &generated(1_000, 10, 234));
    std::thread::sleep(Duration::from_secs(4));
    running.signal(Signal::TERM);
    let ran = running.end().expect_code(0);
    assert!(ran.stderr.contains("in 1000 = out 1000 "), "{}", ran.stderr);
    assert_eq!(stats(&db)["events"], 2_000);
}

#[test]
fn killed_sg_run_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let (quiet, killed) = (folder.path().join("quiet"), folder.path().join("killed"));
    let topic = topic(3);
    send(&topic, &generated(150_000, 60, 237));
    let start = |db: &Path, group: &str| {
        let mut command = program("sg-run");
        command
            .args([
                "-q",
                "-e",
                "--threshold=0.5",
                "--memtable-mib=1",
                "--checkpoint-mib=2",
                "-t",
                &topic,
                "-b",
                shared(),
            ])
            .args(["--detector=adaptive", "-G", group])
            .args(SOON_FOUND_OUT)
            .arg("--db")
            .arg(db)
            .stdin(Stdio::null());
        command.spawn().unwrap()
    };
    assert!(
        start(&quiet, &format!("{topic}-quiet"))
            .wait()
            .unwrap()
            .success()
    );
    let n_killed = kill_and_repeat(&|| start(&killed, &topic), 8, 711);
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    // The partitions of a member that was killed are its own until the group has found out: a run that is sooner
    // at the end of the others leaves them to the next one.
    for _ in 0..10 {
        assert!(start(&killed, &topic).wait().unwrap().success());
        if stats(&killed)["events"] == 150_000 {
            break;
        }
    }
    assert_eq!(full(&killed), full(&quiet));
    assert_eq!(stats(&killed)["events"], 150_000);
}

/// The drill of docs/backup.md: what a disk has taken with it comes from a backup that was made of a running program, and
/// what came since from the topic, though the group has read further.
#[test]
fn a_lost_database_comes_back_from_a_backup_and_its_topic() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (db, quiet, backups) = (path("db"), path("quiet"), path("backups"));
    let topic = topic(3);
    let lines = generated(60_000, 40, 239);
    let half = memchr::memchr_iter(b'\n', &lines).nth(29_999).unwrap() + 1;
    let group = ["--detector=adaptive", "-G", &topic];
    let group = [&group[..], &SOON_FOUND_OUT].concat();
    let common = ["-b", shared(), "-t", &topic, "--threshold=0.5", "-q"];
    let shown = db.to_str().unwrap();
    let mut running = Running::start("sg-run", &[&common[..], &group, &["--db", shown]].concat());
    send(&topic, &lines[..half]);
    let has = |n_events: u64| wait_long(|| stats(&db)["events"].as_u64() >= Some(n_events));
    assert!(wait_long(|| db.join("CURRENT").exists()) && has(1));
    let to = ["--to", backups.to_str().unwrap()];
    admin("backup", &db, &to).expect_code(0);
    send(&topic, &lines[half..]);
    assert!(has(60_000));
    assert!(!running.has_ended());
    running.signal(Signal::KILL);
    running.end();
    damage_a_table(&db);
    let ran = admin("verify", &db, &[]).expect_code(2);
    assert!(ran.stderr.contains("restore"), "{}", ran.stderr);
    std::fs::remove_dir_all(&db).unwrap();
    let from = ["--from", backups.to_str().unwrap()];
    admin("restore", &db, &from).expect_code(0);
    assert!(
        stats(&db)["events"].as_u64() < Some(60_000),
        "nothing was lost"
    );
    // The partitions of a member that was killed are its own until the group has found out.
    assert!(wait_long(|| {
        sg_run(&topic, &db, &group).expect_code(0);
        stats(&db)["events"] == 60_000
    }));
    sg_run(&topic, &quiet, &["--detector=adaptive"]).expect_code(0);
    assert_eq!(full(&db), full(&quiet));
}

/// Messages without their user as key: a user's events are in several partitions.
#[test]
fn a_user_in_two_partitions_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generated(2_000, 60, 247);
    let (mixed, keyed) = (topic(2), topic(2));
    let messages = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    send_messages(
        shared(),
        &mixed,
        messages.enumerate().map(|(i, line)| (i.to_string(), line)),
    );
    send(&keyed, &lines);
    let quiet = sg_run(&mixed, &folder.path().join("quiet"), &[]).expect_code(0);
    // A warning is told to whoever wants it quiet, too.
    assert_eq!(quiet.stderr.matches("as key").count(), 1);
    let ran = run_loud(&mixed, &folder.path().join("mixed")).expect_code(0);
    assert!(
        ran.stderr.contains("give messages their user as key"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.matches("as key").count(), 1);
    let ran = run_loud(&keyed, &folder.path().join("keyed")).expect_code(0);
    assert!(!ran.stderr.contains("as key"), "{}", ran.stderr);
}
