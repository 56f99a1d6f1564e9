//! What a reason comes to without the values that differ from event to event: events with the same
//! codes are alike. Reasons are sentences of ours, but they quote values of events.

use crate::record::text::shorten;

/// What stands before a value that a reason quotes; behind it comes a colon.
const QUOTING: [&str; 4] = ["address ", "location ", "resource ", "type "];
/// Characters of a value that the detectors quote.
const QUOTED_CHARS_MAX: usize = 64;

/// The codes of a reason: `address: provider new to everybody; location: usual place`. `values` are
/// those of the event that it may quote.
pub(super) fn code_of(reason: &str, values: &[&str]) -> String {
    let mut text = reason.to_owned();
    for value in values.iter().filter(|value| !value.is_empty()) {
        for prefix in QUOTING {
            let quoted = format!("{prefix}{}: ", shorten(value, QUOTED_CHARS_MAX));
            text = text.replace(&quoted, &format!("{}: ", prefix.trim_end()));
        }
    }
    let parts: Vec<_> = text.split("; ").map(part).collect();
    parts.join("; ")
}

fn part(text: &str) -> String {
    // Shares and evidence, which are in parentheses, are how much of it there is.
    let text = text.rsplit_once(" (").map_or(text, |(before, _)| before);
    // A place that was looked up is a value that the event does not have.
    let quoting = QUOTING.iter().find(|prefix| text.starts_with(**prefix));
    let text = match (quoting, text.rsplit_once(": ")) {
        (Some(prefix), Some((_, after))) => format!("{}: {after}", prefix.trim_end()),
        _ => text.to_owned(),
    };
    let words = text.split_whitespace().filter_map(coarse_word);
    words.collect::<Vec<_>>().join(" ")
}

/// Numbers by their order of magnitude; what is a time of day or a share says nothing.
fn coarse_word(word: &str) -> Option<String> {
    let is_number = word.starts_with(|first: char| first.is_ascii_digit());
    if !is_number {
        return (!word.starts_with('<')).then(|| word.to_owned());
    }
    if word.contains([':', '%']) {
        return None;
    }
    let digits = word.find(|c: char| !c.is_ascii_digit());
    let digits = &word[..digits.unwrap_or(word.len())];
    if digits.bytes().all(|digit| digit == b'0') {
        return Some("0".to_owned());
    }
    Some(format!("e{}", digits.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_values_only_are_the_same() {
        let check = |reason: &str, expected: &str| {
            let values = ["198.51.100.182", "New York, US", "/a: b; (c)", "X"];
            assert_eq!(code_of(reason, &values), expected, "{reason}");
        };
        check(
            "address 198.51.100.182: provider new to everybody; location New York, US: country new to the user, known to peers (0.07% of this user's events, x115 evidence)",
            "address: provider new to everybody; location: country new to the user, known to peers",
        );
        check("location Oslo, NO: usual place", "location: usual place");
        check(
            "resource /a: b; (c): folder new to everybody",
            "resource: folder new to everybody",
        );
        check(
            "type X: 2.3% of this user's events are as rare",
            "type: of this user's events are as rare",
        );
        check("12 failures in 30 min", "e1 failures in e1 min");
        check("4 failures in 30 min", "e0 failures in e1 min");
        check(
            "hour 03:00 UTC on a weekend holds <0.01% of this user's activity",
            "hour UTC on a weekend holds of this user's activity",
        );
        check(
            "address 198.51.100.182: new (0 of 812 events)",
            "address: new",
        );
    }
}
