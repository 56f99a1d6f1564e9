//! Embeddings of one database, ready to be searched: which of them point in the direction of another one.
//! What it knows comes of the database alone; of the derived file it takes what fits.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rayon::prelude::*;

use super::chunk::{
    Attributes, Damaged, Draft, Group, Head, Place, attribute, in_bytes, read_groups,
};
use super::codes::{Coder, NEVER, distances, nearest};
use super::file::{Appender, IndexFile, copy};
use crate::embed::{Embedding, Vector, dot};
use crate::query::Filter;
use crate::schema;
use crate::store::{Order, VectorSums, View, parse_event};

/// Stretches that are made ready together: as many are in memory at once.
const STRETCHES_AT_ONCE: usize = 64;
/// A file that holds so many bytes and more for each that is of use is made anew.
const WASTE: u64 = 2;

/// The index of one database. It is brought up to date by [`Index::refresh`], which costs as much as has
/// changed.
#[derive(Default)]
pub(super) struct Index {
    stretches: BTreeMap<i64, Stretch>,
    file: Option<IndexFile>,
    has_looked: bool,
    /// The file is not to be believed.
    is_anew: bool,
}

struct Stretch {
    head: Head,
    place: Place,
    groups: Vec<Group>,
}

/// An entry that may be among the answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) cosine: f64,
    stretch: i64,
    group: u32,
    entry: u32,
}

impl Candidate {
    /// What orders candidates of one index: the most alike first, of equals the newest.
    fn order(&self) -> (Reverse<u64>, Reverse<(i64, u32, u32)>) {
        let rank = super::super::rank(self.cosine);
        (
            Reverse(rank),
            Reverse((self.stretch, self.group, self.entry)),
        )
    }
}

impl Index {
    /// Makes it fit what the database holds now.
    pub(super) fn refresh(&mut self, view: &View<'_>) -> anyhow::Result<()> {
        let sums = view.vector_sums()?;
        self.stretches
            .retain(|stretch, known| sums.get(stretch) == Some(&known.head.sum));
        if !self.has_looked {
            self.has_looked = true;
            self.take_from_file(view, &sums);
        }
        let missing: Vec<i64> = (sums.keys())
            .filter(|stretch| !self.stretches.contains_key(stretch))
            .copied()
            .collect();
        self.make(view, &missing)
    }

    /// Takes of the file what fits.
    fn take_from_file(&mut self, view: &View<'_>, sums: &VectorSums) {
        let Some((file, chunks)) = IndexFile::open(view.path()) else {
            return;
        };
        self.file = Some(file);
        if self.is_anew {
            return;
        }
        let fitting = (chunks.into_par_iter())
            .filter(|(head, _)| sums.get(&head.stretch) == Some(&head.sum))
            .filter_map(|(head, place)| {
                let groups = read_groups(&head, &place).ok()?;
                let stretch = Stretch {
                    head,
                    place,
                    groups,
                };
                Some((head.stretch, stretch))
            });
        self.stretches = fitting.collect();
    }

    /// Makes stretches ready, and keeps them in the file if that can be written.
    fn make(&mut self, view: &View<'_>, missing: &[i64]) -> anyhow::Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let n_bytes = self.file.as_ref().map_or(0, IndexFile::chunks_bytes);
        let n_useful: u64 = self.stretches.values().map(|it| it.head.n_bytes).sum();
        let is_anew = self.is_anew || n_bytes > n_useful * WASTE;
        let opened = self.file.as_ref();
        let mut appender = if is_anew {
            let mut appender = Appender::anew(view.path(), opened);
            self.move_to(&mut appender);
            appender
        } else {
            Appender::behind(view.path(), opened)
        };
        for missing in missing.chunks(STRETCHES_AT_ONCE) {
            let made: anyhow::Result<Vec<_>> = (missing.par_iter())
                .map(|stretch| make_chunk(view, *stretch))
                .collect();
            for (head, bytes) in made? {
                let place = appender.append(bytes);
                // What cannot be read back is what a later question will not find either.
                if let Ok(groups) = read_groups(&head, &place) {
                    let stretch = Stretch {
                        head,
                        place,
                        groups,
                    };
                    self.stretches.insert(head.stretch, stretch);
                }
            }
        }
        appender.finish();
        self.is_anew = false;
        self.file = IndexFile::open(view.path()).map(|(file, _)| file);
        Ok(())
    }

    /// Copies what is of use.
    fn move_to(&mut self, appender: &mut Appender) {
        for stretch in self.stretches.values_mut() {
            let Ok(bytes) = copy(&stretch.head, &stretch.place) else {
                continue;
            };
            let place = appender.append(bytes);
            if let Ok(groups) = read_groups(&stretch.head, &place) {
                (stretch.place, stretch.groups) = (place, groups);
            }
        }
    }

    /// Takes out of the file what the database does not hold any more.
    pub(super) fn tidy(&mut self, view: &View<'_>) -> anyhow::Result<()> {
        self.has_looked = true;
        self.take_from_file(view, &view.vector_sums()?);
        let n_useful: u64 = self.stretches.values().map(|it| it.head.n_bytes).sum();
        if self
            .file
            .as_ref()
            .is_some_and(|file| file.chunks_bytes() > n_useful)
        {
            let mut appender = Appender::anew(view.path(), self.file.as_ref());
            self.move_to(&mut appender);
            appender.finish();
        }
        Ok(())
    }

    /// Believes the file no longer.
    pub(super) fn distrust(&mut self) {
        *self = Self {
            is_anew: true,
            ..Self::default()
        };
    }

    /// How many vectors there are of each model and dimension.
    pub(super) fn models(&self) -> BTreeMap<(String, usize), usize> {
        let mut models = BTreeMap::new();
        for group in self.stretches.values().flat_map(|stretch| &stretch.groups) {
            let model = (group.model.clone(), group.dim);
            *models.entry(model).or_default() += group.n_entries;
        }
        models
    }

    /// The entries that are most alike, the most alike first, of those that a filter lets pass as far as
    /// can be told here; and how many of these there are in all.
    pub(super) fn candidates(
        &self,
        embedding: &Embedding,
        filter: &Filter,
        n_wanted: usize,
    ) -> Result<(Vec<Candidate>, usize), Damaged> {
        let dim = embedding.vector.dim();
        let choice = Choice::of(filter);
        let mut code = Vec::new();
        Coder::new(dim).push_code(&embedding.vector, &mut code);
        let groups: Vec<(i64, u32, &Group)> = (self.stretches.iter())
            .flat_map(|(number, stretch)| {
                let groups = stretch.groups.iter().enumerate();
                groups.map(move |(i, group)| (*number, i as u32, group))
            })
            .filter(|(stretch, _, group)| {
                group.dim == dim && group.model == embedding.model && choice.takes_of(*stretch)
            })
            .collect();
        let distances: Result<Vec<Vec<u16>>, Damaged> = (groups.par_iter())
            .map(|(stretch, _, group)| {
                let mut distances = distances(&code, group.codes());
                if choice.is_of_attributes(*stretch) {
                    for (distance, it) in distances.iter_mut().zip(group.attributes()?) {
                        if !choice.takes(it) {
                            *distance = NEVER;
                        }
                    }
                }
                Ok(distances)
            })
            .collect();
        let (picked, n_entries) = nearest(&distances?, n_wanted);
        let query = Vector::I8(in_bytes(&embedding.vector));
        let norm = query.norm();
        let Vector::I8(query) = query else {
            return Err(Damaged);
        };
        let compared: Result<Vec<Vec<Candidate>>, Damaged> = (groups.par_iter().zip(&picked))
            .filter(|(_, picked)| !picked.is_empty())
            .map(|((stretch, i, group), picked)| {
                let mut candidates = Vec::with_capacity(picked.len());
                group.vectors(picked, |entry, numbers| {
                    let own_norm = f64::from(dot(numbers, numbers)).sqrt();
                    let cosine = f64::from(dot(&query, numbers)) / (norm * own_norm);
                    candidates.push(Candidate {
                        cosine: cosine.clamp(-1.0, 1.0),
                        stretch: *stretch,
                        group: *i,
                        entry,
                    });
                })?;
                Ok(candidates)
            })
            .collect();
        let mut candidates: Vec<Candidate> = compared?.into_iter().flatten().collect();
        candidates.sort_unstable_by_key(Candidate::order);
        Ok((candidates, n_entries))
    }

    /// The key of a candidate's event.
    pub(super) fn key(&self, candidate: &Candidate) -> Result<Vec<u8>, Damaged> {
        let stretch = self.stretches.get(&candidate.stretch).ok_or(Damaged)?;
        let group = stretch
            .groups
            .get(candidate.group as usize)
            .ok_or(Damaged)?;
        group.key(candidate.entry)
    }
}

/// Makes a chunk of what the database holds.
fn make_chunk(view: &View<'_>, stretch: i64) -> anyhow::Result<(Head, Vec<u8>)> {
    let (from_ms, end_ms) = schema::stretch_ms(stretch);
    let (from, end) = (schema::time_prefix(from_ms), schema::time_prefix(end_ms));
    let mut draft = Draft::new(stretch);
    let mut walk = view.walk(schema::EMBEDDINGS, &from, Order::OldestFirst);
    while let Some((key, value)) = walk.next_entry()?
        && key < end
    {
        let event = view.value(schema::EVENTS, &key)?;
        draft.add(&key, &value, event.and_then(attributes_of));
    }
    Ok(draft.finish())
}

fn attributes_of(event: Vec<u8>) -> Option<Attributes> {
    let block = parse_event(event);
    let view = block.view(block.events.first()?);
    Some(Attributes {
        timestamp_ms: view.timestamp_ms,
        kind: attribute(view.kind),
        ip: view.source_ip.map_or(0, attribute),
    })
}

/// What of a filter can be told from attributes.
struct Choice {
    since_ms: i64,
    until_ms: i64,
    kind: Option<u32>,
    ip: Option<u32>,
}

impl Choice {
    fn of(filter: &Filter) -> Self {
        Self {
            since_ms: filter.since_ms,
            until_ms: filter.until_ms,
            kind: filter.kind.as_deref().map(attribute),
            ip: filter.source_ip.as_deref().map(attribute),
        }
    }

    /// Whether something of a stretch can be wanted.
    fn takes_of(&self, stretch: i64) -> bool {
        let (from_ms, end_ms) = schema::stretch_ms(stretch);
        from_ms <= self.until_ms && self.since_ms < end_ms
    }

    /// Whether it takes a look at attributes to tell what of a stretch is wanted.
    fn is_of_attributes(&self, stretch: i64) -> bool {
        let (from_ms, end_ms) = schema::stretch_ms(stretch);
        let is_whole = self.since_ms <= from_ms && end_ms <= self.until_ms;
        !is_whole || self.kind.is_some() || self.ip.is_some()
    }

    fn takes(&self, it: Attributes) -> bool {
        (self.since_ms..=self.until_ms).contains(&it.timestamp_ms)
            && self.kind.is_none_or(|kind| kind == it.kind)
            && self.ip.is_none_or(|ip| ip == it.ip)
    }
}
