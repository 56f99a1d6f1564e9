//! What `--memory-limit` promises: it holds whatever users are made up, and changes nothing but speed.

use std::fmt::Write as _;
use std::hash::RandomState;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use streamguard::batch::{Batch, Block, Learned, Records};
use streamguard::detect::adaptive::{Adaptive, Deltas};
use streamguard::detect::{Detector, DetectorConfig, DetectorKind, UserKey};
use streamguard::engine::Sink;
use streamguard::record::LINE_BYTES_MAX;
use streamguard::store::{Access, Store, Tuning, Writer, WriterOptions};

use crate::database::admin;
use crate::kills::kill_and_repeat;
use crate::tools::{Ran, Running, event_and, generated, program, run, shell};

const ADAPTIVE: &str = "--detector=adaptive";
const LIMIT: &str = "--memory-limit=256MiB";
const LIMIT_BYTES: u64 = 256 << 20;

/// As many users as the limit has no room for, not even for their records, each with some events.
fn many_users() -> Vec<u8> {
    generated(240_000, 120_000, 91)
}

/// Users who come once and never again, as an attacker makes them up.
fn flood(n_users: u32) -> String {
    let mut lines = String::new();
    for i in 0..n_users {
        writeln!(
            lines,
            r#"{{"event_id":"e{i}","user":"made-up-{i}","timestamp":{},"type":"LOGIN_FAILED","source_ip":"10.{}.{}.{}","geo_location":"City {i}, C{i}","metadata":{{"user_agent":"ua/{i}","device":"d{i}"}}}}"#,
            1_735_689_600_000_i64 + i64::from(i) * 20,
            i >> 16,
            i >> 8 & 255,
            i & 255,
        )
        .unwrap();
    }
    lines
}

fn score(args: &[&str], input: &[u8]) -> Ran {
    run(
        "sg-score",
        &[&["--threshold=0.9", ADAPTIVE], args].concat(),
        input,
    )
    .expect_code(0)
}

#[track_caller]
fn assert_moved(ran: &Ran) {
    let words = "baselines were moved out of memory";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[test]
fn scores_and_baselines_do_not_depend_on_the_limit() {
    let lines = many_users();
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| format!("--state={}", folder.path().join(name).display());
    // So many that they fit in packed.
    let few = generated(90_000, 45_000, 91);
    let packed = score(&[LIMIT], &few);
    assert!(!packed.stderr.contains("moved"), "{}", packed.stderr);
    assert!(packed.stdout == score(&[], &few).stdout);
    let roomy = score(&[&state("roomy")], &lines);
    assert!(!roomy.stderr.contains("moved"), "{}", roomy.stderr);
    let narrow = score(&[LIMIT, &state("narrow")], &lines);
    assert_moved(&narrow);
    assert!(roomy.stdout == narrow.stdout);
    let exported = |name: &str| {
        let ran = run("sg-score", &["export", &state(name)], b"").expect_code(0);
        assert!(ran.stdout.len() > 1 << 20);
        ran.stdout
    };
    assert!(exported("roomy") == exported("narrow"));

    let half = &lines[..lines.len() / 2];
    let half = &half[..=half.iter().rposition(|&byte| byte == b'\n').unwrap()];
    let roomy = score(&[&state("roomy")], half);
    let narrow = score(&[LIMIT, "--jobs=1", &state("narrow")], half);
    assert_moved(&narrow);
    assert!(roomy.stdout == narrow.stdout);
    assert!(exported("roomy") == exported("narrow"));
}

#[test]
fn a_store_does_not_depend_on_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("in"), many_users()).unwrap();
    let script = format!(
        "cd {at}; export SG_DETECTOR=adaptive; head -n 180000 in > log
         sg-run log --db roomy -q; SG_MEMORY_LIMIT=256MiB sg-run log --db narrow
         tail -n +180001 in >> log
         sg-run log --db roomy -q; SG_MEMORY_LIMIT=256MiB sg-run log --db narrow
         for db in roomy narrow; do sg-store verify --digest --db $db; done"
    );
    let ran = shell(&script).expect_code(0);
    assert_eq!(
        ran.stderr.matches("moved out of memory").count(),
        2,
        "{}",
        ran.stderr
    );
    let digests = ran.json_lines();
    // Baselines are part of it.
    assert!(digests[0]["baselines"].as_str().unwrap().len() == 64);
    assert_eq!(digests[0], digests[1]);
}

/// The record of a user who was seen with as many values as are kept.
fn full_record() -> Vec<u8> {
    let mut block = Block::new();
    for i in 0..300 {
        let line = format!(
            r#"{{"event_id":"e{i}","user":"u","timestamp":{},"type":"TYPE_{}","source_ip":"10.{}.{i}.1","geo_location":"City {i}, C{i}","metadata":{{"asn":{i},"user_agent":"ua/{i}","device":"d{i}","endpoint":"/a{i}/b/{i}"}}}}"#,
            1_735_689_600_000_i64 + i64::from(i) * 3_600_000,
            i % 24,
            i % 256,
            i = i % 256,
        );
        block.lines.extend_from_slice(line.as_bytes());
        block.lines.push(b'\n');
    }
    block.parse(LINE_BYTES_MAX);
    assert_eq!(block.events.len(), 300);
    let mut detector = Adaptive::new(DetectorConfig::standard(DetectorKind::Adaptive));
    let mut deltas = Deltas::default();
    let key = UserKey::of("u", &RandomState::new());
    let mut user = None;
    for event in &block.events {
        let features = Adaptive::features(&block.view(event));
        if detector.begins_epoch(key, &features, 0) {
            detector.turn_epoch(&mut deltas, 0, true);
        }
        let user = user.get_or_insert_with(|| detector.new_user(&features));
        detector.risk(key, user, &mut deltas, &features);
        detector.turn_epoch(&mut deltas, 1, false);
    }
    let mut record = Vec::new();
    detector.write_user(&user.unwrap(), &mut record);
    assert!(record.len() > 5_000, "{}", record.len());
    record
}

const N_FULL_USERS: usize = 25_000;

/// Short events of all of them in another order each time, which are 13,000 users a MiB; every hundredth
/// line is no event.
fn short_events(n_rounds: usize) -> String {
    let mut lines = String::new();
    for round in 0..n_rounds {
        for i in 0..N_FULL_USERS {
            let user = i * (7_919 + 2 * round) % N_FULL_USERS;
            let now_ms = 1_738_000_000_000 + (round * N_FULL_USERS + i) as u64 * 10;
            let id = if i % 100 == 7 { "" } else { "\"event_id\":" };
            writeln!(
                lines,
                r#"{{{id}"{round}-{i}","user":"u{user}","timestamp":{now_ms},"type":"\u004c"}}"#
            )
            .unwrap();
        }
    }
    lines
}

/// A database with the baselines of those users.
fn full_database(path: &Path, record: &[u8]) {
    let tuning = Tuning {
        memtable_bytes: 64 << 20,
        ..Tuning::default()
    };
    let store = Arc::new(Store::open(path, Access::Write, &tuning).unwrap());
    let options = WriterOptions {
        gathered_bytes_max: 2 << 20,
        sync: false,
        detector: Some("adaptive"),
        with_positions: false,
        n_kept: Arc::default(),
        keeper: None,
        outbox: None,
        notice: None,
        rescore: false,
        pipe: None,
        tee: None,
    };
    let mut writer = Writer::new(store, options).unwrap();
    let mut records = Records::default();
    for i in 0..N_FULL_USERS {
        records.push(&format!("u{i}"), |bytes| bytes.extend_from_slice(record));
    }
    let learned = Learned {
        task: Arc::default(),
        baselines: vec![records],
        shared: Vec::new(),
    };
    let mut batch = Batch {
        is_commit: true,
        is_checkpoint: true,
        learned: vec![learned],
        ..Batch::default()
    };
    writer.write(&mut batch).unwrap();
    writer.finish().unwrap();
}

/// 500 KB of lines brought 7,500 users to memory at once, each 8 KB and the record on top, and none of
/// them could leave it before a checkpoint, whose records and their write came on top of that: with
/// 40,000 such users `sg-run` took 1 GB at a limit of 256 MiB.
#[test]
fn users_with_long_records_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    full_database(&at("narrow"), &full_record());
    shell(&format!("cp -r {} {}", path("narrow"), path("roomy"))).expect_code(0);
    let input = short_events(2);
    std::fs::write(at("in"), &input).unwrap();
    let at_narrow = path("narrow");
    let args = [ADAPTIVE, "--threshold=0.9", "--no-sync", &path("in")];
    let roomy = run(
        "sg-run",
        &[&args[..], &["--db", &path("roomy")]].concat(),
        b"",
    );
    let narrow = [&args[..], &[LIMIT, "--db", &at_narrow]].concat();
    let (peak_bytes, narrow) = peak_of(Running::start("sg-run", &narrow), String::new());
    assert!(peak_bytes < LIMIT_BYTES, "sg-run: {peak_bytes}");
    assert_moved(&narrow);
    assert_eq!((roomy.code, narrow.code), (1, 1), "{}", narrow.stderr);
    assert_eq!(full_digest(&at("roomy")), full_digest(&at("narrow")));
}

/// The same with a state folder.
#[test]
fn long_records_of_a_state_folder_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| format!("--state={}", folder.path().join(name).display());
    let record = BASE64_STANDARD.encode(full_record());
    let mut import = String::new();
    for i in 0..N_FULL_USERS {
        writeln!(
            import,
            r#"{{"user":"u{i}","detector":"adaptive","version":65,"record_b64":"{record}"}}"#
        )
        .unwrap();
    }
    for name in ["roomy", "narrow"] {
        run("sg-score", &["import", &state(name)], import.as_bytes()).expect_code(0);
    }
    drop(import);
    let input = short_events(2);
    let args = [ADAPTIVE, "--threshold=0.9"];
    let (at_roomy, at_narrow) = (state("roomy"), state("narrow"));
    let roomy = [&args[..], &[&at_roomy]].concat();
    let roomy = run("sg-score", &roomy, input.as_bytes()).expect_code(1);
    let narrow = [&args[..], &[LIMIT, &at_narrow]].concat();
    let (peak_bytes, narrow) = peak_of(Running::start("sg-score", &narrow), input);
    assert!(peak_bytes < LIMIT_BYTES, "sg-score: {peak_bytes}");
    assert_moved(&narrow);
    assert!(roomy.stdout == narrow.stdout);
    let baselines = |name: &str| run("sg-score", &["export", &state(name)], b"").expect_code(0);
    assert!(baselines("roomy").stdout == baselines("narrow").stdout);
}

/// Events, anomalies and baselines of a database.
fn full_digest(db: &Path) -> Vec<u8> {
    admin("verify", db, &["--digest"]).expect_code(0).stdout
}

/// With a low limit there are checkpoints all the time, some of them within a block.
#[test]
fn a_run_with_a_limit_goes_on_where_it_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut input = many_users();
    // Short lines: more of them than are scored at once.
    for i in 0..30_000 {
        let user = i * 7 % 20_000;
        let now_ms = 1_770_000_000_000_u64 + i;
        let line =
            format!(r#"{{"event_id":"s{i}","user":"v{user}","timestamp":{now_ms},"type":"T"}}"#);
        input.extend_from_slice(line.as_bytes());
        input.push(b'\n');
    }
    std::fs::write(at("in"), input).unwrap();
    let command = |db: &Path, limit: &str| {
        let mut command = program("sg-run");
        command
            .args([ADAPTIVE, "-q", "--no-sync", limit, "--db"])
            .args([db, &at("in")])
            .stdin(Stdio::null());
        command
    };
    assert!(
        command(&at("quiet"), "--memory-limit=2GiB")
            .status()
            .unwrap()
            .success()
    );
    let n_killed = kill_and_repeat(&|| command(&at("killed"), LIMIT).spawn().unwrap(), 8, 211);
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    assert!(command(&at("killed"), LIMIT).status().unwrap().success());
    assert_eq!(full_digest(&at("killed")), full_digest(&at("quiet")));
}

#[test]
fn what_does_not_fit_into_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = format!("--db={}", folder.path().join("db").display());
    for (name, option, words) in [
        (
            "sg-run",
            "--memtable-mib=4000",
            "--memtable-mib 4000 does not fit into --memory-limit 256MiB: 19 would, or a limit of ",
        ),
        ("sg-run", "--memtable-mib=20", "19 would"),
        (
            "sg-run",
            "--cache-mib=1000",
            "--cache-mib 1000 does not fit into --memory-limit 256MiB: 76 would, or a limit of ",
        ),
        ("sg-run", "--line-bytes-max=16777217", "16777216 would"),
        ("sg-score", "--line-bytes-max=100000000", "16777216 would"),
    ] {
        let db = [&*db];
        let args = [&[LIMIT, option], &db[..usize::from(name == "sg-run")]].concat();
        let ran = run(name, &args, b"").expect_code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    assert!(!folder.path().join("db").exists());
    let args = [
        LIMIT,
        "--memtable-mib=19",
        "--line-bytes-max=16777216",
        "-q",
        &db,
    ];
    run("sg-run", &args, b"").expect_code(0);
    let args = [LIMIT, "--cache-mib=76", "-q", &db];
    run("sg-run", &args, b"").expect_code(0);
}

/// Lines of 64 MB were let through by a dozen at a time.
#[test]
fn long_lines_stay_within_the_limit() {
    let pad = "x".repeat(15 << 20);
    let mut input = String::new();
    for i in 0..30 {
        let line = event_and(&format!(r#""pad":"\u0041{pad}","n":{i}"#));
        input.push_str(&line);
        input.push('\n');
    }
    // One that is too long for the limit.
    input.push_str(&event_and(&format!(r#""pad":"{pad}{pad}""#)));
    input.push('\n');
    let args = [ADAPTIVE, LIMIT, "--emit=anomalies"];
    let (peak_bytes, ran) = peak_of(Running::start("sg-score", &args), input);
    let ran = ran.expect_code(1);
    assert!(ran.stderr.contains(" + rejected 1 + "), "{}", ran.stderr);
    assert!(peak_bytes < LIMIT_BYTES, "{peak_bytes}");
}

/// Runs a program to its end, and returns the most memory that was seen.
fn peak_of(mut running: Running, input: String) -> (u64, Ran) {
    let stdin = running.stdin.take();
    let writer = std::thread::spawn(move || stdin.unwrap().write_all(input.as_bytes()).unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut peak_bytes = 0;
    while !running.has_ended() {
        assert!(Instant::now() < deadline, "{}", running.stderr());
        peak_bytes = running.peak_bytes().max(peak_bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.join().unwrap();
    (peak_bytes, running.end())
}

#[test]
fn made_up_users_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let db = format!("--db={}", folder.path().join("db").display());
    let state = format!("--state={}", folder.path().join("state").display());
    for (name, args) in [
        ("sg-score", &[ADAPTIVE, LIMIT, "--emit=incidents"][..]),
        ("sg-score", &[ADAPTIVE, LIMIT, "--emit=incidents", &state]),
        ("sg-run", &[ADAPTIVE, LIMIT, "--no-sync", &db]),
    ] {
        let (peak_bytes, ran) = peak_of(Running::start(name, args), flood(200_000));
        let ran = ran.expect_code(0);
        assert_moved(&ran);
        assert!(
            peak_bytes > LIMIT_BYTES / 4,
            "{name}: {peak_bytes} was not the peak"
        );
        assert!(peak_bytes < LIMIT_BYTES, "{name}: {peak_bytes}");
    }
}

#[test]
fn no_room_on_the_disk_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_sg-score"))
        .args(["-q", LIMIT])
        .env("TMPDIR", "/nowhere")
        .stdin(std::fs::File::open(input_file().path()).unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let words = "cannot make a folder in /nowhere for baselines that exceed --memory-limit";
    assert!(stderr.contains(words), "{stderr}");
}

fn input_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), flood(300_000)).unwrap();
    file
}

#[test]
fn what_is_no_limit_is_refused() {
    for wrong in ["1MiB", "x", "12", "1.5GiB"] {
        let ran = run("sg-score", &["--memory-limit", wrong], b"").expect_code(2);
        assert!(ran.stderr.contains("--memory-limit"), "{}", ran.stderr);
    }
}
