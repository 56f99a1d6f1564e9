//! From the lines of a block to lines of ours: finds the records, what each of them is, and its events.

use std::sync::Arc;

use super::document::InputKind;
use super::event::{self, Identity};
use super::format::Format;
use super::slots::{Kind, Slots, Texts};
use super::tsv::{Ahead, Header};
use super::walk::{Found, ROOT};
use super::{Mapping, lines};
use crate::batch::{Block, Mapped, decode, line_too_long};
use crate::record::scan::Scanner;
use crate::record::text::push_json_string;
use crate::record::{Checked, Code, Reason};

/// Maps all lines of a block.
pub(super) fn map_block(
    mapping: &Mapping,
    block: &Block,
    ahead: &Ahead,
    line_bytes_max: usize,
) -> Mapped {
    let bytes = &block.lines;
    // Checked once for all lines, if they are all text.
    let text = std::str::from_utf8(bytes);
    let mut reader = Reader {
        mapping,
        header: ahead.header.clone(),
        line_bytes_max,
    };
    let mut lines = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = match text {
            Ok(text) => Ok(&text[start..end]),
            Err(_) => decode(&bytes[start..end], line_bytes_max),
        };
        let read = match line.and_then(|line| reader.read(line)) {
            Ok(read) => read,
            Err(reason) => Line::Rejected(reason),
        };
        lines.push((start, end, read));
        start = end + 1;
    }
    let mut mapper = Mapper::new(mapping);
    mapper.output.reserve(bytes.len());
    for (index, (start, end, line)) in lines.iter().enumerate() {
        mapper.output.begin_line(index as u32, *start as u32);
        let (partition, offset) = block.place_of_line(index, *start);
        mapper.identity = Identity {
            partition,
            offset,
            record_index: 0,
            event_index: 0,
            raw: "",
        };
        match line {
            Line::Blank => mapper.output.blank(),
            Line::Record(record) => mapper.record(record, true),
            Line::Array(array) => mapper.array(array),
            Line::Made(line, objects) => mapper.made(line, objects),
            Line::Rejected(reason) => mapper.output.reject(&bytes[*start..*end], reason.clone()),
        }
    }
    mapper.output
}

/// The first record of a block of one line, wherever in the line it stands; none if the line holds none.
pub(super) fn record_of(
    mapping: &Mapping,
    block: &Block,
    ahead: &Ahead,
    line_bytes_max: usize,
) -> Option<Object> {
    let mut reader = Reader {
        mapping,
        header: ahead.header.clone(),
        line_bytes_max,
    };
    let line = std::str::from_utf8(&block.lines).ok()?;
    let of_json = |json: &str| Object {
        json: json.to_owned(),
        n_times: 1,
        format: None,
    };
    match reader.read(line.strip_suffix('\n').unwrap_or(line)).ok()? {
        Line::Made(_, mut objects) => objects.pop(),
        Line::Array(array) => first_element(array, 0).map(of_json),
        Line::Record(record) => {
            let mut mapper = Mapper::new(mapping);
            Some(of_json(match mapper.tell(record, true).ok()? {
                Told::Envelope(place) => first_element(record, mapper.slots.get(place).range().0)?,
                _ => record,
            }))
        }
        Line::Blank | Line::Rejected(_) => None,
    }
}

/// The first element of the array that stands there.
fn first_element(text: &str, array: usize) -> Option<&str> {
    let mut scanner = Scanner::new(text);
    scanner.move_to(array);
    if !scanner.open_array().ok()? {
        return None;
    }
    scanner.peek();
    let start = scanner.at();
    scanner.value(1).ok()?;
    Some(&text[start..scanner.at()])
}

/// What a line is found to hold.
enum Line<'a> {
    Blank,
    /// A JSON object.
    Record(&'a str),
    /// A JSON array.
    Array(&'a str),
    /// Text, and objects made of it.
    Made(&'a str, Vec<Object>),
    Rejected(Box<Reason>),
}

/// An object made of a line of text.
pub(super) struct Object {
    pub(super) json: String,
    /// How many times the line says that it happened.
    pub(super) n_times: u32,
    /// The format that it is of, if that is known.
    pub(super) format: Option<usize>,
}

/// Takes lines apart that are not JSON.
struct Reader<'m> {
    mapping: &'m Mapping,
    header: Option<Arc<Header>>,
    line_bytes_max: usize,
}

impl Reader<'_> {
    fn read<'a>(&mut self, line: &'a str) -> Checked<Line<'a>> {
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
            if let Some(header) = Header::after(self.header.as_deref(), line) {
                self.header = Some(Arc::new(header));
                return Ok(Line::Blank);
            }
        } else if let Some(json) = self.header.as_ref().and_then(|header| header.object(line)) {
            let object = Object {
                json,
                n_times: 1,
                format: self.mapping.only,
            };
            return Ok(Line::Made(line, vec![object]));
        }
        let takes_syslog = |number: &usize| self.mapping.takes(*number, InputKind::Syslog);
        let format = match self.mapping.only {
            Some(only) => Some(only).filter(takes_syslog),
            None => (0..self.mapping.formats.len()).find(takes_syslog),
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
        };
        Ok(Line::Made(line, vec![object]))
    }
}

/// Maps records, one after the other.
pub(super) struct Mapper<'m, 'a> {
    mapping: &'m Mapping,
    /// The format of the record before: the next one is of it, too, most of the time.
    guess: usize,
    pub(super) slots: Slots,
    pub(super) texts: Texts<'a>,
    output: Mapped,
    identity: Identity<'a>,
}

/// What a record is found to be.
pub(super) enum Told {
    Format(usize),
    Native,
    /// An object that holds records: the place of their array.
    Envelope(u16),
    Unknown,
}

impl<'m, 'a> Mapper<'m, 'a> {
    pub(super) fn new(mapping: &'m Mapping) -> Self {
        Self {
            mapping,
            guess: mapping.only.unwrap_or(0),
            slots: Slots::new(),
            texts: Texts::new(),
            output: Mapped::default(),
            identity: Identity {
                partition: "",
                offset: 0,
                record_index: 0,
                event_index: 0,
                raw: "",
            },
        }
    }

    /// Maps the objects that were made of a line.
    fn made(&mut self, line: &'a str, objects: &'a [Object]) {
        let mut go = || -> Checked<()> {
            for object in objects {
                self.identity.raw = line;
                let number = match object.format {
                    Some(number) => {
                        self.walk(number, &object.json)?;
                        number
                    }
                    None => match self.tell(&object.json, false)? {
                        Told::Format(number) => number,
                        _ => return Err(unknown()),
                    },
                };
                for _ in 0..object.n_times {
                    self.events(number, &object.json)?;
                    self.identity.record_index += 1;
                }
            }
            Ok(())
        };
        if let Err(reason) = go() {
            self.output.reject(line.as_bytes(), reason);
        }
    }

    /// Maps the elements of an array.
    fn array(&mut self, array: &'a str) {
        let start = self.output.at();
        let mut n_records = 0;
        let mut go = || -> Checked<()> {
            let mut scanner = Scanner::new(array);
            let mut has_next = scanner.open_array()?;
            while has_next {
                scanner.peek();
                let start = scanner.at();
                scanner.value(1)?;
                self.identity.record_index = n_records;
                self.record(&array[start..scanner.at()], false);
                n_records += 1;
                has_next = scanner.next_element()?;
            }
            scanner.end()
        };
        if let Err(reason) = go() {
            self.output.take_out(start);
            self.output.reject(array.as_bytes(), reason);
        } else if n_records == 0 {
            self.output.blank();
        }
    }

    /// Maps one record; if it is a whole line it may be an envelope.
    fn record(&mut self, record: &'a str, is_line: bool) {
        self.identity.raw = record;
        let result = self.tell(record, is_line).and_then(|told| match told {
            Told::Format(number) => self.events(number, record),
            Told::Native => {
                self.output.pass(record.as_bytes());
                Ok(())
            }
            Told::Envelope(place) => {
                let (start, end) = self.slots.get(place).range();
                self.array(&record[start..end]);
                Ok(())
            }
            Told::Unknown => Err(unknown()),
        });
        if let Err(reason) = result {
            self.output.reject(record.as_bytes(), reason);
        }
    }

    /// Finds out what a record is, and what stands in it.
    pub(super) fn tell(&mut self, record: &'a str, is_line: bool) -> Checked<Told> {
        let mapping = self.mapping;
        if let Some(only) = mapping.only {
            let format = self.walk(only, record)?;
            let envelope = self.envelope(&format.envelopes).filter(|_| is_line);
            return Ok(envelope.map_or(Told::Format(only), Told::Envelope));
        }
        let guess = self.guess;
        let format = self.walk(guess, record)?;
        if format.natives.iter().all(|&sign| self.slots.has_seen(sign)) {
            return Ok(Told::Native);
        }
        let is_told = |number: &usize| {
            let format = mapping.format(*number);
            format.is_told_by(&self.slots, &self.texts)
        };
        match (0..mapping.formats.len()).find(is_told) {
            Some(number) if number == guess => Ok(Told::Format(number)),
            Some(number) => {
                self.guess = number;
                self.walk(number, record)?;
                Ok(Told::Format(number))
            }
            None => {
                let envelope = self.envelope(&format.envelopes_of_any).filter(|_| is_line);
                Ok(envelope.map_or(Told::Unknown, Told::Envelope))
            }
        }
    }

    /// Notes what stands in the first element of `each`, if there is one.
    pub(super) fn look_at_first_element(&mut self, format: &Format) {
        let Some(place) = format.each else { return };
        let slot = *self.slots.get(place);
        let mut scanner = Scanner::new(self.texts.record);
        scanner.move_to(slot.range().0);
        if slot.kind == Kind::Array && matches!(scanner.open_array(), Ok(true)) {
            let mut found = Found {
                slots: &mut self.slots,
                texts: &mut self.texts,
            };
            // What is wrong with it is said by whoever maps it.
            let _ = format.tree.walk_element(&mut found, place, &mut scanner);
        }
    }

    pub(super) fn walk(&mut self, number: usize, record: &'a str) -> Checked<&'m Format> {
        let format = self.mapping.format(number);
        self.slots.begin(format.tree.n_places());
        self.texts.begin(record);
        let mut found = Found {
            slots: &mut self.slots,
            texts: &mut self.texts,
        };
        format.tree.walk(&mut found, ROOT)?;
        Ok(format)
    }

    fn envelope(&self, places: &[u16]) -> Option<u16> {
        let mut places = places.iter().copied();
        places.find(|&place| self.slots.get(place).kind == Kind::Array)
    }

    /// Writes the events of a record, which was walked by its format: all of them, or none.
    fn events(&mut self, number: usize, record: &'a str) -> Checked<()> {
        let start = self.output.at();
        let written = self.each_event(self.mapping.format(number), record);
        if written.is_err() {
            self.output.take_out(start);
        }
        written
    }

    fn each_event(&mut self, format: &Format, record: &'a str) -> Checked<()> {
        self.identity.event_index = 0;
        let array = format.each.map(|place| (place, *self.slots.get(place)));
        if let Some((place, slot)) = array.filter(|(_, slot)| slot.kind == Kind::Array) {
            let mut scanner = Scanner::new(record);
            scanner.move_to(slot.range().0);
            let mut has_next = scanner.open_array()?;
            while has_next {
                let mut found = Found {
                    slots: &mut self.slots,
                    texts: &mut self.texts,
                };
                format.tree.walk_element(&mut found, place, &mut scanner)?;
                self.event(format)?;
                self.identity.event_index += 1;
                has_next = scanner.next_element()?;
            }
        }
        if self.identity.event_index == 0 {
            self.event(format)?;
        }
        Ok(())
    }

    fn event(&mut self, format: &Format) -> Checked<()> {
        if self.slots.has_twice {
            return Err(Reason::of_line(
                Code::DuplicateField,
                "a member that is looked at stands twice in the record",
            ));
        }
        format.find_patterns(&mut self.slots, &mut self.texts);
        let view = format.view(&self.slots, &self.texts);
        if let Some(refusal) = format
            .refusals
            .iter()
            .find(|it| view.all_hold(&it.conditions))
        {
            return Err(Reason::of_line(Code::NoEvent, refusal.reason.clone()));
        }
        let output = self.output.begin_event();
        event::write(format, &view, &self.identity, output)?;
        if self.mapping.config.keeps_raw {
            // Before the braces of metadata and of the event.
            output.truncate(output.len() - 2);
            output.extend_from_slice(b",\"raw\":");
            let raw = self.identity.raw.trim_ascii();
            if raw.starts_with('{') {
                output.extend_from_slice(raw.as_bytes());
            } else {
                push_json_string(output, raw);
            }
            output.extend_from_slice(b"}}");
        }
        self.output.end_event();
        Ok(())
    }
}

fn unknown() -> Box<Reason> {
    let message = "its members are those of no known format";
    Reason::of_line(Code::UnknownFormat, message)
}
