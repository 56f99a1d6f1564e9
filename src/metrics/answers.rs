//! What a language model is asked, and what that costs.

use prometheus::Gauge as FloatGauge;

use super::make::Maker;
use super::{Counter, Gauge, catch_up};

pub struct Answers {
    asked: Counter,
    failed: Counter,
    refused: Counter,
    pending: Gauge,
    cost_usd: prometheus::Counter,
    budget_usd: FloatGauge,
    spent_usd: FloatGauge,
}

/// What asking has come to so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Events that it was asked about.
    pub n_asked: u64,
    /// Those among them that it has come to something for.
    pub n_back: u64,
    /// Those among these without an analysis.
    pub n_failed: u64,
    /// Those that the model has declined.
    pub n_refused: u64,
    /// Millionths of a dollar since the start, if prices are known.
    pub micro_usd: u64,
    /// What may be spent in a day, if that is limited, and what was.
    pub budget_micro_usd: Option<u64>,
    pub spent_micro_usd: u64,
}

impl Answers {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            asked: maker.counter(
                "streamguard_ai_analyses_total",
                "Events sent for analysis by a language model, each time that they were.",
            ),
            failed: maker.counter(
                "streamguard_ai_analysis_failed_total",
                "Events sent for analysis that came back without one.",
            ),
            refused: maker.counter(
                "streamguard_ai_refusals_total",
                "Events sent for analysis that the model declined to judge.",
            ),
            pending: maker.gauge(
                "streamguard_ai_pending",
                "Events that wait for their analysis.",
            ),
            cost_usd: maker.float_counter(
                "streamguard_ai_cost_usd_total",
                "What analyses have cost since the program started, in dollars, if prices are known.",
            ),
            budget_usd: maker.float_gauge(
                "streamguard_ai_budget_usd",
                "What analyses may cost in a day of UTC, in dollars; 0 if that is not limited.",
            ),
            spent_usd: maker.float_gauge(
                "streamguard_ai_budget_spent_usd",
                "What they have cost today, in dollars; what is set aside for calls counts.",
            ),
        }
    }

    /// Tells what asking has come to; how many events wait, too, if they do so with nobody else.
    pub fn tell(&self, so_far: &Asked, is_alone: bool) {
        let usd = |micro_usd: u64| micro_usd as f64 / 1e6;
        catch_up(&self.asked, so_far.n_asked);
        catch_up(&self.failed, so_far.n_failed);
        catch_up(&self.refused, so_far.n_refused);
        let cost_usd = usd(so_far.micro_usd) - self.cost_usd.get();
        self.cost_usd.inc_by(cost_usd.max(0.0));
        let budget = so_far.budget_micro_usd.unwrap_or(0);
        self.budget_usd.set(usd(budget));
        self.spent_usd.set(usd(so_far.spent_micro_usd));
        if is_alone {
            self.wait(so_far.n_asked - so_far.n_back);
        }
    }

    /// Tells how many events wait.
    pub fn wait(&self, n_pending: u64) {
        self.pending.set(n_pending as i64);
    }
}
