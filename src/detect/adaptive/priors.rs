//! What is assumed before anything was seen: how attackers and users spread over novelty levels
//! (detector specification B.4, B.5; the tables are those of its reference).

use super::cells::{Age, HOURS, Histogram, N_BINS, N_DEVICE, N_NET_GEO, N_POPULATION_CELLS};

/// Pseudo-events behind each of the population's histograms.
const PSEUDO_EVENTS: f64 = 300.0;

const ATTACKER_NET: [f64; 6] = [0.05, 0.03, 0.05, 0.20, 0.30, 0.37];
const ATTACKER_GEO_NEAR: [f64; 5] = [0.62, 0.20, 0.13, 0.04, 0.01];
const ATTACKER_GEO_FAR: [f64; 5] = [0.30, 0.08, 0.12, 0.22, 0.28];
const ATTACKER_DEVICE: [f64; N_DEVICE] = [0.22, 0.02, 0.08, 0.20, 0.20, 0.06, 0.04, 0.10, 0.08];
pub(super) const ATTACKER_RESOURCE: [f64; 4] = [0.45, 0.25, 0.20, 0.10];

const USUAL_NET: [f64; 6] = [0.80, 0.07, 0.05, 0.055, 0.015, 0.010];
const USUAL_GEO_NEAR: [f64; 5] = [0.90, 0.06, 0.03, 0.008, 0.002];
const USUAL_GEO_FAR: [f64; 5] = [0.25, 0.10, 0.30, 0.20, 0.15];
const USUAL_DEVICE: [f64; N_DEVICE] = [0.90, 0.02, 0.012, 0.008, 0.008, 0.001, 0.03, 0.003, 0.018];
const USUAL_RESOURCE: [f64; 4] = [0.93, 0.05, 0.015, 0.005];

/// How much of the attackers' table is mixed into the users' for accounts of each age: a new
/// account is somewhere new with everything it does.
const NOVELTY_BY_AGE: [f64; 3] = [1.0, 0.35, 0.0];

/// Levels of network from here on are far: the place no longer follows from the network.
const NET_FAR: usize = 4;

/// Where attackers are found.
pub(super) struct Attacker {
    pub(super) net_geo: [f64; N_NET_GEO],
    pub(super) net: [f64; 6],
    pub(super) device: [f64; N_DEVICE],
}

impl Attacker {
    pub(super) fn new() -> Self {
        let mut device = ATTACKER_DEVICE;
        normalize(&mut device);
        let net_geo = net_geo(ATTACKER_NET, ATTACKER_GEO_NEAR, ATTACKER_GEO_FAR);
        let mut net = [0.0; 6];
        for (net, cells) in net.iter_mut().zip(net_geo.chunks(5)) {
            *net = cells.iter().sum();
        }
        Self {
            net_geo,
            net,
            device,
        }
    }
}

/// The population's cells before the first event.
pub(super) fn population() -> [f64; N_POPULATION_CELLS] {
    let attacker = Attacker::new();
    let usual_net_geo = net_geo(USUAL_NET, USUAL_GEO_NEAR, USUAL_GEO_FAR);
    let mut usual_device = USUAL_DEVICE;
    normalize(&mut usual_device);

    let mut cells = [0.0; N_POPULATION_CELLS];
    for (age, novelty) in Age::ALL.into_iter().zip(NOVELTY_BY_AGE) {
        for (histogram, usual, attacker) in [
            (Histogram::NetGeo, &usual_net_geo[..], &attacker.net_geo[..]),
            (Histogram::Device, &usual_device, &attacker.device),
            (Histogram::Resource, &USUAL_RESOURCE, &ATTACKER_RESOURCE),
        ] {
            let cells = &mut cells[histogram.of_population(age)];
            for ((cell, usual), attacker) in cells.iter_mut().zip(usual).zip(attacker) {
                *cell = PSEUDO_EVENTS * ((1.0 - novelty) * usual + novelty * attacker);
            }
        }
    }
    let mut set = |histogram: Histogram, mut shares: Vec<f64>| {
        normalize(&mut shares);
        let cells = &mut cells[histogram.of_population(Age::Old)];
        for (cell, share) in cells.iter_mut().zip(shares) {
            *cell = PSEUDO_EVENTS * share;
        }
    };
    let mut bursts = vec![0.9];
    bursts.extend((0..N_BINS as i32 - 1).map(|bin| 0.1 * 0.5_f64.powi(bin)));
    for histogram in [
        Histogram::Failures,
        Histogram::Volume,
        Histogram::NewResources,
        Histogram::Gap,
    ] {
        set(histogram, bursts.clone());
    }
    set(Histogram::Bytes, vec![1.0; Histogram::Bytes.n_cells()]);
    let mut switches = vec![0.01; Histogram::Switch.n_cells()];
    switches[0] = 1.0;
    set(Histogram::Switch, switches);
    cells[HOURS..].fill(1.0);
    cells
}

/// Shares by level of network and, within it, of place.
fn net_geo(net: [f64; 6], near: [f64; 5], far: [f64; 5]) -> [f64; N_NET_GEO] {
    let mut shares = [0.0; N_NET_GEO];
    for (i, share) in shares.iter_mut().enumerate() {
        let geo = if i / 5 < NET_FAR { near } else { far };
        *share = net[i / 5] * geo[i % 5];
    }
    normalize(&mut shares);
    shares
}

fn normalize(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    for share in shares {
        *share /= sum;
    }
}
