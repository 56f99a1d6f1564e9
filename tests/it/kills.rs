//! Programs killed at any instant, and the same command again: the store is as if nothing had
//! happened.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::database::{SCORE, admin, assert_counts, scored, stats};
use crate::tools::{DETECTORS, Running, digest, generated, program, shell};

/// Runs the program until it ends by itself or has been killed `n_kills` times, each at another
/// instant within `within_ms`; how often it was killed.
pub(crate) fn kill_and_repeat(
    start: &dyn Fn() -> std::process::Child,
    n_kills: u32,
    within_ms: u32,
) -> u32 {
    let mut n_killed = 0;
    for n_tries in 0..n_kills * 4 {
        let mut child = start();
        // Spread over the run by a step that is not a divisor of anything.
        std::thread::sleep(Duration::from_millis(u64::from(
            7 + n_tries * 37 % within_ms,
        )));
        let is_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        n_killed += u32::from(is_running);
        if n_killed == n_kills {
            break;
        }
    }
    n_killed
}

#[test]
fn killed_sg_run_goes_on_as_if_nothing_had_happened() {
    for detector in DETECTORS {
        check_killed_sg_run(detector);
    }
}

fn check_killed_sg_run(detector: &str) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(150_000, 60, 71)).unwrap();
    let (quiet, killed) = (folder.path().join("quiet"), folder.path().join("killed"));
    let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
    let command = |db: &Path| {
        let mut command = program("sg-run");
        command
            .args([
                "-q",
                "--threshold=0.5",
                "--memtable-mib=1",
                "--checkpoint-mib=2",
                detector,
                "--db",
            ])
            .args([db, &input])
            .stdin(Stdio::null());
        command
    };
    assert!(command(&quiet).status().unwrap().success());
    let n_killed = kill_and_repeat(&|| command(&killed).spawn().unwrap(), 10, 211);
    assert!(n_killed >= 8, "it was too fast to be killed: {n_killed}");
    assert!(command(&killed).status().unwrap().success());
    assert_eq!(full(&killed), full(&quiet));
    assert_eq!(stats(&killed)["events"], 150_000);
}

/// Much that was learned goes another way than little.
#[test]
fn large_checkpoints_of_a_killed_sg_run_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(150_000, 6_000, 71)).unwrap();
    let command = |db: &Path| {
        let mut command = program("sg-run");
        command
            .args(["-q", "--detector=adaptive", "--memtable-mib=1"])
            .args(["--checkpoint-mib=4", "--db"])
            .args([db, &input])
            .stdin(Stdio::null());
        command
    };
    let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
    let quiet = folder.path().join("quiet");
    let start = Instant::now();
    assert!(command(&quiet).status().unwrap().success());
    let took = start.elapsed();
    let expected = full(&quiet);
    // They come one after the other in the second half.
    let (mut n_killed, mut n_large) = (0, 0);
    for percent in [47, 59, 71, 83] {
        let killed = folder.path().join(format!("killed-{percent}"));
        let mut child = command(&killed).spawn().unwrap();
        std::thread::sleep(took * percent / 100);
        n_killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let log = std::fs::read_to_string(killed.join("LOG")).unwrap();
        n_large += log.matches("baselines.sst was ingested").count();
        assert!(command(&killed).status().unwrap().success());
        assert!(full(&killed) == expected, "killed after {percent}%");
    }
    assert!(
        n_killed > 1 && n_large > 1,
        "{n_killed} killed, {n_large} large checkpoints"
    );
}

#[test]
fn killed_sg_store_and_the_pipe_again_give_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let lines = scored(100_000, 60, 73);
    let input = folder.path().join("scored.ndjson");
    std::fs::write(&input, &lines).unwrap();
    let (quiet, killed) = (folder.path().join("quiet"), folder.path().join("killed"));
    let command = |db: &Path| {
        let mut command = program("sg-store");
        command
            .args(["-q", "--memtable-mib=1", "--db"])
            .arg(db)
            .stdin(std::fs::File::open(&input).unwrap());
        command
    };
    assert!(command(&quiet).status().unwrap().success());
    let n_killed = kill_and_repeat(&|| command(&killed).spawn().unwrap(), 10, 211);
    assert!(n_killed >= 8, "it was too fast to be killed: {n_killed}");
    // And once more, the whole pipe from its start.
    shell(&format!(
        "sg-consume -q {} | sg-score {} | sg-store -q --db {}",
        input.display(),
        SCORE.join(" "),
        killed.display()
    ))
    .expect_code(0);
    assert_eq!(digest(&killed), digest(&quiet));
    assert_counts(&killed, &lines);
}

/// An input that is quiet has its baselines kept within a few seconds, not with the next event.
#[test]
fn a_quiet_input_is_kept_without_more_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (quiet, killed) = (folder.path().join("quiet"), folder.path().join("killed"));
    let lines = generated(2_000, 10, 97);
    let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
    crate::tools::run("sg-run", &["-q", "--db", quiet.to_str().unwrap()], &lines).expect_code(0);
    let mut running = Running::start("sg-run", &["-q", "--db", killed.to_str().unwrap()]);
    let mut input = running.stdin.take().unwrap();
    input.write_all(&lines).unwrap();
    // There is no sign of it from outside: wait longer than it may take.
    std::thread::sleep(Duration::from_secs(4));
    running.signal(Signal::KILL);
    running.end();
    drop(input);
    assert_eq!(full(&killed), full(&quiet));
}

/// Another detector went on in the database of a killed run, among the anomalies of the first.
#[test]
fn a_killed_run_has_said_which_detector_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let shown = db.to_str().unwrap();
    let input = folder.path().join("events");
    std::fs::write(&input, generated(100_000, 50, 99)).unwrap();
    let input = input.to_str().unwrap();
    let mut child = program("sg-run")
        .args(["-q", input, "--db", shown])
        .spawn()
        .unwrap();
    // A table, or a log that holds more than one write: the first is whole.
    let has_events = || {
        let files = std::fs::read_dir(&db).into_iter().flatten().flatten();
        files.into_iter().any(|file| {
            let path = file.path();
            let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
            is("sst") || is("log") && file.metadata().is_ok_and(|file| file.len() > 5 << 20)
        })
    };
    assert!(crate::tools::wait_for(has_events));
    child.kill().unwrap();
    child.wait().unwrap();
    let args = ["-q", "--detector=adaptive", input, "--db", shown];
    let ran = crate::tools::run("sg-run", &args, b"").expect_code(2);
    assert!(
        ran.stderr.contains("use --detector classic"),
        "{}",
        ran.stderr
    );
}
