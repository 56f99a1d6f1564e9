//! A database that another program has open: what that program is asked, and who may ask next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::protocol::{ANSWER_BYTES_MAX, Answer, Ask, PROTOCOL, Wire, WriterInfo};
use crate::schema;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program that had the database open has gone, or does not answer. Asking again may help.
#[derive(Debug, thiserror::Error)]
#[error("the program that has the database {path} open has ended, or does not answer: ask again")]
pub(super) struct Lost {
    pub(super) path: String,
}

/// A connection to the program that has a database open.
pub(super) struct Remote {
    wire: Box<dyn Wire>,
    frame: Vec<u8>,
    shown: String,
    pub(super) writer: WriterInfo,
    /// Whose numbers its news have.
    pub(super) epoch: u64,
}

impl Remote {
    /// Begins to speak with whoever is at the other end. `shown` says which database it is.
    ///
    /// # Errors
    /// If it speaks another language, or does not answer.
    pub(super) fn open(wire: Box<dyn Wire>, shown: String) -> anyhow::Result<Self> {
        let mut remote = Self {
            wire,
            frame: Vec::new(),
            shown,
            writer: WriterInfo::default(),
            epoch: 0,
        };
        let set = remote.wire.set_patience(Some(PATIENCE));
        set.map_err(|_| remote.lost())?;
        let shown = remote.shown.clone();
        let Answer::Hello {
            protocol,
            schema,
            writer,
            epoch,
        } = remote.receive()?
        else {
            return Err(unexpected());
        };
        anyhow::ensure!(
            (protocol, schema) == (PROTOCOL, schema::SCHEMA_VERSION),
            "the {} that has the database {shown} open is of another release: use that release's programs",
            crate::record::text::printable(&writer.program)
        );
        remote.writer = writer;
        remote.epoch = epoch;
        Ok(remote)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Lost`], or what the program says has gone wrong.
    pub(super) fn ask(&mut self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        self.frame = postcard::to_extend(ask, std::mem::take(&mut self.frame))?;
        let sent = self.wire.send(&self.frame);
        self.frame.clear();
        sent.map_err(|_| self.lost())?;
        self.receive()
    }

    fn receive(&mut self) -> anyhow::Result<Answer> {
        let received = self.wire.receive(&mut self.frame, ANSWER_BYTES_MAX);
        let answer = match received {
            Ok(true) => postcard::from_bytes(&self.frame).map_err(|_| unexpected()),
            Ok(false) | Err(_) => Err(self.lost().into()),
        };
        self.frame.clear();
        match answer? {
            Answer::Failed(text) => Err(anyhow::Error::msg(text)),
            Answer::Ending => Err(self.lost().into()),
            answer => Ok(answer),
        }
    }

    fn lost(&self) -> Lost {
        Lost {
            path: self.shown.clone(),
        }
    }
}

/// A connection while a question is asked; whoever asks next gets it afterwards.
pub(super) struct Borrowed<'a> {
    remote: Mutex<Option<Remote>>,
    idle: &'a Mutex<Vec<Remote>>,
}

/// Connections that wait for the next question.
const IDLE_MAX: usize = 16;

impl<'a> Borrowed<'a> {
    pub(super) fn new(remote: Remote, idle: &'a Mutex<Vec<Remote>>) -> Self {
        Self {
            remote: Mutex::new(Some(remote)),
            idle,
        }
    }

    pub(super) fn ask(&self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let mut remote = lock(&self.remote);
        let asked = remote.as_mut().map(|remote| remote.ask(ask));
        let asked = asked.ok_or_else(unexpected)?;
        if asked.is_err() {
            // Nobody knows where it stands.
            *remote = None;
        }
        asked
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some(mut remote) = lock(&self.remote).take() else {
            return;
        };
        if remote.ask(&Ask::Rest).is_ok() {
            let mut idle = lock(self.idle);
            if idle.len() < IDLE_MAX {
                idle.push(remote);
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number by which a family is named between programs.
pub(super) fn family_number(name: &str) -> u8 {
    let place = schema::FAMILIES.iter().position(|family| *family == name);
    place.expect("all families are there") as u8
}

pub(super) fn unexpected() -> anyhow::Error {
    anyhow::anyhow!("the program that has the database open has answered something else")
}
