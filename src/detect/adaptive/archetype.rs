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

/// The weight that an archetype gives a component.
pub(super) fn weight(archetype: usize, component: Component) -> f64 {
    ARCHETYPES[archetype].weights[component as usize]
}

/// The risk that the event is any of the first `n_archetypes` kinds of attack, and the likeliest.
pub(super) fn combine(evidence: &Evidence, n_archetypes: usize) -> (f64, usize) {
    let mut risks = [f64::NEG_INFINITY; ARCHETYPES.len()];
    let mut likeliest = 0;
    for (i, archetype) in ARCHETYPES.iter().take(n_archetypes).enumerate() {
        let mut risk = archetype.prior;
        for (component, (weight, evidence)) in archetype.weights.iter().zip(evidence).enumerate() {
            if component >= archetype.n_positive || *evidence > 0.0 {
                risk += weight * evidence;
            }
        }
        risks[i] = risk;
        if risk > risks[likeliest] {
            likeliest = i;
        }
    }
    let most = risks[likeliest];
    let sum: f64 = risks
        .iter()
        .take(n_archetypes)
        .map(|risk| exp(risk - most))
        .sum();
    (most + ln(sum), likeliest)
}
