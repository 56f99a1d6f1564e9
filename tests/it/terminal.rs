//! What a terminal shows of long work: a line at its end that leaves no trace, and only there. The terminals
//! are real ones, made by `script`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::{Ran, event, generated, run, shell};

/// Without it they are 0 columns wide.
const SIZE: &str = "stty cols 100 rows 30";

/// Runs a line of shell at a terminal; what came there is the standard output.
fn at_terminal(line: &str) -> Ran {
    let line = format!("{SIZE}; {line}").replace('\'', r"'\''");
    shell(&format!("TERM=xterm script -qec '{line}' /dev/null"))
}

/// What a terminal shows in the end, line by line, of bytes that came there.
fn screen(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let line: &mut Vec<char> = &mut lines[row];
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(characters.next(), Some('['), "{text:?}");
                let mut digits = String::new();
                let command = loop {
                    match characters.next().unwrap() {
                        digit @ '0'..='9' => digits.push(digit),
                        command => break command,
                    }
                };
                match (command, &digits[..]) {
                    ('K', "2") => line.clear(),
                    ('K', "" | "0") => line.truncate(column),
                    ('A', up) => row -= up.parse().unwrap_or(1),
                    ('B', down) => {
                        row += down.parse().unwrap_or(1);
                        lines.resize(lines.len().max(row + 1), Vec::new());
                    }
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            character => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
    }
    let shown = lines.into_iter().map(|line| line.into_iter().collect());
    let shown = shown.map(|line: String| line.trim_end().to_owned());
    shown.filter(|line| !line.is_empty()).collect()
}

/// Whether a line about work was there at some time.
fn has_line(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains("] ") && text.contains(" left") || text.contains(" events, ")
}

fn files(folder: &Path) -> (String, String) {
    let input = folder.join("events");
    let mut lines = generated(20_000, 20, 7);
    for number in 0..9 {
        lines.extend_from_slice(format!("nonsense {number}\n").as_bytes());
    }
    fs::write(&input, lines).unwrap();
    let zstd = folder.join("events.zst");
    let packed = zstd::encode_all(&generated(20_000, 20, 9)[..], 1).unwrap();
    fs::write(&zstd, packed).unwrap();
    (input.display().to_string(), zstd.display().to_string())
}

#[test]
fn a_line_shows_how_far_work_is_and_goes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (input, zstd) = files(folder.path());
    let db = folder.path().join("db").display().to_string();
    let to = folder.path().join("backups").display().to_string();
    let restored = folder.path().join("restored").display().to_string();
    let check = |line: &str, code: i32, expected: &[&str]| {
        let ran = at_terminal(line).expect_code(code);
        assert!(has_line(&ran.stdout), "{line}: {:?}", ran.text());
        let shown = screen(&ran.stdout);
        assert_eq!(shown.len(), expected.len(), "{line}: {shown:?}");
        for (shown, expected) in shown.iter().zip(expected) {
            assert!(shown.starts_with(expected), "{line}: {shown:?}");
        }
    };
    // Messages that come meanwhile are whole.
    let rejected = format!("sg-run: {input}:2000");
    let mut expected = vec![&rejected[..]; 5];
    expected
        .push("sg-run: in 20009 = out 20000 + rejected 9 + filtered 0 (rejected: invalid_json 9)");
    check(&format!("sg-run --db {db} {input}"), 1, &expected);
    check(
        &format!("sg-run --db {db}.zstd {zstd}"),
        0,
        &["sg-run: in 20000"],
    );
    check(
        &format!("sg-consume {zstd} > {db}.lines"),
        0,
        &["sg-consume: in 20000"],
    );
    check(
        &format!("sg-store --db {db} < {db}.lines"),
        0,
        &["sg-store: in 20000"],
    );
    check(
        &format!("sg-score --report < {db}.lines > {db}.report"),
        0,
        &["sg-score: in 20000"],
    );
    check(&format!("sg-gen --events 100000 > {db}.made"), 0, &[]);
    check(&format!("sg-store verify --db {db} > {db}.report"), 0, &[]);
    check(
        &format!("sg-store backup --db {db} --to {to}"),
        0,
        &["sg-store: backup 1: "],
    );
    let says = format!("sg-store: database {restored} is as");
    check(
        &format!("sg-store restore --db {restored} --from {to}"),
        0,
        &[&says],
    );
    check(&format!("sg-store compact --db {db}"), 0, &["sg-store: "]);
    check(
        &format!("sg-store prune --db {db} --before 2025-01-20"),
        0,
        &["sg-store: removed "],
    );
}

#[test]
fn no_line_is_shown_where_it_would_be_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let (input, zstd) = files(folder.path());
    let db = folder.path().join("db").display().to_string();
    let run = format!("sg-run --db {db}");
    for (line, code) in [
        // Not a terminal.
        (
            format!("{run} {zstd} 2> {db}.text; code=$?; cat {db}.text; exit $code"),
            0,
        ),
        // Nothing of it is wanted.
        (format!("{run} -q {zstd}"), 0),
        (format!("{run} --log-format json {zstd}"), 0),
        (format!("SG_LOG_FORMAT=json {run} {zstd}"), 0),
        (format!("TERM=dumb {run} {zstd}"), 0),
        (format!("TERM= {run} {zstd}"), 0),
        // Lines go there.
        (format!("sg-consume {zstd}"), 0),
        (format!("{run} --tee {input}"), 1),
        ("sg-gen --events 20000".to_owned(), 0),
    ] {
        let ran = at_terminal(&format!("rm -rf {db}; {line}")).expect_code(code);
        // A line is nowhere without being moved and deleted.
        assert!(!ran.stdout.contains(&0x1B), "{line}");
    }
    let ran = at_terminal(&format!("rm -rf {db}; NO_COLOR=1 {run} {zstd}")).expect_code(0);
    // Moves and deletions only: no colours, here and at all.
    assert!(has_line(&ran.stdout));
    assert_eq!(screen(&ran.stdout).len(), 1);
}

/// Starts a program at a terminal, sends it a signal once a line is there; what the terminal shows then.
fn ended_by(signal: Signal, line: &str) -> Vec<String> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sg-run")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    // The shell becomes the program.
    let line = format!("{SIZE}; echo $$; exec {line}");
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("PATH", path)
        .env("TERM", "xterm")
        .env_remove("SG_DB")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    let pid = Pid::from_raw(first.trim().parse().unwrap()).unwrap();
    let mut bytes = Vec::new();
    while !has_line(&bytes) {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{bytes:?}");
        bytes.push(byte[0]);
    }
    kill_process(pid, signal).unwrap();
    output.read_to_end(&mut bytes).unwrap();
    child.wait().unwrap();
    screen(&bytes)
}

/// Names of users are anybody's text.
#[test]
fn an_export_says_nothing_that_a_terminal_obeys() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let user = "ann\u{9b}31m\u{202e}";
    let score = format!("--state={state}");
    run("sg-score", &["-q", &score], event("e", user, 1).as_bytes()).expect_code(0);
    let export = ["export", "--state", &state];
    let in_pipe = run("sg-score", &export, b"").expect_code(0);
    assert!(in_pipe.text().contains(user), "bytes stay as they are");
    let shown = at_terminal(&format!("sg-score export --state {state}")).expect_code(0);
    assert!(
        shown.text().contains(r"ann\u009b31m\u202e"),
        "{}",
        shown.text()
    );
    assert_eq!(shown.json_lines(), in_pipe.json_lines());
}

/// What a person sees of lists; of a pipe the same commands make JSON.
#[test]
fn lists_are_for_people_at_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (db, backups, keys) = (path("db"), path("backups"), path("keys"));
    run("sg-store", &["-q", "--db", &db], &generated(100, 5, 7)).expect_code(0);
    for _ in 0..2 {
        run("sg-store", &["backup", "--db", &db, "--to", &backups], b"").expect_code(0);
    }
    let shown = |command: &str, code: i32| screen(&at_terminal(command).expect_code(code).stdout);
    let list = format!("sg-store backups --from {backups} --check");
    let lines = shown(&list, 0);
    assert!(
        lines[0].starts_with(" BACKUP") && lines[0].contains("DAMAGED"),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with(" 2 ") && lines[2].ends_with('-'),
        "{lines:?}"
    );
    // All backups have the files of the first.
    let shared = Path::new(&backups).join("shared_checksum");
    for file in fs::read_dir(shared).unwrap().map(|it| it.unwrap().path()) {
        let mut bytes = fs::read(&file).unwrap();
        bytes[9] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let lines = shown(&list, 1).join("\n");
    assert!(lines.contains("… and "), "{lines}");
    let add = ["keys", "add", "ann", "--keys", &keys];
    run("sg-query", &add, b"").expect_code(0);
    let lines = shown(&format!("sg-query keys list --keys {keys}"), 0);
    assert!(
        lines[0].starts_with(" NAME") && lines[1].starts_with(" ann "),
        "{lines:?}"
    );
    let record = r#"{"eventType":"user.session.start","published":"2025-01-01T00:00:00Z","actor":{"alternateId":"a\u001b[31mn"},"outcome":{"result":"SUCCESS"}}"#;
    fs::write(path("okta"), format!("{record}\n{{\"actor\":1}}\n")).unwrap();
    let explain = format!(
        "sg-consume --format okta --explain-mapping <{}",
        path("okta")
    );
    let lines = shown(&explain, 1).join("\n");
    for words in [
        "Okta System Log (okta)",
        r"a\u001b[31mn",
        "<- actor.alternateId",
        "missing: source_ip: nothing in ",
        "missing_field",
    ] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
}

#[test]
fn a_signal_leaves_the_terminal_clean() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events");
    fs::write(&input, generated(20_000, 20, 7)).unwrap();
    let input = input.display();
    let db = folder.path().join("db").display().to_string();
    for signal in [Signal::TERM, Signal::INT] {
        // One that ends at once, and one that first keeps what it has.
        let shown = ended_by(signal, "sg-gen --events 1000000000 > /dev/null");
        assert_eq!(shown, [""; 0]);
        let shown = ended_by(signal, &format!("sg-run --follow --db {db} {input}"));
        assert!(shown[0].starts_with("sg-run: in "), "{shown:?}");
        assert_eq!(shown.len(), 1, "{shown:?}");
        fs::remove_dir_all(&db).unwrap();
    }
}

#[test]
fn whoever_gathers_messages_finds_an_object_in_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db").display().to_string();
    let bad = folder
        .path()
        .join("b\u{1b}[31mad\u{202e}")
        .display()
        .to_string();
    let line = event("e", "u", 1);
    let offset = line.len() + 1;
    fs::write(&bad, format!("{line}\nno event\n")).unwrap();
    let json = |name: &str, args: &[&str], code: i32| -> Vec<serde_json::Value> {
        let ran = run(name, args, b"").expect_code(code);
        let text = &ran.stderr;
        let is_plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
        assert!(
            text.ends_with('\n') && text.chars().all(is_plain),
            "{text:?}"
        );
        let lines = text.lines().map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line.starts_with("{\"time\":\"20"), "{line}");
            assert_eq!(value["program"], name, "{line}");
            assert!(value["message"].is_string(), "{line}");
            value
        });
        lines.collect()
    };
    let lines = json("sg-run", &["--log-format=json", "--db", &db, &bad], 1);
    let [rejected, summary] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(rejected["level"], "warning");
    assert_eq!(rejected["file"], bad);
    assert_eq!(
        (&rejected["line"], &rejected["offset"]),
        (&2.into(), &offset.into())
    );
    assert_eq!(rejected["reason"], "invalid_json");
    assert_eq!(summary["level"], "info");
    assert_eq!((&summary["in"], &summary["out"]), (&2.into(), &1.into()));
    assert_eq!(
        summary["rejected_by"],
        serde_json::json!({"invalid_json": 1})
    );
    // What ends a program, and what is wrong with its arguments: as soon as the form is known.
    for (name, args) in [
        (
            "sg-run",
            &["--log-format", "json", "--db", "/proc/none"][..],
        ),
        (
            "sg-store",
            &["verify", "--log-format=json", "--db", "/none"],
        ),
        ("sg-query", &["stats", "--db", "/none", "--log-format=json"]),
        ("sg-consume", &["--no-such-flag", "--log-format=json"]),
        ("sg-embed", &["--log-format=json", "a\u{1b}b"]),
        ("sg-gen", &["--log-format=json", "--events=x"]),
    ] {
        let lines = json(name, args, 2);
        assert_eq!(lines.len(), 1, "{name} {args:?}");
        assert_eq!(lines[0]["level"], "error", "{name} {args:?}");
        assert!(!lines[0]["message"].as_str().unwrap().starts_with("error"));
    }
    let ran = run("sg-run", &["--log-format=xml"], b"").expect_code(2);
    assert!(
        ran.stderr.starts_with("error: invalid value 'xml'"),
        "{}",
        ran.stderr
    );
    let ran = run("sg-run", &["--log-format=json", "--help"], b"").expect_code(0);
    assert!(ran.text().contains("--log-format"));
}

#[test]
fn who_wants_to_hear_little_is_told_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters").display().to_string();
    let line = b"no event\n";
    let ran = run("sg-consume", &["-q"], line).expect_code(1);
    assert!(
        ran.stderr
            .starts_with("sg-consume: -:1: rejected, invalid_json")
    );
    assert_eq!(ran.stderr.lines().count(), 1);
    // What is kept is not lost.
    let ran = run("sg-consume", &["-q", "--dead-letter", &letters], line).expect_code(1);
    assert_eq!(ran.stderr, "");
}
