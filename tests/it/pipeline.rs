//! What the programs promise together: pipe and fused give the same store, whatever the number
//! of threads and the cuts of the input, and running twice changes nothing.

use std::io::Write;
use std::process::Stdio;

use crate::tools::{DETECTORS, digest, event, event_and, generated, program, run, shell};

#[test]
fn pipe_and_fused_give_the_same_store_for_any_number_of_jobs() {
    for detector in DETECTORS {
        check_pipe_and_fused(detector);
    }
}

fn check_pipe_and_fused(detector: &str) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(30_000, 60, 3)).unwrap();
    let input = input.display();
    let mut digests = Vec::new();
    for jobs in [1, 2, 7] {
        let piped = folder.path().join(format!("piped{jobs}"));
        let fused = folder.path().join(format!("fused{jobs}"));
        shell(&format!(
            "sg-consume -j{jobs} {input} | sg-score {detector} -j{jobs} | sg-store -j{jobs} --db {}",
            piped.display()
        ))
        .expect_code(0);
        shell(&format!(
            "sg-run {detector} -j{jobs} {input} --db {}",
            fused.display()
        ))
        .expect_code(0);
        digests.extend([digest(&piped), digest(&fused)]);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    let stats = run(
        "sg-query",
        &[
            "stats",
            "--db",
            folder.path().join("fused1").to_str().unwrap(),
        ],
        b"",
    );
    let stats = &stats.expect_code(0).json_lines()[0];
    assert_eq!(stats["events"], 30_000);
    let n_anomalies: u64 = ["low", "medium", "high", "critical"]
        .iter()
        .map(|s| stats["anomalies"][s].as_u64().unwrap())
        .sum();
    assert!(n_anomalies > 20, "the comparison needs anomalies: {stats}");
}

#[test]
fn cuts_of_the_input_do_not_show() {
    for detector in DETECTORS {
        check_cuts(detector);
    }
}

fn check_cuts(detector: &str) {
    let lines = generated(12_000, 30, 5);
    let whole = run("sg-score", &["-q", "--threshold=0.3", detector], &lines).expect_code(0);
    assert!(whole.text().contains("\"anomaly\":"));
    for cut in [1_usize, 777, 65_536] {
        let mut child = program("sg-score")
            .args(["-q", "--threshold=0.3", "-j2", detector])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // Cutting every byte would take minutes: the first lines are enough for that.
        let n_small = if cut == 1 { 3_000 } else { lines.len() };
        let lines = lines.clone();
        let writer = std::thread::spawn(move || {
            for piece in lines[..n_small].chunks(cut) {
                input.write_all(piece).unwrap();
            }
            input.write_all(&lines[n_small..]).unwrap();
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.stdout == whole.stdout, "cut {cut} gives other bytes");
    }
}

#[test]
fn a_second_run_changes_nothing() {
    for detector in DETECTORS {
        check_second_run(detector);
    }
}

fn check_second_run(detector: &str) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(10_000, 20, 9)).unwrap();
    let input = input.display();
    let piped = folder.path().join("piped");
    let fused = folder.path().join("fused");
    let report = |db: &std::path::Path| {
        run(
            "sg-store",
            &["verify", "--digest", "--db", db.to_str().unwrap()],
            b"",
        )
        .expect_code(0)
        .stdout
    };
    let pipe = format!(
        "sg-consume {input} | sg-score {detector} | sg-store --db {}",
        piped.display()
    );
    shell(&pipe).expect_code(0);
    let before = report(&piped);
    let again = shell(&pipe).expect_code(0);
    assert!(
        again
            .stderr
            .contains("sg-store: in 10000 = out 0 + rejected 0 + filtered 10000"),
        "{}",
        again.stderr
    );
    assert_eq!(report(&piped), before);

    // A file is known by its position: nothing is read, and nothing learned twice.
    let first = format!("sg-run {detector} {input} --db {}", fused.display());
    shell(&first).expect_code(0);
    let before = report(&fused);
    let again = shell(&first).expect_code(0);
    assert!(again.stderr.contains("in 0 = out 0"), "{}", again.stderr);
    assert_eq!(report(&fused), before);
    // The same events from elsewhere are read, but what is stored stays as it is.
    let content = digest(&fused);
    for command in [
        format!("cat {input} | sg-run {detector} --db {}", fused.display()),
        format!(
            "gzip -c {input} > {input}.gz; sg-run {detector} {input}.gz --db {}",
            fused.display()
        ),
    ] {
        let again = shell(&command).expect_code(0);
        let expected = "in 10000 = out 0 + rejected 0 + filtered 10000";
        assert!(again.stderr.contains(expected), "{}", again.stderr);
        assert_eq!(digest(&fused), content, "{command}");
    }
}

#[test]
fn a_file_that_grows_is_read_on_from_where_it_was() {
    for detector in DETECTORS {
        check_growing_file(detector);
    }
}

fn check_growing_file(detector: &str) {
    let folder = tempfile::tempdir().unwrap();
    let lines = generated(10_000, 20, 11);
    let cut = lines[..lines.len() / 2]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .unwrap()
        + 1;
    let input = folder.path().join("events.ndjson");
    let (at_once, in_two) = (folder.path().join("at_once"), folder.path().join("in_two"));
    let run_into = |db: &std::path::Path| {
        shell(&format!(
            "sg-run {detector} {} --db {}",
            input.display(),
            db.display()
        ))
        .expect_code(0)
    };
    std::fs::write(&input, &lines[..cut]).unwrap();
    run_into(&in_two);
    std::fs::write(&input, &lines).unwrap();
    let second = run_into(&in_two);
    assert!(
        !second.stderr.contains("in 10000"),
        "read from its start: {}",
        second.stderr
    );
    run_into(&at_once);
    let full = |db: &std::path::Path| {
        run(
            "sg-store",
            &["verify", "--digest", "--db", db.to_str().unwrap()],
            b"",
        )
        .expect_code(0)
        .stdout
    };
    assert_eq!(full(&at_once), full(&in_two));
}

/// Each program took one more `\r` off the line.
#[test]
fn white_space_at_the_ends_of_lines_does_not_show() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    let ends = ["\n", "\r\n", "\r\r\n", " \t\n", " \r \r\n", ""];
    let lines: Vec<String> = (0..ends.len())
        .map(|i| event(&format!("e{i}"), "u", i as i64 + 1) + ends[i])
        .collect();
    std::fs::write(&input, lines.concat()).unwrap();
    let (piped, fused) = (folder.path().join("piped"), folder.path().join("fused"));
    let pipe = "sg-consume -q IN | sg-score -q --threshold 0 --min-events 1 | sg-store -q --db";
    let pipe = pipe.replace("IN", input.to_str().unwrap());
    shell(&format!("{pipe} {}", piped.display())).expect_code(0);
    let command = format!(
        "sg-run -q {} --threshold 0 --min-events 1 --db {}",
        input.display(),
        fused.display()
    );
    shell(&command).expect_code(0);
    assert_eq!(digest(&piped), digest(&fused));
    // And through an export, which is a pipe too.
    let again = folder.path().join("again");
    let command = format!(
        "sg-query export --db {} | sg-store -q --db {}",
        fused.display(),
        again.display()
    );
    shell(&command).expect_code(0);
    assert_eq!(digest(&again), digest(&fused));
}

/// What sg-consume lets through must not be too long for the next program.
#[test]
fn a_long_line_that_was_let_in_stays_in() {
    let folder = tempfile::tempdir().unwrap();
    let (input, db) = (folder.path().join("in"), folder.path().join("db"));
    let padding = "x".repeat(2 << 20);
    let line = event_and(&format!(r#""padding":"{padding}""#));
    std::fs::write(&input, line + "\n").unwrap();
    let (input, db) = (input.display(), db.display());
    let command = format!(
        "sg-consume -q --line-bytes-max 8388608 {input} | sg-score | sg-store --db {db} &&
         sg-query export --db {db} | cmp - {input}"
    );
    let ran = shell(&command).expect_code(0);
    assert_eq!(
        ran.stderr.matches("in 1 = out 1").count(),
        2,
        "{}",
        ran.stderr
    );
}

/// A run that found all its events stored kept its baselines, but not whose they are: the next one
/// took them for the classic detector's, and refused to go on.
#[test]
fn a_run_over_what_a_pipe_has_stored_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(2_000, 10, 13)).unwrap();
    for (i, detector) in DETECTORS.into_iter().enumerate() {
        let db = folder.path().join(format!("db{i}"));
        let (shown, input) = (db.display(), input.display());
        let command = format!(
            "sg-score -q {detector} < {input} | sg-store -q --db {shown} &&
             sg-run -q {detector} {input} --db {shown} &&
             sg-run -q {detector} {input} --db {shown}"
        );
        let ran = shell(&command).expect_code(0);
        assert_eq!(ran.stderr, "");
    }
}
