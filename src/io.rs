//! Bytes in and bytes out: files, pipes, dead letters, topics, HTTP.

pub mod append;
pub mod backoff;
pub mod dead_letter;
pub mod embeddings;
pub mod files;
mod follow;
pub mod http;
pub mod kafka;
pub mod lines;
pub mod marked;
pub mod ndjson;
pub mod position;
