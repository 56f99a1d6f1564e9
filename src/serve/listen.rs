//! Connections: how many, how slow they may be, with TLS or without, and how they end. What is said on them
//! is left to the router.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::access::Client;
use super::problem::{self, Problem};

/// Connections at once. Each holds an answer of some MiB at worst.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for the head of a request, and stay silent between two of them.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to read on.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of a head at the most. A cursor or a text of ours can be some KiB.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Lines of a head at the most.
const HEADERS_MAX: usize = 64;
/// How long what is under way may go on once the end is asked for.
const GRACE: Duration = Duration::from_secs(5);

/// What differs between servers.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections_max: usize,
    /// How long what is under way may go on once the end is asked for.
    pub(super) grace: Duration,
}

impl Limits {
    /// Those of the API and the page.
    pub(super) const OF_API: Self = Self {
        connections_max: CONNECTIONS_MAX,
        grace: GRACE,
    };
}

/// Files of TLS, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and those between it and one that clients trust.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a TLS connection begins with.
pub(super) fn tls(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let shown = |path: &Path| path.display().to_string();
    let (certificate, key) = (shown(&files.certificate), shown(&files.key));
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let certificates =
        certificates.with_context(|| format!("cannot read the certificate in {certificate}"))?;
    ensure!(
        !certificates.is_empty(),
        "there is no certificate in {certificate}"
    );
    let private = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the private key in {key}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .with_context(|| format!("{certificate} and {key} do not go together"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves connections until `stop` is true, then lets those that are under way come to their end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
    limits: Limits,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|is_asked| *is_asked) => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, address)) = accepted else {
            // Too many files are open, most likely: some will be closed.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if tls.is_none() {
                refuse(&stream);
            }
            continue;
        };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            // An answer goes out at once.
            let _ = stream.set_nodelay(true);
            match tls {
                None => speak(stream, address, router, stop).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HEAD_TIME_MAX, tls.accept(stream)).await {
                        speak(stream, address, router, stop).await;
                    }
                }
            }
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(limits.grace, rest).await;
    connections.shutdown().await;
}

/// Tells a client that there is no place for it, which an empty socket takes at once or not at all.
fn refuse(stream: &TcpStream) {
    let body = Problem::unavailable("there are too many connections: ask again").json();
    let media_type = problem::MEDIA_TYPE;
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {media_type}\r\nretry-after: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let _ = stream.try_write(&answer);
}

/// Answers the requests of one connection.
async fn speak<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    address: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME_MAX));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Client(address));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|is_asked| *is_asked) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
