//! The page for people: files that are part of the program. They hold no data, so they need no key.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::Embed;

use super::Service;
use super::problem::Problem;
use crate::record::text::hex;

/// The files.
#[derive(Embed)]
#[folder = "src/serve/page"]
struct Files;

/// The page of the folder.
const INDEX: &str = "index.html";

pub(super) fn routes() -> Router<Service> {
    let asset = |Path(name): Path<String>, headers: HeaderMap| async move { file(&name, &headers) };
    let index = |headers: HeaderMap| async move { file(INDEX, &headers) };
    Router::new()
        .route("/", get(index))
        .route("/assets/{*name}", get(asset))
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Files::get(name) else {
        return Problem::not_found("there is no such file").into_response();
    };
    let tag = format!("\"{}\"", hex(&file.metadata.sha256_hash()[..16]));
    let about = [
        (header::ETAG, tag.clone()),
        // Asked for again each time, which costs nothing if it is still the same.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_TYPE, content_type(name).to_owned()),
    ];
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|known| {
        let mut tags = known.split(',').map(str::trim);
        tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    });
    if is_known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, file.data.into_owned()).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
