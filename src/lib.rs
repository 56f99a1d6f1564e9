//! StreamGuard: behavioural security analytics on the command line.
//!
//! Events come in as NDJSON, each user's habits are learned, every event is scored against
//! them, and everything is kept in an embedded RocksDB. The same stages run as small
//! programs joined by pipes and fused in one process.
//!
//! Dependencies run downward only; `tests/it/tidy.rs` holds it:
//!
//! | module | what it is | knows |
//! |---|---|---|
//! | [`record`] | the event, what stages add, wire form, validation, limits | nothing |
//! | [`metrics`] | what a program counts of itself, and whether it takes events | `record` |
//! | [`batch`] | lines that travel together | `record` |
//! | [`mapping`] | records of other formats become events | `batch` |
//! | [`schema`] | column families, keys and codecs of the store | `record` |
//! | [`embed`] | vectors that are close where events are alike | `record` |
//! | [`enrich`] | what files know of addresses | `batch` |
//! | [`detect`] | how unusual is an event for its user | `record` |
//! | [`llm`] | what a language model is told and answers, and what is not for it | `batch` |
//! | [`stage`] | what happens to a batch | `batch`, `embed`, `enrich`, `detect` |
//! | [`io`] | files, pipes, dead letters, state files | `batch` |
//! | [`engine`] | threads and order: source, stages, sink | `stage`, `io` |
//! | [`evaluate`] | what thresholds would raise, how good scores are | `engine` |
//! | [`store`] | RocksDB: write, read, verify, prune | `schema`, `batch` |
//! | [`query`] | questions to a store | `store` |
//! | [`alerts`] | tells targets of new anomalies | `query`, `store`, `io` |
//! | [`analyze`] | asks a model about events: limits, cache, breaker | `llm`, `engine`, `io` |
//! | [`serve`] | answers questions over HTTP | `query`, `store` |
//! | [`report`] | what is said on standard error | `record` |
//! | [`progress`] | how far long work has come, on a terminal | nothing |
//! | [`generate`] | made-up events with habits and attacks | `progress` |
//! | [`cli`] | what was typed, and what it means | all of them |

pub mod alerts;
pub mod analyze;
pub mod batch;
pub mod cli;
pub mod detect;
pub mod embed;
pub mod engine;
pub mod enrich;
pub mod evaluate;
pub mod generate;
pub mod io;
pub mod llm;
pub mod mapping;
pub mod metrics;
pub mod progress;
pub mod query;
pub mod record;
pub mod report;
pub mod schema;
pub mod serve;
pub mod shutdown;
pub mod stage;
pub mod store;
pub mod time;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
