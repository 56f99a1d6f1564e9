//! What an analyst's verdict changes in a user's state. An event was the user's own after all, and
//! is learned like any other; or it was not, and what it taught is taken back.
//!
//! Bursts are left alone: they count how much of everything there was, not what. So is the
//! population, where one event of one user is nothing.

use super::assess::Assessment;
use super::cells::Histogram;
use super::features::{Dimension, Features};
use super::learn::{is_reached, weight_of, weight_of_values};
use super::seen::QUARANTINE_S;
use super::user::User;
use super::{Adaptive, hours};
use crate::record::feedback::Judgement;

/// The histograms of novelty.
const LADDERS: [Histogram; 3] = [Histogram::NetGeo, Histogram::Device, Histogram::Resource];

impl Adaptive {
    /// Applies a verdict on an event that was learned. `before` is the verdict that has been applied
    /// already, `risk` the one that the event was learned by, if it was told.
    pub(in crate::detect) fn correct(
        &self,
        user: &mut User,
        features: &Features,
        judgement: Judgement,
        before: Option<Judgement>,
        risk: Option<f64>,
    ) {
        let learned = risk.map_or(1.0, weight_of);
        match judgement {
            Judgement::Benign => {
                let was_disowned = before == Some(Judgement::Malicious);
                let withheld = if was_disowned { 1.0 } else { 1.0 - learned };
                self.accept(user, features, withheld);
            }
            Judgement::Malicious => {
                let was_accepted = before == Some(Judgement::Benign);
                self.disown(user, features, learned, was_accepted);
            }
        }
    }

    /// The event was the user's own: its values are known from now on, and the levels it stands on
    /// get the weight that learning has withheld.
    fn accept(&self, user: &mut User, features: &Features, withheld: f64) {
        if withheld > 0.0 {
            let stand = self.stand(user, features);
            // It is learned as of the user's last event.
            let weight = withheld * user.growth(user.last_h);
            add_to_levels(user, &stand, weight);
            add_to_hour(user, &stand, weight);
            user.learn_type(features.kind, weight);
        }
        let now_s = user.seconds(user.last_h);
        let is_taken = |dimension| is_reached(features.is_failure, dimension);
        user.seen.make_known(features, now_s, is_taken);
    }

    /// The event was not the user's: values that came with it are forgotten, and what else it taught
    /// loses the weight it was learned with.
    fn disown(&self, user: &mut User, features: &Features, learned: f64, was_accepted: bool) {
        let event_h = hours(features.timestamp_ms)
            .min(user.last_h)
            .max(user.first_h);
        let event_s = user.seconds(event_h);
        // To be known at once, a value may have been dated back by as much.
        let (whole, dated_back_s) = if was_accepted {
            (1.0, QUARANTINE_S)
        } else {
            (learned, 0)
        };
        let times_s = (event_s.saturating_sub(dated_back_s), event_s);
        let of_values = weight_of_values(features.is_failure, whole);
        let is_taken = |dimension| is_reached(features.is_failure, dimension);
        user.seen.take_back(features, times_s, of_values, is_taken);
        let city = features.key(Dimension::City);
        let places = user.places.into_iter().flatten();
        let mut kept = places.filter(|place| place.city != city || place.at_h < event_h);
        user.places = [kept.next(), kept.next()];
        // Without its values the event stands where it stood when it came. Where it stood when it was
        // accepted is not known any more, so what its levels got then stays there.
        let stand = self.stand(user, features);
        let growth = user.growth_at(event_h);
        add_to_levels(user, &stand, -learned * growth);
        add_to_hour(user, &stand, -whole * growth);
        user.unlearn_type(features.kind, whole * growth);
    }

    /// Where an event stands for the user now.
    fn stand(&self, user: &mut User, features: &Features) -> Assessment {
        let now_h = user.last_h;
        // Only bursts of failures of others ask for the user's key.
        self.case(0, user, features, now_h).stand()
    }
}

/// Changes how often the user was on these levels, by a weight that may be below 0.
fn add_to_levels(user: &mut User, stand: &Assessment, weight: f64) {
    for histogram in LADDERS {
        if let Some(cell) = stand.cells[histogram as usize] {
            add(&mut user.cells[histogram.of_user().start + cell], weight);
        }
    }
}

/// The same for the hour.
fn add_to_hour(user: &mut User, stand: &Assessment, weight: f64) {
    let hour = usize::from(stand.is_weekend) * 24 + stand.hour;
    add(&mut user.hours[hour], weight);
}

/// No count falls below 0.
fn add(count: &mut f32, weight: f64) {
    *count = (f64::from(*count) + weight).max(0.0) as f32;
}
