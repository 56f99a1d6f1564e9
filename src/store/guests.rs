//! Sessions of other machines at a server: each is a thread that answers a frame with a frame. Whoever
//! says nothing for a while is given up.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::live::Live;
use super::protocol::{Wire, WriterInfo};
use super::remote::lock;
use super::session::{self, Asker, Control};
use crate::record::text::hex;

/// Sessions at the same time.
const SESSIONS_MAX: usize = 64;
/// How long a session may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of a session's name: nobody finds another one's.
const NAME_BYTES: usize = 16;

/// Those who are asking.
#[derive(Default)]
pub struct Guests(Arc<Mutex<HashMap<String, Arc<Guest>>>>);

/// The server's side of a session, for one request at a time.
type Guest = Mutex<Ends>;

struct Ends {
    to_session: SyncSender<Vec<u8>>,
    from_session: Receiver<Vec<u8>>,
}

/// One of the sessions there can be, given up however its thread ends, or if it never begins.
struct Place(Arc<Mutex<HashMap<String, Arc<Guest>>>>, String);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

impl Guests {
    /// Begins to answer about one of the databases; the session's name, or none if there are too many.
    ///
    /// # Errors
    /// If the system gives no random bytes, or no thread.
    pub fn begin(
        &self,
        lives: &Arc<Vec<Live>>,
        number: usize,
        program: &str,
    ) -> anyhow::Result<Option<String>> {
        let mut name = [0; NAME_BYTES];
        let n_bytes = rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty())?;
        anyhow::ensure!(n_bytes == NAME_BYTES, "the system gives no random bytes");
        let name = hex(&name);
        let (to_session, asked) = sync_channel(1);
        let (answer, from_session) = sync_channel(1);
        let mut guests = lock(&self.0);
        if guests.len() >= SESSIONS_MAX {
            return Ok(None);
        }
        let ends = Ends {
            to_session,
            from_session,
        };
        guests.insert(name.clone(), Arc::new(Mutex::new(ends)));
        drop(guests);
        let writer = WriterInfo {
            program: program.to_owned(),
            pid: std::process::id(),
        };
        let lives = Arc::clone(lives);
        let place = Place(Arc::clone(&self.0), name.clone());
        thread::Builder::new().spawn(move || {
            let mut wire = GuestWire { asked, answer };
            // Given up before the wire is: whoever hears of the end finds a place.
            let _place = place;
            let control = Control::default();
            session::serve(&lives[number], &mut wire, writer, &control, Asker::Guest);
        })?;
        Ok(Some(name))
    }

    /// The answer to a frame; to an empty one what is said without being asked. None if the session has
    /// ended.
    #[must_use]
    pub fn exchange(&self, name: &str, frame: Vec<u8>) -> Option<Vec<u8>> {
        let guest = lock(&self.0).get(name).map(Arc::clone)?;
        let ends = lock(&guest);
        if !frame.is_empty() {
            ends.to_session.send(frame).ok()?;
        }
        ends.from_session.recv_timeout(ANSWER).ok()
    }

    /// Ends a session.
    pub fn end(&self, name: &str) {
        lock(&self.0).remove(name);
    }
}

/// The session's side.
struct GuestWire {
    asked: Receiver<Vec<u8>>,
    answer: SyncSender<Vec<u8>>,
}

impl Wire for GuestWire {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let sent = self.answer.send(frame.to_vec());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn receive(&mut self, frame: &mut Vec<u8>, n_bytes_max: usize) -> io::Result<bool> {
        let Ok(asked) = self.asked.recv_timeout(SILENCE) else {
            return Ok(false);
        };
        if asked.len() > n_bytes_max {
            return Err(io::Error::other("a frame is too long"));
        }
        *frame = asked;
        Ok(true)
    }

    fn set_patience(&mut self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each such session took a place for good: after 64 of them nobody could ask.
    #[test]
    fn a_session_that_panics_gives_up_its_place() {
        let guests = Guests::default();
        // There is no database to be asked.
        let lives = Arc::new(Vec::new());
        for _ in 0..=SESSIONS_MAX {
            let begun = guests.begin(&lives, 0, "test").expect("it begins");
            let name = begun.expect("there is a place");
            assert_eq!(guests.exchange(&name, Vec::new()), None);
        }
        assert!(lock(&guests.0).is_empty());
    }
}
