//! A service that a model is asked at, on loopback. It speaks the Messages API with its batches, and chat
//! completions; it takes what the vendor's takes and refuses what the vendor's refuses; and it fails as
//! real ones do, as it is told.

mod check;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// The key that is taken.
pub(crate) const KEY: &str = "sk-hunter2-hunter2";
/// What the model is called in replies, whatever was asked for.
pub(crate) const MODEL: &str = "model-of-the-reply";

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Asked {
    /// What was sent of the event and around it.
    pub(crate) fn data(&self) -> Value {
        data_of(&self.body)
    }

    /// The user of the event.
    pub(crate) fn user(&self) -> String {
        self.data()["event"]["user"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

fn data_of(body: &Value) -> Value {
    let last = body["messages"]
        .as_array()
        .and_then(|messages| messages.last());
    let content = &last.unwrap()["content"];
    let text = match content.as_str() {
        Some(text) => text.split_once("\n\n").unwrap().1,
        None => content[0]["content"][0]["text"].as_str().unwrap(),
    };
    serde_json::from_str(text).unwrap()
}

/// What the service does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The model says this, and ends.
    Says(String),
    /// It ends for another reason, after having said something.
    Stops(&'static str),
    /// A status with a header line and its end, or none, and the error that goes with it.
    Fails(u16, &'static str),
    /// A status with a body.
    Raw(u16, String),
    /// Waits before it replies.
    Late(Duration, Box<Reply>),
    /// Replies once [`Stub::open_gate`] was called.
    Gated(Box<Reply>),
    /// Reads it and says nothing.
    Hang,
    /// Closes the connection in the middle of a reply.
    Cut,
    /// Says something that is not HTTP.
    Gibberish,
    /// In a batch: is not looked at.
    Expires,
}

/// An answer as the schema wants it.
pub(crate) fn verdict(severity: &str) -> Reply {
    verdict_with(severity, "source_ip", "benign")
}

pub(crate) fn verdict_with(severity: &str, field: &str, summary: &str) -> Reply {
    let indicators = json!([{"field": field, "observation": "seen"}]);
    Reply::Says(
        json!({
            "severity": severity, "confidence": 0.9, "indicators": indicators,
            "summary": summary, "recommendation": "none"
        })
        .to_string(),
    )
}

type Behaviour = dyn Fn(usize, &Asked) -> Reply + Send + Sync;

/// The service.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    behave: Box<Behaviour>,
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// What was refused since no client of the vendor's would send it.
    refused: Vec<String>,
    is_open: bool,
    /// Requests that are waited with now, and the most there were.
    n_now: usize,
    n_most: usize,
    batches: Vec<Vec<(String, Value)>>,
    have_batches_ended: bool,
}

impl Stub {
    /// Starts one that does with each question, of which it is told how many came before, as it is told.
    pub(crate) fn start(behave: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(&SocketAddr::from(([127, 0, 0, 1], 0)), behave)
    }

    pub(crate) fn start_at(
        address: &SocketAddr,
        behave: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behave: Box::new(behave),
            state: Mutex::default(),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, stream) = (Arc::clone(&of_thread), stream.unwrap());
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self {
            address,
            shared,
            listening: Some(listening),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests for messages that came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.state.lock().unwrap().asked.clone()
    }

    pub(crate) fn n_asked(&self) -> usize {
        self.shared.state.lock().unwrap().asked.len()
    }

    /// The most requests that were there at the same time.
    pub(crate) fn n_most(&self) -> usize {
        self.shared.state.lock().unwrap().n_most
    }

    /// Lets go of all requests that are waited with, and waits with none any more.
    pub(crate) fn open_gate(&self) {
        self.shared.state.lock().unwrap().is_open = true;
        self.shared.changed.notify_all();
    }

    pub(crate) fn n_batches(&self) -> usize {
        self.shared.state.lock().unwrap().batches.len()
    }

    pub(crate) fn end_batches(&self) {
        self.shared.state.lock().unwrap().have_batches_ended = true;
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.open_gate();
        // Whoever waits for a connection gets one.
        let _ = TcpStream::connect(self.address);
        // Another one may be at this address next.
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
        if !thread::panicking() {
            let refused = self.shared.state.lock().unwrap().refused.clone();
            assert!(refused.is_empty(), "the service would refuse: {refused:?}");
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let (bytes, is_last) = match check::check(&asked) {
            Err((status, why)) => {
                shared.state.lock().unwrap().refused.push(why.clone());
                (http(status, "", &error(status, &why)), false)
            }
            Ok(check::Route::Batches) => (batches(&asked, shared), false),
            Ok(check::Route::Messages | check::Route::Completions) => shared.respond(&asked),
        };
        let said = reader.get_mut().write_all(&bytes);
        if said.and_then(|()| reader.get_mut().flush()).is_err() || is_last {
            return;
        }
    }
}

impl Shared {
    /// Bytes to say, and whether the connection is closed behind them.
    fn respond(&self, asked: &Asked) -> (Vec<u8>, bool) {
        let n_before = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(asked.clone());
            state.n_now += 1;
            state.n_most = state.n_most.max(state.n_now);
            state.asked.len() - 1
        };
        let mut reply = (self.behave)(n_before, asked);
        let (bytes, is_last) = loop {
            reply = match reply {
                Reply::Late(time, then) => {
                    thread::sleep(time);
                    *then
                }
                Reply::Gated(then) => {
                    let mut state = self.state.lock().unwrap();
                    while !state.is_open {
                        state = self.changed.wait(state).unwrap();
                    }
                    *then
                }
                Reply::Hang => {
                    let mut state = self.state.lock().unwrap();
                    while !self.is_over.load(Ordering::Relaxed) {
                        state = self.changed.wait(state).unwrap();
                    }
                    break (Vec::new(), true);
                }
                Reply::Cut => {
                    let whole = http(200, "", &message(asked, "", "end_turn"));
                    break (whole[..whole.len() - 20].to_vec(), true);
                }
                Reply::Gibberish => break (b"220 mail.example.org ESMTP\r\n\r\n".to_vec(), true),
                reply => break (reply_bytes(asked, &reply), false),
            }
        };
        self.state.lock().unwrap().n_now -= 1;
        (bytes, is_last)
    }
}

fn reply_bytes(asked: &Asked, reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Says(text) => http(200, "", &message(asked, text, "end_turn")),
        Reply::Stops(reason) => http(200, "", &message(asked, "{\"severity\":\"lo", reason)),
        Reply::Fails(status, header) => {
            // Services quote what they were sent.
            let words = format!("no, not with {KEY}\u{1b}[2J");
            http(*status, header, &error(*status, &words))
        }
        Reply::Raw(status, body) => http(*status, "", body),
        other => panic!("{other:?} is no reply"),
    }
}

fn http(status: u16, header: &str, body: &str) -> Vec<u8> {
    let n_bytes = body.len();
    let kind = "content-type: application/json";
    format!(
        "HTTP/1.1 {status} Whatever\r\n{kind}\r\n{header}content-length: {n_bytes}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn error(status: u16, words: &str) -> String {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500 => "api_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"})
        .to_string()
}

/// What a model says, in the protocol that it was asked in.
fn message(asked: &Asked, text: &str, reason: &str) -> String {
    if asked.path == check::COMPLETIONS {
        let reason = match reason {
            "end_turn" => "stop",
            "max_tokens" => "length",
            "refusal" => "content_filter",
            "tool_use" => "tool_calls",
            other => other,
        };
        return json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason
            }],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
        })
        .to_string();
    }
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL,
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": text}
        ],
        "stop_reason": reason, "stop_sequence": null,
        "usage": {
            "input_tokens": 200, "output_tokens": 50,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 800
        }
    })
    .to_string()
}

/// Message Batches.
fn batches(asked: &Asked, shared: &Shared) -> Vec<u8> {
    let state = &mut *shared.state.lock().unwrap();
    let describe = |i: usize, n_requests: usize, has_ended: bool| {
        let (processing, succeeded) = if has_ended {
            (0, n_requests)
        } else {
            (n_requests, 0)
        };
        json!({
            "id": format!("msgbatch_{i}"), "type": "message_batch",
            "processing_status": if has_ended { "ended" } else { "in_progress" },
            "request_counts": {
                "processing": processing, "succeeded": succeeded, "errored": 0, "canceled": 0, "expired": 0
            },
            "created_at": "2026-11-25T00:00:00Z", "expires_at": "2026-11-26T00:00:00Z",
            "results_url": has_ended.then_some("https://elsewhere.example/steals/keys")
        })
        .to_string()
    };
    if asked.method == "POST" {
        let requests = asked.body["requests"].as_array().unwrap();
        let requests = requests.iter().map(|request| {
            let id = request["custom_id"].as_str().unwrap().to_owned();
            (id, request["params"].clone())
        });
        state.batches.push(requests.collect());
        let i = state.batches.len() - 1;
        return http(200, "", &describe(i, state.batches[i].len(), false));
    }
    let rest = asked.path.strip_prefix(check::BATCHES).unwrap();
    let (id, is_results) = match rest.strip_suffix("/results") {
        Some(id) => (id, true),
        None => (rest, false),
    };
    let i: usize = id.strip_prefix("/msgbatch_").unwrap().parse().unwrap();
    let Some(batch) = state.batches.get(i) else {
        return http(404, "", &error(404, "no such batch"));
    };
    if !is_results {
        return http(200, "", &describe(i, batch.len(), state.have_batches_ended));
    }
    if !state.have_batches_ended {
        return http(404, "", &error(404, "no results yet"));
    }
    let mut lines = String::new();
    // In any order.
    for (n, (custom_id, params)) in batch.iter().enumerate().rev() {
        let one = Asked {
            path: check::MESSAGES.to_owned(),
            body: params.clone(),
            ..asked.clone()
        };
        let result = match (shared.behave)(n, &one) {
            Reply::Says(text) => succeeded(&message(&one, &text, "end_turn")),
            Reply::Stops(reason) => succeeded(&message(&one, "", reason)),
            Reply::Fails(status, _) => {
                let error: Value = serde_json::from_str(&error(status, "no")).unwrap();
                json!({"type": "errored", "error": error})
            }
            Reply::Expires => json!({"type": "expired"}),
            other => panic!("{other:?} in a batch"),
        };
        lines += &json!({"custom_id": custom_id, "result": result}).to_string();
        lines += "\n";
    }
    http(200, "", &lines)
}

fn succeeded(message: &str) -> Value {
    let message: Value = serde_json::from_str(message).unwrap();
    json!({"type": "succeeded", "message": message})
}

/// The next request of a connection, none if it is closed.
fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        reader.read_line(line).ok().filter(|n_read| *n_read > 0)
    };
    next(&mut line)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        next(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let n_bytes = headers
        .get("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; n_bytes];
    // A program may be killed just now.
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        path,
        headers,
        text: String::from_utf8(body.clone()).unwrap(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}
