//! Embeddings: vectors that are close where events are alike. What is embedded of an event, the local
//! embedder, and the record that is kept; this module knows nothing of servers, stores or threads.

mod features;
mod local;
mod phrases;
mod record;
mod subject;

pub use local::{DIM, LOCAL_MODEL, embed_event, embed_text};
pub use record::{DIM_MAX, Embedding, MODEL_BYTES_MAX, Vector, dot};
pub use subject::Subject;
