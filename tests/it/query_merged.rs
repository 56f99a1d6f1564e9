//! What `sg-query` promises of several databases: they answer as one that holds all of it would, byte
//! for byte, however the events are spread over them and in whatever order they are named.
//!
//! `disk_bytes` of `stats` is not compared, since it is that of other files, nor is which types are
//! counted one by one if there are more than 256 of them, which depends on what came first.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::database::{admin, lines_of, raw, store};
use crate::query_model::odd_lines;
use crate::tools::{DETECTORS, Ran, event, generated, program, run};

/// One database that holds everything, and others that hold it together.
struct Spread {
    whole: PathBuf,
    parts: Vec<PathBuf>,
    _folder: TempDir,
}

impl Spread {
    /// `places` says in which of the parts a line is stored, by its number and its fields.
    fn new(lines: &[u8], n_parts: usize, places: impl Fn(usize, &Value) -> Vec<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut of_parts = vec![Vec::new(); n_parts];
        for (i, line) in lines_of(lines).into_iter().enumerate() {
            for place in places(i, &serde_json::from_slice(line).unwrap()) {
                of_parts[place].extend_from_slice(line);
            }
        }
        let whole = folder.path().join("whole");
        store(&whole, lines).expect_code(0);
        let named = |i: usize| folder.path().join(format!("part{i}"));
        let parts: Vec<PathBuf> = (0..n_parts).map(named).collect();
        for (part, lines) in parts.iter().zip(&of_parts) {
            store(part, lines).expect_code(0);
        }
        Self {
            whole,
            parts,
            _folder: folder,
        }
    }

    /// Gives verdicts to parts, then the newest of each event to the whole.
    fn give(&self, given: &[(&str, usize, &str)]) {
        for (event_id, part, verdict) in given {
            let args = ["--verdict", verdict, "--note", verdict, "--", event_id];
            admin("feedback", &self.parts[*part], &args).expect_code(0);
        }
        let whole = raw(&self.whole);
        // The later ones were given later.
        for (event_id, part, _) in given {
            let part = raw(&self.parts[*part]);
            for (key, value) in entries(&part, "meta", b"feedback:") {
                if key.ends_with(format!(":{event_id}").as_bytes()) {
                    whole
                        .put_cf(whole.cf_handle("meta").unwrap(), key, value)
                        .unwrap();
                }
            }
        }
    }

    #[track_caller]
    fn check(&self, args: &[&str]) -> Ran {
        let expected = ask(std::slice::from_ref(&self.whole), args);
        let mut parts = self.parts.clone();
        // Any order will do, and each is asked for often enough.
        let n_turns = args.iter().map(|arg| arg.len()).sum::<usize>() % parts.len();
        parts.rotate_left(n_turns);
        let ran = ask(&parts, args);
        assert!(ran.text() == expected.text(), "{args:?}: {}", ran.text());
        assert_eq!(
            (ran.code, &ran.stderr),
            (expected.code, &expected.stderr),
            "{args:?}"
        );
        ran
    }

    #[track_caller]
    fn check_stats(&self) {
        let of = |databases: &[PathBuf]| {
            let mut stats = ask(databases, &["stats"]).expect_code(0).json_lines();
            stats[0]["disk_bytes"].take();
            stats
        };
        let expected = of(std::slice::from_ref(&self.whole));
        assert_eq!(of(&self.parts), expected);
        let reversed: Vec<PathBuf> = self.parts.iter().rev().cloned().collect();
        assert_eq!(of(&reversed), expected);
    }

    /// Goes through an answer page by page.
    #[track_caller]
    fn check_pages(&self, args: &[&str]) {
        let all = ask(
            std::slice::from_ref(&self.whole),
            &[args, &["--limit=99999"]].concat(),
        );
        let mut pages = String::new();
        let mut cursor = String::new();
        for limit in [1, 7, 2, 400].into_iter().cycle().take(999) {
            let limit = format!("--limit={limit}");
            let mut args = [args, &[&limit]].concat();
            if !cursor.is_empty() {
                args.extend(["--cursor", &cursor]);
            }
            let ran = ask(&self.parts, &args).expect_code(0);
            pages.push_str(ran.text());
            match ran.stderr.split_once("--cursor ") {
                Some((_, next)) => next.trim_end().clone_into(&mut cursor),
                None => break,
            }
        }
        assert!(pages == all.text(), "{args:?}");
        assert!(all.text().lines().count() > 300, "{args:?}");
    }
}

fn ask(databases: &[PathBuf], args: &[&str]) -> Ran {
    let named = databases
        .iter()
        .map(|db| format!("--db={}", db.to_str().unwrap()));
    let named: Vec<String> = named.collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    // Half of them before the question.
    let (before, behind) = named.split_at(named.len() / 2);
    let (question, rest) = args.split_first().unwrap();
    run(
        "sg-query",
        &[before, &[*question], behind, rest].concat(),
        b"",
    )
}

/// The entries of a family that begin so.
fn entries(db: &rocksdb::DB, family: &str, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = rocksdb::IteratorMode::From(prefix, rocksdb::Direction::Forward);
    db.iterator_cf(db.cf_handle(family).unwrap(), from)
        .map(|entry| {
            entry
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .take_while(|(key, _)| key.starts_with(prefix))
        .collect()
}

fn number_of(event: &Value) -> usize {
    let user = event["user"].as_str().unwrap();
    user[user.len() - 2..].parse().unwrap()
}

/// Scored events of many users, with incidents of several of them.
fn adaptive_lines() -> Vec<u8> {
    let args = ["-q", DETECTORS[1], "--threshold=0.6", "--min-events=20"];
    run("sg-score", &args, &generated(4_000, 25, 61))
        .expect_code(0)
        .stdout
}

/// Every question, each with a third of the filters: which one depends on `n_skipped`.
#[track_caller]
fn check_all(spread: &Spread, lines: &[u8], n_skipped: usize) {
    let lines: Vec<Value> = lines_of(lines)
        .into_iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let middle = &lines[lines.len() / 2];
    let since = format!("--since={}", middle["timestamp"]);
    let until = format!("--until={}", middle["timestamp"]);
    let user = format!("--user={}", middle["user"].as_str().unwrap());
    let kind = format!("--type={}", middle["type"].as_str().unwrap());
    let with_ip = lines.iter().find(|line| line["source_ip"].is_string());
    let ip = format!("--ip={}", with_ip.unwrap()["source_ip"].as_str().unwrap());
    let filters: &[&[&str]] = &[
        &[],
        &["--limit=9999"],
        &[&since, "--limit=9"],
        &[&until],
        &[&user, "--limit=300"],
        &[&kind, &ip],
        &["--min-score=0.57", "--limit=200"],
        &["--severity=high"],
        &["--severity=medium", "--min-score=0.6", &user],
    ];
    let mut n_lines = 0;
    for (i, filter) in filters.iter().enumerate() {
        let questions = [
            &["events"][..],
            &["events", "--oldest-first"],
            &["anomalies"],
            &["anomalies", "--oldest-first"],
            &["anomalies", "--sort=score"],
            &["incidents"],
            &["export"],
            &["export", "--what=anomalies"],
            &["export", "--format=csv"],
        ];
        for question in questions.into_iter().skip((i + n_skipped) % 3).step_by(3) {
            let ran = spread.check(&[question, filter].concat());
            n_lines += ran.text().lines().count();
        }
    }
    assert!(n_lines > 4_000, "{n_lines}");
    for limit in ["--limit=1", "--limit=5", "--limit=12"] {
        for question in [&["anomalies", "--sort=score"][..], &["incidents"]] {
            spread.check(&[question, &[limit]].concat()).expect_code(0);
        }
    }
    for question in ["events", "anomalies", "incidents", "feedback"] {
        spread.check(&[question, "--format=table"]).expect_code(0);
    }
    for line in lines.iter().step_by(lines.len() / 8) {
        let id = line["event_id"].as_str().unwrap();
        spread.check(&["event", id]).expect_code(0);
        spread
            .check(&["user", line["user"].as_str().unwrap()])
            .expect_code(0);
    }
    for args in [
        &[][..],
        &["--limit=2"],
        &[&user],
        &["--since=1h"],
        &["--until=1h"],
    ] {
        spread.check(&[&["feedback"], args].concat());
    }
    spread.check(&["event", "no such id"]).expect_code(1);
    spread.check(&["user", "nobody"]).expect_code(1);
    spread.check_stats();
    for question in [
        &["events"][..],
        &["anomalies"],
        &["anomalies", "--oldest-first", "--min-score=0.52"],
    ] {
        spread.check_pages(question);
    }
}

#[test]
fn users_spread_over_databases_are_as_in_one() {
    for (n_parts, lines, n_skipped) in [(2, odd_lines(), 0), (3, adaptive_lines(), 1)] {
        let spread = Spread::new(&lines, n_parts, |_, event| vec![number_of(event) % n_parts]);
        let first: Value = serde_json::from_slice(lines_of(&lines)[0]).unwrap();
        let place = number_of(&first) % n_parts;
        spread.give(&[(first["event_id"].as_str().unwrap(), place, "benign")]);
        check_all(&spread, &lines, n_skipped);
    }
}

/// As when a partition has moved: some of what is behind its last checkpoint is stored again.
#[test]
fn events_in_several_databases_count_once() {
    for (n_parts, lines, n_skipped) in [(2, adaptive_lines(), 2), (3, odd_lines(), 0)] {
        let spread = Spread::new(&lines, n_parts, |i, event| {
            let place = number_of(event) % n_parts;
            match i % 7 {
                0 => vec![place, (place + 1) % n_parts],
                1 => (0..n_parts).collect(),
                // The user has moved.
                _ if i > 2_000 => vec![(place + 1) % n_parts],
                _ => vec![place],
            }
        });
        let lines_split = lines_of(&lines);
        let id_of = |i: usize| -> String {
            let event: Value = serde_json::from_slice(lines_split[i]).unwrap();
            event["event_id"].as_str().unwrap().to_owned()
        };
        // Events that all of them have.
        let (one, other) = (id_of(1), id_of(8));
        spread.give(&[
            (&one, 0, "benign"),
            (&other, 1, "malicious"),
            (&one, 1, "malicious"),
            (&other, 0, "benign"),
        ]);
        check_all(&spread, &lines, n_skipped);
    }
}

/// One after the other, as with a database for each month; the ends touch.
#[test]
fn times_spread_over_databases_are_as_in_one() {
    let lines = odd_lines();
    let spread = Spread::new(&lines, 3, |i, _| match i {
        1_000 | 2_000 => vec![i / 1_000 - 1, i / 1_000],
        _ => vec![i / 1_000],
    });
    let first: Value = serde_json::from_slice(lines_of(&lines)[0]).unwrap();
    spread.give(&[(first["event_id"].as_str().unwrap(), 0, "benign")]);
    check_all(&spread, &lines, 1);
}

fn with_anomaly(event: &str, score: f64, severity: &str) -> String {
    let fields: Value = serde_json::from_str(event).unwrap();
    let [id, user, timestamp] = ["event_id", "user", "timestamp"].map(|name| &fields[name]);
    format!(
        r#"{},"anomaly":{{"event_id":{id},"user":{user},"timestamp":{timestamp},"anomaly_score":{score},"severity":"{severity}","reasons":[]}}}}"#,
        event.strip_suffix('}').unwrap()
    )
}

/// Filters choose among what is shown without them: a copy that is not shown answers to none.
#[test]
fn of_copies_that_differ_that_with_the_higher_score_counts() {
    let folder = tempfile::tempdir().unwrap();
    let plain = event("e", "u", 7);
    let other = event("e", "another", 7);
    let analysed = plain.replace('}', r#","analysis":{"outcome":"done"}}"#);
    // The worst first.
    let copies = [
        plain.clone(),
        with_anomaly(&other, 0.6, "critical"),
        with_anomaly(&plain, 0.7, "low"),
        with_anomaly(&analysed, 0.7, "low"),
    ];
    let databases: Vec<PathBuf> = (0..copies.len())
        .map(|i| folder.path().join(i.to_string()))
        .collect();
    for (db, copy) in databases.iter().zip(&copies) {
        store(db, copy.as_bytes()).expect_code(0);
    }
    for best in 1..copies.len() {
        for worse in 0..best {
            let pair = [databases[best].clone(), databases[worse].clone()];
            let reversed = [pair[1].clone(), pair[0].clone()];
            for args in [
                &["events"][..],
                &["event", "e"],
                &["anomalies"],
                &["anomalies", "--sort=score"],
                &["export", "--what=anomalies"],
                &["events", "--user=u"],
                &["events", "--user=another"],
                &["events", "--min-score=0.65"],
                &["anomalies", "--severity=critical"],
            ] {
                let expected = ask(&pair[..1], args);
                for databases in [&pair, &reversed] {
                    let ran = ask(databases, args);
                    let what = format!("{best} {worse} {args:?}");
                    assert_eq!(
                        (ran.code, ran.text()),
                        (expected.code, expected.text()),
                        "{what}"
                    );
                }
            }
            if worse != 1 && best != 1 {
                let count = |databases: &[PathBuf]| {
                    let mut stats = ask(databases, &["stats"]).expect_code(0).json_lines();
                    stats[0]["disk_bytes"].take();
                    stats
                };
                assert_eq!(count(&pair), count(&pair[..1]));
                assert_eq!(count(&reversed), count(&pair[..1]));
            }
        }
    }
}

#[test]
fn a_database_is_asked_once_and_one_that_cannot_be_asked_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, other) = (named("one"), named("other"));
    store(Path::new(&one), event("e1", "u", 1).as_bytes()).expect_code(0);
    store(Path::new(&other), event("e2", "u", 2).as_bytes()).expect_code(0);
    let alone = run("sg-query", &["stats", "--db", &one], b"").expect_code(0);
    let link = named("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let same = format!("{one}/../one");
    for args in [
        &["--db", &one, "stats", "--db", &one][..],
        &["stats", "--db", &one, "--db", &link, "--db", &same],
    ] {
        assert_eq!(
            run("sg-query", args, b"").expect_code(0).text(),
            alone.text()
        );
    }
    // Neither where it stands nor the environment takes one away.
    let both = run("sg-query", &["export", "--db", &one, "--db", &other], b"").expect_code(0);
    assert_eq!(both.text().lines().count(), 2);
    let output = program("sg-query")
        .args(["--db", &other, "export", "--db", &one])
        .env("SG_DB", named("nowhere"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, both.stdout);
    let output = program("sg-query")
        .arg("stats")
        .env("SG_DB", &one)
        .output()
        .unwrap();
    assert_eq!(output.stdout, alone.stdout);

    let missing = named("missing");
    let ran = run("sg-query", &["stats", "--db", &one, "--db", &missing], b"");
    let expected = format!("sg-query: there is no database at {missing}\n");
    assert_eq!((ran.code, ran.text(), &ran.stderr), (2, "", &expected));
    std::fs::write(Path::new(&other).join("CURRENT"), "MANIFEST-999999\n").unwrap();
    let ran = run("sg-query", &["events", "--db", &one, "--db", &other], b"").expect_code(2);
    assert!(ran.stderr.contains(&other), "{}", ran.stderr);
    assert_eq!((ran.text(), ran.stderr.lines().count()), ("", 1));

    let many: Vec<String> = (0..65).map(|i| format!("--db={one}{i}")).collect();
    let mut args: Vec<&str> = many.iter().map(String::as_str).collect();
    args.push("stats");
    let ran = run("sg-query", &args, b"").expect_code(2);
    let words = "65 databases are too many to ask together: name at most 64";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

/// Makes a database's baselines those of a partition that was read up to an offset.
fn move_to_task(db: &Path, task: &str, cluster: &str, offset: u64) {
    let db = raw(db);
    let baselines = db.cf_handle("baselines").unwrap();
    for (user, record) in entries(&db, "baselines", b"") {
        let key = [b"\xFF", task.as_bytes(), b"\xFF", &user].concat();
        db.put_cf(baselines, key, record).unwrap();
        db.delete_cf(baselines, user).unwrap();
    }
    let position = format!(r#"{{"cluster":"{cluster}","offset":{offset}}}"#);
    let key = format!("position:{task}");
    db.put_cf(db.cf_handle("meta").unwrap(), key, position)
        .unwrap();
}

/// A partition that has moved leaves an older baseline where it was.
#[test]
fn of_baselines_the_newest_is_shown_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let lines = String::from_utf8(generated(900, 3, 17)).unwrap();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    let learned = |name: &str, lines: &[&str]| {
        let db = folder.path().join(name);
        let args = ["-q", DETECTORS[0], "--db", db.to_str().unwrap()];
        run("sg-run", &args, lines.concat().as_bytes()).expect_code(0);
        db
    };
    let profile = |databases: &[&PathBuf]| {
        let mut databases: Vec<PathBuf> = databases.iter().copied().cloned().collect();
        let args = ["user", "user00001"];
        let ran = ask(&databases, &args).expect_code(0);
        databases.reverse();
        assert_eq!(ask(&databases, &args).stdout, ran.stdout);
        ran.json_lines().remove(0)
    };
    let whole = learned("whole", &lines);
    let expected = profile(&[&whole]);
    assert_eq!(expected["source"], "baseline");
    let mut counted = expected.clone();
    counted["source"] = "events".into();

    // It was at the first owner's, then moved on with all that was known.
    let (former, owner) = (learned("former", &lines[..400]), learned("owner", &lines));
    move_to_task(&former, "kafka:t/0", "c", 400);
    move_to_task(&owner, "kafka:t/0", "c", 900);
    assert_eq!(profile(&[&owner]), expected);
    assert_eq!(profile(&[&former, &owner]), expected);
    // The newest is not all: the former owner has stored what it has never seen.
    let late = learned("late", &lines[400..]);
    move_to_task(&late, "kafka:t/0", "c", 900);
    assert_eq!(profile(&[&former, &late]), counted);
    // Of another partition, another cluster, or no partition at all: each has its own.
    for (name, task, cluster) in [
        ("partition", "kafka:t/1", "c"),
        ("cluster", "kafka:t/0", "d"),
    ] {
        let db = learned(name, &lines[400..]);
        move_to_task(&db, task, cluster, 900);
        assert_eq!(profile(&[&former, &db]), counted, "{name}");
    }
    let (first, second) = (learned("1", &lines[..400]), learned("2", &lines[400..]));
    assert_eq!(profile(&[&first, &second]), counted);
    // What is being restored is of several times.
    let restoring = learned("restoring", &lines);
    move_to_task(&restoring, "kafka:t/0", "c", 900);
    {
        let db = raw(&restoring);
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, "restoring:kafka:t/0", b"").unwrap();
    }
    assert_eq!(profile(&[&former, &restoring]), counted);
    // Events that a plain sg-store has added behind it.
    let added = folder.path().join("added");
    store(&added, lines[400..].concat().as_bytes()).expect_code(0);
    assert_eq!(profile(&[&former, &added]), counted);
}
