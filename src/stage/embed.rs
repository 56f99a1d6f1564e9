//! Gives events their embeddings. Where vectors come from is the embedder's business; which events get
//! one, and what is said of the others, is decided here.

use rayon::ThreadPool;
use rayon::prelude::*;

use super::Stage;
use crate::batch::{Batch, Block};
use crate::embed::{Embedding, Subject, embed_event};
use crate::record::StageField;
use crate::record::anomaly::AnomalyRecord;

/// Which events get an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Embedded {
    /// Events that are anomalies
    Anomalies,
    /// Every event
    All,
}

/// Makes vectors of texts.
pub trait Embedder: Send + Sync {
    /// The embeddings of some texts, in their order; none where there is none to be had. At most
    /// [`Embedder::batch_max`] texts come at once, and calls come from several threads.
    fn embed(&self, texts: &[String]) -> Vec<Option<Embedding>>;

    /// Texts that it takes at once.
    fn batch_max(&self) -> usize;
}

/// The stage. It has the last word on embeddings: one that an event has come with, and that it would
/// not give it, is taken away.
pub struct Embed {
    which: Embedded,
    /// None is the local one, which needs nobody.
    embedder: Option<Box<dyn Embedder>>,
    n_embedded: u64,
    n_failed: u64,
}

impl Embed {
    #[must_use]
    pub fn new(which: Embedded, embedder: Option<Box<dyn Embedder>>) -> Self {
        Self {
            which,
            embedder,
            n_embedded: 0,
            n_failed: 0,
        }
    }

    /// Events that have got one.
    #[must_use]
    pub fn n_embedded(&self) -> u64 {
        self.n_embedded
    }

    /// Events that should have got one, but have passed on without.
    #[must_use]
    pub fn n_failed(&self) -> u64 {
        self.n_failed
    }

    /// What each event of a block is given, if it is given something.
    fn wanted<T: Send>(&self, block: &Block, make: impl Fn(&Subject<'_>) -> T) -> Vec<(usize, T)> {
        let mut wanted = Vec::new();
        for (i, event) in block.events.iter().enumerate() {
            let value = block.stage_value(event, StageField::Anomaly);
            let anomaly: Option<AnomalyRecord> =
                value.and_then(|value| serde_json::from_slice(value).ok());
            if anomaly.is_some() || self.which == Embedded::All {
                let subject = Subject::new(event, block.view(event), anomaly.as_ref());
                wanted.push((i, make(&subject)));
            }
        }
        wanted
    }

    fn embed_locally(&self, block: &mut Block) -> u64 {
        let embeddings = self.wanted(block, |subject| Some(embed_event(subject)));
        set(block, embeddings)
    }

    /// Asks the embedder for all of a batch, several requests at a time.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method by itself is one of a single lifetime"
    )]
    fn ask(&self, blocks: &mut [Block], embedder: &dyn Embedder) -> (u64, u64) {
        let mut texts = Vec::new();
        let mut places = Vec::new();
        for block in blocks.iter() {
            let (indexes, sentences): (Vec<_>, Vec<_>) = self
                .wanted(block, |subject| subject.sentence())
                .into_iter()
                .unzip();
            places.push(indexes);
            texts.extend(sentences);
        }
        let requests = texts.par_chunks(embedder.batch_max().max(1));
        let answers: Vec<_> = requests.map(|texts| embedder.embed(texts)).collect();
        let mut answers = answers.into_iter().flatten();
        let mut n_embedded = 0;
        for (block, indexes) in blocks.iter_mut().zip(places) {
            let answers = indexes.into_iter().map(|i| (i, answers.next().flatten()));
            n_embedded += set(block, answers.collect());
        }
        (n_embedded, texts.len() as u64 - n_embedded)
    }
}

/// Gives the events of a block their embeddings, and takes away all others; how many there are.
fn set(block: &mut Block, embeddings: Vec<(usize, Option<Embedding>)>) -> u64 {
    let mut json = Vec::new();
    let mut n_embedded = 0;
    let mut embeddings = embeddings.into_iter().peekable();
    for i in 0..block.events.len() {
        json.clear();
        if let Some((_, Some(embedding))) = embeddings.next_if(|(at, _)| *at == i)
            && embedding.vector.is_valid()
        {
            embedding.write(&mut json);
            n_embedded += 1;
        }
        block.set_stage_value(i, StageField::Embedding, &json);
    }
    n_embedded
}

impl Stage for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn process(&mut self, batch: &mut Batch, pool: &ThreadPool) -> anyhow::Result<()> {
        let this = &*self;
        let (n_embedded, n_failed) = pool.install(|| match &this.embedder {
            None => {
                let blocks = batch.blocks.par_iter_mut();
                let n_embedded = blocks.map(|block| this.embed_locally(block)).sum();
                (n_embedded, 0)
            }
            Some(embedder) => this.ask(&mut batch.blocks, &**embedder),
        });
        self.n_embedded += n_embedded;
        self.n_failed += n_failed;
        Ok(())
    }
}
