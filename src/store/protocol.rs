//! What a program that has a database open is asked by one that has not, and what it answers: the few
//! reads that all questions are made of. A connection is for one of them at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::feed::News;

/// Changes with anything below.
pub(super) const PROTOCOL: u32 = 3;
/// Bytes of a question at the most.
pub const ASK_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer at the most: a value has no limit of its own.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A question. Families are named by their place in [`crate::schema::FAMILIES`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask<'a> {
    /// All that follows is about the database as it is now.
    Look,
    /// It is not looked at any more for now.
    Rest,
    /// The values of these keys, of as many as have room in an answer, but of one at least.
    #[serde(borrow)]
    Values(Vec<(u8, &'a Bytes)>),
    Walk {
        family: u8,
        #[serde(borrow)]
        from: &'a Bytes,
        is_newest_first: bool,
        /// Not the entry with that very key.
        is_after: bool,
        n_max: u32,
    },
    /// What the keys of users begin with, behind one of them.
    Users {
        after: Option<[u8; 8]>,
        n_max: u32,
    },
    DiskBytes,
    /// What was stored after that number, since the program has begun if it is 0; none asks for the number
    /// of the last one. Waits for a while until there
    /// is something.
    News {
        after: Option<u64>,
        only_anomalies: bool,
        wait_ms: u32,
    },
    /// Links the database's files for whoever is about to copy them, and holds the lock of those who do.
    Checkpoint,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Said at once, whoever connects.
    Hello {
        protocol: u32,
        schema: u32,
        writer: WriterInfo,
        /// Whose numbers its news have.
        epoch: u64,
    },
    Done,
    /// Since when it is looked at, in ms.
    Looking {
        as_of_ms: i64,
    },
    Values(Vec<Option<ByteBuf>>),
    Entries {
        entries: Vec<(ByteBuf, ByteBuf)>,
        has_ended: bool,
    },
    Users(Vec<[u8; 8]>),
    DiskBytes(Vec<u64>),
    News(News),
    /// No more is answered.
    Ending,
    Failed(String),
}

/// Who writes to a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterInfo {
    pub program: String,
    pub pid: u32,
}

/// A connection that carries frames of bytes.
pub trait Wire: Send {
    /// Sends a frame.
    ///
    /// # Errors
    /// If the other side has gone.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// Waits for a frame of so many bytes at the most; false if the other side has ended in good order.
    ///
    /// # Errors
    /// If the other side has gone within a frame, or has not said anything for longer than its time.
    fn receive(&mut self, frame: &mut Vec<u8>, n_bytes_max: usize) -> io::Result<bool>;

    /// How long to wait for a frame; none is without end.
    ///
    /// # Errors
    /// If the system does not take it.
    fn set_patience(&mut self, patience: Option<Duration>) -> io::Result<()>;
}

/// Bytes before a frame that say how long it is.
const LENGTH_BYTES: usize = 4;

impl Wire for UnixStream {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let n_bytes = u32::try_from(frame.len()).map_err(io::Error::other)?;
        // In one piece: a small one would wait for the answer to the one before.
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + frame.len());
        bytes.extend_from_slice(&n_bytes.to_le_bytes());
        bytes.extend_from_slice(frame);
        self.write_all(&bytes)
    }

    fn receive(&mut self, frame: &mut Vec<u8>, n_bytes_max: usize) -> io::Result<bool> {
        let mut length = [0; LENGTH_BYTES];
        let n_bytes = loop {
            match self.read(&mut length) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if n_bytes == 0 {
            return Ok(false);
        }
        self.read_exact(&mut length[n_bytes..])?;
        let n_bytes = u32::from_le_bytes(length) as usize;
        if n_bytes > n_bytes_max {
            return Err(io::Error::other("a frame is too long"));
        }
        frame.clear();
        frame.resize(n_bytes, 0);
        self.read_exact(frame)?;
        Ok(true)
    }

    fn set_patience(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(patience)
    }
}
