//! What `sg-store feedback` promises: a verdict is kept and shown with its author, it goes with its
//! event, and the baseline of the user respects it, wherever it is kept.

use std::path::Path;

use serde_json::Value;

use crate::database::{admin, raw, store};
use crate::tools::{DETECTORS, Ran, event, generated, run, shell};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A Wednesday, midnight UTC.
const START_MS: i64 = 1_735_689_600_000;
/// A Friday and the Monday after it, at three in the morning.
const FIRST_VISIT_MS: i64 = START_MS + 30 * DAY_MS + 3 * HOUR_MS;
const LATER_VISIT_MS: i64 = START_MS + 33 * DAY_MS + 3 * HOUR_MS;

fn line(event_id: &str, user: u32, timestamp_ms: i64, origin: &str, path: &str) -> String {
    format!(
        r#"{{"event_id":"{event_id}","user":"user{user}","timestamp":{timestamp_ms},"type":"FILE_READ",{origin},"endpoint":"{path}"}}}}"#
    ) + "\n"
}

/// Days on which twelve users work from nine to five, each from a place of their own.
fn days(days: std::ops::Range<i64>) -> String {
    let mut lines = String::new();
    for (day, hour) in days.flat_map(|day| (9..17).map(move |hour| (day, hour))) {
        for user in 0..12 {
            let origin = format!(
                r#""source_ip":"10.0.{user}.7","geo_location":"Bonn, DE","metadata":{{"asn":"AS64500","device":"laptop{user}","user_agent":"Browser/1.{user}""#
            );
            let timestamp_ms = START_MS + day * DAY_MS + hour * HOUR_MS + i64::from(user);
            let id = format!("usual_{day}_{hour}_{user}");
            let path = format!("/docs/{}", hour % 3);
            lines += &line(&id, user, timestamp_ms, &origin, &path);
        }
    }
    lines
}

/// An event of user 5 from where none of them has ever been.
fn visit(event_id: &str, timestamp_ms: i64) -> String {
    let origin = r#""source_ip":"203.0.113.200","geo_location":"Lagos, NG","metadata":{"asn":"AS64999","device":"x9","user_agent":"curl/8""#;
    line(event_id, 5, timestamp_ms, origin, "/keys/all")
}

/// Fifteen of them within half an hour.
fn attack() -> (String, Vec<String>) {
    let ids: Vec<String> = (0..15).map(|i| format!("attack{i}")).collect();
    let times = (0..).map(|i| FIRST_VISIT_MS + i * 120_000);
    let lines = ids.iter().zip(times).map(|(id, time)| visit(id, time));
    (lines.collect(), ids)
}

fn fill(db: &Path, args: &[&str], lines: &str) {
    let args = [&["-q", "--db", db.to_str().unwrap()], args].concat();
    run("sg-run", &args, lines.as_bytes()).expect_code(0);
}

fn give(db: &Path, verdict: &str, event_ids: &[&str], args: &[&str]) -> Ran {
    let verdict = format!("--verdict={verdict}");
    let args = [&[&*verdict, "--by=tester"], args, event_ids].concat();
    admin("feedback", db, &args)
}

fn ask(db: &Path, args: &[&str]) -> Ran {
    let args = [&["--db", db.to_str().unwrap()], args].concat();
    run("sg-query", &args, b"")
}

fn shown(db: &Path, event_id: &str) -> Value {
    let ran = ask(db, &["event", event_id]).expect_code(0);
    ran.json_lines().remove(0)
}

fn risk(db: &Path, event_id: &str) -> f64 {
    let risk = &shown(db, event_id)["anomaly"]["risk"];
    risk.as_f64()
        .unwrap_or_else(|| panic!("{event_id} is no anomaly"))
}

/// The sum of the baselines in a database in which nothing is wrong.
fn baselines(db: &Path) -> String {
    let ran = admin("verify", db, &["--digest"]).expect_code(0);
    ran.json_lines()[0]["baselines"]
        .as_str()
        .unwrap()
        .to_owned()
}

const ADAPTIVE: [&str; 1] = [DETECTORS[1]];
/// So that the risk of every event is kept.
const TELL_ALL: [&str; 2] = [DETECTORS[1], "--threshold=0"];

#[test]
fn what_is_benign_is_usual_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let later = visit("soon", FIRST_VISIT_MS + 2 * HOUR_MS)
        + &days(30..33)
        + &visit("later", LATER_VISIT_MS);
    let risks = |name: &str, is_benign: bool| {
        let db = folder.path().join(name);
        let lines = days(0..30) + &visit("first", FIRST_VISIT_MS);
        fill(&db, &ADAPTIVE, &lines);
        if is_benign {
            let ran = give(&db, "benign", &["first"], &[]).expect_code(0);
            assert_eq!(ran.stderr, "sg-store: kept the verdict on 1 event\n");
        }
        fill(&db, &TELL_ALL, &later);
        ["first", "soon", "later"].map(|id| risk(&db, id))
    };
    let without = risks("without", false);
    let with = risks("with", true);
    assert!(with[0].total_cmp(&without[0]).is_eq() && with[0] > 8.0);
    // The first one is in the quarantine of what is new, the second one is not.
    for (with, without) in with.into_iter().zip(without).skip(1) {
        assert!(without > 4.0 && with < 2.0, "{with}, not {without}");
    }
}

/// The risks of the attack's first event and of a visit days later.
fn risks_of_attack(db: &Path, verdicts: &[&str]) -> [f64; 2] {
    let (attack, ids) = attack();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fill(db, &ADAPTIVE, &(days(0..30) + &attack));
    for verdict in verdicts {
        give(db, verdict, &ids, &[]).expect_code(0);
    }
    let later = days(30..33) + &visit("later", LATER_VISIT_MS);
    fill(db, &TELL_ALL, &later);
    [ids[0], "later"].map(|id| risk(db, id))
}

#[test]
fn what_is_malicious_does_not_become_usual() {
    let folder = tempfile::tempdir().unwrap();
    let [first, later] = risks_of_attack(&folder.path().join("without"), &[]);
    assert!(later < first - 4.0, "{later}, was {first}");
    // Also if somebody has taken it for benign before.
    for verdicts in [&["malicious"][..], &["benign", "malicious"]] {
        let db = folder.path().join(verdicts.join("_"));
        let [first, later] = risks_of_attack(&db, verdicts);
        assert!((later - first).abs() < 0.5, "{later}, was {first}");
    }
    let [first, later] = risks_of_attack(&folder.path().join("both"), &["malicious", "benign"]);
    assert!(later < 2.5, "{later}, was {first}");
}

#[test]
fn baselines_in_a_state_folder_are_corrected_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (attack, ids) = attack();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let later = days(30..33) + &visit("later", LATER_VISIT_MS);
    for verdict in ["benign", "malicious"] {
        let expected = risks_of_attack(&folder.path().join(verdict), &[verdict]);
        let (state, db) = (path(&format!("s_{verdict}")), path(&format!("d_{verdict}")));
        let args = ["-q", DETECTORS[1], "--state", &state];
        let lines = days(0..30) + &attack;
        let scored = run("sg-score", &args, lines.as_bytes()).expect_code(0);
        store(Path::new(&db), &scored.stdout).expect_code(0);
        // Given twice it corrects once, here too.
        for _ in 0..2 {
            let ran = give(Path::new(&db), verdict, &ids, &["--state", &state]).expect_code(0);
            assert_eq!(ran.stderr, "sg-store: kept the verdict on 15 events\n");
        }
        let args = [&args[..], &["--threshold=0"]].concat();
        let ran = run("sg-score", &args, later.as_bytes()).expect_code(0);
        let events = ran.json_lines();
        let risk = events.last().unwrap()["anomaly"]["risk"].as_f64().unwrap();
        assert!(risk.total_cmp(&expected[1]).is_eq(), "{risk}, {expected:?}");
    }
    let db = folder.path().join("d_benign");
    let ran = give(&db, "benign", &["attack0"], &["--state=/nowhere"]).expect_code(2);
    assert!(ran.stderr.contains("there is no state folder at /nowhere"));
}

/// A classic baseline in numbers.
fn counts(db: &Path) -> Value {
    let mut profile = ask(db, &["user", "user5"]).expect_code(0).json_lines();
    assert_eq!(profile[0]["source"], "baseline");
    // Times are not taken back, and what is stored stays.
    for field in ["last", "week", "anomalies"] {
        profile[0][field] = Value::Null;
    }
    profile.remove(0)
}

#[test]
fn what_is_malicious_is_counted_out_of_a_classic_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let (before, db) = (folder.path().join("before"), folder.path().join("db"));
    fill(&before, &[DETECTORS[0]], &days(0..30));
    let (lines, ids) = attack();
    // Among them failures, which are also remembered as bits.
    let failed = r#""threat_score":0.7,"status":"failed","metadata""#;
    let lines = lines.replace("\"metadata\"", failed);
    fill(&db, &[DETECTORS[0]], &(days(0..30) + &lines));
    let after = counts(&db);
    assert_eq!(
        (&after["failed"], &after["events"]),
        (&15.into(), &255.into())
    );
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for (verdict, expected) in [
        ("benign", &after),
        ("malicious", &counts(&before)),
        ("malicious", &counts(&before)),
        ("benign", &after),
        ("malicious", &counts(&before)),
    ] {
        give(&db, verdict, &ids, &[]).expect_code(0);
        assert_eq!(counts(&db), *expected, "{verdict}");
        admin("verify", &db, &[]).expect_code(0);
    }
    // And sg-run goes on with it.
    fill(&db, &[DETECTORS[0]], &days(30..31));
}

/// A database of one event of user `u`, that nothing has learned.
fn small(folder: &Path, lines: &str) -> std::path::PathBuf {
    let db = folder.join("db");
    store(&db, lines.as_bytes()).expect_code(0);
    db
}

#[test]
fn a_verdict_is_kept_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (1..=3_i64)
        .map(|i| event(&format!("e{i}"), &format!("u{i}"), i * DAY_MS))
        .collect();
    let db = small(folder.path(), &lines.join("\n"));
    let note = "--note=new laptop, ticket 4711";
    let ran = give(&db, "benign", &["e1"], &[note]).expect_code(0);
    assert!(
        ran.stderr
            .contains("the verdict is kept only, there is no baseline of u1 in the database"),
        "{}",
        ran.stderr
    );
    give(&db, "malicious", &["e2", "e3"], &[]).expect_code(0);

    // In the line of the event, at its end; nothing else in it has changed.
    let ran = ask(&db, &["event", "e1"]).expect_code(0);
    let given = ran.json_lines()[0]["feedback"]["given"].as_i64().unwrap();
    let before = &lines[0][..lines[0].len() - 1];
    let kept = format!(
        r#"{{"event_id":"e1","user":"u1","timestamp":{DAY_MS},"verdict":"benign","note":"new laptop, ticket 4711","by":"tester","given":{given},"corrected":[]}}"#
    );
    assert_eq!(ran.text(), format!("{before},\"feedback\":{kept}}}\n"));
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!((0..60_000).contains(&(now_ms.as_millis() as i64 - given)));
    let table = ask(&db, &["event", "e1", "--format=table"]).expect_code(0);
    let rows: Vec<&str> = table.text().lines().collect();
    assert_eq!(rows.len(), 4, "{}", table.text());
    for words in ["benign", "tester", "new laptop, ticket 4711", "1970-01-02"] {
        assert!(rows[3].contains(words), "{}", rows[3]);
    }
    let export = ask(&db, &["export"]).expect_code(0);
    assert_eq!(export.text(), lines.join("\n") + "\n");

    let check = |args: &[&str], expected: &[&str]| {
        let ran = ask(&db, &[&["feedback"], args].concat());
        let events = ran.json_lines();
        let ids: Vec<&str> = events
            .iter()
            .map(|feedback| feedback["event_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{args:?}");
        assert_eq!(ran.code, i32::from(expected.is_empty()));
    };
    check(&[], &["e3", "e2", "e1"]);
    check(&["--user=u2"], &["e2"]);
    check(&["--user=u4"], &[]);
    // By when they were given, whenever the events were.
    check(&["--since=1h"], &["e3", "e2", "e1"]);
    check(&["--since=2200-01-01"], &[]);
    check(&["--until=1h"], &[]);
    check(&[&format!("--until={given}")], &["e1"]);
    check(&["--limit=2"], &["e3", "e2"]);
    let ran = ask(&db, &["feedback", "--limit=2"]);
    assert_eq!(
        ran.stderr,
        "sg-query: there is more: use a greater --limit\n"
    );
}

#[test]
fn authors_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let db = small(folder.path(), &event("e", "u", 1));
    for (env, args, expected) in [
        ("USER=login LOGNAME=other SG_AUTHOR=env", "--by=me", "me"),
        ("USER=login LOGNAME=other SG_AUTHOR=env", "", "env"),
        ("USER=login LOGNAME=other", "", "login"),
        ("LOGNAME=other", "", "other"),
        ("", "", "unknown"),
        ("USER=$'a\\eb'", "", "unknown"),
    ] {
        let command = format!(
            "unset USER LOGNAME SG_AUTHOR; {env} sg-store feedback e --verdict benign {args} --db {}",
            db.display()
        );
        shell(&command).expect_code(0);
        assert_eq!(shown(&db, "e")["feedback"]["by"], expected, "{env} {args}");
    }
}

#[test]
fn hostile_words_are_refused_or_made_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let db = small(folder.path(), &event("e", "u", 1));
    let (long, longer) = ("n".repeat(4_096), "n".repeat(4_097));
    let name = "b".repeat(257);
    for (option, text, words) in [
        ("note", &*longer, "4096 are kept"),
        ("note", "a\u{1b}[2Jb", "control characters"),
        ("note", "a\nb", "control characters"),
        ("note", " ", "it is empty"),
        ("by", &name, "256 are kept"),
        ("by", "a\u{7}", "control characters"),
    ] {
        let args = ["e", "--verdict=benign", &format!("--{option}={text}")];
        let ran = admin("feedback", &db, &args).expect_code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert!(!ran.stderr.contains(['\u{1b}', '\u{7}']), "{}", ran.stderr);
    }
    assert_eq!(shown(&db, "e").get("feedback"), None);
    give(&db, "benign", &["e"], &["--note", &long]).expect_code(0);
    assert_eq!(shown(&db, "e")["feedback"]["note"], *long);

    let note = "=HYPERLINK(1)\u{202e}x";
    let args = ["e", "--verdict=benign", "--by=@me", "--note", note];
    admin("feedback", &db, &args).expect_code(0);
    let csv = ask(&db, &["feedback", "--format=csv"]).expect_code(0);
    assert!(csv.text().contains(",'@me,"), "{}", csv.text());
    assert!(csv.text().contains(",'=HYPERLINK(1)"), "{}", csv.text());
    for question in [&["feedback"][..], &["event", "e"]] {
        let table = ask(&db, &[question, &["--format=table"]].concat()).expect_code(0);
        assert!(table.text().contains("=HYPERLINK(1)<202E>x"));
    }

    // An event that brings a verdict of its own along does not pass for judged.
    let own = r#","feedback":{"verdict":"benign","by":"boss"}}"#;
    let twice = format!(",\"feedback\":1{own}");
    for (id, own) in [("own", own), ("twice", &twice)] {
        let line = event(id, "u", 2);
        let line = format!("{}{own}\n", &line[..line.len() - 1]);
        store(&db, line.as_bytes()).expect_code(0);
        assert_eq!(shown(&db, id)["feedback"], Value::Null);
        give(&db, "malicious", &[id], &[]).expect_code(0);
        assert_eq!(shown(&db, id)["feedback"]["by"], "tester");
    }
}

#[test]
fn the_same_verdict_corrects_once() {
    let folder = tempfile::tempdir().unwrap();
    for (detector, verdict) in [
        (DETECTORS[0], "malicious"),
        (DETECTORS[1], "malicious"),
        (DETECTORS[1], "benign"),
    ] {
        let db = folder.path().join(format!("{detector}{verdict}"));
        let (attack, ids) = attack();
        fill(&db, &[detector], &(days(0..30) + &attack));
        let before = baselines(&db);
        let first = [&*ids[0], &*ids[0], &*ids[1]];
        give(&db, verdict, &first, &["--note=one"]).expect_code(0);
        let corrected = baselines(&db);
        assert_ne!(before, corrected);
        let args = ["--note=two", "--by=other"];
        admin(
            "feedback",
            &db,
            &[&["--verdict", verdict], &args[..], &first].concat(),
        )
        .expect_code(0);
        assert_eq!(baselines(&db), corrected);
        let feedback = &shown(&db, first[0])["feedback"];
        assert_eq!(
            (&feedback["note"], &feedback["by"]),
            (&"two".into(), &"other".into())
        );
        assert_eq!(feedback["corrected"], serde_json::json!(["database"]));
    }
}

/// Benign in the database, malicious in a folder, benign in the database: it was learned twice.
#[test]
fn each_place_knows_by_what_it_was_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let (db, state) = (folder.path().join("db"), folder.path().join("state"));
    let (attack, ids) = attack();
    let lines = days(0..30) + &attack;
    fill(&db, &[DETECTORS[1]], &lines);
    let of_state = format!("--state={}", state.display());
    let args = ["-q", DETECTORS[1], &of_state];
    run("sg-score", &args, lines.as_bytes()).expect_code(0);
    let id = &*ids[0];
    give(&db, "benign", &[id], &[]).expect_code(0);
    let corrected = baselines(&db);
    give(&db, "malicious", &[id], &[&of_state]).expect_code(0);
    let feedback = &shown(&db, id)["feedback"];
    assert_eq!(feedback["corrected"].as_array().unwrap().len(), 1);
    assert_eq!(
        feedback["corrected_otherwise"],
        serde_json::json!(["database"])
    );
    give(&db, "benign", &[id], &[]).expect_code(0);
    assert_eq!(baselines(&db), corrected);
    assert_eq!(
        shown(&db, id)["feedback"]["corrected"],
        serde_json::json!(["database"])
    );
    give(&db, "malicious", &[id], &[]).expect_code(0);
    assert_ne!(baselines(&db), corrected);
    let both = &shown(&db, id)["feedback"];
    assert_eq!(both["corrected"].as_array().unwrap().len(), 2);
    assert_eq!(both.get("corrected_otherwise"), None);
}

/// Whatever people say of whatever events, baselines stay such that can come from a history.
#[test]
fn any_verdicts_leave_baselines_that_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    // A third of them has failed, among them the last ones of everybody.
    let lines = String::from_utf8(generated(3_000, 4, 91)).unwrap();
    let (early, late) = lines.split_at(lines.len() / 3 * 2);
    let lines = early.to_owned() + &late.replace(r#""status":"success""#, r#""status":"failed""#);
    let ids: Vec<String> = lines
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["event_id"].as_str().unwrap().to_owned()
        })
        .collect();
    for detector in DETECTORS {
        let db = folder.path().join(detector);
        fill(&db, &[detector, "--threshold=0"], &lines);
        for (verdict, n_th) in [("malicious", 2), ("benign", 3), ("malicious", 1)] {
            let chosen: Vec<&str> = ids.iter().step_by(n_th).map(String::as_str).collect();
            let before = baselines(&db);
            give(&db, verdict, &chosen, &[]).expect_code(0);
            assert_ne!(baselines(&db), before, "{detector} {verdict}");
        }
        fill(
            &db,
            &[detector],
            std::str::from_utf8(&generated(500, 4, 92)).unwrap(),
        );
        baselines(&db);
    }
    // Nothing is left of what was counted.
    let stats = ask(&folder.path().join(DETECTORS[0]), &["user", "user00001"]).expect_code(0);
    assert!(stats.json_lines()[0]["events"].as_u64().unwrap() < 500);
}

#[test]
fn events_that_are_not_there_are_told() {
    let folder = tempfile::tempdir().unwrap();
    // An id at two times is two events.
    let lines = [event("a", "u", 1), event("b", "u", 2), event("b", "v", 3)].join("\n");
    let db = small(folder.path(), &lines);
    let ran = give(&db, "benign", &["a", "none\u{1b}", "b"], &[]).expect_code(1);
    assert!(
        ran.stderr
            .contains("sg-store: there is no event none<001B>\n"),
        "{}",
        ran.stderr
    );
    let given = ask(&db, &["feedback"]).expect_code(0).json_lines();
    let users: Vec<&Value> = given.iter().map(|feedback| &feedback["user"]).collect();
    assert_eq!(users, ["v", "u", "u"]);
    let ran = give(&db, "benign", &["none"], &[]).expect_code(1);
    assert_eq!(ran.stderr, "sg-store: there is no event none\n");
    let nowhere = folder.path().join("nowhere");
    give(&nowhere, "benign", &["a"], &[]).expect_code(2);
    assert!(!nowhere.exists());
}

/// Whoever writes events may give all of them one id: they are judged in pieces.
#[test]
fn a_verdict_may_be_on_very_many_events() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines: String = (0..70_000).map(|i| event("same", "u", i) + "\n").collect();
    store(&db, lines.as_bytes()).expect_code(0);
    let ran = give(&db, "benign", &["same", "none"], &[]).expect_code(1);
    assert!(
        ran.stderr.contains("kept the verdict on 70000 events"),
        "{}",
        ran.stderr
    );
    let list = ["feedback", "--db", db.to_str().unwrap(), "-n", "100000"];
    assert_eq!(run("sg-query", &list, b"").json_lines().len(), 70_000);
    admin("verify", &db, &[]).expect_code(0);
}

#[test]
fn verdicts_go_with_their_events() {
    let folder = tempfile::tempdir().unwrap();
    let ids = ["e1", "e2", "e3"];
    let lines: Vec<String> = (1..).zip(ids).map(|(i, id)| event(id, "u", i)).collect();
    let db = small(folder.path(), &lines.join("\n"));
    give(&db, "benign", &ids, &[]).expect_code(0);
    admin("prune", &db, &["--before=3"]).expect_code(0);
    let left = ask(&db, &["feedback"]).expect_code(0).json_lines();
    assert_eq!((left.len(), &left[0]["event_id"]), (1, &"e3".into()));
    admin("verify", &db, &[]).expect_code(0);
    let ran = ask(&db, &["stats"]).expect_code(0);
    assert_eq!(ran.json_lines()[0]["events"], 1);

    let kept = serde_json::to_string(&left[0]).unwrap();
    for (key, value, words) in [
        (
            "feedback:000000000000009:x",
            &*kept,
            "000000000000009:x: has a verdict, but there is no",
        ),
        (
            "feedback:x",
            &kept,
            "x: has a verdict, but there is no such event",
        ),
        (
            "feedback:000000000000003:e3",
            "{}",
            "e3: has a verdict that is not valid",
        ),
        (
            "feedback:000000000000003:e3",
            &kept.replace("\"u\"", "\"v\""),
            "e3: has a verdict on another event",
        ),
    ] {
        let opened = raw(&db);
        let meta = opened.cf_handle("meta").unwrap();
        opened.put_cf(meta, key, value).unwrap();
        drop(opened);
        let ran = admin("verify", &db, &[]).expect_code(1);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}
