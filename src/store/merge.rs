//! Several stores as one: those of programs that share the partitions of a topic. An event that two of
//! them hold counts once, since a partition moves with some of what was read of it.

use sha2::{Digest as _, Sha256};

use super::Store;
use super::admin::{Digest, hex, parse_event};
use super::counters::BySeverity;
use super::reader::{Entry, Order, Walk};
use super::writer::anomaly_of;
use crate::engine::TaskStore as _;
use crate::schema;

impl Digest {
    /// Sums up what several stores hold together, as if it were in one.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of_all(stores: &[Store]) -> anyhow::Result<Self> {
        let [first, _, ..] = stores else {
            return stores
                .first()
                .map_or_else(|| anyhow::bail!("no store"), Store::digest);
        };
        let mut parts = Vec::new();
        let mut total = Sha256::new();
        let (mut n_events, mut n_failures) = (0, 0);
        let mut anomalies = BySeverity::default();
        for family in schema::CONTENT_FAMILIES {
            let mut sum = Sha256::new();
            let mut merge = Merge::open(stores, family)?;
            while let Some((key, value)) = merge.next_entry()? {
                add(&mut sum, &key, &value);
                if family == schema::EVENTS {
                    n_events += 1;
                    let block = parse_event(value);
                    n_failures += u64::from(block.events.iter().any(|event| event.is_failure));
                } else if family == schema::ANOMALIES
                    && let Some(anomaly) = anomaly_of(&value)
                {
                    *anomalies.of_mut(anomaly.severity) += 1;
                }
            }
            let sum: [u8; 32] = sum.finalize().into();
            total.update(family);
            total.update(sum);
            parts.push((family, hex(&sum)));
        }
        let counts: (u64, u64, BySeverity) = (n_events, n_failures, anomalies);
        let sum: [u8; 32] = Sha256::digest(serde_json::to_vec(&counts)?).into();
        total.update(sum);
        parts.push((schema::META_COUNTERS, hex(&sum)));
        Ok(Self {
            parts,
            total: hex(&total.finalize().into()),
            baselines: baselines(stores, first)?,
        })
    }
}

/// Of each task, what the store has that has come furthest with it.
fn baselines(stores: &[Store], first: &Store) -> anyhow::Result<String> {
    let mut tasks = Vec::new();
    for store in stores {
        tasks.extend(store.tasks()?);
    }
    // In the order of their keys.
    tasks.sort_by_key(|task| schema::task_prefix(task));
    tasks.dedup();
    let mut sum = Sha256::new();
    for task in tasks {
        let (mut furthest, mut offset) = (first, None);
        for store in stores {
            let position = store.task(&task)?.position;
            let found = position.map(|position| position.offset);
            if found > offset {
                (furthest, offset) = (store, found);
            }
        }
        furthest.baselines(&task, |user, record| {
            add(&mut sum, &schema::baseline_key(&task, user), record);
            Ok(())
        })?;
    }
    Ok(hex(&sum.finalize().into()))
}

fn add(sum: &mut Sha256, key: &[u8], value: &[u8]) {
    for bytes in [key, value] {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
}

/// A walk through the same family of several stores, each key once.
struct Merge<'a> {
    walks: Vec<(Walk<'a>, Option<Entry>)>,
}

impl<'a> Merge<'a> {
    fn open(stores: &'a [Store], family: &str) -> anyhow::Result<Self> {
        let mut walks = Vec::new();
        for store in stores {
            let mut walk = store.walk(family, &[], Order::OldestFirst);
            let first = walk.next_entry()?;
            walks.push((walk, first));
        }
        Ok(Self { walks })
    }

    fn next_entry(&mut self) -> anyhow::Result<Option<Entry>> {
        let keys = self
            .walks
            .iter()
            .filter_map(|(_, next)| Some(&next.as_ref()?.0));
        let Some(least) = keys.min().cloned() else {
            return Ok(None);
        };
        let mut found = None;
        for (walk, next) in &mut self.walks {
            if next.as_ref().is_some_and(|(key, _)| *key == least) {
                let entry = std::mem::replace(next, walk.next_entry()?);
                found = found.or(entry);
            }
        }
        Ok(found)
    }
}
