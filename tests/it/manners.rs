//! How the programs end, and what they read: exit codes, counts, signals, closed pipes, files.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use rustix::process::Signal;

use crate::tools::{Running, event, generated, n_lines, program, run, shell, wait_for};

const PROGRAMS: [&str; 8] = [
    "sg-analyze",
    "sg-consume",
    "sg-embed",
    "sg-gen",
    "sg-query",
    "sg-run",
    "sg-score",
    "sg-store",
];

#[test]
fn help_and_version_go_to_stdout_and_wrong_usage_to_stderr() {
    for name in PROGRAMS {
        for flag in ["--help", "-h", "--version"] {
            let ran = run(name, &[flag], b"");
            assert_eq!((ran.code, &*ran.stderr), (0, ""), "{name} {flag}");
            assert!(ran.text().contains(name), "{}", ran.text());
        }
        let version = run(name, &["--version"], b"");
        assert_eq!(
            version.text(),
            format!("{name} {}\n", env!("CARGO_PKG_VERSION"))
        );
        let ran = run(name, &["--no-such-flag"], b"");
        assert_eq!((ran.code, ran.text()), (2, ""), "{name}");
        assert!(ran.stderr.contains("--no-such-flag"), "{}", ran.stderr);
    }
}

#[test]
fn counts_add_up_and_the_code_says_how_it_went() {
    let good = event("e", "u", 1);
    for (input, counts, code) in [
        ("", "in 0 = out 0 + rejected 0 + filtered 0", 0),
        ("\n\n", "in 2 = out 0 + rejected 0 + filtered 2", 0),
        ("@\n\n@", "in 3 = out 2 + rejected 0 + filtered 1", 0),
        (
            "x",
            "in 1 = out 0 + rejected 1 + filtered 0 (rejected: invalid_json 1)",
            1,
        ),
        (
            "@\nx\n\n[]\n@\n{}\n7\n",
            "in 7 = out 2 + rejected 4 + filtered 1 \
             (rejected: invalid_json 1, not_an_object 2, missing_field 1)",
            1,
        ),
    ] {
        let input = input.replace('@', &good);
        let ran = run("sg-consume", &[], input.as_bytes());
        let summary = ran.stderr.lines().last().unwrap_or_default();
        assert_eq!(summary, format!("sg-consume: {counts}"));
        assert_eq!(ran.code, code);
        let quiet = run("sg-consume", &["-q"], input.as_bytes());
        // What is lost is told all the same, what was done is not.
        let (reasons, _) = ran.stderr.rsplit_once("sg-consume: in ").unwrap();
        assert_eq!((quiet.code, &*quiet.stderr), (code, reasons));
        assert_eq!(quiet.stdout, ran.stdout);
    }
    // Many rejects are not explained one by one.
    let ran = run("sg-consume", &[], "x\n".repeat(1000).as_bytes());
    assert!(ran.stderr.lines().count() < 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("in 1000 = out 0 + rejected 1000"));
}

/// A reason must not repeat the line: it is shown on terminals.
#[test]
fn hostile_text_does_not_reach_the_terminal() {
    let line = "{\"event_id\":\"\u{1b}[2J\",\u{1b}]0;x\u{7}";
    let ran = run("sg-consume", &[], line.as_bytes());
    assert_eq!(ran.code, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\u{1b}[2Jb");
    fs::write(&path, line).unwrap();
    let named = run("sg-consume", &[path.to_str().unwrap()], b"");
    assert!(
        named.stderr.contains("a<001B>[2Jb:1: rejected"),
        "{}",
        named.stderr
    );
    let missing = run("sg-consume", &["/none\u{1b}[2J"], b"");
    assert_eq!(missing.code, 2);
    for ran in [ran, named, missing] {
        let bytes = ran.stderr.bytes().filter(|&byte| byte != b'\n');
        assert!(
            !bytes.into_iter().any(|byte| byte < b' '),
            "{:?}",
            ran.stderr
        );
    }
}

#[test]
fn strict_stops_at_the_first_reject() {
    let folder = tempfile::tempdir().unwrap();
    let good = format!("{}\n", event("e", "u", 1));
    let long = "x".repeat(5_000_000);
    for (i, bad) in ["no", "\u{1}", &long].into_iter().enumerate() {
        let dead = folder.path().join(format!("dead{i}"));
        let dead = dead.to_str().unwrap();
        let input = format!("{good}\n{good}{bad}\n{good}more\n");
        let ran = run(
            "sg-consume",
            &["--strict", "--dead-letter", dead],
            input.as_bytes(),
        );
        assert_eq!(ran.code, 2);
        assert!(ran.text() == good.repeat(2), "bad line {i}");
        assert!(
            ran.stderr
                .ends_with("sg-consume: stopped at the first rejected line, as --strict asks\n"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("-:4: rejected, "), "{}", ran.stderr);
        // Only that line is kept, and all of it: with the usual limit it is one reject again.
        let replayed = run("sg-consume", &["--replay", dead], b"");
        assert!(
            replayed
                .stderr
                .contains("in 1 = out 0 + rejected 1 + filtered 0"),
            "{}",
            replayed.stderr
        );
    }
    let ran = run("sg-consume", &["--strict"], good.as_bytes());
    assert_eq!((ran.code, ran.text()), (0, &*good));
}

#[test]
fn a_reader_that_goes_away_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    fs::write(&input, generated(100_000, 50, 2)).unwrap();
    let input = input.display();
    for command in [
        format!("sg-consume {input}"),
        format!("sg-consume < {input}"),
        format!("sg-consume --dead-letter {input}.dead {input} {input}"),
        format!("sg-score {input}").replace(&format!(" {input}"), &format!(" < {input}")),
        "sg-gen --events 100000".to_owned(),
        "sg-gen --events 100000 --per-second 1000".to_owned(),
    ] {
        // The codes of both are in the pipe status: a signal would be more than 128.
        let ran = shell(&format!(
            "timeout -s KILL 20 {command} | head -1; echo ${{PIPESTATUS[@]}}"
        ));
        let lines: Vec<&str> = ran.text().lines().collect();
        assert_eq!(lines.len(), 2, "{command}: {}", ran.stderr);
        assert_eq!(lines[1], "0 0", "{command}: {}", ran.stderr);
        assert_eq!(ran.stderr, "", "{command}");
    }
    let ran = shell(&format!(
        "timeout -s KILL 20 sg-consume {input} > /dev/full"
    ));
    assert_eq!(
        ran.stderr,
        "sg-consume: cannot write to standard output: No space left on device (os error 28)\n"
    );
    assert_eq!(ran.code, 2);
}

#[test]
fn sigterm_ends_an_idle_run_and_keeps_what_came() {
    let line = format!("{}\n", event("e", "u", 1));
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start("sg-consume", &[]);
        let mut input = running.stdin.take().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        running.expect_stdout(&line);
        input.write_all(line.trim_end().as_bytes()).unwrap();
        running.signal(signal);
        // Standard input stays open; what stands in it without an end is a line too.
        let ran = running.end();
        assert_eq!(ran.text(), line.repeat(2));
        assert_eq!(
            ran.stderr,
            "sg-consume: in 2 = out 2 + rejected 0 + filtered 0\n"
        );
        assert_eq!(ran.code, 0);
        drop(input);
    }
}

/// A stop within a compressed file looked like a truncated one, and a replay did not stop.
#[test]
fn sigterm_within_a_file_ends_it_at_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let events = generated(60_000, 50, 4);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), &events).unwrap();
    shell(&format!(
        "cd {} && gzip -1 -k plain && zstd -q plain && \
         sg-consume -q plain --line-bytes-max 10 --dead-letter dead; true",
        folder.path().display()
    ))
    .expect_code(0);
    let paths = ["plain", "plain.gz", "plain.zst", "dead"].map(path);
    for args in [
        &[&*paths[0]][..],
        &[&*paths[1]],
        &[&*paths[2]],
        &["--replay", &*paths[3]],
    ] {
        let mut child = program("sg-consume")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = vec![0; 1000];
        stdout.read_exact(&mut output).unwrap();
        // Nobody reads on until it has been asked to stop, so it cannot have come far.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        stdout.read_to_end(&mut output).unwrap();
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {stderr}");
        assert!(output.len() < events.len(), "{args:?} was not stopped");
        assert!(events.starts_with(&output), "{args:?}");
        assert!(output.ends_with(b"\n"), "{args:?}");
        let n_out = n_lines(&output);
        assert_eq!(
            stderr,
            format!("sg-consume: in {n_out} = out {n_out} + rejected 0 + filtered 0\n")
        );
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    // More input keeps coming, so the first signal alone would wait for its end.
    let mut running = Running::start("sg-consume", &["-q"]);
    let mut input = running.stdin.take().unwrap();
    let line = format!("{}\n", event("e", "u", 1));
    input.write_all(line.as_bytes()).unwrap();
    running.expect_stdout(&line);
    running.signal(Signal::TERM);
    let has_ended = wait_for(|| {
        running.signal(Signal::TERM);
        running.has_ended()
    });
    assert!(has_ended);
    let code = running.end().code;
    assert!(code == 143 || code == 0, "{code}");
}

/// `timeout` sends its signal twice at once, and a program under it was killed in the middle of its work.
#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start("sg-consume", &[]);
        let line = format!("{}\n", event("e", "u", 1));
        let input = running.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        running.expect_stdout(&line);
        running.signal(signal);
        running.signal(signal);
        let ran = running.end().expect_code(0);
        assert!(ran.stderr.contains("in 1 = out 1 "), "{}", ran.stderr);
    }
}

/// Files by name and content.
#[track_caller]
fn check_files(files: &[(&str, Vec<u8>)], args: &str, expected: &[&str], stderr: &str, code: i32) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let folder = folder.path().display();
    let ran = shell(&format!("cd {folder} && mkdir folder && sg-consume {args}"));
    let ids: Vec<String> = ran
        .json_lines()
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, expected, "{args}: {}", ran.stderr);
    assert!(ran.stderr.contains(stderr), "{args}: {}", ran.stderr);
    assert_eq!(ran.code, code, "{args}: {}", ran.stderr);
}

#[test]
fn inputs_are_files_patterns_and_stdin() {
    let line = |id: &str| format!("{}\n", event(id, "u", 1)).into_bytes();
    let files = [
        ("b.ndjson", line("b")),
        ("a.ndjson", line("a")),
        ("c.ndjson", line("c")[..20].to_vec()),
        ("d[1].ndjson", line("d")),
        ("stdin", line("s")),
        ("empty", Vec::new()),
    ];
    let good = "in 2 = out 2 + rejected 0 + filtered 0";
    for (args, expected, stderr, code) in [
        ("b.ndjson a.ndjson", &["b", "a"][..], good, 0),
        ("'[ab].ndjson'", &["a", "b"], good, 0),
        ("'b*' 'a*'", &["b", "a"], good, 0),
        ("'./*.ndjson'", &["a", "b", "d"], "rejected 1", 1),
        ("'d[1].ndjson'", &["d"], "in 1 = out 1", 0),
        // A file once, by whatever name.
        ("a.ndjson ./a.ndjson 'a*'", &["a"], "in 1 = out 1", 0),
        ("empty a.ndjson empty", &["a"], "in 1 = out 1", 0),
        ("< stdin", &["s"], "in 1 = out 1", 0),
        ("- < stdin", &["s"], "in 1 = out 1", 0),
        (
            "b.ndjson - a.ndjson < stdin",
            &["b", "s", "a"],
            "in 3 = out 3",
            0,
        ),
        ("<(cat b.ndjson) <(cat a.ndjson)", &["b", "a"], good, 0),
        (
            "a.ndjson none b.ndjson",
            &["a", "b"],
            "cannot read none: No such file",
            2,
        ),
        (
            "a.ndjson folder b.ndjson",
            &["a", "b"],
            "cannot read folder: is a directory",
            2,
        ),
        ("none c.ndjson", &[], "in 1 = out 0 + rejected 1", 2),
        // A wrong pattern is found before anything is read.
        ("a.ndjson 'x*'", &[], "no file matches x*", 2),
        ("a.ndjson '***'", &[], "invalid pattern ***", 2),
    ] {
        check_files(&files, args, expected, stderr, code);
    }
}

#[test]
fn compressed_files_may_be_cut_off_or_damaged() {
    let lines: Vec<u8> = (0..20_000)
        .flat_map(|i| format!("{}\n", event(&format!("e{}", i * 7919), "u", i)).into_bytes())
        .collect();
    let compress = |command: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        fs::write(&path, &lines).unwrap();
        shell(&format!("{command} < {}", path.display()))
            .expect_code(0)
            .stdout
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    for compressed in [compress("gzip -c"), compress("zstd -c")] {
        let consume = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            run("sg-consume", &[path.to_str().unwrap()], b"")
        };
        let whole = consume(&compressed).expect_code(0);
        assert!(whole.stdout == lines);
        // Members and frames one after the other are one stream.
        let twice = consume(&[&*compressed, &*compressed].concat()).expect_code(0);
        assert!(twice.stdout == [&*lines, &*lines].concat());
        let n_bytes = compressed.len();
        for n_left in [n_bytes - 1, n_bytes * 3 / 4, n_bytes / 2, 20, 5, 4] {
            let ran = consume(&compressed[..n_left]);
            assert_eq!(ran.code, 2, "{n_left} of {n_bytes}: {}", ran.stderr);
            assert!(ran.stderr.contains("cannot read on in "), "{}", ran.stderr);
            assert!(lines.starts_with(&ran.stdout));
            // A zstd block is up to 128 KiB of text.
            let n_expected = (lines.len() * n_left / n_bytes).saturating_sub(300 << 10);
            assert!(ran.stdout.len() >= n_expected, "{n_left} of {n_bytes}");
            let n_out = n_lines(&ran.stdout);
            let counts = format!("in {n_out} = out {n_out} + rejected 0 + filtered 0\n");
            assert!(ran.stderr.ends_with(&counts), "{}", ran.stderr);
        }
        // Damage in the middle: an error, or wrong lines, which are rejected; not a crash.
        let mut damaged = compressed.clone();
        damaged[n_bytes / 2] ^= 0x55;
        let ran = consume(&damaged);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        let garbage = consume(&[&compressed, &b"garbage"[..]].concat());
        assert!(garbage.stdout == lines, "{}", garbage.stderr);
    }
    // Too short to be compressed, whatever it begins with.
    for bytes in [&b"\x1F"[..], b"\x28\xB5\x2F"] {
        fs::write(&path, bytes).unwrap();
        let ran = run("sg-consume", &[path.to_str().unwrap()], b"");
        assert_eq!(ran.code, 1, "{}", ran.stderr);
    }
}

/// A script has the exit code; a person would be left to wonder.
#[test]
fn a_person_is_told_that_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().display();
    shell(&format!(
        "cd {shown} && sg-gen --events 10 | sg-store -q --db db"
    ))
    .expect_code(0);
    for (question, words) in [
        ("event nosuch", "sg-query: there is no event nosuch"),
        ("user nosuch", "sg-query: there is no event of user nosuch"),
        ("events --user nosuch", "sg-query: nothing found"),
    ] {
        let question = format!("sg-query {question} --db {shown}/db");
        let ran = shell(&format!("script -qec '{question} > /dev/null' /dev/null"));
        assert_eq!(
            (ran.code, ran.text().trim_end()),
            (1, words),
            "{}",
            ran.stderr
        );
        let ran = shell(&question);
        assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", ""));
    }
}

#[test]
fn a_server_that_is_refused_leaves_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, words) in [
        (
            &["--serve", "0.0.0.0:0"][..],
            "name a file of them with --keys",
        ),
        (&["--serve", &taken], "cannot listen on 127.0.0.1:"),
        (
            &["--serve", "127.0.0.1:0", "--keys", "none"],
            "cannot read the keys in none",
        ),
        (
            &["--serve", "127.0.0.1:0", "--tls-cert", "none"],
            "name both",
        ),
        (&["--keys", "none"], "--serve <ADDRESS:PORT>"),
    ] {
        let args = [&["--db", db.to_str().unwrap()], args].concat();
        let ran = run("sg-run", &args, b"").expect_code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert!(!db.exists(), "{args:?}");
    }
}
