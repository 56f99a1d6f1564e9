//! What stages say of events: written with the event, when it comes again, or when its analysis comes late.

use std::borrow::Cow;

use rocksdb::WriteBatch;

use super::{Families, Writer, anomaly_of, anomaly_of_event};
use crate::batch::Block;
use crate::record::analysis::AnalysisRecord;
use crate::record::anomaly::{Severity, with_severity};
use crate::record::{Event, StageField};
use crate::schema;
use crate::store::Analysed;

impl Writer {
    /// Writes what stages have added; the severity of the anomaly, if it is one, which is `floor` at the
    /// least: an analysis only ever raises it, and goes on doing so.
    pub(super) fn put_stage_values(
        &mut self,
        block: &Block,
        event: &Event,
        (key, floor): (&[u8], Option<Severity>),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> Option<Severity> {
        if event.stage_fields == 0 {
            return None;
        }
        let analysis = analysis_of_event(block, event);
        let is_analysed = analysis.is_some_and(|(_, is_final)| is_final);
        let context = block.stage_value(event, StageField::Context);
        for (value, family) in [
            (context.filter(|_| !is_analysed), families.pending),
            (analysis.map(|(value, _)| value), families.ai_analysis),
            (
                block.stage_value(event, StageField::Embedding),
                families.embeddings,
            ),
        ] {
            if let Some(value) = value {
                writes.put_cf(family, key, value);
            }
        }
        let value = block.stage_value(event, StageField::Anomaly)?;
        let mut anomaly = anomaly_of_event(block, event)?;
        let mut value = Cow::Borrowed(value);
        if let Some(raised) = floor.filter(|floor| *floor > anomaly.severity)
            && let Some(json) = std::str::from_utf8(&value).ok()
            && let Some(json) = with_severity(json, raised)
        {
            value = Cow::Owned(json);
            anomaly.severity = raised;
        }
        writes.put_cf(families.anomalies, key, &value);
        let index_key = &mut self.scratch;
        index_key.clear();
        let event_id = block.text(event.event_id);
        schema::push_severity_key(index_key, anomaly.severity, event.timestamp_ms, event_id);
        writes.put_cf(
            families.by_severity,
            &index_key,
            anomaly.anomaly_score.to_be_bytes(),
        );
        Some(anomaly.severity)
    }

    /// Brings an event that the store holds up to date: the event itself stays as it came
    /// first, what stages say of it is replaced by what they say now.
    pub(super) fn update(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        self.settle()?;
        self.update_embedding(block, event, key, families, writes)?;
        let Some(value) = block.stage_value(event, StageField::Anomaly) else {
            return Ok(());
        };
        let Some(anomaly) = anomaly_of_event(block, event) else {
            return Ok(());
        };
        let gathered = self.gathered.find(key, hash);
        let old = match (self.anomalies.get(key), gathered) {
            (Some(old), _) => Some(old.clone()),
            (None, Some(_)) => None,
            (None, None) => self.store.get(schema::ANOMALIES, key)?,
        };
        if old.as_deref() == Some(value) {
            return Ok(());
        }
        let (event_id, user) = (block.text(event.event_id), block.text(event.user));
        if let Some(old) = old.and_then(|old| anomaly_of(&old)) {
            let n_anomalies = self.counters.anomalies.of_mut(old.severity);
            *n_anomalies = n_anomalies.saturating_sub(1);
            let index_key = &mut self.scratch;
            index_key.clear();
            schema::push_severity_key(index_key, old.severity, event.timestamp_ms, event_id);
            writes.delete_cf(families.by_severity, &index_key);
        }
        let analysed = self.store.get(schema::AI_ANALYSIS, key)?;
        let analysed =
            analysed.and_then(|json| serde_json::from_slice::<AnalysisRecord>(&json).ok());
        let floor = analysed.and_then(|record| record.severity);
        let severity = self.put_stage_values(block, event, (key, floor), families, writes);
        if let Some(severity) = severity {
            *self.counters.anomalies.of_mut(severity) += 1;
            let raised = (severity, anomaly.anomaly_score);
            (self.stretches).raise(&self.store, event.timestamp_ms, raised)?;
        }
        let byte = schema::severity_byte(severity);
        if let Some(i) = gathered {
            self.gathered.set_severity(i, byte);
        } else {
            let index_key = &mut self.scratch;
            index_key.clear();
            schema::push_user_key(index_key, user, event.timestamp_ms, event_id);
            writes.put_cf(families.by_user, &index_key, [byte]);
        }
        self.anomalies.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// The same for its embedding.
    fn update_embedding(
        &mut self,
        block: &Block,
        event: &Event,
        key: &[u8],
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let Some(value) = block.stage_value(event, StageField::Embedding) else {
            return Ok(());
        };
        let old = match self.embeddings.get(key) {
            Some(old) => Some(old.clone()),
            None => self.store.get(schema::EMBEDDINGS, key)?,
        };
        self.sums
            .change(&self.store, key, old.as_deref(), Some(value))?;
        writes.put_cf(families.embeddings, key, value);
        self.embeddings.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// Writes the analysis of an event that is stored already and has waited for it.
    pub(super) fn put_late_analysis(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        record: &[u8],
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        if self.gathered.find(key, hash).is_some() {
            // It came just now, without.
            self.commit(families, writes)?;
        }
        self.settle()?;
        if self.analysed.contains(key) || self.store.get(schema::PENDING, key)?.is_none() {
            return Ok(());
        }
        let analysed = Analysed {
            key,
            record: Some(record),
            anomaly: block.stage_value(event, StageField::Anomaly),
        };
        if let Some((from, to)) = self.store.put_analysis(&analysed, writes)? {
            let n_anomalies = self.counters.anomalies.of_mut(from);
            *n_anomalies = n_anomalies.saturating_sub(1);
            *self.counters.anomalies.of_mut(to) += 1;
        }
        self.analysed.insert(key.to_vec());
        Ok(())
    }
}

/// The analysis that an event carries, and whether it is final. An attempt that has come to nothing is
/// none: the event goes on waiting. What is no record of ours is kept, and ends no waiting.
pub(super) fn analysis_of_event<'a>(block: &'a Block, event: &Event) -> Option<(&'a [u8], bool)> {
    let value = block.stage_value(event, StageField::Analysis)?;
    match serde_json::from_slice::<AnalysisRecord>(value) {
        Ok(record) => record.outcome.is_final().then_some((value, true)),
        Err(_) => Some((value, false)),
    }
}
