//! Which model is asked, and how often: arguments of every program that has events analysed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{Ended, secret};
use crate::analyze::{
    Analyst, Config, Followed, Follower, Limits, Note, NoteFile, Notebook, Place, StoreNotes, Tally,
};
use crate::io::http::Key;
use crate::llm::price::Prices;
use crate::llm::{Provider, Redact};
use crate::metrics::Metrics;
use crate::report::{say, warn};
use crate::shutdown::Shutdown;
use crate::store::{Notice, Store};
use crate::time::parse_span;

/// The model of `--provider anthropic`: made for telling things apart, and cheap.
const MODEL: &str = "claude-haiku-5-5";

/// The service and its limits.
#[derive(Args, Debug)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Whose protocol the service speaks
    #[arg(long, value_enum, default_value_t = Provider::Anthropic)]
    provider: Provider,

    /// Where the service is
    #[arg(
        long,
        value_name = "URL",
        help = "Where the service is [default: ANTHROPIC_BASE_URL or OPENAI_BASE_URL, or the vendor's]"
    )]
    base_url: Option<String>,

    /// The model to ask [default: claude-haiku-5-5; --provider openai has none]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Ask this model once more about what the first one holds for high or critical; what it says counts
    #[arg(long, value_name = "MODEL")]
    escalate_model: Option<String>,

    /// A file with the key
    #[arg(
        long,
        value_name = "FILE",
        help = "A file with the key [default: what is in ANTHROPIC_API_KEY or OPENAI_API_KEY]"
    )]
    api_key_file: Option<PathBuf>,

    /// Hide names of users and addresses from the service: user, ip, or both with a comma between them
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum)]
    redact: Vec<Hidden>,

    /// Keep answers, and what was spent today, in FILE: events like those that were analysed cost nothing
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,

    /// Calls a minute at the most, also those that are tried again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_minute: Option<u32>,

    /// Calls a day (UTC) at the most
    #[arg(long, value_name = "N")]
    per_day: Option<u64>,

    /// Dollars a day (UTC) at the most; what a call may cost at worst is set aside while it is made
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    budget_usd: Option<u64>,

    /// Prices, in TOML: for each [model] `input` and `output` in dollars for a million tokens
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,

    /// How long a try may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,

    /// Tries after one that has failed in passing
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=10))]
    retries: u32,

    /// Calls at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    /// Leave the service alone after so many failures in a row
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    breaker_failures: u32,

    /// How long it is left alone before one call tries it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    breaker_cooldown: Duration,
}

/// What is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Hidden {
    User,
    Ip,
}

/// What is known from earlier runs.
pub(super) type Kept = (Vec<Note>, Option<Box<dyn Notebook>>);

impl ModelArgs {
    /// What it comes to. `is_asking` tells whether anything is sent.
    pub(super) fn config(
        &self,
        name: &'static str,
        quiet: bool,
        is_asking: bool,
    ) -> anyhow::Result<Config> {
        let model = match (&self.model, self.provider) {
            (Some(model), _) => model.clone(),
            (None, Provider::Anthropic) => MODEL.to_owned(),
            (None, Provider::Openai) => {
                anyhow::bail!("--provider openai has no model of its own: name one with --model")
            }
        };
        let prices = self.prices()?;
        if self.budget_usd.is_some() {
            for model in [Some(&model), self.escalate_model.as_ref()]
                .into_iter()
                .flatten()
            {
                ensure!(
                    prices.of(model).is_some(),
                    "what {model} costs is not known, so --budget-usd cannot be held: name its price with --prices"
                );
            }
        }
        Ok(Config {
            name,
            quiet,
            place: self.place(name, is_asking)?,
            model,
            escalate_model: self.escalate_model.clone(),
            redact: Redact {
                user: self.redact.contains(&Hidden::User),
                ip: self.redact.contains(&Hidden::Ip),
            },
            timeout: self.timeout,
            n_retries: self.retries,
            concurrency: usize::from(self.concurrency),
            limits: Limits {
                calls_per_minute: self.per_minute,
                calls_per_day: self.per_day,
                micro_usd_per_day: self.budget_usd,
            },
            prices,
            breaker_failures: self.breaker_failures,
            breaker_cooldown: self.breaker_cooldown,
        })
    }

    fn prices(&self) -> anyhow::Result<Prices> {
        let prices = Prices::default();
        let Some(path) = &self.prices else {
            return Ok(prices);
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let prices = prices.with(&text);
        prices.map_err(|why| anyhow::anyhow!("{shown} holds no prices: {why}"))
    }

    /// Where the service is, and the key to it.
    fn place(&self, program: &str, is_asking: bool) -> anyhow::Result<Place> {
        let (url_variable, key_variable) = match self.provider {
            Provider::Anthropic => ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
            Provider::Openai => ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
        };
        let of_variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (base, from) = match (&self.base_url, of_variable(url_variable)) {
            (Some(url), _) => (url.clone(), "--base-url"),
            (None, Some(url)) => (url, url_variable),
            (None, None) => (self.provider.base_url().to_owned(), "the vendor's URL"),
        };
        let key = match (&self.api_key_file, of_variable(key_variable)) {
            (Some(path), _) => Some(read_key(program, path)?),
            (None, Some(text)) => {
                Some(Key::parse(&text).with_context(|| format!("{key_variable} is no key"))?)
            }
            (None, None) => None,
        };
        let place = Place::new(self.provider, &base, key);
        let place = place.map_err(|why| anyhow::anyhow!("{from} is not a service: {why}"))?;
        ensure!(
            !is_asking || place.key.is_some() || !place.is_vendor(),
            "{} asks for a key: put it into {key_variable}, or into a file that --api-key-file names",
            place.shown()
        );
        Ok(place)
    }

    /// What earlier runs have found and spent; whether anything `is_asking` for more.
    pub(super) fn kept(&self, name: &str, is_asking: bool) -> anyhow::Result<Kept> {
        let Some(path) = &self.cache else {
            if is_asking && (self.per_day.is_some() || self.budget_usd.is_some()) {
                let text = "without --cache FILE nobody knows what earlier runs have spent today: this one \
                            begins at 0";
                warn(name, text);
            }
            return Ok((Vec::new(), None));
        };
        let (file, notes, troubles) = NoteFile::open(path)?;
        for trouble in troubles {
            warn(name, &trouble);
        }
        Ok((notes, Some(Box::new(file))))
    }

    /// Begins to analyse what waits in a store. What is found is kept there, too, unless there is a file
    /// for it.
    pub(super) fn follow(
        &self,
        config: Config,
        store: &Arc<Store>,
        shutdown: &Shutdown,
        metrics: Option<&Arc<Metrics>>,
    ) -> anyhow::Result<(Follower, Arc<Notice>)> {
        let (notes, notebook) = if self.cache.is_some() {
            self.kept(config.name, true)?
        } else {
            let (notebook, notes) = StoreNotes::open(store)?;
            let notebook: Box<dyn Notebook> = Box::new(notebook);
            (notes, Some(notebook))
        };
        let analyst = Analyst::open(config, notes, notebook, shutdown)?;
        if let Some(metrics) = metrics {
            analyst.report_to(metrics, false);
            Follower::report_to(store, metrics);
        }
        Follower::start(store, analyst, shutdown)
    }
}

/// Waits for the last analyses, and says what has become of them.
pub(super) fn end(name: &str, quiet: bool, follower: Follower) -> anyhow::Result<Ended> {
    let Followed { tally, n_waiting } = follower.end()?;
    if !quiet {
        tell(name, &tally);
    }
    if n_waiting == 0 {
        return Ok(Ended::Done);
    }
    warn(
        name,
        &format!("{n_waiting} events wait for their analysis: the next run goes on with them"),
    );
    Ok(Ended::Partly)
}

/// Says what analyses have come to.
pub(super) fn tell(name: &str, tally: &Tally) {
    if tally.outcomes.is_empty() {
        return;
    }
    let outcomes = tally.outcomes.iter();
    let outcomes = outcomes.map(|(outcome, n)| format!("{} {n}", outcome.name()));
    let outcomes: Vec<_> = outcomes.collect();
    let mut text = format!(
        "analysed: {}; calls {}, tokens {} in and {} out",
        outcomes.join(", "),
        tally.n_calls,
        tally.input_tokens,
        tally.output_tokens
    );
    if let Some(micro_usd) = tally.micro_usd.filter(|_| tally.n_calls > 0) {
        let _ = write!(text, ", {:.4} USD", micro_usd as f64 / 1e6);
    }
    let _ = write!(text, "; severities raised {}", tally.n_raised);
    if tally.n_hostile > 0 {
        let _ = write!(text, "; events that talk to the model {}", tally.n_hostile);
    }
    say(name, &text);
}

fn read_key(program: &str, path: &Path) -> anyhow::Result<Key> {
    let text = secret::read(program, path)?;
    Key::parse(&text).with_context(|| format!("{} holds no key", path.display()))
}

/// `5s`, `500ms`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let ms = match text.strip_suffix("ms") {
        Some(number) => number.parse::<u32>().ok().map(i64::from),
        None => parse_span(text),
    };
    match ms {
        Some(ms @ 1..=86_400_000) => Ok(Duration::from_millis(ms as u64)),
        _ => Err("expected a time such as 500ms, 5s or 1m, up to 1d".to_owned()),
    }
}

/// Millionths of a dollar.
fn parse_usd(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(usd) if (0.0..=1e9).contains(&usd) => Ok((usd * 1e6).round() as u64),
        _ => Err("expected dollars, such as 0.50".to_owned()),
    }
}
