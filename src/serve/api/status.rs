//! Whether we are there and ready, and who may ask.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::parameters::Named;
use crate::serve::Service;
use crate::serve::keys::{self, Holder, KeyInfo};
use crate::serve::problem::{Conflict, Forbidden, Missing, Problem, Refusals};

pub(super) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(health_ready))
}

pub(super) fn admin_routes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(list_keys))
        .routes(routes!(revoke_key))
}

#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`
    status: &'static str,
    version: &'static str,
}

/// Whether the server is there
#[utoipa::path(
    get, path = "/api/health", tag = "status", security(()),
    responses((status = 200, description = "It is", body = Health), Refusals)
)]
async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Serialize, ToSchema)]
struct Ready {
    /// `ready`
    status: &'static str,
    /// Answers are right for this time
    #[schema(format = DateTime)]
    as_of: String,
    /// Who writes to the database now
    #[schema(required = true)]
    writer: Option<Writing>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Writer)]
struct Writing {
    program: String,
    pid: u32,
}

/// Whether the database can be asked
#[utoipa::path(
    get, path = "/api/ready", tag = "status", security(()),
    responses((status = 200, description = "It can", body = Ready), Refusals)
)]
async fn ready(State(service): State<Service>) -> Result<Json<Ready>, Problem> {
    is_ready(&service).await
}

/// Whether the database can be asked
#[utoipa::path(
    get, path = "/api/health/ready", tag = "status", security(()),
    responses((status = 200, description = "It can", body = Ready), Refusals)
)]
async fn health_ready(State(service): State<Service>) -> Result<Json<Ready>, Problem> {
    is_ready(&service).await
}

async fn is_ready(service: &Service) -> Result<Json<Ready>, Problem> {
    let looked = service.questions.look().await;
    let (as_of, writer) =
        looked.map_err(|_| Problem::unavailable("the database cannot be asked"))?;
    Ok(Json(Ready {
        status: "ready",
        as_of: as_of.text(),
        writer: writer.map(|writer| Writing {
            program: writer.program,
            pid: writer.pid,
        }),
    }))
}

#[derive(Serialize, ToSchema)]
struct KeyList {
    items: Vec<KeyInfo>,
}

/// The keys, without what they are told by
#[utoipa::path(
    get, path = "/api/admin/keys", tag = "keys",
    responses((status = 200, description = "The oldest first", body = KeyList), Forbidden, Refusals)
)]
async fn list_keys(State(service): State<Service>) -> Result<Json<KeyList>, Problem> {
    let items = match &service.keys {
        Some(known) => keys::list(known.path()).map_err(|error| failed(&service, &error))?,
        None => Vec::new(),
    };
    Ok(Json(KeyList { items }))
}

/// Revokes a key, at once and for good
#[utoipa::path(
    delete, path = "/api/admin/keys/{name}", tag = "keys",
    params(("name" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 204, description = "It is revoked"), Forbidden, Missing, Conflict, Refusals)
)]
async fn revoke_key(
    State(service): State<Service>,
    holder: Option<Extension<Holder>>,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    if holder.is_some_and(|holder| *holder.name == *name) {
        let detail = "a key does not revoke itself: `sg-query keys revoke` does it";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let is_known = match &service.keys {
        // It is a small file, and there are few who may ask for this.
        Some(known) => {
            keys::revoke(known.path(), &name).map_err(|error| failed(&service, &error))?
        }
        None => false,
    };
    if is_known {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("there is no key of that name"))
}

fn failed(service: &Service, error: &anyhow::Error) -> Problem {
    service.questions.tell(error);
    Problem::unavailable("the file of keys cannot be used")
}
