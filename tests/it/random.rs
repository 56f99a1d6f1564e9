//! Random lines, JSON and nearly JSON, events and nearly events, against a plain judge.

use proptest::prelude::*;

use crate::judge::agrees;

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
