//! What the words of a text stand for among the features of events. Words alone weigh little, since an
//! event has many others; what they mean weighs as much as in an event.

/// What detectors find, as `features.rs` makes codes of it. Their order is that of their places in
/// vectors.
pub(super) const CODES: [&str; 42] = [
    "address: usual address",
    "address: known, rarely used address",
    "address: new address in a known network",
    "address: new network of a known provider",
    "address: provider new to the user, known to peers",
    "address: provider new to everybody",
    "location: usual place",
    "location: known, rare place",
    "location: new place in a known country",
    "location: country new to the user, known to peers",
    "location: country new to everybody",
    "known device with a new browser version",
    "new device with a known browser",
    "new device with a new version of a known browser",
    "browser new to the user, known to peers",
    "browser new to everybody",
    "device not named, known browser",
    "device not named, new version of a known browser",
    "new version of a known browser",
    "hour #:# UTC on a working day holds #% of this user's activity",
    "hour #:# UTC on a weekend holds #% of this user's activity",
    "type: #% of this user's events are as rare",
    "# failures in # min",
    "# events in # min",
    "# never-used resources in # h",
    "# MB in # h",
    "first activity after # days",
    "active in another place within hours",
    "# other users failed from this address or network, new to them, in # h",
    "many failures from networks new to everybody, all over the population",
    "resource: new in a known folder",
    "resource: folder new to the user, known to peers",
    "resource: folder new to everybody",
    "resource: known, rarely used folder",
    "unusual actions within the last hour add up",
    "address: new",
    "address: # of # events",
    "location: new",
    "location: # of # events",
    "type: new",
    "type: # of # events",
    "failures: #% of the last # events, usually #%",
];

/// Kinds of attack, and the words by which people ask for them.
pub(super) const ARCHETYPES: [(&str, &[&str]); 4] = [
    (
        "account takeover",
        &[
            "takeover",
            "hijack",
            "hijacked",
            "hijacking",
            "stolen",
            "compromised",
            "phishing",
        ],
    ),
    (
        "insider / lateral",
        &[
            "insider",
            "lateral",
            "exfiltration",
            "exfiltrated",
            "leak",
            "snooping",
        ],
    ),
    (
        "guessing / stuffing",
        &[
            "guessing",
            "stuffing",
            "guess",
            "brute",
            "bruteforce",
            "spray",
            "spraying",
            "passwords",
        ],
    ),
    (
        "automation / flood",
        &[
            "automation",
            "automated",
            "flood",
            "flooding",
            "bot",
            "bots",
            "scraping",
            "scraper",
        ],
    ),
];

/// Words that say that something has failed.
pub(super) const FAILURES: [&str; 6] = [
    "failed", "failure", "failures", "failing", "denied", "blocked",
];

/// The place in a vector of a feature that has one of its own: of 64 there are.
#[must_use]
pub(super) fn place_of(name: &str, value: &str) -> Option<usize> {
    let first = ARCHETYPES.len() + 4;
    Some(match (name, value) {
        ("anomaly", "yes") => 0,
        ("failure", "no") => 1,
        ("failure", "yes") => 2,
        ("archetype", value) => 4 + ARCHETYPES.iter().position(|(name, _)| *name == value)?,
        ("reason", value) => first + CODES.iter().position(|code| *code == value)?,
        _ => return None,
    })
}

/// The codes that a text names all words of, and those that it names more words of than of any of these,
/// if that is more than half of them.
pub(super) fn codes_in(
    words: &[String],
    words_of: impl Fn(&str) -> Vec<String>,
) -> Vec<&'static str> {
    let mut named = Vec::new();
    let mut n_whole_max = 0;
    for code in CODES {
        // What it is about goes without saying.
        let (_, finding) = code.split_once(": ").unwrap_or(("", code));
        let of_code = words_of(finding);
        let n_named = of_code.iter().filter(|word| words.contains(word)).count();
        let is_whole = n_named > 0 && n_named == of_code.len();
        if is_whole {
            n_whole_max = n_whole_max.max(n_named);
        }
        if is_whole || n_named * 2 > of_code.len() {
            named.push((code, n_named, is_whole));
        }
    }
    let named = named.into_iter();
    let wanted = named.filter(|(_, n_named, is_whole)| *is_whole || *n_named > n_whole_max);
    wanted.map(|(code, ..)| code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_each_ones_own() {
        let codes = CODES.iter().map(|code| place_of("reason", code));
        let archetypes = ARCHETYPES
            .iter()
            .map(|(name, _)| place_of("archetype", name));
        let others = [("anomaly", "yes"), ("failure", "yes"), ("failure", "no")];
        let others = others.map(|(name, value)| place_of(name, value));
        let mut places: Vec<_> = codes.chain(archetypes).chain(others).collect();
        assert!(
            places
                .iter()
                .all(|place| place.is_some_and(|place| place < 64))
        );
        let n_places = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), n_places);
        assert_eq!(place_of("reason", "something new"), None);
        assert_eq!(place_of("user", "yes"), None);
    }
}
