//! Bytes in and bytes out: files, pipes, dead letters.

pub mod dead_letter;
pub mod files;
mod follow;
pub mod kafka;
pub mod lines;
pub mod marked;
pub mod ndjson;
pub mod position;
