//! How an event looks against its user and the population: the 14 pieces of evidence (detector
//! specification B.5). Nothing is learned here.

use super::archetype::{Component, Evidence, N_COMPONENTS};
use super::cells::{Age, Histogram};
use super::features::{Dimension, Features};
use super::math::{exp, floor_log2, ln, sum};
use super::population::{Population, surprise};
use super::priors::{ATTACKER_RESOURCE, Attacker};
use super::seen::Found;
use super::user::{Place, User};
use super::view::KERNEL;

/// How many events of prior experience a user starts with; the same for hours.
const KAPPA: f64 = 200.0;
const KAPPA_HOURS: f64 = 40.0;
const EVIDENCE_MIN: f64 = -2.5;
const EVIDENCE_MAX: f64 = 8.0;

/// Levels of network novelty from these on are new to the user, and new to all but peers.
pub(super) const NET_NEW: usize = 3;
pub(super) const NET_FAR: usize = 4;

/// An event on its way through the detector.
pub(super) struct Case<'a> {
    pub(super) features: &'a Features,
    pub(super) user: &'a User,
    pub(super) user_key: u64,
    pub(super) population: &'a Population,
    pub(super) attacker: &'a Attacker,
    pub(super) found: Found,
    pub(super) now_h: f64,
    pub(super) now_s: u32,
    /// What an event weighs now, see [`User`].
    pub(super) growth: f64,
    /// What is left of a unit that decays within an hour, since the user's last event.
    pub(super) hour_decay: f64,
    pub(super) age: Age,
}

/// See [`Case::hour_decay`].
pub(super) fn hour_decay(idle_h: f64) -> f64 {
    exp(-idle_h)
}

/// What was found: where the event stands on each ladder, and what that says.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    pub(super) evidence: Evidence,
    /// How often this user's events stand on that level of network, whatever the place.
    pub(super) net_share: f64,
    pub(super) net: usize,
    pub(super) geo: usize,
    /// Cells of the histograms, none where the event says nothing.
    pub(super) cells: [Option<usize>; 9],
    pub(super) hour: usize,
    pub(super) is_weekend: bool,
    /// Shares of the user's events.
    pub(super) net_geo_share: f64,
    pub(super) device_share: f64,
    pub(super) hour_share: f64,
    pub(super) kind_tail: f64,
    /// Counts, this event included.
    pub(super) failures: f64,
    pub(super) volume: f64,
    pub(super) new_resources: f64,
    pub(super) bytes: f64,
    pub(super) gap_h: f64,
    pub(super) gap: (f64, f64),
    pub(super) n_spraying: f64,
    /// The user has had no event before: shares are those that are assumed of new users.
    pub(super) is_first: bool,
}

/// The logarithmic bin of a burst: each is twice as wide as the one before.
fn bin(amount: f64) -> usize {
    // A sum of ones that has been decayed by nothing may be a little less than whole.
    const WHOLE: f64 = 1.0 + 1e-9 * std::f64::consts::LN_2;
    floor_log2((1.0 + amount) * WHOLE).min(11)
}

/// The bin of an amount of bytes: three for every four doublings.
fn bytes_bin(bytes: f64) -> usize {
    let bytes = (1.0 + bytes).min(1e15);
    let n_doublings = floor_log2(bytes);
    let bin = n_doublings * 3 / 4;
    // The next bin begins at 2 to the power of 4/3 of its number: cubed, whole powers are compared.
    let fraction = bytes / (1_u64 << n_doublings) as f64;
    let cubed = fraction * fraction * fraction * (1_u64 << (n_doublings * 3 - bin * 4)) as f64;
    (bin + usize::from(cubed >= 16.0)).min(23)
}

impl Case<'_> {
    pub(super) fn assess(&self) -> Assessment {
        let mut assessment = self.stand();
        self.time(&mut assessment);
        self.kind(&mut assessment);
        self.bursts(&mut assessment);
        self.gap(&mut assessment);
        self.switch(&mut assessment);
        self.others(&mut assessment);
        let evidence = &mut assessment.evidence;
        evidence[Component::Evidence as usize] = self.evidence_before().clamp(0.0, EVIDENCE_MAX);
        for evidence in evidence {
            *evidence = evidence.clamp(EVIDENCE_MIN, EVIDENCE_MAX);
        }
        assessment
    }

    /// Where the event stands on the ladders of novelty, whatever came within hours before it.
    pub(super) fn stand(&self) -> Assessment {
        let mut assessment = Assessment {
            evidence: [0.0; N_COMPONENTS],
            net_share: 1.0,
            net: 0,
            geo: 0,
            cells: [None; 9],
            hour: crate::time::hour_of_day(self.features.timestamp_ms),
            is_weekend: is_weekend(self.features.timestamp_ms),
            net_geo_share: 0.0,
            device_share: 0.0,
            hour_share: 0.0,
            kind_tail: 1.0,
            failures: 0.0,
            volume: 0.0,
            new_resources: 0.0,
            bytes: 0.0,
            gap_h: 0.0,
            gap: (0.0, f64::NEG_INFINITY),
            n_spraying: 0.0,
            is_first: self.user.n_events == 0,
        };
        self.net_geo(&mut assessment);
        self.device(&mut assessment);
        self.resource(&mut assessment);
        assessment
    }

    /// Evidence gathered within the last hours, before this event.
    pub(super) fn evidence_before(&self) -> f64 {
        self.user.evidence * self.hour_decay * self.hour_decay
    }

    /// Time since the user's last event.
    fn idle_h(&self) -> f64 {
        self.now_h - self.user.last_h
    }

    /// How often this user's events fall into a cell, shrunk towards the population.
    fn share(&self, histogram: Histogram, cell: usize) -> f64 {
        let cells = self.user.histogram(histogram);
        let kappa = KAPPA * self.growth;
        let total = sum(cells);
        (f64::from(cells[cell]) + kappa * self.population.share(histogram, self.age, cell))
            / (total + kappa)
    }

    /// How surprising it is that an event falls into a cell or a later one.
    fn tail(&self, histogram: Histogram, cell: usize) -> f64 {
        if cell == 0 {
            return 0.0;
        }
        let cells = self.user.histogram(histogram);
        let kappa = KAPPA * self.growth;
        let before = sum(&cells[..cell]);
        let after = sum(&cells[cell..]);
        let share = (after + kappa * self.population.tail_share(histogram, cell))
            / (before + after + kappa);
        -ln(share.min(1.0))
    }

    fn net_geo(&self, assessment: &mut Assessment) {
        let has_network = self.features.has(Dimension::Address);
        let has_place = self.features.has(Dimension::City);
        if !has_network && !self.features.has(Dimension::Asn) && !has_place {
            return;
        }
        let cells = self.user.histogram(Histogram::NetGeo);
        let total = sum(cells);
        let usual = (total / self.growth).max(20.0);
        let net = if has_network || self.features.has(Dimension::Asn) {
            self.net_level(usual)
        } else {
            0
        };
        let geo = self.geo_level(usual);
        let cell = net * 5 + geo;
        let kappa = KAPPA * self.growth;
        let population =
            |cell: usize| kappa * self.population.share(Histogram::NetGeo, self.age, cell);
        let share = (f64::from(cells[cell]) + population(cell)) / (total + kappa);
        assessment.net = net;
        assessment.geo = geo;
        assessment.net_geo_share = share;
        assessment.cells[Histogram::NetGeo as usize] = Some(cell);
        assessment.evidence[Component::NetGeo as usize] = ln(self.attacker.net_geo[cell] / share);
        let of_net = net * 5..net * 5 + 5;
        let of_population: f64 = of_net.clone().map(population).sum();
        assessment.net_share = (sum(&cells[of_net]) + of_population) / (total + kappa);
    }

    /// `usual` is the weight of all of the user's events.
    fn net_level(&self, usual: f64) -> usize {
        let seen = &self.user.seen;
        if self.found.is_known(Dimension::Address) {
            let few = 0.05 * usual;
            let is_light = seen.is_lighter_than(few, &self.found, Dimension::Address, self.now_s);
            return usize::from(is_light);
        }
        if self.found.is_known(Dimension::Network24) {
            return 2;
        }
        // The /16 stands in where the event carries no ASN.
        let wide = if self.features.has(Dimension::Asn) {
            Dimension::Asn
        } else {
            Dimension::Network16
        };
        if self.found.is_known(wide) {
            return NET_NEW;
        }
        if self.population.is_used_by_peers(self.features.key(wide)) {
            NET_FAR
        } else {
            5
        }
    }

    fn geo_level(&self, usual: f64) -> usize {
        if !self.features.has(Dimension::City) {
            return 0;
        }
        if self.found.is_known(Dimension::City) {
            let seen = &self.user.seen;
            let few = 0.1 * usual;
            let is_light = seen.is_lighter_than(few, &self.found, Dimension::City, self.now_s);
            return usize::from(is_light);
        }
        if self.found.is_known(Dimension::Country) {
            return 2;
        }
        let country = self.features.key(Dimension::Country);
        if self.population.is_used_by_peers(country) {
            3
        } else {
            4
        }
    }

    fn device(&self, assessment: &mut Assessment) {
        let has_agent = self.features.has(Dimension::UserAgent);
        let has_device = self.features.has(Dimension::Device);
        let knows = |dimension| self.found.is_known(dimension);
        let has_devices = self.user.seen.has_any(Dimension::Device);
        let family = self.features.key(Dimension::Family);
        let new_family = || {
            if self.population.is_used_by_peers(family) {
                4
            } else {
                5
            }
        };
        let level = match (has_device, has_agent) {
            (false, false) => 0,
            (true, _) if knows(Dimension::Device) => usize::from(!knows(Dimension::UserAgent)),
            (true, _) if knows(Dimension::UserAgent) => 2,
            (true, _) if knows(Dimension::Family) => 3,
            (false, true) if knows(Dimension::UserAgent) => 6 * usize::from(has_devices),
            (false, true) if knows(Dimension::Family) => 8 - usize::from(has_devices),
            _ => new_family(),
        };
        let share = self.share(Histogram::Device, level);
        assessment.device_share = share;
        assessment.cells[Histogram::Device as usize] = Some(level);
        assessment.evidence[Component::Device as usize] = ln(self.attacker.device[level] / share);
    }

    fn time(&self, assessment: &mut Assessment) {
        let (working_days, weekends) = self.user.hours.split_at(24);
        let (same, other) = if assessment.is_weekend {
            (weekends, working_days)
        } else {
            (working_days, weekends)
        };
        let around = |hours: &[f32]| -> f64 {
            let weights = KERNEL.iter().enumerate();
            weights
                .map(|(i, weight)| weight * f64::from(hours[(assessment.hour + 22 + i) % 24]))
                .sum()
        };
        let kappa = KAPPA_HOURS * self.growth;
        let population = self
            .population
            .hour_share(assessment.is_weekend, assessment.hour);
        let share = (around(same) + 0.3 * around(other) + kappa * (0.5 * population + 0.5 / 24.0))
            / (sum(same) + 0.3 * sum(other) + kappa);
        assessment.hour_share = share;
        assessment.evidence[Component::Time as usize] = ln(1.0 / 24.0 / share).max(-1.0);
    }

    /// How unlikely a type as rare as this or rarer is.
    fn kind(&self, assessment: &mut Assessment) {
        if self.features.is_failure {
            return;
        }
        let kind = self.features.kind;
        let kappa = KAPPA * self.growth;
        let of_population = kappa / (self.population.types_total() + 5.0);
        // The same expression everywhere: equal types must come out equal to the last bit.
        let weight = |own: f64, population: f64| own + of_population * (population + 0.05);
        let population = self.population.type_weight(kind);
        let this = weight(self.user.types.weight(kind), population.unwrap_or(0.0));
        // All types as if the user had none of them, then the user's own put right.
        let is_rare = |population: f64| weight(0.0, population) <= this;
        let (n_rare, rare) = self.population.rare_types(is_rare);
        let mut tail = this + of_population * (rare + 0.05 * n_rare as f64);
        if let Some(population) = population
            && is_rare(population)
        {
            tail -= weight(0.0, population);
        }
        for (other, own) in self.user.types.iter().filter(|(other, _)| *other != kind) {
            let Some(population) = self.population.type_weight(other) else {
                continue;
            };
            if is_rare(population) {
                tail -= weight(0.0, population);
            }
            let weight = weight(own, population);
            if weight <= this {
                tail += weight;
            }
        }
        let tail = tail / (self.user.types_weight + kappa);
        assessment.kind_tail = tail.clamp(1e-6, 1.0);
        assessment.evidence[Component::Kind as usize] = -ln(assessment.kind_tail) * 0.9 - 0.35;
    }

    /// Failures within half an hour, events within ten minutes, new resources and bytes within one
    /// hour.
    fn bursts(&self, assessment: &mut Assessment) {
        let (user, features) = (self.user, self.features);
        let is_failure = features.is_failure;
        // What is left of a unit after this time without events, if it decays within an hour,
        // half an hour, ten minutes.
        let of_hour = self.hour_decay;
        let of_half = of_hour * of_hour;
        let of_sixth = of_half * of_half * of_half;

        assessment.failures = user.failures * of_half + f64::from(u8::from(is_failure));
        let counts_failures = is_failure || assessment.failures >= 1.0 && features.is_sign_in;
        let cell = if counts_failures {
            bin(assessment.failures * 1.02)
        } else {
            0
        };
        assessment.cells[Histogram::Failures as usize] = Some(cell);
        assessment.evidence[Component::Failures as usize] = if cell > 0 {
            self.tail(Histogram::Failures, cell)
        } else {
            -0.1
        };

        assessment.volume = user.volume * of_sixth + f64::from(u8::from(!is_failure));
        let cell = bin(assessment.volume * 1.02);
        assessment.cells[Histogram::Volume as usize] = Some(cell);
        assessment.evidence[Component::Volume as usize] =
            self.tail(Histogram::Volume, cell) * 0.8 - 0.5;

        let is_new = features.has(Dimension::Endpoint)
            && !is_failure
            && !self.found.is_seen(Dimension::Endpoint)
            && user.n_events > 20;
        assessment.new_resources = user.new_resources * of_hour + f64::from(u8::from(is_new));
        let cell = bin(assessment.new_resources * 1.02);
        assessment.cells[Histogram::NewResources as usize] = Some(cell);
        assessment.evidence[Component::NewResources as usize] =
            self.tail(Histogram::NewResources, cell) * 0.8 - 0.3;

        assessment.bytes = user.bytes * of_hour + features.bytes;
        let cell = bytes_bin(assessment.bytes);
        assessment.cells[Histogram::Bytes as usize] = Some(cell);
        assessment.evidence[Component::Bytes as usize] =
            self.tail(Histogram::Bytes, cell) * 0.6 - 0.5;
    }

    /// The first hour after an absence.
    fn gap(&self, assessment: &mut Assessment) {
        let idle_h = self.idle_h();
        assessment.gap = if idle_h > 12.0 && self.user.n_events > 0 {
            (idle_h, self.now_h)
        } else {
            (self.user.gap_h, self.user.gap_end_h)
        };
        let (gap_h, gap_end_h) = assessment.gap;
        let mut cell = 0;
        if self.now_h - gap_end_h <= 1.0 {
            assessment.gap_h = gap_h;
            cell = bin(gap_h / 12.0);
        }
        assessment.cells[Histogram::Gap as usize] = Some(cell);
        assessment.evidence[Component::Gap as usize] = if cell > 1 {
            self.tail(Histogram::Gap, cell)
        } else {
            -0.05
        };
    }

    /// Two places within hours. There are no coordinates: a user's own habit of switching, by VPN
    /// or by plane, is what a switch is measured by.
    fn switch(&self, assessment: &mut Assessment) {
        let cell = self.switch_cell(assessment.geo);
        assessment.cells[Histogram::Switch as usize] = Some(cell);
        assessment.evidence[Component::Switch as usize] = if cell > 0 {
            (-ln(self.share(Histogram::Switch, cell))).min(6.0) * 0.6 - 0.2
        } else {
            -0.05
        };
    }

    fn switch_cell(&self, geo: usize) -> usize {
        let city = self.features.key(Dimension::City);
        let is_elsewhere = |place: &Place| place.city != city;
        let [current, before] = self.user.places;
        if !self.features.has(Dimension::City) || current.is_none() {
            return 0;
        }
        let other = current.filter(is_elsewhere).or(before.filter(is_elsewhere));
        let Some(other) = other else { return 0 };
        let elapsed_h = self.now_h - other.at_h;
        let level = if other.country == self.features.key(Dimension::Country) {
            0
        } else if geo >= 2 {
            2
        } else {
            1
        };
        match elapsed_h {
            _ if elapsed_h >= 12.0 => 0,
            _ if elapsed_h < 1.0 => level * 4 + 3,
            _ if elapsed_h < 4.0 => level * 4 + 2,
            _ => level * 4 + 1,
        }
    }

    /// Others who fail from the same network, and everywhere.
    fn others(&self, assessment: &mut Assessment) {
        if assessment.net < NET_NEW || !self.features.has(Dimension::Address) {
            return;
        }
        let n_failing = |dimension| {
            let network = self.features.key(dimension);
            self.population
                .n_others_failing(network, self.user_key, self.now_h) as f64
        };
        let n_spraying = n_failing(Dimension::Address).max(0.7 * n_failing(Dimension::Network24));
        assessment.n_spraying = n_spraying;
        if n_spraying >= 1.0 {
            assessment.evidence[Component::Spray as usize] = (2.2 * ln(1.0 + n_spraying)).min(6.0);
        }
        if assessment.net >= NET_FAR && (self.features.is_failure || self.features.is_login) {
            let (level, usual) = self.population.surge(self.now_h);
            if level > usual {
                assessment.evidence[Component::Surge as usize] =
                    (0.6 * surprise(level, usual)).min(5.0);
            }
        }
    }

    fn resource(&self, assessment: &mut Assessment) {
        if self.features.is_failure || !self.features.has(Dimension::Endpoint) {
            return;
        }
        let folder = self.features.key(Dimension::Folder);
        let level = if self.found.is_known(Dimension::Endpoint) {
            0
        } else if self.found.is_known(Dimension::Folder) {
            1
        } else if self.population.is_used_by_peers(folder) {
            2
        } else {
            3
        };
        assessment.cells[Histogram::Resource as usize] = Some(level);
        let share = self.share(Histogram::Resource, level);
        assessment.evidence[Component::Resource as usize] = ln(ATTACKER_RESOURCE[level] / share);
    }
}

/// Saturday or Sunday, UTC. 1970 began on a Thursday.
fn is_weekend(timestamp_ms: i64) -> bool {
    (timestamp_ms.div_euclid(86_400_000) + 3).rem_euclid(7) >= 5
}
