//! Events that are like another one on their way out.

use std::io::{self, Write};

use super::{Format, REASONS_CHARS_MAX, Table, cell, print_json, table, time_cell};
use crate::query::similar::Similar;
use crate::record::text::{printable, shorten};
use crate::time::format_time;

/// What the columns of a table are called.
const HEADER: [&str; 9] = [
    "ALIKE",
    "TIME (UTC)",
    "EVENT",
    "USER",
    "TYPE",
    "ADDRESS",
    "LOCATION",
    "SEVERITY",
    "REASONS",
];

/// Writes them one by one, or all in one table.
pub(in crate::cli) struct SimilarWriter {
    format: Format,
    rows: Option<Table>,
}

impl SimilarWriter {
    pub(in crate::cli) fn new(format: Format) -> Self {
        Self { format, rows: None }
    }

    pub(in crate::cli) fn write(&mut self, similar: Similar) -> anyhow::Result<()> {
        if self.format != Format::Table {
            return Ok(print_json(&String::from_utf8_lossy(&similar.into_json()))?);
        }
        let Similar { score, found } = similar;
        let rows = self.rows.get_or_insert_with(|| table(&HEADER));
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
        Ok(())
    }

    pub(in crate::cli) fn finish(self) -> anyhow::Result<()> {
        if let Some(rows) = self.rows {
            writeln!(io::stdout(), "{rows}")?;
        }
        Ok(())
    }
}
