//! What `sg-store` promises of what it writes: nothing twice, everything counted, and passed on
//! only when it is kept.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::database::{SCORE, assert_counts, lines_of, scored, stats, store};
use crate::tools::{digest, event, generated, program, run, shell, wait_for};

#[test]
fn the_same_events_again_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lines = scored(6_000, 12, 51);
    let once = folder.path().join("once");
    store(&once, &lines).expect_code(0);
    assert_counts(&once, &lines);
    let expected = digest(&once);
    let again = store(&once, &lines).expect_code(0);
    assert_eq!(
        again.stderr,
        "sg-store: in 6000 = out 0 + rejected 0 + filtered 6000\n"
    );
    assert_eq!(digest(&once), expected);

    let each_twice: Vec<u8> = lines_of(&lines)
        .iter()
        .flat_map(|line| [*line, *line].concat())
        .collect();
    let all_twice = [&lines[..], &lines[..]].concat();
    let backwards: Vec<u8> = lines_of(&lines)
        .into_iter()
        .rev()
        .flatten()
        .copied()
        .collect();
    let mut interleaved = Vec::new();
    let pieces = lines_of(&lines);
    for (i, line) in pieces.iter().enumerate() {
        interleaved.extend_from_slice(line);
        interleaved.extend_from_slice(pieces[i / 2]);
    }
    for (name, input) in [
        ("each_twice", each_twice),
        ("all_twice", all_twice),
        ("backwards", backwards),
        ("interleaved", interleaved),
    ] {
        let db = folder.path().join(name);
        store(&db, &input).expect_code(0);
        assert_eq!(digest(&db), expected, "{name}");
    }
}

#[test]
fn the_first_of_two_events_of_one_key_stays() {
    let folder = tempfile::tempdir().unwrap();
    let first = event("e", "alice", 5);
    let anomaly = |user: &str| {
        format!(
            r#"{{"event_id":"e","user":"{user}","timestamp":5,"anomaly_score":0.8,"severity":"high","reasons":[]}}"#
        )
    };
    let with_anomaly = |line: &str, user: &str| {
        let bare = line.strip_suffix('}').unwrap();
        format!("{bare},\"anomaly\":{}}}", anomaly(user))
    };
    let others_plain = event("e", "mallory", 5);
    let others = with_anomaly(&others_plain, "mallory");
    for (i, (input, n_anomalies)) in [
        (vec![&first, &others_plain], 0),
        // An anomaly of another user's event is none of this one.
        (vec![&first, &others], 0),
        (vec![&first, &with_anomaly(&first, "mallory")], 0),
        // What is stored stays as it is.
        (vec![&first, &with_anomaly(&first, "alice")], 0),
        (vec![&with_anomaly(&first, "alice"), &others], 1),
    ]
    .into_iter()
    .enumerate()
    {
        for in_two_runs in [false, true] {
            let db = folder.path().join(format!("db{i}{in_two_runs}"));
            let lines: Vec<String> = input.iter().map(|line| format!("{line}\n")).collect();
            if in_two_runs {
                for line in &lines {
                    store(&db, line.as_bytes()).expect_code(0);
                }
            } else {
                store(&db, lines.concat().as_bytes()).expect_code(0);
            }
            let stats = stats(&db);
            assert_eq!(stats["events"], 1);
            assert_eq!(stats["anomalies"]["high"], n_anomalies, "{lines:?}");
            digest(&db);
            let ran = run(
                "sg-query",
                &["event", "e", "--db", db.to_str().unwrap()],
                b"",
            );
            assert_eq!(ran.expect_code(0).json_lines()[0]["user"], "alice");
        }
    }
}

#[test]
fn scoring_again_brings_anomalies_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generated(6_000, 12, 53);
    let strict = run("sg-score", &SCORE, &lines).expect_code(0).stdout;
    let args = [
        "-q",
        "--threshold=0.3",
        "--min-events=20",
        "--severities=0.4,0.5,0.6",
    ];
    let loose = run("sg-score", &args, &lines).expect_code(0).stdout;
    let fresh = folder.path().join("fresh");
    store(&fresh, &loose).expect_code(0);
    for (name, before) in [("raw", &lines), ("strict", &strict)] {
        let db = folder.path().join(name);
        store(&db, before).expect_code(0);
        let digest_before = digest(&db);
        // What is stored stays, unless it is asked for.
        store(&db, &loose).expect_code(0);
        assert_eq!(digest(&db), digest_before, "after {name}");
        let rescore = |lines: &[u8]| {
            run(
                "sg-store",
                &["--rescore", "--db", db.to_str().unwrap()],
                lines,
            )
            .expect_code(0);
        };
        rescore(&loose);
        assert_counts(&db, &loose);
        assert_eq!(digest(&db), digest(&fresh), "after {name}");
        // Lines without a score say nothing of the score.
        rescore(&lines);
        assert_eq!(digest(&db), digest(&fresh), "after {name}");
    }
}

#[test]
fn tee_passes_every_line_on_once_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = scored(3_000, 6, 55);
    let args = ["--tee", "--db", db.to_str().unwrap()];
    for _ in 0..2 {
        let ran = run("sg-store", &args, &lines).expect_code(0);
        assert!(ran.stdout == lines);
    }
    assert_counts(&db, &lines);
    // So does sg-run, which scores them first.
    let events = generated(3_000, 6, 55);
    let fused = folder.path().join("fused");
    let args = [&SCORE[..], &["--tee", "--db", fused.to_str().unwrap()]].concat();
    let ran = run("sg-run", &args, &events).expect_code(0);
    assert!(ran.stdout == lines);
    assert_eq!(digest(&fused), digest(&db));

    // What a reader has seen is there, whatever happens next.
    let db = folder.path().join("killed");
    let mut child = program("sg-store")
        .args(["-q", "--tee", "--db", db.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for i in 0..20 {
        writeln!(input, "{}", event(&format!("e{i}"), "u", i)).unwrap();
        output.read_line(&mut line).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line.lines().count(), 20);
    digest(&db);
    assert_eq!(stats(&db)["events"], 20);
    // A reader that leaves ends it quietly.
    let command = format!(
        "sg-gen --events 100000 --users 9 | sg-store --tee --db {} | head -1 | wc -l",
        folder.path().join("left").display()
    );
    let ran = shell(&command).expect_code(0);
    assert_eq!((ran.text(), ran.stderr.as_str()), ("1\n", ""));
    digest(&folder.path().join("left"));
}

/// Both learn the second of two equal events, and store the first.
#[test]
fn events_that_come_twice_in_a_row_are_the_same_for_pipe_and_fused() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    let lines = generated(60_000, 40, 75);
    let twice: Vec<u8> = lines_of(&lines)
        .iter()
        .enumerate()
        .flat_map(|(i, line)| line.repeat(if i % 500 == 0 { 2 } else { 1 }))
        .collect();
    std::fs::write(&input, &twice).unwrap();
    let (piped, fused) = (folder.path().join("piped"), folder.path().join("fused"));
    let shown = input.display();
    shell(&format!(
        "sg-score -q --threshold 0.5 < {shown} | sg-store -q --db {}",
        piped.display()
    ))
    .expect_code(0);
    shell(&format!(
        "sg-run -q --threshold 0.5 {shown} --db {}",
        fused.display()
    ))
    .expect_code(0);
    assert_eq!(digest(&piped), digest(&fused));
    assert_eq!(stats(&fused)["events"], 60_000);
}

/// Events that come again while those before them are on their way to the disk, in several large writes.
#[test]
fn what_comes_again_amid_a_large_write_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generated(120_000, 40, 52);
    let pieces: Vec<&[u8]> = lines_of(&lines);
    let twice: Vec<u8> = pieces
        .chunks(2_000)
        .flat_map(|chunk| [chunk.concat(), chunk.concat()].concat())
        .collect();
    let (once, again) = (folder.path().join("once"), folder.path().join("again"));
    store(&once, &lines).expect_code(0);
    let ran = store(&again, &twice).expect_code(0);
    assert_eq!(
        ran.stderr,
        "sg-store: in 240000 = out 120000 + rejected 0 + filtered 120000\n"
    );
    assert_counts(&again, &lines);
    assert_eq!(digest(&again), digest(&once));
}

/// A large write fails while the next events are gathered: it is said, and nothing counts as stored.
#[test]
fn a_large_write_that_fails_ends_it_and_another_run_stores_all() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = generated(120_000, 40, 53);
    let mut child = program("sg-store")
        .args(["--db", db.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let (first, rest) = lines.split_at(lines_of(&lines)[0].len());
    input.write_all(first).unwrap();
    let events = ["events", "--db", db.to_str().unwrap()];
    assert!(wait_for(|| run("sg-query", &events, b"").stdout == first));
    // Where its files would be built.
    std::fs::write(db.join("bulk"), "in the way").unwrap();
    // It may be gone before it has read all.
    let _ = input.write_all(rest);
    drop(input);
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot make the folder"), "{stderr}");
    std::fs::remove_file(db.join("bulk")).unwrap();
    store(&db, &lines).expect_code(0);
    assert_counts(&db, &lines);
}
