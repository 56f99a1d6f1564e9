//! Events that are like another one, or like a text: those whose vectors point in the same direction.
//!
//! Codes of all vectors are compared first, then the vectors of the most promising ones; what is shown
//! comes from the databases, and so does its score. Where a filter has an index by itself, all that it
//! lets pass is compared.

mod chunk;
mod codes;
mod file;
mod index;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::{Filter, Found, Parts, Wanted, matches, rank, search};
use crate::embed::{Embedding, Subject, embed_event};
use crate::record::StageField;
use crate::record::text::push_number;
use crate::store::Store;
use chunk::Damaged;
use index::{Candidate, Index};

/// Vectors that are compared, of as many as there are: of the ten most alike of a million all but a few in
/// a thousand are among these.
const N_COMPARED: usize = 4_096;
/// The same for each answer that is wanted.
const N_COMPARED_EACH: usize = 64;
/// Answers at the most.
pub const SIMILAR_MAX: usize = 10_000;

/// An event, and how alike it is.
pub struct Similar {
    /// The cosine of the angle between the vectors: 1 is the same direction.
    pub score: f64,
    pub found: Found,
}

impl Similar {
    /// The score, and the event with what stages have added, but for the vector, as one JSON object.
    #[must_use]
    pub fn into_json(self) -> Vec<u8> {
        let Self { score, mut found } = self;
        found.block.set_stage_value(0, StageField::Embedding, b"");
        let mut json = b"{\"score\":".to_vec();
        push_number(&mut json, score);
        json.extend_from_slice(b",\"event\":");
        found.push_line(&mut json);
        json.truncate(json.trim_ascii_end().len());
        json.push(b'}');
        json
    }
}

/// What is ready to be searched of some databases. It is brought up to date before each question, which
/// costs as much as has changed since the last one.
#[derive(Default)]
pub struct Indexes(Vec<Index>);

impl Indexes {
    /// Makes it fit what the databases hold now.
    ///
    /// # Errors
    /// If a database cannot be read.
    pub fn refresh(&mut self, parts: Parts<'_>) -> anyhow::Result<()> {
        self.0.resize_with(parts.views().len(), Index::default);
        let pairs = self.0.iter_mut().zip(parts.views());
        for (index, view) in pairs {
            index.refresh(view)?;
        }
        Ok(())
    }

    /// How many vectors there are of each model and dimension.
    #[must_use]
    pub fn models(&self) -> BTreeMap<(String, usize), usize> {
        let mut models = BTreeMap::new();
        for (model, n_vectors) in self.0.iter().flat_map(Index::models) {
            *models.entry(model).or_default() += n_vectors;
        }
        models
    }

    fn distrust(&mut self) {
        for index in &mut self.0 {
            index.distrust();
        }
    }
}

/// Takes out of what was derived from a database what the database does not hold any more.
///
/// # Errors
/// If the database cannot be read.
pub fn tidy(store: &Store) -> anyhow::Result<()> {
    Index::default().tidy(&store.view())
}

/// Removes what was derived from a database.
///
/// # Errors
/// If it cannot be removed.
pub fn forget(store: &Store) -> std::io::Result<()> {
    file::remove(store.path())
}

/// The vector that an event is stored with.
#[must_use]
pub fn stored_embedding(found: &Found) -> Option<Embedding> {
    let event = &found.block.events[0];
    Embedding::read(found.block.stage_value(event, StageField::Embedding)?)
}

/// The vector that the local embedder gives an event.
#[must_use]
pub fn local_embedding(found: &Found) -> Embedding {
    embed_event(&subject(found))
}

/// The sentence that other embedders are told of an event.
#[must_use]
pub fn sentence(found: &Found) -> String {
    subject(found).sentence()
}

fn subject(found: &Found) -> Subject<'_> {
    let event = &found.block.events[0];
    Subject::new(event, found.block.view(event), found.anomaly.as_ref())
}

/// Calls `each` with the events that are most alike, the most alike first, of equals the newest, until it
/// returns false. `limit` of the filter says how many; the event with the key `but` is not among them.
/// Vectors of other models or dimensions are not looked at.
///
/// # Errors
/// If a database cannot be read, or as `each` says.
pub fn similar(
    parts: Parts<'_>,
    indexes: &mut Indexes,
    embedding: &Embedding,
    but: Option<&[u8]>,
    filter: &Filter,
    mut each: impl FnMut(Similar) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let question = Question {
        parts,
        embedding,
        but,
        filter,
        limit: filter.limit.min(SIMILAR_MAX),
    };
    // Events are read again for the answer: all of them at once may be more than memory holds.
    for key in question.keys(indexes)? {
        parts.check()?;
        if let Some(found) = parts.find(key)?
            && let Some(score) = question.score(&found)
            && !each(Similar { score, found })?
        {
            break;
        }
    }
    Ok(())
}

struct Question<'a> {
    parts: Parts<'a>,
    embedding: &'a Embedding,
    but: Option<&'a [u8]>,
    filter: &'a Filter,
    limit: usize,
}

impl Question<'_> {
    /// How alike an event is, if it is one of those that are asked for.
    fn score(&self, found: &Found) -> Option<f64> {
        if self.but == Some(&found.key[..]) {
            return None;
        }
        let other = stored_embedding(found)?;
        let is_comparable = other.model == self.embedding.model
            && other.vector.dim() == self.embedding.vector.dim();
        is_comparable.then(|| self.embedding.vector.cosine(&other.vector))
    }

    /// The keys of the answers, in order.
    fn keys(&self, indexes: &mut Indexes) -> anyhow::Result<Vec<Vec<u8>>> {
        let filter = self.filter;
        if filter.user.is_some() || filter.severity.is_some() || filter.min_score.is_some() {
            return self.compare_all();
        }
        indexes.refresh(self.parts)?;
        if let Ok(keys) = self.ask(indexes)? {
            return Ok(keys);
        }
        indexes.distrust();
        indexes.refresh(self.parts)?;
        if let Ok(keys) = self.ask(indexes)? {
            return Ok(keys);
        }
        // The disk does not keep what is written to it.
        self.compare_all()
    }

    /// Compares with every event that the filter lets pass.
    fn compare_all(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let all = Filter {
            limit: usize::MAX,
            after: None,
            ..self.filter.clone()
        };
        let mut best: BinaryHeap<Reverse<(u64, Vec<u8>)>> = BinaryHeap::new();
        search(self.parts, Wanted::Events, &all, |found| {
            if let Some(score) = self.score(found) {
                best.push(Reverse((rank(score), found.key.clone())));
                if best.len() > self.limit {
                    best.pop();
                }
            }
            Ok(true)
        })?;
        let best = best.into_sorted_vec().into_iter();
        Ok(best.map(|Reverse((_, key))| key).collect())
    }

    /// Looks at more and more candidates until there are enough answers among them, or all were looked at.
    fn ask(&self, indexes: &Indexes) -> anyhow::Result<Result<Vec<Vec<u8>>, Damaged>> {
        let mut n_compared = N_COMPARED.max(self.limit * N_COMPARED_EACH);
        loop {
            let mut heads = Vec::new();
            let mut are_all = true;
            for index in &indexes.0 {
                let found = index.candidates(self.embedding, self.filter, n_compared);
                let Ok((candidates, n_entries)) = found else {
                    return Ok(Err(Damaged));
                };
                are_all &= n_entries <= candidates.len();
                let candidates = candidates.into_iter();
                heads.push(Head::new(index, candidates));
            }
            match self.answer(heads)? {
                Ok(answer) if answer.len() == self.limit || are_all => return Ok(Ok(answer)),
                Ok(_) => n_compared = n_compared.saturating_mul(8),
                Err(damaged) => return Ok(Err(damaged)),
            }
        }
    }

    /// Takes the best candidates of all databases until no other can be among the answers.
    fn answer(&self, mut heads: Vec<Head<'_>>) -> anyhow::Result<Result<Vec<Vec<u8>>, Damaged>> {
        // Other vectors than ours were rounded to be compared: somebody behind may be before.
        let n_more = match &self.embedding.vector {
            crate::embed::Vector::I8(_) => 0,
            crate::embed::Vector::F32(_) => self.limit + 64,
        };
        let mut answer: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut known = BTreeSet::new();
        while answer.len() < self.limit + n_more {
            self.parts.check()?;
            let next = match next_of(&mut heads) {
                Ok(None) => break,
                Ok(Some(next)) => next,
                Err(damaged) => return Ok(Err(damaged)),
            };
            let (cosine, key) = next;
            // Several databases may have it.
            if !known.insert(key.clone()) {
                continue;
            }
            let is_one = self.parts.views().len() == 1;
            let Some(found) = self.parts.find(key)? else {
                return Ok(Err(Damaged));
            };
            let stored = stored_embedding(&found);
            let is_right = stored.is_some_and(|stored| {
                let exact = self.embedding.vector.cosine(&stored.vector);
                (exact - cosine).abs() <= if n_more == 0 { 0.0 } else { 0.05 }
            });
            if is_one && !is_right {
                return Ok(Err(Damaged));
            }
            if matches(&found, Wanted::Events, self.filter)
                && let Some(score) = self.score(&found)
            {
                answer.push((rank(score), found.key));
            }
        }
        // The most alike first, of equals the newest.
        answer.sort_unstable_by(|a, b| b.cmp(a));
        answer.truncate(self.limit);
        Ok(Ok(answer.into_iter().map(|(_, key)| key).collect()))
    }
}

/// The candidates of one database that are left.
struct Head<'a> {
    index: &'a Index,
    candidates: std::vec::IntoIter<Candidate>,
    next: Option<(f64, Vec<u8>)>,
}

impl<'a> Head<'a> {
    fn new(index: &'a Index, candidates: std::vec::IntoIter<Candidate>) -> Self {
        Self {
            index,
            candidates,
            next: None,
        }
    }

    fn fill(&mut self) -> Result<(), Damaged> {
        if self.next.is_none()
            && let Some(candidate) = self.candidates.next()
        {
            self.next = Some((candidate.cosine, self.index.key(&candidate)?));
        }
        Ok(())
    }
}

/// The best candidate of all databases, of equals the newest.
fn next_of(heads: &mut [Head<'_>]) -> Result<Option<(f64, Vec<u8>)>, Damaged> {
    for head in heads.iter_mut() {
        head.fill()?;
    }
    let best = (heads.iter_mut())
        .filter(|head| head.next.is_some())
        .max_by_key(|head| {
            let (cosine, key) = head.next.as_ref().expect("it has one");
            (rank(*cosine), key.clone())
        });
    Ok(best.and_then(|head| head.next.take()))
}
