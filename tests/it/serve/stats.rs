//! Counts, also by time and by user.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Served, filled};
use crate::database::store;
use crate::tools::{event, event_and, run};

#[test]
fn counts_are_those_of_a_recount() {
    let folder = tempfile::tempdir().unwrap();
    let db = filled(folder.path());
    let ran = run("sg-query", &["export", "--db", db.to_str().unwrap()], b"");
    let events = ran.json_lines();
    let served = Served::start(&db, &[]);
    let count = |path: &str| {
        let count = served.get(path).ok().json();
        assert_eq!(count["is_exact"], true, "{path}");
        count["count"].as_u64().unwrap()
    };
    let n_where =
        |is_so: &dyn Fn(&Value) -> bool| events.iter().filter(|it| is_so(it)).count() as u64;
    assert_eq!(count("/api/events/count"), events.len() as u64);
    let user = events[7]["user"].as_str().unwrap();
    let of_user = n_where(&|event| event["user"] == user);
    assert_eq!(count(&format!("/api/events/count?user={user}")), of_user);
    let n_anomalies = n_where(&|event| event["anomaly"].is_object());
    assert_eq!(count("/api/anomalies/count"), n_anomalies);
    let high = n_where(&|event| {
        ["high", "critical"].contains(&event["anomaly"]["severity"].as_str().unwrap_or(""))
    });
    assert_eq!(count("/api/anomalies/count?severity=high"), high);
    let threat =
        n_where(&|event| (0.2..=0.4).contains(&event["threat_score"].as_f64().unwrap_or(-1.0)));
    let found = served.all("/api/events/threat-score?min=0.2&max=0.4&limit=50");
    assert_eq!(found.len() as u64, threat);
    assert!(threat > 50);

    // By user, the worst first.
    let mut users: BTreeMap<&str, Value> = BTreeMap::new();
    for event in events.iter().filter(|event| event["anomaly"].is_object()) {
        let name = event["user"].as_str().unwrap();
        let user = users.entry(name).or_insert_with(|| {
            json!({"user": name, "anomalies": 0, "low": 0, "medium": 0, "high": 0, "critical": 0,
                   "max_score": 0.0, "last_ms": 0})
        });
        let anomaly = &event["anomaly"];
        for counted in ["anomalies", anomaly["severity"].as_str().unwrap()] {
            user[counted] = (user[counted].as_u64().unwrap() + 1).into();
        }
        let max_score = user["max_score"].as_f64().unwrap();
        user["max_score"] = max_score
            .max(anomaly["anomaly_score"].as_f64().unwrap())
            .into();
        user["last_ms"] = event["timestamp"].clone();
    }
    let mut users: Vec<_> = users.into_values().collect();
    users.sort_by_key(|user| {
        let n = |name: &str| std::cmp::Reverse(user[name].as_u64());
        (
            [n("critical"), n("high"), n("medium"), n("low")],
            user["user"].to_string(),
        )
    });
    users.truncate(5);
    let found = served.get("/api/stats/users?limit=5").ok().json();
    assert_eq!(found["items"], Value::from(users));
}

#[test]
fn a_timeline_counts_everything_in_its_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let db = filled(folder.path());
    let ran = run("sg-query", &["export", "--db", db.to_str().unwrap()], b"");
    let events = ran.json_lines();
    let served = Served::start(&db, &[]);
    let times = |i: usize| events[i]["timestamp"].as_i64().unwrap();
    let check = |query: &str, since_ms: i64, until_ms: i64, n_max: usize| {
        let timeline = served
            .get(&format!("/api/stats/timeline{query}"))
            .ok()
            .json();
        assert_eq!(timeline["since_ms"], since_ms);
        assert_eq!(timeline["until_ms"], until_ms);
        let bucket_ms = timeline["bucket_ms"].as_i64().unwrap();
        let buckets = timeline["buckets"].as_array().unwrap();
        assert!(buckets.len() <= n_max && !buckets.is_empty());
        for (i, bucket) in buckets.iter().enumerate() {
            let start_ms = since_ms + i as i64 * bucket_ms;
            let end_ms = (start_ms + bucket_ms - 1).min(until_ms);
            let within: Vec<_> = events
                .iter()
                .filter(|event| {
                    let timestamp_ms = event["timestamp"].as_i64().unwrap();
                    (start_ms..=end_ms).contains(&timestamp_ms)
                })
                .collect();
            let severity = |name: &str| {
                let is_so = |event: &&&Value| event["anomaly"]["severity"] == name;
                within.iter().filter(is_so).count()
            };
            let failed = within.iter().filter(|event| has_failed(event)).count();
            let expected = json!({
                "start_ms": start_ms, "events": within.len(), "failed": failed,
                "low": severity("low"), "medium": severity("medium"), "high": severity("high"),
                "critical": severity("critical"),
            });
            assert_eq!(*bucket, expected);
        }
    };
    let last = events.len() - 1;
    check("", times(0), times(last), 100);
    check("?buckets=1", times(0), times(last), 1);
    let (since_ms, until_ms) = (times(500), times(2_000));
    check(
        &format!("?since={since_ms}&until={until_ms}&buckets=7"),
        since_ms,
        until_ms,
        7,
    );
    let none = served
        .get("/api/stats/timeline?since=5&until=4")
        .ok()
        .json();
    assert_eq!(none["buckets"], json!([]));
}

fn has_failed(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap();
    let endings = ["_FAILED", "_DENIED", "_FAILURE"];
    let status = event["status"].as_str().unwrap_or("");
    endings.iter().any(|ending| kind.ends_with(ending)) || ["failed", "blocked"].contains(&status)
}

#[test]
fn several_databases_answer_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let both = event("both", "u", 2);
    store(&one, format!("{}\n{both}", event("a", "u", 1)).as_bytes()).expect_code(0);
    store(
        &two,
        format!("{}\n{both}", event_and(r#""status":"failed""#)).as_bytes(),
    )
    .expect_code(0);
    let served = Served::start(&one, &["--db", two.to_str().unwrap()]);
    assert_eq!(served.get("/api/events").ok().items().len(), 3);
    assert_eq!(served.get("/api/events/count").ok().json()["count"], 3);
    let timeline = served.get("/api/stats/timeline?buckets=1").ok().json();
    assert_eq!(timeline["buckets"][0]["events"], 3);
    assert_eq!(timeline["buckets"][0]["failed"], 1);
}

#[test]
fn an_empty_database_has_answers() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, b"").expect_code(0);
    let served = Served::start(&db, &[]);
    for path in [
        "events",
        "anomalies",
        "analyses",
        "incidents",
        "feedback",
        "stats/users",
    ] {
        let list = served.get(&format!("/api/{path}")).ok().json();
        assert_eq!(list["items"], json!([]));
        assert_eq!(list["next"], Value::Null);
    }
    assert_eq!(served.get("/api/events/count").ok().json()["count"], 0);
    assert_eq!(
        served.get("/api/stats/timeline").ok().json()["buckets"],
        json!([])
    );
    assert_eq!(
        served.get("/api/stats/summary").ok().json()["first"],
        Value::Null
    );
}
