//! Starts the programs under test and makes their input.
//!
//! The detector is the classic one unless a test names another: what most tests hold is
//! easier to foretell with it. What must hold for every detector is run with each of [`DETECTORS`].

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// All detectors, by their options.
pub(crate) const DETECTORS: [&str; 2] = ["--detector=classic", "--detector=adaptive"];

/// What a program has left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard output as one JSON value a line.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The same, for a program that has to have ended with that code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        self
    }
}

/// A program by its name.
pub(crate) fn program(name: &str) -> Command {
    let path = match name {
        "sg-analyze" => env!("CARGO_BIN_EXE_sg-analyze"),
        "sg-consume" => env!("CARGO_BIN_EXE_sg-consume"),
        "sg-embed" => env!("CARGO_BIN_EXE_sg-embed"),
        "sg-gen" => env!("CARGO_BIN_EXE_sg-gen"),
        "sg-query" => env!("CARGO_BIN_EXE_sg-query"),
        "sg-run" => env!("CARGO_BIN_EXE_sg-run"),
        "sg-score" => env!("CARGO_BIN_EXE_sg-score"),
        "sg-store" => env!("CARGO_BIN_EXE_sg-store"),
        _ => panic!("there is no program {name}"),
    };
    let mut command = Command::new(path);
    for variable in variables() {
        command.env_remove(variable);
    }
    command.env("SG_DETECTOR", "classic");
    // Nobody's service is asked by a test.
    for variable in ["API_KEY", "BASE_URL"] {
        command.env_remove(format!("ANTHROPIC_{variable}"));
        command.env_remove(format!("OPENAI_{variable}"));
    }
    command
}

/// Variables by which whoever runs the tests has set options.
fn variables() -> impl Iterator<Item = std::ffi::OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_string_lossy().starts_with("SG_"))
}

/// Runs a program to its end, with `stdin` as its input.
pub(crate) fn run(name: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = program(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let writer = thread::spawn(move || {
        // A program that stops early closes its input.
        let _ = input.write_all(&stdin);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that is running.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts a program; what it writes is read at once.
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let child = program(name)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::of(child)
    }

    /// One that was started; what is left of its pipes is read.
    pub(crate) fn of(mut child: Child) -> Self {
        let mut running = Self {
            stdin: child.stdin.take(),
            stdout: Arc::default(),
            stderr: Arc::default(),
            readers: Vec::new(),
            child,
        };
        if let Some(stdout) = running.child.stdout.take() {
            running.gather(stdout, Arc::clone(&running.stdout));
        }
        if let Some(stderr) = running.child.stderr.take() {
            running.gather(stderr, Arc::clone(&running.stderr));
        }
        running
    }

    fn gather(&mut self, mut stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>) {
        self.readers.push(thread::spawn(move || {
            let mut buffer = [0; 1 << 13];
            while let Ok(n_read @ 1..) = stream.read(&mut buffer) {
                output.lock().unwrap().extend_from_slice(&buffer[..n_read]);
            }
        }));
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Waits until standard output is as expected.
    #[track_caller]
    pub(crate) fn expect_stdout(&self, expected: &str) {
        let is_there = wait_for(|| self.stdout().len() >= expected.len());
        assert_eq!(self.stdout(), expected, "stderr: {}", self.stderr());
        assert!(is_there);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Most memory that it has held so far, in bytes; 0 if it has ended.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.map(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        peak.unwrap_or(0) << 10
    }

    /// Waits for the end, which has to come by itself; standard input stays as it is.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        if !wait_for(|| self.has_ended()) {
            self.child.kill().unwrap();
            panic!("it does not end; stderr: {}", self.stderr());
        }
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ran {
            code: self.child.wait().unwrap().code().unwrap_or(-1),
            stdout: self.stdout.lock().unwrap().clone(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed test, so that nothing is left running.
        let _ = self.child.kill();
    }
}

/// Waits until something is so; false if it does not come to that in time.
pub(crate) fn wait_for(is_so: impl FnMut() -> bool) -> bool {
    wait_within(Duration::from_secs(7), is_so)
}

/// The same, for what takes others some time.
pub(crate) fn wait_within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Writes a file that nobody else can read, so that nothing is said about it.
pub(crate) fn write_secret(path: impl AsRef<Path>, text: &str) {
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Runs a line of shell with the programs on its PATH.
pub(crate) fn shell(script: &str) -> Ran {
    let folder = Path::new(env!("CARGO_BIN_EXE_sg-run"))
        .parent()
        .unwrap()
        .to_owned();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    for variable in variables() {
        command.env_remove(variable);
    }
    let output = command
        .args(["-c", &format!("set -o pipefail; {script}")])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("SG_DETECTOR", "classic")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A file that is shipped for tests.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// Made-up events, as `sg-gen` writes them.
pub(crate) fn generated(n_events: u64, n_users: u32, seed: u64) -> Vec<u8> {
    let config = streamguard::generate::GenerateConfig {
        n_events,
        n_users,
        seed,
        ..Default::default()
    };
    let mut lines = Vec::new();
    streamguard::generate::generate(&config, &mut lines, None).unwrap();
    lines
}

/// A smallest valid event.
pub(crate) fn event(id: &str, user: &str, timestamp_ms: i64) -> String {
    format!(
        r#"{{"event_id":"{id}","user":"{user}","timestamp":{timestamp_ms},"type":"LOGIN_SUCCESS"}}"#
    )
}

/// A smallest valid event with more members.
pub(crate) fn event_and(members: &str) -> String {
    let event = event("e", "u", 1);
    format!("{},{members}}}", &event[..event.len() - 1])
}

/// How many lines end in `bytes`.
pub(crate) fn n_lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// The digest of a database's contents, after a check of everything in it.
pub(crate) fn digest(db: &Path) -> String {
    let ran = run(
        "sg-store",
        &["verify", "--digest", "--db", db.to_str().unwrap()],
        b"",
    );
    let report = &ran.expect_code(0).json_lines()[0];
    report["digest"].as_str().unwrap().to_owned()
}

/// Numbers that look random and are the same each time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}
