//! Sentences with numbers for the evidence that weighs most.

use super::archetype::{self, Component};
use super::assess::Assessment;
use super::cells::Histogram;
use super::math::exp;
use crate::detect::Piece;
use crate::record::EventView;
use crate::record::text::shorten;

const REASONS_MAX: usize = 5;
/// What a piece of evidence has to amount to, by itself and in this kind of attack.
const EVIDENCE_MIN: f64 = 0.7;
const WEIGHTED_MIN: f64 = 0.5;
const WEIGHT_MIN: f64 = 0.3;
/// Characters of a value that a reason quotes: values are hostile, and can be long.
const VALUE_CHARS_MAX: usize = 64;

const NET: [&str; 6] = [
    "usual address",
    "known, rarely used address",
    "new address in a known network",
    "new network of a known provider",
    "provider new to the user, known to peers",
    "provider new to everybody",
];
const GEO: [&str; 5] = [
    "usual place",
    "known, rare place",
    "new place in a known country",
    "country new to the user, known to peers",
    "country new to everybody",
];
const DEVICE: [&str; 9] = [
    "known device",
    "known device with a new browser version",
    "new device with a known browser",
    "new device with a new version of a known browser",
    "browser new to the user, known to peers",
    "browser new to everybody",
    "device not named, known browser",
    "device not named, new version of a known browser",
    "new version of a known browser",
];

/// Reasons, the weightiest first.
pub(super) fn reasons(event: &EventView<'_>, found: &Assessment, archetype: usize) -> Vec<String> {
    let mut reasons: Vec<(f64, String)> = Vec::new();
    for (component, &evidence) in Component::ALL.into_iter().zip(&found.evidence) {
        // What this kind of attack is not judged by still explains the event, if it is strong.
        let weight = archetype::weight(archetype, component).max(WEIGHT_MIN);
        if evidence < EVIDENCE_MIN || evidence * weight < WEIGHTED_MIN {
            continue;
        }
        if let Some(sentence) = sentence(component, event, found) {
            reasons.push((evidence * weight, sentence));
        }
    }
    reasons.sort_by(|a, b| b.0.total_cmp(&a.0));
    reasons.truncate(REASONS_MAX);
    reasons.into_iter().map(|(_, reason)| reason).collect()
}

/// Everything that was looked at.
pub(super) fn pieces(event: &EventView<'_>, found: &Assessment, archetype: usize) -> Vec<Piece> {
    let components = Component::ALL.into_iter().zip(&found.evidence);
    components
        .map(|(component, &evidence)| Piece {
            component: component.name().to_owned(),
            evidence,
            weight: archetype::weight(archetype, component),
            finding: sentence(component, event, found),
        })
        .collect()
}

/// What was found, if the event says anything about it.
fn sentence(component: Component, event: &EventView<'_>, found: &Assessment) -> Option<String> {
    let likelier = |component: Component| {
        let times = exp(found.evidence[component as usize]);
        let n_decimals = if times < 1.0 { 2 } else { 0 };
        format!("x{times:.n_decimals$}")
    };
    let of_events = |share: f64| {
        let whose = if found.is_first {
            "a new user's events, as is assumed,"
        } else {
            "this user's events"
        };
        format!("{} of {whose}", percent(share))
    };
    let short = |text: Option<&str>| shorten(text.unwrap_or("?"), VALUE_CHARS_MAX).into_owned();
    Some(match component {
        Component::NetGeo => {
            let mut what = Vec::new();
            if event.source_ip.is_some() {
                what.push(format!(
                    "address {}: {}",
                    short(event.source_ip),
                    NET[found.net]
                ));
            }
            if event.geo_location.is_some() {
                what.push(format!(
                    "location {}: {}",
                    short(event.geo_location),
                    GEO[found.geo]
                ));
            }
            found.cells[Histogram::NetGeo as usize]?;
            if what.is_empty() {
                what.push(NET[found.net].to_owned());
            }
            format!(
                "{} ({}, {} evidence)",
                what.join("; "),
                of_events(found.net_geo_share),
                likelier(component)
            )
        }
        Component::Device => {
            let level = found.cells[Histogram::Device as usize]?;
            format!(
                "{} ({}, {} evidence)",
                DEVICE[level],
                of_events(found.device_share),
                likelier(component)
            )
        }
        Component::Time => of_hour(found),
        Component::Kind => format!(
            "type {}: {} are as rare",
            short(Some(event.kind)),
            of_events(found.kind_tail)
        ),
        Component::Failures => format!("{:.0} failures in 30 min", found.failures),
        Component::Volume => format!("{:.0} events in 10 min", found.volume),
        Component::NewResources => {
            format!("{:.0} never-used resources in 1 h", found.new_resources)
        }
        Component::Bytes => format!("{:.1} MB in 1 h", found.bytes / 1e6),
        Component::Gap if found.gap_h <= 0.0 => return None,
        Component::Gap => format!("first activity after {:.1} days", found.gap_h / 24.0),
        Component::Switch if found.cells[Histogram::Switch as usize] == Some(0) => return None,
        Component::Switch => "active in another place within hours".to_owned(),
        Component::Spray => format!(
            "{:.0} other users failed from this address or network, new to them, in 24 h",
            found.n_spraying
        ),
        Component::Surge if found.evidence[Component::Surge as usize] <= 0.0 => return None,
        Component::Surge => {
            "many failures from networks new to everybody, all over the population".to_owned()
        }
        Component::Resource => format!(
            "resource {}: {}",
            short(event.endpoint),
            match found.cells[Histogram::Resource as usize]? {
                1 => "new in a known folder",
                2 => "folder new to the user, known to peers",
                3 => "folder new to everybody",
                _ => "known, rarely used folder",
            }
        ),
        Component::Evidence if found.evidence[Component::Evidence as usize] < 0.1 => return None,
        Component::Evidence => "unusual actions within the last hour add up".to_owned(),
    })
}

/// How usual the hour is.
fn of_hour(found: &Assessment) -> String {
    let day = if found.is_weekend {
        "weekend"
    } else {
        "working day"
    };
    let whose = if found.is_first {
        "a new user's activity, as is assumed"
    } else {
        "this user's activity"
    };
    let share = percent(found.hour_share);
    format!(
        "hour {:02}:00 UTC on a {day} holds {share} of {whose}",
        found.hour
    )
}

/// `2.3%`, `0.04%`: two significant digits below one percent.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 1.0 {
        format!("{percent:.1}%")
    } else if percent >= 0.01 {
        format!("{percent:.2}%")
    } else {
        "<0.01%".to_owned()
    }
}
