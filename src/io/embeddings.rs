//! Embeddings from a server that is asked by `POST {base}/embeddings`. This module sends sentences and
//! checks what comes back; a text that it gets no vector for is not waited for without end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::http::{Client, Key, Url};
use crate::embed::{DIM_MAX, Embedding};
use crate::report::warn;
use crate::shutdown::Shutdown;
use crate::stage::Embedder;

/// Bytes of an answer at the most: 128 vectors of 8,192 numbers with 20 digits.
const ANSWER_BYTES_MAX: u64 = 24 << 20;
/// Before the first try again; each wait after it is twice as long.
const WAIT: Duration = Duration::from_millis(250);
/// What a server may ask to be left alone for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody wants the program to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Requests in a row that come to nothing before nobody is asked for a while: the events go on.
const N_FAILED_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(30);
/// Failures that are told one by one.
const N_TOLD: u64 = 5;

/// Whom to ask, and how.
pub struct EndpointConfig {
    /// The program's name, for messages; none if it is to be quiet.
    pub name: Option<&'static str>,
    /// Without `/embeddings`.
    pub base_url: Url,
    pub model: String,
    /// Numbers that vectors shall have, if somebody says so.
    pub dim: Option<usize>,
    pub api_key: Option<Key>,
    pub batch_max: usize,
    pub timeout: Duration,
    /// How often a request is tried again.
    pub n_retries: u32,
}

/// A server that makes vectors of texts.
pub struct Endpoint {
    config: EndpointConfig,
    url: Url,
    client: Client,
    authorization: Option<String>,
    shutdown: Shutdown,
    /// Numbers of the vectors that have come first; 0 before that.
    dim: AtomicUsize,
    n_failed_in_a_row: AtomicU32,
    rests_until: Mutex<Option<Instant>>,
    n_failures: AtomicU64,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

/// Why there are no vectors.
struct Failure {
    why: String,
    kind: FailureKind,
}

enum FailureKind {
    /// It may go better another time, not before so long.
    Trouble(Option<Duration>),
    /// It is about the texts, or one of them.
    OfTexts,
    /// It will not go better.
    Final,
}

impl Endpoint {
    /// For a server, which is not asked yet.
    ///
    /// # Errors
    /// If there can be no requests.
    pub fn new(config: EndpointConfig, shutdown: &Shutdown) -> anyhow::Result<Self> {
        // Some servers want a query behind the path.
        let base = config.base_url.secret_text();
        let (path, query) = base.split_at(base.find('?').unwrap_or(base.len()));
        let url = format!("{}/embeddings{query}", path.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(anyhow::Error::msg)?;
        Ok(Self {
            url,
            client: Client::new()?,
            authorization: config
                .api_key
                .as_ref()
                .map(|key| format!("Bearer {}", key.secret_text())),
            shutdown: shutdown.clone(),
            dim: AtomicUsize::new(config.dim.unwrap_or(0)),
            n_failed_in_a_row: AtomicU32::new(0),
            rests_until: Mutex::new(None),
            n_failures: AtomicU64::new(0),
            config,
        })
    }

    /// Asks for vectors, as often as it makes sense.
    fn vectors(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        let mut wait = WAIT;
        let mut n_left = self.config.n_retries;
        loop {
            let failure = match self.ask(texts) {
                Ok(vectors) => return Ok(vectors),
                Err(failure) => failure,
            };
            let FailureKind::Trouble(retry_after) = failure.kind else {
                return Err(failure);
            };
            if n_left == 0 || !self.sleep(retry_after.unwrap_or(wait).min(WAIT_MAX)) {
                return Err(failure);
            }
            n_left -= 1;
            wait *= 2;
        }
    }

    fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        let failure = |why: String, kind| Failure { why, kind };
        let request = Request {
            model: &self.config.model,
            input: texts,
            encoding_format: "float",
            dimensions: self.config.dim,
        };
        let body = serde_json::to_vec(&request).expect("it is plain data");
        let mut headers = vec![("content-type", "application/json")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let timeout = self.config.timeout;
        let answer = self
            .client
            .post_for(&self.url, &headers, &body, timeout, ANSWER_BYTES_MAX)
            .map_err(|why| failure(why, FailureKind::Trouble(None)))?;
        let status = answer.status;
        // What a server says of an error may repeat the key: only its number is told.
        let why = format!("the server has answered {status}");
        match status {
            200 => {}
            400 | 413 | 422 => return Err(failure(why, FailureKind::OfTexts)),
            408 | 425 | 429 | 500..=599 => {
                return Err(failure(why, FailureKind::Trouble(answer.retry_after)));
            }
            401 | 403 => {
                let why = why + ": look after the key";
                return Err(failure(why, FailureKind::Final));
            }
            _ => return Err(failure(why, FailureKind::Final)),
        }
        let answered: Answered = serde_json::from_slice(&answer.body).map_err(|_| {
            let why = "the answer is not one with embeddings".to_owned();
            failure(why, FailureKind::Trouble(None))
        })?;
        self.check(answered.data, texts.len())
            .map_err(|why| failure(why, FailureKind::Final))
    }

    /// Vectors in the order of the texts, whatever the order they came in.
    fn check(&self, items: Vec<Item>, n_texts: usize) -> Result<Vec<Vec<f32>>, String> {
        let n_items = items.len();
        if n_items != n_texts {
            return Err(format!("{n_texts} texts got {n_items} vectors"));
        }
        let mut by_index: HashMap<usize, Vec<f32>> = HashMap::new();
        for item in items {
            let dim = item.embedding.len();
            if !(1..=DIM_MAX).contains(&dim) {
                return Err(format!("a vector has {dim} numbers"));
            }
            let first = self
                .dim
                .compare_exchange(0, dim, Ordering::Relaxed, Ordering::Relaxed);
            if let Err(expected) = first
                && expected != dim
            {
                return Err(format!("a vector has {dim} numbers, not {expected}"));
            }
            if !item.embedding.iter().all(|number| number.is_finite()) {
                return Err("a vector has numbers that are none".to_owned());
            }
            by_index.insert(item.index, item.embedding);
        }
        let vectors = (0..n_texts).map(|i| by_index.remove(&i));
        let vectors: Option<Vec<_>> = vectors.collect();
        vectors.ok_or_else(|| "vectors are not numbered as the texts".to_owned())
    }

    /// Waits; false if somebody wants the program to stop.
    fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.shutdown.is_requested() {
                return false;
            }
            thread::sleep(LOOK_INTERVAL.min(end.saturating_duration_since(Instant::now())));
        }
        !self.shutdown.is_requested()
    }

    /// Asks for vectors; where it is one of several texts that is refused, for each half by itself.
    fn embed_some(&self, texts: &[String], vectors: &mut Vec<Option<Vec<f32>>>) {
        if self.is_resting() {
            vectors.extend(texts.iter().map(|_| None));
            return;
        }
        match self.vectors(texts) {
            Ok(found) => {
                self.n_failed_in_a_row.store(0, Ordering::Relaxed);
                vectors.extend(found.into_iter().map(Some));
            }
            Err(failure) if matches!(failure.kind, FailureKind::OfTexts) && texts.len() > 1 => {
                let (first, second) = texts.split_at(texts.len() / 2);
                self.embed_some(first, vectors);
                self.embed_some(second, vectors);
            }
            Err(failure) => {
                self.tell(&failure);
                vectors.extend(texts.iter().map(|_| None));
            }
        }
    }

    fn is_resting(&self) -> bool {
        let mut rests_until = self
            .rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if rests_until.is_some_and(|until| Instant::now() >= until) {
            *rests_until = None;
            self.n_failed_in_a_row.store(0, Ordering::Relaxed);
        }
        rests_until.is_some()
    }

    fn tell(&self, failure: &Failure) {
        let n_before = self.n_failures.fetch_add(1, Ordering::Relaxed);
        if let Some(name) = self.config.name.filter(|_| n_before < N_TOLD) {
            warn(
                name,
                &format!("no embeddings from {}: {}", self.url, failure.why),
            );
        }
        // One text of many that is refused says nothing of the server.
        if matches!(failure.kind, FailureKind::OfTexts) {
            return;
        }
        if self.n_failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 != N_FAILED_MAX {
            return;
        }
        let mut rests_until = self
            .rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *rests_until = Some(Instant::now() + REST);
        if let Some(name) = self.config.name {
            let text = format!(
                "{} is left alone for {} s: events pass on without embedding",
                self.url,
                REST.as_secs()
            );
            warn(name, &text);
        }
    }
}

impl Embedder for Endpoint {
    fn embed(&self, texts: &[String]) -> Vec<Option<Embedding>> {
        let mut vectors = Vec::with_capacity(texts.len());
        self.embed_some(texts, &mut vectors);
        let model = &self.config.model;
        let pairs = vectors.into_iter().zip(texts);
        pairs
            .map(|(vector, text)| Some(Embedding::of_text(model, text, vector?)))
            .collect()
    }

    fn batch_max(&self) -> usize {
        self.config.batch_max
    }
}
