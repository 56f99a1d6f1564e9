//! A line on standard error for each request: who, what, how it ended. It holds no key, whatever a client
//! puts where.

use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::Service;
use super::api::Known;
use super::keys::{Holder, PREFIX};
use crate::record::text::shorten;
use crate::report::say;

/// Lines that wait to be written: a reader of standard error who stops must not stop the server.
const LINES_MAX: usize = 1_024;
/// Characters of an address that are written.
const TARGET_CHARS_MAX: usize = 512;

/// Where a connection comes from.
#[derive(Clone, Copy)]
pub(super) struct Client(pub(super) SocketAddr);

/// The log, or none.
pub(super) struct AccessLog(Option<SyncSender<String>>);

impl AccessLog {
    pub(super) fn start(program: &'static str, is_quiet: bool) -> std::io::Result<Self> {
        if is_quiet {
            return Ok(Self(None));
        }
        let (sender, receiver) = sync_channel::<String>(LINES_MAX);
        let write = move || {
            for line in receiver {
                say(program, &line);
            }
        };
        thread::Builder::new()
            .name("access".to_owned())
            .spawn(write)?;
        Ok(Self(Some(sender)))
    }

    fn write(&self, line: impl FnOnce() -> String) {
        if let Some(sender) = &self.0 {
            // One that nobody takes is lost; the request is not.
            let _ = sender.try_send(line());
        }
    }
}

/// Writes the line of a request.
pub(super) async fn log(State(service): State<Service>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let client = request
        .extensions()
        .get::<Client>()
        .map(|client| client.0.ip());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let metrics = service.metrics.as_ref();
    if let Some(requests) = metrics.and_then(|metrics| metrics.requests.as_ref()) {
        requests.answer(response.status().as_u16());
    }
    service.log.write(|| {
        let holder = response.extensions().get::<Holder>();
        let n_bytes = response
            .body()
            .size_hint()
            .exact()
            .filter(|_| method != Method::HEAD);
        format!(
            "{} {} {method} {} {} {} bytes {} ms",
            client.map_or_else(|| "-".to_owned(), |client| client.to_string()),
            holder.map_or_else(|| "-".to_owned(), |holder| holder.name.replace(' ', "+")),
            target(&service.known, path.as_ref(), &uri),
            response.status().as_u16(),
            n_bytes.map_or_else(|| "-".to_owned(), |n_bytes| n_bytes.to_string()),
            start.elapsed().as_millis(),
        )
    });
    response
}

/// The address without values of parameters that it does not have, and without keys.
fn target(known: &Known, path: Option<&MatchedPath>, uri: &Uri) -> String {
    let mut target = uri.path().to_owned();
    for (i, pair) in uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .enumerate()
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_known = path.is_some_and(|path| known.has(path.as_str(), name));
        target.push(if i == 0 { '?' } else { '&' });
        target.push_str(name);
        if !value.is_empty() {
            target.push('=');
            target.push_str(if is_known { value } else { "..." });
        }
    }
    shorten(&without_keys(&target), TARGET_CHARS_MAX).into_owned()
}

/// `text` with nothing but the beginning of what may be a key.
fn without_keys(text: &str) -> String {
    let mut pieces = text.split(PREFIX);
    let mut output = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_part =
            |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        output.push_str(PREFIX);
        output.push_str("...");
        output.push_str(piece.trim_start_matches(is_part));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_written() {
        let check = |text: &str, expected: &str| assert_eq!(without_keys(text), expected);
        check("/api/events?user=alice", "/api/events?user=alice");
        check("/sgk_abc-DEF_1/x", "/sgk_.../x");
        check("/a?user=sgk_1&ip=sgk_2", "/a?user=sgk_...&ip=sgk_...");
        check("sgk_sgk_1", "sgk_...sgk_...");
    }
}
