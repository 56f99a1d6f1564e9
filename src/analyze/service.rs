//! The service, as it is reached: where, with which key, and how long to wait for it.

use std::time::Duration;

use crate::io::http::{Answer, Client, Key, NoAnswer, Request, Stream, Url};
use crate::llm::Provider;

/// Bytes of an answer that are read: one has 4,096 tokens at the most.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Where calls go.
#[derive(Clone, Debug)]
pub struct Place {
    pub provider: Provider,
    base: String,
    /// The base without what may be secret.
    url: Url,
    pub key: Option<Key>,
}

impl Place {
    /// The service behind a URL.
    ///
    /// # Errors
    /// If it is not a URL of HTTP. The words do not repeat it.
    pub fn new(provider: Provider, base: &str, key: Option<Key>) -> Result<Self, String> {
        let base = base.trim().trim_end_matches('/');
        // Clients of this protocol name the version with the base, others do not.
        let base = base.strip_suffix("/v1").unwrap_or(base);
        if base.contains(['?', '#']) {
            return Err("a path follows it, so it can have neither ? nor #".to_owned());
        }
        Ok(Self {
            provider,
            url: Url::parse(base)?,
            base: base.to_owned(),
            key,
        })
    }

    /// Whether it is the vendor's own service.
    #[must_use]
    pub fn is_vendor(&self) -> bool {
        let vendor = Url::parse(self.provider.base_url());
        vendor.is_ok_and(|vendor| vendor.to_string() == self.url.to_string())
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn shown(&self) -> String {
        self.url.to_string()
    }

    /// What is at a path.
    fn at(&self, path: &str) -> Result<Url, String> {
        Url::parse(&format!("{}{path}", self.base))
    }

    /// A text of somebody else without the key.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.secret_text(), "(key)"),
            None => text.to_owned(),
        }
    }

    /// What a service says of an error, to be shown.
    #[must_use]
    pub fn words_of(&self, body: &[u8]) -> Option<String> {
        let words = crate::llm::wire::words_of(body)?;
        Some(self.without_key(&words))
    }
}

/// Makes calls.
pub(super) struct Service {
    pub(super) place: Place,
    client: Client,
    headers: Vec<(&'static str, String)>,
}

impl Service {
    pub(super) fn open(place: Place) -> anyhow::Result<Self> {
        let key = place.key.as_ref().map(Key::secret_text);
        Ok(Self {
            headers: place.provider.headers(key),
            client: Client::new()?,
            place,
        })
    }

    /// Posts a body to a path, or gets what is there.
    pub(super) fn call(
        &self,
        path: &str,
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.with_request(path, body, (timeout, ANSWER_BYTES_MAX), Client::exchange)
    }

    /// Gets what is too long to be held whole.
    pub(super) fn stream(
        &self,
        path: &str,
        timeout: Duration,
        bytes_max: u64,
    ) -> Result<Stream, NoAnswer> {
        self.with_request(path, None, (timeout, bytes_max), |client, request| {
            client.stream(request)
        })
    }

    fn with_request<T>(
        &self,
        path: &str,
        body: Option<&[u8]>,
        (timeout, answer_bytes_max): (Duration, u64),
        send: impl FnOnce(&Client, &Request<'_>) -> Result<T, NoAnswer>,
    ) -> Result<T, NoAnswer> {
        let url = self.place.at(path).map_err(|words| NoAnswer {
            words,
            is_timeout: false,
            may_have_arrived: false,
        })?;
        let headers = self.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let request = Request {
            url: &url,
            headers: &headers,
            body,
            timeout,
            answer_bytes_max,
        };
        send(&self.client, &request)
    }
}
