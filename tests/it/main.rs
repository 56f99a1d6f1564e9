//! Tests of the real programs, all in one binary, so that RocksDB is linked once.
//!
//! Where a new test goes: by the program whose promise it holds; what several programs promise
//! together goes to `pipeline.rs`. Helpers that start programs are in `tools.rs`, those around
//! databases in `database.rs`; what docs/ shows is run by `docs.rs`; `kafka.rs` has those that need a
//! broker; `mmdb.rs` writes files to look addresses up in; `llm_stub.rs` is a service that a model is
//! asked at. A test runs the program, and looks at its standard output, its standard error and its
//! exit code.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod database;
mod llm_stub;
mod mmdb;
mod tools;

mod adaptive;
mod alerts;
mod analyze;
mod backup;
mod classic_model;
mod clock;
mod consume;
mod dead_letters;
mod docs;
mod embed;
mod enrich;
mod explain;
mod faults;
mod feedback;
mod follow;
mod fuzz;
mod golden;
mod incidents;
mod injection;
mod json;
mod judge;
mod kafka;
mod kills;
mod limits;
mod live;
mod manners;
mod manual;
mod mapping;
mod memory;
mod metrics;
mod pipeline;
mod prune;
mod query;
mod query_export;
mod query_merged;
mod query_model;
mod query_output;
mod query_profile;
mod random;
mod refused;
mod replay;
mod report;
mod resume;
mod rotation;
mod schema;
mod score;
mod serve;
mod settings;
mod silences;
mod similar;
mod similar_index;
mod state;
mod store;
mod stretches;
mod terminal;
mod tidy;
mod verify;
