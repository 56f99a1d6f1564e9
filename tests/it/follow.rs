//! `--follow`: files that grow, are rotated and are cut short.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::tools::{Running, event, run, wait_for};

/// A folder with one file, `events`, that a program follows.
struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    running: Running,
}

impl Fixture {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        fs::write(&path, content).unwrap();
        let running = Running::start("sg-consume", &["--follow", path.to_str().unwrap()]);
        Self {
            _folder: folder,
            path,
            running,
        }
    }

    fn append(&self, text: &str) {
        append(&self.path, text);
    }

    /// Asks for the end, and looks at the counts.
    #[track_caller]
    fn expect_counts(self, counts: &str) {
        self.running.signal(Signal::TERM);
        let ran = self.running.end();
        let stderr = ran.stderr.lines().last().unwrap_or_default();
        assert_eq!(stderr, format!("sg-consume: {counts}"), "{}", ran.stderr);
        let code = i32::from(!counts.contains("rejected 0"));
        assert_eq!(ran.code, code);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The n-th of many different lines.
fn line(n: i64) -> String {
    format!("{}\n", event(&format!("e{n}"), "u", n))
}

#[test]
fn what_is_appended_comes_at_once_and_whole() {
    let fixture = Fixture::new(&line(1));
    fixture.running.expect_stdout(&line(1));
    fixture.append(&line(2));
    let mut expected = line(1) + &line(2);
    fixture.running.expect_stdout(&expected);
    // However it was written, a line leaves whole.
    let (head, tail) = (&line(3)[..20], &line(3)[20..]);
    fixture.append(head);
    fixture.append(&tail[..5]);
    fixture.append(&format!("{}{}", &tail[5..], line(4)));
    expected += &(line(3) + &line(4));
    fixture.running.expect_stdout(&expected);
    fixture.append("no event\n\n");
    fixture.append(&line(5));
    fixture.running.expect_stdout(&(expected + &line(5)));
    fixture.expect_counts("in 7 = out 5 + rejected 1 + filtered 1 (rejected: invalid_json 1)");
}

#[test]
fn an_unended_line_waits() {
    // A whole event, but nobody knows whether it ends there.
    let unended = line(2).trim_end().to_owned();
    let fixture = Fixture::new(&(line(1) + &unended));
    fixture.running.expect_stdout(&line(1));
    fixture.expect_counts("in 1 = out 1 + rejected 0 + filtered 0");

    let fixture = Fixture::new(&(line(1) + &unended));
    fixture.running.expect_stdout(&line(1));
    fixture.append("\r\n");
    let expected = format!("{}{unended}\r\n", line(1));
    fixture.running.expect_stdout(&expected);
    fixture.expect_counts("in 2 = out 2 + rejected 0 + filtered 0");
}

#[test]
fn a_rotated_file_is_followed_by_its_name() {
    let fixture = Fixture::new("");
    let mut expected = String::new();
    for generation in 0..5 {
        let n = generation * 10;
        fixture.append(&line(n));
        expected += &line(n);
        fixture.running.expect_stdout(&expected);
        let old = fixture.path.with_extension(format!("{generation}"));
        fs::rename(&fixture.path, &old).unwrap();
        // Its writer has it still open, and goes on for a while.
        append(&old, &line(n + 1));
        expected += &line(n + 1);
        fixture.running.expect_stdout(&expected);
        File::create_new(&fixture.path).unwrap();
        append(&old, &line(n + 2));
        expected += &line(n + 2);
        fixture.running.expect_stdout(&expected);
        append(&old, line(n + 3).trim_end());
        append(&fixture.path, &line(n + 4));
        expected += &(line(n + 3) + &line(n + 4));
        fixture.running.expect_stdout(&expected);
    }
    fixture.expect_counts("in 25 = out 25 + rejected 0 + filtered 0");
}

#[test]
fn a_file_cut_short_is_read_from_its_start() {
    let fixture = Fixture::new(&(line(100) + &line(200)));
    let mut expected = line(100) + &line(200);
    fixture.running.expect_stdout(&expected);
    fs::write(&fixture.path, line(3)).unwrap();
    expected += &line(3);
    fixture.running.expect_stdout(&expected);
    fixture.append(&line(4));
    expected += &line(4);
    fixture.running.expect_stdout(&expected);
    // With the old line unended, and with a mark at the start of the new one.
    fixture.append(line(5).trim_end());
    fs::write(&fixture.path, format!("\u{feff}{}", line(6))).unwrap();
    let unended_is_seen = wait_for(|| fixture.running.stdout().contains("\"e6\""));
    assert!(unended_is_seen);
    let stdout = fixture.running.stdout();
    // Whether the unended line was still read is a matter of time.
    assert!(
        stdout == expected.clone() + &line(6) || stdout == expected + &line(5) + &line(6),
        "{stdout}"
    );
}

#[test]
fn a_name_that_is_gone_or_becomes_a_folder_is_waited_for() {
    let fixture = Fixture::new(&line(1));
    fixture.running.expect_stdout(&line(1));
    fs::remove_file(&fixture.path).unwrap();
    fs::create_dir(&fixture.path).unwrap();
    fs::write(fixture.path.join("file"), "").unwrap();
    assert!(wait_for(|| fixture.running.stderr().contains("directory")));
    fs::remove_dir_all(&fixture.path).unwrap();
    fs::write(&fixture.path, line(2)).unwrap();
    fixture.running.expect_stdout(&(line(1) + &line(2)));
    let n_complaints = fixture.running.stderr().matches("directory").count();
    assert_eq!(n_complaints, 1, "{}", fixture.running.stderr());
    fixture.running.signal(Signal::TERM);
    let ran = fixture.running.end();
    assert!(
        ran.stderr
            .ends_with("in 2 = out 2 + rejected 0 + filtered 0\n")
    );
    assert_eq!(ran.code, 2);
}

#[test]
fn several_files_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
    for path in &paths {
        fs::write(path, "").unwrap();
    }
    let pattern = folder.path().join("?");
    let running = Running::start("sg-consume", &["--follow", pattern.to_str().unwrap()]);
    let mut expected = String::new();
    for n in 0..9 {
        append(&paths[n % 3], &line(n as i64));
        expected += &line(n as i64);
        running.expect_stdout(&expected);
    }
    running.signal(Signal::INT);
    let ran = running.end();
    assert_eq!(
        ran.stderr,
        "sg-consume: in 9 = out 9 + rejected 0 + filtered 0\n"
    );
    assert_eq!(ran.code, 0);
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.gz");
    fs::write(&path, b"\x1F\x8B\x08\0").unwrap();
    for (input, message) in [
        (path.to_str().unwrap(), "is compressed"),
        (folder.path().to_str().unwrap(), "is a directory"),
        ("-", "--follow needs files"),
        ("/nowhere", "cannot read /nowhere"),
    ] {
        let ran = run("sg-consume", &["--follow", input], b"");
        assert_eq!((ran.text(), ran.code), ("", 2));
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}
