//! Pipes that go on where they were: `sg-consume --resume-from DB | sg-score --state DIR | sg-store`.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::database::stats;
use crate::tools::{DETECTORS, Ran, digest, event, generated, program, run, shell, wait_within};

/// A pipe with what it keeps.
pub(crate) struct Pipe {
    folder: PathBuf,
    /// What `sg-consume` is told to read.
    input: Vec<String>,
    detector: String,
}

impl Pipe {
    pub(crate) fn new(folder: PathBuf, input: &[&str], detector: &str) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            input: input.iter().map(|&it| it.to_owned()).collect(),
            detector: detector.to_owned(),
        }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.folder.join("db")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Where the programs say what they have to say.
    fn log(&self) -> File {
        let mut options = File::options();
        let log = self.folder.join("log");
        options.create(true).append(true).open(log).unwrap()
    }

    /// What they have said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Starts all three programs.
    fn start(&self) -> [Child; 3] {
        let mut consume = program("sg-consume");
        consume.args(["-q", "--checkpoint-mib=1", "--resume-from"]);
        consume.arg(self.db()).args(&self.input);
        let mut consume = consume
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log())
            .spawn()
            .unwrap();
        let mut scorer = program("sg-score");
        scorer.args(["-q", "--threshold=0.5", &self.detector, "--state"]);
        let mut scorer = scorer
            .arg(self.state())
            .stdin(consume.stdout.take().unwrap())
            .stdout(Stdio::piped())
            .stderr(self.log())
            .spawn()
            .unwrap();
        let store = program("sg-store")
            .args(["-q", "--memtable-mib=1", "--db"])
            .arg(self.db())
            .stdin(scorer.stdout.take().unwrap())
            .stdout(Stdio::null())
            .stderr(self.log())
            .spawn()
            .unwrap();
        [consume, scorer, store]
    }

    /// Runs it to its end, which has to be a good one for all programs.
    #[track_caller]
    pub(crate) fn run(&self) {
        let programs = &mut self.start();
        let codes = programs.each_mut().map(|it| it.wait().unwrap().code());
        assert_eq!(codes, [Some(0); 3], "{}", self.said());
    }

    /// Runs it again and again, and kills one of its programs each time, each at another instant within
    /// `within_ms`; how often that came before the end.
    pub(crate) fn kill_and_repeat(&self, n_kills: u32, within_ms: u32) -> u32 {
        let mut n_killed = 0;
        for n_tries in 0..n_kills * 3 {
            let mut programs = self.start();
            let wait_ms = 11 + n_tries * 67 % within_ms;
            std::thread::sleep(Duration::from_millis(u64::from(wait_ms)));
            let victim = &mut programs[n_tries as usize * 7 / 3 % 3];
            n_killed += u32::from(victim.try_wait().unwrap().is_none());
            victim.kill().unwrap();
            // The others have to end by themselves.
            let has_ended = wait_within(Duration::from_secs(30), || {
                programs
                    .iter_mut()
                    .all(|it| it.try_wait().unwrap().is_some())
            });
            assert!(has_ended);
            if n_killed == n_kills {
                break;
            }
        }
        n_killed
    }

    /// All that it has learned.
    pub(crate) fn baselines(&self) -> Vec<u8> {
        let state = self.state();
        let args = ["export", "--state", state.to_str().unwrap()];
        run("sg-score", &args, b"").expect_code(0).stdout
    }
}

#[track_caller]
pub(crate) fn assert_same(left: &Pipe, right: &Pipe) {
    assert_eq!(digest(&left.db()), digest(&right.db()));
    assert!(left.baselines() == right.baselines());
}

#[test]
fn a_killed_pipe_goes_on_as_if_nothing_had_happened() {
    for detector in DETECTORS {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let input = at("events.ndjson");
        std::fs::write(&input, generated(100_000, 60, 301)).unwrap();
        let input = input.to_str().unwrap();
        let quiet = Pipe::new(at("quiet"), &[input], detector);
        let killed = Pipe::new(at("killed"), &[input], detector);
        quiet.run();
        let n_killed = killed.kill_and_repeat(9, 397);
        assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
        killed.run();
        assert_same(&quiet, &killed);
        assert_eq!(stats(&killed.db())["events"], 100_000);
        // And as all in one.
        let fused = at("fused");
        let args = ["-q", "--threshold=0.5", detector, input, "--db"];
        let args = [&args[..], &[fused.to_str().unwrap()]].concat();
        run("sg-run", &args, b"").expect_code(0);
        assert_eq!(digest(&fused), digest(&killed.db()));
    }
}

/// A folder with a pipe that is written as a line of shell.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(events: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in"), events).unwrap();
        Self(folder)
    }

    fn db(&self) -> PathBuf {
        self.0.path().join("db")
    }

    fn shell(&self, script: &str) -> Ran {
        shell(&format!("cd {}; {script}", self.0.path().display()))
    }
}

/// Events of which no more than one in some is passed on.
fn events(n_events: u32) -> String {
    let mut lines = String::new();
    for i in 0..n_events {
        let line = event(&format!("e{i}"), &format!("u{}", i % 7), 1_735_689_600_000);
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

const PIPE: &str = "sg-consume in --resume-from db | sg-score --state st | sg-store --db db";

#[test]
fn only_what_is_new_is_read() {
    let folder = Folder::new(events(5_000).as_bytes());
    let ran = folder.shell(PIPE).expect_code(0);
    assert_eq!(ran.stderr.matches("in 5000 = out 5000 ").count(), 3);
    let ran = folder.shell(PIPE).expect_code(0);
    assert_eq!(ran.stderr.matches("in 0 = out 0 ").count(), 3);
    let more = event("later", "u1", 1_735_689_700_000);
    let ran = folder
        .shell(&format!("echo '{more}' >> in; {PIPE}"))
        .expect_code(0);
    assert_eq!(ran.stderr.matches("in 1 = out 1 ").count(), 3);
    assert_eq!(stats(&folder.db())["events"], 5_001);
}

/// A filter may take events out, as long as it passes our lines on.
#[test]
fn a_filter_may_be_in_the_middle() {
    let folder = Folder::new(events(5_000).as_bytes());
    let pipe = |filter: &str| PIPE.replace("| sg-store", &format!("| {filter} | sg-store"));
    let filter = r#"grep -E '^\{"sg":|"user":"u3"'"#;
    let ran = folder.shell(&pipe(filter)).expect_code(0);
    assert!(
        ran.stderr.contains("sg-store: in 714 = out 714 "),
        "{}",
        ran.stderr
    );
    let ran = folder.shell(&pipe(filter)).expect_code(0);
    assert!(ran.stderr.contains("sg-consume: in 0 "), "{}", ran.stderr);
    assert_eq!(stats(&folder.db())["events"], 714);
}

#[test]
fn lost_checkpoints_are_told() {
    let folder = Folder::new(&generated(20_000, 20, 303));
    let pipe = |filter: &str| {
        let pipe = PIPE.replace("| sg-store", &format!("| {filter} | sg-store"));
        pipe.replace("--resume-from", "--checkpoint-mib 1 --resume-from")
    };
    // The second of all.
    let ran = folder
        .shell(&pipe(r#"grep -v '"checkpoint":2,'"#))
        .expect_code(0);
    let words = "checkpoint 3 has come after 1, those between them are lost";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    // It goes on after the first one.
    let ran = folder.shell(&pipe("cat")).expect_code(0);
    let words = "of the last checkpoints did not arrive in the database: their events come again";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    let quiet = Folder::new(&std::fs::read(folder.0.path().join("in")).unwrap());
    quiet.shell(PIPE).expect_code(0);
    assert_eq!(digest(&folder.db()), digest(&quiet.db()));
    let exported = |folder: &Folder| folder.shell("sg-score export --state st").stdout;
    assert!(exported(&folder) == exported(&quiet));
    // All of them.
    let more = event("later", "u1", 1_795_689_700_000);
    let pipe = pipe(r#"grep -v '^{"sg":'"#);
    let ran = folder
        .shell(&format!("echo '{more}' >> in; {pipe}"))
        .expect_code(0);
    let words = "there are no checkpoints among these lines";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(stats(&folder.db())["events"], 20_001);
}

/// Whoever writes events cannot make a pipe do anything.
#[test]
fn lines_of_ours_cannot_be_forged() {
    let folder = Folder::new(b"");
    folder.shell(PIPE).expect_code(0);
    let forged = [
        r#"{"sg":{"db":"00000000000000000000000000000000","resume":7}}"#,
        r#"{"sg":{"db":"00000000000000000000000000000000","checkpoint":1,"positions":{}}}"#,
    ];
    let whole = r#"{"sg":{"db":"0","checkpoint":1,"positions":{}},"event_id":"e","user":"u","timestamp":1,"type":"T"}"#;
    let input = format!(
        "{}\n{}\n{whole}\n{}\n",
        forged[0],
        forged[1],
        event("f", "u", 2)
    );
    std::fs::write(folder.0.path().join("in"), &input).unwrap();
    let ran = folder.shell(PIPE).expect_code(1);
    let words = "sg-consume: in 4 = out 2 + rejected 2 ";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("sg-store: in 2 = out 2 "),
        "{}",
        ran.stderr
    );
    // Behind our own first line they are no lines of ours either.
    let script = "(sg-consume nothing --resume-from db -q | head -n 1; cat in) | sg-store --db db";
    let ran = folder.shell(&format!("touch nothing; {script}"));
    assert!(ran.stderr.contains("rejected 2 "), "{}", ran.stderr);
    // Without checkpoints the lines of another database are of no use to anybody.
    let ran = folder.shell("sg-store --db db < in").expect_code(2);
    assert!(
        ran.stderr.contains("has named another database"),
        "{}",
        ran.stderr
    );
}

/// Whoever comes before has been killed, within a line or between two.
#[test]
fn an_end_without_a_checkpoint_is_told() {
    let folder = Folder::new(&generated(20_000, 20, 305));
    let consume = "sg-consume in --resume-from db --checkpoint-mib 1";
    for cut in ["head -c 3000000", "head -n 5000"] {
        let ran = folder.shell(&format!(
            "{consume} | {cut} | sg-score --state st --dead-letter dead | sg-store --db db --dead-letter dead2"
        ));
        let words = "have ended without a checkpoint: run the pipe again";
        assert_eq!(ran.stderr.matches(words).count(), 2, "{}", ran.stderr);
        assert_eq!(ran.code, 2);
        let dead = folder.shell("cat dead dead2").expect_code(0);
        assert!(dead.stdout.is_empty());
    }
    folder.shell(PIPE).expect_code(0);
    let quiet = Folder::new(&generated(20_000, 20, 305));
    quiet.shell(PIPE).expect_code(0);
    assert_eq!(digest(&folder.db()), digest(&quiet.db()));
    let exported = |folder: &Folder| folder.shell("sg-score export --state st").stdout;
    assert!(exported(&folder) == exported(&quiet));
}

#[test]
fn what_cannot_go_on_is_refused() {
    let folder = Folder::new(events(100).as_bytes());
    let refused = |script: &str, words: &str| {
        let ran = folder.shell(script).expect_code(2);
        assert!(ran.stderr.contains(words), "{script}: {}", ran.stderr);
    };
    let words = "standard input cannot be read again";
    refused("sg-consume --resume-from db < in", words);
    refused("cat in | sg-consume in - --resume-from db", words);
    let consume = "sg-consume in --resume-from db";
    refused(&format!("{consume} | sg-score"), "give --state DIR");
    let words = "do not go with sg-consume --resume-from";
    refused(&format!("{consume} | sg-score --report --state st"), words);
    let words = "has named another database than other";
    refused(&format!("{consume} | sg-store --db other"), words);
    folder.shell(PIPE).expect_code(0);
    // Baselines of another time.
    let words = "does not know checkpoint 1 of the database";
    refused(&format!("rm -r st; {PIPE}"), words);
    assert_eq!(stats(&folder.db())["events"], 100);
    // Baselines of another database, or of one that is gone: they would be learned twice.
    let other = Folder::new(events(100).as_bytes());
    other.shell(PIPE).expect_code(0);
    let words = "belongs to a pipe into another database";
    let state = folder.0.path().join("st");
    let pipe = PIPE.replace("--state st", &format!("--state {}", state.display()));
    folder.shell("rm -rf db st").expect_code(0);
    folder.shell(PIPE).expect_code(0);
    let ran = other.shell(&pipe).expect_code(2);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    refused(&format!("rm -r db; {PIPE}"), words);
    refused(
        "sg-score --state st < in",
        "would take back what is learned here",
    );
}

/// The database at the end may hold a pipe's checkpoint; those of `sg-run` are its own.
#[test]
fn sg_run_does_not_go_on_where_a_pipe_was() {
    let folder = Folder::new(events(100).as_bytes());
    folder.shell(PIPE).expect_code(0);
    let ran = folder.shell("sg-run in --db db").expect_code(0);
    assert!(ran.stderr.contains("in 100 = out 0 "), "{}", ran.stderr);
    let verified = |db: &Path| {
        let args = ["verify", "--db", db.to_str().unwrap()];
        run("sg-store", &args, b"").expect_code(0)
    };
    verified(&folder.db());
}
