//! What `sg-score --state` promises: baselines outlive the run, whole or not at all.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use streamguard::batch::{Learned, Records};
use streamguard::store::{Label, State};

use crate::tools::{DETECTORS, Ran, event, generated, n_lines, program, run, shell, wait_for};

fn score(state: &Path, input: &[u8]) -> Ran {
    score_with(DETECTORS[0], state, input)
}

fn score_with(detector: &str, state: &Path, input: &[u8]) -> Ran {
    let state = format!("--state={}", state.display());
    run(
        "sg-score",
        &["-q", "--threshold=0.4", detector, &state],
        input,
    )
}

fn export(state: &Path) -> Ran {
    run(
        "sg-score",
        &["export", "--state", state.to_str().unwrap()],
        b"",
    )
}

fn import(state: &Path, input: &[u8]) -> Ran {
    run(
        "sg-score",
        &["import", "--state", state.to_str().unwrap()],
        input,
    )
}

/// A folder in which a run has left baselines, and their export.
fn with_state(folder: &Path) -> (PathBuf, Vec<u8>) {
    let state = folder.join("state");
    score(&state, &generated(3_000, 9, 41)).expect_code(0);
    let exported = export(&state).expect_code(0).stdout;
    (state, exported)
}

/// The files of a state's database, with their contents.
fn files(state: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(state.join("baselines")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Makes the database of a state what it was.
fn restore(state: &Path, files: &[(PathBuf, Vec<u8>)]) {
    std::fs::remove_dir_all(state.join("baselines")).unwrap();
    std::fs::create_dir(state.join("baselines")).unwrap();
    for (path, bytes) in files {
        std::fs::write(path, bytes).unwrap();
    }
}

/// Commits one record to a state, as a program of this release would.
fn put(state: &Path, detector: &str, user: &str, record: &[u8], label: &Label) {
    let mut records = Records::default();
    records.push(user, |bytes| bytes.extend_from_slice(record));
    let state = State::open(state).unwrap();
    state.claim(detector).unwrap();
    let learned = Learned {
        task: "".into(),
        baselines: vec![records],
        shared: Vec::new(),
    };
    state.put(vec![learned]).unwrap();
    state.commit(label, 0).unwrap();
}

/// Cut after the line that byte `at` is in.
fn halves(lines: &[u8], at: usize) -> (&[u8], &[u8]) {
    let end = lines[at..].iter().position(|&byte| byte == b'\n').unwrap();
    lines.split_at(at + end + 1)
}

#[test]
fn runs_over_pieces_are_one_run_over_the_whole() {
    for detector in DETECTORS {
        check_pieces(detector);
    }
}

fn check_pieces(detector: &str) {
    let score = |state: &Path, input: &[u8]| score_with(detector, state, input);
    let lines = generated(8_000, 15, 43);
    let folder = tempfile::tempdir().unwrap();
    let whole_state = folder.path().join("whole");
    let whole = score(&whole_state, &lines).expect_code(0).stdout;
    for at in [0, 1_000, lines.len() / 2, lines.len() - 1_000] {
        let state = folder.path().join(format!("in_two_{at}"));
        let (first, second) = halves(&lines, at);
        let mut output = score(&state, first).expect_code(0).stdout;
        output.extend(score(&state, second).expect_code(0).stdout);
        assert!(output == whole, "cut at {at}");
        assert_eq!(export(&state).stdout, export(&whole_state).stdout);
    }
    assert!(
        String::from_utf8(whole).unwrap().contains("\"anomaly\":"),
        "the comparison needs anomalies"
    );
}

/// Whoever asked about a day's events after its run had them learned twice.
#[test]
fn questions_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    let more = generated(2_000, 9, 43);
    let id = String::from_utf8(more.clone()).unwrap();
    let id: serde_json::Value = serde_json::from_str(id.lines().last().unwrap()).unwrap();
    let id = id["event_id"].as_str().unwrap();
    for question in [&["--report"][..], &["--explain", id]] {
        let args = [&["-q", "--state", state.to_str().unwrap()], question].concat();
        let answer = run("sg-score", &args, &more).expect_code(0);
        assert!(!answer.stdout.is_empty());
        assert!(export(&state).stdout == exported, "{question:?}");
    }
}

#[test]
fn an_empty_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    score(&state, b"").expect_code(0);
    assert!(export(&state).stdout == exported);
    let mut names: Vec<_> = std::fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["baselines", "lock"]);
}

/// A command that fails, with one line that holds `words` and no output.
#[track_caller]
fn check_failed(ran: Ran, words: &str) {
    let ran = ran.expect_code(2);
    assert_eq!(ran.text(), "", "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("sg-score: "), "{}", ran.stderr);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

/// All commands fail with one line that holds `words`.
#[track_caller]
fn check_refused(state: &Path, words: &str) {
    let input = event("e", "u", 1);
    for ran in [
        score(state, input.as_bytes()),
        export(state),
        import(state, b""),
    ] {
        check_failed(ran, words);
    }
}

#[test]
fn damaged_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    let files = files(&state);
    let named = |name: &str| {
        let is_it = |path: &Path| path.file_name().unwrap().to_str().unwrap().contains(name);
        let found = files.iter().filter(move |(path, _)| is_it(path));
        found.cloned().collect::<Vec<_>>()
    };
    for (path, bytes) in [named("CURRENT"), named("MANIFEST")].concat() {
        for n_bytes in [0, bytes.len() / 2] {
            std::fs::write(&path, &bytes[..n_bytes]).unwrap();
            check_refused(&state, "restore the state folder from a backup");
            restore(&state, &files);
        }
        std::fs::remove_file(&path).unwrap();
        if path.ends_with("CURRENT") {
            // Not taken for a state that has learned nothing yet.
            check_refused(&state, "restore the state folder from a backup");
        }
        restore(&state, &files);
    }
    let tables = named(".sst");
    assert!(!tables.is_empty());
    let mut n_refused = 0;
    for (path, bytes) in &tables {
        for n_bytes in [0, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(path, &bytes[..n_bytes]).unwrap();
            check_failed(export(&state), "restore the state folder from a backup");
            restore(&state, &files);
        }
        for i in 0..12 {
            let mut bytes = bytes.clone();
            let at = bytes.len() * i / 12;
            bytes[at] ^= 0x10;
            std::fs::write(path, &bytes).unwrap();
            let ran = export(&state);
            // Some bytes are there for programs that look at files, not for what is kept.
            if ran.stdout != exported {
                n_refused += 1;
                let words = "restore the state folder from a backup";
                assert!(ran.stderr.contains(words), "{}", ran.stderr);
                assert_eq!(ran.expect_code(2).stderr.lines().count(), 1);
            }
            restore(&state, &files);
        }
        std::fs::remove_file(path).unwrap();
        check_failed(export(&state), "restore the state folder from a backup");
        restore(&state, &files);
    }
    assert!(n_refused > tables.len() * 6, "{n_refused}");
    assert!(export(&state).expect_code(0).stdout == exported);
}

#[test]
fn state_of_other_builds_and_detectors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    let input = event("e", "u", 1);
    check_failed(
        score_with(DETECTORS[1], &state, input.as_bytes()),
        "holds baselines of the classic detector, not adaptive: use another --state folder, or \
         --detector classic",
    );
    assert!(export(&state).stdout == exported);

    let other = folder.path().join("other");
    put(&other, "xlassic", "u", b"record", &Label::default());
    check_failed(
        export(&other),
        "of the xlassic detector, which this build has not",
    );
    check_failed(score(&other, b""), "of the xlassic detector, not classic");
    // What the detector cannot read is told as soon as it is needed.
    put(&state, "classic", "u", &[9, 0], &Label::default());
    let words = "baseline has version 9, this build reads version 1";
    check_failed(export(&state), words);
    check_failed(score(&state, input.as_bytes()), words);

    std::fs::write(state.join("baselines.sg"), "SGBL").unwrap();
    check_refused(
        &state,
        "holds baselines.sg of an earlier build: export it with that build",
    );
    let db = folder.path().join("db");
    let args = ["-q", "--db", db.to_str().unwrap()];
    run("sg-store", &args, input.as_bytes()).expect_code(0);
    std::fs::create_dir(folder.path().join("mixed")).unwrap();
    std::fs::rename(db, folder.path().join("mixed/baselines")).unwrap();
    check_refused(&folder.path().join("mixed"), "is not one of this release");
}

/// What a run has learned that ended before its input did is learned when it is repeated.
#[test]
fn a_run_that_does_not_come_to_its_end_learns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    let option = format!("--state={}", state.display());
    let strict = ["-q", "--strict", &option];
    let input = event("e", "new", 1) + "\ngarbage\n";
    run("sg-score", &strict, input.as_bytes()).expect_code(2);
    assert!(export(&state).stdout == exported);

    let mut running = Waiting::start(DETECTORS[0], &state);
    running.pass(&generated(3_000, 9, 44));
    assert!(wait_for(|| has_put(&state)));
    drop(running.output.take());
    // Its output is closed, which it sees with the next line.
    let mut input = running.child.stdin.take().unwrap();
    writeln!(input, "{}", event("e", "u", 1)).unwrap();
    drop(input);
    assert!(running.child.wait().unwrap().success());
    assert!(export(&state).stdout == exported);

    std::fs::write(folder.path().join("in"), generated(40_000, 3_000, 44)).unwrap();
    let at = folder.path().display();
    // Files may not grow beyond 64 KiB, as on a disk that is full.
    let script = format!("trap '' XFSZ; ulimit -f 64; sg-score -q {option} < {at}/in > /dev/null");
    let ran = shell(&script).expect_code(2);
    let words = "cannot save baselines in";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert!(ran.stderr.contains("make room"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(export(&state).expect_code(0).stdout == exported);
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, _) = with_state(folder.path());
    let mut holder = program("sg-score")
        .args(["-q", "--state", state.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line of output says that it has the folder.
    let mut input = holder.stdin.take().unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    writeln!(input, "{}", event("e", "u", 1)).unwrap();
    output.read_line(&mut String::new()).unwrap();
    check_refused(&state, "is in use by another sg-score");
    drop(input);
    assert!(holder.wait().unwrap().success());
    score(&state, b"").expect_code(0);
}

#[test]
fn a_folder_that_cannot_be_used_is_told_before_anything_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    for state in [
        file.as_path(),
        Path::new("/proc/nowhere"),
        Path::new("/proc"),
    ] {
        let ran = score(state, event("e", "u", 1).as_bytes()).expect_code(2);
        assert_eq!(ran.text(), "");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("the state folder"), "{}", ran.stderr);
    }
    let ran = export(&folder.path().join("missing")).expect_code(2);
    assert!(
        ran.stderr.contains("there is no state folder"),
        "{}",
        ran.stderr
    );
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn export_and_import_go_round() {
    for detector in DETECTORS {
        check_export(detector);
    }
}

fn check_export(detector: &str) {
    let score = |state: &Path, input: &[u8]| score_with(detector, state, input);
    let lines = generated(8_000, 15, 47);
    let (first, second) = halves(&lines, lines.len() / 2);
    let folder = tempfile::tempdir().unwrap();
    let (original, copy) = (folder.path().join("original"), folder.path().join("copy"));
    score(&original, first).expect_code(0);
    let exported = export(&original).expect_code(0);
    // What all users share comes first, under no name.
    let lines = exported.json_lines();
    let n_shared = usize::from(lines[0]["user"] == "");
    assert_eq!(lines.len(), 15 + n_shared);
    assert_eq!(lines[n_shared]["user"], "user00000");
    import(&copy, &exported.stdout).expect_code(0);
    assert!(export(&copy).stdout == exported.stdout);
    let expected = score(&original, second).expect_code(0).stdout;
    assert!(score(&copy, second).expect_code(0).stdout == expected);
    // Twice is once, and users that an import does not name stay.
    let exported = export(&copy).stdout;
    let one_line = exported.split_inclusive(|&byte| byte == b'\n').next();
    import(&copy, one_line.unwrap()).expect_code(0);
    assert!(export(&copy).stdout == exported);
    // Tasks are told apart; that of all input that is no partition has no name.
    let of_user = exported.split_inclusive(|&byte| byte == b'\n').next_back();
    let mut of_task: serde_json::Value = serde_json::from_slice(of_user.unwrap()).unwrap();
    assert_eq!(of_task.get("task"), None);
    of_task["task"] = "kafka:logins/3".into();
    import(&copy, of_task.to_string().as_bytes()).expect_code(0);
    let with_task = export(&copy).expect_code(0);
    assert!(with_task.stdout.starts_with(&exported));
    assert_eq!(with_task.json_lines()[lines.len()..], [of_task]);
    // Nothing to export is like nothing found.
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(export(&empty).expect_code(1).text(), "");
}

#[test]
fn an_import_of_garbage_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let exported = String::from_utf8(bytes.clone()).unwrap();
    let good = exported.lines().next_back().unwrap();
    let zero_ips = good.replacen("\"n_events\":", "\"n_events\":-", 1);
    for (garbage, line) in [
        ("garbage".to_owned(), 1),
        (format!("{good}\n{{}}"), 2),
        (format!("{good}\n{}", event("e", "u", 1)), 2),
        (good[..good.len() - 2].to_owned(), 1),
        (good.replace("\"classic\"", "\"adaptive\""), 1),
        (good.replace("\"version\":1", "\"version\":2"), 1),
        (zero_ips, 1),
    ] {
        let ran = import(&state, garbage.as_bytes()).expect_code(2);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("line {line} is")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
        assert!(export(&state).stdout == bytes);
    }
    let ran = import(&state, b"\xff\xfe\n").expect_code(2);
    assert!(ran.stderr.contains("cannot read"), "{}", ran.stderr);
    assert!(export(&state).stdout == bytes);
}

/// Exported baselines are edited by hand: one that no history can have led to would give scores
/// outside 0..=1.
#[test]
fn an_import_of_impossible_counts_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let good = export(&state).expect_code(0).json_lines().pop().unwrap();
    let check = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut line = good.clone();
        edit(&mut line["baseline"]);
        let ran = import(&state, line.to_string().as_bytes()).expect_code(2);
        assert!(
            ran.stderr.contains("line 1 ") && ran.stderr.contains("nothing was changed"),
            "{}",
            ran.stderr
        );
        assert!(export(&state).stdout == bytes);
    };
    check(&|baseline| baseline["n_events"] = 1.into());
    check(&|baseline| baseline["n_failed"] = 1_000_000.into());
    check(&|baseline| baseline["first_ms"] = i64::MIN.into());
    check(&|baseline| baseline["last_ms"] = 1_000_000_000_000_000_i64.into());
    check(&|baseline| baseline["hours"][3] = 4_000_000_000_u32.into());
    check(&|baseline| baseline["recent_failures"] = u32::MAX.into());
    check(&|baseline| baseline["ips"][0]["n_events"] = 4_000_000_000_u32.into());
    check(&|baseline| {
        let twice = baseline["ips"][0].clone();
        baseline["ips"].as_array_mut().unwrap().push(twice);
    });
    // Users share nothing with this detector, and a run that finds something does not begin.
    let shared = r#"{"user":"","detector":"classic","version":1,"record_b64":"eA=="}"#;
    let ran = import(&state, shared.as_bytes()).expect_code(2);
    assert!(ran.stderr.contains("line 1 "), "{}", ran.stderr);
    assert!(export(&state).stdout == bytes);
}

/// An import and a verdict go with the checkpoint that they follow: a pipe that goes on there keeps them.
#[test]
fn what_is_imported_belongs_to_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (state, exported) = with_state(folder.path());
    let copy = folder.path().join("copy");
    let label = |checkpoint| Label {
        database: "db".to_owned(),
        checkpoint,
    };
    put(&copy, "classic", "u", b"1", &label(1));
    put(&copy, "classic", "u", b"2", &label(2));
    import(&copy, &export(&state).stdout).expect_code(0);
    let n_users = |copy: &State| {
        let mut n_users = 0;
        let count = copy.baselines(&mut |_, _, _| {
            n_users += 1;
            Ok(ControlFlow::Continue(()))
        });
        count.unwrap();
        n_users
    };
    let copy = State::open(&copy).unwrap();
    let n_exported = n_lines(&exported);
    assert_eq!(copy.roll_back(&label(2)).unwrap(), 0);
    assert_eq!(n_users(&copy), n_exported + 1);
    assert_eq!(copy.roll_back(&label(1)).unwrap(), 2);
    assert_eq!(
        (n_users(&copy), copy.baseline("", "u").unwrap()),
        (1, Some(b"1".to_vec()))
    );
}

/// Killed at any instant, a run has learned all or nothing.
#[test]
fn a_killed_run_leaves_the_old_state_or_the_new_one() {
    let lines = generated(8_000, 15, 49);
    let (first, second) = halves(&lines, lines.len() / 2);
    let folder = tempfile::tempdir().unwrap();
    let (quiet, crashed) = (folder.path().join("quiet"), folder.path().join("crashed"));
    score(&quiet, first).expect_code(0);
    score(&crashed, first).expect_code(0);
    let (old, old_files) = (export(&crashed).stdout, files(&crashed));
    let expected = score(&quiet, second).expect_code(0).stdout;
    let new = export(&quiet).stdout;
    assert!(old != new);

    for n_waits in 0..12_u32 {
        restore(&crashed, &old_files);
        let mut running = Waiting::start(DETECTORS[0], &crashed);
        assert!(running.pass(second) == expected);
        if n_waits == 0 {
            // In the middle: what the lines teach has been put, since no more come for a while.
            assert!(wait_for(|| has_put(&crashed)));
            running.child.kill().unwrap();
        }
        drop(running.child.stdin.take());
        // A different instant each time; any of them has to do.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(n_waits) * 3));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        let left = export(&crashed).expect_code(0).stdout;
        assert!(left == old || left == new && n_waits > 0, "{n_waits}");
        if left == old {
            assert!(score(&crashed, second).expect_code(0).stdout == expected);
            assert!(export(&crashed).stdout == new);
        }
    }
}

/// Records are read when their users come, and all that are left once that pays: as if all had been
/// there from the start.
#[test]
fn a_state_is_read_piece_by_piece() {
    for detector in DETECTORS {
        let lines = generated(12_000, 2_000, 50);
        let (first, second) = halves(&lines, lines.len() / 2);
        let folder = tempfile::tempdir().unwrap();
        let (at_once, pieces) = (folder.path().join("at_once"), folder.path().join("pieces"));
        score_with(detector, &at_once, first).expect_code(0);
        score_with(detector, &pieces, first).expect_code(0);
        let expected = score_with(detector, &at_once, second).expect_code(0).stdout;
        let mut running = Waiting::start(detector, &pieces);
        let mut output = Vec::new();
        let lines: Vec<&[u8]> = second.split_inclusive(|&byte| byte == b'\n').collect();
        for piece in lines.chunks(300) {
            output.extend(running.pass(&piece.concat()));
        }
        drop(running.child.stdin.take());
        assert!(running.child.wait().unwrap().success());
        assert!(output == expected);
        let exported = export(&pieces);
        assert!(exported.stdout == export(&at_once).stdout);
        let users = |line: &&serde_json::Value| line["user"] != "";
        let n_users = exported.json_lines().iter().filter(users).count();
        assert_eq!(n_users, n_users_of(&[first, second].concat()));
    }
}

fn n_users_of(lines: &[u8]) -> usize {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    let user =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["user"].to_string();
    lines.map(user).collect::<BTreeSet<_>>().len()
}

/// A run with a state that waits for more.
struct Waiting {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Waiting {
    fn start(detector: &str, state: &Path) -> Self {
        let mut child = program("sg-score")
            .args(["-q", "--threshold=0.4", detector, "--state"])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Some(BufReader::new(child.stdout.take().unwrap()));
        Self { child, output }
    }

    /// Takes lines through it; what has become of them.
    fn pass(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut input = self.child.stdin.as_ref().unwrap();
        let output = self.output.as_mut().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(lines).unwrap());
            let mut passed = Vec::new();
            for _ in 0..n_lines(lines) {
                output.read_until(b'\n', &mut passed).unwrap();
            }
            passed
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // After a failed test, so that nothing is left running.
        let _ = self.child.kill();
    }
}

/// The log of writes holds baselines. Files come and go while a program runs.
fn has_put(state: &Path) -> bool {
    let entries = std::fs::read_dir(state.join("baselines")).unwrap();
    let paths = entries.flatten().map(|entry| entry.path());
    let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let sizes = logs.filter_map(|path| Some(path.metadata().ok()?.len()));
    sizes.sum::<u64>() > 4_000
}
