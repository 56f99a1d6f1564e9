//! Incidents, events that are alike, what is usual for a user, what analysts have found.

use anyhow::anyhow;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{Alike, List, first};
use super::parameters::{
    Asked, Limit, Named, Range, TEXT_CHARS_MAX, Which, id, parse_text, similar_text, text,
};
use crate::embed::{LOCAL_MODEL, embed_text};
use crate::query::similar::{local_embedding, similar, stored_embedding};
use crate::query::{self, FeedbackFilter, Filter, Incident, Profile};
use crate::record::feedback::Feedback;
use crate::record::{EVENT_ID_BYTES_MAX, FIELD_BYTES_MAX};
use crate::serve::Service;
use crate::serve::problem::{Missing, Problem, Refusals, Wordless};

/// Events that are alike, if nobody says how many.
const ALIKE: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(incidents))
        .routes(routes!(alike))
        .routes(routes!(user))
        .routes(routes!(feedback))
}

/// What anomalies were folded into, the newest first
#[utoipa::path(
    get, path = "/api/incidents", tag = "anomalies",
    params(Which, Limit),
    responses((status = 200, description = "Those with an anomaly that matches", body = List<Incident>), Refusals)
)]
async fn incidents(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<Incident>>, Problem> {
    let filter = asked.filter;
    let found = service.questions.ask(move |parts| {
        let (incidents, _) = query::incidents(parts, &filter)?;
        Ok(incidents)
    });
    Ok(Json(List::whole(found.await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Like the event of this id; either this or `text` is needed
    #[param(schema_with = id)]
    id: Option<String>,
    /// Like these words: what has happened, a type, an address, user:alice, country:RO
    #[param(schema_with = similar_text)]
    text: Option<String>,
}

/// Events that are like one, or like a text
///
/// Those that have a vector are compared. Ten are shown if no limit is said.
#[utoipa::path(
    get, path = "/api/similar", tag = "events",
    params(Like, Which, Limit),
    responses(
        (status = 200, description = "The most alike first", body = List<Alike>),
        Missing, Wordless, Refusals,
    )
)]
async fn alike(
    State(service): State<Service>,
    Query(like): Query<Like>,
    asked: Asked,
) -> Result<Json<List<Alike>>, Problem> {
    let id = parse_text("id", like.id.as_deref(), EVENT_ID_BYTES_MAX)?;
    let text = parse_text("text", like.text.as_deref(), TEXT_CHARS_MAX)?;
    if id.is_some() == text.is_some() {
        return Err(Problem::bad(
            "name an event by id, or say something as text",
        ));
    }
    let limit = asked.limit.unwrap_or(ALIKE);
    let filter = Filter {
        limit,
        ..asked.filter
    };
    let mut indexes = service.questions.indexes().await?;
    let found = service.questions.ask(move |parts| {
        let event = match &id {
            // An id that was used at several times: the newest.
            Some(id) => Some(
                query::newest_event(parts, id)?
                    .ok_or_else(|| anyhow!(Problem::not_found("there is no event of that id")))?,
            ),
            None => None,
        };
        let embedding = match &event {
            Some(event) => stored_embedding(event).unwrap_or_else(|| local_embedding(event)),
            None => embed_text(text.as_deref().unwrap_or_default()).ok_or_else(|| {
                let detail = format!("as a text for {LOCAL_MODEL} it says nothing");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            })?,
        };
        let but = event.as_ref().map(|event| &event.key[..]);
        first::<Alike>(|take| {
            similar(parts, &mut indexes, &embedding, but, &filter, |similar| {
                Ok(take(Alike::of(similar)?))
            })
        })
    });
    Ok(Json(List::page(found.await?)))
}

/// What is usual for a user: hours, addresses, places, types
#[utoipa::path(
    get, path = "/api/users/{user}", tag = "users",
    params(("user" = String, Path, min_length = 1, max_length = 1024)),
    responses((status = 200, description = "What is known", body = Profile), Missing, Refusals)
)]
async fn user(
    State(service): State<Service>,
    Named(user): Named,
) -> Result<Json<Profile>, Problem> {
    parse_text("user", Some(&user), FIELD_BYTES_MAX)?;
    let profile = service
        .questions
        .ask(move |parts| query::profile(parts, &user));
    let (profile, _) = profile.await?;
    let profile = profile.ok_or_else(|| Problem::not_found("there are no events of that user"))?;
    Ok(Json(profile))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "it is read with all others, and is here for the document"
)]
struct Whose {
    /// On events of this user
    #[param(schema_with = text)]
    user: Option<String>,
}

/// What analysts have found of events, that of the newest event first
///
/// `since` and `until` say when it was found, not when the event was.
#[utoipa::path(
    get, path = "/api/feedback", tag = "events",
    params(Range, Whose, Limit),
    responses((status = 200, description = "Those that match", body = List<Feedback>), Refusals)
)]
async fn feedback(
    State(service): State<Service>,
    asked: Asked,
) -> Result<Json<List<Feedback>>, Problem> {
    let filter = FeedbackFilter {
        since_ms: asked.filter.since_ms,
        until_ms: asked.filter.until_ms,
        user: asked.filter.user,
        limit: asked.filter.limit,
    };
    let found = service.questions.ask(move |parts| {
        let mut found = Vec::new();
        query::feedback(parts, &filter, |feedback| {
            found.push(feedback.clone());
            Ok(())
        })?;
        Ok(found)
    });
    Ok(Json(List::whole(found.await?)))
}
