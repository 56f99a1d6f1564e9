//! Answers as clients read them. Events and anomalies pass byte for byte as the programs write them.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::query::similar::Similar;
use crate::query::{self, Filter, Found, Parts, Wanted, cursor};
use crate::record::anomaly::Severity;
use crate::serve::databases::AsOf;

/// Bytes of items in one answer: the next one is left for another answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Items, and where to go on.
#[derive(Serialize, ToSchema)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    /// What to give as `cursor` for the items behind these; null if there are none, or no cursors
    #[schema(required = true)]
    pub(super) next: Option<String>,
    /// What is asked for was so at this time
    #[schema(format = DateTime)]
    pub(super) as_of: String,
}

/// An object, and when it was so.
#[derive(Serialize, ToSchema)]
pub(super) struct Dated<T> {
    #[serde(flatten)]
    pub(super) answer: T,
    /// What is asked for was so at this time
    #[schema(format = DateTime)]
    pub(super) as_of: String,
}

impl<T> Dated<T> {
    pub(super) fn new((answer, as_of): (T, AsOf)) -> Self {
        let as_of = as_of.text();
        Self { answer, as_of }
    }
}

/// A number of items.
#[derive(Serialize, ToSchema)]
pub(super) struct Count {
    pub(super) count: u64,
    /// Whether there are no more
    pub(super) is_exact: bool,
}

impl Count {
    pub(super) fn exact(count: u64) -> Self {
        let is_exact = true;
        Self { count, is_exact }
    }
}

impl<T> List<T> {
    /// All that there is.
    pub(super) fn whole((items, as_of): (Vec<T>, AsOf)) -> Self {
        Self {
            items,
            next: None,
            as_of: as_of.text(),
        }
    }

    pub(super) fn page((page, as_of): (Page<T>, AsOf)) -> Self {
        Self {
            items: page.items,
            next: page.next,
            as_of: as_of.text(),
        }
    }
}

/// An object as a program has written it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Item(Box<RawValue>);

impl Item {
    pub(super) fn of(json: Vec<u8>) -> anyhow::Result<Self> {
        let json = String::from_utf8(json).context("what is stored is not text")?;
        let json = RawValue::from_string(json.trim_end().to_owned());
        Ok(Self(json.context("what is stored is not JSON")?))
    }

    fn n_bytes(&self) -> usize {
        self.0.get().len()
    }

    /// The event with all that stages have added.
    pub(super) fn event(found: &Found) -> anyhow::Result<Self> {
        let mut line = Vec::new();
        found.push_line(&mut line);
        Self::of(line)
    }
}

/// One page of a list.
pub(super) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// The items that match and that `keep` keeps, up to the limit of the filter.
pub(super) fn page<T: OfFound>(
    parts: Parts<'_>,
    wanted: Wanted,
    filter: &Filter,
    keep: impl Fn(&Found) -> bool,
) -> anyhow::Result<Page<T>> {
    let all = Filter {
        limit: usize::MAX,
        ..filter.clone()
    };
    let mut items = Vec::new();
    let mut n_bytes = 0;
    let mut last = None;
    let mut has_more = false;
    query::search(parts, wanted, &all, |found| {
        if !keep(found) {
            return Ok(true);
        }
        if items.len() == filter.limit || n_bytes > ANSWER_BYTES_MAX {
            has_more = true;
            return Ok(false);
        }
        let item = T::of(found)?;
        n_bytes += item.item().n_bytes();
        items.push(item);
        last = Some(found.key.clone());
        Ok(true)
    })?;
    let next = last.filter(|_| has_more).map(|key| cursor(&key));
    Ok(Page { items, next })
}

/// The first of what `find` finds, as many as an answer can hold: what takes an item says whether it takes
/// another one, so that no more than that is ever in memory.
pub(super) fn first<T: Shown>(
    find: impl FnOnce(&mut dyn FnMut(T) -> bool) -> anyhow::Result<()>,
) -> anyhow::Result<Page<T>> {
    let mut items = Vec::new();
    let mut n_bytes = 0;
    find(&mut |item| {
        n_bytes += item.item().n_bytes();
        items.push(item);
        n_bytes <= ANSWER_BYTES_MAX
    })?;
    let next = None;
    Ok(Page { items, next })
}

/// Something that is shown as a program has written it.
pub(super) trait Shown {
    fn item(&self) -> &Item;
}

/// What can be shown of what was found.
pub(super) trait OfFound: Shown + Sized {
    /// # Errors
    /// If it is not JSON.
    fn of(found: &Found) -> anyhow::Result<Self>;
}

/// An event as `sg-query events` writes it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Event(Item);

/// An anomaly as `sg-query anomalies` writes it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Anomaly(Item);

/// Either of them.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct AnomalyOrEvent(Item);

/// An event and how alike it is, as `sg-query similar` writes it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Alike(Item);

impl OfFound for Event {
    fn of(found: &Found) -> anyhow::Result<Self> {
        Item::event(found).map(Self)
    }
}

impl Shown for Event {
    fn item(&self) -> &Item {
        &self.0
    }
}

impl OfFound for Anomaly {
    fn of(found: &Found) -> anyhow::Result<Self> {
        let json = found.anomaly_json.clone().unwrap_or_default();
        Item::of(json).map(Self)
    }
}

impl Shown for Anomaly {
    fn item(&self) -> &Item {
        &self.0
    }
}

impl From<Event> for AnomalyOrEvent {
    fn from(Event(item): Event) -> Self {
        Self(item)
    }
}

impl From<Anomaly> for AnomalyOrEvent {
    fn from(Anomaly(item): Anomaly) -> Self {
        Self(item)
    }
}

impl Alike {
    pub(super) fn of(similar: Similar) -> anyhow::Result<Self> {
        Item::of(similar.into_json()).map(Self)
    }
}

impl Shown for Alike {
    fn item(&self) -> &Item {
        &self.0
    }
}

impl<T> Page<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn into<U>(self) -> Page<U>
    where
        T: Into<U>,
    {
        Page {
            items: self.items.into_iter().map(T::into).collect(),
            next: self.next,
        }
    }
}

/// What an event has, of which the programs know.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read by the document alone")]
struct EventFields {
    #[schema(min_length = 1)]
    event_id: String,
    #[schema(min_length = 1)]
    user: String,
    /// When it was, in ms since 1970
    #[schema(minimum = 0)]
    timestamp: i64,
    /// Or `event_type`
    r#type: Option<String>,
    source_ip: Option<String>,
    geo_location: Option<String>,
    threat_score: Option<f64>,
    status: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
    anomaly: Option<AnomalyFields>,
    /// What an analyst needs to know of the user
    #[schema(value_type = Option<Object>)]
    context: Option<()>,
    /// What a language model has said
    #[schema(value_type = Option<Object>)]
    analysis: Option<()>,
    /// By which events like it are found
    #[schema(value_type = Option<Object>)]
    embedding: Option<()>,
    /// What an analyst has found, if it was asked for this one event
    #[schema(value_type = Option<Object>)]
    feedback: Option<()>,
}

/// What is out of character of an event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read by the document alone")]
struct AnomalyFields {
    event_id: String,
    user: String,
    /// When the event was, in ms since 1970
    timestamp: i64,
    #[schema(minimum = 0, maximum = 1)]
    anomaly_score: f64,
    /// Tells apart what has the same score
    risk: Option<f64>,
    severity: Severity,
    /// The weightiest first
    reasons: Vec<String>,
    /// The likeliest kind of attack
    archetype: Option<String>,
    /// The incident that it is part of
    #[schema(value_type = Option<Object>)]
    incident: Option<()>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read by the document alone")]
struct AlikeFields {
    /// The cosine of the angle between the vectors: 1 is the same direction
    #[schema(minimum = -1, maximum = 1)]
    score: f64,
    #[schema(inline)]
    event: EventFields,
}

type Schemas = Vec<(String, RefOr<Schema>)>;

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        EventFields::schema()
    }
}

impl ToSchema for Event {
    fn schemas(schemas: &mut Schemas) {
        EventFields::schemas(schemas);
    }
}

impl PartialSchema for Anomaly {
    fn schema() -> RefOr<Schema> {
        AnomalyFields::schema()
    }
}

impl ToSchema for Anomaly {
    fn schemas(schemas: &mut Schemas) {
        AnomalyFields::schemas(schemas);
    }
}

impl PartialSchema for AnomalyOrEvent {
    fn schema() -> RefOr<Schema> {
        let any = AnyOfBuilder::new().item(Anomaly::schema());
        any.item(Event::schema()).into()
    }
}

impl ToSchema for AnomalyOrEvent {
    fn schemas(schemas: &mut Schemas) {
        EventFields::schemas(schemas);
        AnomalyFields::schemas(schemas);
    }
}

impl PartialSchema for Alike {
    fn schema() -> RefOr<Schema> {
        AlikeFields::schema()
    }
}

impl ToSchema for Alike {
    fn schemas(schemas: &mut Schemas) {
        AlikeFields::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_an_answer_holds() {
        let long = || Item::of(format!("\"{}\"", "a".repeat(1 << 20)).into_bytes());
        let mut n_found = 0;
        let page = first::<Event>(|take| {
            while take(Event(long()?)) {
                n_found += 1;
            }
            Ok(())
        });
        // The last one is what is above the limit.
        assert_eq!(page.expect("it is JSON").items.len(), n_found + 1);
        assert_eq!(n_found, 3);
    }
}
