//! The members by which formats are told.

use anyhow::ensure;

use super::document::Document;
use super::slots::SIGNS_MAX;

/// Numbers of the members by which any of the formats is told.
pub(super) struct SignNames {
    pub(super) names: Vec<String>,
}

/// Members that all events of ours have under these names.
pub(super) const NATIVE_MEMBERS: [&str; 3] = ["event_id", "user", "timestamp"];

impl SignNames {
    /// Those of our own events.
    pub(super) fn new() -> Self {
        Self {
            names: NATIVE_MEMBERS.map(str::to_owned).into(),
        }
    }

    /// Those of documents, and of our own events.
    ///
    /// # Errors
    /// If there are too many of them.
    pub(super) fn of(documents: &[Document]) -> anyhow::Result<Self> {
        let mut all = Self::new();
        let signs = || documents.iter().flat_map(|document| &document.detect);
        // First those whose letters count: a record's are compared with those that are listed.
        let exact = signs().filter(|sign| sign.exact).flat_map(|sign| &sign.has);
        let named =
            signs().flat_map(|sign| sign.has.iter().chain(sign.is.keys()).chain(&sign.lacks));
        for name in exact.chain(named) {
            if all.number(name).is_none() {
                ensure!(
                    all.names.len() < SIGNS_MAX,
                    "too many members to tell formats by"
                );
                all.names.push(name.clone());
            }
        }
        Ok(all)
    }

    pub(super) fn number(&self, name: &str) -> Option<u16> {
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        self.names.iter().position(same).map(|number| number as u16)
    }
}
