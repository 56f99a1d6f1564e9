//! The scanner of lines against two judges: `JSONTestSuite` and `serde_json`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use streamguard::batch::Block;
use streamguard::record::{
    Code, DEPTH_MAX, EVENT_ID_BYTES_MAX, FIELD_BYTES_MAX, LINE_BYTES_MAX, TIMESTAMP_MS_MAX, parse,
};

use crate::tools::{event, run, testdata};

/// The files of `JSONTestSuite` by name.
fn suite() -> Vec<(String, Vec<u8>)> {
    let folder = testdata("json_test_suite/test_parsing");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 318);
    files
}

#[test]
fn any_input_is_survived_and_counted() {
    for (name, bytes) in suite() {
        let ran = run("sg-consume", &[], &bytes);
        assert!(matches!(ran.code, 0 | 1), "{name}: {}", ran.stderr);
        // None of them is an event.
        assert_eq!(ran.text(), "", "{name}");
        let summary = ran.stderr.lines().last().unwrap_or_default();
        let number = |after: &str| -> u64 {
            let rest = summary.split(after).nth(1).unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let n_in = number("in ");
        let n_lines = bytes.split_inclusive(|&byte| byte == b'\n').count() as u64;
        // A mark alone is no line.
        let n_expected = if bytes == "\u{feff}".as_bytes() {
            0
        } else {
            n_lines
        };
        assert_eq!(n_in, n_expected, "{name}");
        assert_eq!(n_in, number("rejected ") + number("filtered "), "{name}");
        assert_eq!(ran.code, i32::from(number("rejected ") > 0), "{name}");
    }
}

#[test]
fn as_values_of_unknown_fields_they_are_judged_alike() {
    let files: Vec<(String, Vec<u8>)> = suite()
        .into_iter()
        .filter(|(_, bytes)| !bytes.contains(&b'\n'))
        .collect();
    let line = |name: &str, bytes: &[u8]| {
        let event = event(name, "u", 1);
        let before = format!("{},\"other\":", &event[..event.len() - 1]);
        [before.as_bytes(), bytes, b"}"].concat()
    };
    let lines: HashMap<&str, Vec<u8>> = files
        .iter()
        .map(|(name, bytes)| (&**name, line(name, bytes)))
        .collect();
    let mut input = Vec::new();
    for (name, _) in &files {
        input.extend_from_slice(&lines[&**name]);
        input.push(b'\n');
    }
    let ran = run("sg-consume", &["-q"], &input).expect_code(1);
    let mut accepted = HashMap::new();
    for line in ran.stdout.split_inclusive(|&byte| byte == b'\n') {
        let rest = line.strip_prefix(b"{\"event_id\":\"").unwrap();
        let n_bytes = rest.iter().position(|&byte| byte == b'"').unwrap();
        let name = String::from_utf8(rest[..n_bytes].to_vec()).unwrap();
        accepted.insert(name, &line[..line.len() - 1]);
    }
    let mut n_judged = [0; 3];
    for (name, _) in &files {
        let found = accepted.get(name);
        if let Some(found) = found {
            assert!(*found == lines[&**name], "{name} was changed");
        }
        let judged = match name.split('_').next().unwrap() {
            "y" => {
                assert!(found.is_some(), "{name} was rejected");
                0
            }
            "n" => {
                assert!(found.is_none(), "{name} was accepted");
                1
            }
            _ => 2,
        };
        n_judged[judged] += 1;
    }
    assert!(
        n_judged[0] > 80 && n_judged[1] > 170 && n_judged[2] > 30,
        "{n_judged:?}"
    );
}

/// JSON with all its members, also those of equal names.
#[derive(Debug)]
enum Json {
    Null,
    Bool,
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(Number::from_f64(number).unwrap()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

impl Json {
    fn depth(&self) -> u32 {
        match self {
            Self::Array(values) => 1 + values.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// The only value of that name, or null; an error if there are two.
fn member<'a>(members: &'a [(String, Json)], name: &str) -> Result<&'a Json, ()> {
    let mut values = members.iter().filter(|member| member.0 == name);
    let value = values.next().map_or(&Json::Null, |(_, value)| value);
    if values.next().is_some() {
        Err(())
    } else {
        Ok(value)
    }
}

fn text(value: &Json, n_bytes_max: usize) -> Result<&str, ()> {
    match value {
        Json::Null => Ok(""),
        Json::String(text) if text.len() <= n_bytes_max => Ok(text),
        _ => Err(()),
    }
}

/// What the documentation calls an event: `event_id`, `user`, type and place. Slow and plain.
fn judge(json: &Json) -> Result<[&str; 4], ()> {
    let Json::Object(members) = json else {
        return Err(());
    };
    for name in ["anomaly", "context", "analysis", "embedding"] {
        member(members, name)?;
    }
    let metadata = match member(members, "metadata")? {
        Json::Null => &[][..],
        Json::Object(members) => members,
        _ => return Err(()),
    };
    let places = [
        member(members, "geo_location")?,
        member(metadata, "geo_location")?,
    ];
    let kinds = [member(members, "type")?, member(members, "event_type")?];
    let first = |values: [&'_ Json; 2]| usize::from(matches!(values[0], Json::Null));
    let event_id = text(member(members, "event_id")?, EVENT_ID_BYTES_MAX)?;
    let user = text(member(members, "user")?, FIELD_BYTES_MAX)?;
    let kind = text(kinds[first(kinds)], FIELD_BYTES_MAX)?;
    let place = text(places[first(places)], FIELD_BYTES_MAX)?;
    let is_number_in = |value: &Json, max: f64| match value {
        Json::Number(number) => (0.0..=max).contains(&number.as_f64().unwrap()),
        _ => false,
    };
    let timestamp = member(members, "timestamp")?;
    let is_integer = matches!(timestamp, Json::Number(number) if !number.is_f64());
    let score = member(members, "threat_score")?;
    let address = text(member(members, "source_ip")?, FIELD_BYTES_MAX)?;
    let status = text(member(members, "status")?, FIELD_BYTES_MAX)?.to_ascii_lowercase();
    let is_event = json.depth() <= DEPTH_MAX
        && ![event_id, user, kind].contains(&"")
        && !event_id.chars().any(char::is_control)
        && is_integer
        && is_number_in(timestamp, TIMESTAMP_MS_MAX as f64)
        && (matches!(score, Json::Null) || is_number_in(score, 1.0))
        && (address.is_empty() || address.parse::<IpAddr>().is_ok())
        && ["", "success", "failed", "blocked", "pending"].contains(&&*status);
    if is_event {
        Ok([event_id, user, kind, place])
    } else {
        Err(())
    }
}

/// Compares what is made of a line with what `serde_json` and [`judge`] make of it.
fn agrees(line: &str) -> Result<(), TestCaseError> {
    let found = parse(line, 0, &mut Vec::new(), &mut Vec::new());
    let code = found.as_ref().err().map(|reason| reason.code);
    let is_json = serde_json::from_str::<IgnoredAny>(line).is_ok();
    if is_json {
        prop_assert_ne!(code, Some(Code::InvalidJson));
    } else {
        // These are found before the end of the line has been seen.
        let is_early = matches!(
            code,
            Some(Code::TooDeep | Code::DuplicateField | Code::WrongType | Code::InvalidValue)
        );
        prop_assert!(code == Some(Code::InvalidJson) || is_early, "{:?}", code);
    }
    // serde_json itself refuses numbers that no f64 holds, lone surrogates and 128 levels, and
    // takes -0 for a fraction.
    let Ok(json) = serde_json::from_str::<Json>(line) else {
        return Ok(());
    };
    if line.contains("-0") {
        return Ok(());
    }
    let judged = judge(&json);
    prop_assert_eq!(found.is_ok(), judged.is_ok(), "{:?}", code);
    let Ok([event_id, user, kind, place]) = judged else {
        return Ok(());
    };
    let mut block = Block::new();
    block.lines = format!("\n{line}\n").into_bytes();
    block.parse(LINE_BYTES_MAX);
    let view = block.view(&block.events[0]);
    prop_assert_eq!(
        (view.event_id, view.user, view.kind),
        (event_id, user, kind)
    );
    prop_assert_eq!(view.geo_location.unwrap_or_default(), place);
    let value: Value = serde_json::from_str(line).unwrap();
    prop_assert_eq!(Some(view.timestamp_ms), value["timestamp"].as_i64());
    let mut output = Vec::new();
    block.push_line(&block.events[0], &mut output);
    // Only the `\r` of the line's end is no part of it.
    let expected = line.strip_suffix('\r').unwrap_or(line);
    prop_assert_eq!(String::from_utf8(output).unwrap(), format!("{expected}\n"));
    Ok(())
}

/// Pieces of JSON, whole and broken.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\"a\"",
        "\"user\"",
        "\"event_id\":\"e\"",
        "\"timestamp\":1",
        "\"type\":\"T\"",
        "\"user\":\"u\"",
        "\"metadata\":{",
        "0",
        "-",
        "1.5",
        "e+3",
        "01",
        "1e999",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\t",
        "\r",
        "\\u",
        "\\ud800",
        "\\u00e9",
        "\"\\ud83d\\ude00\"",
        "ü",
        "\u{7f}",
        "\u{1}",
        "\0",
        "\u{feff}",
        "/",
        "NaN",
    ]);
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "1",
            "-1",
            "0.5",
            "1.0",
            "1e0",
            "1735689600000",
            "1e999",
            "999999999999999",
            "1000000000000000",
            "18446744073709551616",
            "\"\"",
            "\"e\"",
            "\"FAILED\"",
            "\"failed\"",
            "\"10.0.0.1\"",
            "\"::1\"",
            "\"FE80::0:1\"",
            "\"\\u0065\"",
            "\"a\\u0000\"",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"Oslo, NO\"",
            "{}",
            "[]",
            "{\"event_id\":1}",
        ])
        .prop_map(str::to_owned),
        "[a-z\\\\\"ü]{0,12}".prop_map(|text| format!("{text:?}")),
        (250_usize..260).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
        (1020_usize..1030).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
        (55_usize..70).prop_map(|n| format!("{}{}", "[".repeat(n), "]".repeat(n))),
        (25_usize..35).prop_map(|n| format!("{}1{}", "[{\"a\":".repeat(n), "}]".repeat(n))),
    ];
    let member = (name(), scalar.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
    prop_oneof![
        4 => scalar,
        1 => prop::collection::vec(member, 0..4)
            .prop_map(|members| format!("{{{}}}", members.join(","))),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "event_id",
        "user",
        "timestamp",
        "type",
        "event_type",
        "source_ip",
        "geo_location",
        "threat_score",
        "status",
        "metadata",
        "anomaly",
        "context",
        "analysis",
        "embedding",
        "other",
        "",
        "us\\u0065r",
        "geo_locatio\\u006e",
        "\\ud800",
    ])
    .prop_map(|name| format!("\"{name}\""))
}

/// Events, nearly: the required members, some others, in any order.
fn nearly_events() -> impl Strategy<Value = String> {
    let others = prop::collection::vec((name(), value()), 0..5);
    let drawn = (others, prop::bool::weighted(0.9), "[ \t]{0,2}");
    drawn
        .prop_flat_map(|(others, is_whole, space)| {
            let mut members = vec![
                "\"event_id\":\"e\"".to_owned(),
                "\"user\":\"u\"".to_owned(),
                "\"timestamp\":7".to_owned(),
            ];
            if is_whole {
                members.push("\"type\":\"T\"".to_owned());
            }
            let others = others
                .into_iter()
                .map(|(name, value)| format!("{space}{name}{space}:{space}{value}{space}"));
            members.extend(others);
            Just(members).prop_shuffle()
        })
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Values in the known fields, one of each.
fn events_with_values() -> impl Strategy<Value = String> {
    let names = [
        "event_id",
        "user",
        "timestamp",
        "type",
        "source_ip",
        "geo_location",
        "threat_score",
        "status",
        "metadata",
        "context",
    ];
    let usual = [
        "\"e\"",
        "\"u\"",
        "7",
        "\"T\"",
        "\"::1\"",
        "\"Oslo, NO\"",
        "0.5",
        "\"Failed\"",
        "{\"geo_location\":\"x\"}",
        "{\"failed_login_count\":1}",
    ];
    prop::collection::vec((prop::bool::weighted(0.85), value()), names.len()).prop_map(
        move |values| {
            let members: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(i, (is_usual, value))| {
                    let value = if *is_usual { usual[i] } else { value };
                    format!("\"{}\":{value}", names[i])
                })
                .collect();
            format!("{{{}}}", members.join(","))
        },
    )
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Truncate(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<prop::sample::Index>;
    let byte = || prop::sample::select(b"{}[]\",:\\0123eE+-. \ttrufalsn\x00\x1F\x7F\xC3".to_vec());
    let mutation = prop_oneof![
        (index(), byte()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        (index(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        index().prop_map(Mutation::Remove),
        index().prop_map(Mutation::Truncate),
        (index(), index()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ];
    prop::collection::vec(mutation, 1..4)
}

fn mutate(line: &str, mutations: &[Mutation]) -> String {
    let mut bytes = line.as_bytes().to_vec();
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        let n_bytes = bytes.len();
        match mutation {
            Mutation::Flip(at, byte) => bytes[at.index(n_bytes)] = *byte,
            Mutation::Insert(at, byte) => bytes.insert(at.index(n_bytes), *byte),
            Mutation::Remove(at) => drop(bytes.remove(at.index(n_bytes))),
            Mutation::Truncate(at) => bytes.truncate(at.index(n_bytes)),
            Mutation::Repeat(from, to) => {
                let (from, to) = (from.index(n_bytes), to.index(n_bytes));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, piece);
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace('\n', " ")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pieces_of_json_are_judged_as_by_serde_json(line in pieces()) {
        agrees(&line)?;
    }

    #[test]
    fn events_are_judged_as_by_the_documentation(
        line in prop_oneof![nearly_events(), events_with_values()],
    ) {
        agrees(&line)?;
    }

    #[test]
    fn mutated_events_are_judged_alike(
        line in prop_oneof![nearly_events(), events_with_values()],
        mutations in mutations(),
    ) {
        agrees(&mutate(&line, &mutations))?;
    }
}
