//! What the store knows of stretches of time: that the numbers are those of the events whatever has happened
//! to them, and that questions which are answered by them are answered as if by the events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use streamguard::query::{Bucket, Parts, Timeline, timeline};
use streamguard::store::{Live, Tuning, View};

use crate::database::{admin, lines_of, raw, scored, store};
use crate::query_model::{ask, is_failure};
use crate::tools::{digest, event, run, testdata};

const STRETCH_MS: i64 = 1 << 20;
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];

/// Events, failures, and the highest score of each severity or a lower one.
type Counts = (u64, u64, [f64; 4]);

/// By the records, past StreamGuard.
fn kept(db: &Path) -> BTreeMap<i64, Counts> {
    let db = raw(db);
    let meta = db.cf_handle("meta").unwrap();
    let mode = rocksdb::IteratorMode::From(b"stretch:", rocksdb::Direction::Forward);
    let entries = db.iterator_cf(meta, mode).map(Result::unwrap);
    let entries = entries.take_while(|(key, _)| key.starts_with(b"stretch:"));
    let counts = entries.map(|(key, value)| {
        let (words, rest) = value.as_chunks::<8>();
        assert_eq!((words.len(), rest.len()), (6, 0));
        let mut highest = [0.0_f64; 4];
        for (i, word) in words[2..].iter().enumerate() {
            let below = if i == 0 { 0.0 } else { highest[i - 1] };
            highest[i] = f64::from_be_bytes(*word).max(below);
        }
        let number = std::str::from_utf8(&key[8..]).unwrap().parse().unwrap();
        let [n_events, n_failed] = [words[0], words[1]].map(u64::from_be_bytes);
        (number, (n_events, n_failed, highest))
    });
    counts.collect()
}

fn severity_of(event: &Value) -> Option<usize> {
    let severity = event["anomaly"]["severity"].as_str()?;
    SEVERITIES.iter().position(|name| *name == severity)
}

/// By the events.
fn counted(events: &[Value]) -> BTreeMap<i64, Counts> {
    let mut all: BTreeMap<i64, Counts> = BTreeMap::new();
    for event in events {
        let counts = all.entry(event["timestamp"].as_i64().unwrap() >> 20);
        let counts = counts.or_default();
        counts.0 += 1;
        counts.1 += u64::from(is_failure(event));
        if let Some(severity) = severity_of(event) {
            let score = event["anomaly"]["anomaly_score"].as_f64().unwrap();
            for highest in &mut counts.2[severity..] {
                *highest = highest.max(score);
            }
        }
    }
    all
}

/// Numbers are those of the events; scores are, too, or may be too high.
#[track_caller]
fn check(db: &Path, is_exact: bool) {
    admin("verify", db, &[]).expect_code(0);
    let events = ask(db, &["export"]).json_lines();
    let (kept, counted) = (kept(db), counted(&events));
    if is_exact {
        assert!(kept == counted, "{kept:?}\n{counted:?}");
    }
    assert!(kept.keys().eq(counted.keys()));
    for (number, (n_events, n_failed, highest)) in &counted {
        let kept = &kept[number];
        assert_eq!((kept.0, kept.1), (*n_events, *n_failed), "{number}");
        assert!(kept.2.iter().zip(highest).all(|(kept, it)| kept >= it));
    }
}

#[test]
fn they_are_those_of_the_events_whatever_happens() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = scored(4_000, 8, 23);
    let pieces = lines_of(&lines);
    // Not in order of time, twice, and in several runs.
    for piece in [2_000..3_000, 0..1_500, 500..2_500, 2_400..4_000] {
        store(&db, &pieces[piece].concat()).expect_code(0);
        check(&db, true);
    }
    let all = digest(&db);
    // A higher score is taken at once, a lower one is forgotten with its stretch only.
    for shift in ["0.999999", "0.500001"] {
        let rescored: Vec<String> = (pieces.iter().step_by(3))
            .map(|line| {
                let line = std::str::from_utf8(line).unwrap();
                let Some((before, after)) = line.split_once("\"anomaly_score\":") else {
                    return line.to_owned();
                };
                let after = after.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
                format!("{before}\"anomaly_score\":{shift}{after}")
            })
            .collect();
        let args = ["--rescore", "--db", db.to_str().unwrap()];
        run("sg-store", &args, rescored.concat().as_bytes()).expect_code(0);
        check(&db, shift == "0.999999");
    }
    run(
        "sg-store",
        &["--rescore", "--db", db.to_str().unwrap()],
        &lines,
    )
    .expect_code(0);
    assert_eq!(digest(&db), all);
    check(&db, false);
    for n in [1, 1_000, 3_999, 4_000] {
        let before: Value = serde_json::from_slice(pieces[n - 1]).unwrap();
        let before = before["timestamp"].as_i64().unwrap() + 1;
        admin("prune", &db, &[&format!("--before={before}")]).expect_code(0);
        check(&db, false);
    }
    assert_eq!(kept(&db).len(), 0);
}

/// Large writes take another way into the store; so many events are counted by stretches.
#[test]
fn they_are_right_after_large_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let lines = scored(60_000, 50, 29);
    let pieces = lines_of(&lines);
    store(&path("all"), &lines).expect_code(0);
    assert!(kept(&path("all")).len() > 1_000);
    check(&path("all"), true);
    store(&path("former"), &pieces[..50_000].concat()).expect_code(0);
    store(&path("later"), &pieces[45_000..].concat()).expect_code(0);
    let events = ask(&path("all"), &["export"]).json_lines();
    let ms = |i: usize| events[i]["timestamp"].as_i64().unwrap();
    for asked in [
        (None, None, 100),
        (None, None, 1),
        (Some(ms(10) + 1), Some(ms(59_000)), 7),
        (Some(-5), Some(i64::MAX), 500),
    ] {
        let found = times_of(&path("all"), asked);
        assert!(found.buckets == recount(&events, &found), "{asked:?}");
        assert!(found.buckets.len() <= asked.2);
        assert_eq!(
            (found.since_ms % STRETCH_MS, found.bucket_ms % STRETCH_MS),
            (0, 0)
        );
        let (since_ms, until_ms) = (asked.0.unwrap_or(ms(0)), asked.1.unwrap_or(ms(59_999)));
        let until_ms = until_ms.min(999_999_999_999_999);
        assert!(found.since_ms <= since_ms.max(0) && found.until_ms >= until_ms);
        assert!(found.until_ms - until_ms < STRETCH_MS);
        // What two have is counted once.
        let merged = times_of_all(&["former", "later"].map(path), asked);
        assert!(merged == found, "{asked:?}\n{merged:?}\n{found:?}");
    }
}

/// Questions for high scores read no more than the stretches that have some.
#[test]
fn what_is_not_high_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &scored(3_000, 6, 31)).expect_code(0);
    let found = |args: &[&str]| {
        let args = [&["anomalies", "--min-score=0.55"], args].concat();
        ask(&db, &args).json_lines().len()
    };
    let n_all = found(&["--limit=9999"]);
    assert!(n_all > 50, "{n_all}");
    // Records that say too little are believed, which verify tells of.
    {
        let db = raw(&db);
        let meta = db.cf_handle("meta").unwrap();
        let mode = rocksdb::IteratorMode::From(b"stretch:", rocksdb::Direction::Forward);
        for entry in db.iterator_cf(meta, mode) {
            let (key, mut value) = entry.unwrap();
            if key.starts_with(b"stretch:") {
                value[16..].fill(0);
                db.put_cf(meta, key, value).unwrap();
            }
        }
    }
    for args in [&[][..], &["--oldest-first"], &["--severity=medium"]] {
        assert_eq!(found(args), 0, "{args:?}");
    }
    let ran = admin("verify", &db, &[]).expect_code(1);
    assert!(
        ran.stderr.contains("says less than its highest score"),
        "{}",
        ran.stderr
    );
    // They are of another number of events: an earlier release has written since.
    {
        let db = raw(&db);
        let meta = db.cf_handle("meta").unwrap();
        assert_eq!(db.get_cf(meta, "stretches").unwrap().unwrap(), b"3000");
        db.put_cf(meta, "stretches", "2999").unwrap();
    }
    assert_eq!(found(&["--limit=9999"]), n_all);
    // Who writes next makes them anew.
    store(&db, event("new", "u", 1).as_bytes()).expect_code(0);
    assert_eq!(found(&["--limit=9999"]), n_all);
    check(&db, true);
}

#[test]
fn what_an_earlier_release_has_stored_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("v1");
    std::fs::create_dir(&db).unwrap();
    for entry in std::fs::read_dir(testdata("schema/v1")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), db.join(entry.file_name())).unwrap();
    }
    let question = ["anomalies", "--min-score=0.7", "--limit=9999"];
    let before = ask(&db, &question).expect_code(0).stdout;
    let times = times_of(&db, (None, None, 30));
    assert_eq!(kept(&db).len(), 0);
    admin("prune", &db, &["--before=1"]).expect_code(0);
    check(&db, true);
    assert_eq!(ask(&db, &question).stdout, before);
    let events = ask(&db, &["export"]).json_lines();
    for times in [times, times_of(&db, (None, None, 30))] {
        assert_eq!(times.buckets, recount(&events, &times));
    }
}

type Asked = (Option<i64>, Option<i64>, usize);

fn times_of(db: &Path, asked: Asked) -> Timeline {
    times_of_all(&[db.to_owned()], asked)
}

fn times_of_all(databases: &[PathBuf], (since_ms, until_ms, n_buckets): Asked) -> Timeline {
    let open = |db: &PathBuf| Live::open(db, &Tuning::default()).unwrap();
    let lives: Vec<Live> = databases.iter().map(open).collect();
    let views: Vec<View<'_>> = lives.iter().map(|live| live.view().unwrap()).collect();
    timeline(Parts::of(&views), since_ms, until_ms, n_buckets).unwrap()
}

/// A timeline by the events themselves, with the ends and the buckets of another one.
fn recount(events: &[Value], of: &Timeline) -> Vec<Bucket> {
    let zero = |bucket: &Bucket| Bucket {
        start_ms: bucket.start_ms,
        ..Bucket::default()
    };
    let mut buckets: Vec<Bucket> = of.buckets.iter().map(zero).collect();
    for event in events {
        let ms = event["timestamp"].as_i64().unwrap();
        if (of.since_ms..=of.until_ms).contains(&ms) {
            let bucket = &mut buckets[usize::try_from((ms - of.since_ms) / of.bucket_ms).unwrap()];
            bucket.events += 1;
            bucket.failed += u64::from(is_failure(event));
            let anomalies = &mut bucket.anomalies;
            match severity_of(event) {
                Some(0) => anomalies.low += 1,
                Some(1) => anomalies.medium += 1,
                Some(2) => anomalies.high += 1,
                Some(_) => anomalies.critical += 1,
                None => (),
            }
        }
    }
    buckets
}

#[test]
fn a_timeline_counts_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let lines = scored(9_000, 10, 37);
    let pieces = lines_of(&lines);
    store(&path("all"), &lines).expect_code(0);
    store(&path("former"), &pieces[..6_000].concat()).expect_code(0);
    store(&path("later"), &pieces[4_000..].concat()).expect_code(0);
    let events = ask(&path("all"), &["export"]).json_lines();
    let ms = |i: usize| events[i]["timestamp"].as_i64().unwrap();
    for asked in [
        (None, None, 100),
        (None, None, 1),
        (None, None, 9_999),
        (Some(ms(10) + 1), Some(ms(8_000)), 7),
        (Some(ms(4_000)), Some(ms(4_200)), 500),
        (Some(ms(5_000)), Some(ms(5_000)), 10),
        (Some(0), Some(ms(100)), 3),
        (Some(-5), Some(i64::MAX), 500),
        (Some(ms(200)), Some(ms(100)), 5),
    ] {
        let found = times_of(&path("all"), asked);
        assert!(
            found.buckets == recount(&events, &found),
            "{asked:?}\n{found:?}"
        );
        assert!(found.buckets.len() <= asked.2.min(500), "{asked:?}");
        if let (Some(since_ms), Some(until_ms)) = (asked.0, asked.1) {
            let expected = (since_ms.max(0), until_ms.min(999_999_999_999_999));
            assert_eq!((found.since_ms, found.until_ms), expected, "{asked:?}");
        }
        // What two have is counted once.
        for databases in [["former", "later"], ["later", "former"]] {
            let merged = times_of_all(&databases.map(path), asked);
            assert!(merged == found, "{asked:?}\n{merged:?}\n{found:?}");
        }
    }
    let nothing = times_of(&path("all"), (Some(ms(200)), Some(ms(100)), 5));
    assert_eq!(nothing.buckets, []);
}
