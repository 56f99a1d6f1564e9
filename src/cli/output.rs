//! How answers look: tables for people, NDJSON and CSV for programs. Whatever an event says is
//! made harmless for where it goes.

mod analyses;
mod backups;
mod feedback;
mod incidents;
mod keys;
mod profile;
mod screen;
mod similar;
mod stats;
mod tail;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::batch::Batch;
use crate::detect::Explanation;
use crate::engine::{Flow, Sink};
use crate::evaluate::Report;
use crate::query::{Found, Wanted};
use crate::record::StageField;
use crate::record::text::{json_for_terminal, printable, shorten};
use crate::time::format_time;

pub(super) use backups::print_backups;
pub(super) use feedback::FeedbackWriter;
pub(super) use incidents::print_incidents;
pub(super) use keys::print_keys;
pub(super) use profile::print_profile;
pub(super) use similar::SimilarWriter;
pub(super) use stats::print_stats;
pub(super) use tail::TailWriter;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values (RFC 4180) with a header
    Csv,
}

impl Format {
    /// A table on a terminal, NDJSON anywhere else.
    pub(super) fn automatic() -> Self {
        if io::stdout().is_terminal() {
            Self::Table
        } else {
            Self::Ndjson
        }
    }
}

/// Characters of one value in a table.
const CELL_CHARS_MAX: usize = 48;
/// Characters of the reasons in a table, before the terminal's width wraps them.
const REASONS_CHARS_MAX: usize = 160;

/// Rows of one table; more go to another one, so that an answer of any size needs no memory.
const ROWS_MAX: usize = 1_000;

/// A table that fits the terminal.
fn table(header: &[&str]) -> Table {
    let mut table = table_without_header();
    table.set_header(header.to_vec());
    table
}

fn table_without_header() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // Some terminals do not know their width (a serial line, a container without a size).
    if table.width().unwrap_or(0) == 0 {
        table.set_width(160);
    }
    table
}

fn cell(text: &str) -> String {
    shorten(&printable(text), CELL_CHARS_MAX).into_owned()
}

/// A time as RFC 3339 has it, in UTC, for a person.
fn time_cell(time: &str) -> String {
    time.replace('T', " ").replace('Z', "")
}

/// Events or anomalies on their way out.
pub(super) struct FoundWriter {
    format: Format,
    output: io::BufWriter<io::Stdout>,
    table: Option<Table>,
    header: &'static [&'static str],
    csv: Option<csv::Writer<io::Stdout>>,
    wanted: Wanted,
    is_terminal: bool,
    has_header: bool,
    buffer: Vec<u8>,
}

impl FoundWriter {
    pub(super) fn new(format: Format, wanted: Wanted) -> Self {
        let header = header(wanted);
        Self {
            format,
            output: io::BufWriter::new(io::stdout()),
            table: (format == Format::Table).then(|| table(header)),
            header,
            csv: (format == Format::Csv).then(|| csv::Writer::from_writer(io::stdout())),
            wanted,
            is_terminal: io::stdout().is_terminal(),
            has_header: false,
            buffer: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, found: &Found) -> anyhow::Result<()> {
        match self.format {
            Format::Ndjson => self.write_line(found)?,
            Format::Csv => self.write_csv(found).map_err(io_error)?,
            Format::Table => self.add_row(found)?,
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.write_csv_header().map_err(io_error)?;
        if let Some(table) = &self.table
            && table.row_count() > 0
        {
            writeln!(self.output, "{table}")?;
        }
        self.flush()
    }

    /// What was written is seen.
    fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(csv) = &mut self.csv {
            csv.flush()?;
        }
        Ok(self.output.flush()?)
    }

    fn write_line(&mut self, found: &Found) -> io::Result<()> {
        self.buffer.clear();
        match &found.anomaly_json {
            Some(json) if self.wanted == Wanted::Anomalies => {
                self.buffer.extend_from_slice(json);
                self.buffer.push(b'\n');
            }
            _ => found.push_line(&mut self.buffer),
        }
        if self.is_terminal {
            let text = String::from_utf8_lossy(&self.buffer);
            return self.output.write_all(json_for_terminal(&text).as_bytes());
        }
        self.output.write_all(&self.buffer)
    }

    fn write_csv(&mut self, found: &Found) -> csv::Result<()> {
        self.write_csv_header()?;
        let Some(csv) = &mut self.csv else {
            return Ok(());
        };
        let event = &found.block.events[0];
        let view = found.block.view(event);
        let text = |text: &str| csv_text(text, self.is_terminal);
        let anomaly = found.anomaly.as_ref();
        let reasons = anomaly
            .map(|anomaly| anomaly.reasons.join("; "))
            .unwrap_or_default();
        csv.write_record([
            format_time(view.timestamp_ms),
            view.timestamp_ms.to_string(),
            text(view.event_id),
            text(view.user),
            text(view.kind),
            text(view.source_ip.unwrap_or_default()),
            text(view.geo_location.unwrap_or_default()),
            event.status.name().to_owned(),
            view.threat_score
                .map(|score| score.to_string())
                .unwrap_or_default(),
            anomaly
                .map(|anomaly| anomaly.anomaly_score.to_string())
                .unwrap_or_default(),
            anomaly
                .map(|anomaly| anomaly.severity.to_string())
                .unwrap_or_default(),
            text(&reasons),
        ])?;
        Ok(())
    }

    /// Once, before the first record or the end.
    fn write_csv_header(&mut self) -> csv::Result<()> {
        if let Some(csv) = &mut self.csv
            && !std::mem::replace(&mut self.has_header, true)
        {
            csv.write_record([
                "time",
                "timestamp",
                "event_id",
                "user",
                "type",
                "source_ip",
                "geo_location",
                "status",
                "threat_score",
                "anomaly_score",
                "severity",
                "reasons",
            ])?;
        }
        Ok(())
    }

    fn add_row(&mut self, found: &Found) -> io::Result<()> {
        let Some(table) = &mut self.table else {
            return Ok(());
        };
        table.add_row(row(found, self.wanted));
        if table.row_count() == ROWS_MAX {
            writeln!(self.output, "{table}")?;
            *table = self::table(self.header);
        }
        Ok(())
    }
}

fn header(wanted: Wanted) -> &'static [&'static str] {
    match wanted {
        Wanted::Anomalies => &[
            "TIME (UTC)",
            "SEVERITY",
            "SCORE",
            "USER",
            "TYPE",
            "ADDRESS",
            "LOCATION",
            "REASONS",
        ],
        Wanted::Events => &[
            "TIME (UTC)",
            "EVENT",
            "USER",
            "TYPE",
            "STATUS",
            "ADDRESS",
            "LOCATION",
            "SEVERITY",
        ],
        Wanted::Analyses => &analyses::HEADER,
    }
}

/// The cells of an event, under the header of what is wanted.
fn row(found: &Found, wanted: Wanted) -> Vec<String> {
    let event = &found.block.events[0];
    let view = found.block.view(event);
    let time = time_cell(&format_time(view.timestamp_ms));
    let address = cell(view.source_ip.unwrap_or("-"));
    let place = cell(view.geo_location.unwrap_or("-"));
    let severity = found
        .anomaly
        .as_ref()
        .map(|anomaly| anomaly.severity.to_string());
    match &found.anomaly {
        _ if wanted == Wanted::Analyses => analyses::row(found),
        Some(anomaly) if wanted == Wanted::Anomalies => vec![
            time,
            anomaly.severity.to_string(),
            format!("{:.3}", anomaly.anomaly_score),
            cell(view.user),
            cell(view.kind),
            address,
            place,
            shorten(&printable(&anomaly.reasons.join("; ")), REASONS_CHARS_MAX).into_owned(),
        ],
        _ => vec![
            time,
            cell(view.event_id),
            cell(view.user),
            cell(view.kind),
            event.status.name().to_owned(),
            address,
            place,
            severity.unwrap_or_default(),
        ],
    }
}

/// What went wrong below: a closed pipe has to be known as one.
fn io_error(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        kind => anyhow::anyhow!("cannot write CSV: {kind:?}"),
    }
}

/// One JSON object, with a line end.
pub(super) fn print_json(json: &str) -> io::Result<()> {
    let mut output = io::stdout();
    if output.is_terminal() {
        return writeln!(output, "{}", json_for_terminal(json));
    }
    writeln!(output, "{json}")
}

/// Text as a value of CSV.
fn csv_text(text: &str, is_terminal: bool) -> String {
    if is_terminal {
        return unformula(&printable(text));
    }
    unformula(text)
}

/// Text that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, CSV
/// Injection).
fn unformula(text: &str) -> String {
    // What a spreadsheet passes over, and the full-width signs that some take for the others.
    let is_passed_over =
        |c: char| c == ' ' || c == '\0' || c == '\u{200B}' || c == '\u{FEFF}' || c == '\u{A0}';
    let start = text.trim_start_matches(is_passed_over);
    if start.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        return format!("'{text}");
    }
    text.to_owned()
}

/// Prints explanations: tables on a terminal, JSON in a pipe.
pub(super) struct ExplanationSink;

impl Sink for ExplanationSink {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let mut n_out = 0;
        for block in &batch.blocks {
            for event in &block.events {
                n_out += 1;
                let json = block.stage_value(event, StageField::Anomaly);
                print_explanation(json.unwrap_or_default())?;
            }
        }
        Ok(Flow::Written {
            n_out,
            n_duplicates: 0,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

fn print_explanation(json: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout();
    if !output.is_terminal() {
        output.write_all(json)?;
        return Ok(output.write_all(b"\n")?);
    }
    let explanation: Explanation = serde_json::from_slice(json)?;
    writeln!(
        output,
        "{} of {} at {}: score {:.6}, risk {:.2}, {} events before it\n",
        cell(&explanation.event_id),
        cell(&explanation.user),
        format_time(explanation.timestamp),
        explanation.anomaly_score,
        explanation.risk,
        explanation.baseline_events
    )?;
    let mut rows = table(&["COMPONENT", "EVIDENCE", "WEIGHT", "PRODUCT", "FOUND"]);
    for piece in &explanation.components {
        rows.add_row(vec![
            piece.component.clone(),
            format!("{:.3}", piece.evidence),
            piece.weight.to_string(),
            format!("{:.3}", piece.evidence * piece.weight),
            shorten(
                &printable(piece.finding.as_deref().unwrap_or("")),
                REASONS_CHARS_MAX,
            )
            .into_owned(),
        ]);
    }
    writeln!(output, "{rows}")?;
    for (archetype, risk) in &explanation.archetypes {
        writeln!(output, " {archetype}: risk {risk:.2}")?;
    }
    Ok(())
}

/// What thresholds would raise: tables on a terminal, JSON in a pipe.
pub(super) fn print_report(report: &Report) -> anyhow::Result<()> {
    let mut output = io::stdout();
    if !output.is_terminal() {
        return Ok(print_json(&serde_json::to_string(report)?)?);
    }
    let number = |number: f64| format!("{number:.3}");
    let optional = |share: Option<f64>| share.map(number).unwrap_or_default();
    let Report {
        events,
        users,
        days,
        ..
    } = report;
    writeln!(
        output,
        "{events} events of {users} users in {days:.1} days\n"
    )?;
    let mut rows = table(&[
        "THRESHOLD",
        "ALERTS",
        "A DAY",
        "INCIDENTS",
        "A DAY",
        "A USER AND MONTH",
        "PRECISION",
        "RECALL",
        "OF EPISODES",
    ]);
    for threshold in &report.thresholds {
        rows.add_row(vec![
            threshold.threshold.to_string(),
            threshold.alerts.to_string(),
            format!("{:.1}", threshold.alerts_per_day),
            threshold.incidents.to_string(),
            format!("{:.1}", threshold.incidents_per_day),
            number(threshold.incidents_per_user_month),
            optional(threshold.precision),
            optional(threshold.recall),
            optional(threshold.episode_recall),
        ]);
    }
    writeln!(output, "{rows}")?;
    let Some(quality) = &report.quality else {
        return Ok(());
    };
    writeln!(
        output,
        "\n{} attack events in {} episodes ({} of {} labels name an event), area under precision and \
         recall {:.4}\n",
        quality.attack_events,
        quality.episodes,
        quality.labels_matched,
        quality.labels,
        quality.pr_auc
    )?;
    let mut rows = table(&["BUDGET", "EVENTS", "PRECISION", "RECALL", "OF EPISODES"]);
    for budget in &quality.budgets {
        rows.add_row(vec![
            budget.budget.to_owned(),
            budget.events.to_string(),
            number(budget.precision),
            number(budget.recall),
            number(budget.episode_recall),
        ]);
    }
    writeln!(output, "{rows}\n")?;
    let mut rows = table(&[
        "SCENARIO",
        "EPISODES",
        "FOUND AT 1 INCIDENT A USER AND MONTH",
    ]);
    for scenario in &quality.scenarios {
        rows.add_row(vec![
            cell(&scenario.scenario),
            scenario.episodes.to_string(),
            scenario.episodes_found.to_string(),
        ]);
    }
    writeln!(output, "{rows}")?;
    Ok(())
}
