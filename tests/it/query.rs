//! What `sg-query` promises of events and anomalies: exactly those that a plain filter over the
//! stored lines gives, in the right order, page by page, and whole enough to be stored again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::database::store;
use crate::query_model::{Item, Question, ask, odd_database};
use crate::tools::{Ran, event, run, shell};

/// Every filter is taken from an event that exists, at its very edge, so that answers are not
/// empty and what is included is seen.
#[test]
fn filters_give_what_a_plain_filter_gives() {
    let (_folder, db, items) = odd_database();
    let n_of = |rank| {
        items
            .iter()
            .filter(|item| item.severity_rank() == Some(rank))
            .count()
    };
    assert!((0..4).all(|rank| n_of(rank) > 20), "too few of a severity");
    let mut state = 1_u64;
    let mut random = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for round in 0..76 {
        let is_of_anomalies = round % 2 == 1;
        // Each filter alone, all together, then any of them.
        let filters = match round / 2 {
            bit @ 0..9 => 1 << bit,
            9 => 511,
            10 => 0,
            _ => random(512),
        };
        let asks = |bit: usize| filters >> bit & 1 == 1;
        let has_score = is_of_anomalies || asks(5) || asks(6);
        let candidates: Vec<&Item> = items
            .iter()
            .filter(|item| !has_score || item.score().is_some())
            .filter(|item| !asks(4) || item.ip().is_some())
            .collect();
        let item = candidates[random(candidates.len())];
        let question = Question {
            is_of_anomalies,
            since: asks(0).then(|| item.timestamp_ms() - [0, 1, 900_000_000][random(3)]),
            until: asks(1).then(|| item.timestamp_ms() + [0, 1, 900_000_000][random(3)]),
            user: asks(2).then(|| item.text("user").to_owned()),
            kind: asks(3).then(|| item.text("type").to_owned()),
            ip: asks(4).then(|| item.text("source_ip").to_owned()),
            min_score: item.score().filter(|_| asks(5)),
            severity: item.severity_rank().filter(|_| asks(6)),
            limit: asks(7).then(|| [1, 3, 250, 9_999][random(4)]),
            is_oldest_first: asks(8),
        };
        assert!(question.check(&db, &items) > 0, "{question:?}");
    }
    // In other words than the event's.
    let ip = Some("2001:db8:0:0:0:0:0:1".to_owned());
    let question = Question {
        ip,
        limit: Some(9_999),
        ..Question::default()
    };
    assert!(question.check(&db, &items) > 10);
}

#[test]
fn what_nothing_matches_is_empty_and_told_by_the_code() {
    let (_folder, db, items) = odd_database();
    let last_ms = items.last().unwrap().timestamp_ms();
    for is_of_anomalies in [false, true] {
        for is_oldest_first in [false, true] {
            let nothing = || Question {
                is_of_anomalies,
                is_oldest_first,
                ..Question::default()
            };
            for question in [
                Question {
                    limit: Some(0),
                    ..nothing()
                },
                Question {
                    since: Some(last_ms + 1),
                    ..nothing()
                },
                Question {
                    until: Some(-1),
                    ..nothing()
                },
                Question {
                    since: Some(last_ms),
                    until: Some(last_ms - 1),
                    ..nothing()
                },
                Question {
                    since: Some(i64::MAX),
                    until: Some(i64::MIN),
                    ..nothing()
                },
                Question {
                    user: Some("nobody".to_owned()),
                    ..nothing()
                },
                Question {
                    kind: Some("api_call".to_owned()),
                    ..nothing()
                },
            ] {
                assert_eq!(question.check(&db, &items), 0);
            }
        }
    }
}

#[test]
fn a_score_that_none_can_have_is_refused() {
    for score in ["1.01", "-0.1", "nan", "inf", "high"] {
        let ran = run(
            "sg-query",
            &["events", &format!("--min-score={score}")],
            b"",
        )
        .expect_code(2);
        assert_eq!(ran.text(), "");
        assert!(ran.stderr.contains("--min-score"), "{}", ran.stderr);
    }
}

/// The place to go on that an answer names.
#[track_caller]
fn cursor_of(ran: &Ran) -> &str {
    ran.stderr
        .strip_prefix("sg-query: there is more: go on with --cursor ")
        .and_then(|rest| rest.strip_suffix('\n'))
        .unwrap_or_else(|| panic!("no cursor in {:?}", ran.stderr))
}

#[test]
fn pages_joined_are_the_whole_answer() {
    let (_folder, db, items) = odd_database();
    let user = || Some(items[0].text("user").to_owned());
    let mut n_cut_ties = 0;
    for is_of_anomalies in [false, true] {
        for is_oldest_first in [false, true] {
            let all = || Question {
                is_of_anomalies,
                is_oldest_first,
                ..Question::default()
            };
            for question in [
                all(),
                Question {
                    user: user(),
                    ..all()
                },
                Question {
                    severity: Some(1),
                    ..all()
                },
                Question {
                    user: user(),
                    severity: Some(1),
                    min_score: Some(0.57),
                    ..all()
                },
            ] {
                let expected = question.answer(&items);
                let mut args = question.args();
                let mut n_found = 0;
                for limit in [1, 2, 3, 40, 9_999] {
                    args.push(format!("--limit={limit}"));
                    let ran = ask(&db, &args.iter().map(String::as_str).collect::<Vec<_>>());
                    let page = &expected[n_found..expected.len().min(n_found + limit)];
                    assert!(ran.text() == page.concat(), "{args:?}: {}", ran.text());
                    n_found += page.len();
                    if n_found == expected.len() {
                        assert_eq!((ran.code, &*ran.stderr), (0, ""));
                        break;
                    }
                    args = question.args();
                    args.push(format!("--cursor={}", cursor_of(&ran)));
                    let time_of = |i: usize| {
                        let line: Value = serde_json::from_str(&expected[i]).unwrap();
                        line["timestamp"].as_i64()
                    };
                    n_cut_ties += u32::from(time_of(n_found - 1) == time_of(n_found));
                }
                assert_eq!(n_found, expected.len());
            }
        }
    }
    assert!(n_cut_ties > 5, "no page ended among events of one time");
}

/// Keys with a sign before the time were taken for ones of ours.
#[test]
fn a_cursor_that_no_answer_gave_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    for key in [
        "",
        "x",
        "1:e",
        "00000000000001:e",
        "00000000000000x:e",
        "000000000000001e",
    ]
    .into_iter()
    .chain(["+00000000000001:e", "-00000000000001:e", "000000000000001:"])
    {
        let encoded = shell(&format!(
            "printf %s '{key}' | basenc --base64url | tr -d =\\\\n"
        ));
        let encoded = format!("--cursor={}", encoded.expect_code(0).text());
        let ran = ask(&db, &["events", &encoded]);
        assert_eq!((ran.code, ran.text()), (2, ""), "{key}");
        assert_eq!(
            ran.stderr,
            "sg-query: the cursor is not one that an earlier answer gave\n"
        );
    }
    for cursor in ["?", "MDAwMDAwMDAwMDAwMDAxOmU=", "MDAwMDAwMDAwMDAwMDAxOv8"] {
        let ran = ask(&db, &["events", "--cursor", cursor]).expect_code(2);
        assert_eq!(ran.text(), "");
    }
    // The same, as an answer would give it: nothing comes before this event.
    let ran = ask(&db, &["events", "--cursor", "MDAwMDAwMDAwMDAwMDAxOmU"]);
    assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", ""));
}

#[test]
fn an_event_is_found_by_its_id() {
    let (_folder, db, items) = odd_database();
    let with_anomaly = items.iter().filter(|item| item.score().is_some());
    for item in with_anomaly.step_by(300).chain(items.iter().step_by(900)) {
        let ran = ask(&db, &["event", item.text("event_id")]).expect_code(0);
        assert_eq!((ran.text(), &*ran.stderr), (&*item.line, ""));
    }
    let ran = ask(&db, &["event", "no such id"]);
    assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", ""));
}

#[test]
fn an_id_may_be_any_text() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let long = "ü".repeat(128);
    let ids = [
        "a",
        "a:",
        ":",
        "a:b:c",
        "a\"b",
        "a'b",
        "a\\b",
        "-x",
        "--db",
        " ",
        "日本",
        "\u{202e}",
        "%0",
        "000000000000001:a",
        "*",
        &long,
    ];
    let line = |id: &str, timestamp_ms: i64| {
        let id = serde_json::to_string(id).unwrap();
        event("@", "u", timestamp_ms).replace("\"@\"", &id) + "\n"
    };
    // Twice at different times, the later one first, and once written with an escape.
    let mut input: String = ids.iter().map(|id| line(id, 2) + &line(id, 1)).collect();
    let escaped = line("@", 3).replace('@', "\\u0061");
    input += &escaped;
    store(&db, input.as_bytes()).expect_code(0);
    for id in ids {
        let ran = ask(&db, &["event", "--", id]).expect_code(0);
        let third = if id == "a" { &*escaped } else { "" };
        assert_eq!(ran.text(), line(id, 1) + &line(id, 2) + third);
        assert_eq!(ran.stderr, "");
    }
    assert_eq!(ask(&db, &["event", ""]).code, 1);
}

#[test]
fn the_highest_scores_come_first() {
    let (_folder, db, items) = odd_database();
    for (args, question) in [
        (&[][..], Question::default()),
        (
            &["--limit=9999"],
            Question {
                limit: Some(9_999),
                ..Question::default()
            },
        ),
        (
            &["--limit=7", "--user=user00001", "--severity=medium"],
            Question {
                limit: Some(7),
                user: Some("user00001".to_owned()),
                severity: Some(1),
                ..Question::default()
            },
        ),
    ] {
        let mut found: Vec<&Item> = items.iter().filter(|item| question.matches(item)).collect();
        found.retain(|item| item.score().is_some());
        found.reverse();
        found.sort_by(|a, b| b.score().unwrap().total_cmp(&a.score().unwrap()));
        let found = found.into_iter().take(question.limit.unwrap_or(100));
        let expected: String = found.filter_map(|item| item.anomaly_line.clone()).collect();
        let ran = ask(&db, &[&["anomalies", "--sort=score"], args].concat()).expect_code(0);
        assert!(ran.text() == expected, "{args:?}: {}", ran.text());
        assert_eq!(ran.stderr, "");
    }
    let cursor = "--cursor=MDAwMDAwMDAwMDAwMDAxOmU";
    let ran = ask(&db, &["anomalies", "--sort=score", cursor]);
    assert_eq!((ran.code, ran.text()), (2, ""));
    assert_eq!(
        ran.stderr,
        "sg-query: --cursor goes with --sort time: use --limit\n"
    );
}

/// Scores come with the input: one below 0 was taken for the highest, one of 300 digits was shown.
#[test]
fn scores_that_cannot_be_make_no_anomaly() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let scores = ["0.5", "-1", "2", "-0.0", "0.0", "-2.5", "1e300", "0.1"];
    let input: String = scores.iter().enumerate().map(scored_as).collect();
    store(&db, input.as_bytes()).expect_code(0);
    // The two zeros are equal, so that the newer one comes first.
    for (limit, expected) in [(9, "0743"), (3, "074"), (1, "0")] {
        let limit = format!("--limit={limit}");
        let ran = ask(&db, &["anomalies", "--sort=score", &limit]).expect_code(0);
        let found = ran.json_lines();
        let ids = found
            .iter()
            .map(|found| found["event_id"].as_str().unwrap());
        assert_eq!(ids.collect::<String>(), expected);
    }
}

fn scored_as((i, score): (usize, &&str)) -> String {
    let event = event(&i.to_string(), "u", i as i64 + 1);
    format!(
        r#"{},"anomaly":{{"event_id":"{i}","user":"u","timestamp":{},"anomaly_score":{score},"severity":"low","reasons":[]}}}}
"#,
        event.strip_suffix('}').unwrap(),
        i + 1
    )
}

#[test]
fn times_may_be_written_in_many_ways() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = now.as_millis() as i64;
    let hours_ago = |n: i64| now_ms - n * 3_600_000;
    // Around the 1st of February 2025, and hours around the spans that are asked for.
    let midnight = 1_738_368_000_000;
    let mut times = vec![midnight - 1, midnight, midnight + 1, midnight + 3_600_000];
    times.extend([200, 167, 25, 23, 1].map(hours_ago));
    let lines: Vec<String> = times
        .iter()
        .map(|&ms| event(&ms.to_string(), "u", ms) + "\n")
        .collect();
    store(&db, lines.concat().as_bytes()).expect_code(0);
    for (text, from_ms) in [
        ("2025-02-01", midnight),
        ("2025-02-01T00:00:00Z", midnight),
        ("2025-02-01T00:00:00.001Z", midnight + 1),
        ("2025-02-01T02:00:00+01:00", midnight + 3_600_000),
        ("2025-01-31T23:59:59.999Z", midnight - 1),
        ("1738368000000", midnight),
        ("24h", hours_ago(24)),
        ("7d", hours_ago(168)),
        ("1w", hours_ago(168)),
        ("1440m", hours_ago(24)),
        ("86400s", hours_ago(24)),
        ("0", 0),
        ("-5", -5),
    ] {
        for (option, is_found) in [
            ("--since", &(|ms| ms >= from_ms) as &dyn Fn(i64) -> bool),
            ("--until", &|ms| ms <= from_ms),
        ] {
            let times = times.iter().zip(&lines);
            let expected: String = times
                .filter(|(ms, _)| is_found(**ms))
                .map(|(_, line)| line.as_str())
                .collect();
            let ran = ask(
                &db,
                &["events", "--oldest-first", &format!("{option}={text}")],
            );
            assert_eq!(ran.text(), expected, "{option} {text}");
            assert_eq!(ran.stderr, "");
        }
    }
}

/// The message named neither the option nor what stood there.
#[test]
fn what_is_no_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    for text in [
        "yesterday",
        "5x",
        "",
        "h",
        "-5h",
        "1.5h",
        "99999999999h",
        "2025-13-01",
        "2025-02-30",
        "2025-02-01T00:00:00",
        "2025-02-01T25:00:00Z",
        "99999999999999999999",
        "1e3",
        "\u{1b}[2J",
    ] {
        for option in ["--since", "--until"] {
            for question in ["events", "anomalies", "export"] {
                let ran = ask(&db, &[question, &format!("{option}={text}")]);
                assert_eq!((ran.code, ran.text()), (2, ""), "{option} {text}");
                let shown = text.replace('\u{1b}', "<001B>");
                let beginning = format!("sg-query: {option} \"{shown}\": expected a time such as ");
                assert!(ran.stderr.starts_with(&beginning), "{}", ran.stderr);
                assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            }
        }
    }
}
