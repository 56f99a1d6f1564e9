//! What is looked up of what users share: shares of cells, hours and types. They are the same for all of an
//! epoch, and there may be thousands of epochs with a few events each: so most of them are worked out
//! when an event asks for them first.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::calibration::{Calibration, Tail};
use super::cells::{HOURS, N_POPULATION_CELLS};

/// How much an hour counts for the hours around it.
pub(super) const KERNEL: [f64; 5] = [0.12, 0.2, 0.36, 0.2, 0.12];

/// Look-ups as of the last refresh. Cells are those that it was refreshed for.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Each cell's share of its histogram; for hours, smoothed over their neighbours.
    shares: Numbers,
    /// The share of the cells from it on.
    tails: Numbers,
    /// Types by key; and their weights, rising, with the sum of all below.
    types: Vec<(u64, f64)>,
    rising: Vec<f64>,
    sums: Vec<f64>,
    tail: Option<Tail>,
}

impl View {
    /// Forgets what was worked out. Types come with their weights, sorted by key.
    pub(super) fn refresh(&mut self, types: impl Iterator<Item = (u64, f64)>) {
        self.shares.forget(N_POPULATION_CELLS);
        self.tails.forget(HOURS);
        self.types.clear();
        self.types.extend(types);
        self.rising.clear();
        self.rising
            .extend(self.types.iter().map(|(_, weight)| weight));
        self.rising.sort_unstable_by(f64::total_cmp);
        self.sums.clear();
        self.sums.push(0.0);
        let mut sum = 0.0;
        for weight in &self.rising {
            sum += weight;
            self.sums.push(sum);
        }
    }

    /// Takes over the risks of usual events, of which those from bin `end` on are as they were.
    pub(super) fn calibrate(&mut self, calibration: &Calibration, end: usize) {
        self.tail = Some(calibration.tail(self.tail.take(), end));
    }

    /// A cell's share of its histogram, which is that range of the cells.
    #[inline]
    pub(super) fn share(&self, cells: &[i64], histogram: Range<usize>, cell: usize) -> f64 {
        self.shares.get(histogram.start + cell, || {
            let cells = &cells[histogram];
            cells[cell] as f64 / total(cells)
        })
    }

    /// The share of that cell and those after it.
    #[inline]
    pub(super) fn tail_share(&self, cells: &[i64], histogram: Range<usize>, cell: usize) -> f64 {
        self.tails.get(histogram.start + cell, || {
            let cells = &cells[histogram];
            total(&cells[cell..]) / total(cells)
        })
    }

    /// The share of activity around an hour of a day, whose hours are that range of the cells.
    #[inline]
    pub(super) fn hour_share(&self, cells: &[i64], day: Range<usize>, hour: usize) -> f64 {
        self.shares.get(day.start + hour, || {
            let hours = &cells[day];
            let around = KERNEL.iter().enumerate();
            let sum: f64 = around
                .map(|(i, weight)| weight * hours[(hour + 22 + i) % 24] as f64)
                .sum();
            sum / total(hours)
        })
    }

    /// The weight of a type.
    pub(super) fn type_weight(&self, kind: u64) -> Option<f64> {
        let i = self.types.binary_search_by_key(&kind, |(key, _)| *key);
        i.ok().map(|i| self.types[i].1)
    }

    /// See [`super::Population::rare_types`].
    pub(super) fn rare_types(&self, is_rare: impl Fn(f64) -> bool) -> (usize, f64) {
        let n_rare = self.rising.partition_point(|weight| is_rare(*weight));
        (n_rare, self.sums[n_rare])
    }

    /// The score of a risk.
    pub(super) fn score(&self, risk: f64) -> f64 {
        self.tail.as_ref().map_or(0.0, |tail| tail.score(risk))
    }
}

fn total(cells: &[i64]) -> f64 {
    cells.iter().sum::<i64>() as f64
}

/// Numbers that are worked out when they are asked for first. Several threads may do so for the same
/// one: all come to the same number.
#[derive(Debug, Default)]
struct Numbers(Vec<AtomicU64>);

/// The bits of no number that anything is worked out to be.
const UNKNOWN: u64 = u64::MAX;

impl Numbers {
    /// So many numbers of which nothing is known.
    fn forget(&mut self, n_numbers: usize) {
        self.0.resize_with(n_numbers, AtomicU64::default);
        for number in &mut self.0 {
            *number.get_mut() = UNKNOWN;
        }
    }

    #[inline]
    fn get(&self, i: usize, work_out: impl FnOnce() -> f64) -> f64 {
        let known = self.0[i].load(Ordering::Relaxed);
        if known != UNKNOWN {
            return f64::from_bits(known);
        }
        let number = work_out();
        self.0[i].store(number.to_bits(), Ordering::Relaxed);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::{Age, Histogram};
    use super::*;

    #[test]
    fn shares_are_those_of_the_cells_at_the_last_refresh() {
        let mut view = View::default();
        for round in 1..4_i64 {
            let cells: Vec<i64> = (1..=N_POPULATION_CELLS as i64)
                .map(|i| i * i % 1_009 + round)
                .collect();
            view.refresh([(7, 1.5), (9, 0.5)].into_iter());
            for _ in 0..2 {
                for histogram in Histogram::ALL {
                    let range = histogram.of_population(Age::Old);
                    let of_it = &cells[range.clone()];
                    let total = of_it.iter().sum::<i64>() as f64;
                    for cell in 0..of_it.len() {
                        let tail = of_it[cell..].iter().sum::<i64>() as f64 / total;
                        let found = [
                            view.share(&cells, range.clone(), cell),
                            view.tail_share(&cells, range.clone(), cell),
                        ];
                        let expected = [of_it[cell] as f64 / total, tail];
                        assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits));
                    }
                }
                let of_day: f64 = (0..24)
                    .map(|hour| view.hour_share(&cells, HOURS..HOURS + 24, hour))
                    .sum();
                assert!((of_day - 1.0).abs() < 1e-12);
            }
            assert_eq!(view.rare_types(|weight| weight < 1.0), (1, 0.5));
        }
    }
}
