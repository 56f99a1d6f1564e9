//! Corrects baselines by what an analyst has found of an event, whatever the detector. It knows
//! records, and nothing of where they are kept.

use super::adaptive::{self, Adaptive};
use super::classic::{Baseline, Classic};
use super::{Detector, DetectorConfig, DetectorKind, RecordError};
use crate::record::EventView;
use crate::record::feedback::Judgement;

/// A verdict on an event that a baseline has learned.
#[derive(Clone, Copy)]
pub struct Correction<'a> {
    pub event: EventView<'a>,
    pub judgement: Judgement,
    /// The other verdict that the baseline was corrected by before, if it was.
    pub before: Option<Judgement>,
    /// The risk that the detector has seen in the event, if it was an anomaly.
    pub risk: Option<f64>,
}

/// What it takes to correct the baselines of a detector.
pub enum Corrector {
    Adaptive(Box<Adaptive>),
    Classic,
}

impl Corrector {
    /// `shared` is the record of what all users share, empty if there is none.
    ///
    /// # Errors
    /// If that record is of another version or damaged.
    pub fn new(kind: DetectorKind, shared: &[u8]) -> Result<Self, RecordError> {
        match kind {
            DetectorKind::Classic => {
                if !shared.is_empty() {
                    Classic::new(DetectorConfig::standard(kind)).read_shared(shared)?;
                }
                Ok(Self::Classic)
            }
            DetectorKind::Adaptive => {
                let mut adaptive = Adaptive::new(DetectorConfig::standard(kind));
                if !shared.is_empty() {
                    adaptive.read_shared(shared)?;
                }
                Ok(Self::Adaptive(Box::new(adaptive)))
            }
        }
    }

    /// The record of the event's user after the correction.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    pub fn correct(
        &self,
        record: &[u8],
        correction: &Correction<'_>,
    ) -> Result<Vec<u8>, RecordError> {
        let mut corrected = Vec::new();
        match self {
            Self::Adaptive(detector) => {
                let mut user = adaptive::User::from_record(record)?;
                let Correction {
                    event,
                    judgement,
                    before,
                    risk,
                } = correction;
                let features = Adaptive::features(event);
                detector.correct(&mut user, &features, *judgement, *before, *risk);
                user.write_record(&mut corrected);
            }
            Self::Classic => {
                let mut baseline = Baseline::from_record(record)?;
                baseline.correct(&correction.event, correction.judgement, correction.before);
                baseline.write_record(&mut corrected);
            }
        }
        Ok(corrected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was imported, and the run that found it there did not begin.
    #[test]
    fn what_all_share_is_read_as_a_run_reads_it() {
        for kind in [DetectorKind::Adaptive, DetectorKind::Classic] {
            assert!(Corrector::new(kind, b"").is_ok());
            assert!(Corrector::new(kind, b"x").is_err(), "{kind:?}");
        }
    }
}
