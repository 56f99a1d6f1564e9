//! Baselines of a state folder, in and out as NDJSON.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use super::Ended;
use super::memory::MemoryArgs;
use crate::detect::classic::{self, Baseline, Summary};
use crate::detect::{DetectorConfig, DetectorKind, adaptive};
use crate::enrich::Enrichment;
use crate::io::state::StateFolder;
use crate::record::text::printable;
use crate::stage::{Emit, ScoreConfig, Scorer, Scoring, Tasks};

/// Files keep what all share as the store does.
pub(super) const SHARED: &str = crate::schema::SHARED_BASELINE;

/// Takes over a record: a user's, or what all share.
pub(super) fn load(scorer: &mut dyn Scorer, user: &str, record: &[u8]) -> anyhow::Result<()> {
    if user == SHARED {
        Ok(scorer.load_shared(record)?)
    } else {
        scorer.load(user, record)
    }
}

/// Replaces what is in the folder by what the scorer knows.
pub(super) fn save(
    folder: &StateFolder,
    detector: &str,
    scorer: &dyn Scorer,
) -> anyhow::Result<()> {
    let shared = scorer.shared();
    let n_records = scorer.n_users() + u64::from(!shared.is_empty());
    folder.save(detector, n_records, |each| {
        if !shared.is_empty() {
            each(SHARED, &shared)?;
        }
        scorer.save(each)
    })
}

/// One line of an export: a classic baseline in plain numbers, an adaptive one as its record, since
/// it holds hashes.
#[derive(Serialize, Deserialize)]
struct ExportLine {
    user: String,
    detector: String,
    version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_b64: Option<String>,
}

pub(super) fn export(state: &Path) -> anyhow::Result<Ended> {
    ensure!(
        state.is_dir(),
        "there is no state folder at {}",
        state.display()
    );
    let folder = StateFolder::open(state)?;
    let Some(detector) = folder.detector()? else {
        return Ok(Ended::Partly);
    };
    let kind = kind_of(&detector)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let mut n_lines: u64 = 0;
    folder.load(&detector, |user, record| {
        n_lines += 1;
        let mut line = ExportLine {
            user: user.to_owned(),
            detector: detector.clone(),
            version: version_of(kind),
            baseline: None,
            record_b64: None,
        };
        if kind == DetectorKind::Classic && user != SHARED {
            line.baseline = Some(Baseline::from_record(record)?.summary());
        } else {
            if user != SHARED {
                adaptive::User::from_record(record)?;
            }
            line.record_b64 = Some(BASE64_STANDARD.encode(record));
        }
        serde_json::to_writer(&mut output, &line).map_err(io::Error::from)?;
        Ok(output.write_all(b"\n")?)
    })?;
    output.flush()?;
    Ok(if n_lines == 0 {
        Ended::Partly
    } else {
        Ended::Done
    })
}

pub(super) fn import(state: &Path) -> anyhow::Result<Ended> {
    let folder = StateFolder::open(state)?;
    let mut known = folder.detector()?;
    let mut tasks = match &known {
        Some(detector) => Some(loaded(&folder, detector)?),
        None => None,
    };
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let number = i + 1;
        let line = line.context("cannot read standard input")?;
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
        let tasks = match &mut tasks {
            Some(tasks) => tasks,
            None => tasks.insert(loaded(&folder, detector)?),
        };
        let record = line.record().with_context(|| {
            format!("line {number} is not a baseline that can be used; nothing was changed")
        })?;
        load(tasks.only()?, &line.user, &record)
            .with_context(|| format!("line {number} is not usable; nothing was changed"))?;
    }
    if let (Some(detector), Some(mut tasks)) = (known, tasks) {
        save(&folder, &detector, tasks.only()?)?;
    }
    Ok(Ended::Done)
}

/// The scoring stage with what is in the folder.
fn loaded(folder: &StateFolder, detector: &str) -> anyhow::Result<Tasks> {
    let Scoring { mut tasks, .. } = Scoring::new(ScoreConfig {
        detector: DetectorConfig::standard(kind_of(detector)?),
        silences: Arc::default(),
        emit: Emit::All,
        incident_ms: 0,
        enrichment: Arc::default(),
        with_baselines: false,
        memory: MemoryArgs::default().with_scratch(folder.path(), &Enrichment::default())?,
    });
    let scorer = tasks.only()?;
    folder.load(detector, |user, record| load(scorer, user, record))?;
    Ok(tasks)
}

impl ExportLine {
    fn record(&self) -> anyhow::Result<Vec<u8>> {
        let known = version_of(kind_of(&self.detector)?);
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
