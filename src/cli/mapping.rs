//! Records of other formats: what is typed of them, and the explanation of a line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{Ended, FileArgs, LineArgs};
use crate::batch::Block;
use crate::io::position::Positions;
use crate::mapping::{Explanation, Mapping, MappingConfig, NATIVE};
use crate::record::text::{json_for_terminal, printable};
use crate::shutdown::Shutdown;
use crate::time::{Zone, now_ms, parse_time};

/// What lines are, if not events of ours.
#[derive(Args, Debug)]
#[command(next_help_heading = "Other formats")]
pub(super) struct MappingArgs {
    /// What the lines are: `streamguard` (events of ours), `auto` (told by each record's members), or a
    /// format's name: `sg-consume --list-formats` has them all
    #[arg(long = "input-format", visible_alias = "format", value_name = "NAME", default_value = NATIVE)]
    format: String,

    /// A mapping of your own, as docs/formats.md tells; one is used for all lines, unless --format says
    /// auto. May be given several times
    #[arg(long, value_name = "FILE")]
    map: Vec<PathBuf>,

    /// Keep each record as it came under metadata.raw
    #[arg(long)]
    keep_raw: bool,

    /// The zone of times that say none (RFC 3164): UTC, +01:00 or Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = Zone::parse)]
    log_zone: Zone,

    /// When the last line was written, for times that say no year (RFC 3164): they are of the latest year
    /// in which they are not after it [default: a day from now, since clocks and zones differ]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| parse_time(text, now_ms()))]
    log_end: Option<i64>,
}

impl MappingArgs {
    /// The mapping that is asked for, if any is.
    ///
    /// # Errors
    /// If there is no such format, or a file is no mapping.
    pub(super) fn mapping(&self) -> anyhow::Result<Option<Arc<Mapping>>> {
        let is_native = self.format == NATIVE;
        if is_native && self.map.is_empty() {
            ensure!(
                !self.keep_raw && self.log_end.is_none(),
                "--keep-raw and --log-end are for other formats: say which by --format or --map"
            );
            return Ok(None);
        }
        let mapping = Mapping::new(MappingConfig {
            format: (!is_native).then(|| self.format.clone()),
            files: self.map.clone(),
            keeps_raw: self.keep_raw,
            zone: self.log_zone.clone(),
            latest_ms: self.log_end,
        })?;
        Ok(Some(Arc::new(mapping)))
    }
}

/// Prints the names of all formats, and where their records are described.
///
/// # Errors
/// If it cannot be written.
pub(super) fn list() -> anyhow::Result<Ended> {
    let mut output = std::io::stdout().lock();
    for (name, title, source) in crate::mapping::known()? {
        writeln!(output, "{name:<12} {title:<36} {source}")?;
    }
    Ok(Ended::Done)
}

/// Explains each line of the input: as a list for people on a terminal, as NDJSON otherwise.
pub(super) fn explain(
    name: &str,
    mapping: &Mapping,
    files: &FileArgs,
    lines: &LineArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<Ended> {
    let mut source = files.open(name, lines, Positions::default(), shutdown)?;
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut output = stdout.lock();
    let mut ended = Ended::Done;
    let mut read = Block::new();
    while source.fill(&mut read)? {
        let ahead = mapping.look_ahead(std::slice::from_ref(&read)).pop();
        let mut ahead = ahead.context("a block is looked at")?;
        for (start, end) in line_ends(&read.lines) {
            let mut block = Block::new();
            block.origin = read.origin.clone();
            block.origin.offset += start as u64;
            block.lines = read.lines[start..end].to_vec();
            let explanation = mapping.explain(&mut block, &ahead, lines.line_bytes_max());
            ahead = ahead.after(&read.lines[start..end]);
            if explanation.events.is_empty() && explanation.rejected.is_empty() {
                continue;
            }
            if !explanation.rejected.is_empty() {
                ended = Ended::Partly;
            }
            let text = if is_terminal {
                json_for_terminal(&shown(&explanation))
            } else {
                serde_json::to_string(&explanation)?
            };
            writeln!(output, "{text}")?;
        }
        read.clear();
    }
    Ok(ended)
}

/// Where lines begin, and where they end with their ends.
fn line_ends(lines: &[u8]) -> Vec<(usize, usize)> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', lines).map(|end| {
        let line = (start, end + 1);
        start = end + 1;
        line
    });
    ends.collect()
}

/// An explanation as people read it.
fn shown(explanation: &Explanation) -> String {
    let mut lines = vec![match (&explanation.format, &explanation.title) {
        (Some(name), Some(title)) => format!("{title} ({name})"),
        (Some(name), None) => format!("{name}: passed on as it is"),
        (None, _) => "of no known format".to_owned(),
    }];
    let width = explanation
        .fields
        .iter()
        .map(|it| it.field.len())
        .max()
        .unwrap_or(0);
    for explained in &explanation.fields {
        let from = explained.from.as_deref().unwrap_or("the mapping");
        let rule = explained
            .rule
            .map(|rule| format!(", rule {rule}"))
            .unwrap_or_default();
        let (field, value) = (&explained.field, explained.value.to_string());
        lines.push(format!(
            "  {field:width$}  {}  <- {from}{rule}",
            printable(&value)
        ));
    }
    for missing in &explanation.missing {
        let looked_for = missing.looked_for.join(", ");
        lines.push(match &*looked_for {
            "" => format!("  missing: {}", missing.field),
            _ => format!("  missing: {}: nothing in {looked_for}", missing.field),
        });
    }
    for reason in &explanation.rejected {
        let field = reason
            .field
            .map(|field| format!("{field}: "))
            .unwrap_or_default();
        lines.push(format!(
            "  rejected, {}: {field}{}",
            reason.code.name(),
            reason.message
        ));
    }
    if explanation.events.len() > 1 {
        lines.push(format!("  {} events in all", explanation.events.len()));
    }
    lines.join("\n")
}
