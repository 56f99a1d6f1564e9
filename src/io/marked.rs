//! Lines of ours among the events in a pipe, by which a pipe goes on where it was: the programs keep
//! what they know with each checkpoint that comes by, and go back to the last one that has arrived.
//!
//! | line | means |
//! |---|---|
//! | `{"sg":{"db":ID,"resume":N}}` | the first one: what follows comes after checkpoint N of that database |
//! | `{"sg":{"db":ID,"from":TASK}}` | events from here on are those of a task (a partition) |
//! | `{"sg":{"db":ID,"checkpoint":N,"positions":{...}}}` | how far sources were read for all before it |
//!
//! Without the first one all lines are events or rejected. Whoever writes events does not know the ID,
//! so nobody else can make such lines. The idea is that of Chandy and Lamport (Distributed Snapshots,
//! 1985), as Flink uses it in its checkpoint barriers.

mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::append::json_line;
use super::position::{self, Position};
use crate::batch::Origin;

pub use read::{Resume, open};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sg: Said,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    db: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    positions: Option<BTreeMap<String, Position>>,
}

impl Said {
    fn line(self) -> Vec<u8> {
        json_line(&Line { sg: self })
    }

    fn read(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        Some(line.sg)
    }
}

/// How far sources were read for all lines before a checkpoint's.
///
/// # Errors
/// If it is not such a line.
pub fn positions(line: &[u8]) -> anyhow::Result<BTreeMap<String, Position>> {
    let line: Line = serde_json::from_slice(line)?;
    Ok(line.sg.positions.unwrap_or_default())
}

/// Marks the lines that a program writes who reads sources.
pub struct Marking {
    database: String,
    /// The last checkpoint.
    checkpoint: u64,
    /// Whose events come.
    task: Arc<str>,
}

impl Marking {
    /// For a pipe that goes on after a checkpoint of a database.
    #[must_use]
    pub fn new(database: &str, checkpoint: u64) -> Self {
        Self {
            database: database.to_owned(),
            checkpoint,
            task: Arc::default(),
        }
    }

    /// The first line.
    #[must_use]
    pub fn resume(&self) -> Vec<u8> {
        let resume = Some(self.checkpoint);
        Said {
            resume,
            ..self.say()
        }
        .line()
    }

    /// The line before events of a task, if others came before.
    pub(super) fn before(&mut self, task: &Arc<str>) -> Option<Vec<u8>> {
        if *task == self.task {
            return None;
        }
        self.task = Arc::clone(task);
        let from = Some(task.to_string());
        Some(Said { from, ..self.say() }.line())
    }

    /// The line of the next checkpoint; none if nothing was read since the last one.
    pub(super) fn checkpoint(&mut self, ends: &BTreeMap<Arc<str>, Origin>) -> Option<Vec<u8>> {
        let position =
            |(source, end): (&Arc<str>, &Origin)| Some((position::key(source), Position::of(end)?));
        if ends.is_empty() {
            return None;
        }
        self.checkpoint += 1;
        let said = Said {
            checkpoint: Some(self.checkpoint),
            positions: Some(ends.iter().filter_map(position).collect()),
            ..self.say()
        };
        Some(said.line())
    }

    fn say(&self) -> Said {
        Said {
            db: self.database.clone(),
            ..Said::default()
        }
    }
}
