//! What `sg-score --state` promises: baselines outlive the run, whole or not at all.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::tools::{DETECTORS, Ran, event, generated, program, run};

const FILE: &str = "baselines.sg";

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

/// A folder in which a run has left baselines, and the bytes of its file.
fn with_state(folder: &Path) -> (PathBuf, Vec<u8>) {
    let state = folder.join("state");
    // Nothing but users: with incidents the file would begin with what they share.
    let option = format!("--state={}", state.display());
    let args = ["-q", "--threshold=0.4", "--suppress=0", &option];
    run("sg-score", &args, &generated(3_000, 9, 41)).expect_code(0);
    let bytes = std::fs::read(state.join(FILE)).unwrap();
    (state, bytes)
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

#[test]
fn an_empty_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    score(&state, b"").expect_code(0);
    assert!(std::fs::read(state.join(FILE)).unwrap() == bytes);
}

/// The commands fail with one line that holds `words`, and leave the file as it is.
#[track_caller]
fn check_refused(state: &Path, words: &str) {
    let before = std::fs::read(state.join(FILE)).ok();
    let input = event("e", "u", 1);
    for ran in [
        score(state, input.as_bytes()),
        export(state),
        import(state, b""),
    ] {
        let ran = ran.expect_code(2);
        assert_eq!(ran.text(), "", "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("sg-score: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    assert!(std::fs::read(state.join(FILE)).ok() == before);
}

#[test]
fn damaged_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let path = state.join(FILE);
    for n_bytes in [0, 3, 5, 6, 20, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n_bytes]).unwrap();
        check_refused(&state, "baselines.sg cannot be used: it");
    }
    // One bit in the magic, the detector's name, a count, a name, a record, the sum.
    for at in [0, 3, 12, 18, 30, bytes.len() / 2, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        check_refused(&state, "baselines.sg cannot be used: it");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    std::fs::write(&path, &longer).unwrap();
    check_refused(&state, "its checksum is wrong");
    std::fs::write(&path, &bytes).unwrap();
    score(&state, b"").expect_code(0);
}

/// The same file with another header or record, and the sum that goes with it.
fn with_sum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 4);
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn state_of_other_releases_and_detectors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let check = |at: usize, byte: u8, words: &str| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        std::fs::write(state.join(FILE), with_sum(bytes)).unwrap();
        check_refused(&state, words);
    };
    assert_eq!(&bytes[..4], b"SGBL");
    check(4, 2, "it has version 2, this build reads up to 1");
    check(4, 0, "it has version 0");
    assert_eq!(&bytes[10..17], b"classic");
    check(10, b'x', "of the xlassic detector");
    // Magic, version, name, number of users, then the first user and its record.
    let user_bytes = usize::from(bytes[25]);
    let record = 29 + user_bytes + 4;
    assert_eq!(&bytes[29..29 + user_bytes], b"user00000");
    check(
        record,
        9,
        "baseline has version 9, this build reads version 1",
    );
    check(record - 1, 0xFF, "field of");
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
    let mut output = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::Write::write_all(&mut input, (event("e", "u", 1) + "\n").as_bytes()).unwrap();
    std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
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
    assert!(std::fs::read(original.join(FILE)).unwrap() == std::fs::read(copy.join(FILE)).unwrap());
    let expected = score(&original, second).expect_code(0).stdout;
    assert!(score(&copy, second).expect_code(0).stdout == expected);
    // Twice is once, and users that an import does not name stay.
    let exported = export(&copy).stdout;
    let one_line = exported.split_inclusive(|&byte| byte == b'\n').next();
    import(&copy, one_line.unwrap()).expect_code(0);
    assert!(export(&copy).stdout == exported);
    // Nothing to export is like nothing found.
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(export(&empty).expect_code(1).text(), "");
}

#[test]
fn an_import_of_garbage_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let exported = export(&state).expect_code(0).stdout;
    let exported = String::from_utf8(exported).unwrap();
    let good = exported.lines().next().unwrap();
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
        assert!(std::fs::read(state.join(FILE)).unwrap() == bytes);
    }
    let ran = import(&state, b"\xff\xfe\n").expect_code(2);
    assert!(ran.stderr.contains("cannot read"), "{}", ran.stderr);
    assert!(std::fs::read(state.join(FILE)).unwrap() == bytes);
}

/// Exported baselines are edited by hand: one that no history can have led to would give scores
/// outside 0..=1.
#[test]
fn an_import_of_impossible_counts_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, bytes) = with_state(folder.path());
    let good = export(&state).expect_code(0).json_lines().remove(0);
    let check = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut line = good.clone();
        edit(&mut line["baseline"]);
        let ran = import(&state, line.to_string().as_bytes()).expect_code(2);
        assert!(
            ran.stderr.contains("line 1 ") && ran.stderr.contains("nothing was changed"),
            "{}",
            ran.stderr
        );
        assert!(std::fs::read(state.join(FILE)).unwrap() == bytes);
    };
    check(&|baseline| baseline["n_events"] = 1.into());
    check(&|baseline| baseline["n_failed"] = 1_000_000.into());
    check(&|baseline| baseline["hours"][3] = 4_000_000_000_u32.into());
    check(&|baseline| baseline["recent_failures"] = u32::MAX.into());
    check(&|baseline| baseline["ips"][0]["n_events"] = 4_000_000_000_u32.into());
    check(&|baseline| {
        let twice = baseline["ips"][0].clone();
        baseline["ips"].as_array_mut().unwrap().push(twice);
    });
}

/// A crash while saving leaves what was there, and perhaps a half-written file beside it.
#[test]
fn a_crash_while_saving_leaves_the_old_state() {
    let lines = generated(8_000, 15, 49);
    let (first, second) = halves(&lines, lines.len() / 2);
    let folder = tempfile::tempdir().unwrap();
    let (quiet, crashed) = (folder.path().join("quiet"), folder.path().join("crashed"));
    score(&quiet, first).expect_code(0);
    score(&crashed, first).expect_code(0);
    let old = std::fs::read(crashed.join(FILE)).unwrap();
    let rest = crashed.join(format!("{FILE}.new"));
    std::fs::write(&rest, &old[..old.len() / 2]).unwrap();
    let expected = score(&quiet, second).expect_code(0).stdout;
    let new = std::fs::read(quiet.join(FILE)).unwrap();
    assert!(score(&crashed, second).expect_code(0).stdout == expected);
    assert!(!rest.exists());

    // Killed at the end of its input, where it saves: the file is the old one or the new one.
    for n_waits in 0..12_u32 {
        std::fs::write(crashed.join(FILE), &old).unwrap();
        let mut child = program("sg-score")
            .args([
                "-q",
                "--threshold=0.4",
                "--state",
                crashed.to_str().unwrap(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, second).unwrap();
        drop(input);
        // A different instant each time; any of them has to do.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(n_waits)));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap().unwrap();
        let left = std::fs::read(crashed.join(FILE)).unwrap();
        assert!(left == old || left == new, "after {n_waits} ms");
        export(&crashed).expect_code(0);
    }
}
