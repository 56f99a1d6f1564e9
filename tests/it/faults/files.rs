//! Files of a database that are damaged or gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::database::{admin, damage_a_table};
use crate::tools::{generated, program, run, wait_for};

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Empty,
    CutInHalf,
    /// As after a power cut with some file systems.
    ZerosAtTheEnd,
    OneByte,
}

const DAMAGES: [Damage; 5] = [
    Damage::Missing,
    Damage::Empty,
    Damage::CutInHalf,
    Damage::ZerosAtTheEnd,
    Damage::OneByte,
];

impl Damage {
    fn to(self, path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let n = bytes.len();
        match self {
            Self::Missing => return std::fs::remove_file(path).unwrap(),
            Self::Empty => bytes.clear(),
            Self::CutInHalf => bytes.truncate(n / 2),
            Self::ZerosAtTheEnd => bytes[n - (n / 3).min(4096)..].fill(0),
            Self::OneByte if n > 0 => bytes[n / 2] ^= 0x20,
            Self::OneByte => {}
        }
        std::fs::write(path, bytes).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Files in a folder, by their kind: one of each is enough.
fn kinds(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut seen = BTreeSet::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    // The largest of each kind first.
    paths.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    let kind = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let extension = path.extension().map(|it| it.to_str().unwrap().to_owned());
        extension.unwrap_or_else(|| name.split('-').next().unwrap().to_owned())
    };
    let named = paths.into_iter().map(|path| (kind(&path), path));
    named
        .filter(|(kind, _)| seen.insert(kind.clone()))
        .collect()
}

/// Whatever is damaged: the same input again either gives what was there, or is refused with what to do about it, or
/// `verify` finds what is missing. A database never passes for whole that is not.
#[test]
fn a_damaged_database_is_whole_again_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("events");
    std::fs::write(&input, generated(12_000, 30, 71)).unwrap();
    let input = input.to_str().unwrap();
    let args = |db: &Path| {
        let db = db.to_str().unwrap().to_owned();
        let fixed = [
            "-q",
            "--threshold=0.5",
            "--memtable-mib=1",
            "--checkpoint-mib=1",
        ];
        let fixed = fixed.map(str::to_owned).into_iter();
        fixed
            .chain([input.to_owned(), "--db".to_owned(), db])
            .collect::<Vec<_>>()
    };
    let quiet = folder.path().join("quiet");
    let again = |db: &Path| {
        let args = args(db);
        run(
            "sg-run",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            b"",
        )
    };
    again(&quiet).expect_code(0);
    let full = |db: &Path| admin("verify", db, &["--digest"]);
    let expected = full(&quiet).expect_code(0).stdout;
    // One that was killed at its end has all of it, partly in a log.
    let killed = folder.path().join("killed");
    let mut following = program("sg-run")
        .args(args(&killed))
        .arg("--follow")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let n_events = || {
        let shown = killed.to_str().unwrap();
        let ran = run("sg-query", &["stats", "--db", shown], b"");
        ran.json_lines()
            .first()
            .map_or(0, |stats| stats["events"].as_u64().unwrap())
    };
    assert!(wait_for(|| n_events() == 12_000));
    following.kill().unwrap();
    following.wait().unwrap();
    let mut outcomes: Vec<(String, bool)> = Vec::new();
    for (form, good) in [("closed", &quiet), ("killed", &killed)] {
        for (kind, path) in kinds(good) {
            for damage in DAMAGES {
                let what = format!("{form}, {kind}, {damage:?}");
                let db = folder.path().join("db");
                copy(good, &db);
                damage.to(&db.join(path.file_name().unwrap()));
                let mut ran = again(&db);
                if ran.code == 0 {
                    ran = full(&db);
                    if ran.code == 0 {
                        assert!(ran.stdout == expected, "{what}: {}", ran.text());
                    }
                }
                let is_whole = ran.code == 0;
                if !is_whole {
                    // Less than the newest list of files is a list of files to RocksDB: what is missing is found.
                    let is_found = ran.code == 1 && ran.stderr.contains("findings");
                    assert!(
                        ran.code == 2 || is_found,
                        "{what}: {} {}",
                        ran.code,
                        ran.stderr
                    );
                    let says = |words: &str| ran.stderr.contains(words);
                    assert!(
                        says("restore") || says("holds no StreamGuard data"),
                        "{what}: {}",
                        ran.stderr
                    );
                }
                outcomes.push((what, is_whole));
                std::fs::remove_dir_all(&db).unwrap();
            }
        }
    }
    let is_whole = |what: &str| {
        outcomes
            .iter()
            .find(|(name, _)| name == what)
            .map(|it| it.1)
    };
    // What lies in tables does not come again. The end of a log does, unless a table holds what came behind it.
    assert_eq!(is_whole("closed, LOG, Missing"), Some(true));
    for damage in ["Missing", "Empty", "CutInHalf", "OneByte"] {
        assert_eq!(
            is_whole(&format!("closed, sst, {damage}")),
            Some(false),
            "{damage}"
        );
        let manifest = is_whole(&format!("closed, MANIFEST, {damage}"));
        assert_eq!(manifest, Some(false), "{damage}");
    }
}

/// The drill of docs/backup.md: what a disk has taken with it comes from a backup and from the input.
#[test]
fn a_lost_database_comes_back_from_a_backup_and_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (input, db, quiet, backups) = (path("events"), path("db"), path("quiet"), path("backups"));
    let lines = generated(60_000, 40, 71);
    let args = |db: &Path| {
        let all = [
            Path::new("-q"),
            Path::new("--threshold=0.5"),
            &input,
            Path::new("--db"),
            db,
        ];
        all.map(|arg| arg.to_str().unwrap().to_owned())
    };
    let sg_run = |db: &Path| {
        let args = args(db);
        run("sg-run", &args.each_ref().map(String::as_str), b"").expect_code(0)
    };
    // Backups of a file that grows, the second one of what has changed.
    let half = memchr::memchr_iter(b'\n', &lines).nth(29_999).unwrap() + 1;
    std::fs::write(&input, &lines[..half]).unwrap();
    sg_run(&db);
    let to = backups.to_str().unwrap();
    admin("backup", &db, &["--to", to]).expect_code(0);
    std::fs::write(&input, &lines).unwrap();
    sg_run(&db);
    admin("backup", &db, &["--to", to]).expect_code(0);
    sg_run(&quiet);
    let full = |db: &Path| admin("verify", db, &["--digest"]).expect_code(0).stdout;
    for number in ["1", "2"] {
        // Damage is found by whoever looks, told, and nothing of it is shown.
        damage_a_table(&db);
        let ran = admin("verify", &db, &[]).expect_code(2);
        assert!(ran.stderr.contains("restore"), "{}", ran.stderr);
        std::fs::remove_dir_all(&db).unwrap();
        let from = ["--from", to, "--backup", number];
        admin("restore", &db, &from).expect_code(0);
        sg_run(&db);
        assert_eq!(full(&db), full(&quiet), "from backup {number}");
    }
}
