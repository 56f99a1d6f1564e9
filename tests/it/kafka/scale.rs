//! Several `sg-run` in one group: partitions move between them with their baselines, and what they have
//! stored together is what one would have stored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::broker::{send, shared, topic, wait_long};
use crate::tools::{DETECTORS, Ran, Running, generated, run};

/// A group of `sg-run` on one topic.
pub(super) struct Group {
    folder: tempfile::TempDir,
    pub(super) topic: String,
    detector: &'static str,
}

impl Group {
    pub(super) fn new(n_partitions: i32, detector: &'static str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            topic: topic(n_partitions),
            detector,
        }
    }

    pub(super) fn db(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, name: &str) -> Vec<String> {
        let changelog = format!("--changelog={}-changelog", self.topic);
        let db = self.db(name);
        let words = [
            "-b",
            shared(),
            "-t",
            &self.topic,
            "-G",
            &self.topic,
            &changelog,
        ];
        let more = [
            "--db",
            db.to_str().unwrap(),
            "--threshold=0.5",
            self.detector,
        ];
        let soon = [
            "-X",
            "session.timeout.ms=1500",
            "-X",
            "heartbeat.interval.ms=300",
        ];
        let words = words.into_iter().chain(more).chain(soon);
        words.map(str::to_owned).collect()
    }

    fn start(&self, name: &str) -> Running {
        let args = self.args(name);
        Running::start(
            "sg-run",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }

    /// Reads what is left.
    pub(super) fn finish(&self, name: &str) -> Ran {
        let mut args = self.args(name);
        args.push("-e".to_owned());
        run(
            "sg-run",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            b"",
        )
    }

    /// What one program alone makes of the topic.
    pub(super) fn expected(&self) -> Value {
        let db = self.db("alone");
        let args = [
            "-b",
            shared(),
            "-t",
            &self.topic,
            "-e",
            "-q",
            "--threshold=0.5",
        ];
        let args = [&args[..], &["--db", db.to_str().unwrap(), self.detector]].concat();
        run("sg-run", &args, b"").expect_code(0);
        sums(&[&db])
    }
}

/// Digests of several databases as one, but for what each has for itself.
pub(super) fn sums(dbs: &[&Path]) -> Value {
    let mut args = vec!["verify", "--digest"];
    for db in dbs {
        args.extend(["--db", db.to_str().unwrap()]);
    }
    let mut report = run("sg-store", &args, b"")
        .expect_code(0)
        .json_lines()
        .remove(0);
    assert_eq!(report["findings"], 0);
    let report = report.as_object_mut().unwrap();
    // Those that two of them have are counted twice.
    report.remove("events");
    report.remove("anomalies");
    report.clone().into()
}

/// What databases answer to a question together, but for how much room they take.
fn answer(dbs: &[PathBuf], question: &[&str]) -> Vec<Value> {
    let mut args = question.to_vec();
    for db in dbs {
        args.extend(["--db", db.to_str().unwrap()]);
    }
    let mut answer = run("sg-query", &args, b"").expect_code(0).json_lines();
    for line in &mut answer {
        line.as_object_mut().unwrap().remove("disk_bytes");
    }
    answer
}

fn n_events(db: &Path) -> u64 {
    let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
    ran.expect_code(0).json_lines()[0]["events"]
        .as_u64()
        .unwrap()
}

#[test]
fn partitions_move_with_their_baselines() {
    for detector in DETECTORS {
        let group = Group::new(4, detector);
        let batches: Vec<Vec<u8>> = (0..6).map(|i| generated(4_000, 60, 300 + i)).collect();
        send(&group.topic, &batches[0]);
        // One alone, then two, then four, one of which is stopped and one killed, then one.
        let a = group.start("a");
        send(&group.topic, &batches[1]);
        let b = group.start("b");
        std::thread::sleep(Duration::from_secs(3));
        send(&group.topic, &batches[2]);
        let (c, d) = (group.start("c"), group.start("d"));
        std::thread::sleep(Duration::from_secs(4));
        send(&group.topic, &batches[3]);
        std::thread::sleep(Duration::from_secs(2));
        b.signal(Signal::KILL);
        b.end();
        send(&group.topic, &batches[4]);
        c.signal(Signal::TERM);
        c.end().expect_code(0);
        std::thread::sleep(Duration::from_secs(3));
        send(&group.topic, &batches[5]);
        for running in [a, d] {
            running.signal(Signal::TERM);
            running.end().expect_code(0);
        }
        let last = group.finish("d").expect_code(0);
        let dbs = ["a", "b", "c", "d"].map(|name| group.db(name));
        let merged = sums(&dbs.each_ref().map(PathBuf::as_path));
        assert_eq!(merged, group.expected(), "{}", last.stderr);
        let alone = group.db("alone");
        for question in [
            &["export"][..],
            &["anomalies", "--limit=500"],
            &["anomalies", "--sort=score"],
            &["incidents"],
            &["stats"],
            &["user", "user00001"],
            &["user", "user00007"],
        ] {
            let of_all = answer(&dbs, question);
            let of_one = answer(std::slice::from_ref(&alone), question);
            assert!(of_all == of_one, "{detector} {question:?}: {of_all:?}");
        }
        let had_a_share = dbs.iter().filter(|db| n_events(db) > 0).count();
        assert!(had_a_share >= 3, "{had_a_share} of 4 had something to do");
    }
}

/// A program that has lost its partitions without having noticed writes nothing that counts.
#[test]
fn who_was_away_too_long_has_nothing_to_say() {
    let group = Group::new(2, "--detector=adaptive");
    send(&group.topic, &generated(3_000, 40, 331));
    let a = group.start("a");
    // Its first checkpoint is made within six seconds.
    std::thread::sleep(Duration::from_secs(7));
    a.signal(Signal::STOP);
    send(&group.topic, &generated(3_000, 40, 333));
    let b = group.start("b");
    std::thread::sleep(Duration::from_secs(5));
    a.signal(Signal::CONT);
    send(&group.topic, &generated(3_000, 40, 335));
    std::thread::sleep(Duration::from_secs(5));
    for running in [a, b] {
        running.signal(Signal::TERM);
        running.end().expect_code(0);
    }
    group.finish("b").expect_code(0);
    let (a, b) = (group.db("a"), group.db("b"));
    assert_eq!(sums(&[&a, &b]), group.expected());
}

/// A database that was filled without a changelog brings what it has learned into it.
#[test]
fn baselines_from_before_go_into_the_changelog() {
    let group = Group::new(2, "--detector=adaptive");
    send(&group.topic, &generated(3_000, 40, 341));
    let a = group.db("a");
    let args = [
        "-b",
        shared(),
        "-t",
        &group.topic,
        "-e",
        "-q",
        "--threshold=0.5",
    ];
    let more = ["--db", a.to_str().unwrap(), "--detector=adaptive"];
    run("sg-run", &[&args[..], &more].concat(), b"").expect_code(0);
    // Nothing is left to read, but what is known gets there.
    group.finish("a").expect_code(0);
    send(&group.topic, &generated(3_000, 40, 343));
    group.finish("b").expect_code(0);
    assert_eq!(n_events(&group.db("b")), 3_000);
    let expected = group.expected();
    assert_eq!(sums(&[&a, &group.db("b")]), expected);
    // And back again, to one that has fallen behind.
    send(&group.topic, &generated(3_000, 40, 345));
    group.finish("a").expect_code(0);
    let alone = group.db("alone");
    std::fs::remove_dir_all(&alone).unwrap();
    assert_eq!(sums(&[&group.db("b"), &a]), group.expected());
}

#[test]
fn a_changelog_is_for_groups_that_keep_baselines() {
    let topic = topic(1);
    let args = ["-b", shared(), "-t", &topic, "--changelog=c", "-e"];
    let ran = run("sg-consume", &[&args[..], &["-G", "g"]].concat(), b"").expect_code(2);
    assert!(
        ran.stderr.contains("--changelog is for sg-run"),
        "{}",
        ran.stderr
    );
    let ran = run("sg-run", &[&args[..], &["--db", "nowhere"]].concat(), b"").expect_code(2);
    assert!(ran.stderr.contains("--group"), "{}", ran.stderr);
    assert!(wait_long(|| !Path::new("nowhere").exists()));
}
