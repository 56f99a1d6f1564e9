//! Documents that are run: what a document shows is what comes, or a test fails.
//!
//! The blocks of a document marked `sh` are one script, run by `bash -euo pipefail` in an empty folder
//! with `testdata`, `docs` and `scripts` of this checkout in it and the programs on its PATH. What a block
//! writes, to standard output and standard error, is what the next block shows, if that is marked `text`,
//! `json` or `csv`; else the block must be silent. In what is shown, `...` stands for anything in a
//! line, and a line of it for any lines; spaces at the ends of lines do not count. A block below
//! `<!-- not run: WHY -->` is not run. `SG_DOCS=write` puts what comes into the documents.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::tools::wait_within;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TIME_MAX: Duration = Duration::from_secs(600);
/// Announces a block in what the script writes; no program writes this character.
const MARK: char = '\u{1e}';

/// A block that is run, with what it is said to write.
struct Step {
    line: usize,
    script: String,
    expected: String,
    /// Lines of the document, counted from 0, that show it; none if the block must be silent.
    shown: Option<Range<usize>>,
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut is_left_out, mut may_show) = (false, false);
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.starts_with("<!-- not run: ") {
            is_left_out = true;
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.starts_with("```"))
            .collect();
        let text: String = block.iter().flat_map(|line| [*line, "\n"]).collect();
        match language {
            "sh" if !is_left_out => steps.push(Step {
                line: at + 2,
                script: text,
                expected: String::new(),
                shown: None,
            }),
            "text" | "json" | "csv" if may_show => {
                let step = steps.last_mut().unwrap();
                step.expected = text;
                step.shown = Some(at + 1..at + 1 + block.len());
            }
            _ => {}
        }
        may_show = language == "sh" && !is_left_out;
        is_left_out = false;
    }
    steps
}

/// Whether a line is as shown.
fn is_line_shown(line: &str, shown: &str) -> bool {
    let line = line.trim_end();
    let mut parts = shown.trim_end().split("...");
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(end) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(end)
}

fn is_shown(lines: &[&str], shown: &[&str]) -> bool {
    match shown {
        [] => lines.is_empty(),
        ["...", behind @ ..] => (0..=lines.len()).any(|n| is_shown(&lines[n..], behind)),
        [first, behind @ ..] => lines
            .split_first()
            .is_some_and(|(line, rest)| is_line_shown(line, first) && is_shown(rest, behind)),
    }
}

/// Whether a line tells of trouble with brokers that goes by itself, or of its end.
fn is_passing_trouble(line: &str) -> bool {
    line.starts_with("sg-")
        && (line.contains(": Kafka: ") && line.ends_with("; trying again")
            || line.ends_with(": Kafka is back"))
}

/// Where `scripts/kafka` has what it has downloaded.
fn cache_folder() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    )
}

/// Runs blocks as one script and hands back what each of them has written, and whether all were run.
fn run_steps(steps: &[Step]) -> (Vec<String>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let site = folder.path().join("site");
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&site).unwrap();
    for name in ["testdata", "docs", "scripts"] {
        symlink(Path::new(ROOT).join(name), site.join(name)).unwrap();
    }
    let announce = format!("printf '{MARK}\\n'\n");
    let blocks = steps.iter().map(|step| announce.clone() + &step.script);
    let script = blocks.collect::<String>() + &announce;
    let script_path = folder.path().join("script");
    std::fs::write(&script_path, script).unwrap();
    let output_path = folder.path().join("output");
    let output = File::create(&output_path).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_sg-run")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail"])
        .arg(&script_path)
        .current_dir(&site)
        .env("PATH", path)
        .env("HOME", &home)
        .env("XDG_CACHE_HOME", cache_folder())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SG_")) {
        command.env_remove(name);
    }
    let mut bash = command
        .stdin(Stdio::null())
        .stderr(output.try_clone().unwrap())
        .stdout(output)
        .process_group(0)
        .spawn()
        .unwrap();
    let has_ended = wait_within(TIME_MAX, || bash.try_wait().unwrap().is_some());
    // What was left running in the background, too.
    let _ = kill_process_group(Pid::from_child(&bash), Signal::KILL);
    let is_well = has_ended && bash.wait().unwrap().success();
    let _ = bash.wait();
    if site.join("kafka/address").exists() {
        // A cluster of a document that did not come to its end.
        let down = Command::new(site.join("scripts/kafka"))
            .args(["down", "--dir"])
            .arg(site.join("kafka"))
            .status();
        assert!(down.unwrap().success());
    }
    let output = String::from_utf8_lossy(&std::fs::read(output_path).unwrap()).into_owned();
    let mark = format!("{MARK}\n");
    let outputs = output.split(&mark).skip(1).map(str::to_owned).collect();
    (outputs, is_well)
}

/// Runs a document.
#[track_caller]
fn check(name: &str) {
    let path = Path::new(ROOT).join(name);
    let document = std::fs::read_to_string(&path).unwrap();
    let steps = steps(&document);
    let (outputs, is_well) = run_steps(&steps);
    let (last, before) = outputs.split_last().unwrap();
    assert!(
        is_well && before.len() == steps.len(),
        "{name}:{} fails, and has said:\n{last}",
        steps[before.len().min(steps.len() - 1)].line
    );
    let mut lines: Vec<&str> = document.lines().collect();
    let mut wrong = Vec::new();
    for (step, output) in steps.iter().zip(before).rev() {
        let mut came: Vec<&str> = output.lines().collect();
        let shown: Vec<&str> = step.expected.lines().collect();
        if !is_shown(&came, &shown) {
            // A busy machine's brokers are late at times.
            came.retain(|line| !is_passing_trouble(line));
        }
        if !is_shown(&came, &shown) {
            let (line, expected) = (step.line, &step.expected);
            wrong.push(format!(
                "{name}:{line} shows\n{expected}but writes\n{output}"
            ));
            if let Some(shown) = &step.shown {
                lines.splice(shown.clone(), output.lines().map(str::trim_end));
            }
        }
    }
    if std::env::var("SG_DOCS").is_ok_and(|what| what == "write") {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readme() {
    check("README.md");
}

#[test]
fn pipelines() {
    check("docs/pipelines.md");
}

#[test]
fn cron() {
    check("docs/cron.md");
}

#[test]
fn formats() {
    check("docs/formats.md");
}

#[test]
fn sshd() {
    check("docs/sshd.md");
}

#[test]
fn cloudtrail() {
    check("docs/cloudtrail.md");
}

#[test]
fn kafka_tls() {
    check("docs/kafka-tls.md");
}

#[test]
fn threshold() {
    check("docs/threshold.md");
}

#[test]
fn backup() {
    check("docs/backup.md");
}

#[test]
fn upgrading() {
    check("docs/upgrading.md");
}

#[test]
fn configuration() {
    check("docs/configuration.md");
}

#[test]
fn scaling() {
    check("docs/scaling.md");
}

/// Each that has something to run has a test above, and each can be found.
#[test]
fn every_document_is_run() {
    let index = std::fs::read_to_string(Path::new(ROOT).join("docs/README.md")).unwrap();
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(
            index.contains(&format!("({name})")),
            "docs/README.md lacks {name}"
        );
        let is_document = path.extension().is_some_and(|it| it == "md");
        if is_document && !steps(&std::fs::read_to_string(&path).unwrap()).is_empty() {
            let call = format!("check(\"docs/{name}\")");
            assert!(include_str!("docs.rs").contains(&call), "{name} is not run");
        }
    }
}

#[test]
fn what_is_shown_may_leave_out() {
    for (shown, came, is_so) in [
        ("a\nb\n", "a\nb  \n", true),
        ("a\n", "a\nb\n", false),
        ("", "a\n", false),
        ("a ... c\n", "a b c\n", true),
        ("a ... c\n", "a b d\n", false),
        ("...c...d\n", "abcd\n", true),
        ("a...\n...\nz\n", "abc\nd\ne\nz\n", true),
        ("a\n...\nz\n", "a\nz\n", true),
        ("a\n...\nz\n", "a\nb\n", false),
    ] {
        let lines: Vec<&str> = came.lines().collect();
        let patterns: Vec<&str> = shown.lines().collect();
        assert_eq!(is_shown(&lines, &patterns), is_so, "{shown:?} {came:?}");
    }
}
