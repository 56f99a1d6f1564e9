//! What tells events apart, as names and values with weights. An analyst who asks "have we seen this
//! before?" means first the same kind of misbehaviour, then the same person or address, and hardly the
//! same hour; the weights say so. The likeness of two events is about the sum of the squared weights of
//! what they have in common, over that of all that is said of them: of an anomaly a half is what was
//! found, a quarter what was done, a quarter who and from where, and 1% when.

use std::net::IpAddr;

use super::{Subject, phrases};
use crate::record::anomaly::Severity;
use crate::record::text::shorten;

/// What is called with the name, value and weight of each feature. Weights are in sixteenths.
pub(super) type Each<'a> = dyn FnMut(&str, &str, i32) + 'a;

// What was found.
const ANOMALY: i32 = 24;
const ARCHETYPE: i32 = 48;
const CODE: i32 = 32;
const AMOUNT: i32 = 10;
const INCIDENT: i32 = 16;
const SEVERITY: i32 = 8;
// What was done.
const KIND: i32 = 36;
const KIND_GROUP: i32 = 14;
const FAILURE: i32 = 24;
const STATUS: i32 = 12;
const FOLDER: i32 = 14;
const ENDPOINT: i32 = 10;
const AGENT: i32 = 12;
const BYTES: i32 = 5;
const THREAT: i32 = 6;
// Who, and from where.
const USER: i32 = 30;
const ADDRESS: i32 = 24;
const NETWORK: i32 = 16;
const WIDE_NETWORK: i32 = 10;
const PROVIDER: i32 = 12;
const DEVICE: i32 = 16;
const PLACE: i32 = 12;
const COUNTRY: i32 = 12;
// When.
const HOUR: i32 = 5;
const WEEKEND: i32 = 4;
/// By words events are found that somebody asks for in words.
const WORD: i32 = 6;
/// The same in a text, which has nothing else.
const WORD_OF_TEXT: i32 = 12;
const CODE_OF_TEXT: i32 = 48;

/// Reasons that are looked at, values and words: all of it was written by an attacker.
const REASONS_MAX: usize = 16;
const VALUE_CHARS_MAX: usize = 256;
const CODE_CHARS_MAX: usize = 128;
const WORDS_MAX: usize = 64;
const WORD_CHARS: std::ops::RangeInclusive<usize> = 2..=40;
/// Words of a text that are looked at.
const TEXT_WORDS_MAX: usize = 512;
/// Words that say nothing by themselves.
const EMPTY_WORDS: [&str; 24] = [
    "the", "of", "to", "and", "is", "in", "this", "are", "as", "by", "from", "for", "an", "on",
    "it", "at", "with", "or", "all", "holds", "events", "user", "min", "them",
];

/// Calls `each` with what is said of an event.
pub(super) fn of_subject(subject: &Subject<'_>, each: &mut Each<'_>) {
    let mut words = Words::default();
    found(subject, &mut words, each);
    done(subject, &mut words, each);
    who(subject, &mut words, each);
    when(subject.view.timestamp_ms, each);
    for word in &words.0 {
        each("word", word, WORD);
    }
}

/// Calls `each` with what a text says: addresses, types, findings, kinds of attack, countries, what is
/// named, such as `user:alice` or `device:laptop-7`, and words.
pub(super) fn of_text(text: &str, each: &mut Each<'_>) {
    let mut words = Words::default();
    for piece in text.split_whitespace().take(TEXT_WORDS_MAX) {
        let piece = piece.trim_matches(|c: char| ",;.!?\"'()[]{}<>".contains(c));
        if piece.is_empty() {
            continue;
        }
        if let Ok(address) = piece.parse::<IpAddr>() {
            of_address(address, each);
            continue;
        }
        let is_named = match piece.split_once([':', '=']) {
            Some((name, value)) if !value.is_empty() => of_name(name, value, each),
            _ => false,
        };
        if is_named {
            continue;
        }
        words.add(piece);
        // `RO` is a country, `LOGIN_FAILED` a type, `LOGIN` how types begin.
        let is_upper = piece.chars().all(|c| c == '_' || c.is_ascii_uppercase());
        match piece.len() {
            _ if !is_upper => {}
            2 => each("country", piece, COUNTRY),
            _ if piece.contains('_') => each("type", &bounded(piece), KIND),
            _ => each("group", &bounded(piece), KIND_GROUP),
        }
    }
    for word in &words.0 {
        each("word", word, WORD_OF_TEXT);
    }
    let mut is_of_anomaly = false;
    for (archetype, names) in phrases::ARCHETYPES {
        if names.iter().any(|name| words.has(name)) {
            each("archetype", archetype, ARCHETYPE);
            is_of_anomaly = true;
        }
    }
    if phrases::FAILURES.iter().any(|word| words.has(word)) {
        each("failure", "yes", FAILURE);
    }
    let words_of = |code: &str| {
        let mut words = Words::default();
        words.add(code);
        words.0
    };
    for code in phrases::codes_in(&words.0, words_of) {
        each("reason", code, CODE_OF_TEXT);
        is_of_anomaly = true;
    }
    if is_of_anomaly {
        each("anomaly", "yes", ANOMALY);
    }
}

/// What somebody has named in a text; false if there is no such name.
fn of_name(name: &str, value: &str, each: &mut Each<'_>) -> bool {
    match name.to_ascii_lowercase().as_str() {
        "user" => each("user", &bounded(value), USER),
        "type" => each("type", &bounded(value), KIND),
        "status" => each("status", &bounded(&value.to_lowercase()), STATUS),
        "country" => each("country", &bounded(value), COUNTRY),
        "asn" | "provider" => each("provider", &bounded(value), PROVIDER),
        "device" => each("device", &bounded(value), DEVICE),
        "endpoint" => of_endpoint(value, each),
        "archetype" => each("archetype", &bounded(value), ARCHETYPE),
        "severity" => each("severity", &bounded(&value.to_lowercase()), SEVERITY),
        "ip" | "address" => match value.parse() {
            Ok(address) => of_address(address, each),
            Err(_) => return false,
        },
        _ => return false,
    }
    true
}

fn found(subject: &Subject<'_>, words: &mut Words, each: &mut Each<'_>) {
    let Some(anomaly) = subject.anomaly else {
        return;
    };
    each("anomaly", "yes", ANOMALY);
    if let Some(archetype) = &anomaly.archetype {
        each("archetype", &bounded(archetype), ARCHETYPE);
        words.add(archetype);
    }
    for reason in anomaly.reasons.iter().take(REASONS_MAX) {
        codes(reason, &mut |code, amount| {
            each("reason", code, CODE);
            if let Some(amount) = amount {
                each(code, &amount.to_string(), AMOUNT);
            }
            words.add(code);
        });
    }
    // Low and medium are one: what is worth a look at all.
    let severity = match anomaly.severity {
        Severity::Low | Severity::Medium => "low",
        Severity::High | Severity::Critical => "high",
    };
    each("severity", severity, SEVERITY);
    words.add(anomaly.severity.name());
    if let Some(incident) = &anomaly.incident {
        each("incident", &bounded(&incident.kind), INCIDENT);
        words.add(&incident.kind);
    }
}

/// What a reason says, without the values that it quotes and the numbers; and how large the number is
/// that it begins with. Values are an attacker's text, so it is looked for what stands behind them.
fn codes(reason: &str, each: &mut dyn FnMut(&str, Option<u32>)) {
    let end = match reason.rfind(" (") {
        Some(at) if reason.ends_with(')') => at,
        _ => reason.len(),
    };
    let reason = &reason[..end];
    // No address holds ": ".
    if let Some((address, rest)) = reason.split_once(": ")
        && address.starts_with("address ")
    {
        let (of_address, of_place) = match rest.split_once("; location ") {
            Some((of_address, place)) => (of_address, place.rsplit_once(": ")),
            None => (rest, None),
        };
        each(&without_numbers("address: ", of_address), None);
        if let Some((_, of_place)) = of_place {
            each(&without_numbers("location: ", of_place), None);
        }
        return;
    }
    for name in ["location", "type", "resource"] {
        if reason.starts_with(name)
            && let Some((_, rest)) = reason.rsplit_once(": ")
        {
            each(&without_numbers(&format!("{name}: "), rest), None);
            return;
        }
    }
    let digits = reason.bytes().take_while(u8::is_ascii_digit).count();
    let amount = reason[..digits].parse().ok().map(magnitude);
    each(&without_numbers("", reason), amount);
}

/// How many times as large, by twos.
fn magnitude(number: u64) -> u32 {
    number.checked_ilog2().unwrap_or(0)
}

fn without_numbers(before: &str, text: &str) -> String {
    let mut code = before.to_owned();
    for character in text.chars().take(CODE_CHARS_MAX) {
        if character.is_ascii_digit() {
            if !code.ends_with('#') {
                code.push('#');
            }
        } else if character != '.' || !code.ends_with('#') {
            code.push(character);
        }
    }
    code
}

fn done(subject: &Subject<'_>, words: &mut Words, each: &mut Each<'_>) {
    let view = &subject.view;
    each("type", &bounded(view.kind), KIND);
    words.add(view.kind);
    let group = view.kind.split('_').next().unwrap_or_default();
    each("group", &bounded(group), KIND_GROUP);
    each(
        "failure",
        if view.is_failure { "yes" } else { "no" },
        FAILURE,
    );
    let status = subject.status.name();
    if !status.is_empty() {
        each("status", status, STATUS);
        words.add(status);
    }
    if let Some(endpoint) = view.endpoint {
        of_endpoint(endpoint, each);
        words.add(endpoint);
    }
    if let Some(user_agent) = view.user_agent {
        let family: String = (user_agent.chars().take(VALUE_CHARS_MAX))
            .filter(|c| !c.is_ascii_digit() && *c != '.')
            .collect();
        each("agent", &family, AGENT);
    }
    if let Some(bytes) = view.bytes {
        let magnitude = magnitude(bytes.min(1e15) as u64) / 2;
        each("bytes", &magnitude.to_string(), BYTES);
    }
    if let Some(score) = view.threat_score {
        let quarter = (score * 3.999) as u32;
        each("threat", &quarter.to_string(), THREAT);
    }
}

fn of_endpoint(endpoint: &str, each: &mut Each<'_>) {
    each("endpoint", &bounded(endpoint), ENDPOINT);
    let folder = endpoint
        .rsplit_once('/')
        .map_or(endpoint, |(folder, _)| folder);
    if !folder.is_empty() {
        each("folder", &bounded(folder), FOLDER);
    }
}

fn who(subject: &Subject<'_>, words: &mut Words, each: &mut Each<'_>) {
    let view = &subject.view;
    each("user", &bounded(view.user), USER);
    words.add(view.user);
    if let Some(address) = view.source_ip.and_then(|text| text.parse().ok()) {
        of_address(address, each);
    }
    if let Some(provider) = view.asn {
        each("provider", &bounded(provider), PROVIDER);
        words.add(provider);
    }
    if let Some(device) = view.device {
        each("device", &bounded(device), DEVICE);
        words.add(device);
    }
    if let Some(place) = view.geo_location {
        each("place", &bounded(place), PLACE);
        let country = place
            .rsplit_once(", ")
            .map_or(place, |(_, country)| country);
        each("country", &bounded(country), COUNTRY);
        words.add(place);
    }
}

/// An address and its networks. An IPv6 host changes the lower half of its address at will.
fn of_address(address: IpAddr, each: &mut Each<'_>) {
    let (host, networks) = match address.to_canonical() {
        IpAddr::V4(address) => {
            let number = address.to_bits();
            let (net24, net16) = (number >> 8, number >> 16);
            (
                format!("4:{number:x}"),
                [format!("4:{net24:x}"), format!("4:{net16:x}")],
            )
        }
        IpAddr::V6(address) => {
            let number = address.to_bits();
            let (net64, net48, net32) = (number >> 64, number >> 80, number >> 96);
            (
                format!("6:{net64:x}"),
                [format!("6:{net48:x}"), format!("6:{net32:x}")],
            )
        }
    };
    let [network, wide_network] = networks;
    each("address", &host, ADDRESS);
    each("network", &network, NETWORK);
    each("wide network", &wide_network, WIDE_NETWORK);
}

fn when(timestamp_ms: i64, each: &mut Each<'_>) {
    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    let quarter = timestamp_ms.rem_euclid(DAY_MS) / (6 * HOUR_MS);
    each("quarter of the day", &quarter.to_string(), HOUR);
    // The epoch began on a Thursday.
    let is_weekend = (timestamp_ms.div_euclid(DAY_MS) + 3).rem_euclid(7) >= 5;
    each("weekend", if is_weekend { "yes" } else { "no" }, WEEKEND);
}

fn bounded(text: &str) -> String {
    shorten(text, VALUE_CHARS_MAX).into_owned()
}

/// Words in small letters, each once.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|known| known == word)
    }

    fn add(&mut self, text: &str) {
        let text = bounded(text).to_lowercase();
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            let n_chars = word.chars().count();
            if self.0.len() < WORDS_MAX
                && WORD_CHARS.contains(&n_chars)
                && !EMPTY_WORDS.contains(&word)
                && !self.has(word)
            {
                self.0.push(word.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes_of(reason: &str) -> Vec<(String, Option<u32>)> {
        let mut found = Vec::new();
        codes(reason, &mut |code, amount| {
            found.push((code.to_owned(), amount));
        });
        found
    }

    #[test]
    fn reasons_lose_values_and_numbers() {
        let check = |reason: &str, expected: &[(&str, Option<u32>)]| {
            let expected: Vec<_> = (expected.iter())
                .map(|(code, amount)| ((*code).to_owned(), *amount))
                .collect();
            assert_eq!(codes_of(reason), expected, "{reason}");
        };
        check(
            "address 198.51.100.182: provider new to everybody; location New York, US: country new to \
             the user, known to peers (0.07% of this user's events, x115 evidence)",
            &[
                ("address: provider new to everybody", None),
                ("location: country new to the user, known to peers", None),
            ],
        );
        check(
            "address 2001:db8::1: new (0 of 120 events)",
            &[("address: new", None)],
        );
        check(
            "type CONFIG_CHANGE: 2.3% of this user's events are as rare",
            &[("type: #% of this user's events are as rare", None)],
        );
        check("12 failures in 30 min", &[("# failures in # min", Some(3))]);
        check(
            "location Rome, IT: 3 of 120 events (2.5%)",
            &[("location: # of # events", None)],
        );
        // What an attacker has named like a finding does not become one.
        check(
            "type X: new (0 of 9 events): 2.3% of this user's events are as rare",
            &[("type: #% of this user's events are as rare", None)],
        );
        check("", &[("", None)]);
        check(" (", &[(" (", None)]);
        check("address ", &[("address ", None)]);
    }

    #[test]
    fn texts_name_addresses_users_and_types() {
        let mut found = Vec::new();
        of_text(
            "spraying from 203.0.113.7, user:alice LOGIN_FAILED x:y",
            &mut |name, value, _| found.push(format!("{name}={value}")),
        );
        for expected in [
            "address=4:cb007107",
            "network=4:cb0071",
            "user=alice",
            "type=LOGIN_FAILED",
        ] {
            assert!(
                found.contains(&expected.to_owned()),
                "{expected}: {found:?}"
            );
        }
        for expected in ["word=spraying", "word=login", "word=failed"] {
            assert!(
                found.contains(&expected.to_owned()),
                "{expected}: {found:?}"
            );
        }
    }
}
