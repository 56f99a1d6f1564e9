//! What servers of other machines ask, or `sg-query --peer`: the reads that their questions are made of. It
//! is between programs of one release, so it is not in the document of the API.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Service;
use super::api::query;
use super::guard;
use super::problem::Problem;
use crate::store::{FRAME_BYTES_MAX, Guests, PEER_PATH};

/// Frames that are answered at once.
pub(super) const AT_ONCE: usize = 16;

/// Those who ask.
pub(super) struct Peers {
    guests: Arc<Guests>,
    turns: Arc<Semaphore>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            guests: Arc::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// Where a session begins, and where it goes on. One question is many frames.
pub(super) fn routes() -> (Router<Service>, Router<Service>) {
    let begin = Router::new().route(PEER_PATH, post(begin));
    let path = format!("{PEER_PATH}/{{session}}");
    let go_on = Router::new()
        .route(&path, post(exchange).delete(end))
        .route_layer(DefaultBodyLimit::max(FRAME_BYTES_MAX));
    (begin, go_on)
}

/// Whether what comes to a path are frames.
pub(super) fn takes_frames(path: &str) -> bool {
    path.starts_with(PEER_PATH) && path != PEER_PATH
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    database: usize,
}

#[derive(Serialize)]
struct Begun {
    session: String,
}

async fn begin(State(service): State<Service>, uri: Uri) -> Result<Json<Begun>, Problem> {
    let which: Which = query(&uri)?;
    let lives = service.questions.databases().lives();
    if which.database >= lives.len() {
        return Err(Problem::not_found("there are not so many databases"));
    }
    let begun = (service.peers.guests).begin(lives, which.database, service.questions.program());
    match begun {
        Ok(Some(session)) => Ok(Json(Begun { session })),
        Ok(None) => Err(Problem::unavailable("too many are asking already")),
        Err(error) => {
            service.questions.tell(&error);
            Err(Problem::unavailable("no session can be begun"))
        }
    }
}

async fn exchange(
    State(service): State<Service>,
    Path(session): Path<String>,
    frame: Result<Bytes, BytesRejection>,
) -> Result<Vec<u8>, Problem> {
    let frame = frame.map_err(|rejected| match rejected.status() {
        StatusCode::PAYLOAD_TOO_LARGE => guard::too_long(FRAME_BYTES_MAX),
        _ => Problem::bad("the frame has not come whole"),
    })?;
    let turn = Arc::clone(&service.peers.turns).acquire_owned().await;
    let guests = Arc::clone(&service.peers.guests);
    let answered = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        guests.exchange(&session, frame.to_vec())
    });
    let answer = answered.await.ok().flatten();
    answer.ok_or_else(|| Problem::not_found("the session has ended"))
}

async fn end(State(service): State<Service>, Path(session): Path<String>) -> StatusCode {
    service.peers.guests.end(&session);
    StatusCode::NO_CONTENT
}
