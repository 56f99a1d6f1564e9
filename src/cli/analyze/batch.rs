//! Batches: what is submitted in one run is collected in another.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::question::Questions;
use super::{Ended, NAME, Run, tell};
use crate::analyze::batches::{BatchFile, Collected, Gathered};
use crate::analyze::{Analysis, Analyst, Gate};
use crate::batch::Batch;
use crate::cli::conclude;
use crate::engine::{self, Flow, Sink};
use crate::io::marked;
use crate::llm::{Provider, Subject};
use crate::record::StageField;
use crate::report::{say, warn};
use crate::stage::Stage;

impl Run<'_> {
    fn batches(&self) -> anyhow::Result<BatchFile> {
        let config = self.analyst.config();
        ensure!(
            config.place.provider == Provider::Anthropic,
            "--batch is a service of --provider anthropic"
        );
        ensure!(
            config.escalate_model.is_none(),
            "--batch asks one model: leave out --escalate-model"
        );
        let path = self.args.batch_state.as_deref().map(Path::to_owned);
        BatchFile::open(&path.context("--batch needs --batch-state FILE")?)
    }

    /// Reads events, and submits the questions about them.
    pub(super) fn submit(&self) -> anyhow::Result<Ended> {
        let mut sink = Submission {
            questions: Questions::new(&self.analyst, self.gate),
            file: self.batches()?,
            gathered: Gathered::default(),
            n_submitted: 0,
            n_known: 0,
            n_over_budget: 0,
        };
        let mut dead_letters = self.lines.dead_letters()?;
        let source = self.lines.stdin(&self.shutdown)?;
        let (source, resume) = marked::open(source, &self.shutdown);
        ensure!(
            resume.is_none(),
            "--batch submit does not go with sg-consume --resume-from"
        );
        let options = self.options();
        let outcome = engine::run(
            source,
            &mut [],
            &mut sink,
            &mut dead_letters,
            &self.shutdown,
            &options,
        )?;
        if !options.quiet {
            let mut text = format!("submitted {}", sink.n_submitted);
            if sink.n_known > 0 {
                write!(text, "; submitted before {}", sink.n_known)?;
            }
            if sink.questions.n_cached > 0 {
                write!(text, "; answered before {}", sink.questions.n_cached)?;
            }
            if sink.n_over_budget > 0 {
                write!(text, "; over budget {}", sink.n_over_budget)?;
            }
            say(NAME, &text);
        }
        Ok(match conclude(&options, &outcome)? {
            Ended::Done if sink.n_over_budget > 0 => Ended::Partly,
            ended => ended,
        })
    }

    /// Tells how far all batches are.
    pub(super) fn status(&self) -> anyhow::Result<Ended> {
        let file = self.batches()?;
        let mut ended = Ended::Done;
        for batch in &file.batches {
            let status = self.analyst.batch_status(&batch.id)?;
            if !status.has_ended() {
                ended = Ended::Partly;
            }
            let line = serde_json::to_string(&status)?;
            writeln!(io::stdout(), "{line}").context("cannot write to standard output")?;
        }
        Ok(ended)
    }

    /// Reads the same events, and attaches the answers.
    pub(super) fn collect(&self) -> anyhow::Result<Ended> {
        let mut file = self.batches()?;
        let collected = self.analyst.collect_batches(&mut file)?;
        let is_whole = collected.n_unended + collected.n_expired + collected.n_canceled == 0;
        for (n, what) in [
            (collected.n_unended, "batches have not ended yet"),
            (
                collected.n_expired,
                "questions have expired: they can be submitted again",
            ),
            (
                collected.n_canceled,
                "questions were canceled: they can be submitted again",
            ),
        ] {
            if n > 0 {
                warn(NAME, &format!("{n} {what}"));
            }
        }
        let mut stage = Collect {
            analyst: &self.analyst,
            gate: self.gate,
            collected,
        };
        let ended = self.pass(&mut [&mut stage])?;
        if !self.lines.quiet {
            tell(NAME, &self.analyst.tally());
        }
        Ok(match ended {
            Ended::Done if !is_whole => Ended::Partly,
            ended => ended,
        })
    }
}

/// Submits questions in batches.
struct Submission<'a> {
    questions: Questions<'a>,
    file: BatchFile,
    gathered: Gathered,
    n_submitted: u64,
    n_known: u64,
    n_over_budget: u64,
}

impl Submission<'_> {
    fn send(&mut self) -> anyhow::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        let batch = self
            .questions
            .analyst
            .submit_batch(gathered, &mut self.file)?;
        let n_requests = batch.fingerprints.len();
        self.n_submitted += n_requests as u64;
        let line = serde_json::json!({"batch": batch.id, "requests": n_requests});
        writeln!(io::stdout(), "{line}").context("cannot write to standard output")
    }
}

impl Sink for Submission<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let analyst = self.questions.analyst;
        let mut n_out = 0;
        for block in std::mem::take(&mut batch.blocks) {
            let one = Batch {
                blocks: vec![block],
                ..Batch::default()
            };
            let Self {
                file,
                gathered,
                n_known,
                n_over_budget,
                ..
            } = self;
            let mut full = Vec::new();
            n_out += self.questions.each(&one, |fingerprint, subject| {
                if file.submitted.contains(fingerprint) {
                    *n_known += 1;
                } else if !analyst.gather(fingerprint, subject, gathered) {
                    *n_over_budget += 1;
                } else if gathered.is_full() {
                    full.push(std::mem::take(gathered));
                }
                Ok(())
            })?;
            batch.blocks.extend(one.blocks);
            for gathered in full {
                let rest = std::mem::replace(&mut self.gathered, gathered);
                self.send()?;
                self.gathered = rest;
            }
        }
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.send()
    }
}

/// Attaches answers.
struct Collect<'a> {
    analyst: &'a Analyst,
    gate: Gate,
    collected: Collected,
}

impl Stage for Collect<'_> {
    fn name(&self) -> &'static str {
        "analyze"
    }

    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        let (gate, redact) = (self.gate, self.analyst.redact());
        let found: Vec<Vec<(usize, Subject)>> = pool.install(|| {
            let blocks = batch.blocks.par_iter();
            blocks.map(|block| gate.subjects(block, redact)).collect()
        });
        for (block, subjects) in batch.blocks.iter_mut().zip(found) {
            gate.drop_analyses(block);
            for (i, subject) in subjects {
                let Analysis {
                    record, anomaly, ..
                } = self.analyst.conclude(&subject, &self.collected);
                block.set_stage_value(i, StageField::Analysis, &record);
                if let Some(anomaly) = anomaly {
                    block.set_stage_value(i, StageField::Anomaly, &anomaly);
                }
            }
        }
        Ok(())
    }
}
