//! `--metrics-file`: whole at every instant, and right in the end.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole, which floats hold exactly"
)]

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{check, samples};
use crate::tools::{Running, event, generated, n_lines, run, wait_for};

#[test]
fn the_file_says_in_the_end_what_has_become_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daily.prom");
    let db = folder.path().join("db");
    let args = [
        "--db",
        db.to_str().unwrap(),
        "--metrics-file",
        file.to_str().unwrap(),
    ];
    let mut lines = generated(2_000, 20, 411);
    lines.extend_from_slice(b"{}\n");
    run("sg-run", &args, &lines).expect_code(1);
    let text = std::fs::read_to_string(&file).unwrap();
    check(&text);
    let counted = samples(&text);
    let n = |name: &str| counted[&format!("{name}{{file=\"daily\",program=\"sg-run\"}}")];
    assert_eq!(n("streamguard_events_processed_total"), 2_000.0);
    assert_eq!(n("streamguard_events_in_progress"), 0.0);
    assert!(n("streamguard_db_bytes") > 10_000.0);
    // node_exporter has its own.
    assert!(!text.contains("process_cpu"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.contains("program=\"sg-run\"") && line.contains("file=\"daily\""),
            "{line}"
        );
    }
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let left = std::fs::read_dir(folder.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["daily.prom", "db"]);
}

/// It is there from the start, and what was there before is replaced as a whole.
#[test]
fn the_file_is_there_while_the_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.prom");
    std::fs::write(&file, "# HELP from an earlier run").unwrap();
    let args = ["--metrics-file", file.to_str().unwrap()];
    let mut running = Running::start("sg-consume", &args);
    let text = || std::fs::read_to_string(&file).unwrap();
    assert!(wait_for(|| text() != "# HELP from an earlier run"));
    let processed = "streamguard_events_processed_total{file=\"m\",program=\"sg-consume\"}";
    assert_eq!(samples(&text())[processed], 0.0);
    drop(running.stdin.take());
    running.end().expect_code(0);
}

/// A device, a link, or a file that somebody has named by mistake, such as the input.
#[test]
fn nothing_but_metrics_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let line = event("a", "u", 1) + "\n";
    std::fs::write(path("input"), &line).unwrap();
    std::os::unix::fs::symlink("input", path("link")).unwrap();
    mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for (name, says) in [
        ("input", "a file without metrics"),
        ("link", "no regular file"),
        ("fifo", "no regular file"),
    ] {
        let (input, file) = (path("input"), path(name));
        let args = [
            input.to_str().unwrap(),
            "--metrics-file",
            file.to_str().unwrap(),
        ];
        let ran = run("sg-consume", &args, b"").expect_code(2);
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
        assert_eq!(std::fs::read_to_string(path("input")).unwrap(), line);
    }
    let is_kept = |name: &str| path(name).symlink_metadata().unwrap().file_type();
    assert!(is_kept("link").is_symlink() && is_kept("fifo").is_fifo());
}

#[test]
fn a_folder_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing/m.prom");
    let lines = format!("{}\n", event("a", "u", 1));
    let args = ["--metrics-file", file.to_str().unwrap()];
    let ran = run("sg-consume", &args, lines.as_bytes()).expect_code(0);
    assert_eq!(n_lines(&ran.stdout), 1);
    let words = "sg-consume: cannot write metrics to ";
    assert_eq!(ran.stderr.matches(words).count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("; going on without"), "{}", ran.stderr);
}
