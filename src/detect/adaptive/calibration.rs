//! From the risk R to a score: the share of usual events that are less risky (detector
//! specification B.7).

use std::mem::{replace, take};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::math::{exp, ln};

/// Bins of R, a tenth wide each.
pub(super) const N_BINS: usize = 600;
/// Of which the first is after and the last before all others.
const NO_BINS: Range<usize> = Range {
    start: N_BINS,
    end: 0,
};
const RISK_MIN: f64 = -15.0;
const BINS_A_UNIT: f64 = 10.0;
/// Events after which old ones count a little less.
const STEP: u64 = 1_000;
const STEP_DECAY: f64 = 0.999;

/// Events of an epoch by the bin of their risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub(super) struct Counts {
    bins: Vec<u32>,
    /// All others are empty.
    range: Range<usize>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            bins: vec![0; N_BINS],
            range: NO_BINS,
        }
    }
}

impl Counts {
    pub(super) fn add(&mut self, bin: usize) {
        self.add_events(bin, 1);
    }

    /// Takes over what `other` holds, and leaves it empty.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        for bin in replace(&mut other.range, NO_BINS) {
            let n_events = take(&mut other.bins[bin]);
            if n_events > 0 {
                self.add_events(bin, n_events);
            }
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bins.len() == N_BINS
    }

    fn add_events(&mut self, bin: usize, n_events: u32) {
        self.bins[bin] = self.bins[bin].saturating_add(n_events);
        self.range = self.range.start.min(bin)..self.range.end.max(bin + 1);
    }
}

impl From<Vec<u32>> for Counts {
    fn from(bins: Vec<u32>) -> Self {
        let is_counted = |&n_events: &u32| n_events > 0;
        let start = bins.iter().position(is_counted);
        let end = bins.iter().rposition(is_counted);
        let range = start
            .zip(end)
            .map_or(NO_BINS, |(start, end)| start..end + 1);
        Self { bins, range }
    }
}

impl From<Counts> for Vec<u32> {
    fn from(counts: Counts) -> Self {
        counts.bins
    }
}

/// The distribution of R over usual events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    counts: Vec<f64>,
    n_events: u64,
}

/// The same, ready for look-ups.
#[derive(Clone, Debug, PartialEq)]
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

    /// Adds events, and leaves none; the bins that have changed are before the one it returns.
    pub(super) fn add(&mut self, events: &mut Counts) -> usize {
        let n_before = self.n_events / STEP;
        let range = replace(&mut events.range, NO_BINS);
        let end = range.end;
        for bin in range {
            let more = take(&mut events.bins[bin]);
            self.counts[bin] += f64::from(more);
            self.n_events = self.n_events.saturating_add(u64::from(more));
        }
        let n_steps = self.n_events / STEP - n_before;
        for _ in 0..n_steps.min(10_000) {
            for count in &mut self.counts {
                *count *= STEP_DECAY;
            }
        }
        if n_steps > 0 { N_BINS } else { end }
    }

    /// The tail of what has been counted. Where bins from `end` on have not changed since, `old` is what
    /// it was before.
    pub(super) fn tail(&self, old: Option<Tail>, end: usize) -> Tail {
        let (mut above, end) = match old {
            Some(old) if end == 0 => return old,
            Some(old) => (old.above, end),
            None => (vec![0.0; N_BINS + 1], N_BINS),
        };
        for bin in (0..end).rev() {
            above[bin] = above[bin + 1] + self.counts[bin];
        }
        let n_events = above[0];
        // Up to one event in a hundred may be an attack: the slope is taken before them.
        let first_below = |share: f64| {
            above
                .partition_point(|&n| n > share * n_events)
                .min(N_BINS - 1)
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
        self.counts.len() == N_BINS
            && self.counts.iter().all(|count| (0.0..1e18).contains(count))
            // It begins with pseudo-events, and decays by what is added: of nothing there are no shares.
            && self.counts.iter().sum::<f64>() >= 1.0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Made again where something has changed it is what it would be if it were made of all.
    #[test]
    fn a_tail_is_the_same_however_it_was_made() {
        let mut calibration = Calibration::new();
        let mut events = Counts::default();
        let mut tail = None;
        for epoch in 0..400_usize {
            for i in 0..epoch % 7 {
                events.add((epoch * 31 + i * i * 17) % N_BINS);
            }
            let end = calibration.add(&mut events);
            assert_eq!(events, Counts::default());
            tail = Some(calibration.tail(tail, end));
            let (from_all, from_before) = (calibration.tail(None, 0), tail.as_ref());
            assert_eq!(Some(&from_all), from_before);
        }
        assert!(calibration.n_events > STEP, "counts have decayed once");
    }

    /// A share of nothing was no number, and so was everybody's score.
    #[test]
    fn there_are_shares_of_something() {
        let whole = Calibration::new();
        assert!(whole.is_whole());
        for counts in [vec![0.0; N_BINS], vec![-1.0; N_BINS], vec![1.0; N_BINS - 1]] {
            let calibration = Calibration {
                counts,
                ..whole.clone()
            };
            assert!(!calibration.is_whole());
        }
        // Numbers that only others have written stay where they are.
        let mut events = Counts::from(vec![u32::MAX; N_BINS]);
        events.add(7);
        let mut full = Calibration {
            n_events: u64::MAX,
            ..whole
        };
        full.add(&mut events);
        let score = full.tail(None, 0).score(3.0);
        assert!((0.0..=1.0).contains(&score), "{score}");
    }

    #[test]
    fn counts_are_stored_as_numbers_are() {
        let mut counts = Counts::default();
        for bin in [3, 599, 3] {
            counts.add(bin);
        }
        let mut numbers = vec![0_u32; N_BINS];
        (numbers[3], numbers[599]) = (2, 1);
        let record = postcard::to_stdvec(&counts).expect("memory takes every write");
        assert_eq!(record, postcard::to_stdvec(&numbers).expect("the same"));
        assert_eq!(postcard::from_bytes::<Counts>(&record), Ok(counts.clone()));
        let mut others = Counts::default();
        others.absorb(&mut counts);
        assert_eq!(Vec::from(others), numbers);
        assert_eq!(counts, Counts::from(vec![0; N_BINS]));
        for n_bins in [0, N_BINS - 1, N_BINS + 1] {
            assert!(!Counts::from(vec![1; n_bins]).is_whole());
        }
    }
}
