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

/// `text` with nothing but the beginning of what may be a key, however that is escaped.
fn without_keys(text: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_key = false;
    while let Some((character, behind)) = meant(rest) {
        if let Some(behind) = behind_prefix(rest) {
            output.push_str(PREFIX);
            output.push_str("...");
            is_key = true;
            rest = behind;
            continue;
        }
        is_key &= is_part(character);
        if !is_key {
            output.push_str(&rest[..rest.len() - behind.len()]);
        }
        rest = behind;
    }
    output
}

/// What is behind the beginning of a key, if the text starts with one.
fn behind_prefix(text: &str) -> Option<&str> {
    let mut rest = text;
    for expected in PREFIX.chars() {
        let (character, behind) = meant(rest)?;
        if character != expected {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

/// The first character as somebody may read it who knows of escapes, and what is behind it.
fn meant(text: &str) -> Option<(char, &str)> {
    let escape = |text: &str| u8::from_str_radix(text.get(..2)?, 16).ok();
    let mut characters = text.chars();
    let first = characters.next()?;
    if first == '%' {
        let mut code = characters.as_str();
        // A percent sign may be escaped itself, however often.
        while let Some(behind) = code.strip_prefix("25")
            && escape(behind).is_some()
        {
            code = behind;
        }
        if let Some(byte) = escape(code) {
            return Some((char::from(byte), &code[2..]));
        }
    }
    Some((first, characters.as_str()))
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
        // As clients escape them.
        check("/a?user=sgk%5Fab%2dC_1&x=%20", "/a?user=sgk_...&x=%20");
        check("/%73%67%6B%5f%61b/x", "/sgk_.../x");
        check("/sgk%255Fabc%2F1%", "/sgk_...%2F1%");
        check("/sgk%25255Fabc", "/sgk_...");
        check("/a%5Fb%zz%2", "/a%5Fb%zz%2");
        check("/%25252525", "/%25252525");
        check("/%\u{e4}5f%5\u{e4}", "/%\u{e4}5f%5\u{e4}");
    }
}
