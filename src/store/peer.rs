//! Databases of other machines: their servers are asked what a program on this machine is asked at its
//! socket, a frame in the body of each request.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;

use super::protocol::{ANSWER_BYTES_MAX, Wire};
use crate::io::http::{Answer, Client, Key, Request, Url};

/// Where a server is asked.
pub const PEER_PATH: &str = "/api/peer";
/// How long an answer may take, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A server of another machine.
pub struct Peer {
    client: Client,
    /// Up to where paths begin.
    base: String,
    shown: String,
    authorization: Option<String>,
}

/// What a server answers when somebody begins to ask.
#[derive(Deserialize)]
struct Begun {
    session: String,
}

impl Peer {
    /// A server at a URL, which is told a key if there is one.
    ///
    /// # Errors
    /// If it is no URL, or the certificates that are trusted cannot be read.
    pub fn new(url: &str, key: Option<&Key>) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).map_err(|error| anyhow::anyhow!("--peer: {error}"))?;
        Ok(Self {
            client: Client::new()?,
            base: url.trim_end_matches('/').to_owned(),
            shown: parsed.to_string(),
            authorization: key.map(|key| format!("Bearer {}", key.secret_text())),
        })
    }

    /// What it is called where it is shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Begins to ask about the database of that number; none if the server has not so many.
    ///
    /// # Errors
    /// If it is not there, or refuses.
    pub(super) fn begin(self: &Arc<Self>, number: usize) -> anyhow::Result<Option<Box<dyn Wire>>> {
        let shown = &self.shown;
        let url = self.url(&format!("?database={number}"))?;
        let answer = match self.post(&url, b"", PATIENCE) {
            Ok(answer) => answer,
            Err(words) => bail!("cannot ask {shown}: {words}"),
        };
        match answer.status {
            200 => {}
            404 if number > 0 => return Ok(None),
            401 => bail!("{shown} wants a key: name a file that holds one with --peer-key-file"),
            429 | 503 => bail!("{shown} is asked too much just now: ask again"),
            403 => bail!("{shown} refuses the key"),
            404 => bail!("{shown} is no server of StreamGuard"),
            status => bail!("{shown} does not answer as it should (HTTP {status})"),
        }
        let Ok(Begun { session }) = serde_json::from_slice(&answer.body) else {
            bail!("{shown} is no server of StreamGuard");
        };
        if session.is_empty() || !session.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("{shown} is no server of StreamGuard");
        }
        let url = self.url(&format!("/{session}"))?;
        let mut wire = PeerWire {
            peer: Arc::clone(self),
            url,
            received: VecDeque::new(),
            patience: PATIENCE,
        };
        // Who is there says so first.
        if wire.send(b"").is_err() {
            bail!("{shown} does not answer");
        }
        Ok(Some(Box::new(wire)))
    }

    fn url(&self, rest: &str) -> anyhow::Result<Url> {
        let text = format!("{}{PEER_PATH}{rest}", self.base);
        Url::parse(&text).map_err(anyhow::Error::msg)
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let authorization = self.authorization.as_deref();
        authorization
            .map(|value| ("authorization", value))
            .into_iter()
            .collect()
    }

    fn post(&self, url: &Url, body: &[u8], timeout: Duration) -> Result<Answer, String> {
        let request = Request {
            url,
            headers: &self.headers(),
            body: Some(body),
            timeout,
            answer_bytes_max: ANSWER_BYTES_MAX as u64,
        };
        self.client.exchange(&request).map_err(|none| none.words)
    }
}

/// A session at a server: each frame that is sent brings the next one.
struct PeerWire {
    peer: Arc<Peer>,
    url: Url,
    received: VecDeque<Vec<u8>>,
    patience: Duration,
}

impl Wire for PeerWire {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let answer = self.peer.post(&self.url, frame, self.patience);
        let answer = answer.map_err(io::Error::other)?;
        if answer.status != 200 {
            return Err(io::Error::other("the session has ended"));
        }
        self.received.push_back(answer.body);
        Ok(())
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _: usize) -> io::Result<bool> {
        let Some(received) = self.received.pop_front() else {
            return Ok(false);
        };
        *frame = received;
        Ok(true)
    }

    fn set_patience(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.patience = patience.unwrap_or(PATIENCE);
        Ok(())
    }
}

impl Drop for PeerWire {
    fn drop(&mut self) {
        // A session that nobody ends ends by itself.
        let headers = self.peer.headers();
        let _ = self.peer.client.delete(&self.url, &headers, FAREWELL);
    }
}
