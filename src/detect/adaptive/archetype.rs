//! Kinds of attacks, and what each makes of the evidence (detector specification B.6).

use super::math::{exp, ln};

/// What is looked at in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component {
    NetGeo,
    Device,
    Time,
    Kind,
    Failures,
    Volume,
    NewResources,
    Bytes,
    Gap,
    Switch,
    Spray,
    Surge,
    Resource,
    Evidence,
}

pub(super) const N_COMPONENTS: usize = 14;

impl Component {
    pub(super) const ALL: [Self; N_COMPONENTS] = [
        Self::NetGeo,
        Self::Device,
        Self::Time,
        Self::Kind,
        Self::Failures,
        Self::Volume,
        Self::NewResources,
        Self::Bytes,
        Self::Gap,
        Self::Switch,
        Self::Spray,
        Self::Surge,
        Self::Resource,
        Self::Evidence,
    ];

    /// The specification's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NetGeo => "netgeo",
            Self::Device => "device",
            Self::Time => "time",
            Self::Kind => "type",
            Self::Failures => "fail",
            Self::Volume => "volume",
            Self::NewResources => "newres",
            Self::Bytes => "bytes",
            Self::Gap => "gap",
            Self::Switch => "switch",
            Self::Spray => "ipspray",
            Self::Surge => "surge",
            Self::Resource => "resource",
            Self::Evidence => "accum",
        }
    }
}

/// Logarithms of how much likelier an attacker is than the user, one for each component.
pub type Evidence = [f64; N_COMPONENTS];

/// A kind of attack.
struct Archetype {
    name: &'static str,
    /// Logarithm of how common it is, relative to the first.
    prior: f64,
    weights: Evidence,
    /// The first so many components count only if they speak for an attack: this attacker sits in
    /// the user's own place.
    n_positive: usize,
}

const ARCHETYPES: [Archetype; 4] = [
    Archetype {
        name: "account takeover",
        prior: 0.0,
        weights: [
            1.0, 1.0, 0.7, 0.5, 0.6, 0.6, 0.8, 0.8, 0.4, 0.9, 0.8, 0.8, 0.0, 0.3,
        ],
        n_positive: 0,
    },
    Archetype {
        name: "insider / lateral",
        prior: -3.0,
        weights: [
            0.3, 0.3, 1.0, 0.7, 0.0, 0.4, 0.6, 0.5, 0.2, 0.3, 0.0, 0.0, 1.0, 0.6,
        ],
        n_positive: 2,
    },
    Archetype {
        name: "guessing / stuffing",
        prior: -1.5,
        weights: [
            0.7, 0.8, 0.3, 0.0, 0.7, 0.0, 0.0, 0.0, 0.3, 0.3, 1.0, 0.7, 0.0, 0.0,
        ],
        n_positive: 0,
    },
    Archetype {
        name: "automation / flood",
        prior: -2.5,
        weights: [
            0.0, 0.0, 0.2, 0.4, 0.4, 1.3, 0.5, 0.6, 0.0, 0.0, 0.3, 0.0, 0.3, 0.0,
        ],
        n_positive: 3,
    },
];

/// Names, as the anomaly record has them.
pub(super) fn name(archetype: usize) -> &'static str {
    ARCHETYPES[archetype].name
}

/// The number of the archetype of that name.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    let number = ARCHETYPES.iter().position(|known| known.name == name)?;
    Some(number as u8)
}

/// The weight that an archetype gives a component.
pub(super) fn weight(archetype: usize, component: Component) -> f64 {
    ARCHETYPES[archetype].weights[component as usize]
}

/// The risk that the event is any of the first `n_archetypes` kinds of attack, and the likeliest.
pub(super) fn combine(evidence: &Evidence, n_archetypes: usize) -> (f64, usize) {
    let mut risks = [f64::NEG_INFINITY; ARCHETYPES.len()];
    let risks = &mut risks[..n_archetypes];
    let mut likeliest = 0;
    for (i, archetype) in ARCHETYPES.iter().take(n_archetypes).enumerate() {
        risks[i] = archetype.risk(evidence);
        if risks[i] > risks[likeliest] {
            likeliest = i;
        }
    }
    let most = risks[likeliest];
    let sum: f64 = risks.iter().map(|risk| exp(risk - most)).sum();
    (most + ln(sum), likeliest)
}

/// The risk of each of the first `n_archetypes` kinds of attack by itself.
pub(super) fn risks(evidence: &Evidence, n_archetypes: usize) -> Vec<f64> {
    let archetypes = ARCHETYPES.iter().take(n_archetypes);
    archetypes
        .map(|archetype| archetype.risk(evidence))
        .collect()
}

impl Archetype {
    fn risk(&self, evidence: &Evidence) -> f64 {
        let mut risk = self.prior;
        for (component, (weight, evidence)) in self.weights.iter().zip(evidence).enumerate() {
            if component >= self.n_positive || *evidence > 0.0 {
                risk += weight * evidence;
            }
        }
        risk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Raised;

    #[test]
    fn guessing_is_known_by_its_number() {
        assert_eq!(number("guessing / stuffing"), Some(Raised::GUESSING));
        assert_eq!(number("weather"), None);
    }
}
