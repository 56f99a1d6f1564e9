//! What stores hold, summed up; several as one: those of programs that share the partitions of a topic. An event that two of
//! them hold counts once, since a partition moves with some of what was read of it.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::View;
use super::admin::parse_event;
use super::counters::BySeverity;
use super::merge::Merge;
use super::writer::anomaly_of;
use crate::record::text::hex;
use crate::schema;

/// SHA-256 of what stores hold.
#[derive(Debug)]
pub struct Digest {
    /// By family, and the counters.
    pub parts: Vec<(&'static str, String)>,
    /// Of all that the input determines, whichever programs it went through.
    pub total: String,
    /// Of the baselines that `sg-run` keeps; a pipe keeps them in `sg-score`'s state folder.
    pub baselines: String,
}

impl Digest {
    /// Sums up what stores hold together, as if it were in one. Equal contents give equal digests,
    /// however they came in and wherever they are.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(stores: &[View<'_>]) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut total = Sha256::new();
        let mut counts = Counts::default();
        for family in schema::CONTENT_FAMILIES {
            let mut sum = Sha256::new();
            let mut merge = Merge::open(stores, family, &[])?;
            while let Some((key, value)) = merge.next_entry()? {
                add(&mut sum, &key, &value);
                if stores.len() > 1 {
                    counts.count(family, value);
                }
            }
            let sum: [u8; 32] = sum.finalize().into();
            total.update(family);
            total.update(sum);
            parts.push((family, hex(&sum)));
        }
        if let [store] = stores {
            let counters = store.counters()?;
            counts = Counts(counters.events, counters.failures, counters.anomalies);
        }
        let sum: [u8; 32] = Sha256::digest(serde_json::to_vec(&counts)?).into();
        total.update(sum);
        parts.push((schema::META_COUNTERS, hex(&sum)));
        Ok(Self {
            parts,
            total: hex(&total.finalize()),
            baselines: baselines(stores)?,
        })
    }
}

/// Events, failures, anomalies. Which types are counted one by one depends on the order in which they
/// came.
#[derive(Default, Serialize)]
struct Counts(u64, u64, BySeverity);

impl Counts {
    /// Counts an entry of a family again, since several stores may have counted it.
    fn count(&mut self, family: &str, value: Vec<u8>) {
        if family == schema::EVENTS {
            self.0 += 1;
            let block = parse_event(value);
            self.1 += u64::from(block.events.iter().any(|event| event.is_failure));
        } else if family == schema::ANOMALIES
            && let Some(anomaly) = anomaly_of(&value)
        {
            *self.2.of_mut(anomaly.severity) += 1;
        }
    }
}

/// Of each task, what the store has that has come furthest with it.
fn baselines(stores: &[View<'_>]) -> anyhow::Result<String> {
    let mut tasks = Vec::new();
    for store in stores {
        tasks.extend(store.tasks()?);
    }
    // In the order of their keys.
    tasks.sort_by_key(|task| schema::task_prefix(task));
    tasks.dedup();
    let mut sum = Sha256::new();
    for task in tasks {
        let mut furthest: Option<(Option<u64>, &View<'_>)> = None;
        for store in stores {
            let position = store.task_position(&task)?;
            let offset = position.map(|position| position.offset);
            if furthest.is_none_or(|(found, _)| offset > found) {
                furthest = Some((offset, store));
            }
        }
        if let Some((_, store)) = furthest {
            store.baselines(&task, |user, record| {
                add(&mut sum, &schema::baseline_key(&task, user), record);
                Ok(())
            })?;
        }
    }
    Ok(hex(&sum.finalize()))
}

fn add(sum: &mut Sha256, key: &[u8], value: &[u8]) {
    for bytes in [key, value] {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
}
