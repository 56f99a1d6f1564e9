//! What a client is told when it does not get what it asked for (RFC 9457).

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {detail}")]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// When it makes sense to ask again, in seconds.
    retry_after_s: Option<u64>,
}

/// The same as clients read it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, for people.
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// A question that cannot be understood.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A server that cannot answer now.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).again_in(1)
    }

    pub(super) fn again_in(self, seconds: u64) -> Self {
        let retry_after_s = Some(seconds);
        Self {
            retry_after_s,
            ..self
        }
    }

    /// The document, as it is sent.
    pub(super) fn json(&self) -> Vec<u8> {
        let document = ProblemDocument {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        serde_json::to_vec(&document).expect("memory takes every write")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// What every question may come to.
pub(super) struct Refusals;
/// What a question about one thing may come to.
pub(super) struct Missing;
/// What a text that says nothing comes to.
pub(super) struct Wordless;
/// What a question of a key that may not ask it comes to.
pub(super) struct Forbidden;
/// What comes of a change that would leave nobody who can undo it.
pub(super) struct Conflict;

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

fn responses(of: &[(StatusCode, &str)]) -> Responses {
    let content = || {
        let schema = Ref::from_schema_name("Problem");
        ContentBuilder::new().schema(Some(schema)).build()
    };
    let response = |(status, description): &(StatusCode, &str)| {
        let response = ResponseBuilder::new()
            .description(*description)
            .content(MEDIA_TYPE, content());
        (status.as_str().to_owned(), RefOr::T(response.build()))
    };
    of.iter().map(response).collect()
}

impl IntoResponses for Refusals {
    fn responses() -> Responses {
        responses(&[
            (StatusCode::BAD_REQUEST, "The question cannot be understood"),
            (
                StatusCode::UNAUTHORIZED,
                "There is no key, or not a valid one",
            ),
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                "There is a body that is too large",
            ),
            (StatusCode::MISDIRECTED_REQUEST, "The host is not this one"),
            (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests: see Retry-After",
            ),
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The database cannot be read",
            ),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "There are too many questions, or it takes too long",
            ),
        ])
    }
}

impl IntoResponses for Missing {
    fn responses() -> Responses {
        responses(&[(StatusCode::NOT_FOUND, "There is no such thing")])
    }
}

impl IntoResponses for Wordless {
    fn responses() -> Responses {
        responses(&[(StatusCode::UNPROCESSABLE_ENTITY, "The text says nothing")])
    }
}

impl IntoResponses for Forbidden {
    fn responses() -> Responses {
        responses(&[(
            StatusCode::FORBIDDEN,
            "The key is not one of an administrator",
        )])
    }
}

impl IntoResponses for Conflict {
    fn responses() -> Responses {
        responses(&[(StatusCode::CONFLICT, "The key is the one that asks for it")])
    }
}
