//! Anomalies, and what language models have said of events.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Object;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{Anomaly, AnomalyOrEvent, Count, Dated, Event, List, OfFound, first, page};
use super::events::counted;
use super::parameters::{
    Asked, Limit, Named, Ordering, Place, Stretch, Which, integer, one_of, parse_integer,
    parse_score, parse_severity, parse_text, score,
};
use crate::query::{self, Filter, Found, Wanted};
use crate::record::FIELD_BYTES_MAX;
use crate::record::anomaly::Severity;
use crate::serve::Service;
use crate::serve::problem::{Problem, Refusals};
use crate::store::Order;
use crate::time::now_ms;

/// The scores that are high, if nobody says.
const HIGH_SCORE: f64 = 0.7;
/// The hours that are recent, if nobody says.
const RECENT_HOURS: u64 = 24;
const HOURS_MAX: u64 = 8_784;

pub(super) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(high))
        .routes(routes!(recent))
        .routes(routes!(within))
        .routes(routes!(count))
        .routes(routes!(of_user))
        .routes(routes!(analyses))
        .routes(routes!(analyses_by_severity))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Form {
    /// What comes first: the newest, or the highest score, for which there is no `next`
    #[param(schema_with = sort)]
    sort: Option<String>,
    /// What is shown: anomalies, or events with all that is known of them
    #[param(schema_with = what)]
    what: Option<String>,
}

fn sort() -> Object {
    one_of(["time", "score"])
}

fn what() -> Object {
    one_of(["anomalies", "events"])
}

/// Events that are out of character
#[utoipa::path(
    get, path = "/api/anomalies", tag = "anomalies",
    params(Which, Ordering, Limit, Place, Form),
    responses((status = 200, description = "Those that match", body = List<AnomalyOrEvent>), Refusals)
)]
async fn list(
    State(service): State<Service>,
    Query(form): Query<Form>,
    asked: Asked,
) -> Result<Json<List<AnomalyOrEvent>>, Problem> {
    let by_score = match form.sort.as_deref() {
        None | Some("time") => false,
        Some("score") => true,
        Some(_) => return Err(Problem::bad("sort: expected time or score")),
    };
    match form.what.as_deref() {
        None | Some("anomalies") => shown::<Anomaly>(&service, asked.filter, by_score).await,
        Some("events") => shown::<Event>(&service, asked.filter, by_score).await,
        Some(_) => Err(Problem::bad("what: expected anomalies or events")),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Threshold {
    /// With a score from this on; 0.7 if it is not said
    #[param(schema_with = score)]
    threshold: Option<String>,
}

/// Anomalies with a high score, the newest first
#[utoipa::path(
    get, path = "/api/anomalies/high-score", tag = "anomalies",
    params(Threshold, Limit, Place),
    responses((status = 200, description = "Those with such a score", body = List<Anomaly>), Refusals)
)]
async fn high(
    State(service): State<Service>,
    Query(threshold): Query<Threshold>,
    asked: Asked,
) -> Result<Json<List<Anomaly>>, Problem> {
    let min_score = parse_score("threshold", threshold.threshold.as_deref())?;
    let min_score = min_score.or(Some(HIGH_SCORE));
    newest(
        &service,
        Filter {
            min_score,
            ..asked.filter
        },
    )
    .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Recent {
    /// Of so many hours up to now
    #[param(schema_with = hours)]
    hours: Option<String>,
}

fn hours() -> Object {
    integer(1..=HOURS_MAX, Some(RECENT_HOURS))
}

/// Anomalies of the last hours, the newest first
#[utoipa::path(
    get, path = "/api/anomalies/recent", tag = "anomalies",
    params(Recent, Limit, Place),
    responses((status = 200, description = "Those of that time", body = List<Anomaly>), Refusals)
)]
async fn recent(
    State(service): State<Service>,
    Query(recent): Query<Recent>,
    asked: Asked,
) -> Result<Json<List<Anomaly>>, Problem> {
    let hours = parse_integer("hours", recent.hours.as_deref(), 1..=HOURS_MAX)?;
    let since_ms = now_ms() - hours.unwrap_or(RECENT_HOURS) as i64 * 3_600_000;
    newest(
        &service,
        Filter {
            since_ms,
            ..asked.filter
        },
    )
    .await
}

/// Anomalies between two times, the oldest first
#[utoipa::path(
    get, path = "/api/anomalies/time-range", tag = "anomalies",
    params(Stretch, Limit, Place),
    responses((status = 200, description = "Those of that time", body = List<Anomaly>), Refusals)
)]
async fn within(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<Anomaly>>, Problem> {
    let order = Order::OldestFirst;
    newest(
        &service,
        Filter {
            order,
            ..asked.filter
        },
    )
    .await
}

/// Anomalies of a user, the newest first
#[utoipa::path(
    get, path = "/api/anomalies/user/{user}", tag = "anomalies",
    params(("user" = String, Path, min_length = 1, max_length = 1024), Limit, Place),
    responses((status = 200, description = "Those of the user", body = List<Anomaly>), Refusals)
)]
async fn of_user(
    State(service): State<Service>,
    Named(user): Named,
    asked: Asked,
) -> Result<Json<List<Anomaly>>, Problem> {
    let user = parse_text("user", Some(&user), FIELD_BYTES_MAX)?;
    newest(
        &service,
        Filter {
            user,
            ..asked.filter
        },
    )
    .await
}

/// How many anomalies match
///
/// Up to 100,000 are counted, for three seconds at most. Without a filter all are known to be there.
#[utoipa::path(
    get, path = "/api/anomalies/count", tag = "anomalies",
    params(Which),
    responses((status = 200, description = "How many there are", body = Dated<Count>), Refusals)
)]
async fn count(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<Dated<Count>>, Problem> {
    counted(&service, Wanted::Anomalies, asked, |counters| {
        counters.anomalies.total()
    })
    .await
}

/// Events that a language model was asked about
#[utoipa::path(
    get, path = "/api/analyses", tag = "analyses",
    params(Which, Ordering, Limit, Place),
    responses((status = 200, description = "Those that match", body = List<Event>), Refusals)
)]
async fn analyses(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<Event>>, Problem> {
    found(&service, Wanted::Analyses, asked.filter, |_| true).await
}

/// Events of one severity that a language model was asked about
#[utoipa::path(
    get, path = "/api/analyses/severity/{severity}", tag = "analyses",
    params(("severity" = Severity, Path), Limit, Place),
    responses((status = 200, description = "Those of that severity", body = List<Event>), Refusals)
)]
async fn analyses_by_severity(
    State(service): State<Service>,
    Named(severity): Named,
    asked: Asked,
) -> Result<Json<List<Event>>, Problem> {
    let severity = parse_severity(&severity)?;
    let filter = Filter {
        severity: Some(severity),
        ..asked.filter
    };
    found(&service, Wanted::Analyses, filter, move |found| {
        let found = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
        found == Some(severity)
    })
    .await
}

async fn newest(service: &Service, filter: Filter) -> Result<Json<List<Anomaly>>, Problem> {
    found(service, Wanted::Anomalies, filter, |_| true).await
}

async fn found<T: OfFound + Send + 'static>(
    service: &Service,
    wanted: Wanted,
    filter: Filter,
    keep: impl Fn(&Found) -> bool + Send + 'static,
) -> Result<Json<List<T>>, Problem> {
    let found = service
        .questions
        .ask(move |parts| page(parts, wanted, &filter, &keep));
    Ok(Json(List::page(found.await?)))
}

/// Anomalies in one of their forms.
async fn shown<T>(
    service: &Service,
    filter: Filter,
    by_score: bool,
) -> Result<Json<List<AnomalyOrEvent>>, Problem>
where
    T: OfFound + Into<AnomalyOrEvent> + Send + 'static,
{
    let found = service.questions.ask(move |parts| {
        let page = if by_score {
            first::<T>(|take| {
                query::top_anomalies(parts, &filter, |found| Ok(take(T::of(&found)?)))
            })?
        } else {
            page::<T>(parts, Wanted::Anomalies, &filter, |_| true)?
        };
        Ok(page.into())
    });
    Ok(Json(List::page(found.await?)))
}
