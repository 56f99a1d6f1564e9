//! A server that makes vectors of texts as paid ones do, and fails as real ones do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Value,
    pub(crate) texts: Vec<String>,
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Right,
    /// The last vector first.
    Shuffled,
    /// A status, and a header line with its end, or nothing.
    Status(u16, &'static str),
    Garbage,
    WrongCount,
    WrongIndex,
    WrongDim,
    NotFinite,
    /// Says yes, and more than anybody reads.
    Endless,
    Cut,
    /// Says nothing until the other side has enough of it.
    Hang,
    /// Does not like texts about somebody.
    RefuseUser(&'static str),
}

type Behaviour = dyn Fn(usize) -> Reply + Send + Sync;

/// The vector of a text.
pub(crate) fn vector_of(text: &str) -> [f32; 4] {
    let hash = Sha256::digest(text);
    std::array::from_fn(|i| f32::from(hash[i]) / 8.0 - 15.5)
}

/// The server.
pub(crate) struct Stub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Stub {
    /// Starts one that does with each request as it is told, by how many came before.
    pub(crate) fn start(behave: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut stub = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            is_over: Arc::default(),
            listening: None,
        };
        let (requests, is_over) = (Arc::clone(&stub.requests), Arc::clone(&stub.is_over));
        let behave: Arc<Behaviour> = Arc::new(behave);
        stub.listening = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (requests, behave) = (Arc::clone(&requests), Arc::clone(&behave));
                let stream = stream.unwrap();
                thread::spawn(move || serve(stream, &requests, &*behave));
            }
        }));
        stub
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn sentences(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .flat_map(|it| it.texts)
            .collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Whoever waits for a connection gets one.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn serve(stream: TcpStream, requests: &Mutex<Vec<Request>>, behave: &Behaviour) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let reply = {
            let mut requests = requests.lock().unwrap();
            let reply = behave(requests.len());
            requests.push(request.clone());
            reply
        };
        let Some(said) = answer(reply, &request.texts) else {
            if reply == Reply::Hang {
                let _ = reader.read(&mut [0]);
            }
            return;
        };
        let said = reader.get_mut().write_all(said.as_bytes());
        if said.is_err() {
            return;
        }
    }
}

fn answer(reply: Reply, texts: &[String]) -> Option<String> {
    let item = |(i, text): (usize, &String)| json!({"object": "embedding", "index": i, "embedding": vector_of(text)});
    let mut data: Vec<Value> = texts.iter().enumerate().map(item).collect();
    match reply {
        Reply::Shuffled => data.reverse(),
        Reply::WrongCount => drop(data.pop()),
        Reply::WrongIndex => data[0]["index"] = json!(texts.len()),
        Reply::WrongDim => data[0]["embedding"] = json!([1, 2, 3, 4, 5]),
        Reply::NotFinite => data[0]["embedding"][0] = json!(1e300),
        Reply::RefuseUser(user) if texts.iter().any(|text| text.contains(user)) => {
            return Some(status(400, ""));
        }
        Reply::Right | Reply::RefuseUser(_) => (),
        Reply::Status(number, header) => return Some(status(number, header)),
        Reply::Garbage => return Some(ok("<html>\u{1b}[2Jno secrets here</html>")),
        Reply::Endless => return Some(ok(&" ".repeat(30 << 20))),
        Reply::Cut | Reply::Hang => return None,
    }
    let body = json!({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1}});
    Some(ok(&body.to_string()))
}

fn ok(body: &str) -> String {
    let n_bytes = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {n_bytes}\r\n\r\n{body}")
}

fn status(number: u16, header: &str) -> String {
    let body = r#"{"error":{"message":"no secrets here"}}"#;
    let n_bytes = body.len();
    format!("HTTP/1.1 {number} Whatever\r\n{header}Content-Length: {n_bytes}\r\n\r\n{body}")
}

/// The next request of a connection, none if it is closed.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    loop {
        let n_before = head.len();
        let n_read = reader.read_line(&mut head).ok()?;
        if n_read == 0 {
            return None;
        }
        if &head[n_before..] == "\r\n" {
            break;
        }
    }
    let n_bytes = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    let mut body = vec![0; n_bytes.unwrap().unwrap()];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let texts = body["input"].as_array().unwrap().iter();
    Some(Request {
        texts: texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect(),
        head,
        body,
    })
}
