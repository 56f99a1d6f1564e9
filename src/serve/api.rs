//! The paths of the API: how each is documented, and what it answers. The document is made of the same
//! types and functions as the answers.

#![expect(
    unused_qualifications,
    reason = "the macros of the document write them"
)]

mod anomalies;
mod answer;
mod events;
mod others;
mod parameters;
mod stats;
mod status;

use axum::Router;
use axum::middleware::from_fn;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub(super) use parameters::{Known, check, parse_severity, parse_text, query};

use super::{Service, document, guard};

/// Paths that take a key if there are keys, those that never do, and the document of both.
pub(super) fn routes() -> (Router<Service>, Router<Service>, OpenApi) {
    let (api, document) = OpenApiRouter::with_openapi(document::base())
        .merge(events::routes())
        .merge(anomalies::routes())
        .merge(others::routes())
        .merge(stats::routes())
        .split_for_parts();
    let (admin, document) = OpenApiRouter::with_openapi(document)
        .merge(status::admin_routes())
        .split_for_parts();
    let (open, document) = OpenApiRouter::with_openapi(document)
        .merge(status::routes())
        .split_for_parts();
    let admin = admin.route_layer(from_fn(guard::need_admin));
    (api.merge(admin), open, document)
}
