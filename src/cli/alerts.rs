//! Who is told of alerts, as it is typed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::kafka::KafkaArgs;
use super::{FileArgs, LineArgs, identity, secret};
use crate::alerts::{
    Alerts, FileTarget, Named, Secrets, Telling, TopicTarget, WebhookTarget, shown_of,
};
use crate::io::dead_letter::DeadLetters;
use crate::io::files;
use crate::io::http::Url;
use crate::io::kafka;
use crate::metrics::Metrics;
use crate::report::warn;
use crate::shutdown::Shutdown;
use crate::store::{Alerting, Outbox, Store};

/// Where the secret of webhooks is, if no file is named. Arguments can be read by every user.
const SECRET_VARIABLE: &str = "SG_WEBHOOK_SECRET";
/// Before the URL of a webhook.
const WEBHOOK_PREFIX: &str = "webhook:";

/// Who is told of new anomalies.
#[derive(Args, Debug)]
#[command(next_help_heading = "Alerts")]
pub(super) struct AlertArgs {
    /// Tell of new anomalies: append their lines to FILE, send them to kafka:TOPIC, or post them, signed,
    /// to webhook:URL, or to the URL that is in a file, webhook:@FILE; may be given several times
    #[arg(long, value_name = "TARGET")]
    alerts_to: Vec<String>,

    /// Which anomalies are told of
    #[arg(long, value_enum, default_value_t = Alerting::Incidents, requires = "alerts_to")]
    alerts: Alerting,

    /// The secret that webhooks are signed with, whsec_ and base64; without this it is taken from the
    /// variable `SG_WEBHOOK_SECRET`
    #[arg(long, value_name = "FILE", requires = "alerts_to")]
    webhook_secret_file: Option<PathBuf>,
}

impl AlertArgs {
    /// Whether anybody is told.
    pub(super) fn are_wanted(&self) -> bool {
        !self.alerts_to.is_empty()
    }

    /// All targets, ready to be told.
    pub(super) fn targets(
        &self,
        name: &'static str,
        (files, kafka, lines): (&FileArgs, &KafkaArgs, &LineArgs),
        incident_ms: i64,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Vec<Named>> {
        ensure!(
            self.alerts_to.is_empty() || self.alerts != Alerting::Incidents || incident_ms > 0,
            "--suppress 0 folds nothing, so there are no incidents to tell of: use --alerts anomalies"
        );
        let mut targets: Vec<Named> = Vec::new();
        for text in &self.alerts_to {
            let target = if let Some(topic) = kafka::topic_of(text) {
                if let Some(what) = kafka.use_of(topic) {
                    bail!("topic {topic} {what}: name another one for --alerts-to");
                }
                let open = kafka.producer(name, lines.quiet, topic, shutdown)?;
                TopicTarget::open(topic, Box::new(open))?
            } else if let Some(text) = text.strip_prefix(WEBHOOK_PREFIX) {
                let url = url(name, text)?;
                WebhookTarget::open(url, self.secrets(name)?)?
            } else {
                ensure!(
                    !text.contains("://"),
                    "--alerts-to takes a URL as {WEBHOOK_PREFIX}URL"
                );
                ensure!(
                    !text.is_empty() && text != files::STDIN,
                    "--alerts-to takes the name of a file"
                );
                let target = FileTarget::open(Path::new(text))?;
                refuse_in_use(Path::new(text), files, lines)?;
                target
            };
            ensure!(
                targets.iter().all(|other| other.key != target.key),
                "--alerts-to names {} twice",
                target.shown
            );
            targets.push(target);
        }
        Ok(targets)
    }

    /// Begins to tell the targets, if there are any.
    pub(super) fn start(
        &self,
        name: &'static str,
        quiet: bool,
        store: &Arc<Store>,
        targets: Vec<Named>,
        dead_letters: &DeadLetters,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<(Option<Alerts>, Option<Outbox>)> {
        if targets.is_empty() {
            // Whoever runs it once without them does not mean to give up what waits.
            for waiting in store.alerts_waiting()? {
                let shown = shown_of(&waiting.target);
                let n_waiting = waiting.n_waiting;
                warn(
                    name,
                    &format!("{n_waiting} alerts wait for {shown}, which this run does not name"),
                );
            }
            return Ok((None, None));
        }
        let telling = Telling {
            name,
            quiet,
            alerting: self.alerts,
            dead_letters: dead_letters.clone(),
            metrics,
        };
        let (alerts, outbox) = Alerts::start(store, targets, telling)?;
        Ok((Some(alerts), Some(outbox)))
    }

    fn secrets(&self, program: &str) -> anyhow::Result<Secrets> {
        let (text, from) = match &self.webhook_secret_file {
            Some(path) => {
                let shown = path.display().to_string();
                (secret::read(program, path)?, shown)
            }
            None => {
                let text = std::env::var(SECRET_VARIABLE).unwrap_or_default();
                ensure!(
                    !text.trim().is_empty(),
                    "webhooks are signed: make a secret with `echo whsec_$(openssl rand -base64 32) > FILE`, \
                     and name the file with --webhook-secret-file, or put what is in it into {SECRET_VARIABLE}"
                );
                (text, SECRET_VARIABLE.to_owned())
            }
        };
        Secrets::parse(&text).with_context(|| {
            format!(
                "{from} is no secret for webhooks: make one with `echo whsec_$(openssl rand -base64 32)`"
            )
        })
    }
}

/// The URL of a webhook, which is in a file if it begins with `@`.
fn url(program: &str, text: &str) -> anyhow::Result<Url> {
    let (text, from) = match text.strip_prefix('@') {
        Some(path) => {
            let text = secret::read(program, Path::new(path))?;
            (text.trim().to_owned(), format!("what is in {path}"))
        }
        None => (text.to_owned(), "the URL".to_owned()),
    };
    Url::parse(&text).map_err(|why| {
        anyhow::anyhow!("--alerts-to {WEBHOOK_PREFIX}URL: {from} cannot be used: {why}")
    })
}

/// Alerts are events: in a file that is read they would be read again.
fn refuse_in_use(path: &Path, files: &FileArgs, lines: &LineArgs) -> anyhow::Result<()> {
    let alerts = identity(path);
    let is_same = |other: &Path| alerts.is_some() && identity(other) == alerts;
    let shown = path.display();
    let inputs = files::expand(&files.inputs)?;
    let is_read = inputs.iter().any(|input| is_same(Path::new(input)))
        || files.replay.as_deref().is_some_and(is_same);
    ensure!(
        !is_read,
        "{shown} is read: name another file for --alerts-to"
    );
    let is_dead_letter = lines.dead_letter.as_deref().is_some_and(is_same);
    ensure!(
        !is_dead_letter,
        "{shown} is the --dead-letter file: name another one for --alerts-to"
    );
    Ok(())
}
