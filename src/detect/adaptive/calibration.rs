//! From the risk R to a score: the share of usual events that are less risky (detector
//! specification B.7).

use serde::{Deserialize, Serialize};

use super::math::{exp, ln};

/// Bins of R, a tenth wide each.
pub(super) const N_BINS: usize = 600;
const RISK_MIN: f64 = -15.0;
const BINS_A_UNIT: f64 = 10.0;
/// Events after which old ones count a little less.
const STEP: u64 = 1_000;
const STEP_DECAY: f64 = 0.999;

/// The distribution of R over usual events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    counts: Vec<f64>,
    n_events: u64,
}

/// The same, ready for look-ups.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    /// Events at or above each bin.
    above: Vec<f64>,
    n_events: f64,
    /// From here on the tail is taken to fall exponentially.
    far_risk: f64,
    far_share: f64,
    far_scale: f64,
}

/// The bin of a risk.
pub(super) fn bin_of(risk: f64) -> usize {
    (((risk - RISK_MIN) * BINS_A_UNIT).max(0.0) as usize).min(N_BINS - 1)
}

impl Calibration {
    /// 400 pseudo-events, exponential above -4.
    pub(super) fn new() -> Self {
        let count = |bin: usize| {
            let risk = RISK_MIN + bin as f64 * 0.1;
            if risk >= -4.0 {
                400.0 * (0.1 / 1.6) * exp(-(risk + 4.0) / 1.6)
            } else {
                0.0
            }
        };
        Self {
            counts: (0..N_BINS).map(count).collect(),
            n_events: 0,
        }
    }

    /// Adds events by bin.
    pub(super) fn add(&mut self, counts: &[u32]) {
        let n_before = self.n_events / STEP;
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += f64::from(*more);
            self.n_events += u64::from(*more);
        }
        let n_steps = self.n_events / STEP - n_before;
        for _ in 0..n_steps.min(10_000) {
            for count in &mut self.counts {
                *count *= STEP_DECAY;
            }
        }
    }

    /// The tail of what has been counted; `old` is one that is not needed any more.
    pub(super) fn tail(&self, old: Option<Tail>) -> Tail {
        let mut above = old.map_or_else(Vec::new, |old| old.above);
        above.resize(N_BINS + 1, 0.0);
        for bin in (0..N_BINS).rev() {
            above[bin] = above[bin + 1] + self.counts[bin];
        }
        let n_events = above[0];
        // Up to one event in a hundred may be an attack: the slope is taken before them.
        let first_below = |share: f64| {
            let bin = above.iter().position(|&n| n <= share * n_events);
            bin.unwrap_or(N_BINS).min(N_BINS - 1)
        };
        let (bin_5, bin_1) = (first_below(0.05), first_below(0.01));
        let fall = ln((above[bin_5] / above[bin_1].max(1e-9)).max(1.01));
        Tail {
            n_events,
            far_risk: RISK_MIN + bin_1 as f64 * 0.1,
            far_share: above[bin_1] / n_events,
            far_scale: ((bin_1 - bin_5) as f64 * 0.1 / fall).max(0.25),
            above,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.counts.len() == N_BINS && self.counts.iter().all(|count| (0.0..1e18).contains(count))
    }
}

impl Tail {
    /// 1 minus the share of usual events that are as risky as this, 0..=1.
    pub(super) fn score(&self, risk: f64) -> f64 {
        if risk >= self.far_risk {
            return 1.0 - self.far_share * exp(-(risk - self.far_risk) / self.far_scale);
        }
        let place = (risk - RISK_MIN) * BINS_A_UNIT;
        if place <= 0.0 {
            return 0.0;
        }
        let bin = (place as usize).min(N_BINS - 1);
        let fraction = place - bin as f64;
        1.0 - (self.above[bin] * (1.0 - fraction) + self.above[bin + 1] * fraction) / self.n_events
    }
}
