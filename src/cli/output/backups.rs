//! Backups on their way out.

use std::io::{self, Write as _};

use super::{Format, cell, print_json, table, time_cell};
use crate::store::backup::Backup;
use crate::time::format_time;

pub(in crate::cli) fn print_backups(backups: &[Backup], format: Format) -> anyhow::Result<()> {
    if format != Format::Table {
        for backup in backups {
            let mut object = serde_json::json!({
                "backup": backup.number,
                "time": backup.found.map(|it| format_time(it.time_ms)),
                "bytes": backup.found.map(|it| it.n_bytes),
                "files": backup.found.map(|it| it.n_files),
            });
            if !backup.damaged.is_empty() {
                object["damaged"] = serde_json::json!(backup.damaged);
            }
            print_json(&object.to_string())?;
        }
        return Ok(());
    }
    let mut rows = table(&["BACKUP", "TIME (UTC)", "BYTES", "FILES", "DAMAGED"]);
    for backup in backups {
        let mut damaged = backup.damaged.iter();
        let damaged = match (damaged.next(), damaged.count()) {
            (None, _) => "-".to_owned(),
            (Some(file), 0) => cell(file),
            (Some(file), n_more) => format!("{} and {n_more} more", cell(file)),
        };
        let unknown = || "-".to_owned();
        let found = backup.found;
        rows.add_row(vec![
            backup.number.to_string(),
            found.map_or_else(unknown, |it| time_cell(&format_time(it.time_ms))),
            found.map_or_else(unknown, |it| it.n_bytes.to_string()),
            found.map_or_else(unknown, |it| it.n_files.to_string()),
            damaged,
        ]);
    }
    Ok(writeln!(io::stdout(), "{rows}")?)
}
