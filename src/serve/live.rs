//! Events as they are stored, for as long as somebody listens (server-sent events, WHATWG HTML 9.2). It is
//! not in the document of the API, which has no words for answers without an end.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{parse_severity, parse_text, query};
use super::problem::Problem;
use super::{Service, guard};
use crate::query::{Filter, Found, Seen, Wanted, Watch, cursor};
use crate::record::FIELD_BYTES_MAX;
use crate::store::Live;

/// Those who listen at once.
pub(super) const LISTENERS_MAX: usize = 32;
/// Events on their way to one of them.
const EVENTS_MAX: usize = 64;
/// How long to wait for something new before looking whether anybody listens.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often those are told that we are still there who have heard nothing.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/api/live", get(live))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    what: Option<String>,
    severity: Option<String>,
    user: Option<String>,
}

/// Anomalies, or all events, from now on.
async fn live(
    State(service): State<Service>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let which: Which = query(&uri)?;
    let wanted = match which.what.as_deref() {
        None | Some("anomalies") => Wanted::Anomalies,
        Some("events") => Wanted::Events,
        Some(_) => return Err(Problem::bad("what: expected anomalies or events")),
    };
    let filter = Filter {
        severity: which.severity.as_deref().map(parse_severity).transpose()?,
        user: parse_text("user", which.user.as_deref(), FIELD_BYTES_MAX)?,
        ..Filter::default()
    };
    let Ok(place) = Arc::clone(&service.listeners).try_acquire_owned() else {
        return Err(Problem::unavailable("too many are listening already"));
    };
    let (sender, receiver) = channel(EVENTS_MAX);
    let place = Arc::new(place);
    for number in 0..service.questions.databases().lives().len() {
        let watching = Watching {
            lives: Arc::clone(service.questions.databases().lives()),
            number,
            wanted,
            sender: sender.clone(),
            service: Arc::clone(&service),
            key: headers.clone(),
            _place: Arc::clone(&place),
        };
        let filter = filter.clone();
        let started = thread::Builder::new()
            .name("live".to_owned())
            .spawn(move || watching.run(filter));
        started.map_err(|_| Problem::unavailable("the system has no thread left"))?;
    }
    // Whoever listens hears of it at once that it is heard.
    let begun = tokio_stream::once(Ok(Event::default().comment("listening")));
    let events = begun.chain(ReceiverStream::new(receiver).map(Ok::<_, Infallible>));
    let alive = KeepAlive::new().interval(ALIVE_INTERVAL);
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

/// A thread that watches a database for somebody.
struct Watching {
    lives: Arc<Vec<Live>>,
    number: usize,
    wanted: Wanted,
    sender: Sender<Event>,
    service: Service,
    /// What the request came with: it has to be good as long as somebody listens.
    key: HeaderMap,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Watching {
    fn run(self, filter: Filter) {
        let mut watch = Watch::begin(&self.lives[self.number], self.wanted, filter);
        let is_over = || *self.service.stop.borrow() || self.sender.is_closed();
        while !is_over() && guard::may_ask(&self.service, &self.key) {
            // A database that cannot be read now is told of by whoever asks it.
            let seen = watch.next(PATIENCE).unwrap_or_else(|_| {
                thread::sleep(PATIENCE);
                Seen::default()
            });
            if seen.is_broken {
                // A program was killed, and nobody knows what it has stored last.
                self.send(Event::default().event("gap").data("{}"));
            }
            if seen.n_skipped > 0 {
                let data = format!("{{\"skipped\":{}}}", seen.n_skipped);
                self.send(Event::default().event("skipped").data(data));
            }
            for found in &seen.found {
                self.send(self.event(found));
            }
        }
    }

    fn send(&self, event: Event) {
        // Nobody listens any more, which the next look shows.
        let _ = self.sender.blocking_send(event);
    }

    fn event(&self, found: &Found) -> Event {
        let mut line = Vec::new();
        found.push_line(&mut line);
        // An event's own line may have some between its values, where a blank is as good.
        let line = String::from_utf8_lossy(line.trim_ascii_end()).replace('\r', " ");
        let name = match self.wanted {
            Wanted::Anomalies => "anomaly",
            _ => "event",
        };
        let event = Event::default().event(name).id(cursor(&found.key));
        event.data(line)
    }
}
