//! What `--geoip` and `--asn` promise: an event that does not say where it comes from is scored as
//! if it did; its line stays as it is.

use std::path::Path;

use serde_json::{Value, json};
use streamguard::enrich::{Database, DatabaseKind, Enrichment};

use crate::mmdb::{city, country, database, provider};
use crate::tools::{DETECTORS, Ran, digest, event, generated, run, shell};

/// Where the addresses of made-up events are, and who provides them.
const PLACES: [(&str, &str, &str); 6] = [
    ("203.0.113.0/26", "Oslo", "NO"),
    ("203.0.113.64/26", "Bergen", "NO"),
    ("203.0.113.128/25", "", "CH"),
    ("198.18.0.0/15", "Zürich", "CH"),
    ("100.96.0.0/11", "New York", "US"),
    ("2001:db8::/33", "Boston", "US"),
];
const PROVIDERS: [(&str, u32); 5] = [
    ("203.0.113.0/25", 64_500),
    ("203.0.113.128/25", 64_501),
    ("198.0.0.0/8", 64_620),
    ("100.64.0.0/10", 4_200_000_000),
    ("2001:db8::/32", 64_502),
];

/// A record whose code of a country is no text.
const DAMAGED: &[u8] = b"\xE1\x47country\xE1\x48iso_code\x42\xFF\xFF";

fn places() -> Vec<u8> {
    let records = PLACES.map(|(network, name, code)| {
        let record = if name.is_empty() {
            country(code)
        } else {
            city(name, code)
        };
        (network, record)
    });
    database("GeoLite2-City", &records)
}

fn providers() -> Vec<u8> {
    let records = PROVIDERS.map(|(network, number)| (network, provider(number)));
    database("GeoLite2-ASN", &records)
}

/// Writes both files.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("city"), places()).unwrap();
    std::fs::write(folder.path().join("asn"), providers()).unwrap();
    folder
}

/// Scores lines with both files; every event becomes an anomaly.
fn score(detector: &str, folder: &Path, lines: &[u8], args: &[&str]) -> Ran {
    let geoip = format!("--geoip={}", folder.join("city").display());
    let asn = format!("--asn={}", folder.join("asn").display());
    let always = ["-q", "--threshold=0", "--min-events=0", detector];
    run(
        "sg-score",
        &[&always[..], &[&*geoip, &asn], args].concat(),
        lines,
    )
}

/// The network that holds an address, by its number in the list.
fn holding<'a>(networks: impl IntoIterator<Item = &'a str>, address: &str) -> Option<usize> {
    let bits = |address: &str| match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    networks.into_iter().position(|network| {
        let (start, n_bits) = network.split_once('/').unwrap();
        let is_same_kind = start.contains(':') == address.contains(':');
        let n_bits: u32 = n_bits.parse().unwrap();
        is_same_kind && (bits(start) ^ bits(address)) >> (128 - n_bits) == 0
    })
}

/// Made-up events that say nothing of place and provider, but for one in seven; and the same events
/// as they would be if they said what the files know.
fn silent_and_outspoken(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut silent, mut outspoken) = (Vec::new(), Vec::new());
    let lines = generated(10_000, 25, seed);
    for (i, line) in lines.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let mut event: Value = serde_json::from_slice(line).unwrap();
        let address = event["source_ip"].as_str().unwrap().to_owned();
        if i % 7 > 0 {
            event.as_object_mut().unwrap().remove("geo_location");
        }
        if i % 7 > 1 {
            event["metadata"].as_object_mut().unwrap().remove("asn");
        }
        silent.extend(format!("{event}\n").into_bytes());
        let place = holding(PLACES.map(|(network, ..)| network), &address);
        if let (Some(i), None) = (place, event.get("geo_location")) {
            let (_, name, code) = PLACES[i];
            let place = format!("{name}, {code}");
            event["geo_location"] = json!(place.trim_start_matches(", "));
        }
        let provider = holding(PROVIDERS.map(|(network, _)| network), &address);
        if let (Some(i), None) = (provider, event["metadata"].get("asn")) {
            event["metadata"]["asn"] = json!(format!("AS{}", PROVIDERS[i].1));
        }
        outspoken.extend(format!("{event}\n").into_bytes());
    }
    (silent, outspoken)
}

/// Lines as they were before something was appended.
fn without_findings(lines: &str) -> String {
    let lines = lines.lines().map(|line| {
        let line = line.strip_suffix('}').unwrap();
        let end = line.find(",\"anomaly\":").or(line.find(",\"context\":"));
        format!("{}}}\n", &line[..end.unwrap_or(line.len())])
    });
    lines.collect()
}

#[test]
fn events_are_scored_as_if_they_said_it_and_lines_stay() {
    let folder = folder();
    let (silent, outspoken) = silent_and_outspoken(91);
    for detector in DETECTORS {
        let looked_up = score(detector, folder.path(), &silent, &[]).expect_code(0);
        let args = ["-q", "--threshold=0", "--min-events=0", detector];
        let said = run("sg-score", &args, &outspoken).expect_code(0);
        let unknown = run("sg-score", &args, &silent).expect_code(0);
        let anomalies = |ran: &Ran| -> Vec<[Value; 2]> {
            let events = ran.json_lines();
            let pick = |event: &Value| [event["anomaly"].clone(), event["context"].clone()];
            events.iter().map(pick).collect()
        };
        assert_eq!(anomalies(&looked_up), anomalies(&said), "{detector}");
        assert_ne!(anomalies(&looked_up), anomalies(&unknown), "{detector}");
        assert!(without_findings(looked_up.text()).into_bytes() == silent);
    }
}

#[test]
fn results_do_not_depend_on_jobs() {
    let folder = folder();
    let (silent, _) = silent_and_outspoken(93);
    for detector in DETECTORS {
        let one = score(detector, folder.path(), &silent, &["--jobs=1"]).expect_code(0);
        let two = score(detector, folder.path(), &silent, &["--jobs=2"]).expect_code(0);
        assert!(one.stdout == two.stdout);
    }
}

#[test]
fn pipe_and_fused_look_up_the_same() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (silent, _) = silent_and_outspoken(95);
    std::fs::write(path("in"), &silent).unwrap();
    let command = "cd FOLDER; with='--geoip city --asn asn'; t='--threshold 0.6'
        sg-consume -q in | sg-score -q $t $with | sg-store -q --db a
        sg-run -q $t $with in --db b
        SG_GEOIP=city SG_ASN=asn sg-run -q $t in --db c
        sg-run -q $t in --db d
        sg-query export --db b";
    let ran = shell(&command.replace("FOLDER", folder.path().to_str().unwrap())).expect_code(0);
    assert_eq!(ran.stderr, "");
    assert!(without_findings(ran.text()).into_bytes() == silent);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| digest(&path(name)));
    assert!(a == b && b == c && c != d);
}

/// What `--explain` finds of the place of an event with these members, by both detectors.
fn check(places: &[u8], members: &str, expected: Option<&str>) {
    let folder = folder();
    std::fs::write(folder.path().join("city"), places).unwrap();
    // The first event of a user is not scored by all.
    let line = |id| event(id, "u", 1).replace('}', &format!(",{members}}}\n"));
    let lines = line("first") + &line("e");
    for (detector, component) in [(DETECTORS[0], "location"), (DETECTORS[1], "netgeo")] {
        let ran = score(detector, folder.path(), lines.as_bytes(), &["--explain=e"]);
        let explanation = ran.expect_code(0).json_lines().remove(0);
        let pieces = explanation["components"].as_array().unwrap();
        let of_place = |piece: &&Value| piece["component"] == component;
        let finding = &pieces.iter().find(of_place).unwrap()["finding"];
        let words = finding.as_str().unwrap_or_default();
        match expected {
            Some(place) => assert!(words.contains(&format!("location {place}:")), "{words}"),
            None => assert!(!words.contains("location"), "{words}"),
        }
    }
}

#[test]
fn places_are_found_by_address() {
    let long = "x".repeat(1_100);
    let file = database(
        "DBIP-City-Lite",
        &[
            ("203.0.113.0/24", city("Oslo", "NO")),
            ("198.51.100.0/24", country("CH")),
            ("192.0.2.0/25", DAMAGED.to_vec()),
            ("192.0.2.128/25", provider(7)),
            ("192.168.0.0/16", city("Here", "XX")),
            ("127.0.0.0/8", city("Here", "XX")),
            ("198.18.0.0/24", city("A\u{1b}[2J", "SE")),
            ("198.18.1.0/24", city("Malmo", "S\n")),
            ("198.18.2.0/24", city(&long, "SE")),
            ("198.18.3.0/24", city("Malmo", &long)),
            ("198.18.4.0/24", city("", "SE")),
            ("198.18.5.0/24", city("Malmo", "")),
            ("2001:db8::/32", city("Berlin", "DE")),
            ("fd00::/8", city("Here", "XX")),
        ],
    );
    let from = |address: &str, expected| {
        check(&file, &format!(r#""source_ip":"{address}""#), expected);
    };
    from("203.0.113.9", Some("Oslo, NO"));
    from("::ffff:203.0.113.9", Some("Oslo, NO"));
    from("198.51.100.9", Some("CH"));
    from("2001:DB8:0::9", Some("Berlin, DE"));
    // Not known, not readable, of another kind.
    for address in ["203.0.114.9", "2001:db9::9", "192.0.2.9", "192.0.2.200"] {
        from(address, None);
    }
    for address in [
        "192.168.0.9",
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "fd00::1",
        "::1",
    ] {
        from(address, None);
    }
    // Names that no event could have.
    from("198.18.0.9", Some("SE"));
    from("198.18.1.9", None);
    from("198.18.2.9", Some("SE"));
    from("198.18.3.9", None);
    from("198.18.4.9", Some("SE"));
    from("198.18.5.9", None);
    // What the event says itself, and an event without an address.
    let members = r#""source_ip":"203.0.113.9","geo_location":"Rome, IT""#;
    check(&file, members, Some("Rome, IT"));
    let members = r#""source_ip":"203.0.113.9","metadata":{"geo_location":"Rome, IT"}"#;
    check(&file, members, Some("Rome, IT"));
    let members = r#""source_ip":"203.0.113.9","geo_location":"""#;
    check(&file, members, Some("Oslo, NO"));
    check(&file, r#""source_ip":null"#, None);
}

#[test]
fn reasons_name_what_was_looked_up() {
    let folder = folder();
    let at = |i: i64, address: &str| {
        let line = event(&format!("e{i}"), "u", 1_735_700_000_000 + i * 3_600_000);
        line.replace('}', &format!(",\"source_ip\":\"{address}\"}}\n"))
    };
    let mut lines: String = (0..200).map(|i| at(i, "203.0.113.9")).collect();
    lines += &at(200, "203.0.113.70");
    lines += &at(201, "100.100.0.9");
    for (detector, near, far) in [
        (
            DETECTORS[0],
            "location Bergen, NO: new",
            "location New York, US: new",
        ),
        (
            DETECTORS[1],
            "address 203.0.113.70: new address in a known network; location Bergen, NO: new place in \
             a known country",
            "address 100.100.0.9: provider new to everybody; location New York, US: country new to \
             everybody",
        ),
    ] {
        let ran = score(detector, folder.path(), lines.as_bytes(), &[]).expect_code(0);
        let events = ran.json_lines();
        for (event, expected) in events[200..].iter().zip([near, far]) {
            let reasons = event["anomaly"]["reasons"].to_string();
            assert!(reasons.contains(expected), "{reasons}");
        }
    }
}

#[test]
fn what_cannot_be_looked_things_up_in_is_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let whole = places();
    std::fs::write(path("cut"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("headless"), &whole[whole.len() / 2..]).unwrap();
    std::fs::write(path("garbage"), generated(100, 3, 97)).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("other"), database("GeoIP2-Anonymous-IP", &[])).unwrap();
    let damaged = "it is no whole MaxMind database (";
    let no_places = "give one of type City or Country, such as GeoLite2-City.mmdb";
    let no_providers = "give one of type ASN or ISP, such as GeoLite2-ASN.mmdb";
    for (option, name, words) in [
        ("--geoip", "missing", "it cannot be read: No such file"),
        ("--asn", "missing", "it cannot be read: No such file"),
        ("--geoip", "cut", damaged),
        ("--geoip", "headless", damaged),
        ("--geoip", "garbage", damaged),
        ("--asn", "empty", damaged),
        ("--geoip", "asn", no_places),
        ("--geoip", "other", no_places),
        ("--asn", "city", no_providers),
    ] {
        let argument = format!("{option}={}", path(name));
        let db = path("db");
        for (program, args) in [
            ("sg-score", &[&*argument][..]),
            ("sg-run", &[&*argument, "--db", &db]),
        ] {
            let ran = run(program, args, event("e", "u", 1).as_bytes()).expect_code(2);
            let n_lines = ran.stderr.lines().count();
            assert_eq!((ran.text(), n_lines), ("", 1), "{}", ran.stderr);
            let beginning = format!("{program}: {option} {} cannot be used: ", path(name));
            assert!(ran.stderr.starts_with(&beginning), "{}", ran.stderr);
            assert!(ran.stderr.contains(words), "{}", ran.stderr);
        }
        assert!(!Path::new(&db).exists());
    }
}

/// Whatever one byte of a file is, it is refused or used.
#[test]
fn no_damage_ends_a_run_that_has_begun() {
    let folder = folder();
    let path = folder.path().join("city");
    let file = database(
        "GeoLite2-City",
        &[
            ("203.0.113.0/24", city("Oslo", "NO")),
            ("2001:db8::/32", country("DE")),
        ],
    );
    let addresses = ["203.0.113.9", "2001:db8::9", "0.0.0.1", "::9", "ff00::9"];
    let lines: String = addresses
        .iter()
        .map(|address| {
            let line = event("e", "u", 1);
            line.replace('}', &format!(",\"source_ip\":\"{address}\"}}\n"))
        })
        .collect();
    let mut n_used = 0;
    for i in 0..file.len() {
        for flipped in [0x01, 0x80, 0xFF] {
            let mut file = file.clone();
            file[i] ^= flipped;
            std::fs::write(&path, &file).unwrap();
            let Ok(places) = Database::open(&path, DatabaseKind::Places) else {
                continue;
            };
            let mut block = streamguard::batch::Block::new();
            block.lines = lines.clone().into_bytes();
            block.parse(1 << 20);
            let enrichment = Enrichment {
                places: Some(places),
                providers: None,
            };
            enrichment.fill(&mut block);
            for event in &block.events {
                n_used += usize::from(block.view(event).geo_location.is_some());
            }
        }
    }
    assert!(n_used > file.len());
}
