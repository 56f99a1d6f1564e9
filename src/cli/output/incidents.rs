//! Incidents on their way out.

use std::io::{self, IsTerminal, Write};

use super::{Format, REASONS_CHARS_MAX, cell, csv_text, io_error, print_json, table, time_cell};
use crate::query::Incident;
use crate::record::text::{printable, shorten};

pub(in crate::cli) fn print_incidents(
    incidents: &[Incident],
    format: Format,
) -> anyhow::Result<()> {
    match format {
        Format::Csv => return write_csv(incidents).map_err(io_error),
        Format::Ndjson => {
            for incident in incidents {
                print_json(&serde_json::to_string(incident)?)?;
            }
            return Ok(());
        }
        Format::Table => (),
    }
    if incidents.is_empty() {
        return Ok(());
    }
    let mut rows = table(&[
        "FIRST (UTC)",
        "LAST",
        "SEVERITY",
        "ALERTS",
        "USERS",
        "KIND",
        "USER",
        "ADDRESS",
        "ATTACK",
        "REASONS",
    ]);
    for incident in incidents {
        rows.add_row(vec![
            time_cell(&incident.first),
            time_cell(&incident.last),
            incident.severity.to_string(),
            incident.alerts.to_string(),
            incident.users.to_string(),
            cell(&incident.kind),
            cell(&incident.user),
            cell(incident.source_ip.as_deref().unwrap_or("-")),
            cell(incident.archetype.as_deref().unwrap_or("-")),
            shorten(&printable(&incident.reasons.join("; ")), REASONS_CHARS_MAX).into_owned(),
        ]);
    }
    Ok(writeln!(io::stdout(), "{rows}")?)
}

fn write_csv(incidents: &[Incident]) -> csv::Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let text = |text: &str| csv_text(text, is_terminal);
    let mut csv = csv::Writer::from_writer(io::stdout());
    csv.write_record([
        "incident",
        "kind",
        "first",
        "last",
        "alerts",
        "users",
        "severity",
        "anomaly_score",
        "risk",
        "event_id",
        "user",
        "source_ip",
        "archetype",
        "reasons",
    ])?;
    for incident in incidents {
        csv.write_record([
            text(&incident.incident),
            text(&incident.kind),
            incident.first.clone(),
            incident.last.clone(),
            incident.alerts.to_string(),
            incident.users.to_string(),
            incident.severity.to_string(),
            incident.anomaly_score.to_string(),
            incident.risk.to_string(),
            text(&incident.event_id),
            text(&incident.user),
            text(incident.source_ip.as_deref().unwrap_or_default()),
            text(incident.archetype.as_deref().unwrap_or_default()),
            text(&incident.reasons.join("; ")),
        ])?;
    }
    Ok(csv.flush()?)
}
