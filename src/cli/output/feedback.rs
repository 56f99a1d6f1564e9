//! Verdicts on their way out. What people have typed is as hostile as what an event says.

use std::io::{self, IsTerminal, Write};

use super::{
    Format, REASONS_CHARS_MAX, ROWS_MAX, cell, csv_text, io_error, print_json, table, time_cell,
};
use crate::record::feedback::Feedback;
use crate::record::text::{printable, shorten};
use crate::time::format_time;
use comfy_table::Table;

const HEADER: [&str; 7] = [
    "TIME (UTC)",
    "EVENT",
    "USER",
    "VERDICT",
    "BY",
    "GIVEN (UTC)",
    "NOTE",
];

/// Writes verdicts in one form.
pub(in crate::cli) enum FeedbackWriter {
    Table(Table),
    Ndjson,
    Csv(csv::Writer<io::Stdout>),
}

impl FeedbackWriter {
    pub(in crate::cli) fn new(format: Format) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Table => Self::Table(table(&HEADER)),
            Format::Ndjson => Self::Ndjson,
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(io::stdout());
                csv.write_record([
                    "time",
                    "timestamp",
                    "event_id",
                    "user",
                    "verdict",
                    "by",
                    "given",
                    "note",
                ])
                .map_err(io_error)?;
                Self::Csv(csv)
            }
        })
    }

    pub(in crate::cli) fn write(&mut self, feedback: &Feedback) -> anyhow::Result<()> {
        match self {
            Self::Ndjson => print_json(&serde_json::to_string(feedback)?)?,
            Self::Csv(csv) => write_csv(csv, feedback).map_err(io_error)?,
            Self::Table(rows) => {
                rows.add_row(row(feedback));
                if rows.row_count() == ROWS_MAX {
                    writeln!(io::stdout(), "{rows}")?;
                    *rows = table(&HEADER);
                }
            }
        }
        Ok(())
    }

    pub(in crate::cli) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Table(rows) if rows.row_count() > 0 => writeln!(io::stdout(), "{rows}")?,
            Self::Table(_) | Self::Ndjson => (),
            Self::Csv(mut csv) => csv.flush()?,
        }
        Ok(())
    }
}

fn write_csv(csv: &mut csv::Writer<io::Stdout>, feedback: &Feedback) -> csv::Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let text = |text: &str| csv_text(text, is_terminal);
    csv.write_record([
        format_time(feedback.timestamp),
        feedback.timestamp.to_string(),
        text(&feedback.event_id),
        text(&feedback.user),
        feedback.verdict.name().to_owned(),
        text(&feedback.by),
        format_time(feedback.given),
        text(feedback.note.as_deref().unwrap_or_default()),
    ])
}

fn row(feedback: &Feedback) -> Vec<String> {
    let time = |timestamp_ms| time_cell(&format_time(timestamp_ms));
    let note = printable(feedback.note.as_deref().unwrap_or_default());
    vec![
        time(feedback.timestamp),
        cell(&feedback.event_id),
        cell(&feedback.user),
        feedback.verdict.name().to_owned(),
        cell(&feedback.by),
        time(feedback.given),
        shorten(&note, REASONS_CHARS_MAX).into_owned(),
    ]
}
