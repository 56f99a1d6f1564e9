//! An analyst's verdict on an event, as it is kept and shown. It knows nothing of what a verdict
//! changes in a baseline.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest note and name, in bytes.
pub const NOTE_BYTES_MAX: usize = 4096;
pub const NAME_BYTES_MAX: usize = 256;

/// What an analyst has found of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// It was the user's own: what it came with is known from now on
    Benign,
    /// It was not the user's: nothing of it counts as theirs
    Malicious,
}

impl Judgement {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Benign => Self::Malicious,
            Self::Malicious => Self::Benign,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Malicious => "malicious",
        }
    }
}

/// The last verdict on an event, with whose event it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Feedback {
    pub event_id: String,
    pub user: String,
    pub timestamp: i64,
    pub verdict: Judgement,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who says so.
    pub by: String,
    /// When, in ms since 1970.
    pub given: i64,
    /// Where a baseline was corrected by this verdict: `database`, or the path of a state folder.
    #[serde(default)]
    pub corrected: Vec<String>,
    /// Where it still is as the other verdict has corrected it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrected_otherwise: Vec<String>,
}

/// `text`, if it can be kept as a note.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_note(text: &str) -> Result<String, String> {
    check(text, NOTE_BYTES_MAX)
}

/// `text`, if it can be kept as an author's name.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_name(text: &str) -> Result<String, String> {
    check(text, NAME_BYTES_MAX)
}

fn check(text: &str, bytes_max: usize) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty: leave it out, or say something".to_owned());
    }
    if text.len() > bytes_max {
        let n_bytes = text.len();
        return Err(format!(
            "it has {n_bytes} bytes, {bytes_max} are kept: say it in fewer words"
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("it has control characters or line ends: leave them out".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_plain() {
        assert!(parse_note(&"n".repeat(NOTE_BYTES_MAX)).is_ok());
        assert!(parse_note(&"n".repeat(NOTE_BYTES_MAX + 1)).is_err());
        assert!(parse_name(&"n".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(parse_name(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
        for text in ["", " ", "a\nb", "\u{1b}[2J", "\u{85}", "\0"] {
            assert!(parse_note(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_note("=1+1, ü"), Ok("=1+1, ü".to_owned()));
    }
}
