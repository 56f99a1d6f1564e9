//! Secrets come from files and variables, never from the command line, which every user can read. A file
//! that others can read is no better, so that is said.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use crate::report::warn;

/// What the names of librdkafka's properties that are secrets have in them; `.location` names a file.
const SECRET_PARTS: [&str; 5] = ["password", "secret", ".pem", "oauthbearer.config", "token"];

/// Reads a file that holds a secret.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read(program: &str, path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    check(program, path);
    Ok(text)
}

/// Says so, if others can read a file that holds a secret. It is no reason not to work.
pub(super) fn check(program: &str, path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let shown = path.display();
        warn_once(
            program,
            &format!(
                "{shown} holds a secret, and others can read it (mode {mode:o}): chmod 600 {shown}"
            ),
        );
    }
}

/// Says something that may come up again, such as for each of several targets.
pub(super) fn warn_once(program: &str, text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // Somebody who has panicked has left no half of a set behind.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(text.to_owned()) {
        warn(program, text);
    }
}

/// Whether a property of librdkafka, with its value or without it, is a secret.
pub(super) fn is_secret_property(property: &str) -> bool {
    let key = property.split('=').next().unwrap_or_default();
    let key = key.trim().to_lowercase();
    !key.ends_with(".location") && SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// Whether a value may hold a secret: such a property, the URL of a webhook, one with a user in it.
pub(super) fn may_be_in(value: &OsStr) -> bool {
    let text = value.to_string_lossy();
    let after_scheme = text.split_once("://").map(|(_, rest)| rest);
    let has_user = after_scheme.is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.contains('@')
    });
    let is_webhook = text.starts_with("webhook:") && !text.starts_with("webhook:@");
    let has_query = after_scheme.is_some_and(|rest| rest.contains('?'));
    (text.contains('=') && is_secret_property(&text)) || is_webhook || has_user || has_query
}
