//! Exact counts of what the store holds, kept in the same writes as what they count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::anomaly::Severity;

/// Event types that are counted one by one; the rest is counted together. Types are made up by
/// whoever writes the events.
const TYPES_MAX: usize = 256;

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub events: u64,
    pub failures: u64,
    pub anomalies: BySeverity,
    pub types: BTreeMap<String, u64>,
    /// Events of types beyond the first 256.
    pub other_types: u64,
}

/// A count for each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BySeverity {
    pub low: u64,
    pub medium: u64,
    pub high: u64,
    pub critical: u64,
}

impl BySeverity {
    pub fn of_mut(&mut self, severity: Severity) -> &mut u64 {
        match severity {
            Severity::Low => &mut self.low,
            Severity::Medium => &mut self.medium,
            Severity::High => &mut self.high,
            Severity::Critical => &mut self.critical,
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.low + self.medium + self.high + self.critical
    }
}

impl Counters {
    pub(super) fn add_event(&mut self, kind: &str, is_failure: bool) {
        self.events += 1;
        self.failures += u64::from(is_failure);
        if let Some(count) = self.types.get_mut(kind) {
            *count += 1;
        } else if self.types.len() < TYPES_MAX {
            self.types.insert(kind.to_owned(), 1);
        } else {
            self.other_types += 1;
        }
    }

    pub(super) fn remove_event(&mut self, kind: &str, is_failure: bool) {
        self.events -= 1;
        self.failures -= u64::from(is_failure);
        match self.types.get_mut(kind) {
            // A type keeps its place at 0: were it to lose and regain it, events counted
            // among the others would be subtracted here.
            Some(count) => *count -= 1,
            None => self.other_types -= 1,
        }
    }
}
