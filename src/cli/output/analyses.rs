//! Analyses as rows of a table. What a model says is anybody's text, too.

use super::{REASONS_CHARS_MAX, cell, time_cell};
use crate::query::Found;
use crate::record::text::{printable, shorten};
use crate::time::format_time;

pub(super) const HEADER: [&str; 7] = [
    "TIME (UTC)",
    "SEVERITY",
    "MODEL SAYS",
    "USER",
    "TYPE",
    "SUMMARY",
    "RECOMMENDATION",
];

pub(super) fn row(found: &Found) -> Vec<String> {
    let view = found.block.view(&found.block.events[0]);
    let analysis = found.analysis();
    let severity = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
    // Without an answer: why there is none.
    let says = analysis.as_ref().map(|analysis| match analysis.severity {
        Some(severity) => severity.to_string(),
        None => analysis.outcome.name().to_owned(),
    });
    let text = |text: Option<&String>| {
        let text = text.map_or("-", String::as_str);
        shorten(&printable(text), REASONS_CHARS_MAX).into_owned()
    };
    vec![
        time_cell(&format_time(view.timestamp_ms)),
        severity.map_or_else(|| "-".to_owned(), |severity| severity.to_string()),
        says.unwrap_or_default(),
        cell(view.user),
        cell(view.kind),
        text(analysis.as_ref().and_then(|it| it.summary.as_ref())),
        text(analysis.as_ref().and_then(|it| it.recommendation.as_ref())),
    ]
}
