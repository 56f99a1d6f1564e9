//! The histograms that users and the population have in common, as ranges of one array of cells.
//!
//! The first three count novelty levels, and the population keeps them by age of the account; the
//! next five count logarithmic bins of something that bursts; then changes of place and hours.

use std::ops::Range;

/// Cells of one histogram.
pub(super) const N_NET_GEO: usize = 30;
pub(super) const N_DEVICE: usize = 9;
pub(super) const N_RESOURCE: usize = 4;
pub(super) const N_BINS: usize = 12;
pub(super) const N_BYTES: usize = 24;
pub(super) const N_SWITCH: usize = 13;

/// The histograms of a user, apart from the hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Histogram {
    NetGeo,
    Device,
    Resource,
    Failures,
    Volume,
    NewResources,
    Gap,
    Bytes,
    Switch,
}

impl Histogram {
    pub(super) const ALL: [Self; 9] = [
        Self::NetGeo,
        Self::Device,
        Self::Resource,
        Self::Failures,
        Self::Volume,
        Self::NewResources,
        Self::Gap,
        Self::Bytes,
        Self::Switch,
    ];

    pub(super) const fn n_cells(self) -> usize {
        match self {
            Self::NetGeo => N_NET_GEO,
            Self::Device => N_DEVICE,
            Self::Resource => N_RESOURCE,
            Self::Failures | Self::Volume | Self::NewResources | Self::Gap => N_BINS,
            Self::Bytes => N_BYTES,
            Self::Switch => N_SWITCH,
        }
    }

    /// Where it stands among a user's cells.
    pub(super) const fn of_user(self) -> Range<usize> {
        let mut start = 0;
        let mut i = 0;
        while i < self as usize {
            start += Self::ALL[i].n_cells();
            i += 1;
        }
        start..start + self.n_cells()
    }

    /// Whether the population keeps it apart for accounts of different age.
    pub(super) const fn is_by_age(self) -> bool {
        matches!(self, Self::NetGeo | Self::Device | Self::Resource)
    }

    /// Where it stands among the population's cells, for accounts of that age.
    pub(super) const fn of_population(self, age: Age) -> Range<usize> {
        let mut start = 0;
        let mut i = 0;
        while i < self as usize {
            let n_ages = if Self::ALL[i].is_by_age() { N_AGES } else { 1 };
            start += Self::ALL[i].n_cells() * n_ages;
            i += 1;
        }
        if self.is_by_age() {
            start += age as usize * self.n_cells();
        }
        start..start + self.n_cells()
    }
}

/// Cells of a user, apart from the hours.
pub(super) const N_USER_CELLS: usize = Histogram::Switch.of_user().end;
/// Where the population's hours begin, those of working days first.
pub(super) const HOURS: usize = Histogram::Switch.of_population(Age::Old).end;
/// Cells of the population.
pub(super) const N_POPULATION_CELLS: usize = HOURS + 48;

/// How long an account has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Less than 12 hours.
    New,
    /// Less than 5 days, or fewer than 50 events.
    Young,
    Old,
}

pub(super) const N_AGES: usize = 3;

impl Age {
    pub(super) const ALL: [Self; N_AGES] = [Self::New, Self::Young, Self::Old];

    pub(super) fn of(hours: f64, n_events: u32) -> Self {
        if hours < 12.0 {
            Self::New
        } else if hours < 120.0 || n_events < 50 {
            Self::Young
        } else {
            Self::Old
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other() {
        let mut end = 0;
        for histogram in Histogram::ALL {
            assert_eq!(histogram.of_user().start, end);
            end = histogram.of_user().end;
        }
        assert_eq!((end, N_USER_CELLS), (128, 128));
        let mut end = 0;
        for histogram in Histogram::ALL {
            for age in Age::ALL {
                let range = histogram.of_population(age);
                if age == Age::New || histogram.is_by_age() {
                    assert_eq!(range.start, end);
                    end = range.end;
                } else {
                    assert_eq!(range.end, end);
                }
            }
        }
        assert_eq!((end, HOURS), (214, 214));
    }
}
