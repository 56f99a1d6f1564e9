//! Finds out what the lines of a block hold: JSON, or text that is taken apart.

use std::sync::Arc;

use super::document::InputKind;
use super::tsv::Header;
use super::{Mapping, lines};
use crate::batch::line_too_long;
use crate::record::scan::Scanner;
use crate::record::{Checked, Code, Reason};

/// What a line is found to hold.
pub(super) enum Line<'a> {
    Blank,
    /// A JSON object.
    Record(&'a str),
    /// A JSON array.
    Array(&'a str),
    /// Text, and the object made of it.
    Made(&'a str, Object),
    Rejected(Box<Reason>),
}

/// An object made of a line of text.
pub(super) struct Object {
    pub(super) json: String,
    /// How many times the line says that it happened.
    pub(super) n_times: u32,
    /// The format that it is of, if that is known.
    pub(super) format: Option<usize>,
    /// It is a row of a table.
    pub(super) is_row: bool,
}

/// Takes lines apart that are not JSON.
pub(super) struct Reader<'m> {
    pub(super) mapping: &'m Mapping,
    pub(super) header: Option<Arc<Header>>,
    pub(super) line_bytes_max: usize,
}

impl Reader<'_> {
    pub(super) fn read<'a>(&mut self, line: &'a str) -> Checked<Line<'a>> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > self.line_bytes_max {
            return Err(line_too_long(self.line_bytes_max));
        }
        match line.trim_ascii_start().bytes().next() {
            None => Ok(Line::Blank),
            Some(b'{') => Ok(Line::Record(line)),
            Some(b'[') => Ok(Line::Array(line)),
            Some(_) => self.text(line),
        }
    }

    fn text<'a>(&mut self, line: &'a str) -> Checked<Line<'a>> {
        if line.starts_with('#') {
            if let Some(header) = Header::after(self.header.as_ref(), line) {
                self.header = Some(header);
                return Ok(Line::Blank);
            }
        } else if let Some(json) = self.header.as_ref().and_then(|header| header.object(line)) {
            let object = Object {
                json,
                n_times: 1,
                format: self.mapping.only,
                is_row: true,
            };
            return Ok(Line::Made(line, object));
        }
        // The head of what macOS' `log show --style syslog` prints.
        if line.starts_with("Timestamp ") && line.trim_ascii_end().ends_with("(process)[PID]") {
            return Ok(Line::Blank);
        }
        let takes_syslog = |number: &usize| self.mapping.takes(*number, InputKind::Syslog);
        let format = match self.mapping.only {
            Some(only) => Some(only).filter(takes_syslog),
            // What no other is told by.
            None => (0..self.mapping.formats.len()).rev().find(takes_syslog),
        };
        if format.is_none() {
            let value = Scanner::new(line).value(0);
            let message = "the line is not a JSON object";
            return Err(value.map_or_else(
                |reason| reason,
                |_| Reason::of_line(Code::NotAnObject, message),
            ));
        }
        let (zone, latest_ms) = (&self.mapping.config.zone, self.mapping.latest_ms());
        let Some((json, n_times)) = lines::parse(line, zone, latest_ms) else {
            let message = "neither JSON nor a line of syslog (RFC 3164, RFC 5424)";
            return Err(Reason::of_line(Code::UnknownFormat, message));
        };
        let object = Object {
            json,
            n_times,
            format,
            is_row: false,
        };
        Ok(Line::Made(line, object))
    }
}
