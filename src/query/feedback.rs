//! Verdicts that analysts have given, for a question: the newest of each event.

use super::Parts;
use crate::record::feedback::Feedback;

/// Which verdicts to look for, by when they were given. Times are in ms, both ends included.
#[derive(Clone, Debug)]
pub struct FeedbackFilter {
    pub since_ms: i64,
    pub until_ms: i64,
    pub user: Option<String>,
    pub limit: usize,
}

/// Calls `each` with the verdicts that match, the newest event first, up to the limit. Tells whether
/// there are more.
///
/// # Errors
/// If a database cannot be read, or as `each` says.
pub fn feedback(
    parts: Parts<'_>,
    filter: &FeedbackFilter,
    mut each: impl FnMut(&Feedback) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut n_found = 0;
    let mut walk = parts.walk_feedback()?;
    while let Some(feedback) = walk.next_feedback()? {
        if !(filter.since_ms..=filter.until_ms).contains(&feedback.given) {
            continue;
        }
        if (filter.user.as_deref()).is_some_and(|user| user != feedback.user) {
            continue;
        }
        if n_found == filter.limit {
            return Ok(true);
        }
        n_found += 1;
        each(&feedback)?;
    }
    Ok(false)
}
