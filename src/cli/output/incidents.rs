//! Incidents for a person, or one JSON object a line.

use std::io::{self, Write};

use super::{Format, REASONS_CHARS_MAX, cell, print_json, table, time_cell};
use crate::query::Incident;
use crate::record::text::{printable, shorten};

pub(in crate::cli) fn print_incidents(
    incidents: &[Incident],
    format: Format,
) -> anyhow::Result<()> {
    if format != Format::Table {
        for incident in incidents {
            print_json(&serde_json::to_string(incident)?)?;
        }
        return Ok(());
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
