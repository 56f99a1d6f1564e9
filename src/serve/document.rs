//! The document of the API, and the page that shows it: Swagger UI, which is part of the program.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa_swagger_ui::Config;

use super::Service;
use super::problem::{Problem, ProblemDocument};

/// Where the document is.
pub(super) const PATH: &str = "/api/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "StreamGuard",
        description = "Questions about events, and about those that are out of character. Times are RFC 3339, \
                       milliseconds since 1970, or a span before now such as 24h. What is stored from now on \
                       is told by /api/live as server-sent events, which this document has no words for: \
                       `event: anomaly` (with what=events: `event: event`) with the event as data, `event: \
                       skipped` with how many came too fast, `event: gap` where nobody knows; severity and user \
                       choose.",
    ),
    components(schemas(ProblemDocument))
)]
struct Document;

/// What the document says of all paths.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Says in the document that a key is asked for, where nothing else is said.
pub(super) fn require_keys(document: &mut utoipa::openapi::OpenApi) {
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", bearer);
    components.add_security_scheme("header", header);
    let names = ["bearer", "header"];
    let all = names.map(|name| SecurityRequirement::new::<_, [String; 0], String>(name, []));
    document.security = Some(all.to_vec());
}

pub(super) fn routes() -> Router<Service> {
    // The page loads its files from beside it.
    let page = get(|| async { Redirect::permanent("/api/docs/") });
    let index = get(|| async { file("") });
    let part = |Path(name): Path<String>| async move { file(&name) };
    Router::new()
        .route(PATH, get(document))
        .route("/api/docs", page)
        .route("/api/docs/", index)
        .route("/api/docs/{*name}", get(part))
}

async fn document(State(service): State<Service>) -> Response {
    let document = service.document.clone();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

fn file(name: &str) -> Response {
    // Nobody else is to be asked what they think of the document, and no other one is to be shown.
    let config = Config::from(PATH).validator_url("none").use_base_layout();
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => {
            let about = [(header::CONTENT_TYPE, file.content_type)];
            (about, file.bytes.into_owned()).into_response()
        }
        _ => Problem::not_found("there is no such file").into_response(),
    }
}
