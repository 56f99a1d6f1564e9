//! What `sg-run --alerts-to` promises: everybody who is named is told of each new anomaly, in order,
//! whatever happens meanwhile to the program or to them; and nobody waits for them.

mod metrics;
mod stub;
mod webhook;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::database::{admin, lines_of, raw};
use crate::kills::kill_and_repeat;
use crate::tools::{Ran, digest, generated, program, run, shell, write_secret};

/// Settings that find many anomalies in little input.
const SCORE: [&str; 2] = ["--threshold=0.5", "--min-events=20"];

/// A folder with a log, and databases.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) log: PathBuf,
}

impl Site {
    pub(crate) fn new(lines: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, lines).unwrap();
        Self { folder, log }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `sg-run` over the log into the database of a name.
    pub(crate) fn args(&self, db: &str, args: &[&str]) -> Vec<String> {
        let log = self.log.to_str().unwrap();
        let db = self.text(db);
        [&[log, "--db", &db], &SCORE[..], args]
            .concat()
            .iter()
            .map(|&arg| arg.to_owned())
            .collect()
    }

    pub(crate) fn run(&self, db: &str, args: &[&str]) -> Ran {
        let args = self.args(db, args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run("sg-run", &args, b"")
    }

    pub(crate) fn command(&self, db: &str, args: &[&str]) -> Command {
        let mut command = program("sg-run");
        command
            .args(self.args(db, args))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }
}

/// What `sg-score` lets through.
pub(crate) fn emitted(lines: &[u8], emit: &str) -> Vec<u8> {
    let emit = format!("--emit={emit}");
    let args = [&["-q", &emit], &SCORE[..]].concat();
    run("sg-score", &args, lines).expect_code(0).stdout
}

/// Entries in `meta` about alerts.
fn entries(db: &Path) -> Vec<(String, String)> {
    let db = raw(db);
    let meta = db.cf_handle("meta").unwrap();
    let all = db.iterator_cf(meta, rocksdb::IteratorMode::Start);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    all.map(|entry| entry.unwrap())
        .map(|(key, value)| (text(&key), text(&value)))
        .filter(|(key, _)| key.starts_with("alert"))
        .collect()
}

#[test]
fn a_file_gets_the_lines_that_sg_score_emits() {
    let lines = generated(20_000, 40, 301);
    let site = Site::new(&lines);
    let (news, all) = (site.text("news"), site.text("all"));
    let ran = site.run("db", &["--alerts-to", &news]).expect_code(0);
    let expected = emitted(&lines, "incidents");
    let n_expected = lines_of(&expected).len();
    assert!(n_expected > 50, "{n_expected}");
    assert!(site.read("news") == expected);
    let summary = format!("sg-run: alerts to {news}: sent {n_expected}\n");
    assert!(ran.stderr.contains(&summary), "{}", ran.stderr);
    let args = ["-q", "--alerts-to", &all, "--alerts=anomalies"];
    let ran = site.run("db2", &args).expect_code(0);
    assert_eq!(ran.stderr, "");
    assert!(site.read("all") == emitted(&lines, "anomalies"));
    assert!(site.read("all").len() > expected.len());
    // Nothing is new the second time, wherever it comes from.
    let ran = site.run("db", &["--alerts-to", &news]).expect_code(0);
    assert!(ran.stderr.contains(": sent 0\n"), "{}", ran.stderr);
    let args = ["--db", &site.text("db"), "--alerts-to", &news];
    run("sg-run", &args, &lines).expect_code(0);
    assert!(site.read("news") == expected);
}

#[test]
fn without_targets_the_database_is_as_ever() {
    let lines = generated(20_000, 40, 303);
    let site = Site::new(&lines);
    site.run("plain", &[]).expect_code(0);
    site.run("told", &["--alerts-to", &site.text("a")])
        .expect_code(0);
    let full = |db: &str| {
        let ran = admin("verify", &site.path(db), &["--digest"]).expect_code(0);
        ran.text().to_owned()
    };
    assert_eq!(full("plain"), full("told"));
    assert_eq!(entries(&site.path("plain")), []);
    // What everybody has been told of is gone.
    let keys: Vec<String> = entries(&site.path("told"))
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [format!("alert-target:{}", site.text("a"))]);
}

/// A target that comes later is not told what has been; one that is not named any more is given up.
#[test]
fn targets_come_and_go() {
    let lines = generated(30_000, 40, 305);
    let pieces = lines_of(&lines);
    let part = |range: std::ops::Range<usize>| pieces[range].concat();
    let site = Site::new(&part(0..10_000));
    let (a, b) = (site.text("a"), site.text("b"));
    site.run("db", &["--alerts-to", &a]).expect_code(0);
    std::fs::write(&site.log, part(0..20_000)).unwrap();
    site.run("db", &["--alerts-to", &a, "--alerts-to", &b])
        .expect_code(0);
    let expected = emitted(&part(0..20_000), "incidents");
    assert!(site.read("a") == expected);
    let told_a = lines_of(&emitted(&part(0..10_000), "incidents")).len();
    assert!(site.read("b") == lines_of(&expected)[told_a..].concat());
    // A run without any gives up nobody, and adds nothing.
    std::fs::write(&site.log, part(0..25_000)).unwrap();
    let ran = site.run("db", &[]).expect_code(0);
    assert!(!ran.stderr.contains("alert"), "{}", ran.stderr);
    std::fs::write(&site.log, &lines).unwrap();
    let ran = site.run("db", &["--alerts-to", &b]).expect_code(0);
    let told = format!("sg-run: {a} is told of alerts no more\n");
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    let ran = site.run("db", &["--alerts-to", &b]).expect_code(0);
    assert!(!ran.stderr.contains("no more"), "{}", ran.stderr);
    assert!(site.read("a") == expected);
    let first = lines_of(&emitted(&part(0..25_000), "incidents")).len();
    let all = emitted(&lines, "incidents");
    let expected = [&expected[..], &lines_of(&all)[first..].concat()].concat();
    assert!(site.read("b") == lines_of(&expected)[told_a..].concat());
}

/// Alerts that are in a file, but for lines that a kill has cut off.
fn told(bytes: &[u8]) -> Vec<String> {
    let lines = lines_of(bytes).into_iter();
    let whole = lines.filter(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok());
    whole
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect()
}

/// The same without what was told again.
pub(crate) fn once(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let lines = lines.into_iter();
    lines.filter(|line| seen.insert(line.clone())).collect()
}

#[test]
fn a_killed_run_has_told_everything_in_the_end() {
    let lines = generated(150_000, 60, 307);
    let site = Site::new(&lines);
    let (quiet, killed) = (site.text("quiet.alerts"), site.text("killed.alerts"));
    site.run("quiet", &["-q", "--alerts-to", &quiet])
        .expect_code(0);
    let small = ["--memtable-mib=1", "--checkpoint-mib=2"];
    let args = ["-q", small[0], small[1], "--alerts-to", &killed];
    let n_killed = kill_and_repeat(&|| site.command("killed", &args).spawn().unwrap(), 10, 211);
    assert!(n_killed >= 8, "it was too fast to be killed: {n_killed}");
    site.run("killed", &args).expect_code(0);
    assert_eq!(digest(&site.path("killed")), digest(&site.path("quiet")));
    let expected = told(&site.read("quiet.alerts"));
    let found = told(&site.read("killed.alerts"));
    assert!(expected.len() > 100, "{}", expected.len());
    assert!(once(found) == expected);
}

/// A crash left half a line: the next alert does not become part of it.
#[test]
fn a_line_that_was_cut_off_is_ended() {
    let lines = generated(20_000, 40, 301);
    let site = Site::new(&lines);
    std::fs::write(site.path("a"), b"{\"half\":").unwrap();
    site.run("db", &["--alerts-to", &site.text("a")])
        .expect_code(0);
    let expected = [b"{\"half\":\n", &emitted(&lines, "incidents")[..]].concat();
    assert!(site.read("a") == expected);
}

/// Somebody has rotated the file: the next alert is in a new one.
#[test]
fn a_file_may_be_rotated() {
    let lines = generated(20_000, 40, 301);
    let pieces = lines_of(&lines);
    let site = Site::new(&pieces[..10_000].concat());
    let (log, db, a) = (site.log.to_str().unwrap(), site.text("db"), site.text("a"));
    let args = [
        &["--follow", log, "--db", &db, "--alerts-to", &a],
        &SCORE[..],
    ]
    .concat();
    let running = crate::tools::Running::start("sg-run", &args);
    let first = emitted(&pieces[..10_000].concat(), "incidents");
    assert!(crate::tools::wait_for(
        || site.read("a").len() >= first.len()
    ));
    std::fs::rename(site.path("a"), site.path("a.1")).unwrap();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&site.log)
        .unwrap();
    file.write_all(&pieces[10_000..].concat()).unwrap();
    let all = emitted(&lines, "incidents");
    let is_there = || site.read("a").len() >= all.len() - first.len();
    assert!(crate::tools::wait_for(is_there));
    running.signal(rustix::process::Signal::TERM);
    running.end().expect_code(0);
    assert!(site.read("a.1") == first);
    assert!([site.read("a.1"), site.read("a")].concat() == all);
}

#[test]
fn wrong_targets_are_refused_at_the_start() {
    let site = Site::new(b"");
    let log = site.log.to_str().unwrap();
    let check = |args: &[&str], words: &str| {
        let ran = site.run("db", args).expect_code(2);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    };
    check(
        &["--alerts-to", "/no/such/folder/a"],
        "cannot write alerts to",
    );
    check(&["--alerts-to", log], "is read");
    let a = site.text("a");
    check(&["--alerts-to", &a, "--alerts-to", &a], "twice");
    check(
        &["--alerts-to", &a, "--dead-letter", &a],
        "--dead-letter file",
    );
    check(&["--alerts-to", &a, "--suppress=0"], "--alerts anomalies");
    check(&["--alerts-to", "-"], "name of a file");
    // It would be waited for without end.
    let pipe = site.text("pipe");
    shell(&format!("mkfifo {pipe}")).expect_code(0);
    check(&["--alerts-to", &pipe], "nobody reads this pipe");
    check(&["--alerts-to", "https://u:hunter2@h/"], "webhook:URL");
    check(&["--alerts-to", "kafka:t"], "-b HOST:PORT");
    check(&["--alerts-to", "webhook:ftp://u:hunter2@h"], "https://");
    check(
        &["--alerts-to", "webhook:http://u:hunter2@h"],
        "openssl rand -base64 32",
    );
    check(&["--alerts=incidents"], "--alerts-to");
    let secret = site.text("secret");
    for text in ["", "whsec_hunter2hunter2", "hunter2"] {
        write_secret(&secret, text);
        let args = [
            "--alerts-to",
            "webhook:http://h",
            "--webhook-secret-file",
            &secret,
        ];
        check(&args, "is no secret for webhooks");
    }
}

/// What has been pruned meanwhile is nothing to tell of, and breaks nothing.
#[test]
fn alerts_may_outlive_their_events() {
    let lines = generated(20_000, 40, 301);
    let site = Site::new(&lines);
    let full = "/dev/full";
    let ran = site.run("db", &["--alerts-to", full]).expect_code(1);
    let n_expected = lines_of(&emitted(&lines, "incidents")).len();
    let waiting = format!("sent 0, waiting {n_expected}: they go out with the next run");
    assert!(ran.stderr.contains(&waiting), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("/dev/full: No space left"),
        "{}",
        ran.stderr
    );
    assert_eq!(entries(&site.path("db")).len(), n_expected + 1);
    let ran = site.run("db", &[]).expect_code(0);
    let words = format!("{n_expected} alerts wait for {full}, which this run does not name");
    assert!(ran.stderr.contains(&words), "{}", ran.stderr);
    digest(&site.path("db"));
    admin("prune", &site.path("db"), &["--before=2100-01-01"]).expect_code(0);
    digest(&site.path("db"));
    std::fs::write(&site.log, b"").unwrap();
    let told_no_more = format!("{full} is told of alerts no more; {n_expected} were waiting");
    let a = site.text("a");
    let ran = site.run("db", &["--alerts-to", &a]).expect_code(0);
    assert!(ran.stderr.contains(&told_no_more), "{}", ran.stderr);
    assert_eq!(site.read("a"), b"");
    assert_eq!(entries(&site.path("db")).len(), 1);
}
