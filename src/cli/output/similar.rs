//! Events that are like another one on their way out.

use std::io::{self, Write};

use super::{Format, REASONS_CHARS_MAX, cell, print_json, table, time_cell};
use crate::query::similar::Similar;
use crate::record::text::{printable, shorten};
use crate::time::format_time;

pub(in crate::cli) fn print_similar(similar: Vec<Similar>, format: Format) -> anyhow::Result<()> {
    if format != Format::Table {
        for similar in similar {
            print_json(&String::from_utf8_lossy(&similar.into_json()))?;
        }
        return Ok(());
    }
    if similar.is_empty() {
        return Ok(());
    }
    let mut rows = table(&[
        "ALIKE",
        "TIME (UTC)",
        "EVENT",
        "USER",
        "TYPE",
        "ADDRESS",
        "LOCATION",
        "SEVERITY",
        "REASONS",
    ]);
    for Similar { score, found } in similar {
        let view = found.block.view(&found.block.events[0]);
        let (severity, reasons) = match &found.anomaly {
            Some(anomaly) => (anomaly.severity.to_string(), anomaly.reasons.join("; ")),
            None => (String::new(), String::new()),
        };
        rows.add_row(vec![
            format!("{score:.3}"),
            time_cell(&format_time(view.timestamp_ms)),
            cell(view.event_id),
            cell(view.user),
            cell(view.kind),
            cell(view.source_ip.unwrap_or("-")),
            cell(view.geo_location.unwrap_or("-")),
            severity,
            shorten(&printable(&reasons), REASONS_CHARS_MAX).into_owned(),
        ]);
    }
    Ok(writeln!(io::stdout(), "{rows}")?)
}
