//! What holds for every request: which hosts we are, who may ask and how often, how long it may take, and
//! what browsers are told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Service;
use super::access::Client;
use super::keys::{Holder, Role};
use super::peer;
use super::problem::Problem;
use super::rate::asker;
use crate::store::FRAME_BYTES_MAX;

/// How long a request may take until its answer begins.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a body at the most, but for the frames of a peer: no other request needs one.
pub(super) const BODY_BYTES_MAX: usize = 16 << 10;

/// What browsers are told of every answer. Nothing is loaded from elsewhere, and nobody shows us in a frame.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// The names that we are asked by. A page elsewhere can have a browser ask us by its own name, once that
/// name leads to our address.
pub(super) struct Hosts {
    address: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    pub(super) fn new(address: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        Self {
            address: address.ip(),
            names: names.chain(["localhost".to_owned()]).collect(),
        }
    }

    /// Ports are not looked at, since somebody may forward another one to ours.
    pub(super) fn has(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            // A name is what can be made to lead elsewhere.
            Ok(address) => {
                self.address.is_unspecified()
                    || address == self.address
                    || (address.is_loopback() && self.address.is_loopback())
            }
            Err(_) => self.names.contains(&host),
        }
    }
}

/// Passes on what is asked of us and small, and sees to it that an answer begins in time.
pub(super) async fn admit(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let named = request.headers().get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    // A proxy's form of a request names the host twice.
    let of_target = request.uri().authority().map(Authority::as_str);
    let is_ours = named.is_some_and(|host| service.hosts.has(host))
        && of_target.is_none_or(|host| service.hosts.has(host));
    if !is_ours {
        let detail = "this is another host: name it with --host-name if it is this one";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    // One that does not say how long it is is counted as it is read, if anybody reads it.
    let path = request.extensions().get::<MatchedPath>();
    let n_bytes_max = if path.is_some_and(|path| peer::takes_frames(path.as_str())) {
        FRAME_BYTES_MAX
    } else {
        BODY_BYTES_MAX
    };
    if request.body().size_hint().lower() > n_bytes_max as u64 {
        return Err(too_long(n_bytes_max));
    }
    let answer = tokio::time::timeout(TIME_MAX, next.run(request)).await;
    answer.map_err(|_| Problem::unavailable("the answer takes too long"))
}

pub(super) fn too_long(n_bytes_max: usize) -> Problem {
    let detail = format!("a body has {n_bytes_max} bytes at the most");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Adds what browsers are told.
pub(super) async fn tell_browsers(request: Request, next: Next) -> Response {
    let is_data = request.uri().path().starts_with("/api");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_data {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Passes on what comes with a key, if there are keys, and not too often.
pub(super) async fn authenticate(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Response {
    let holder = match holder(&service, request.headers()) {
        Ok(holder) => holder,
        Err(problem) => {
            // Guessing has a rate, too.
            let refused = count(&service, &request, None).err();
            return refused.unwrap_or(problem).into_response();
        }
    };
    if let Err(problem) = count(&service, &request, holder.as_ref()) {
        return remember(problem.into_response(), holder);
    }
    if let Some(holder) = &holder {
        request.extensions_mut().insert(holder.clone());
    }
    remember(next.run(request).await, holder)
}

/// The same for one of many requests that belong together: the first of them has been counted.
pub(super) async fn authenticate_often(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    match holder(&service, request.headers()) {
        Ok(holder) => remember(next.run(request).await, holder),
        Err(problem) => {
            let refused = count(&service, &request, None).err();
            refused.unwrap_or(problem).into_response()
        }
    }
}

/// The same for what needs no key.
pub(super) async fn limit(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    match count(&service, &request, None) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Passes on what an administrator asks. Without keys everybody is one, from this machine.
pub(super) async fn need_admin(request: Request, next: Next) -> Result<Response, Problem> {
    let holder = request.extensions().get::<Holder>();
    if holder.is_some_and(|holder| holder.role != Role::Admin) {
        let detail = "this takes the key of an administrator";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(next.run(request).await)
}

/// Lets the log know whose request it was.
fn remember(mut response: Response, holder: Option<Holder>) -> Response {
    if let Some(holder) = holder {
        response.extensions_mut().insert(holder);
    }
    response
}

/// Whether who has sent these headers may ask, still.
pub(super) fn may_ask(service: &Service, headers: &HeaderMap) -> bool {
    holder(service, headers).is_ok()
}

/// Whose key a request comes with; none if no keys are asked for.
fn holder(service: &Service, headers: &HeaderMap) -> Result<Option<Holder>, Problem> {
    let Some(keys) = &service.keys else {
        return Ok(None);
    };
    let key = key(headers).ok_or_else(|| refused("there is no key"))?;
    match keys.holder(key) {
        Ok(Some(holder)) => Ok(Some(holder)),
        Ok(None) => Err(refused("the key is not valid")),
        Err(error) => {
            service.questions.tell(&error);
            Err(Problem::unavailable("keys cannot be checked"))
        }
    }
}

fn refused(what: &str) -> Problem {
    let detail = format!("{what}: send `Authorization: Bearer KEY`");
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    if let Some(credentials) = text(header::AUTHORIZATION) {
        let (scheme, key) = credentials.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim());
    }
    text(HeaderName::from_static("x-api-key"))
}

fn count(service: &Service, request: &Request, holder: Option<&Holder>) -> Result<(), Problem> {
    let client = request.extensions().get::<Client>();
    let who = match (holder, client) {
        (Some(holder), _) => format!("key {}", holder.name),
        (None, Some(Client(address))) => asker(address.ip()),
        (None, None) => String::new(),
    };
    service.rates.count(&who).map_err(|wait| {
        let detail = "too many requests: ask again a little later";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).again_in(wait.as_secs() + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_asked_by_our_own_names_only() {
        let check = |address: &str, host: &str, expected: bool| {
            let address = address.parse().expect("an address");
            let hosts = Hosts::new(address, &["Siem.example".to_owned()]);
            assert_eq!(hosts.has(host), expected, "{host} at {address}");
        };
        let loopback = "127.0.0.1:8081";
        for host in [
            "127.0.0.1:8081",
            "127.0.0.1",
            "localhost:9000",
            "LOCALHOST",
            "[::1]:8081",
        ] {
            check(loopback, host, true);
        }
        check(loopback, "siem.example", true);
        check("203.0.113.7:443", "203.0.113.7", true);
        check("0.0.0.0:443", "203.0.113.7", true);
        check("[::]:443", "[2001:db8::1]", true);
        for host in [
            "evil.example",
            "203.0.113.7",
            "localhost.evil.example",
            "",
            "a b",
            "127.0.0.1.nip.io",
        ] {
            check(loopback, host, false);
        }
        check("203.0.113.7:443", "127.0.0.1", false);
        check("0.0.0.0:443", "evil.example", false);
    }
}
