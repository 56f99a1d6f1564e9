//! Keys on their way out: whose they are, never what they are.

use std::io::{self, Write as _};

use super::{Format, cell, print_json, table, time_cell};
use crate::serve::keys::KeyInfo;

pub(in crate::cli) fn print_keys(keys: &[KeyInfo], format: Format) -> anyhow::Result<()> {
    if format != Format::Table {
        for key in keys {
            print_json(&serde_json::to_string(key)?)?;
        }
        return Ok(());
    }
    let mut rows = table(&["NAME", "ROLE", "CREATED (UTC)", "REVOKED"]);
    for key in keys {
        rows.add_row(vec![
            cell(&key.name),
            key.role.name().to_owned(),
            time_cell(&key.created),
            time_cell(key.revoked.as_deref().unwrap_or("-")),
        ]);
    }
    Ok(writeln!(io::stdout(), "{rows}")?)
}
