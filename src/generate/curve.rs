//! The intensity curve: at what time the k-th of N benign events happens. Inverting it gives times
//! that are sorted by construction, so that no event ever waits for a sort.

use super::population::Population;
use super::user::HOUR_MS;

/// The cumulative activity of everybody over the hours of the time span.
pub(super) struct Curve {
    start_ms: i64,
    end_ms: i64,
    first_hour: i64,
    /// Activity before each hour; the last entry is the total.
    cumulative: Vec<f64>,
}

impl Curve {
    pub(super) fn new(population: &Population, start_ms: i64, end_ms: i64) -> Self {
        let first_hour = start_ms.div_euclid(HOUR_MS);
        let last_hour = (end_ms - 1).div_euclid(HOUR_MS);
        let mut curve = Self {
            start_ms,
            end_ms,
            first_hour,
            cumulative: vec![0.0],
        };
        let mut total = 0.0;
        let activities = population.total_activity(first_hour..last_hour + 1);
        for (index, activity) in activities.into_iter().enumerate() {
            let (from_ms, to_ms) = curve.hour_bounds_ms(index);
            // The first and the last hour may lie in the span only in part.
            total += activity * (to_ms - from_ms) as f64;
            curve.cumulative.push(total);
        }
        curve
    }

    /// The time before which `share` (0 to 1) of the activity happens. Never falls as it grows.
    pub(super) fn time_ms(&self, share: f64) -> i64 {
        let last = self.cumulative.len() - 2;
        let wanted = share * self.cumulative[last + 1];
        let index = self
            .cumulative
            .partition_point(|&before| before <= wanted)
            .clamp(1, last + 1)
            - 1;
        let (from_ms, to_ms) = self.hour_bounds_ms(index);
        let (before, after) = (self.cumulative[index], self.cumulative[index + 1]);
        let within = (wanted - before) / (after - before);
        (from_ms + (within * (to_ms - from_ms) as f64) as i64).min(to_ms - 1)
    }

    fn hour_bounds_ms(&self, index: usize) -> (i64, i64) {
        let from_ms = (self.first_hour + index as i64) * HOUR_MS;
        (
            from_ms.max(self.start_ms),
            (from_ms + HOUR_MS).min(self.end_ms),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rise_and_stay_within_the_span() {
        let (start_ms, end_ms) = (1_735_689_600_123, 1_735_689_600_123 + 24 * HOUR_MS);
        let curve = Curve::new(&Population::new(5, 1), start_ms, end_ms);
        let times: Vec<i64> = (0..=10_000)
            .map(|k| curve.time_ms(f64::from(k) / 10_000.0))
            .collect();
        assert!(times.is_sorted());
        assert_eq!(times[0], start_ms);
        assert_eq!(times[10_000], end_ms - 1);
    }
}
