//! How much there is of what, when, and of whom.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Object;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{Dated, List};
use super::parameters::{Asked, Limit, Range, integer, parse_integer, parse_ms, severity};
use crate::query::{self, BUCKETS_MAX, Filter, Summary, Timeline, TroubledUser};
use crate::serve::Service;
use crate::serve::problem::{Problem, Refusals};

/// Buckets if nobody says how many.
const BUCKETS: u64 = 100;
/// Users if nobody says how many.
const USERS: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(summary))
        .routes(routes!(timeline))
        .routes(routes!(users))
}

/// How much there is of what
#[utoipa::path(
    get, path = "/api/stats/summary", tag = "stats",
    responses((status = 200, description = "All together", body = Dated<Summary>), Refusals)
)]
async fn summary(State(service): State<Service>) -> Result<Json<Dated<Summary>>, Problem> {
    let summary = (service.questions).ask(|parts| Ok(query::stats(parts)?.summary()));
    Ok(Json(Dated::new(summary.await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Buckets {
    /// Into at most so many stretches
    #[param(schema_with = buckets)]
    buckets: Option<String>,
}

fn buckets() -> Object {
    integer(1..=BUCKETS_MAX as u64, Some(BUCKETS))
}

/// Events and anomalies in stretches of time of one length
///
/// Without times it is from the first event to the last one.
#[utoipa::path(
    get, path = "/api/stats/timeline", tag = "stats",
    params(Range, Buckets),
    responses((status = 200, description = "The oldest first", body = Dated<Timeline>), Refusals)
)]
async fn timeline(
    State(service): State<Service>,
    Query(buckets): Query<Buckets>,
    Query(range): Query<Range>,
) -> Result<Json<Dated<Timeline>>, Problem> {
    let since_ms = parse_ms("since", range.since.as_deref())?;
    let until_ms = parse_ms("until", range.until.as_deref())?;
    let n_buckets = parse_integer(
        "buckets",
        buckets.buckets.as_deref(),
        1..=BUCKETS_MAX as u64,
    )?;
    let n_buckets = n_buckets.unwrap_or(BUCKETS) as usize;
    let timeline =
        (service.questions).ask(move |parts| query::timeline(parts, since_ms, until_ms, n_buckets));
    Ok(Json(Dated::new(timeline.await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "it is read with all others, and is here for the document"
)]
struct HowBad {
    /// By anomalies of this severity or a higher one
    #[param(schema_with = severity)]
    severity: Option<String>,
}

/// Whom anomalies are about, the users with the worst ones first
///
/// Ten are shown if no limit is said.
#[utoipa::path(
    get, path = "/api/stats/users", tag = "stats",
    params(Range, HowBad, Limit),
    responses((status = 200, description = "The worst first", body = List<TroubledUser>), Refusals)
)]
async fn users(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<TroubledUser>>, Problem> {
    let limit = asked.limit.unwrap_or(USERS);
    let filter = Filter {
        limit,
        ..asked.filter
    };
    let users = (service.questions).ask(move |parts| query::troubled_users(parts, &filter));
    Ok(Json(List::whole(users.await?)))
}
