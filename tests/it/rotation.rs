//! What `sg-run` promises of files that are read again: only what is new is read, whatever became
//! of their names since, and the store and its baselines are those of one run over everything.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::database::admin;
use crate::tools::{Ran, generated, program, shell};

/// A folder in which logs are written, read and rotated.
struct Logs {
    folder: TempDir,
    /// Lines of the whole log, cut in four.
    pieces: Vec<Vec<u8>>,
}

impl Logs {
    fn new() -> Self {
        let lines = generated(8_000, 20, 91);
        let mut pieces = Vec::new();
        let mut rest = &lines[..];
        for n_left in (1..=4).rev() {
            let at = rest.len() / n_left;
            let end = memchr::memchr(b'\n', &rest[at - 1..]).unwrap() + at;
            let (piece, others) = rest.split_at(end);
            pieces.push(piece.to_vec());
            rest = others;
        }
        let folder = tempfile::tempdir().unwrap();
        Self { folder, pieces }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, piece: usize) {
        let path = self.path(name);
        let mut bytes = std::fs::read(&path).unwrap_or_default();
        bytes.extend_from_slice(&self.pieces[piece]);
        std::fs::write(&path, bytes).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn run(&self, inputs: &[&str], db: &str) -> Ran {
        let output = program("sg-run")
            .args(inputs)
            .args(["--threshold=0.5", "--min-events=20", "--db", db])
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The events that a run has read.
    #[track_caller]
    fn expect_new(&self, ran: &Ran, pieces: &[usize]) {
        let lines = pieces
            .iter()
            .map(|&i| crate::tools::n_lines(&self.pieces[i]));
        let n_new: usize = lines.sum();
        let expected = format!("sg-run: in {n_new} = out {n_new} + rejected 0 + filtered 0\n");
        assert_eq!((&*ran.stderr, ran.code), (&*expected, 0));
    }

    /// The database is that of one run over the pieces in order.
    #[track_caller]
    fn expect_whole(&self, db: &str, n_pieces: usize) {
        std::fs::write(self.path("whole"), self.pieces[..n_pieces].concat()).unwrap();
        self.run(&["whole"], "expected").expect_code(0);
        let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
        assert_eq!(
            String::from_utf8(full(&self.path(db))),
            String::from_utf8(full(&self.path("expected")))
        );
    }
}

/// What was appended between the last run and the rotation was never read.
#[test]
fn a_rotated_log_is_read_to_its_end() {
    let logs = Logs::new();
    logs.append("log", 0);
    logs.expect_new(&logs.run(&["log"], "db"), &[0]);
    logs.append("log", 1);
    logs.rename("log", "log.1");
    logs.append("log", 2);
    logs.expect_new(&logs.run(&["log"], "db"), &[1, 2]);
    logs.expect_new(&logs.run(&["log"], "db"), &[]);
    // Twice between two runs: the first of them is found, too.
    logs.append("log", 3);
    logs.rename("log.1", "log.2");
    logs.rename("log", "log.1");
    std::fs::write(logs.path("log"), "").unwrap();
    logs.expect_new(&logs.run(&["log"], "db"), &[3]);
    logs.expect_whole("db", 4);
}

/// A log that had been read was learned again under its new name.
#[test]
fn a_pattern_may_match_rotated_logs() {
    let logs = Logs::new();
    logs.append("log", 0);
    logs.expect_new(&logs.run(&["log*"], "db"), &[0]);
    logs.append("log", 1);
    logs.rename("log", "log-old");
    logs.expect_new(&logs.run(&["log*"], "db"), &[1]);
    logs.append("log-z", 2);
    logs.expect_new(&logs.run(&["log*"], "db"), &[2]);
    logs.expect_whole("db", 3);
}

#[test]
fn a_log_that_is_gone_is_told() {
    let logs = Logs::new();
    logs.append("log", 0);
    logs.run(&["log"], "db").expect_code(0);
    std::fs::remove_file(logs.path("log")).unwrap();
    logs.append("log", 1);
    let ran = logs.run(&["log"], "db").expect_code(0);
    assert!(
        ran.stderr
            .starts_with("sg-run: log is not the file that was read up to line "),
        "{}",
        ran.stderr
    );
    logs.expect_whole("db", 2);
}

/// A file that was cut short and written again began with the same bytes, and was passed over.
#[test]
fn a_file_that_was_cut_short_is_read_anew() {
    let logs = Logs::new();
    logs.append("log", 0);
    logs.append("log", 1);
    logs.run(&["log"], "db").expect_code(0);
    std::fs::remove_file(logs.path("log")).unwrap();
    logs.append("log", 0);
    logs.append("log", 2);
    let ran = logs.run(&["log"], "db").expect_code(0);
    let n_lines = |piece: usize| crate::tools::n_lines(&logs.pieces[piece]);
    let (n_known, n_new) = (n_lines(0), n_lines(2));
    let n_in = n_known + n_new;
    let expected = format!("in {n_in} = out {n_new} + rejected 0 + filtered {n_known}\n");
    assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
}

/// A file that was named twice was learned twice, by some runs.
#[test]
fn a_file_with_two_names_is_read_once() {
    let logs = Logs::new();
    logs.append("a", 0);
    logs.append("b", 1);
    logs.append("c", 2);
    std::os::unix::fs::symlink(logs.path("a"), logs.path("link")).unwrap();
    logs.expect_new(&logs.run(&["a", "b", "./a", "link", "c"], "db"), &[0, 1, 2]);
    logs.expect_new(&logs.run(&["link", "[abc]"], "db"), &[]);
    logs.expect_whole("db", 3);
}

#[test]
fn compressed_files_are_read_once_too() {
    let logs = Logs::new();
    logs.append("a", 0);
    logs.append("b", 1);
    shell(&format!(
        "cd {} && gzip a && zstd -q --rm b",
        logs.folder.path().display()
    ))
    .expect_code(0);
    logs.expect_new(&logs.run(&["a.gz", "b.zst"], "db"), &[0, 1]);
    logs.rename("a.gz", "c.gz");
    logs.expect_new(&logs.run(&["c.gz", "b.zst"], "db"), &[]);
    logs.expect_whole("db", 2);
}

/// A stop while what was read before is skipped passed for a file that is cut off.
#[test]
fn a_stop_while_a_compressed_file_is_skipped_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    std::fs::write(folder.path().join("a"), generated(150_000, 20, 93)).unwrap();
    shell(&format!(
        "cd {at} && gzip -1 a && sg-run -q a.gz --db db --no-sync"
    ))
    .expect_code(0);
    for delay_ms in (10..90).step_by(5) {
        // A signal before the program listens ends it by that signal.
        let script = format!(
            "cd {at}; sg-run -q a.gz --db db & sleep 0.{delay_ms:03}; kill -TERM $! 2> /dev/null; wait $!"
        );
        let ran = shell(&script);
        assert_eq!(ran.stderr, "", "after {delay_ms} ms");
        assert_ne!(ran.code, 2);
    }
}
