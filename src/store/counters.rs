//! Exact counts of what the store holds, kept in the same writes as what they count.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

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
    /// Among them 0 for types whose events have all been pruned.
    #[serde(serialize_with = "sorted")]
    types: HashMap<String, u64, RandomState>,
    /// Events of types beyond the first 256.
    pub other_types: u64,
}

/// Writes types in their order: equal counters have to be equal bytes.
fn sorted<S: Serializer>(
    types: &HashMap<String, u64, RandomState>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    types
        .iter()
        .collect::<BTreeMap<_, _>>()
        .serialize(serializer)
}

/// A count for each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

    /// Counters at 0 that count one by one the same types as these, so that a recount can be
    /// compared with them.
    pub(super) fn for_recount(&self) -> Self {
        Self {
            types: self.types.keys().map(|kind| (kind.clone(), 0)).collect(),
            ..Self::default()
        }
    }

    /// Counts an event of a recount: types that were not counted one by one still are not.
    pub(super) fn recount_event(&mut self, kind: &str, is_failure: bool) {
        self.events += 1;
        self.failures += u64::from(is_failure);
        *self.types.get_mut(kind).unwrap_or(&mut self.other_types) += 1;
    }

    /// Takes an event out. Counters that were wrong before do not fall below 0; `verify` tells.
    pub(super) fn remove_event(&mut self, kind: &str, is_failure: bool) {
        // A type keeps its place at 0: were it to lose and regain it, events counted among the
        // others would be subtracted here.
        let of_kind = self.types.get_mut(kind).unwrap_or(&mut self.other_types);
        *of_kind = of_kind.saturating_sub(1);
        self.events = self.events.saturating_sub(1);
        self.failures = self.failures.saturating_sub(u64::from(is_failure));
    }

    /// Takes out an event that others have counted too, with its anomaly.
    pub fn remove_copy(&mut self, kind: &str, is_failure: bool, severity: Option<Severity>) {
        self.remove_event(kind, is_failure);
        if let Some(severity) = severity {
            let n_anomalies = self.anomalies.of_mut(severity);
            *n_anomalies = n_anomalies.saturating_sub(1);
        }
    }

    /// Adds what another store has counted. A type that one of them counts among the others stays
    /// among them.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.failures += other.failures;
        self.other_types += other.other_types;
        for (kind, n_events) in &other.types {
            *self.types.entry(kind.clone()).or_default() += n_events;
        }
        for severity in Severity::ALL {
            let mut anomalies = other.anomalies;
            *self.anomalies.of_mut(severity) += *anomalies.of_mut(severity);
        }
    }

    /// The types that there are events of, among those that are counted one by one.
    #[must_use]
    pub fn types_present(&self) -> BTreeMap<&str, u64> {
        self.types
            .iter()
            .filter(|(_, n_events)| **n_events > 0)
            .map(|(kind, n_events)| (kind.as_str(), *n_events))
            .collect()
    }
}
