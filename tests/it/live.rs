//! Questions beside a program that writes: answered by it, from one moment, and the same as from the files.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use streamguard::query::{self, Filter, Parts, Wanted};
use streamguard::record::anomaly::Severity;
use streamguard::store::{Live, Tuning, View};

use crate::database::{SCORE, stats, store};
use crate::tools::{Ran, Running, generated, run, wait_for};

/// Settings that find many anomalies, of the program that scores and stores.
const RUN: [&str; 4] = [
    "-q",
    "--detector=classic",
    "--threshold=0.5",
    "--min-events=20",
];

fn query(db: &Path, args: &[&str]) -> Ran {
    run(
        "sg-query",
        &[args, &["--db", db.to_str().unwrap()]].concat(),
        b"",
    )
}

/// A program that has read all lines and goes on waiting for more.
fn following(folder: &Path, lines: &[u8], more: &[&str]) -> (Running, PathBuf, PathBuf) {
    let (file, db) = (folder.join("events"), folder.join("db"));
    fs::write(&file, lines).unwrap();
    let args = [
        file.to_str().unwrap(),
        "--follow",
        "--db",
        db.to_str().unwrap(),
    ];
    let running = Running::start("sg-run", &[&args[..], &RUN, more].concat());
    let n_lines = lines.split_inclusive(|byte| *byte == b'\n').count();
    let has_all = || {
        let ran = query(&db, &["stats"]);
        ran.code == 0 && ran.json_lines()[0]["events"] == n_lines
    };
    assert!(wait_for(has_all), "{}", running.stderr());
    (running, file, db)
}

fn stop(running: Running) {
    running.signal(Signal::TERM);
    running.end().expect_code(0);
}

#[test]
fn every_question_is_answered_as_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, db) = following(folder.path(), &generated(20_000, 40, 7), &["--embed"]);
    let some = query(&db, &["events", "--limit=1"]).json_lines().remove(0);
    let (id, user) = (&some["event_id"], &some["user"]);
    let (id, user) = (id.as_str().unwrap(), user.as_str().unwrap());
    // Baselines come with a checkpoint, a moment after the events.
    let profile = || query(&db, &["user", user]).json_lines().remove(0);
    let of_user = ["events", "--user", user, "--limit=100000"];
    let n_events = query(&db, &of_user).json_lines().len();
    let has_learned = || {
        let profile = profile();
        profile["source"] == "baseline" && profile["events"] == n_events
    };
    assert!(wait_for(has_learned), "{}", running.stderr());
    let anomaly = query(&db, &["anomalies", "--limit=1"])
        .json_lines()
        .remove(0);
    let questions: [&[&str]; 15] = [
        &["events"],
        &["events", "--user", user, "--limit=1000"],
        &["events", "--oldest-first", "--type=LOGIN_FAILED"],
        &["event", id],
        &["event", "no such event"],
        &["anomalies"],
        &["anomalies", "--sort=score", "--limit=20"],
        &["anomalies", "--severity=high"],
        &["anomalies", "--min-score=0.8", "--limit=7"],
        &["incidents"],
        &["similar", anomaly["event_id"].as_str().unwrap()],
        &["user", user],
        &["feedback"],
        &["export"],
        &["export", "--what=anomalies", "--format=csv"],
    ];
    let live: Vec<Ran> = questions.iter().map(|args| query(&db, args)).collect();
    let live_stats = stats(&db);
    stop(running);
    for (args, live) in questions.iter().zip(live) {
        let ran = query(&db, args);
        assert!(ran.stdout == live.stdout, "{args:?}");
        assert_eq!((ran.code, ran.stderr), (live.code, live.stderr), "{args:?}");
    }
    let later_stats = stats(&db);
    for name in [
        "events",
        "failures",
        "anomalies",
        "types",
        "users",
        "first",
        "last",
    ] {
        assert_eq!(live_stats[name], later_stats[name], "{name}");
    }
}

/// What is told of a moment fits together: counters, events, and each index.
fn check(view: &View<'_>) -> anyhow::Result<u64> {
    let parts = Parts::of(std::slice::from_ref(view));
    let counters = view.counters()?;
    let count = |wanted, filter: &Filter| {
        let mut n_found = 0;
        let found = query::search(parts, wanted, filter, |_| {
            n_found += 1;
            Ok(true)
        });
        found.map(|_| n_found)
    };
    let all = Filter::default();
    assert_eq!(count(Wanted::Events, &all)?, counters.events);
    assert_eq!(count(Wanted::Anomalies, &all)?, counters.anomalies.total());
    let severe = Filter {
        severity: Some(Severity::Low),
        ..Filter::default()
    };
    assert_eq!(
        count(Wanted::Anomalies, &severe)?,
        counters.anomalies.total()
    );
    let mut n_of_users = 0;
    for user in 0..40 {
        let of_user = Filter {
            user: Some(format!("user{user:05}")),
            ..Filter::default()
        };
        n_of_users += count(Wanted::Events, &of_user)?;
    }
    assert_eq!(n_of_users, counters.events);
    let newest = view.last_event_key()?;
    if let Some(key) = newest {
        let (_, id) = streamguard::schema::split_event_key(&key).unwrap();
        let found = query::newest_event(parts, id)?;
        assert_eq!(found.map(|found| found.key).as_ref(), Some(&key), "{id}");
    }
    Ok(counters.events)
}

/// Of lines that are fed at once: what is taken in as files has 8 MiB and more.
const PIECE_BYTES: usize = 11 << 20;

#[test]
fn an_answer_is_about_one_moment_while_much_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, b"").expect_code(0);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    assert_eq!(check(&live.view().unwrap()).unwrap(), 0);
    // Files of 8 MiB and more are taken in as such, and there are several of them.
    let n_events = 90_000;
    let args = [&["-", "--db", db.to_str().unwrap()], &RUN[..]].concat();
    let mut running = Running::start("sg-run", &args);
    let mut input = running.stdin.take().unwrap();
    let lines = generated(n_events, 40, 3);
    // A large piece as soon as the one before was seen.
    let (next, is_next) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        let mut rest = &lines[..];
        while is_next.recv().is_ok() && !rest.is_empty() {
            let end = rest.len().min(PIECE_BYTES);
            let end = end
                + rest[end..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
            input.write_all(&rest[..end]).unwrap();
            rest = &rest[end..];
        }
    });
    let mut seen = vec![0];
    next.send(()).unwrap();
    while seen.last() != Some(&n_events) {
        let n_seen = Live::ask(std::slice::from_ref(&live), |views| check(&views[0])).unwrap();
        let last = *seen.last().unwrap();
        assert!(last <= n_seen);
        if last < n_seen {
            seen.push(n_seen);
            // All of it may have been fed.
            let _ = next.send(());
        }
    }
    drop(next);
    writing.join().unwrap();
    running.end().expect_code(0);
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn news_come_from_whoever_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (running, file, db) = following(folder.path(), &generated(100, 40, 5), &[]);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    let mut follow = live.follow(false);
    let append = |from: u64| {
        let mut events = OpenOptions::new().append(true).open(&file).unwrap();
        for number in from..from + 3 {
            let event = crate::tools::event(&format!("new{number}"), "u", number as i64);
            writeln!(events, "{event}").unwrap();
        }
    };
    let mut expect = |numbers: std::ops::Range<u64>| {
        let mut told = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(7);
        while told.len() < (numbers.end - numbers.start) as usize && Instant::now() < deadline {
            let news = follow.next(Duration::from_millis(200));
            for (key, _) in news.keys {
                let (_, id) = streamguard::schema::split_event_key(&key).unwrap();
                told.push(id.to_owned());
                // What is told can be read.
                let found = query::find(&live.view().unwrap(), key.to_vec()).unwrap();
                assert!(found.is_some(), "{told:?}");
            }
        }
        let expected: Vec<String> = numbers.map(|number| format!("new{number}")).collect();
        assert_eq!(told, expected);
    };
    append(0);
    expect(0..3);
    stop(running);
    // Another program goes on, and nothing of it is missed.
    append(3);
    let args = [
        file.to_str().unwrap(),
        "--follow",
        "--db",
        db.to_str().unwrap(),
    ];
    let running = Running::start("sg-run", &[&args[..], &RUN].concat());
    expect(3..6);
    stop(running);
}

#[test]
fn who_was_killed_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, db) = following(folder.path(), &generated(1_000, 40, 5), &[]);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    let view = live.view().unwrap();
    assert_eq!(view.writer().unwrap().program, "sg-run");
    running.signal(Signal::KILL);
    running.end();
    // Its socket is still there.
    assert!(db.join("streamguard.sock").exists());
    let lost = view.counters().unwrap_err();
    assert!(lost.to_string().contains("ask again"), "{lost}");
    drop(view);
    assert_eq!(stats(&db)["events"], 1_000);
    let n_events = Live::ask(std::slice::from_ref(&live), |views| {
        Ok(views[0].counters()?.events)
    });
    assert_eq!(n_events.unwrap(), 1_000);
}

/// A reader that stays lets a writer in at once, and goes on asking.
#[test]
fn who_stays_makes_way_for_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let scored = run("sg-score", &SCORE, &generated(500, 10, 1)).stdout;
    store(&db, &scored[..0]).expect_code(0);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    let n_events = || {
        let lives = std::slice::from_ref(&live);
        Live::ask(lives, |views| {
            Ok((views[0].counters()?.events, views[0].writer().is_some()))
        })
    };
    assert_eq!(n_events().unwrap(), (0, false));
    let mut running = Running::start("sg-store", &["--db", db.to_str().unwrap()]);
    running.stdin.as_mut().unwrap().write_all(&scored).unwrap();
    assert!(
        wait_for(|| n_events().unwrap() == (500, true)),
        "{}",
        running.stderr()
    );
    drop(running.stdin.take());
    running.end().expect_code(0);
    assert_eq!(n_events().unwrap(), (500, false));
    // It is not in the way of a second one either.
    store(&db, &generated(10, 10, 2)).expect_code(0);
    assert_eq!(n_events().unwrap().0, 510);
}

/// It has to end, whatever has become of its socket.
#[test]
fn a_folder_may_vanish() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, db) = following(folder.path(), &generated(10, 10, 2), &[]);
    fs::remove_dir_all(&db).unwrap();
    running.signal(Signal::TERM);
    running.end();
}

/// A socket's name has 108 bytes at the most.
#[test]
fn a_folder_may_have_a_long_name() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(200));
    fs::create_dir(&long).unwrap();
    let (running, _, db) = following(&long, &generated(10, 10, 2), &[]);
    assert_eq!(stats(&db)["events"], 10);
    stop(running);
}

/// Whoever may read the files may ask.
#[test]
fn the_socket_is_for_those_who_may_read_the_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    for (folder_mode, socket_mode) in [(0o700, 0o600), (0o750, 0o660), (0o755, 0o666)] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("db")).unwrap();
        let permissions = fs::Permissions::from_mode(folder_mode);
        fs::set_permissions(folder.path().join("db"), permissions).unwrap();
        let (running, _, db) = following(folder.path(), &generated(10, 10, 2), &[]);
        let socket = fs::metadata(db.join("streamguard.sock")).unwrap();
        assert_eq!(socket.permissions().mode() & 0o777, socket_mode);
        stop(running);
        assert!(!db.join("streamguard.sock").exists());
    }
}

#[test]
fn tail_shows_the_last_and_then_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (running, file, db) = following(folder.path(), &generated(100, 40, 5), &[]);
    let expected = query(&db, &["events", "--limit=3"]);
    let mut expected: Vec<&str> = expected.text().lines().collect();
    expected.reverse();
    let args = ["tail", "--what=events", "--limit=3", "--count=2", "--db"];
    let tail = Running::start("sg-query", &[&args[..], &[db.to_str().unwrap()]].concat());
    let before = expected.join("\n") + "\n";
    tail.expect_stdout(&before);
    let lines = [1, 2].map(|number| crate::tools::event(&format!("new{number}"), "u", number));
    let mut events = OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(events, "{}", lines[0]).unwrap();
    tail.expect_stdout(&format!("{before}{}\n", lines[0]));
    writeln!(events, "{}", lines[1]).unwrap();
    // It has shown as many as were asked for.
    let ran = tail.end().expect_code(0);
    assert_eq!(ran.text(), format!("{before}{}\n{}\n", lines[0], lines[1]));
    stop(running);
}

#[test]
fn tail_shows_only_what_matches_and_ends_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (running, file, db) = following(folder.path(), &generated(100, 40, 5), &[]);
    let args = [
        "tail",
        "--what=events",
        "--limit=0",
        "--user=me",
        "--format=table",
        "--db",
    ];
    let tail = Running::start("sg-query", &[&args[..], &[db.to_str().unwrap()]].concat());
    let mut events = OpenOptions::new().append(true).open(&file).unwrap();
    // Until it watches, which nobody can see from outside.
    let mut number = 0;
    let is_shown = || {
        number += 1;
        let [other, mine] = ["other", "me"]
            .map(|user| crate::tools::event(&format!("{user}{number}"), user, number));
        writeln!(events, "{other}\n{mine}").unwrap();
        tail.stdout().contains("me1") || tail.stdout().lines().count() > 1
    };
    assert!(wait_for(is_shown), "{}", tail.stderr());
    tail.signal(Signal::INT);
    let ran = tail.end().expect_code(0);
    assert!(ran.text().starts_with(" TIME (UTC)"), "{}", ran.text());
    assert!(!ran.text().contains("other"), "{}", ran.text());
    stop(running);
}

/// Ids of what a follower is told until it is told as many, and whether something may be missing.
fn told(follow: &mut streamguard::store::Follow<'_>, n_wanted: usize) -> (Vec<String>, bool) {
    let (mut ids, mut is_broken) = (Vec::new(), false);
    let deadline = Instant::now() + Duration::from_secs(7);
    while ids.len() < n_wanted && Instant::now() < deadline {
        let news = follow.next(Duration::from_millis(100));
        is_broken |= news.is_broken;
        assert_eq!(news.n_skipped, 0);
        for (key, _) in &news.keys {
            let (_, id) = streamguard::schema::split_event_key(key).unwrap();
            ids.push(id.to_owned());
        }
    }
    (ids, is_broken)
}

/// Programs of a pipe or of cron have ended before anybody looks.
#[test]
fn what_a_program_has_stored_is_told_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &generated(10, 5, 9)).expect_code(0);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    let mut follow = live.follow(false);
    let lines = generated(5_000, 40, 3);
    let ids = |lines: &[u8]| -> Vec<String> {
        let lines = String::from_utf8(lines.to_vec()).unwrap();
        let events = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let id = |event: serde_json::Value| event["event_id"].as_str().unwrap().to_owned();
        events.map(id).collect()
    };
    store(&db, &lines).expect_code(0);
    assert_eq!(told(&mut follow, 5_000), (ids(&lines), false));
    // Two of them, before anybody looks again.
    let (one, other) = (generated(20, 5, 4), generated(20, 5, 6));
    store(&db, &one).expect_code(0);
    store(&db, &other).expect_code(0);
    let both = [ids(&one), ids(&other)].concat();
    assert_eq!(told(&mut follow, 40), (both, false));
    assert_eq!(follow.next(Duration::ZERO).keys, []);
}

#[test]
fn who_follows_a_program_that_is_killed_is_told_that_something_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (running, file, db) = following(folder.path(), &generated(100, 40, 5), &[]);
    let live = Live::open(&db, &Tuning::default()).unwrap();
    let mut follow = live.follow(false);
    let mut events = OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(events, "{}", crate::tools::event("new1", "u", 1)).unwrap();
    assert_eq!(told(&mut follow, 1), (vec!["new1".to_owned()], false));
    running.signal(Signal::KILL);
    running.end();
    assert!(wait_for(|| follow
        .next(Duration::from_millis(50))
        .is_broken));
    // Once, and the next program is heard of from its start.
    store(&db, crate::tools::event("new2", "u", 1).as_bytes()).expect_code(0);
    assert_eq!(told(&mut follow, 1), (vec!["new2".to_owned()], false));
}
