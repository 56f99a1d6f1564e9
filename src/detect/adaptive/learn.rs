//! What an event changes: in its user's state at once, in what all users share at the end of the
//! epoch (detector specification B.8). An event that looks like an attack is learned with less weight.

use super::archetype::Component;
use super::assess::{Assessment, NET_FAR, NET_NEW};
use super::cells::{Age, HOURS, Histogram};
use super::features::{Dimension, Features};
use super::population::{Deltas, micro};
use super::seen::Found;
use super::user::{Place, User};
use super::{Adaptive, EPOCH_MS, calibration, math};

/// Risk from which an event is learned with less weight, so that an attack does not make itself
/// usual; and the least weight.
const LEARN_RISK: f64 = 2.5;
const LEARN_WEIGHT_MIN: f64 = 0.05;

/// What learning needs to know of how the event was assessed.
pub(super) struct Lesson {
    pub(super) user_key: u64,
    pub(super) seen: Found,
    pub(super) now_h: f64,
    pub(super) now_s: u32,
    pub(super) growth: f64,
    pub(super) age: Age,
    pub(super) evidence_before: f64,
    pub(super) risk: f64,
}

/// How much an event of that risk is learned.
pub(super) fn weight_of(risk: f64) -> f64 {
    if risk <= LEARN_RISK {
        1.0
    } else {
        math::exp(-(risk - LEARN_RISK) / 2.0).max(LEARN_WEIGHT_MIN)
    }
}

/// How much of that is learned of its values.
pub(super) fn weight_of_values(is_failure: bool, weight: f64) -> f64 {
    match is_failure {
        false => weight,
        true if weight > 0.5 => weight * 0.3,
        true => 0.0,
    }
}

/// What a failed event asked for was not reached.
pub(super) fn is_reached(is_failure: bool, dimension: usize) -> bool {
    !is_failure
        || (dimension != Dimension::Endpoint as usize && dimension != Dimension::Folder as usize)
}

impl Adaptive {
    pub(super) fn learn(
        &self,
        user: &mut User,
        deltas: &mut Deltas,
        features: &Features,
        found: &Assessment,
        lesson: &Lesson,
    ) {
        let weight = weight_of(lesson.risk);
        let grown = weight * lesson.growth;
        let (whole, half) = (micro(weight), micro(weight * 0.5));
        for (histogram, cell) in Histogram::ALL.into_iter().zip(found.cells) {
            let Some(cell) = cell else { continue };
            let of_user = &mut user.cells[histogram.of_user().start + cell];
            *of_user = (f64::from(*of_user) + grown) as f32;
            let of_population = histogram.of_population(lesson.age).start + cell;
            deltas.add_cell(of_population, half);
        }
        let hour = usize::from(found.is_weekend) * 24 + found.hour;
        user.hours[hour] = (f64::from(user.hours[hour]) + grown) as f32;
        deltas.add_cell(HOURS + hour, whole);
        user.learn_type(features.kind, grown);
        deltas.add_type(features.kind, whole);
        let of_values = weight_of_values(features.is_failure, weight);
        if of_values > 0.0 {
            self.learn_values(user, deltas, features, lesson, of_values);
        }
        self.learn_failure(user, deltas, features, found, lesson);
        Self::learn_course(user, features, found, lesson);
        // A flood must not make floods usual.
        if user.n_events > 30 && user.volume < 60.0 && user.failures < 6.0 {
            deltas.add_risk(calibration::bin_of(lesson.risk));
        }
    }

    fn learn_values(
        &self,
        user: &mut User,
        deltas: &mut Deltas,
        features: &Features,
        lesson: &Lesson,
        weight: f64,
    ) {
        let is_failure = features.is_failure;
        let is_taken = |dimension| is_reached(is_failure, dimension);
        let known = user
            .seen
            .learn(features, &lesson.seen, lesson.now_s, weight, is_taken);
        for dimension in [
            Dimension::Asn,
            Dimension::Network16,
            Dimension::Country,
            Dimension::Family,
            Dimension::Folder,
        ] {
            let value = features.key(dimension);
            if known[dimension as usize]
                && is_taken(dimension as usize)
                && self.population.lacks_peer(value, lesson.user_key)
            {
                deltas.add_peer(value, lesson.user_key);
            }
        }
    }

    fn learn_failure(
        &self,
        user: &mut User,
        deltas: &mut Deltas,
        features: &Features,
        found: &Assessment,
        lesson: &Lesson,
    ) {
        if !features.is_failure {
            return;
        }
        user.n_failed = user.n_failed.saturating_add(1);
        if found.net >= NET_NEW && features.has(Dimension::Address) {
            for dimension in [Dimension::Address, Dimension::Network24] {
                deltas.add_failing(features.key(dimension), lesson.user_key, lesson.now_h);
            }
            if found.net >= NET_FAR {
                // Late failures count as the epoch's first.
                let since_ms = features.timestamp_ms - self.clock.now_ms();
                let since_ms = since_ms.clamp(0, EPOCH_MS - 1) as u32;
                deltas.add_surge(since_ms, user.last_failure_h < lesson.now_h - 1.0);
            }
        }
        user.last_failure_h = lesson.now_h;
    }

    /// What decays within hours, and where the user is.
    fn learn_course(user: &mut User, features: &Features, found: &Assessment, lesson: &Lesson) {
        user.failures = found.failures;
        user.volume = found.volume;
        user.new_resources = found.new_resources;
        user.bytes = found.bytes;
        (user.gap_h, user.gap_end_h) = found.gap;
        let of = |component: Component| found.evidence[component as usize];
        let mut evidence = lesson.evidence_before;
        if !features.is_failure {
            let more = of(Component::Kind)
                + of(Component::Resource)
                + 0.5 * of(Component::NewResources)
                + 0.5 * of(Component::Volume)
                - 1.0;
            evidence += more.clamp(-1.0, 4.0);
        }
        user.evidence = evidence.max(0.0);
        if features.has(Dimension::City) {
            let place = Place {
                city: features.key(Dimension::City),
                country: features.key(Dimension::Country),
                at_h: lesson.now_h,
            };
            if user.places[0].is_some_and(|current| current.city != place.city) {
                user.places[1] = user.places[0];
            }
            user.places[0] = Some(place);
        }
        user.last_h = lesson.now_h;
        user.n_events = user.n_events.saturating_add(1);
        if let Some(score) = features.threat_score {
            user.threat_score_sum += score;
            user.n_threat_scores = user.n_threat_scores.saturating_add(1);
        }
    }
}
