//! `sg-query similar`: what is like an event, or like a text.

use std::fmt::Write as _;

use anyhow::{bail, ensure};
use clap::Args;

use super::Ended;
use super::embed::{EndpointArgs, Provider};
use super::output::{Format, SimilarWriter};
use super::query::{NAME, WhichArgs};
use crate::embed::{Embedding, LOCAL_MODEL, embed_text};
use crate::query::similar::{Indexes, local_embedding, sentence, similar, stored_embedding};
use crate::query::{self, Found, Parts};
use crate::record::text::printable;
use crate::report::warn;
use crate::shutdown::Shutdown;
use crate::stage::Embedder as _;

/// What is asked for.
#[derive(Args, Debug)]
pub(super) struct SimilarArgs {
    /// The id of an event, or else words: what happened, a type, an address, user:alice, country:RO
    #[arg(value_name = "EVENT_ID|TEXT")]
    query: String,

    #[command(flatten)]
    pub(super) which: WhichArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// Answers if nobody says how many.
const LIMIT: usize = 10;
/// Models that are named if there are others.
const MODELS_MAX: usize = 5;

pub(super) fn run(parts: Parts<'_>, args: &SimilarArgs, format: Format) -> anyhow::Result<Ended> {
    ensure!(
        format != Format::Csv,
        "there is no CSV of this: use --format table or ndjson"
    );
    let filter = args.which.filter(LIMIT)?;
    // An id that was used at several times: the newest.
    let event = query::newest_event(parts, &args.query)?;
    let embedding = args.embedding(event.as_ref())?;
    let mut indexes = Indexes::default();
    let but = event.as_ref().map(|event| &event.key[..]);
    let mut writer = SimilarWriter::new(format);
    let mut n_found = 0;
    similar(parts, &mut indexes, &embedding, but, &filter, |similar| {
        n_found += 1;
        writer.write(similar)?;
        Ok(true)
    })?;
    writer.finish()?;
    if n_found > 0 {
        return Ok(Ended::Done);
    }
    indexes.refresh(parts)?;
    tell_of_models(&indexes, &embedding);
    Ok(Ended::Partly)
}

impl SimilarArgs {
    /// The vector that others are compared with.
    fn embedding(&self, event: Option<&Found>) -> anyhow::Result<Embedding> {
        let model = self.endpoint.model.as_deref();
        let stored = event.and_then(stored_embedding);
        if let Some(stored) = stored.filter(|it| model.is_none_or(|model| model == it.model)) {
            return Ok(stored);
        }
        if self.endpoint.provider == Provider::Openai {
            return self.asked(event);
        }
        if let Some(model) = model.filter(|model| *model != LOCAL_MODEL) {
            let what = if event.is_some() {
                "the event"
            } else {
                "a text"
            };
            bail!(
                "{what} has no vector of model {}: name the server that makes them, with --provider \
                 openai and --base-url",
                printable(model)
            );
        }
        match event {
            Some(event) => Ok(local_embedding(event)),
            None => embed_text(&self.query).ok_or_else(|| {
                anyhow::anyhow!("there is no event of that id, and as a text it says nothing")
            }),
        }
    }

    /// The vector that the server gives it.
    fn asked(&self, event: Option<&Found>) -> anyhow::Result<Embedding> {
        let endpoint = self.endpoint.open(NAME, &Shutdown::default())?;
        let endpoint = endpoint.expect("it is asked for");
        let text = event.map_or_else(|| self.query.clone(), sentence);
        match endpoint.embed(&[text]).pop().flatten() {
            Some(embedding) if embedding.vector.is_valid() => Ok(embedding),
            _ => bail!("the server has given no vector"),
        }
    }
}

/// Says which vectors there are, if there are none to compare with.
fn tell_of_models(indexes: &Indexes, embedding: &Embedding) {
    let models = indexes.models();
    let (model, dim) = (&embedding.model, embedding.vector.dim());
    let is_there = models.contains_key(&(model.clone(), dim));
    if is_there {
        return;
    }
    let mut text = format!("there are no vectors of model {model} with {dim} numbers");
    if models.is_empty() {
        text.push_str(": events get some by sg-embed, or sg-run --embed");
    }
    for (i, ((model, dim), n_vectors)) in models.iter().take(MODELS_MAX).enumerate() {
        let before = if i == 0 { ", but" } else { "," };
        write!(text, "{before} {n_vectors} of {model} with {dim}")
            .expect("memory takes every write");
    }
    warn(NAME, &text);
}
