//! Classic baselines as they are stored, exported and shown.

use serde::{Deserialize, Serialize};

use super::{Baseline, COUNT_MAX, N_RECENT};
use crate::detect::table::{Dimension, Seen, Table, VALUES_BYTES_MAX, VALUES_MAX};
use crate::detect::{RecordError, read_whole};
use crate::record::TIMESTAMP_MS_MAX;

/// Version of the records that [`Baseline::write_record`] writes.
pub const RECORD_VERSION: u8 = 1;

/// A baseline as it is stored, exported and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub n_events: u64,
    pub n_failed: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Events by hour of the day, UTC.
    pub hours: [u32; 24],
    /// Bits of the last 20 events, 1 for a failure, the lowest bit the newest.
    pub recent_failures: u32,
    pub threat_score_sum: f64,
    pub n_threat_scores: u64,
    pub ips: Vec<Seen>,
    pub locations: Vec<Seen>,
    pub types: Vec<Seen>,
}

impl Baseline {
    /// Appends the baseline as a compact record: a version byte, then postcard.
    pub fn write_record(&self, output: &mut Vec<u8>) {
        output.push(RECORD_VERSION);
        postcard::to_io(&self.summary(), output).expect("memory takes every write");
    }

    /// Reads what [`Self::write_record`] has written.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged("record is empty".to_owned());
        let (&version, record) = record.split_first().ok_or_else(damaged)?;
        if version != RECORD_VERSION {
            return Err(RecordError::Version {
                found: version,
                known: RECORD_VERSION,
            });
        }
        Self::from_summary(read_whole(record)?)
    }

    /// The baseline as plain values, the most frequent first.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let ranked = |dimension| {
            self.values
                .ranked(dimension, usize::MAX)
                .into_iter()
                .cloned()
                .collect()
        };
        Summary {
            n_events: self.n_events,
            n_failed: self.n_failed,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            hours: self.hours,
            recent_failures: self.recent_failures,
            threat_score_sum: self.threat_score_sum,
            n_threat_scores: self.n_threat_scores,
            ips: ranked(Dimension::Ip),
            locations: ranked(Dimension::Location),
            types: ranked(Dimension::Kind),
        }
    }

    /// Takes over plain values.
    ///
    /// # Errors
    /// If no history can have led to them: they would give scores outside of 0..=1.
    pub fn from_summary(summary: Summary) -> Result<Self, RecordError> {
        summary.check().map_err(RecordError::Damaged)?;
        let mut values = Table::default();
        for (dimension, seen) in [
            (Dimension::Ip, summary.ips),
            (Dimension::Location, summary.locations),
            (Dimension::Kind, summary.types),
        ] {
            for seen in seen {
                values.insert(dimension, seen);
            }
        }
        Ok(Self {
            n_events: summary.n_events,
            n_failed: summary.n_failed,
            hours: summary.hours,
            values,
            recent_failures: summary.recent_failures,
            threat_score_sum: summary.threat_score_sum,
            n_threat_scores: summary.n_threat_scores,
            first_ms: summary.first_ms,
            last_ms: summary.last_ms,
        })
    }
}

impl Summary {
    /// Whether the counts can come from a history; if not, which ones.
    fn check(&self) -> Result<(), String> {
        let total = self.n_events;
        let n_by_hour: u64 = self.hours.iter().copied().map(u64::from).sum();
        let n_scores = self.n_threat_scores;
        let is_possible = total <= COUNT_MAX
            && self.n_failed <= total
            && n_by_hour <= total
            && n_scores <= total
            && (0.0..=n_scores as f64).contains(&self.threat_score_sum)
            && u64::from(self.recent_failures.count_ones()) <= self.n_failed
            && self.recent_failures >> N_RECENT == 0;
        if !is_possible {
            return Err(format!("counts beyond those of {total} events"));
        }
        if !(0..=self.last_ms).contains(&self.first_ms) || self.last_ms > TIMESTAMP_MS_MAX {
            return Err("times that no events have".to_owned());
        }
        for (name, seen) in [
            ("ips", &self.ips),
            ("locations", &self.locations),
            ("types", &self.types),
        ] {
            let n_seen: u64 = seen.iter().map(|seen| u64::from(seen.n_events)).sum();
            let distinct: std::collections::HashSet<_> =
                seen.iter().map(|seen| &seen.value).collect();
            let n_bytes: usize = seen.iter().map(|seen| seen.value.len()).sum();
            let is_possible = n_seen <= total
                && distinct.len() == seen.len()
                && seen.len() <= VALUES_MAX
                && n_bytes <= VALUES_BYTES_MAX as usize;
            if !is_possible {
                return Err(format!("{name} beyond those of {total} events"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_they_end() {
        let mut record = Vec::new();
        Baseline::default().write_record(&mut record);
        assert!(Baseline::from_record(&record).is_ok());
        record.push(0);
        assert!(Baseline::from_record(&record).is_err());
    }

    /// Found by fuzzing: a state that was read, learned one event more and could not be read any more.
    #[test]
    fn counts_end_where_records_do() {
        let line = r#"{"event_id":"e","user":"u","timestamp":1,"type":"T","status":"failed","threat_score":1}"#;
        let mut block = crate::batch::Block::new();
        block.lines.extend_from_slice(line.as_bytes());
        block.lines.push(b'\n');
        block.parse(crate::record::LINE_BYTES_MAX);
        let summary = Summary {
            n_events: COUNT_MAX,
            n_failed: COUNT_MAX,
            n_threat_scores: COUNT_MAX,
            threat_score_sum: COUNT_MAX as f64,
            ..Baseline::default().summary()
        };
        let mut baseline = Baseline::from_summary(summary).expect("counts of a history");
        for _ in 0..3 {
            baseline.learn_event(&block.view(&block.events[0]));
        }
        let mut record = Vec::new();
        baseline.write_record(&mut record);
        let again = Baseline::from_record(&record).expect("what was written can be read");
        let counts = (again.n_events, again.n_failed, again.n_threat_scores);
        assert_eq!(counts, (COUNT_MAX, COUNT_MAX, COUNT_MAX));
    }

    #[test]
    fn times_are_those_that_events_may_have() {
        let check = |first_ms: i64, last_ms: i64, expected: bool| {
            let summary = Summary {
                first_ms,
                last_ms,
                ..Baseline::default().summary()
            };
            assert_eq!(Baseline::from_summary(summary).is_ok(), expected);
        };
        check(0, TIMESTAMP_MS_MAX, true);
        check(5, 5, true);
        check(6, 5, false);
        check(-1, 5, false);
        check(0, TIMESTAMP_MS_MAX + 1, false);
        check(i64::MIN, i64::MIN, false);
    }
}
