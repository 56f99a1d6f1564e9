//! What an analyst's verdict changes in a classic baseline: an event that was not the user's is
//! counted out again. One that was needs nothing, since every event is counted whole.

use super::{Baseline, Features};
use crate::record::EventView;
use crate::record::feedback::Judgement;

impl Baseline {
    /// Applies a verdict on an event that was learned. `before` is the verdict that has been applied
    /// already.
    pub(in crate::detect) fn correct(
        &mut self,
        event: &EventView<'_>,
        judgement: Judgement,
        before: Option<Judgement>,
    ) {
        match (judgement, before) {
            (Judgement::Benign, Some(Judgement::Malicious)) => self.learn_event(event),
            (Judgement::Benign, _) | (_, Some(Judgement::Malicious)) => (),
            (Judgement::Malicious, _) => {
                let mut without = self.clone();
                without.unlearn(event);
                // Other counts than those of a history: it was not learned in the first place.
                if Self::from_summary(without.summary()).is_ok() {
                    *self = without;
                }
            }
        }
    }

    fn unlearn(&mut self, event: &EventView<'_>) {
        let features = Features::of(event);
        self.n_events = self.n_events.saturating_sub(1);
        self.n_failed = self.n_failed.saturating_sub(u64::from(event.is_failure));
        // Which of the last 20 it was is not known: of failures too many the oldest one goes.
        while u64::from(self.recent_failures.count_ones()) > self.n_failed {
            self.recent_failures ^= 1 << self.recent_failures.ilog2();
        }
        let hour = &mut self.hours[features.hour];
        *hour = hour.saturating_sub(1);
        for (tag, value) in features.tags_of(&event.into()) {
            if let Some((tag, value)) = tag.zip(value) {
                self.values.unlearn(tag, value);
            }
        }
        if let Some(score) = event.threat_score {
            self.n_threat_scores = self.n_threat_scores.saturating_sub(1);
            // Sums of fractions are not exact.
            let score_max = self.n_threat_scores as f64;
            self.threat_score_sum = (self.threat_score_sum - score).clamp(0.0, score_max);
        }
    }
}
