//! How far a pipe has come whose programs go on where they were: its last checkpoint that has arrived.

use anyhow::Context as _;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::batch::Marker;
use crate::io::marked;
use crate::io::position::Position;
use crate::record::text::hex;
use crate::schema;

/// Bytes of a database's id.
const ID_BYTES: usize = 16;

/// A pipe that ends in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    /// What tells the database from others. Nobody who writes events knows it.
    pub database: String,
    /// The last checkpoint that has arrived; 0 if none has.
    pub checkpoint: u64,
}

impl Store {
    /// The pipe that ends here, if one has begun that goes on where it was.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn pipe(&self) -> anyhow::Result<Option<Pipe>> {
        let value = self.get(schema::META, schema::META_PIPE.as_bytes())?;
        let pipe = value.map(|value| serde_json::from_slice(&value));
        let damaged = || format!("database {} is damaged", self.path().display());
        pipe.transpose().with_context(damaged)
    }

    /// Lets a pipe end here from now on.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn begin_pipe(&self) -> anyhow::Result<Pipe> {
        let mut id = [0; ID_BYTES];
        let n_bytes = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        anyhow::ensure!(n_bytes == ID_BYTES, "the system gives no random bytes");
        let pipe = Pipe {
            database: hex(&id),
            checkpoint: 0,
        };
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        writes.put_cf(meta, schema::META_PIPE, serde_json::to_vec(&pipe)?);
        self.write(writes, true)?;
        Ok(pipe)
    }

    /// How far the pipe's sources were read for its last checkpoint.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn pipe_positions(&self) -> anyhow::Result<Vec<(String, Position)>> {
        self.view()
            .positions_under(schema::META_PIPE_POSITION_PREFIX)
    }

    /// Keeps a checkpoint of the pipe. All that came before it is written.
    pub(super) fn put_pipe(&self, pipe: &Pipe, marker: &Marker, sync: bool) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        for (source, position) in marked::positions(&marker.line)? {
            let key = schema::pipe_position_key(&source);
            writes.put_cf(meta, key, serde_json::to_vec(&position)?);
        }
        writes.put_cf(meta, schema::META_PIPE, serde_json::to_vec(pipe)?);
        self.write(writes, sync)
    }
}
