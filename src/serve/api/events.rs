//! Events: a list of those that match, one by its id, how many there are.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{Count, Dated, Event, List, OfFound as _, first, page};
use super::parameters::{
    Asked, LIMIT_MAX, Limit, Named, Ordering, Place, Range, Stretch, Which, parse_score, score,
};
use crate::query::{self, Filter, Stopped, Wanted};
use crate::serve::Service;
use crate::serve::problem::{Missing, Problem, Refusals};
use crate::store::{Counters, Order};

/// Items that are counted one by one.
const COUNT_MAX: u64 = 100_000;
/// How long it is counted.
const COUNT_TIME_MAX: Duration = Duration::from_secs(3);
/// What threat scores are from, if nobody says.
const THREAT_SCORE: f64 = 0.7;

pub(super) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(count))
        .routes(routes!(within))
        .routes(routes!(by_threat))
        .routes(routes!(one))
}

/// Events
#[utoipa::path(
    get, path = "/api/events", tag = "events",
    params(Which, Ordering, Limit, Place),
    responses((status = 200, description = "Those that match", body = List<Event>), Refusals)
)]
async fn list(State(service): State<Service>, asked: Asked) -> Result<Json<List<Event>>, Problem> {
    listed(&service, asked.filter, |_| true).await
}

/// Events between two times, the oldest first
#[utoipa::path(
    get, path = "/api/events/time-range", tag = "events",
    params(Stretch, Limit, Place),
    responses((status = 200, description = "Those of that time", body = List<Event>), Refusals)
)]
async fn within(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<Event>>, Problem> {
    let order = Order::OldestFirst;
    let filter = Filter {
        order,
        ..asked.filter
    };
    listed(&service, filter, |_| true).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Threat {
    /// A threat score from this on; 0.7 if it is not said
    #[param(schema_with = score)]
    min: Option<String>,
    /// A threat score up to this
    #[param(schema_with = score)]
    max: Option<String>,
}

/// Events by their threat score, the newest first
#[utoipa::path(
    get, path = "/api/events/threat-score", tag = "events",
    params(Threat, Range, Limit, Place),
    responses((status = 200, description = "Those with such a score", body = List<Event>), Refusals)
)]
async fn by_threat(
    State(service): State<Service>,
    Query(threat): Query<Threat>,
    asked: Asked,
) -> Result<Json<List<Event>>, Problem> {
    let min = parse_score("min", threat.min.as_deref())?.unwrap_or(THREAT_SCORE);
    let max = parse_score("max", threat.max.as_deref())?.unwrap_or(1.0);
    listed(&service, asked.filter, move |found| {
        let score = found.block.events[0].threat_score;
        score.is_some_and(|score| score >= min && score <= max)
    })
    .await
}

/// How many events match
///
/// Up to 100,000 are counted, for three seconds at most. Without a filter all are known to be there.
#[utoipa::path(
    get, path = "/api/events/count", tag = "events",
    params(Which),
    responses((status = 200, description = "How many there are", body = Dated<Count>), Refusals)
)]
async fn count(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<Dated<Count>>, Problem> {
    counted(&service, Wanted::Events, asked, |counters| counters.events).await
}

/// An event by its id
///
/// With its anomaly, and what analysts have found of it. There are several if the id was used at several
/// times, the oldest first.
#[utoipa::path(
    get, path = "/api/events/{id}", tag = "events",
    params(("id" = String, Path, min_length = 1, max_length = 256)),
    responses((status = 200, description = "Those of that id", body = List<Event>), Missing, Refusals)
)]
async fn one(
    State(service): State<Service>,
    Named(id): Named,
) -> Result<Json<List<Event>>, Problem> {
    let events = service.questions.ask(move |parts| {
        first::<Event>(|take| {
            let mut n_left = LIMIT_MAX;
            query::events_of_id(parts, &id, Order::OldestFirst, |found| {
                n_left -= 1;
                Ok(take(Event::of(&found)?) && n_left > 0)
            })
        })
    });
    let (events, as_of) = events.await?;
    if events.is_empty() {
        return Err(Problem::not_found("there is no event of that id"));
    }
    Ok(Json(List::page((events, as_of))))
}

/// Events that match, as far as `keep` keeps them.
pub(super) async fn listed(
    service: &Service,
    filter: Filter,
    keep: impl Fn(&query::Found) -> bool + Send + 'static,
) -> Result<Json<List<Event>>, Problem> {
    let found = service
        .questions
        .ask(move |parts| page(parts, Wanted::Events, &filter, &keep));
    Ok(Json(List::page(found.await?)))
}

/// Counts what matches; `known` says how many there are if nothing is asked for but everything.
pub(super) async fn counted(
    service: &Service,
    wanted: Wanted,
    asked: Asked,
    known: fn(&Counters) -> u64,
) -> Result<Json<Dated<Count>>, Problem> {
    if asked.is_everything {
        let count =
            (service.questions).ask(move |parts| Ok(Count::exact(known(&query::counters(parts)?))));
        return Ok(Json(Dated::new(count.await?)));
    }
    let filter = Filter {
        limit: usize::MAX,
        ..asked.filter
    };
    let count = service.questions.ask_within(COUNT_TIME_MAX, move |parts| {
        let mut count = 0;
        let mut is_exact = true;
        let searched = query::search(parts, wanted, &filter, |_| {
            is_exact = count < COUNT_MAX;
            count += u64::from(is_exact);
            Ok(is_exact)
        });
        match searched {
            Err(error) if error.is::<Stopped>() => is_exact = false,
            other => drop(other?),
        }
        Ok(Count { count, is_exact })
    });
    Ok(Json(Dated::new(count.await?)))
}
