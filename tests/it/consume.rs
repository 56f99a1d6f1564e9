//! `sg-consume`: what is an event, and what leaves byte for byte.

use crate::tools::{event, event_and, n_lines, run};

/// A valid event with one of its members given, or left out if `value` is empty.
fn event_with(name: &str, value: &str) -> String {
    let mut members = vec![
        ("event_id", "\"e\""),
        ("user", "\"u\""),
        ("timestamp", "1735689600000"),
        ("type", "\"LOGIN_SUCCESS\""),
    ];
    members.retain(|member| member.0 != name);
    if !value.is_empty() {
        members.push((name, value));
    }
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Feeds one line; `expected` is `ok`, or code and field of the reason for its reject.
#[track_caller]
fn check(line: impl AsRef<[u8]>, expected: &str) {
    let line = line.as_ref();
    let shown = String::from_utf8_lossy(&line[..line.len().min(300)]);
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.ndjson");
    let args = ["--dead-letter", dead.to_str().unwrap()];
    let ran = run("sg-consume", &args, &[line, b"\n"].concat());
    let letters = std::fs::read_to_string(&dead).unwrap();
    if expected == "ok" {
        assert_eq!((ran.code, &*letters), (0, ""), "{shown}\n{}", ran.stderr);
        assert!(ran.stdout == [line, b"\n"].concat(), "{shown}");
        assert_eq!(
            ran.stderr,
            "sg-consume: in 1 = out 1 + rejected 0 + filtered 0\n"
        );
        return;
    }
    assert_eq!(ran.code, 1, "{shown} was not rejected");
    assert_eq!(ran.text(), "", "{shown}");
    let code = expected.split(' ').next().unwrap();
    let summary = format!("in 1 = out 0 + rejected 1 + filtered 0 (rejected: {code} 1)\n");
    assert!(ran.stderr.ends_with(&summary), "{shown}\n{}", ran.stderr);
    let letter: serde_json::Value = serde_json::from_str(&letters).unwrap();
    let reason = &letter["reason"];
    let found = format!(
        "{} {}",
        reason["code"].as_str().unwrap(),
        reason["field"].as_str().unwrap_or_default()
    );
    assert_eq!(found.trim_end(), expected, "{shown}: {reason}");
}

#[test]
fn required_fields() {
    for name in ["event_id", "user", "type"] {
        for (value, code) in [
            ("", "missing_field"),
            ("null", "missing_field"),
            ("7", "wrong_type"),
            ("true", "wrong_type"),
            ("{}", "wrong_type"),
            ("[\"u\"]", "wrong_type"),
            ("\"\"", "invalid_value"),
            (r#""\ud800""#, "invalid_value"),
            (r#""\udc00\ud800""#, "invalid_value"),
            (r#""\ud83d\ude00""#, "ok"),
        ] {
            let is_ok = code == "ok";
            let expected = format!("{code} {name}");
            check(
                event_with(name, value),
                if is_ok { "ok" } else { &expected },
            );
        }
    }
    check("{}", "missing_field event_id");
    check(r#"{"event_id":"e"}"#, "missing_field user");
    // The alias counts only where the name itself is absent.
    check(event_with("type", "null,\"event_type\":\"T\""), "ok");
    check(event_with("type", "\"T\",\"event_type\":7"), "ok");
    let alias = event_with("type", "").replace('}', r#","event_type":"T"}"#);
    check(&alias, "ok");
    check(alias.replace("\"T\"", "7"), "wrong_type type");
    check(alias.replace("\"T\"", "\"\""), "invalid_value type");
}

#[test]
fn timestamps() {
    for (value, expected) in [
        ("", "missing_field timestamp"),
        ("null", "missing_field timestamp"),
        ("0", "ok"),
        ("-0", "ok"),
        ("-1", "out_of_range timestamp"),
        ("1.5", "wrong_type timestamp"),
        ("1735689600000.0", "wrong_type timestamp"),
        ("1e12", "wrong_type timestamp"),
        ("1E3", "wrong_type timestamp"),
        ("\"1735689600000\"", "wrong_type timestamp"),
        ("\"2025-01-01T00:00:00Z\"", "wrong_type timestamp"),
        ("[1]", "wrong_type timestamp"),
        ("999999999999999", "ok"),
        ("1000000000000000", "out_of_range timestamp"),
        ("1735689600000000000", "out_of_range timestamp"),
        ("9223372036854775808", "out_of_range timestamp"),
        (
            "99999999999999999999999999999999999999999999",
            "out_of_range timestamp",
        ),
        ("01", "invalid_json"),
        ("+1", "invalid_json"),
        ("0x10", "invalid_json"),
    ] {
        check(event_with("timestamp", value), expected);
    }
}

#[test]
fn optional_fields() {
    for (name, value, expected) in [
        ("threat_score", "0", "ok"),
        ("threat_score", "1", "ok"),
        ("threat_score", "1.0e-3", "ok"),
        ("threat_score", "-0.0", "ok"),
        ("threat_score", "null", "ok"),
        ("threat_score", "1.0001", "out_of_range"),
        ("threat_score", "-1e-9", "out_of_range"),
        ("threat_score", "85", "out_of_range"),
        ("threat_score", "1e999", "out_of_range"),
        ("threat_score", "-1e999", "out_of_range"),
        ("threat_score", "NaN", "invalid_json"),
        ("threat_score", "\"0.5\"", "wrong_type"),
        ("status", "\"failed\"", "ok"),
        ("status", "\"FAILED\"", "ok"),
        ("status", "\"Blocked\"", "ok"),
        ("status", "\"pending\"", "ok"),
        ("status", "\"\"", "ok"),
        ("status", "null", "ok"),
        ("status", "\"denied\"", "invalid_value"),
        ("status", "\"failed \"", "invalid_value"),
        ("status", "1", "wrong_type"),
        ("source_ip", "\"10.0.0.1\"", "ok"),
        ("source_ip", "\"2001:DB8:0:0::1\"", "ok"),
        ("source_ip", "\"::ffff:10.0.0.1\"", "ok"),
        ("source_ip", "\"\"", "ok"),
        ("source_ip", "null", "ok"),
        ("source_ip", r#""10.0.0.\u0031""#, "ok"),
        ("source_ip", "\"10.0.0.256\"", "invalid_value"),
        ("source_ip", "\"010.0.0.1\"", "invalid_value"),
        ("source_ip", "\"10.0.0.1:443\"", "invalid_value"),
        ("source_ip", "\"host.example\"", "invalid_value"),
        ("source_ip", "\" 10.0.0.1\"", "invalid_value"),
        ("source_ip", "167772161", "wrong_type"),
        ("geo_location", "\"Oslo, NO\"", "ok"),
        ("geo_location", "null", "ok"),
        ("geo_location", "{\"city\":\"Oslo\"}", "wrong_type"),
        ("metadata", "{}", "ok"),
        ("metadata", "null", "ok"),
        ("metadata", "{\"geo_location\":\"Oslo, NO\"}", "ok"),
        ("metadata", "[]", "wrong_type"),
        ("metadata", "\"text\"", "wrong_type"),
        ("metadata", "1", "wrong_type"),
    ] {
        let expected = match expected {
            "ok" | "invalid_json" => expected.to_owned(),
            code => format!("{code} {name}"),
        };
        check(event_with(name, value), &expected);
    }
    check(
        event_with("metadata", "{\"geo_location\":7}"),
        "wrong_type metadata.geo_location",
    );
}

#[test]
fn lengths_and_characters() {
    let quoted = |n: usize| format!("\"{}\"", "x".repeat(n));
    check(event_with("event_id", &quoted(256)), "ok");
    check(
        event_with("event_id", &quoted(257)),
        "out_of_range event_id",
    );
    // Bytes count, not characters, and those of the text, not of its escapes.
    let umlauts = format!("\"{}\"", "ü".repeat(128));
    check(event_with("event_id", &umlauts), "ok");
    check(
        event_with("event_id", &umlauts.replacen('"', "\"x", 1)),
        "out_of_range event_id",
    );
    let escaped = format!("\"{}\"", r"\u0041".repeat(256));
    check(event_with("event_id", &escaped), "ok");
    for name in ["user", "type", "geo_location"] {
        check(event_with(name, &quoted(1024)), "ok");
        check(
            event_with(name, &quoted(1025)),
            &format!("out_of_range {name}"),
        );
    }
    for control in [r"\u0000", r"\u001f", r"\u007f", r"\u0085", r"\n", "\u{85}"] {
        check(
            event_with("event_id", &format!("\"a{control}b\"")),
            "invalid_value event_id",
        );
    }
    // Other fields are text: the programs that print them must cope.
    check(event_with("user", r#""a\u0000b""#), "ok");
    for raw in ["a\u{0}b", "a\tb", "a\u{1f}b"] {
        check(event_with("user", &format!("\"{raw}\"")), "invalid_json");
    }
}

#[test]
fn equal_names() {
    for name in [
        "event_id",
        "user",
        "type",
        "event_type",
        "source_ip",
        "geo_location",
        "status",
        "anomaly",
        "context",
        "analysis",
        "embedding",
    ] {
        let twice = format!("\"{name}\":null,\"{name}\":null");
        let line = event_with(name, "");
        let line = line.replacen('{', &format!("{{{twice},"), 1);
        check(line, &format!("duplicate_field {name}"));
    }
    check(event_and(r#""timestamp":1"#), "duplicate_field timestamp");
    check(
        event_and(r#""threat_score":0,"threat_score":1"#),
        "duplicate_field threat_score",
    );
    check(
        event_and(r#""metadata":null,"metadata":{}"#),
        "duplicate_field metadata",
    );
    // The same name, however it is spelt.
    check(event_and(r#""us\u0065r":"v""#), "duplicate_field user");
    check(event_and(r#""\u0075ser":"v""#), "duplicate_field user");
    check(
        event_and(r#""metadata":{"geo_location":"a","geo_locatio\u006e":"b"}"#),
        "duplicate_field metadata.geo_location",
    );
    // Names are compared byte by byte, and unknown ones are none of our business.
    check(event_and(r#""User":"v","USER":"w""#), "ok");
    check(event_and(r#""other":1,"other":2"#), "ok");
    check(event_and(r#""metadata":{"a":1,"a":2,"user":"v"}"#), "ok");
    check(event_and(r#""other":{"user":1,"user":2}"#), "ok");
}

#[test]
fn text_that_is_no_text() {
    // A lone surrogate in a value that nobody reads passes; in a name it could hide a field.
    check(event_and(r#""other":"\ud800""#), "ok");
    check(event_and(r#""other":{"\ud800":1}"#), "ok");
    check(event_and(r#""\ud800":1"#), "invalid_value a field name");
    check(
        event_and(r#""metadata":{"\ud800":1}"#),
        "invalid_value a field name of metadata",
    );
    check(event_and("\"other\":\"a\u{0}b\""), "invalid_json");
    check(format!("{}\u{0}", event("e", "u", 1)), "invalid_json");
    check("\u{0}", "invalid_json");
    for escape in [
        r"\u12g4", r"\u123", r"\u123g", r"\u", r"\x41", r"\'", r"\U0041", r"\u-123",
    ] {
        check(
            event_and(&format!("\"other\":\"{escape}\"")),
            "invalid_json",
        );
    }
    for bytes in [
        &b"\xFF"[..],
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xE2\x82",
    ] {
        let line = event_and(r#""other":"@""#);
        let (before, after) = line.split_once('@').unwrap();
        check(
            [before.as_bytes(), bytes, after.as_bytes()].concat(),
            "invalid_utf8",
        );
    }
    check(b"\xFF\xFE{\0}\0", "invalid_utf8");
}

#[test]
fn lines_that_are_no_objects() {
    for line in ["[]", "[{}]", "\"text\"", "7", "-1.5e3", "null", "true"] {
        check(line, "not_an_object");
    }
    let event = event("e", "u", 1);
    check(format!("[{event}]"), "not_an_object");
    for line in [
        "text", "{", "}", "{]", "{\"a\"}", "{\"a\":}", "{a:1}", "{'a':1}", "nul", "[1,]", "{,}",
        "\u{a0}", "// no", "\"", "1 2",
    ] {
        check(line, "invalid_json");
    }
    check(format!("{event}{event}"), "invalid_json");
    check(format!("{event},"), "invalid_json");
    check(event.replace('}', ",}"), "invalid_json");
    check(&event[..event.len() - 1], "invalid_json");
}

#[test]
fn nesting() {
    let nested = |open: &str, close: &str, n: usize| {
        event_and(&format!("\"other\":{}{}", open.repeat(n), close.repeat(n)))
    };
    // The event itself is one level.
    check(nested("[", "]", 63), "ok");
    check(nested("[", "]", 64), "too_deep");
    check(
        nested("[[{\"a\":", "}]]", 63 / 3).replace(":}", ":1}"),
        "ok",
    );
    let objects = |n: usize| {
        event_and(&format!(
            "\"other\":{}1{}",
            "{\"a\":".repeat(n),
            "}".repeat(n)
        ))
    };
    check(objects(63), "ok");
    check(objects(64), "too_deep");
    let in_metadata = |n: usize| {
        event_and(&format!(
            "\"metadata\":{{\"a\":{}{}}}",
            "[".repeat(n),
            "]".repeat(n)
        ))
    };
    check(in_metadata(62), "ok");
    check(in_metadata(63), "too_deep");
    check(
        event_and(&format!("\"other\":{}", "[".repeat(1_000_000))),
        "too_deep",
    );
    check("[".repeat(1_000_000), "too_deep");
    check("{\"a\":".repeat(200_000), "too_deep");
}

/// Feeds input as a whole; the lines come out as they are expected.
#[track_caller]
fn check_bytes(input: impl AsRef<[u8]>, expected: impl AsRef<[u8]>, n_filtered: u64) {
    let (input, expected) = (input.as_ref(), expected.as_ref());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, input).unwrap();
    let n_out = n_lines(expected) as u64;
    let n_in = n_out + n_filtered;
    for ran in [
        run("sg-consume", &[], input),
        run("sg-consume", &[file.to_str().unwrap()], b""),
    ] {
        assert_eq!(
            ran.stderr,
            format!("sg-consume: in {n_in} = out {n_out} + rejected 0 + filtered {n_filtered}\n")
        );
        assert_eq!(ran.code, 0);
        assert_eq!(
            ran.stdout.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
}

#[test]
fn valid_lines_leave_byte_for_byte() {
    let plain = event("e", "u", 1);
    for line in [
        &*plain,
        "  { \"type\" : \"T\"\t,\"timestamp\":1 , \"user\" :\"u\",  \"event_id\":\"e\" }  \t",
        &event_and(r#""zz":1,"aa":[1, 2 ,{"b":null}],"":"","geo_location":"Oslo, NO""#),
        &event_and("\"other\":\"ü 你好 😀 \u{2028}\u{feff}\u{7f}\""),
        &event_and(r#""other":"\u00fc\/\\\"\b\f\n\r\t\ud83d\ude00""#),
        &event_and(r#""other":[1e999,-0,0.1e-99999,123456789012345678901234567890,1E+2]"#),
        &event_and(r#""source_ip":"2001:DB8:0::1","\u006fther":1"#),
        // Not what our stages write, so it stays.
        &event_and(r#""anomaly":true,"context":{},"analysis":null,"embedding":[0.5]"#),
    ] {
        let ended = format!("{line}\n");
        check_bytes(&ended, &ended, 0);
        check_bytes(line, &ended, 0);
        check_bytes(format!("{line}\r\n"), format!("{line}\r\n"), 0);
        check_bytes(format!("{line}\r\r"), format!("{line}\r\r\n"), 0);
        check_bytes(format!("\u{feff}{line}\n"), &ended, 0);
        let twice = format!("{ended}{ended}");
        check_bytes(&twice, &twice, 0);
        let mixed = format!("{line}\r\n{line}");
        check_bytes(&mixed, format!("{mixed}\n"), 0);
        check_bytes(format!("\n{line}\n \t\r\n\r\n{line}\n\n"), &twice, 4);
    }
    check_bytes("", "", 0);
    check_bytes("\n", "", 1);
    check_bytes("\u{feff}", "", 0);
    check_bytes("\u{feff}\n", "", 1);
    check_bytes(" \r\n\r\n\t", "", 3);
}

#[test]
fn a_byte_order_mark_counts_only_at_the_start() {
    let line = event("e", "u", 1);
    let ran = run(
        "sg-consume",
        &[],
        format!("{line}\n\u{feff}{line}\n\u{feff}\u{feff}").as_bytes(),
    );
    assert_eq!(ran.text(), format!("{line}\n"));
    assert!(
        ran.stderr
            .contains("in 3 = out 1 + rejected 2 + filtered 0 (rejected: invalid_json 2)"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 1);
}
