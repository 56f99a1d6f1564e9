//! Metrics over HTTP, and whether the program is well, at an address of their own: whoever watches needs no
//! key, and whoever asks about events cannot keep them from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::guard::{Hosts, tell_browsers};
use super::listen::{self, Limits};
use crate::metrics::{MEDIA_TYPE, Metrics};

/// Those who watch are few, and nobody waits for them at the end.
const LIMITS: Limits = Limits {
    connections_max: 16,
    grace: Duration::from_millis(500),
};
/// Threads that look at what is sampled, which may hang with its disk.
const N_LOOKING: usize = 2;
/// How long an answer may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// A server that is running. It ends when it is dropped.
pub struct MetricsServer {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    connections: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    /// The hosts that we are asked as, if nobody but this machine can ask.
    hosts: Option<Arc<Hosts>>,
}

impl MetricsServer {
    /// Starts to serve.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub fn start(listen: SocketAddr, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(N_LOOKING)
            .thread_name("metrics")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(listen));
        let listener = listener.with_context(|| format!("cannot serve metrics at {listen}"))?;
        let address = listener.local_addr()?;
        let (stop, is_asked) = watch::channel(false);
        let hosts = address.ip().is_loopback();
        let shared = Shared {
            metrics,
            hosts: hosts.then(|| Arc::new(Hosts::new(address, &[]))),
        };
        let connections = listen::serve(listener, None, router(shared), is_asked, LIMITS);
        Ok(Self {
            address,
            connections: Some(runtime.spawn(connections)),
            runtime: Some(runtime),
            stop,
        })
    }

    /// Where the metrics are, for people: `http://127.0.0.1:8080/metrics`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let (Some(runtime), Some(connections)) = (self.runtime.take(), self.connections.take()) {
            // It has panicked at worst.
            let _ = runtime.block_on(connections);
            runtime.shutdown_background();
        }
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "see /metrics, /health and /ready\n") })
        .layer(from_fn_with_state(shared.clone(), admit))
        .layer(from_fn(tell_browsers))
        .with_state(shared)
}

/// Passes on what is asked of us: a page elsewhere can have a browser ask us by its own name, if that leads
/// to this machine.
async fn admit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let hosts = shared.hosts.as_ref();
    if hosts.is_none_or(|hosts| named.is_some_and(|host| hosts.has(host))) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "this is another host\n").into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match looked(move || shared.metrics.text()).await {
        Ok(text) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(response) => response,
    }
}

/// Whether the program works.
async fn health(State(shared): State<Shared>) -> Response {
    if shared.metrics.is_alive() {
        "ok\n".into_response()
    } else {
        unavailable("it has ended")
    }
}

/// Whether it takes events.
async fn ready(State(shared): State<Shared>) -> Response {
    match looked(move || shared.metrics.hindrance()).await {
        Ok(None) => "ready\n".into_response(),
        Ok(Some(why)) => unavailable(&why),
        Err(response) => response,
    }
}

/// Looks at what may take a while.
async fn looked<T: Send + 'static>(
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    let looked = timeout(TIME_MAX, spawn_blocking(look)).await;
    let looked = looked.map_err(|_| unavailable("it takes too long"))?;
    looked.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
