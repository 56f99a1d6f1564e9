//! What is said to a language model and what comes back. All text of events is an attacker's, and so
//! is what a model makes of it. This module knows texts; it knows no stage, no store and no engine.

mod anthropic;
pub mod clean;
mod codes;
pub mod fingerprint;
pub mod injection;
mod openai;
pub mod price;
mod prompt;
mod redact;
pub mod reply;
mod sketch;
mod subject;
pub mod wire;

pub use prompt::{MAX_TOKENS, VERSION as PROMPT_VERSION};
pub use redact::Redact;
pub use subject::Subject;
pub use wire::Provider;
