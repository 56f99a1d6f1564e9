//! Events on their way out one by one, as they come: rows of a table whose columns stay where they are.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, Width};

use super::{Format, FoundWriter, header, row, table_without_header};
use crate::query::{Found, Wanted};

/// Characters of the columns but the last, of anomalies and of events.
const ANOMALY_WIDTHS: [u16; 7] = [21, 10, 7, 18, 20, 18, 18];
const EVENT_WIDTHS: [u16; 7] = [21, 34, 18, 20, 9, 18, 18];
/// Characters of the last one at least.
const LAST_WIDTH_MIN: u16 = 10;

/// Writes what has come.
pub(in crate::cli) struct TailWriter {
    format: Format,
    wanted: Wanted,
    inner: FoundWriter,
    has_header: bool,
}

impl TailWriter {
    pub(in crate::cli) fn new(format: Format, wanted: Wanted) -> Self {
        Self {
            format,
            wanted,
            inner: FoundWriter::new(format, wanted),
            has_header: false,
        }
    }

    /// Writes these, so that they are seen at once.
    pub(in crate::cli) fn write(&mut self, found: &[Found]) -> anyhow::Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        if self.format != Format::Table {
            for found in found {
                self.inner.write(found)?;
            }
            return self.inner.flush();
        }
        let mut rows = table_without_header();
        if !std::mem::replace(&mut self.has_header, true) {
            rows.add_row(header(self.wanted).to_vec());
        }
        for found in found {
            rows.add_row(row(found, self.wanted));
        }
        let widths = match self.wanted {
            Wanted::Anomalies => ANOMALY_WIDTHS,
            _ => EVENT_WIDTHS,
        };
        let of_others: u16 = widths.iter().sum();
        let last = rows.width().unwrap_or(0).saturating_sub(of_others);
        let widths = widths.into_iter().chain([last.max(LAST_WIDTH_MIN)]);
        let widths = widths.map(|width| ColumnConstraint::Absolute(Width::Fixed(width)));
        rows.set_constraints(widths);
        let mut output = io::stdout().lock();
        writeln!(output, "{rows}")?;
        Ok(output.flush()?)
    }
}
