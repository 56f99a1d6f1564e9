//! What is said to a language model and what comes back. All text of events is an attacker's, and so
//! is what a model makes of it. This module knows texts; it knows no stage, no store and no engine.

pub mod clean;
pub mod injection;
