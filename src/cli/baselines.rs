//! Baselines of a state folder, in and out as NDJSON.

use std::io::{self, BufRead, BufWriter, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use super::Ended;
use crate::batch::{Learned, Records};
use crate::detect::classic::{self, Baseline, Summary};
use crate::detect::{Corrector, DetectorKind, adaptive};
use crate::record::FIELD_BYTES_MAX;
use crate::record::text::{json_for_terminal, printable};
use crate::stage::of_detector;
use crate::store::State;

/// Exports name what all share as the store does.
pub(super) const SHARED: &str = crate::schema::SHARED_BASELINE;

/// One line of an export: a classic baseline in plain numbers, an adaptive one as its record, since
/// it holds hashes.
#[derive(Serialize, Deserialize)]
struct ExportLine {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    task: String,
    user: String,
    detector: String,
    version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_b64: Option<String>,
}

pub(super) fn export(path: &Path) -> anyhow::Result<Ended> {
    let shown = path.display();
    ensure!(path.is_dir(), "there is no state folder at {shown}");
    let state = State::open(path)?;
    let Some(detector) = state.detector() else {
        return Ok(Ended::Partly);
    };
    let kind = kind_of(&detector)?;
    // Terminals get the same values, but nothing that they would obey.
    let is_terminal = io::stdout().is_terminal();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut n_lines: u64 = 0;
    // Two passes: nothing of a damaged state leaves it.
    state.baselines(&mut |_, user, record| {
        n_lines += 1;
        check(kind, user, record)
            .with_context(|| format!("the state folder {shown} cannot be used"))?;
        Ok(ControlFlow::Continue(()))
    })?;
    state.baselines(&mut |task, user, record| {
        let mut line = ExportLine {
            task: task.to_owned(),
            user: user.to_owned(),
            detector: detector.clone(),
            version: version_of(kind),
            baseline: None,
            record_b64: None,
        };
        if kind == DetectorKind::Classic && user != SHARED {
            line.baseline = Some(Baseline::from_record(record)?.summary());
        } else {
            line.record_b64 = Some(BASE64_STANDARD.encode(record));
        }
        let mut line = serde_json::to_string(&line).map_err(io::Error::from)?;
        if is_terminal {
            line = json_for_terminal(&line);
        }
        writeln!(output, "{line}")?;
        Ok(ControlFlow::Continue(()))
    })?;
    output.flush()?;
    Ok(if n_lines == 0 {
        Ended::Partly
    } else {
        Ended::Done
    })
}

pub(super) fn import(path: &Path) -> anyhow::Result<Ended> {
    let state = State::open(path)?;
    let mut known = state.detector();
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let number = i + 1;
        let line = line.context("cannot read standard input; nothing was changed")?;
        let line: ExportLine = serde_json::from_str(&line).with_context(|| {
            format!("line {number} is not an exported baseline; nothing was changed")
        })?;
        let detector = known.get_or_insert_with(|| line.detector.clone());
        ensure!(
            line.detector == *detector,
            "line {number} is of detector {}, not {}; nothing was changed",
            printable(&line.detector),
            printable(detector)
        );
        let learned = line.learned().with_context(|| {
            format!("line {number} is not a baseline that can be used; nothing was changed")
        })?;
        state.claim(detector)?;
        state.put(vec![learned])?;
    }
    // Under the last label: whoever goes back to it wants what was imported since, too.
    state.commit(&state.label(), 0)?;
    Ok(Ended::Done)
}

/// Whether a record is one that its detector can read: a user's, or what all share.
fn check(kind: DetectorKind, user: &str, record: &[u8]) -> anyhow::Result<()> {
    if user == SHARED {
        Corrector::new(kind, of_detector(record)?)?;
        return Ok(());
    }
    match kind {
        DetectorKind::Classic => drop(Baseline::from_record(record)?),
        DetectorKind::Adaptive => drop(adaptive::User::from_record(record)?),
    }
    Ok(())
}

impl ExportLine {
    fn learned(&self) -> anyhow::Result<Learned> {
        let kind = kind_of(&self.detector)?;
        let record = self.record(kind)?;
        check(kind, &self.user, &record)?;
        ensure!(
            self.task.len() <= FIELD_BYTES_MAX && self.user.len() <= FIELD_BYTES_MAX,
            "its name is longer than {FIELD_BYTES_MAX} bytes"
        );
        let mut learned = Learned {
            task: self.task.as_str().into(),
            baselines: Vec::new(),
            shared: Vec::new(),
        };
        if self.user == SHARED {
            learned.shared = record;
        } else {
            let mut records = Records::default();
            records.push(&self.user, |bytes| bytes.extend_from_slice(&record));
            learned.baselines.push(records);
        }
        Ok(learned)
    }

    fn record(&self, kind: DetectorKind) -> anyhow::Result<Vec<u8>> {
        let known = version_of(kind);
        ensure!(
            self.version == known,
            "it has version {}, this build reads {known}",
            self.version
        );
        match (&self.baseline, &self.record_b64) {
            (Some(summary), None) => {
                let mut record = Vec::new();
                Baseline::from_summary(summary.clone())?.write_record(&mut record);
                Ok(record)
            }
            (None, Some(record)) => Ok(BASE64_STANDARD.decode(record)?),
            _ => bail!("it holds no baseline"),
        }
    }
}

fn version_of(kind: DetectorKind) -> u8 {
    match kind {
        DetectorKind::Classic => classic::RECORD_VERSION,
        DetectorKind::Adaptive => adaptive::RECORD_VERSION,
    }
}

pub(super) fn kind_of(detector: &str) -> anyhow::Result<DetectorKind> {
    [DetectorKind::Adaptive, DetectorKind::Classic]
        .into_iter()
        .find(|kind| kind.name() == detector)
        .with_context(|| {
            let detector = printable(detector);
            format!("these are baselines of the {detector} detector, which this build has not")
        })
}
