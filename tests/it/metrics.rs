//! `--metrics-listen` and `--metrics-file`: what is counted, at zero from the start and right in the end, and
//! whether programs say honestly that they take events.

mod counts;
mod file;
mod health;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ureq::Agent;

use crate::tools::{Running, wait_for};

/// A program that tells its metrics.
pub(crate) struct Watched {
    pub(crate) running: Running,
    url: String,
    agent: Agent,
}

/// Samples by name and labels, labels sorted, as in `name{a="1",b="2"}`.
pub(crate) type Samples = BTreeMap<String, f64>;

impl Watched {
    /// Starts a program with a listener at any port.
    #[track_caller]
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        let args = [args, &["--metrics-listen", "127.0.0.1:0"]].concat();
        Self::of(Running::start(program, &args), program)
    }

    #[track_caller]
    pub(crate) fn of(running: Running, program: &str) -> Self {
        let begin = format!("{program}: metrics at ");
        let said = || {
            let stderr = running.stderr();
            let whole = stderr.rfind('\n').map_or("", |end| &stderr[..end]);
            let mut lines = whole.lines();
            lines.find_map(|line| Some(line.strip_prefix(&*begin)?.to_owned()))
        };
        assert!(wait_for(|| said().is_some()), "{}", running.stderr());
        let url = said().unwrap();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)));
        Self {
            url: url.strip_suffix("/metrics").unwrap().to_owned(),
            agent: config.build().into(),
            running,
        }
    }

    /// The status and the text of an answer.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut response = self
            .agent
            .get(format!("{}{path}", self.url))
            .call()
            .unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text)
    }

    #[track_caller]
    fn text(&self) -> String {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        text
    }

    #[track_caller]
    pub(crate) fn samples(&self) -> Samples {
        samples(&self.text())
    }

    /// Waits until a sample has a value.
    #[track_caller]
    pub(crate) fn wait_until(&self, name: &str, value: f64) {
        let is_so = wait_for(|| self.samples().get(name) == Some(&value));
        assert!(is_so, "{name} is not {value}: {}", self.text());
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }
}

/// The samples of a text, each of which has to be there once.
#[track_caller]
pub(crate) fn samples(text: &str) -> Samples {
    let mut samples = Samples::new();
    assert!(text.ends_with('\n'), "it is cut off: {text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let is_new = samples.insert(name.to_owned(), value.parse().unwrap());
        assert_eq!(is_new, None, "{name} is there twice");
    }
    samples
}

/// Names of metrics, without what histograms append.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect()
}

/// Has Prometheus' own tool look at the text.
#[track_caller]
fn check(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: run scripts/setup");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{text}");
    assert_eq!(said, "", "{text}");
}

/// What the table in docs/metrics.md lists.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows
        .filter_map(|row| row.split_once(" | "))
        .map(|row| row.0);
    let names = cells.flat_map(|cell| cell.split(", "));
    let names = names.map(|name| name.trim_matches('`').to_owned());
    names.filter(|name| name.contains('_')).collect()
}

/// Programs that work on lines, with what each of them is started with, at the end of a pipe that stays
/// quiet.
fn programs(db: &str, state: &str) -> Vec<(&'static str, Vec<String>)> {
    let own = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect();
    vec![
        ("sg-consume", own(&[])),
        ("sg-score", own(&["--state", state, "--metrics-users", "3"])),
        ("sg-analyze", own(&["--dry-run"])),
        ("sg-embed", own(&[])),
        ("sg-store", own(&["--db", &format!("{db}-stored")])),
        (
            "sg-run",
            own(&[
                "--db",
                db,
                "--embed",
                "--analyze",
                "--provider=openai",
                "--base-url=http://127.0.0.1:9",
                "--model=m",
                "--serve=127.0.0.1:0",
                &format!("--alerts-to={db}.alerts"),
            ]),
        ),
    ]
}
