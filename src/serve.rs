//! Answers questions over HTTP, as JSON. It knows how questions come and who may ask; what they mean is
//! told by [`query`](crate::query).
//!
//! A request passes the log, what browsers are told, the check of its host, the check of its key, the
//! check of its parameters, and then its handler, which puts a question to the databases.

mod access;
mod api;
mod databases;
mod document;
mod guard;
pub mod keys;
mod listen;
mod live;
mod metrics;
mod page;
mod peer;
mod problem;
mod questions;
mod rate;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use databases::Databases;
pub use listen::TlsFiles;
pub use metrics::MetricsServer;

use crate::metrics::Metrics;
use access::AccessLog;
use api::Known;
use guard::Hosts;
use keys::Keys;
use listen::Limits;
use peer::Peers;
use problem::Problem;
use questions::Questions;
use rate::Rates;

/// Where and whom to serve.
#[derive(Clone)]
pub struct ServeConfig {
    /// The program, for what is said on standard error.
    pub program: &'static str,
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// The file of keys; without one everybody may ask.
    pub keys: Option<PathBuf>,
    /// Names that we are asked by, beside the address.
    pub host_names: Vec<String>,
    /// Requests a second of each key, or of each address without one.
    pub rate: NonZeroU32,
    /// No line for each request.
    pub quiet: bool,
    /// Where requests are counted, if anybody wants to know.
    pub metrics: Option<Arc<Metrics>>,
}

/// What all requests share.
struct Shared {
    questions: Questions,
    keys: Option<Keys>,
    hosts: Hosts,
    rates: Rates,
    log: AccessLog,
    known: Known,
    /// The document of the API.
    document: String,
    /// Those who hear of events as they are stored.
    listeners: Arc<Semaphore>,
    peers: Peers,
    /// The server is at its end.
    stop: watch::Receiver<bool>,
    metrics: Option<Arc<Metrics>>,
}

type Service = Arc<Shared>;

/// Threads that speak HTTP. Questions have their own.
const N_THREADS: usize = 2;
/// How long questions that nobody waits for may take to notice it.
const GRACE: Duration = Duration::from_secs(1);

/// A server that has its address and its files, and answers nobody yet.
pub struct Bound {
    config: ServeConfig,
    tls: Option<TlsAcceptor>,
    keys: Option<Keys>,
    runtime: Runtime,
    listener: TcpListener,
}

/// A server that is running.
pub struct Server {
    address: SocketAddr,
    has_tls: bool,
    runtime: Runtime,
    stop: watch::Sender<bool>,
    connections: JoinHandle<()>,
}

impl Bound {
    /// Takes the address.
    ///
    /// # Errors
    /// If it is not to be had, or a file cannot be used.
    pub fn new(config: ServeConfig) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(listen::tls).transpose()?;
        let keys = config.keys.as_deref().map(Keys::open).transpose()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(N_THREADS)
            .max_blocking_threads(2 * questions::AT_ONCE + peer::AT_ONCE)
            .thread_name("serve")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(config.listen));
        let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
        Ok(Self {
            config,
            tls,
            keys,
            runtime,
            listener,
        })
    }

    /// Starts to answer.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn serve(self, databases: Databases) -> anyhow::Result<Server> {
        let Self {
            config,
            tls,
            keys,
            runtime,
            listener,
        } = self;
        let has_tls = tls.is_some();
        let address = listener.local_addr()?;
        let (stop, is_asked) = watch::channel(false);
        let router = router(&config, address, keys, databases, is_asked.clone())?;
        let connections = runtime.spawn(listen::serve(
            listener,
            tls,
            router,
            is_asked,
            Limits::OF_API,
        ));
        Ok(Server {
            address,
            has_tls,
            runtime,
            stop,
            connections,
        })
    }
}

impl Server {
    /// Where it is, for people: `http://127.0.0.1:8081`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Takes no more requests, lets those under way come to their end within some seconds, and ends.
    pub fn end(self) {
        self.stop.send_replace(true);
        // It has panicked at worst.
        let _ = self.runtime.block_on(self.connections);
        self.runtime.shutdown_timeout(GRACE);
    }
}

fn router(
    config: &ServeConfig,
    address: SocketAddr,
    keys: Option<Keys>,
    databases: Databases,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Router> {
    let (api, open, mut document) = api::routes();
    if keys.is_some() {
        document::require_keys(&mut document);
    }
    let service = Arc::new(Shared {
        questions: Questions::new(config.program, databases),
        keys,
        hosts: Hosts::new(address, &config.host_names),
        rates: Rates::new(config.rate),
        log: AccessLog::start(config.program, config.quiet)?,
        known: Known::of(&document),
        document: document.to_json()?,
        listeners: Arc::new(Semaphore::new(live::LISTENERS_MAX)),
        peers: Peers::new(),
        stop,
        metrics: config.metrics.clone(),
    });
    let state = || Arc::clone(&service);
    let (begin, go_on) = peer::routes();
    let api = api
        .route_layer(from_fn_with_state(state(), api::check))
        .merge(live::routes())
        .merge(begin)
        .route_layer(from_fn_with_state(state(), guard::authenticate));
    let go_on = go_on.route_layer(from_fn_with_state(state(), guard::authenticate_often));
    let open = open
        .route_layer(from_fn_with_state(state(), api::check))
        .merge(document::routes())
        .merge(page::routes())
        .route_layer(from_fn_with_state(state(), guard::limit));
    let router = api
        .merge(go_on)
        .merge(open)
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            let detail = "the method does not go with this path: see Allow";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(DefaultBodyLimit::max(guard::BODY_BYTES_MAX))
        .layer(from_fn_with_state(state(), guard::admit))
        .layer(from_fn(guard::tell_browsers))
        .layer(from_fn_with_state(state(), access::log));
    Ok(router.with_state(state()))
}
