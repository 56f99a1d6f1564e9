//! What would be asked, without asking: the requests themselves, or how many there would be and what
//! they would cost. Of events that are alike there is one, and none if its answer is known.

use std::collections::HashSet;
use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::analyze::{Analyst, Gate};
use crate::batch::Batch;
use crate::engine::{Flow, Sink};
use crate::llm::wire::Usage;
use crate::llm::{MAX_TOKENS, Subject};
use crate::record::text::rounded;

/// Tokens of an answer as it usually is, with what a model thinks before.
const OUTPUT_TOKENS: u64 = 500;

/// Questions that would be asked.
pub(super) struct Questions<'a> {
    pub(super) analyst: &'a Analyst,
    gate: Gate,
    asked: HashSet<String>,
    pub(super) n_events: u64,
    pub(super) n_wanted: u64,
    pub(super) n_cached: u64,
}

impl<'a> Questions<'a> {
    pub(super) fn new(analyst: &'a Analyst, gate: Gate) -> Self {
        Self {
            analyst,
            gate,
            asked: HashSet::new(),
            n_events: 0,
            n_wanted: 0,
            n_cached: 0,
        }
    }

    /// Calls `ask` for each event of a batch that would be asked about, with its fingerprint.
    pub(super) fn each(
        &mut self,
        batch: &Batch,
        mut ask: impl FnMut(&str, &Subject) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut n_events = 0;
        for block in &batch.blocks {
            n_events += block.events.len() as u64;
            for (_, subject) in self.gate.subjects(block, self.analyst.redact()) {
                self.n_wanted += 1;
                let fingerprint = self.analyst.fingerprint(&subject);
                if self.analyst.knows(&fingerprint) {
                    self.n_cached += 1;
                } else if !self.asked.contains(&fingerprint) {
                    ask(&fingerprint, &subject)?;
                    self.asked.insert(fingerprint);
                }
            }
        }
        self.n_events += n_events;
        Ok(n_events)
    }
}

/// Prints requests.
pub(super) struct Prompts<'a>(Questions<'a>);

impl<'a> Prompts<'a> {
    pub(super) fn new(analyst: &'a Analyst, gate: Gate) -> Self {
        Self(Questions::new(analyst, gate))
    }
}

impl Sink for Prompts<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let mut lines = Vec::new();
        let analyst = self.0.analyst;
        let n_out = self.0.each(batch, |_, subject| {
            lines.extend_from_slice(&analyst.body(subject));
            lines.push(b'\n');
            Ok(())
        })?;
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&lines).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Flow::Closed),
            Err(error) => return Err(error).context("cannot write to standard output"),
        }
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Counts them.
pub(super) struct Estimate<'a> {
    questions: Questions<'a>,
    n_calls: u64,
    input_tokens: u64,
}

/// What is printed.
#[derive(Serialize)]
struct Estimated<'a> {
    events: u64,
    /// Anomalies and threats.
    to_analyze: u64,
    /// Of which the answer is known from an earlier run.
    cached: u64,
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    model: &'a str,
    usd: Option<f64>,
    /// If every answer were as long as it can be.
    usd_max: Option<f64>,
}

impl<'a> Estimate<'a> {
    pub(super) fn new(analyst: &'a Analyst, gate: Gate) -> Self {
        Self {
            questions: Questions::new(analyst, gate),
            n_calls: 0,
            input_tokens: 0,
        }
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let config = self.questions.analyst.config();
        let price = config.prices.of(&config.model);
        let usd = |output_tokens: u64| {
            let usage = Usage {
                input: self.input_tokens,
                output: self.n_calls * output_tokens,
                ..Usage::default()
            };
            Some(rounded(price?.micro_usd(usage) as f64 / 1e6))
        };
        let estimated = Estimated {
            events: self.questions.n_events,
            to_analyze: self.questions.n_wanted,
            cached: self.questions.n_cached,
            calls: self.n_calls,
            input_tokens: self.input_tokens,
            output_tokens: self.n_calls * OUTPUT_TOKENS,
            model: &config.model,
            usd: usd(OUTPUT_TOKENS),
            usd_max: usd(u64::from(MAX_TOKENS)),
        };
        let text = serde_json::to_string(&estimated)?;
        writeln!(io::stdout(), "{text}").context("cannot write to standard output")
    }
}

impl Sink for Estimate<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let (n_calls, input_tokens) = (&mut self.n_calls, &mut self.input_tokens);
        let n_out = self.questions.each(batch, |_, subject| {
            *n_calls += 1;
            *input_tokens += subject.input_tokens();
            Ok(())
        })?;
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
