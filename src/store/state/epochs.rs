//! Committed epochs of a state: their labels, how long they can be rolled back, and how that is done.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::{State, WRITE_BYTES, damaged, read_error};
use crate::schema::state as layout;

/// Bytes of lines that are between this program and the one that stores at the most: as far back
/// somebody may want to go.
const LINE_BYTES_KEPT: u64 = 32 << 20;
/// Epochs that can be rolled back whatever lines they had.
const EPOCHS_MIN: u64 = 2;
/// What a checkpoint itself takes in the stream: so epochs without lines come to an end, too.
const MARKER_BYTES: u64 = 64;
/// Nobody commits so often: a higher number is a damaged one, and below it there is room to count on.
const EPOCH_MAX: u64 = u64::MAX >> 1;

/// What a state was kept for: a checkpoint that is on its way into a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What tells the database from others.
    pub database: String,
    /// The checkpoint's number, from 1; 0 if there is none, as at the end of a run on its own.
    pub checkpoint: u64,
}

impl Label {
    fn is_none(&self) -> bool {
        self.checkpoint == 0
    }
}

/// What is told of a committed epoch.
#[derive(Serialize, Deserialize)]
struct Committed {
    #[serde(flatten)]
    label: Label,
    /// Bytes of lines up to its end.
    line_bytes_total: u64,
}

/// Where the state is.
#[derive(Default)]
pub(super) struct Epochs {
    /// The last committed epoch; 0 if there is none.
    pub(super) last: u64,
    /// The oldest epoch that can be rolled back.
    oldest: u64,
    /// The last epoch that has a label; 0 if there is none.
    labelled: u64,
    /// The label and the bytes of lines of the last one.
    label: Label,
    line_bytes_total: u64,
    /// The first epoch of each database.
    began: BTreeMap<String, u64>,
    pub(super) detector: Option<String>,
    /// The detector of what is put, if it was said.
    pub(super) claimed: Option<String>,
    /// Something was put in the current epoch.
    pub(super) is_changed: bool,
}

impl Epochs {
    /// Whether the numbers can be those of one history.
    fn are_sound(&self) -> bool {
        let mut began = self.began.values();
        self.last <= EPOCH_MAX
            && (1..=self.last + 1).contains(&self.oldest)
            && began.all(|began| (1..=self.last).contains(began))
    }
}

impl State {
    /// The label of the last commit. A commit under the same one goes with it if it is rolled back to.
    #[must_use]
    pub fn label(&self) -> Label {
        self.epochs().label.clone()
    }

    /// Ends the current epoch: what was put in it stays. It has had so many bytes of lines. Without
    /// label and without changes nothing happens.
    ///
    /// # Errors
    /// If it cannot be brought to the disk.
    pub fn commit(&self, label: &Label, n_line_bytes: u64) -> anyhow::Result<()> {
        let mut epochs = self.epochs();
        if label.is_none() && !epochs.is_changed {
            return Ok(());
        }
        let epoch = epochs.last + 1;
        let (meta, undo) = (self.family(layout::META), self.family(layout::UNDO));
        let mut writes = WriteBatch::default();
        let line_bytes_total = (epochs.line_bytes_total)
            .checked_add(n_line_bytes)
            .and_then(|total| total.checked_add(MARKER_BYTES));
        let committed = Committed {
            label: label.clone(),
            line_bytes_total: line_bytes_total.with_context(|| damaged(&self.path))?,
        };
        let record = serde_json::to_vec(&committed)?;
        writes.put_cf(meta, layout::epoch_key(epoch), record);
        if !label.is_none() && !epochs.began.contains_key(&label.database) {
            let key = layout::began_key(&label.database);
            writes.put_cf(meta, key, epoch.to_be_bytes());
        }
        if let Some(detector) = epochs.claimed.as_ref().or(epochs.detector.as_ref()) {
            writes.put_cf(meta, layout::META_DETECTOR, detector);
        }
        let labelled = if label.is_none() {
            epochs.labelled
        } else {
            epoch
        };
        let oldest = self.oldest_needed(&epochs, epoch, committed.line_bytes_total, labelled)?;
        if oldest > epochs.oldest {
            let (from, end) = (layout::undo_key(0, b""), layout::undo_key(oldest, b""));
            writes.delete_range_cf(undo, from, end);
            // What the oldest one can be rolled back to keeps its name.
            let (from, end) = (layout::epoch_key(0), layout::epoch_key(oldest - 1));
            writes.delete_range_cf(meta, from, end);
            writes.put_cf(meta, layout::META_OLDEST, oldest.to_be_bytes());
        }
        self.write(writes, true)?;

        if !label.is_none() {
            epochs.began.entry(label.database.clone()).or_insert(epoch);
        }
        if let Some(detector) = &epochs.claimed {
            epochs.detector = Some(detector.clone());
        }
        epochs.last = epoch;
        epochs.oldest = oldest;
        epochs.labelled = labelled;
        epochs.label = committed.label;
        epochs.line_bytes_total = committed.line_bytes_total;
        epochs.is_changed = false;
        Ok(())
    }

    /// The oldest epoch that somebody may want to roll back once `epoch` is committed.
    fn oldest_needed(
        &self,
        epochs: &Epochs,
        epoch: u64,
        line_bytes_total: u64,
        labelled: u64,
    ) -> anyhow::Result<u64> {
        let mut oldest = epochs.oldest;
        while oldest + EPOCHS_MIN <= epoch {
            let end = self.committed(oldest)?.line_bytes_total;
            let since = line_bytes_total.checked_sub(end);
            if since.with_context(|| damaged(&self.path))? < LINE_BYTES_KEPT {
                break;
            }
            oldest += 1;
        }
        // Nobody can name an epoch without a label.
        if labelled + 1 < oldest || labelled == 0 {
            oldest = epoch + 1;
        }
        Ok(oldest)
    }

    /// Goes back to the last commit with that label; how many commits were taken back. With checkpoint
    /// 0 all is taken back that was committed for the database. What was put since the last commit is
    /// gone in any case.
    ///
    /// # Errors
    /// If there is no such commit, or it is too long ago, or the disk cannot be written.
    pub fn roll_back(&self, to: &Label) -> anyhow::Result<u64> {
        let mut epochs = self.epochs();
        let target = self.find(&epochs, to)?;
        let n_epochs = epochs.last - target;
        if n_epochs == 0 && !epochs.is_changed {
            return Ok(0);
        }
        // From here on these epochs are like one that a killed run has left.
        let meta = self.family(layout::META);
        let mut writes = WriteBatch::default();
        let (from, end) = (layout::epoch_key(target + 1), layout::epoch_key(u64::MAX));
        writes.delete_range_cf(meta, from, end);
        for (database, began) in &epochs.began {
            if *began > target {
                writes.delete_cf(meta, layout::began_key(database));
            }
        }
        if target == 0 {
            writes.delete_cf(meta, layout::META_DETECTOR);
        }
        self.write(writes, true)?;
        let claimed = epochs.claimed.take();
        *epochs = self.read_epochs()?;
        epochs.claimed = claimed;
        self.take_back(&mut epochs)?;
        Ok(n_epochs)
    }

    /// The epoch at the end of which the state was what the label says.
    fn find(&self, epochs: &Epochs, label: &Label) -> anyhow::Result<u64> {
        let (shown, checkpoint) = (self.path.display(), label.checkpoint);
        let restore = "restore the folder that belongs to the database from a backup, or remove \
                       both and run the pipe from its start";
        if label.is_none() {
            return match epochs.began.get(&label.database) {
                None => Ok(epochs.last),
                Some(began) if *began >= epochs.oldest => Ok(began - 1),
                Some(_) => bail!(
                    "the state folder {shown} has gone on too far since the database's beginning \
                     to forget what it has learned: {restore}"
                ),
            };
        }
        let mut epoch = epochs.last;
        while epoch > 0 && epoch + 1 >= epochs.oldest {
            if self.committed(epoch)?.label == *label {
                return Ok(epoch);
            }
            epoch -= 1;
        }
        bail!(
            "the state folder {shown} does not know checkpoint {checkpoint} of the database, or it \
             has gone on too far since: {restore}"
        )
    }

    /// Takes back all that was put since the last commit, the last of it first. If it is interrupted,
    /// what is left to do is in the log.
    pub(super) fn take_back(&self, epochs: &mut Epochs) -> anyhow::Result<()> {
        let (baselines, undo) = (self.family(layout::BASELINES), self.family(layout::UNDO));
        let end = layout::undo_key(u64::MAX, b"");
        loop {
            let mut writes = WriteBatch::default();
            let mut from = None;
            let mut iterator = self.iterator(layout::UNDO);
            iterator.seek_to_last();
            while writes.size_in_bytes() < WRITE_BYTES
                && let Some((undo_key, before)) = iterator.item()
            {
                let (epoch, key) =
                    layout::split_undo_key(undo_key).with_context(|| damaged(&self.path))?;
                if epoch <= epochs.last {
                    break;
                }
                if before.is_empty() {
                    writes.delete_cf(baselines, key);
                } else {
                    writes.put_cf(baselines, key, before);
                }
                from = Some(undo_key.to_vec());
                iterator.prev();
            }
            let status = iterator.status();
            status.map_err(|error| read_error(&self.path, &error))?;
            drop(iterator);
            let Some(from) = from else {
                break;
            };
            writes.delete_range_cf(undo, from, end.clone());
            self.write(writes, true)?;
        }
        epochs.is_changed = false;
        Ok(())
    }

    pub(super) fn read_epochs(&self) -> anyhow::Result<Epochs> {
        let mut epochs = Epochs {
            oldest: 1,
            ..Epochs::default()
        };
        if let Some(oldest) = self.get(layout::META, layout::META_OLDEST.as_bytes())? {
            epochs.oldest = layout::read_number(&oldest).with_context(|| damaged(&self.path))?;
        }
        if let Some(name) = self.get(layout::META, layout::META_DETECTOR.as_bytes())? {
            epochs.detector = Some(String::from_utf8_lossy(&name).into_owned());
        }
        let mut iterator = self.iterator(layout::META);
        iterator.seek(layout::began_key(""));
        while let Some((key, value)) = iterator.item()
            && let Some(database) = layout::split_began_key(key)
        {
            let began = layout::read_number(value).with_context(|| damaged(&self.path))?;
            epochs.began.insert(database.to_owned(), began);
            iterator.next();
        }
        iterator.seek(layout::epoch_key(0));
        while let Some((key, value)) = iterator.item()
            && let Some(epoch) = layout::split_epoch_key(key)
        {
            let committed: Committed =
                serde_json::from_slice(value).with_context(|| damaged(&self.path))?;
            epochs.last = epoch;
            if !committed.label.is_none() {
                epochs.labelled = epoch;
            }
            epochs.label = committed.label;
            epochs.line_bytes_total = committed.line_bytes_total;
            iterator.next();
        }
        let status = iterator.status();
        status.map_err(|error| read_error(&self.path, &error))?;
        ensure!(epochs.are_sound(), damaged(&self.path));
        Ok(epochs)
    }

    fn committed(&self, epoch: u64) -> anyhow::Result<Committed> {
        let value = self.get(layout::META, &layout::epoch_key(epoch))?;
        let value = value.with_context(|| damaged(&self.path))?;
        serde_json::from_slice(&value).with_context(|| damaged(&self.path))
    }
}
