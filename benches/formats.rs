//! What it costs to map records of other formats, next to what it costs to parse them with `serde_json`, which is what
//! a mapping over a general parser pays first, and next to our own lines of the same events.
//! `cargo bench --bench formats`; rounds are interleaved, the best of each counts.

mod blocks;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use blocks::{blocks, take};
use serde_json::{Value, json};
use streamguard::batch::Block;
use streamguard::generate::{GenerateConfig, generate};
use streamguard::mapping::{Mapping, MappingConfig};
use streamguard::record::LINE_BYTES_MAX;
use streamguard::time::format_time_ms;

const N_ROUNDS: usize = 9;

fn main() {
    let config = GenerateConfig {
        n_events: 50_000,
        n_users: 1_000,
        ..GenerateConfig::default()
    };
    let mut native = Vec::new();
    generate(&config, &mut native, None).expect("memory takes every write");
    let text = std::str::from_utf8(&native).expect("events are UTF-8");
    let measure = |name: &str, form: fn(&Value) -> Value| {
        let mut records = String::new();
        for line in text.lines() {
            let event = serde_json::from_str(line).expect("an event is JSON");
            writeln!(records, "{}", form(&event)).expect("memory takes every write");
        }
        compare(name, &native, &records);
    };
    measure("okta", okta);
    measure("ecs", ecs);
    measure("cloudtrail", cloudtrail);
}

fn compare(name: &str, native: &[u8], records: &str) {
    let mapping = Mapping::new(MappingConfig {
        format: Some(name.to_owned()),
        ..MappingConfig::default()
    });
    let mapping = mapping.expect("the format is built in");
    let n_lines = memchr::memchr_iter(b'\n', native).count();
    let mut best = [f64::INFINITY; 3];
    let (mut block, mut mapped) = (Block::new(), Block::new());
    for _ in 0..N_ROUNDS {
        let rounds: [&mut dyn FnMut() -> usize; 3] = [
            &mut || {
                let each = blocks(native);
                each.map(|lines| {
                    take(&mut block, lines);
                    block.parse(LINE_BYTES_MAX);
                    block.events.len()
                })
                .sum()
            },
            &mut || {
                let values = records.lines().map(serde_json::from_str::<Value>);
                values.filter(|value| black_box(value).is_ok()).count()
            },
            &mut || {
                let each = blocks(records.as_bytes());
                each.map(|lines| {
                    take(&mut mapped, lines);
                    let ahead = mapping.look_ahead(std::slice::from_ref(&mapped));
                    mapping.parse(&mut mapped, &ahead[0], LINE_BYTES_MAX);
                    mapped.events.len()
                })
                .sum()
            },
        ];
        for (best, round) in best.iter_mut().zip(rounds) {
            let start = Instant::now();
            assert_eq!(round(), n_lines, "every line is an event");
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    println!(
        "{name}: {} bytes a record, {} of ours",
        records.len() / n_lines,
        native.len() / n_lines
    );
    for (what, seconds) in [
        "our own lines, parsed",
        "records, serde_json",
        "records, mapped",
    ]
    .iter()
    .zip(best)
    {
        let ns = seconds * 1e9 / n_lines as f64;
        println!(
            "  {what:22} {ns:7.0} ns, {:.2} times serde_json",
            seconds / best[1]
        );
    }
}

fn okta(event: &Value) -> Value {
    let of = |name: &str| event["metadata"][name].clone();
    let failed = matches!(event["status"].as_str(), Some("failed" | "blocked"));
    let place = event["geo_location"].as_str().unwrap_or("Berlin, DE");
    let (city, country) = place.split_once(", ").unwrap_or((place, ""));
    json!({
        "actor": {"id": "00u1", "type": "User", "alternateId": event["user"], "displayName": event["user"]},
        "client": {"userAgent": {"rawUserAgent": of("user_agent"), "os": "Mac OS X", "browser": "CHROME"},
                   "zone": "null", "device": "Computer", "ipAddress": event["source_ip"],
                   "geographicalContext": {"city": city, "country": country, "postalCode": null}},
        "device": {"id": of("device")},
        "authenticationContext": {"authenticationStep": 0, "externalSessionId": event["event_id"]},
        "displayMessage": "An event", "eventType": "user.authentication.sso",
        "outcome": {"result": if failed { "FAILURE" } else { "SUCCESS" }, "reason": null},
        "published": format_time_ms(event["timestamp"].as_i64().unwrap_or(0)),
        "securityContext": {"asNumber": of("asn"), "asOrg": "example", "isp": "example", "isProxy": false},
        "severity": "INFO", "debugContext": {"debugData": {"requestUri": of("endpoint")}},
        "uuid": event["event_id"], "version": "0",
    })
}

fn ecs(event: &Value) -> Value {
    let of = |name: &str| event["metadata"][name].clone();
    let failed = matches!(event["status"].as_str(), Some("failed" | "blocked"));
    json!({
        "@timestamp": format_time_ms(event["timestamp"].as_i64().unwrap_or(0)), "ecs": {"version": "8.11.0"},
        "event": {"id": event["event_id"], "kind": "event", "category": ["file"], "type": ["access"],
                  "action": event["type"], "outcome": if failed { "failure" } else { "success" }},
        "user": {"name": event["user"]}, "source": {"ip": event["source_ip"], "as": {"number": of("asn")}},
        "user_agent": {"original": of("user_agent")}, "url": {"path": of("endpoint")}, "host": {"name": "web1"},
    })
}

fn cloudtrail(event: &Value) -> Value {
    let of = |name: &str| event["metadata"][name].clone();
    let failed = matches!(event["status"].as_str(), Some("failed" | "blocked"));
    let user = event["user"].as_str().unwrap_or("root");
    json!({
        "eventVersion": "1.11", "eventTime": format_time_ms(event["timestamp"].as_i64().unwrap_or(0)),
        "userIdentity": {"type": "IAMUser", "principalId": format!("AIDA{user}"), "accountId": "123456789012",
                         "arn": format!("arn:aws:iam::123456789012:user/{user}"), "userName": user,
                         "accessKeyId": format!("AKIA{}", user.to_uppercase())},
        "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "awsRegion": "eu-central-1",
        "errorCode": if failed { json!("AccessDenied") } else { Value::Null },
        "sourceIPAddress": event["source_ip"], "userAgent": of("user_agent"),
        "requestParameters": {"bucketName": "files", "key": of("endpoint")}, "responseElements": null,
        "additionalEventData": {"bytesTransferredOut": 512}, "requestID": event["event_id"],
        "eventID": event["event_id"], "readOnly": true, "eventType": "AwsApiCall", "managementEvent": false,
        "recipientAccountId": "123456789012",
    })
}
