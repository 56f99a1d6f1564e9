//! Disks that are full, read-only or gone.
//!
//! Scripts run in a mount namespace of their own, with a small file system in memory at `$d`, which goes with them.
//! `$f` is a folder beside it that has room.

use std::io::Write as _;
use std::path::Path;

use rustix::process::geteuid;

use crate::database::{admin, scored, store};
use crate::tools::{DETECTORS, Ran, Running, digest, event, generated, n_lines, shell, wait_for};

/// Runs a script with a file system of so many KiB at `$d`.
#[track_caller]
pub(crate) fn with_disk(folder: &Path, kib: u32, script: &str) -> Ran {
    let disk = folder.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let file = folder.join("script");
    let mount = format!("mount -t tmpfs -o size={kib}k tmpfs $d");
    let script = format!("set -eo pipefail\n{mount}\n{script}");
    std::fs::write(&file, script).unwrap();
    // Who is not root may mount in a namespace of users of their own.
    let namespace = if geteuid().is_root() { "-m" } else { "-rm" };
    let (d, f) = (disk.display(), folder.display());
    let ran = shell(&format!(
        "d={d} f={f} unshare {namespace} bash {}",
        file.display()
    ));
    let is_refused = ran.stderr.contains("unshare: ") || ran.stderr.contains("mount: ");
    assert!(
        !is_refused,
        "these tests mount a file system in memory in a namespace of their own, which takes root or namespaces of \
         users: {}",
        ran.stderr
    );
    ran
}

/// Makes room, where a disk was full.
pub(crate) const GROW: &str = "mount -o remount,size=1g $d";

/// What a command says whose disk is full, and what there is after the same command with room again, if it has
/// failed.
struct Filled {
    code: String,
    stderr: String,
    again: String,
    contents: String,
}

#[track_caller]
fn fill(folder: &Path, kib: u32, command: &str, contents: &str) -> Filled {
    let ran = with_disk(
        folder,
        kib,
        &format!(
            "code=0; {{ {command}; }} 2>$f/stderr || code=$?; echo $code; {GROW}
             if [ $code != 0 ]; then code=0; {{ {command}; }} 2>$f/stderr-again || code=$?; fi; echo $code; {contents}"
        ),
    )
    .expect_code(0);
    let mut lines = ran.text().splitn(3, '\n').map(str::to_owned);
    Filled {
        code: lines.next().unwrap(),
        again: lines.next().unwrap(),
        contents: lines.next().unwrap(),
        stderr: std::fs::read_to_string(folder.join("stderr")).unwrap(),
    }
}

/// What there is if nothing disturbs the command.
#[track_caller]
fn undisturbed(folder: &Path, command: &str, contents: &str) -> String {
    let script = format!("{{ {command}; }} 2>/dev/null || [ $? = 1 ]; {contents}");
    let ran = with_disk(folder, 1 << 20, &script).expect_code(0);
    ran.text().to_owned()
}

/// A full disk ends a command with a message and 2; with room again it gives what it would have given.
#[track_caller]
fn check_full(folder: &Path, sizes_kib: &[u32], command: &str, contents: &str) {
    let expected = undisturbed(folder, command, contents);
    for &kib in sizes_kib {
        let filled = fill(folder, kib, command, contents);
        let told = format!("{command} with {kib} KiB: {}", filled.stderr);
        assert_eq!(filled.code, "2", "{told}");
        assert!(filled.stderr.contains("No space left on device"), "{told}");
        assert!(filled.stderr.contains("make room"), "{told}");
        assert_eq!(filled.again, "0", "{told}");
        assert_eq!(filled.contents, expected, "{told}");
    }
}

#[test]
fn sg_run_goes_on_after_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(40_000, 40, 5)).unwrap();
    let contents = "sg-store verify --digest --db $d/db";
    for detector in DETECTORS {
        let run = format!("sg-run -q --threshold=0.5 {detector} $f/in --db $d/db");
        // As many small writes, and as few large ones.
        let small = format!("{run} --memtable-mib=1 --checkpoint-mib=1");
        check_full(f, &[100, 1_500, 5_100], &small, contents);
        check_full(f, &[3_000], &run, contents);
    }
}

/// What was learned is then the last to be written, as a file.
#[test]
fn a_large_checkpoint_waits_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(40_000, 5_000, 5)).unwrap();
    let run = "sg-run -q --detector=adaptive --threshold=0.99 --memtable-mib=1 $f/in --db $d/db";
    let contents = "sg-store verify --digest --db $d/db";
    let expected = undisturbed(f, run, contents);
    let filled = (9_000..13_000)
        .step_by(500)
        .map(|kib| fill(f, kib, run, contents));
    let mut n_of_baselines = 0;
    for filled in filled {
        let stderr = &filled.stderr;
        assert_eq!(filled.contents, expected, "{stderr}");
        assert_eq!(filled.again, "0", "{stderr}");
        if filled.code != "0" {
            assert_eq!(filled.code, "2", "{stderr}");
            assert!(stderr.contains("make room"), "{stderr}");
            n_of_baselines += u32::from(stderr.contains("baselines.sst"));
        }
    }
    assert!(n_of_baselines > 0, "it never failed at the checkpoint");
}

#[test]
fn a_pipe_goes_on_after_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(40_000, 40, 5)).unwrap();
    let command = "sg-consume -q --checkpoint-mib=1 --resume-from $d/db $f/in 2>/dev/null | \
                   sg-score -q --threshold=0.5 --state $d/state | sg-store -q --memtable-mib=1 --db $d/db";
    let contents =
        "sg-store verify --digest --db $d/db; sg-score export --state $d/state | sha256sum";
    check_full(f, &[1_000, 4_000], command, contents);
}

#[test]
fn baselines_are_learned_whole_after_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(20_000, 5_000, 5)).unwrap();
    for detector in DETECTORS {
        let command = format!("sg-score -q {detector} --state $d/state <$f/in >$f/out");
        let contents = "sg-score export --state $d/state | sha256sum; sha256sum <$f/out";
        check_full(f, &[64, 300], &command, contents);
        // What was learned and only could not be put in order is not learned again.
        let expected = undisturbed(f, &command, contents);
        let mut filled = (600..4_000)
            .step_by(200)
            .map(|kib| fill(f, kib, &command, contents));
        let found = filled.find(|filled| {
            assert_eq!(filled.contents, expected, "{}", filled.stderr);
            filled.code == "0"
        });
        let stderr = found.unwrap().stderr;
        assert!(stderr.contains("baselines are kept"), "{stderr}");
    }
}

/// Rejected lines are told again by the next run: none is missing, and every letter is whole.
#[test]
fn dead_letters_are_whole_after_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let bad = (0..5_000)
        .map(|i| format!("no event {i}"))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n";
    std::fs::write(f.join("in"), &bad).unwrap();
    let command = "sg-consume -q --dead-letter $d/dead $f/in >$f/out";
    let contents = "jq -rR 'fromjson? | .raw_b64' $d/dead | sort -u | while read -r it; do base64 -d <<<$it; echo; done";
    let mut lines: Vec<_> = bad.lines().collect();
    lines.sort_unstable();
    for kib in [64, 300] {
        let filled = fill(f, kib, command, contents);
        assert_eq!(filled.code, "2", "{}", filled.stderr);
        assert!(
            filled.stderr.contains("No space left on device"),
            "{}",
            filled.stderr
        );
        assert_eq!(filled.again, "1");
        let mut found: Vec<_> = filled.contents.lines().collect();
        found.sort_unstable();
        assert!(found == lines, "{} letters of {}", found.len(), lines.len());
    }
}

#[test]
fn alerts_wait_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(20_000, 40, 5)).unwrap();
    let command =
        "rm -rf $f/db.new; sg-run -q --threshold=0.4 $f/in --db $f/db --alerts-to $d/alerts";
    let contents = "cat $d/alerts";
    let expected = undisturbed(f, command, contents);
    assert!(expected.lines().count() > 100);
    std::fs::remove_dir_all(f.join("db")).unwrap();
    let filled = fill(f, 40, command, contents);
    assert_eq!(filled.code, "1", "{}", filled.stderr);
    assert!(
        filled.stderr.contains("No space left on device"),
        "{}",
        filled.stderr
    );
    assert_eq!(filled.again, "0");
    // What was on its way then is told again, after the line that was cut off.
    let lines: Vec<_> = filled.contents.lines().collect();
    let is_cut = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_err();
    let n_before = lines.iter().position(is_cut).unwrap() + 1;
    let expected: Vec<_> = expected.lines().collect();
    assert!(lines[n_before..] == expected);
    assert!(lines[..n_before - 1] == expected[..n_before - 1]);
}

#[test]
fn an_export_that_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    store(&f.join("db"), &scored(3_000, 5, 5)).expect_code(0);
    for command in [
        "sg-query export --db $f/db >$d/out",
        "sg-query events -n 3000 --db $f/db >$d/out",
        "sg-gen --events 3000 >$d/out",
        "sg-consume -q $f/lines >$d/out",
        "sg-score -q <$f/lines >$d/out",
        "sg-embed -q <$f/lines >$d/out",
        "sg-score export --state $f/state >$d/out",
    ] {
        std::fs::write(f.join("lines"), generated(3_000, 2_000, 5)).unwrap();
        shell(&format!(
            "sg-score -q --state {0}/state <{0}/lines >/dev/null",
            f.display()
        ))
        .expect_code(0);
        let script = format!("code=0; {command} 2>$f/stderr || code=$?; echo $code");
        let ran = with_disk(f, 64, &script).expect_code(0);
        let stderr = std::fs::read_to_string(f.join("stderr")).unwrap();
        assert_eq!(ran.text(), "2\n", "{command}: {stderr}");
        assert!(
            stderr.contains("No space left on device"),
            "{command}: {stderr}"
        );
    }
}

/// What tidies up a database leaves it as it was if it has no room.
#[test]
fn administration_changes_nothing_without_room() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let db = f.join("db");
    store(&db, &scored(20_000, 20, 5)).expect_code(0);
    let expected = admin("verify", &db, &["--digest"]).expect_code(0);
    let id = shell(&format!(
        "sg-query anomalies -n 1 --db {} | jq -r .event_id",
        db.display()
    ));
    let id = id.expect_code(0).text().trim().to_owned();
    for (command, is_done) in [
        ("sg-store compact --db $d/db >/dev/null", false),
        (
            &*format!("sg-store feedback {id} --verdict benign --db $d/db >/dev/null"),
            true,
        ),
    ] {
        // The database, and nothing besides.
        let script = format!(
            "cp -r $f/db $d/db; dd if=/dev/zero of=$d/fill bs=4k 2>/dev/null || true
             code=0; {command} 2>$f/stderr || code=$?; echo $code
             rm $d/fill; sg-store verify --digest --db $d/db; {command}; echo $?"
        );
        let ran = with_disk(f, 30_000, &script).expect_code(0);
        let stderr = std::fs::read_to_string(f.join("stderr")).unwrap();
        let (code, rest) = ran.text().split_once('\n').unwrap();
        assert_eq!(code, "2", "{command}: {stderr}");
        assert!(
            stderr.contains("No space left on device"),
            "{command}: {stderr}"
        );
        assert!(stderr.contains("make room"), "{command}: {stderr}");
        assert!(rest.starts_with(expected.text()), "{command}: {rest}");
        assert!(rest.ends_with("\n0\n"), "{command}: {rest}");
        assert!(is_done || !stderr.contains("benign"));
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_told_and_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(3_000, 10, 5)).unwrap();
    let script = "sg-run -q $f/in --db $d/db; sg-score -q --state $d/state <$f/in >/dev/null
         sg-store verify --digest --db $d/db; mount -o remount,ro $d
         for command in 'sg-run -q $f/in --db $d/db' 'sg-run -q $f/in --db $d/new' 'sg-store -q --db $d/db <$f/in' \
             'sg-score -q --state $d/state <$f/in' 'sg-score -q --state $d/new <$f/in' \
             'sg-consume -q --dead-letter $d/dead $f/in' 'sg-store prune --retain=1d --db $d/db' \
             'sg-store backup --db $d/db --to $d/backups'; do
             code=0; eval $command >/dev/null 2>$f/stderr || code=$?
             [ $code = 2 ] && [ $(wc -l <$f/stderr) = 1 ] && grep -q 'Read-only file system' $f/stderr || {
                 echo \"$command: $code\" >&2; cat $f/stderr >&2; exit 9
             }
         done
         sg-store verify --digest --db $d/db; sg-query stats --db $d/db; sg-query anomalies --db $d/db | wc -l";
    let ran = with_disk(f, 100_000, script).expect_code(0);
    let lines: Vec<_> = ran.text().lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert!(lines[2].contains("\"events\":3000"), "{}", lines[2]);
}

/// A folder that is removed under a program takes with it what was in it; the program must not end as if all
/// was well.
#[test]
fn a_database_that_vanishes_is_told() {
    for (name, args) in [
        ("sg-run", &["-q", "--memtable-mib=1"][..]),
        ("sg-store", &["-q", "--memtable-mib=1"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("db");
        let all = [args, &["--db", db.to_str().unwrap()]].concat();
        let mut running = Running::start(name, &all);
        let mut input = running.stdin.take().unwrap();
        let (first, second) = (generated(2_000, 10, 5), generated(2_000, 10, 6));
        input.write_all(&first).unwrap();
        input.flush().unwrap();
        assert!(wait_for(|| db.join("CURRENT").exists()));
        std::thread::sleep(std::time::Duration::from_millis(500));
        // At once: the program still makes files in it.
        let gone = folder.path().join("gone");
        std::fs::rename(&db, &gone).unwrap();
        while std::fs::remove_dir_all(&gone).is_err() {}
        // It may have ended by itself.
        let _ = input.write_all(&second);
        drop(input);
        let ran = running.end();
        assert_eq!(ran.code, 2, "{name}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
        // The same again makes it anew.
        let both = [first, second].concat();
        crate::tools::run(name, &all, &both).expect_code(0);
        assert_eq!(crate::database::stats(&db)["events"], n_lines(&both));
    }
}

/// Whoever stops a program while its disk is full gets an answer, too.
#[test]
fn a_stop_on_a_full_disk_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("in"), generated(20_000, 40, 5)).unwrap();
    let script = "mkfifo $f/pipe; sg-run -q --db $d/db <$f/pipe 2>$f/stderr & exec 3>$f/pipe
        cat $f/in >&3 || true; sleep 1; kill -TERM $! 2>/dev/null || true; exec 3>&-
        code=0; wait $! || code=$?; echo $code";
    let ran = with_disk(f, 300, script).expect_code(0);
    let stderr = std::fs::read_to_string(f.join("stderr")).unwrap();
    assert_eq!(ran.text(), "2\n", "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
}

#[test]
fn a_small_disk_is_filled_by_nobody_who_only_asks() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let db = f.join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let before = digest(&db);
    let script = "cp -r $f/db $d/db; dd if=/dev/zero of=$d/fill bs=1k 2>/dev/null || true
        sg-query stats --db $d/db >/dev/null; sg-query events --db $d/db; sg-query similar e --db $d/db || [ $? = 1 ]";
    let ran = with_disk(f, 2_000, script).expect_code(0);
    assert_eq!(n_lines(&ran.stdout), 1, "{}", ran.text());
    assert_eq!(digest(&db), before);
}
