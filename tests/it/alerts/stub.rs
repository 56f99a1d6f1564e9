//! A server that takes webhooks, checks them, and fails as real ones do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::tools::testdata;

/// What messages are signed with in tests.
pub(crate) const SECRET: &str = "whsec_c3RyZWFtZ3VhcmQtdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";

/// A message that came, with a signature that is right.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) id: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
    pub(crate) is_accepted: bool,
}

impl Message {
    /// The event's line.
    pub(crate) fn line(&self) -> String {
        format!("{}\n", self.body["data"])
    }

    pub(crate) fn event_id(&self) -> &str {
        self.body["data"]["event_id"].as_str().unwrap()
    }
}

/// What the server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, and a header line with its end, or nothing.
    Status(u16, &'static str),
    /// Says yes, and never comes to an end.
    Endless,
    /// Reads it and says nothing.
    Hang,
    /// Reads it and closes the connection.
    Cut,
    /// Says something that is not HTTP.
    Gibberish,
}

pub(crate) const OK: Reply = Reply::Status(200, "");

type Behaviour = dyn Fn(usize, &Message) -> Reply + Send + Sync;

/// The server.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    messages: Arc<Mutex<Vec<Message>>>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Stub {
    /// The same with TLS, by the certificate in `testdata/tls`.
    pub(crate) fn start_tls() -> Self {
        let certificate = CertificateDer::from_pem_file(testdata("tls/cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(testdata("tls/key.pem")).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::listen(&address, Some(Arc::new(config)), Arc::new(|_, _| OK))
    }

    /// Starts one that does with each message, of which it is told how many came before, as it is told.
    pub(crate) fn start(behave: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(&SocketAddr::from(([127, 0, 0, 1], 0)), behave)
    }

    pub(crate) fn start_at(
        address: &SocketAddr,
        behave: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, None, Arc::new(behave))
    }

    fn listen(
        address: &SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        behave: Arc<Behaviour>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let mut stub = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            messages: Arc::default(),
            is_over: Arc::default(),
            listening: None,
        };
        let (messages, is_over) = (Arc::clone(&stub.messages), Arc::clone(&stub.is_over));
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (messages, is_over) = (Arc::clone(&messages), Arc::clone(&is_over));
                let (behave, tls) = (Arc::clone(&behave), tls.clone());
                let stream = stream.unwrap();
                thread::spawn(move || match tls {
                    None => serve(stream, &messages, &is_over, &*behave),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        let stream = rustls::StreamOwned::new(connection, stream);
                        serve(stream, &messages, &is_over, &*behave);
                    }
                });
            }
        });
        stub.listening = Some(listening);
        stub
    }

    /// The argument that names it, with a name, a password and a token that nobody may see.
    pub(crate) fn target(&self) -> String {
        let (scheme, address) = (self.scheme, self.address);
        format!("webhook:{scheme}://user:hunter2@{address}/hunter2?token=hunter2")
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// The lines of the messages that it has said yes to.
    pub(crate) fn lines(&self) -> Vec<String> {
        let messages = self.messages();
        let accepted = messages.iter().filter(|message| message.is_accepted);
        accepted.map(Message::line).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Whoever waits for a connection gets one.
        let _ = TcpStream::connect(self.address);
        // Another one may be at this address next.
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn serve(
    stream: impl Read + Write,
    messages: &Mutex<Vec<Message>>,
    is_over: &AtomicBool,
    behave: &Behaviour,
) {
    let mut reader = BufReader::new(stream);
    while let Some(mut message) = read(&mut reader) {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let reply = {
            let mut messages = messages.lock().unwrap();
            let reply = behave(messages.len(), &message);
            message.is_accepted = matches!(reply, Reply::Status(200..=299, _) | Reply::Endless);
            messages.push(message);
            reply
        };
        let said = match reply {
            Reply::Status(status, header) => {
                let body = "\u{1b}[2Jno secrets here";
                let n_bytes = body.len();
                format!(
                    "HTTP/1.1 {status} Whatever\r\n{header}Content-Length: {n_bytes}\r\n\r\n{body}"
                )
            }
            Reply::Endless => "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
            Reply::Gibberish => "220 mail.example.org ESMTP\r\n\r\n".to_owned(),
            Reply::Hang => String::new(),
            Reply::Cut => return,
        };
        let said = reader.get_mut().write_all(said.as_bytes());
        if said.and_then(|()| reader.get_mut().flush()).is_err() {
            return;
        }
        while matches!(reply, Reply::Hang | Reply::Endless) && !is_over.load(Ordering::Relaxed) {
            let more = reader.get_mut();
            if reply == Reply::Endless && more.write_all(&[b' '; 4096]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The next request of a connection, none if it is closed.
fn read(reader: &mut impl BufRead) -> Option<Message> {
    let mut head = String::new();
    loop {
        let n_before = head.len();
        reader
            .read_line(&mut head)
            .ok()
            .filter(|n_read| *n_read > 0)?;
        if &head[n_before..] == "\r\n" {
            break;
        }
    }
    let header = |name: &str| {
        let mut lines = head.lines();
        let found = lines.find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        found.unwrap_or_default().to_owned()
    };
    let mut body = vec![0; header("content-length").parse().unwrap()];
    // A program may be killed just now.
    reader.read_exact(&mut body).ok()?;
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac(&signed)));
    let signatures = header("webhook-signature");
    assert!(
        signatures.split(' ').any(|signature| signature == expected),
        "{head}"
    );
    Some(Message {
        id,
        body: serde_json::from_slice(&body).unwrap(),
        at: Instant::now(),
        is_accepted: false,
        head,
    })
}

/// RFC 2104, by its definition.
fn hmac(text: &[u8]) -> [u8; 32] {
    let secret = SECRET.strip_prefix("whsec_").unwrap();
    let mut key = BASE64_STANDARD.decode(secret).unwrap();
    assert!(key.len() <= 64);
    key.resize(64, 0);
    let padded = |pad: u8| -> Vec<u8> { key.iter().map(|byte| byte ^ pad).collect() };
    let inner = Sha256::digest([&padded(0x36)[..], text].concat());
    Sha256::digest([&padded(0x5c)[..], &inner[..]].concat()).into()
}
