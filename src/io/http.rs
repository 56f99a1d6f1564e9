//! HTTP requests, and where they go. The only code that names `ureq`; it does not know what is said.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Error};

use crate::time::{now_ms, parse_http_date};

/// Bytes of an answer that are read if nobody says how many: more than a sentence about what is wrong is of no use.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
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

/// What a server has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of what it says; nothing, if it does not come to an end in time.
    pub body: Vec<u8>,
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
        let mut request = self.agent.post(url.secret_text());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.send(body).map_err(|error| words(&error, timeout))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        let body = response.body_mut().with_config().limit(answer_bytes_max);
        Ok(Answer {
            status,
            retry_after,
            body: body.read_to_vec().unwrap_or_default(),
        })
    }
}

/// Seconds, or a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?.trim();
    if let Ok(n_seconds) = value.parse() {
        return Some(Duration::from_secs(n_seconds));
    }
    let left_ms = parse_http_date(value)? - now_ms();
    Some(Duration::from_millis(left_ms.max(0) as u64))
}

/// What to say of an error: its own words may hold the URL.
fn words(error: &Error, timeout: Duration) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Timeout(_) => format!("no answer within {} s", timeout.as_secs().max(1)),
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
