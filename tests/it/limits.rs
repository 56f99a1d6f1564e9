//! How long a line may be, and what becomes of a longer one.

use std::io::Write;
use std::process::Stdio;

use crate::tools::{Ran, event, event_and, program, run};

/// An event of exactly that many bytes.
fn event_of(n_bytes: usize) -> String {
    let empty = event_and("\"other\":\"\"");
    event_and(&format!(
        "\"other\":\"{}\"",
        "x".repeat(n_bytes - empty.len())
    ))
}

#[track_caller]
fn expect_counts(ran: &Ran, counts: &str) {
    assert!(
        ran.stderr.contains(&format!("sg-consume: {counts}")),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_limit_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    // 4 + 256 KiB bytes are what the first two reads of a file bring: the limits around that
    // show whether the cut between a line and its end is seen.
    for (limit, args) in [
        (1 << 20, &[][..]),
        (100, &["--line-bytes-max", "100"]),
        (262_146, &["--line-bytes-max", "262146"]),
        (262_147, &["--line-bytes-max", "262147"]),
        (262_148, &["--line-bytes-max", "262148"]),
        (3_000_000, &["--line-bytes-max", "3000000"]),
    ] {
        for end in ["\n", "\r\n", ""] {
            let fits = event_of(limit);
            std::fs::write(&file, format!("{fits}{end}")).unwrap();
            let args = [args, &[file.to_str().unwrap()]].concat();
            let ran = run("sg-consume", &args, b"");
            expect_counts(&ran, "in 1 = out 1 + rejected 0 + filtered 0");
            let end = if end.is_empty() { "\n" } else { end };
            assert!(ran.stdout == format!("{fits}{end}").as_bytes());
            assert_eq!(ran.code, 0);

            std::fs::write(&file, format!("{}{end}", event_of(limit + 1))).unwrap();
            let ran = run("sg-consume", &args, b"");
            let counts = "in 1 = out 0 + rejected 1 + filtered 0 (rejected: line_too_long 1)";
            expect_counts(&ran, counts);
            assert_eq!((ran.text(), ran.code), ("", 1));
        }
    }
    for wrong in ["0", "-1", "x", "1MiB", "536870913"] {
        let ran = run("sg-consume", &["--line-bytes-max", wrong], b"");
        assert_eq!(ran.code, 2, "{wrong}");
    }
}

#[test]
fn the_reason_does_not_depend_on_where_reads_cut_a_line() {
    // Invalid UTF-8 and too long: short enough for one read, and longer than it.
    for n_bytes in [200, 2 << 20] {
        let line = [vec![0xFF; n_bytes], vec![b'\n']].concat();
        let ran = run("sg-consume", &["--line-bytes-max", "100"], &line);
        let counts = "in 1 = out 0 + rejected 1 + filtered 0 (rejected: line_too_long 1)";
        expect_counts(&ran, counts);
    }
}

#[test]
fn a_huge_line_spares_its_neighbours_and_the_memory() {
    const HUGE: usize = 200 << 20;
    let mut child = program("sg-consume")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}", event("before", "u", 1)).unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..HUGE >> 20 {
        input.write_all(&piece).unwrap();
    }
    writeln!(input, "\n{}", event("after", "u", 2)).unwrap();
    // Nearly all of it has been read: the pipe holds a MiB at the most.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak_kib: usize = peak.unwrap().parse().unwrap();
    assert!(peak_kib < 100 << 10, "{peak_kib} KiB for one line");
    drop(input);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.ends_with("in 3 = out 2 + rejected 1 + filtered 0 (rejected: line_too_long 1)\n"),
        "{stderr}"
    );
    let expected = format!("{}\n{}\n", event("before", "u", 1), event("after", "u", 2));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(output.status.code(), Some(1));
}
