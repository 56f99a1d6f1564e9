//! Signals at any instant, memory that ends, and pipes that are slow.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::database::admin;
use crate::tools::{Numbers, digest, generated, program, shell};

fn full(db: &Path) -> Vec<u8> {
    admin("verify", db, &["--digest"]).expect_code(0).stdout
}

/// Stopped and continued, asked to end, asked again, and killed, whenever.
#[test]
fn a_storm_of_signals_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events.ndjson");
    std::fs::write(&input, generated(150_000, 60, 71)).unwrap();
    let (quiet, shaken) = (folder.path().join("quiet"), folder.path().join("shaken"));
    let start = |db: &Path| -> Child {
        program("sg-run")
            .args([
                "-q",
                "--threshold=0.5",
                "--memtable-mib=1",
                "--checkpoint-mib=2",
                "--db",
            ])
            .args([db, &input])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(start(&quiet).wait().unwrap().success());
    let mut numbers = Numbers(1);
    let mut n_ended = [0; 3];
    for turn in 0..21 {
        let mut child = start(&shaken);
        let pid = Pid::from_child(&child);
        let mut rest =
            |up_to_ms| std::thread::sleep(Duration::from_millis(numbers.below(up_to_ms) as u64));
        // From then on it listens.
        crate::tools::wait_for(|| shaken.join("streamguard.sock").exists());
        rest(60);
        for _ in 0..4 {
            // It may have ended.
            let _ = kill_process(pid, Signal::STOP);
            rest(15);
            let _ = kill_process(pid, Signal::CONT);
            rest(15);
        }
        let storm = [
            &[Signal::TERM][..],
            &[Signal::TERM, Signal::TERM],
            &[Signal::KILL],
        ];
        for signal in storm[turn % 3] {
            let _ = kill_process(pid, *signal);
        }
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1 | 2 | 143) | None), "{code:?}");
        n_ended[match code {
            Some(0 | 1) => 0,
            Some(_) => 1,
            None => 2,
        }] += 1;
    }
    assert!(n_ended[0] > 0 && n_ended[2] > 0, "no storm: {n_ended:?}");
    assert!(start(&shaken).wait().unwrap().success());
    assert_eq!(full(&shaken), full(&quiet));
}

/// A program that gets no more memory ends; what it had kept is whole, and with memory it goes on.
#[test]
fn no_memory_is_an_end_like_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(60_000, 20_000, 71)).unwrap();
    let (quiet, starved) = (f.join("quiet"), f.join("starved"));
    let run = |db: &Path, limit_kib: u64| {
        let limit = if limit_kib == 0 {
            String::new()
        } else {
            format!("ulimit -v {limit_kib};")
        };
        let (input, db) = (f.join("in"), db.display());
        shell(&format!(
            "{limit} sg-run -q --detector=adaptive {} --db {db}",
            input.display()
        ))
    };
    run(&quiet, 0).expect_code(0);
    let mut n_starved = 0;
    for mib in [150, 250, 300, 350, 400, 500, 700] {
        let ran = run(&starved, mib << 10);
        if ran.code != 0 {
            n_starved += 1;
            assert!(!ran.stderr.is_empty(), "{mib} MiB: {}", ran.code);
        }
    }
    assert!(n_starved >= 2, "it had enough");
    run(&starved, 0).expect_code(0);
    assert_eq!(full(&starved), full(&quiet));
}

/// A group of processes whose memory the kernel limits, as `MemoryMax` of a unit does.
struct Group(PathBuf);

impl Group {
    /// None where these tests may not make one, which takes root and a kernel that lets it.
    fn of_mib(mib: u64) -> Option<Self> {
        // Of either version (cgroups(7)).
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        places.iter().find_map(|(root, limit)| {
            let name = format!("streamguard-test-{}-{mib}", std::process::id());
            let group = Self(Path::new(root).join(name));
            std::fs::create_dir(&group.0).ok()?;
            let set = |name: &str, value: u64| {
                let file = std::fs::File::options()
                    .write(true)
                    .open(group.0.join(name));
                file.and_then(|mut file| file.write_all(value.to_string().as_bytes()))
            };
            set(limit, mib << 20).ok()?;
            // Where there is swap, none of it either.
            let _ = set("memory.memsw.limit_in_bytes", mib << 20);
            let _ = set("memory.swap.max", 0);
            (group.shell("true").code == 0).then_some(group)
        })
    }

    fn shell(&self, script: &str) -> crate::tools::Ran {
        let procs = self.0.join("cgroup.procs");
        shell(&format!("echo $$ >{} && exec {script}", procs.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        crate::tools::wait_for(|| std::fs::remove_dir(&self.0).is_ok());
    }
}

/// With what docs/operating.md says a group has to have it works; with less it is killed, and nothing is lost.
#[test]
fn a_group_with_too_little_memory_is_an_end_like_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(120_000, 60_000, 71)).unwrap();
    let command = |db: &Path| {
        let (input, db) = (f.join("in"), db.display());
        let input = input.display();
        format!("sg-run -q --detector=adaptive --memory-limit=256MiB {input} --db {db}")
    };
    let (quiet, enough, starved) = (f.join("quiet"), f.join("enough"), f.join("starved"));
    shell(&command(&quiet)).expect_code(0);
    let expected = full(&quiet);
    let Some(group) = Group::of_mib(256 + 256) else {
        eprintln!("not tried: nobody may limit the memory of a group of processes here");
        return;
    };
    group.shell(&command(&enough)).expect_code(0);
    assert_eq!(full(&enough), expected);
    let mut n_killed = 0;
    for mib in [24, 40, 60, 80, 110, 150] {
        let ran = Group::of_mib(mib).unwrap().shell(&command(&starved));
        n_killed += u32::from(ran.code == -1);
    }
    assert!(n_killed >= 2, "it had enough");
    shell(&command(&starved)).expect_code(0);
    assert_eq!(full(&starved), expected);
}

/// Neither a program before that gives little at a time nor one behind that takes little changes anything.
#[test]
fn slow_pipes_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(20_000, 20, 71)).unwrap();
    let pipe = |db: &str, slow: &str| {
        let f = f.display();
        shell(&format!(
            "cd {f}; cat in {slow} | sg-consume -q {slow} | sg-score -q --threshold 0.5 {slow} | sg-store -q --db {db}"
        ))
        .expect_code(0);
    };
    pipe("quiet", "");
    // Pieces that end anywhere, with pauses.
    let slow = "| perl -e '$|=1; while (sysread(STDIN, $b, 30011)) { print $b; select(undef, undef, undef, 0.002) }'";
    pipe("slow", slow);
    assert_eq!(digest(&f.join("slow")), digest(&f.join("quiet")));
}
