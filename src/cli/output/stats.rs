//! How much there is of what, for a person or a program.

use std::cmp::Reverse;
use std::io::{self, Write as _};

use super::{Format, cell, print_json, table_without_header};
use crate::query::Stats;
use crate::record::text::printable;
use crate::time::format_time;

/// Types that the table names.
const TYPES_SHOWN_MAX: usize = 20;

pub(in crate::cli) fn print_stats(stats: &Stats, format: Format) -> io::Result<()> {
    if format != Format::Table {
        return print_json(&serde_json::to_string(&stats.summary())?);
    }
    let counters = &stats.counters;
    let [first, last] = [stats.first_ms, stats.last_ms].map(|time| time.map(format_time));
    let anomalies = &counters.anomalies;
    let mut rows = table_without_header();
    let mut add = |name: &str, value: String| {
        rows.add_row(vec![cell(name), printable(&value).into_owned()]);
    };
    add("events", counters.events.to_string());
    add("  failed or blocked", counters.failures.to_string());
    add("users", stats.n_users.to_string());
    add("first event", first.unwrap_or_default());
    add("last event", last.unwrap_or_default());
    add("anomalies", anomalies.total().to_string());
    add("  critical", anomalies.critical.to_string());
    add("  high", anomalies.high.to_string());
    add("  medium", anomalies.medium.to_string());
    add("  low", anomalies.low.to_string());
    add("bytes in files", stats.disk_bytes.to_string());
    let mut types: Vec<_> = counters.types_present().into_iter().collect();
    types.sort_by_key(|&(name, n_events)| (Reverse(n_events), name));
    add("types", "events".to_owned());
    let n_shown = types.len().min(TYPES_SHOWN_MAX);
    let (shown, others) = types.split_at(n_shown);
    for (name, n_events) in shown {
        add(&format!("  {name}"), n_events.to_string());
    }
    let n_others = others.iter().map(|(_, n_events)| n_events).sum::<u64>() + counters.other_types;
    if n_others > 0 {
        add("  all others", n_others.to_string());
    }
    writeln!(io::stdout(), "{rows}")
}
