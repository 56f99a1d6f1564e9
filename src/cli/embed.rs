//! `sg-embed`: vectors that are close where events are alike.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, ValueEnum};

use super::metrics::MetricsArgs;
use super::{Ended, LineArgs, PIPE_BATCH_BYTES, conclude, secret};
use crate::embed::{DIM_MAX, LOCAL_MODEL, MODEL_BYTES_MAX};
use crate::engine::{self, Options};
use crate::io::embeddings::{Endpoint, EndpointConfig};
use crate::io::http::{Key, Url};
use crate::io::marked;
use crate::io::ndjson::NdjsonSink;
use crate::metrics::Plan;
use crate::report::warn;
use crate::shutdown::Shutdown;
use crate::stage::{Embed, Embedded, Embedder};

pub const NAME: &str = "sg-embed";

/// Give events embeddings, by which sg-query similar finds others like them
///
/// Reads lines from standard input, as sg-score writes them, and appends `embedding` to the events that
/// have an `anomaly`, or to all of them (--all). All other bytes of a line stay as they are; an
/// `embedding` that an event has brought along is replaced or taken away.
///
/// By default vectors are computed here, from what was found of an event, what was done, by whom and
/// from where: the same event gives the same vector, and nothing leaves the machine. With --provider
/// openai a server that speaks as OpenAI's does makes them of a sentence about the event.
#[expect(clippy::doc_markdown, reason = "it is the text of --help")]
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct EmbedArgs {
    /// Embed every event, not only those that have an anomaly
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Who makes the vectors.
#[expect(clippy::doc_markdown, reason = "it is the text of --help")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Provider {
    /// This program, of nothing but the event
    Local,
    /// A server that speaks as OpenAI's does
    Openai,
}

/// A server that is asked for vectors.
#[expect(clippy::doc_markdown, reason = "it is the text of --help")]
#[derive(Args, Debug)]
#[command(next_help_heading = "Embedder")]
pub(super) struct EndpointArgs {
    /// Who makes the vectors
    #[arg(long, value_enum, default_value_t = Provider::Local)]
    pub(super) provider: Provider,

    /// The server, up to what stands before `/embeddings`
    #[arg(long, value_name = "URL", default_value = "https://api.openai.com/v1")]
    base_url: String,

    /// The model, such as text-embedding-3-small: vectors of different models are never compared
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,

    /// A file with the server's key [default: the variable OPENAI_API_KEY, or none]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Ask for vectors of so many numbers, and take no others [default: what the model gives]
    #[arg(long, value_name = "N", value_parser = parse_dim)]
    dimensions: Option<usize>,

    /// Events in one request at the most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=128))]
    batch: u16,

    /// Seconds to wait for an answer
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=600))]
    timeout: u16,

    /// How often a request is tried again that comes to nothing, with a longer wait each time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(..=10))]
    retries: u8,
}

/// Holds the key, if no file is named.
const API_KEY_VARIABLE: &str = "OPENAI_API_KEY";

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score | sg-embed | sg-store --db db && sg-query similar evt_41 --db db
  sg-consume events.ndjson | sg-score | sg-embed --all | sg-store --db db
  sg-query export --db db > all && sg-embed < all | sg-store --db db --rescore
  sg-embed --provider openai --model text-embedding-3-small --api-key-file key < scored.ndjson
  sg-embed --provider openai --base-url http://localhost:8080/v1 --model bge-small < scored.ndjson

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected, or events have passed on without the embedding that they were to get
  2  trouble: wrong usage, a failure
";

impl EndpointArgs {
    /// The server to ask, if one is.
    ///
    /// # Errors
    /// If what was said of it makes no sense, or its key cannot be read.
    pub(super) fn open(
        &self,
        program: &'static str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Endpoint>> {
        if self.provider == Provider::Local {
            return Ok(None);
        }
        let model = self.model.clone();
        let model = model.context("--provider openai needs --model: there is no usual one")?;
        ensure!(
            model != LOCAL_MODEL && (1..=MODEL_BYTES_MAX).contains(&model.len()),
            "--model is to be a model of the server: 1 to {MODEL_BYTES_MAX} bytes, and not {LOCAL_MODEL}"
        );
        // Clients of this protocol name the version with the base, others do not.
        let base = self.base_url.trim().trim_end_matches('/');
        let has_version = base.ends_with("/v1") || base.contains('?');
        let base = format!("{base}{}", if has_version { "" } else { "/v1" });
        let base_url = Url::parse(&base)
            .map_err(|why| anyhow::anyhow!("--base-url is not a URL to post to: {why}"))?;
        let config = EndpointConfig {
            name: Some(program),
            base_url,
            model,
            dim: self.dimensions,
            api_key: self.api_key(program)?,
            batch_max: usize::from(self.batch),
            timeout: Duration::from_secs(u64::from(self.timeout)),
            n_retries: u32::from(self.retries),
        };
        Ok(Some(Endpoint::new(config, shutdown)?))
    }

    fn api_key(&self, program: &str) -> anyhow::Result<Option<Key>> {
        let (key, whence) = match &self.api_key_file {
            Some(path) => (secret::read(program, path)?, path.display().to_string()),
            None => match std::env::var(API_KEY_VARIABLE) {
                Ok(key) if !key.is_empty() => (key, API_KEY_VARIABLE.to_owned()),
                _ => return Ok(None),
            },
        };
        let key = Key::parse(&key);
        Ok(Some(key.with_context(|| {
            format!("what {whence} holds is not a key")
        })?))
    }
}

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &EmbedArgs) -> anyhow::Result<Ended> {
    ensure!(
        args.endpoint.provider == Provider::Openai || args.endpoint.model.is_none(),
        "--model goes with --provider openai"
    );
    let lines = args.lines.clone().after_others();
    let shutdown = Shutdown::install()?;
    let plan = Plan {
        stages: vec!["read", "embed"],
        ..Plan::default()
    };
    let exporter = args.metrics.start(NAME, &plan, None, &shutdown)?;
    let mut dead_letters = lines.dead_letters()?;
    exporter.count_letters(&dead_letters);
    let endpoint = args.endpoint.open(NAME, &shutdown)?;
    let embedder = endpoint.map(|endpoint| Box::new(endpoint) as Box<dyn Embedder>);
    let which = if args.all {
        Embedded::All
    } else {
        Embedded::Anomalies
    };
    let mut embed = Embed::new(which, embedder);
    // It keeps nothing, so checkpoints of a pipe only pass by.
    let (source, resume) = marked::open(lines.stdin(&shutdown)?, &shutdown);
    let mut output = NdjsonSink::stdout();
    if let Some(resume) = &resume {
        output.begin(&resume.line)?;
    }
    let options = Options {
        metrics: exporter.metrics(),
        ..lines.options(NAME, PIPE_BATCH_BYTES)
    };
    let outcome = engine::run(
        source,
        &mut [&mut embed],
        &mut output,
        &mut dead_letters,
        &shutdown,
        &options,
    )?;
    let n_failed = embed.n_failed();
    if n_failed > 0 {
        let text = format!(
            "{n_failed} events have passed on without embedding, {} have got one",
            embed.n_embedded()
        );
        warn(NAME, &text);
    }
    Ok(match conclude(&options, &outcome)? {
        Ended::Done if n_failed > 0 && !outcome.is_closed => Ended::Partly,
        ended => ended,
    })
}

fn parse_dim(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(dim @ 1..=DIM_MAX) => Ok(dim),
        _ => Err(format!("expected 1..={DIM_MAX}")),
    }
}
