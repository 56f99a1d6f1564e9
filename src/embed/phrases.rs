//! What the words of a text stand for among the features of events. Words alone weigh little, since an
//! event has many others; what they mean weighs as much as in an event.

/// What detectors find, as `features.rs` makes codes of it. A test asks for each kind in words.
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

/// Calls `each` with the codes of which a text names more than half of the words.
pub(super) fn codes_in(
    words: &[String],
    words_of: impl Fn(&str) -> Vec<String>,
    mut each: impl FnMut(&str),
) {
    for code in CODES {
        let of_code = words_of(code);
        let n_named = of_code.iter().filter(|word| words.contains(word)).count();
        if n_named * 2 > of_code.len() {
            each(code);
        }
    }
}
