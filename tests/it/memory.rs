//! What `--memory-limit` promises: it holds whatever users are made up, and changes nothing but speed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::tools::{Ran, Running, generated, run, shell};

const ADAPTIVE: &str = "--detector=adaptive";
const LIMIT: &str = "--memory-limit=256MiB";
const LIMIT_BYTES: u64 = 256 << 20;

/// As many users as the limit has no room for, each with some events.
fn many_users() -> Vec<u8> {
    generated(120_000, 60_000, 91)
}

/// Users who come once and never again, as an attacker makes them up.
fn flood(n_users: u32) -> String {
    let mut lines = String::new();
    for i in 0..n_users {
        writeln!(
            lines,
            r#"{{"event_id":"e{i}","user":"made-up-{i}","timestamp":{},"type":"LOGIN_FAILED","source_ip":"10.{}.{}.{}","geo_location":"City {i}, C{i}","metadata":{{"user_agent":"ua/{i}","device":"d{i}"}}}}"#,
            1_735_689_600_000_i64 + i64::from(i) * 20,
            i >> 16,
            i >> 8 & 255,
            i & 255,
        )
        .unwrap();
    }
    lines
}

fn score(args: &[&str], input: &[u8]) -> Ran {
    run(
        "sg-score",
        &[&["--threshold=0.9", ADAPTIVE], args].concat(),
        input,
    )
    .expect_code(0)
}

#[track_caller]
fn assert_moved(ran: &Ran) {
    let words = "baselines were moved out of memory";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[test]
fn scores_and_baselines_do_not_depend_on_the_limit() {
    let lines = many_users();
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| format!("--state={}", folder.path().join(name).display());
    let roomy = score(&[&state("roomy")], &lines);
    assert!(!roomy.stderr.contains("moved"), "{}", roomy.stderr);
    let narrow = score(&[LIMIT, &state("narrow")], &lines);
    assert_moved(&narrow);
    assert!(roomy.stdout == narrow.stdout);
    let exported = |name: &str| {
        let ran = run("sg-score", &["export", &state(name)], b"").expect_code(0);
        assert!(ran.stdout.len() > 1 << 20);
        ran.stdout
    };
    assert!(exported("roomy") == exported("narrow"));

    let half = &lines[..lines.len() / 2];
    let half = &half[..=half.iter().rposition(|&byte| byte == b'\n').unwrap()];
    let roomy = score(&[&state("roomy")], half);
    let narrow = score(&[LIMIT, "--jobs=1", &state("narrow")], half);
    assert_moved(&narrow);
    assert!(roomy.stdout == narrow.stdout);
    assert!(exported("roomy") == exported("narrow"));
}

#[test]
fn a_store_does_not_depend_on_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("in"), many_users()).unwrap();
    let script = format!(
        "cd {at}; export SG_DETECTOR=adaptive; head -n 90000 in > log
         sg-run log --db roomy -q; SG_MEMORY_LIMIT=256MiB sg-run log --db narrow
         tail -n +90001 in >> log
         sg-run log --db roomy -q; SG_MEMORY_LIMIT=256MiB sg-run log --db narrow
         for db in roomy narrow; do sg-store verify --digest --db $db; done"
    );
    let ran = shell(&script).expect_code(0);
    assert_eq!(
        ran.stderr.matches("moved out of memory").count(),
        2,
        "{}",
        ran.stderr
    );
    let digests = ran.json_lines();
    // Baselines are part of it.
    assert!(digests[0]["baselines"].as_str().unwrap().len() == 64);
    assert_eq!(digests[0], digests[1]);
}

/// Runs a program to its end, and returns the most memory that was seen.
fn peak_of(mut running: Running, input: String) -> (u64, Ran) {
    let stdin = running.stdin.take();
    let writer = std::thread::spawn(move || stdin.unwrap().write_all(input.as_bytes()).unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut peak_bytes = 0;
    while !running.has_ended() {
        assert!(Instant::now() < deadline, "{}", running.stderr());
        peak_bytes = running.peak_bytes().max(peak_bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.join().unwrap();
    (peak_bytes, running.end())
}

#[test]
fn made_up_users_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let db = format!("--db={}", folder.path().join("db").display());
    let state = format!("--state={}", folder.path().join("state").display());
    for (name, args) in [
        ("sg-score", &[ADAPTIVE, LIMIT, "--emit=incidents"][..]),
        ("sg-score", &[ADAPTIVE, LIMIT, "--emit=incidents", &state]),
        ("sg-run", &[ADAPTIVE, LIMIT, "--no-sync", &db]),
    ] {
        let (peak_bytes, ran) = peak_of(Running::start(name, args), flood(200_000));
        let ran = ran.expect_code(0);
        assert_moved(&ran);
        assert!(
            peak_bytes > LIMIT_BYTES / 4,
            "{name}: {peak_bytes} was not the peak"
        );
        assert!(peak_bytes < LIMIT_BYTES, "{name}: {peak_bytes}");
    }
}

#[test]
fn no_room_on_the_disk_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_sg-score"))
        .args(["-q", LIMIT])
        .env("TMPDIR", "/nowhere")
        .stdin(std::fs::File::open(input_file().path()).unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let words = "cannot make a folder in /nowhere for baselines that exceed --memory-limit";
    assert!(stderr.contains(words), "{stderr}");
}

fn input_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), flood(60_000)).unwrap();
    file
}

#[test]
fn what_is_no_limit_is_refused() {
    for wrong in ["1MiB", "x", "12", "1.5GiB"] {
        let ran = run("sg-score", &["--memory-limit", wrong], b"").expect_code(2);
        assert!(ran.stderr.contains("--memory-limit"), "{}", ran.stderr);
    }
}
