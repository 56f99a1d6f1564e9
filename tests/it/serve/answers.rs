//! Every answer is what `sg-query` prints for the same question.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Served, filled};
use crate::database::store;
use crate::tools::{event, event_and, run};

fn printed(db: &Path, args: &[&str]) -> Vec<String> {
    let args = [args, &["--db", db.to_str().unwrap(), "-f", "ndjson"]].concat();
    let ran = run("sg-query", &args, b"");
    assert!(ran.code < 2, "{}", ran.stderr);
    ran.text().lines().map(str::to_owned).collect()
}

/// A question to the API, and the same to `sg-query`, with places for what is in the database.
const QUESTIONS: [(&str, &str); 23] = [
    ("events", "events"),
    (
        "events?limit=1000&order=oldest",
        "events -n1000 --oldest-first",
    ),
    ("events?user=<user>&limit=7", "events --user <user> -n7"),
    ("events?since=<middle>", "events --since <middle>"),
    ("events?until=<middle>", "events --until <middle>"),
    ("events?type=LOGIN_FAILED", "events --type LOGIN_FAILED"),
    ("events?ip=<ip>", "events --ip <ip>"),
    ("events?severity=high", "events --severity high"),
    ("events?min_score=0.6", "events --min-score 0.6"),
    (
        "events/time-range?start=<middle>&limit=20",
        "events --since <middle> --oldest-first -n20",
    ),
    ("events/<id>", "event <id>"),
    ("anomalies", "anomalies"),
    ("anomalies?sort=score&limit=5", "anomalies --sort score -n5"),
    (
        "anomalies/high-score?threshold=0.6",
        "anomalies --min-score 0.6",
    ),
    ("anomalies/user/<user>", "anomalies --user <user>"),
    (
        "anomalies/time-range?end=<middle>&limit=9",
        "anomalies --until <middle> --oldest-first -n9",
    ),
    ("analyses", "analyses"),
    ("incidents", "incidents"),
    ("incidents?limit=2", "incidents -n2"),
    ("feedback", "feedback"),
    ("feedback?user=<user>", "feedback --user <user>"),
    ("similar?id=<id>", "similar <id>"),
    (
        "similar?text=LOGIN_FAILED&limit=3",
        "similar LOGIN_FAILED -n3",
    ),
];

#[test]
fn answers_are_what_sg_query_prints() {
    let folder = tempfile::tempdir().unwrap();
    let db = filled(folder.path());
    let read = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let lines: Vec<_> = printed(&db, &["export"]).iter().map(read).collect();
    let first = lines
        .iter()
        .find(|line| line["anomaly"].is_object())
        .unwrap();
    let text = |name: &str| first[name].as_str().unwrap();
    let (id, user) = (text("event_id"), text("user"));
    let middle = lines[1_500]["timestamp"].to_string();
    let ip = lines
        .iter()
        .find_map(|line| line["source_ip"].as_str())
        .unwrap();
    let judged = [
        "feedback",
        id,
        "--verdict",
        "benign",
        "--note",
        "known",
        "--by",
        "me",
    ];
    let args = [&judged[..], &["--db", db.to_str().unwrap()]].concat();
    assert!(run("sg-store", &args, b"").code < 2);

    let served = Served::start(&db, &[]);
    for (path, words) in QUESTIONS {
        let filled = |text: &str| {
            let places = [
                ("<user>", user),
                ("<middle>", &middle),
                ("<ip>", ip),
                ("<id>", id),
            ];
            let fill = |text: String, (place, value): &(&str, &str)| text.replace(place, value);
            places.iter().fold(text.to_owned(), fill)
        };
        let words = filled(words);
        let expected = printed(&db, &words.split(' ').collect::<Vec<_>>());
        assert!(!expected.is_empty(), "{words} finds nothing");
        let path = filled(&format!("/api/{path}"));
        assert_eq!(served.get(&path).ok().items(), expected, "{path}");
    }
    let profile = served.get(&format!("/api/users/{user}")).ok();
    assert_eq!(profile.body, printed(&db, &["user", user])[0]);
    let mut stats = served.get("/api/stats/summary").ok().json();
    let as_of = stats.as_object_mut().unwrap().remove("as_of").unwrap();
    assert!(as_of.as_str().unwrap().ends_with('Z'));
    assert_eq!(stats, read(&printed(&db, &["stats"])[0]));
}

#[test]
fn some_questions_are_the_servers_own() {
    let folder = tempfile::tempdir().unwrap();
    let db = filled(folder.path());
    let served = Served::start(&db, &[]);
    let shown = served.get("/api/anomalies?what=events&limit=1").ok().json();
    assert!(shown["items"][0]["anomaly"]["reasons"].is_array());
    let by_score = served
        .get("/api/anomalies?what=events&limit=3&sort=score")
        .ok()
        .json();
    assert!(by_score["items"][0]["anomaly"]["reasons"].is_array());
    assert_eq!(by_score["next"], Value::Null);
    let by_severity = served.get("/api/analyses/severity/high").ok().json();
    let items = by_severity["items"].as_array().unwrap();
    assert!(!items.is_empty());
    assert!(
        items
            .iter()
            .all(|item| item["anomaly"]["severity"] == "high")
    );
    // They are of long ago.
    assert_eq!(served.get("/api/anomalies/recent").ok().items(), [""; 0]);
}

#[test]
fn a_cursor_goes_through_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let db = filled(folder.path());
    let served = Served::start(&db, &[]);
    let check = |path: &str, args: &[&str]| {
        let found = served.all(path);
        let expected: BTreeSet<_> = printed(&db, args).into_iter().collect();
        assert_eq!(found.len(), expected.len(), "{path}");
        assert_eq!(
            found.into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{path}"
        );
    };
    check("/api/events?limit=700", &["export"]);
    check("/api/events?limit=700&order=oldest", &["export"]);
    check("/api/events/time-range?limit=999", &["export"]);
    check(
        "/api/anomalies?limit=17",
        &["export", "--what", "anomalies"],
    );
    check(
        "/api/anomalies/high-score?limit=5&threshold=0.6",
        &["anomalies", "--min-score=0.6", "-n9999"],
    );
    check("/api/analyses?limit=10", &["analyses", "-n9999"]);
}

#[test]
fn events_pass_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let strange = event_and(
        r#""n":1.0e2,"big":123456789012345678901234567890,"a":{ "b" : [1,  2]},"a":2,"t":"\u00fc\/"  "#,
    );
    store(&db, strange.as_bytes()).expect_code(0);
    let served = Served::start(&db, &[]);
    for path in ["/api/events", "/api/events/e"] {
        assert_eq!(served.get(path).ok().items(), [&*strange]);
    }
}

#[test]
fn ids_and_names_can_be_anything() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = [("a/b", "ü ?&#%"), ("100%", "a/../b"), ("x y", "..")];
    let events = lines.map(|(id, user)| event(id, user, 5));
    store(&db, events.join("\n").as_bytes()).expect_code(0);
    let served = Served::start(&db, &[]);
    let encoded = |text: &str| {
        let bytes = text.bytes().map(|byte| format!("%{byte:02X}"));
        bytes.collect::<String>()
    };
    for ((id, user), event) in lines.iter().zip(&events) {
        let by_id = served.get(&format!("/api/events/{}", encoded(id))).ok();
        assert_eq!(by_id.items(), [&**event]);
        let by_user = served
            .get(&format!("/api/events?user={}", encoded(user)))
            .ok();
        assert_eq!(by_user.items(), [&**event]);
    }
    // An id that was used twice.
    store(
        &db.with_extension("2"),
        [event("e", "u", 1), event("e", "u", 2)]
            .join("\n")
            .as_bytes(),
    );
    let served = Served::start(&db.with_extension("2"), &[]);
    assert_eq!(served.get("/api/events/e").ok().items().len(), 2);
}

#[test]
fn what_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let served = Served::start(&db, &[]);
    let check = |path: &str, status: u16, said: &str| {
        let detail = served.get(path).problem(status);
        assert!(detail.contains(said), "{path}: {detail}");
    };
    check("/api/events/none", 404, "no event of that id");
    check("/api/users/nobody", 404, "no events of that user");
    check("/api/similar?id=none", 404, "no event of that id");
    check("/api/nothing", 404, "nothing at this path");
    check("/elsewhere", 404, "nothing at this path");
    check("/api/similar", 400, "name an event by id");
    check("/api/similar?id=e&text=login", 400, "name an event by id");
    check("/api/similar?text=%E4%B8%80", 422, "says nothing");
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let served = Served::start(&db, &[]);
    for (query, said) in [
        ("severty=high", "there is no parameter severty"),
        ("user=a&user=b", "user: it is there twice"),
        ("user=", "user: expected a text"),
        ("user=%ff", "not UTF-8"),
        ("limit=0", "limit: expected an integer in 1..=1000"),
        ("limit=1001", "limit: expected an integer"),
        ("limit=+5", "limit: expected an integer"),
        ("limit=5.5", "limit: expected an integer"),
        ("limit=", "limit: expected an integer"),
        ("min_score=1.1", "min_score: expected a number"),
        ("min_score=nan", "min_score: expected a number"),
        ("min_score=.5", "min_score: expected a number"),
        ("severity=High", "severity: expected low"),
        ("order=up", "order: expected newest"),
        ("ip=1.2.3", "ip: expected an address"),
        ("since=yesterday", "since: expected a time"),
        ("until=1000000000000000", "until: no event is later"),
        ("cursor=abc", "cursor: the cursor is not one"),
        ("sort=score", "there is no parameter sort"),
    ] {
        let detail = served.get(&format!("/api/events?{query}")).problem(400);
        assert!(detail.contains(said), "{query}: {detail}");
    }
    served.get("/api/health?x=1").problem(400);
    served.get("/api/stats/timeline?buckets=501").problem(400);
    served.get("/api/anomalies?what=all").problem(400);
    served.get("/api/anomalies?sort=user").problem(400);
    served.get("/api/analyses/severity/highest").problem(400);
    served.get("/api/events/%ff").problem(400);
    served
        .get(&format!("/api/users/{}", "u".repeat(1_025)))
        .problem(400);
}
