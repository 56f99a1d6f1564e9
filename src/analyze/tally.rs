//! What asking has come to, for the summary at the end and for those who read metrics meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Analyst, Shared};
use crate::metrics::{Asked, Metrics};
use crate::record::analysis::Outcome;
use crate::time::now_ms;

/// What all has come to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Events that were to be analysed.
    pub n_asked: u64,
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Requests, those that were tried again too.
    pub n_calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// If prices are known.
    pub micro_usd: Option<u64>,
    pub n_hostile: u64,
    pub n_raised: u64,
}

impl Analyst {
    /// Lets those who read metrics know what asking comes to; where events wait with nobody else, how many
    /// do, too.
    pub fn report_to(&self, metrics: &Arc<Metrics>, is_alone: bool) {
        let (of_metrics, shared) = (Arc::downgrade(metrics), Arc::clone(&self.shared));
        metrics.look(move || {
            let metrics = of_metrics.upgrade();
            if let Some(answers) = metrics.as_ref().and_then(|it| it.answers.as_ref()) {
                answers.tell(&shared.answered(), is_alone);
            }
        });
    }
}

impl Shared {
    fn answered(&self) -> Asked {
        let state = self.lock();
        let outcomes = state.tally.outcomes.iter();
        let failed = outcomes.filter(|(outcome, _)| !outcome.is_answer());
        let refused = state.tally.outcomes.get(&Outcome::Refused);
        Asked {
            n_asked: state.tally.n_asked,
            n_back: state.tally.outcomes.values().sum(),
            n_failed: failed.map(|(_, n)| n).sum(),
            n_refused: refused.copied().unwrap_or(0),
            micro_usd: state.tally.micro_usd.unwrap_or(0),
            budget_micro_usd: self.config.limits.micro_usd_per_day,
            spent_micro_usd: state.spending.spent(now_ms()),
        }
    }
}
