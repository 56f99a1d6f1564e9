//! Stretches of time in which scores are high enough: a walk through anomalies passes over the others, of
//! which there may be very many.

use std::collections::VecDeque;

use crate::record::anomaly::Severity;
use crate::schema;
use crate::store::{Order, StretchWalk, View, Walk};

const N_SEVERITIES: usize = Severity::ALL.len();

/// The stretches of one database, for a walk through each severity. They are read as far as the first of
/// these walks has come, and forgotten behind the last one.
pub(super) struct High<'a> {
    view: &'a View<'a>,
    stretches: StretchWalk<'a>,
    order: Order,
    min_score: f64,
    /// Those that are high for some severity.
    ahead: VecDeque<(i64, [bool; N_SEVERITIES])>,
    n_forgotten: usize,
    /// How far each walk has come in all that were high.
    places: [usize; N_SEVERITIES],
}

impl<'a> High<'a> {
    /// None if the database cannot tell: an earlier release has written it.
    pub(super) fn open(
        view: &'a View<'_>,
        severities: &[Severity],
        (start_ms, order): (i64, Order),
        min_score: f64,
    ) -> anyhow::Result<Option<Self>> {
        if !view.has_stretches()? {
            return Ok(None);
        }
        let place = |severity| {
            if severities.contains(&severity) {
                0
            } else {
                usize::MAX
            }
        };
        Ok(Some(Self {
            view,
            stretches: view.walk_stretches(start_ms, order),
            order,
            min_score,
            ahead: VecDeque::new(),
            n_forgotten: 0,
            places: Severity::ALL.map(place),
        }))
    }

    /// The first stretch from `number` on in which there may be a score that is high enough, if there is
    /// one. A walk asks for stretches in its order.
    pub(super) fn next(&mut self, severity: Severity, number: i64) -> anyhow::Result<Option<i64>> {
        let found = self.find(severity, number)?;
        if found.is_none() {
            self.leave(severity);
        }
        Ok(found)
    }

    fn find(&mut self, severity: Severity, number: i64) -> anyhow::Result<Option<i64>> {
        loop {
            let place = &mut self.places[severity as usize];
            while let Some((high, is_high)) = self.ahead.get(*place - self.n_forgotten) {
                let is_behind = match self.order {
                    Order::OldestFirst => *high < number,
                    Order::NewestFirst => *high > number,
                };
                if !is_behind && is_high[severity as usize] {
                    return Ok(Some(*high));
                }
                *place += 1;
            }
            self.forget();
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// The walk through a severity has ended, or there is none.
    pub(super) fn leave(&mut self, severity: Severity) {
        self.places[severity as usize] = usize::MAX;
    }

    fn read_on(&mut self) -> anyhow::Result<bool> {
        while let Some((number, stretch)) = self.stretches.next_stretch()? {
            let is_high = |severity| stretch.highest(severity) >= self.min_score;
            let is_high = Severity::ALL.map(is_high);
            if is_high.contains(&true) {
                self.ahead.push_back((number, is_high));
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn forget(&mut self) {
        let least = self.places.iter().copied().min().unwrap_or(0);
        while self.n_forgotten < least && self.ahead.pop_front().is_some() {
            self.n_forgotten += 1;
        }
    }

    /// A walk through a severity that begins with a stretch.
    pub(super) fn walk_from(&self, severity: Severity, number: i64) -> Walk<'a> {
        let (from_ms, end_ms) = schema::stretch_ms(number);
        let start_ms = match self.order {
            Order::OldestFirst => from_ms,
            Order::NewestFirst => end_ms - 1,
        };
        (self.view).walk_severity(severity, start_ms, self.order)
    }
}
