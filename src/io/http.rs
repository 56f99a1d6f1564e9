//! HTTP requests, and where they go. The only code that names `ureq`; it does not know what is said.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Error, RequestBuilder};

use crate::time::{now_ms, parse_http_date};

/// Bytes of an answer that are read if nobody says how many: more than a sentence about what is wrong is of no use.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a key at the most.
const KEY_BYTES_MAX: usize = 4 << 10;
/// How long a connection is kept for the next request. Servers close theirs after five seconds and more.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// Where systems keep the certificates that they trust.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another file with them, to OpenSSL and to us.
const TRUSTED_VARIABLE: &str = "SSL_CERT_FILE";

/// Where requests go. It is shown without what may be secret: name, password, path and query.
#[derive(Clone)]
pub struct Url {
    text: String,
    shown: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is none, or not one of HTTP. The words do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = match scheme {
            "http" => 80_u16,
            "https" => 443,
            _ => return Err("it begins neither with https:// nor with http://".to_owned()),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| "it names no host".to_owned())?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let place = authority.rsplit('@').next().unwrap_or_default();
        let port = match place.strip_prefix(host).unwrap_or_default() {
            "" => port,
            given => {
                let given = given.strip_prefix(':').and_then(|port| port.parse().ok());
                given.ok_or_else(|| "what follows the host is not a port".to_owned())?
            }
        };
        Ok(Self {
            shown: format!("{scheme}://{host}:{port}"),
            text: text.to_owned(),
        })
    }

    /// All of it, with what may be secret.
    #[must_use]
    pub fn secret_text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What tells a server who pays. It is shown nowhere.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// The one word of a text.
    ///
    /// # Errors
    /// If there is none, or it cannot be sent. The words do not repeat it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let key = text.trim();
        anyhow::ensure!(!key.is_empty(), "there is no key in it");
        anyhow::ensure!(
            key.bytes().all(|byte| byte.is_ascii_graphic()),
            "a key is one word of ASCII"
        );
        anyhow::ensure!(
            key.len() <= KEY_BYTES_MAX,
            "a key has {KEY_BYTES_MAX} bytes at the most"
        );
        Ok(Self(key.to_owned()))
    }

    /// All of it.
    #[must_use]
    pub fn secret_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// What a server has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether it wants to be asked again, if it says so.
    pub should_retry: Option<bool>,
    /// The beginning of what it says; nothing, if it does not come to an end in time.
    pub body: Vec<u8>,
}

/// What is asked.
pub struct Request<'a> {
    pub url: &'a Url,
    pub headers: &'a [(&'a str, &'a str)],
    /// What is posted; without it something is got.
    pub body: Option<&'a [u8]>,
    /// From the look-up of the name to the end of the answer.
    pub timeout: Duration,
    /// An answer that is longer counts as none.
    pub answer_bytes_max: u64,
}

/// Why there is no whole answer.
#[derive(Clone, Debug)]
pub struct NoAnswer {
    /// Nothing of the URL is repeated.
    pub words: String,
    pub is_timeout: bool,
    /// What was asked may have arrived.
    pub may_have_arrived: bool,
}

impl NoAnswer {
    fn of(error: &Error, timeout: Duration) -> Self {
        Self {
            words: words(error, timeout),
            is_timeout: is_timeout(error),
            may_have_arrived: !is_before(error),
        }
    }
}

/// An answer of which the body is yet to be read.
pub struct Stream {
    pub status: u16,
    pub body: Box<dyn Read + Send>,
}

/// Makes requests; connections are used again.
pub struct Client {
    agent: Agent,
}

impl Client {
    /// A client that trusts whom the system trusts, or whom the file trusts that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// If that file cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        let tls = TlsConfig::builder().root_certs(trusted()?).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("streamguard/", env!("CARGO_PKG_VERSION")))
            // What to make of each answer is said elsewhere.
            .http_status_as_error(false)
            // Where a signed message goes says the user, and nobody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_age(IDLE_TIME_MAX)
            .build();
        Ok(Self {
            agent: config.new_agent(),
        })
    }

    /// Posts a body, and waits for an answer of whatever kind.
    ///
    /// # Errors
    /// A sentence on why there is none; it repeats nothing of the URL.
    pub fn post(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Answer, String> {
        self.post_for(url, headers, body, timeout, ANSWER_BYTES_MAX)
    }

    /// The same for an answer that may be that long; a longer one is as good as none.
    ///
    /// # Errors
    /// A sentence on why there is none; it repeats nothing of the URL.
    pub fn post_for(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
        answer_bytes_max: u64,
    ) -> Result<Answer, String> {
        let request = Request {
            url,
            headers,
            body: Some(body),
            timeout,
            answer_bytes_max,
        };
        let mut response = (self.send(&request)).map_err(|error| words(&error, timeout))?;
        let mut answer = head(&response);
        let body = response.body_mut().with_config().limit(answer_bytes_max);
        answer.body = body.read_to_vec().unwrap_or_default();
        Ok(answer)
    }

    /// Asks, and waits for a whole answer of whatever kind.
    ///
    /// # Errors
    /// If there is none, or it breaks off.
    pub fn exchange(&self, request: &Request<'_>) -> Result<Answer, NoAnswer> {
        let none = |error: &Error| NoAnswer::of(error, request.timeout);
        let mut response = self.send(request).map_err(|error| none(&error))?;
        let mut answer = head(&response);
        let body = response.body_mut().with_config();
        let body = body.limit(request.answer_bytes_max).read_to_vec();
        answer.body = body.map_err(|error| NoAnswer {
            may_have_arrived: true,
            ..none(&error)
        })?;
        Ok(answer)
    }

    /// Asks for something that is too long to be held whole.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn stream(&self, request: &Request<'_>) -> Result<Stream, NoAnswer> {
        let response = self
            .send(request)
            .map_err(|error| NoAnswer::of(&error, request.timeout))?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config();
        Ok(Stream {
            status,
            body: Box::new(body.limit(request.answer_bytes_max).reader()),
        })
    }

    /// Says that something is needed no more.
    ///
    /// # Errors
    /// A sentence on why there is no answer; it repeats nothing of the URL.
    pub fn delete(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<(), String> {
        let request = headers.iter().fold(
            self.agent.delete(url.secret_text()),
            |request, (name, value)| request.header(*name, *value),
        );
        let request = request.config().timeout_global(Some(timeout)).build();
        let sent = request.call().map(drop);
        sent.map_err(|error| words(&error, timeout))
    }

    fn send(&self, request: &Request<'_>) -> Result<Response<Body>, Error> {
        fn prepare<B>(builder: RequestBuilder<B>, request: &Request<'_>) -> RequestBuilder<B> {
            let headers = request.headers.iter();
            let builder = headers.fold(builder, |builder, (name, value)| {
                builder.header(*name, *value)
            });
            let timeout = Some(request.timeout);
            builder.config().timeout_global(timeout).build()
        }
        let text = request.url.secret_text();
        match request.body {
            Some(body) => prepare(self.agent.post(text), request).send(body),
            None => prepare(self.agent.get(text), request).call(),
        }
    }
}

/// All of an answer but its body.
fn head(response: &Response<Body>) -> Answer {
    let header = |name| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.trim())
    };
    Answer {
        status: response.status().as_u16(),
        retry_after: retry_after(header("retry-after-ms"), header("retry-after")),
        should_retry: match header("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
        body: Vec::new(),
    }
}

/// Milliseconds, seconds with or without a fraction, or a date.
fn retry_after(in_ms: Option<&str>, value: Option<&str>) -> Option<Duration> {
    let seconds = |text: &str, unit: f64| {
        let number: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    if let Some(time) = in_ms.and_then(|text| seconds(text, 1e-3)) {
        return Some(time);
    }
    let value = value?;
    if let Some(time) = seconds(value, 1.0) {
        return Some(time);
    }
    let left_ms = parse_http_date(value)? - now_ms();
    Some(Duration::from_millis(left_ms.max(0) as u64))
}

fn is_timeout(error: &Error) -> bool {
    match error {
        Error::Timeout(_) => true,
        // What a body that is read says instead.
        Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    }
}

/// Whether nothing can have been sent yet.
fn is_before(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Error::Timeout(which) => matches!(
            which,
            ureq::Timeout::Resolve | ureq::Timeout::Connect | ureq::Timeout::SendRequest
        ),
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::Rustls(_)
        | Error::Tls(_)
        | Error::ConnectProxyFailed(_)
        | Error::InvalidProxyUrl => true,
        _ => false,
    }
}

/// What to say of an error: its own words may hold the URL.
fn words(error: &Error, timeout: Duration) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Timeout(_) => format!("no answer within {} s", timeout.as_secs().max(1)),
        Error::BodyExceedsLimit(_) => "the answer is too long".to_owned(),
        Error::ConnectionFailed => "cannot connect".to_owned(),
        Error::HostNotFound => "there is no such host".to_owned(),
        Error::Rustls(error) => format!("TLS: {error}"),
        Error::Tls(error) => format!("TLS: {error}"),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "the answer is not HTTP".to_owned(),
        Error::ConnectProxyFailed(_) | Error::InvalidProxyUrl => {
            "the proxy of the environment refuses or is not one".to_owned()
        }
        _ => "the request failed".to_owned(),
    }
}

/// The certificates that are trusted: those of the system, or if it has none those of Mozilla.
fn trusted() -> anyhow::Result<RootCerts> {
    let named = std::env::var_os(TRUSTED_VARIABLE).filter(|name| !name.is_empty());
    let of_system = || {
        let path = TRUSTED.iter().map(Path::new).find(|path| path.exists());
        path.map(Path::to_owned)
    };
    let Some(path) = named.map(Into::into).or_else(of_system) else {
        return Ok(RootCerts::WebPki);
    };
    let shown = path.display();
    let pem = std::fs::read(&path).with_context(|| {
        format!("cannot read the certificates that are trusted ({TRUSTED_VARIABLE}), {shown}")
    })?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    anyhow::ensure!(
        !certificates.is_empty(),
        "{shown} ({TRUSTED_VARIABLE}) holds no certificates"
    );
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_how_long_to_wait() {
        let ms = |in_ms, value| retry_after(in_ms, value).map(|time| time.as_millis());
        assert_eq!(ms(None, Some("2")), Some(2_000));
        assert_eq!(ms(None, Some("0.25")), Some(250));
        assert_eq!(ms(Some("40"), Some("2")), Some(40));
        assert_eq!(ms(Some("x"), Some("2")), Some(2_000));
        let past = "Wed, 01 Jan 2025 00:00:00 GMT";
        assert_eq!(ms(None, Some(past)), Some(0));
        for value in ["-1", "soon", "NaN", "1e30", ""] {
            assert_eq!(ms(None, Some(value)), None, "{value}");
        }
    }

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        let check = |text: &str, shown: &str| {
            let url = Url::parse(text).expect("it is a URL");
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.into(), shown.into())
            );
        };
        check("https://example.org", "https://example.org:443");
        check("http://a:b@example.org/p?token=t", "http://example.org:80");
        check("https://[::1]:8443/p", "https://[::1]:8443");
        for text in [
            "",
            "example.org",
            "ftp://example.org",
            "http://",
            "http:///p",
            "http://h:x",
            "http://h:",
            "http://h h",
            "http://h:70000",
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
