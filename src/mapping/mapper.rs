//! From the lines of a block to lines of ours: finds the records, and the events of each.

mod tell;

use std::borrow::Cow;

use super::document::InputKind;
use super::event::{self, Identity};
use super::format::Format;
use super::memo::Memos;
use super::orders::Orders;
use super::plans::Plans;
use super::reader::{Line, Object, Reader};
use super::rule::View;
use super::slots::{Kind, Signs, Slot, Slots, Texts};
use super::tree::{ROOT, Tree};
use super::tsv::Ahead;
use super::walk::Found;
use super::{Kept, Mapping};
use crate::batch::{Block, Mapped, decode};
use crate::record::scan::Scanner;
use crate::record::text::utf8;
use crate::record::{Checked, Code, Reason};
pub(super) use tell::Told;

/// Events of one record, at the most: an element may be short, and what is written of it is not.
const EVENTS_MAX: u32 = 1_000;
/// Records of one line that are rejected one by one, at the most: then the line is, as a whole.
const REJECTS_MAX: usize = 1_000;
/// What may be written for a record: so many times its bytes, and some more.
const GROWTH_MAX: usize = 16;
const GROWTH_BYTES: usize = 8 << 10;
/// What is written for a block says from so many bytes on what is written for the next one; some room is left.
const GROWTH_KNOWN_BYTES: usize = 64 << 10;
const GROWTH_ROOM: f32 = 1.0625;
/// What may be written for a line. With the few lines that come with a long one in a block it is less than the
/// 31 bits that offsets have.
const LINE_WRITTEN_MAX: usize = 512 << 20;

/// Maps all lines of a block, into the room that `output` is.
pub(super) fn map_block(
    mapping: &Mapping,
    kept: &mut Kept,
    block: &Block,
    ahead: &Ahead,
    line_bytes_max: usize,
    output: Mapped,
) -> Mapped {
    let bytes = &block.lines;
    // Checked once for all lines, if they are all text.
    let text = utf8(bytes);
    let mut reader = Reader {
        mapping,
        header: ahead.header.clone(),
        line_bytes_max,
    };
    let mut lines = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = match text {
            Some(text) => Ok(&text[start..end]),
            None => decode(&bytes[start..end], line_bytes_max),
        };
        let read = match line.and_then(|line| reader.read(line)) {
            Ok(read) => read,
            Err(reason) => Line::Rejected(reason),
        };
        lines.push((start, end, read));
        start = end + 1;
    }
    let mut mapper = Mapper::new(mapping);
    mapper.output = output;
    mapper.memos = std::mem::take(&mut kept.memos);
    mapper.plans = std::mem::take(&mut kept.plans);
    mapper.orders = std::mem::take(&mut kept.orders);
    let start = mapper.output.mark();
    let n_bytes = bytes.len() as f32 * kept.growth * GROWTH_ROOM;
    mapper.output.reserve(n_bytes as usize);
    for (index, (start, end, line)) in lines.iter().enumerate() {
        mapper.output.begin_line(index as u32, *start as u32);
        let place = block.place_of_line(index, *start);
        mapper.first_record = place.record;
        mapper.identity = Identity {
            partition: place.partition,
            offset: place.offset,
            record_index: place.record,
            event_index: 0,
            raw: "",
        };
        match line {
            Line::Blank => mapper.output.blank(),
            Line::Record(record) => mapper.record(record, true),
            Line::Array(array) => mapper.array(array),
            Line::Made(line, object) => mapper.made(line, object),
            Line::Rejected(reason) => mapper.output.reject(&bytes[*start..*end], reason.clone()),
        }
    }
    // Blocks that follow each other are alike; a few lines say little of those that come.
    if bytes.len() >= GROWTH_KNOWN_BYTES {
        kept.growth = mapper.output.n_bytes_since(start) as f32 / bytes.len() as f32;
    }
    kept.memos = mapper.memos;
    kept.plans = mapper.plans;
    kept.orders = mapper.orders;
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
        is_row: false,
    };
    match reader.read(line.strip_suffix('\n').unwrap_or(line)).ok()? {
        Line::Made(_, object) => Some(object),
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

/// Maps records, one after the other.
pub(super) struct Mapper<'m, 'a> {
    mapping: &'m Mapping,
    /// The format of the record before: the next one is of it, too, most of the time.
    guess: usize,
    /// What was told by these members, and by nothing else.
    told_before: Option<(Signs, Option<usize>)>,
    pub(super) slots: Slots,
    pub(super) texts: Texts<'a>,
    pub(super) memos: Memos,
    plans: Plans,
    orders: Orders,
    output: Mapped,
    identity: Identity<'a>,
    /// The number of the first record of the line among those of the line that it was in once.
    first_record: u32,
    /// How many times the same was written already.
    repeat: u32,
    /// See [`LINE_WRITTEN_MAX`].
    written_max: usize,
}

impl<'m, 'a> Mapper<'m, 'a> {
    pub(super) fn new(mapping: &'m Mapping) -> Self {
        let mut slots = Slots::new();
        slots.notes_signs = mapping.only.is_none();
        Self {
            mapping,
            guess: mapping.only.unwrap_or(0),
            told_before: None,
            slots,
            texts: Texts::new(),
            memos: Memos::default(),
            plans: Plans::default(),
            orders: Orders::default(),
            output: Mapped::default(),
            first_record: 0,
            repeat: 0,
            written_max: LINE_WRITTEN_MAX,
            identity: Identity {
                partition: "",
                offset: 0,
                record_index: 0,
                event_index: 0,
                raw: "",
            },
        }
    }

    /// Maps the object that was made of a line.
    fn made(&mut self, line: &'a str, object: &'a Object) {
        let mut go = || -> Checked<()> {
            self.identity.raw = line;
            let told = if self.mapping.only.is_some() {
                Told::Unknown
            } else {
                self.tell_by_members(&object.json, false)?
            };
            let number = match (told, object.format) {
                // Only some formats take lines of text.
                (Told::Format(told), Some(_)) if self.mapping.takes(told, InputKind::Syslog) => {
                    told
                }
                (_, Some(number)) => {
                    self.walk(number, &object.json)?;
                    number
                }
                (Told::Format(told), None) => told,
                _ => return Err(of_no_format()),
            };
            for repeat in 0..object.n_times {
                self.repeat = repeat;
                self.events(number, &object.json)?;
            }
            Ok(())
        };
        let result = go();
        self.repeat = 0;
        if let Err(reason) = result {
            // A row without its table's head says nothing: it is kept as the object that it is.
            let raw = if object.is_row { &object.json } else { line };
            self.output.reject(raw.as_bytes(), reason);
        }
    }

    /// Maps the elements of an array.
    fn array(&mut self, array: &'a str) {
        let mark = self.output.mark();
        let mut n_records = 0;
        let mut go = || -> Checked<()> {
            let mut scanner = Scanner::new(array);
            let mut has_next = scanner.open_array()?;
            while has_next {
                scanner.peek();
                let start = scanner.at();
                scanner.value(1)?;
                self.identity.record_index = self.first_record.saturating_add(n_records);
                self.record(&array[start..scanner.at()], false);
                n_records += 1;
                if self.output.n_rejects_since(mark) > REJECTS_MAX {
                    let message =
                        format!("more than {REJECTS_MAX} of its records cannot be mapped");
                    return Err(Reason::of_line(Code::OutOfRange, message));
                }
                if self.output.n_bytes_since(mark) > self.written_max {
                    let message = format!(
                        "what its records become has more than {} bytes",
                        self.written_max
                    );
                    return Err(Reason::of_line(Code::OutOfRange, message));
                }
                has_next = scanner.next_element()?;
            }
            scanner.end()
        };
        if let Err(reason) = go() {
            self.output.take_out(mark);
            self.output.reject(array.as_bytes(), reason);
        } else if n_records == 0 {
            self.output.blank();
        }
    }

    /// Maps one record; if it is a whole line it may be an envelope.
    fn record(&mut self, record: &'a str, is_line: bool) {
        self.identity.raw = record;
        self.output.begin_record(self.identity.record_index);
        let result = self.tell(record, is_line).and_then(|told| match told {
            Told::Format(number) => self.events(number, record),
            Told::Native => {
                self.output.pass(record);
                Ok(())
            }
            Told::Envelope(place) => {
                let (start, end) = self.slots.get(place).range();
                self.array(&record[start..end]);
                Ok(())
            }
            Told::Unknown => Err(of_no_format()),
        });
        if let Err(reason) = result {
            self.output.reject(record.as_bytes(), reason);
        }
    }

    /// Notes what stands in the first element of `each`, if there is one.
    pub(super) fn look_at_first_element(&mut self, format: &Format) {
        let Some(place) = format.each else { return };
        let slot = *self.slots.get(place);
        let mut scanner = Scanner::new(self.texts.record);
        scanner.move_to(slot.range().0);
        let is_array = slot.kind == Kind::Array && slot.is_of_record();
        if is_array && matches!(scanner.open_array(), Ok(true)) {
            let found = self.found(&format.tree);
            // What is wrong with it is said by whoever maps it.
            let _ = format.tree.walk_element(found, place, &mut scanner);
        }
    }

    pub(super) fn walk(&mut self, number: usize, record: &'a str) -> Checked<&'m Format> {
        let format = self.mapping.format(number);
        self.walk_tree(&format.tree, record)?;
        Ok(format)
    }

    fn walk_tree(&mut self, tree: &Tree, record: &'a str) -> Checked<()> {
        self.slots.begin(tree.n_places());
        self.texts.begin(record);
        tree.walk(self.found(tree), ROOT)
    }

    fn found(&mut self, tree: &Tree) -> Found<'a, '_> {
        Found {
            slots: &mut self.slots,
            texts: &mut self.texts,
            orders: self.orders.of_tree(tree.number, tree.n_places()),
        }
    }

    fn holds_array(&self, place: u16) -> bool {
        self.slots.get(place).kind == Kind::Array
    }

    /// Writes the events of a record, which was walked by its format: all of them, or none, but for elements
    /// that are no act of a user. If there are such, the first is what the record is rejected for, too.
    fn events(&mut self, number: usize, record: &'a str) -> Checked<()> {
        let start = self.output.mark();
        let format = self.mapping.format(number);
        let inner = self.go_inside(format, record)?;
        let written = self.each_event(format, inner);
        if written.is_err() {
            self.output.take_out(start);
        }
        written
    }

    /// Notes what stands in the record that another one holds, if it does; the text that it stands in, unless
    /// that had to be made.
    pub(super) fn go_inside(&mut self, format: &Format, record: &'a str) -> Checked<&'a str> {
        /// Records that hold each other, at the most.
        const LEVELS_MAX: usize = 4;
        let mut text = record;
        for _ in 0..LEVELS_MAX {
            let mut places = format.inside.iter();
            let holds = |slot: &Slot| slot.kind == Kind::Object || slot.is_scalar();
            let Some(&place) = places.find(|&&place| holds(self.slots.get(place))) else {
                break;
            };
            let slot = *self.slots.get(place);
            if slot.kind == Kind::Object && slot.is_of_record() {
                let (start, end) = slot.range();
                text = &text[start..end];
                self.walk_tree(&format.tree, text)?;
                continue;
            }
            let inner = self.texts.get(&slot).map(Cow::into_owned);
            let inner = inner.filter(|inner| inner.trim_ascii_start().starts_with('{'));
            let Some(inner) = inner.filter(|_| !self.texts.is_full()) else {
                let message = "the record that it holds as text is not a JSON object";
                return Err(Reason::of_line(Code::NotAnObject, message));
            };
            self.slots.begin(format.tree.n_places());
            let found = self.found(&format.tree);
            format.tree.walk_made(found, &inner)?;
        }
        Ok(text)
    }

    fn each_event(&mut self, format: &Format, record: &'a str) -> Checked<()> {
        self.identity.event_index = self.repeat;
        let mut refused = None;
        let mark = self.output.mark();
        let bytes_max = (GROWTH_BYTES + record.len() * GROWTH_MAX).min(self.written_max);
        let array = format.each.map(|place| (place, *self.slots.get(place)));
        if array.is_some_and(|(_, slot)| slot.kind == Kind::Array && !slot.is_of_record()) {
            let message = "several events in a record that is text within another one";
            return Err(Reason::of_line(Code::OutOfRange, message));
        }
        let n_texts = self.texts.n_made();
        if let Some((place, slot)) = array.filter(|(_, slot)| slot.kind == Kind::Array) {
            let mut scanner = Scanner::new(record);
            scanner.move_to(slot.range().0);
            let mut has_next = scanner.open_array()?;
            while has_next {
                let found = self.found(&format.tree);
                format.tree.walk_element(found, place, &mut scanner)?;
                match self.event(format) {
                    Err(reason) if reason.code == Code::NoEvent => {
                        refused.get_or_insert(reason);
                    }
                    result => result?,
                }
                self.texts.keep(n_texts);
                self.identity.event_index += 1;
                if self.identity.event_index > EVENTS_MAX
                    || self.output.n_bytes_since(mark) > bytes_max
                {
                    let message = format!(
                        "more than {EVENTS_MAX} events in one record, or {GROWTH_MAX} times its bytes"
                    );
                    return Err(Reason::of_line(Code::OutOfRange, message));
                }
                has_next = scanner.next_element()?;
            }
        }
        if self.identity.event_index == self.repeat {
            self.event(format)?;
        }
        if let Some(reason) = refused {
            self.output.reject(self.identity.raw.as_bytes(), reason);
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
        format.find_patterns(&mut self.slots, &mut self.texts, &mut self.memos);
        let view = View {
            slots: &self.slots,
            texts: &self.texts,
        };
        let plan = self.plans.of(format, &view);
        #[cfg(test)]
        plan.check(format, &view);
        if let Some(reason) = plan.refusal(format, &view) {
            return Err(Reason::of_line(Code::NoEvent, reason.to_owned()));
        }
        let keeps_raw = self.mapping.config.keeps_raw;
        let identity = &self.identity;
        self.output.event(|output, fields| {
            event::write(format, &view, identity, keeps_raw, plan, output, fields)
        })
    }
}

fn of_no_format() -> Box<Reason> {
    let message = "its members are those of no known format";
    Reason::of_line(Code::UnknownFormat, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Origin, Reject};
    use crate::mapping::MappingConfig;
    use crate::record::LINE_BYTES_MAX;

    fn mapping() -> Mapping {
        let mapping = Mapping::new(MappingConfig {
            format: Some("okta".to_owned()),
            ..MappingConfig::default()
        });
        mapping.expect("it is built in")
    }

    fn records(n_records: usize) -> String {
        let record = r#"{"eventType":"user.session.start","published":"2025-01-01T00:00:00Z","actor":{"alternateId":"ann"},"outcome":{"result":"SUCCESS"}}"#;
        format!("[{}]", vec![record; n_records].join(","))
    }

    /// What one line became had no end, and offsets have 31 bits.
    #[test]
    fn what_is_written_of_a_line_has_an_end() {
        let mapping = mapping();
        let line = records(100);
        let check = |written_max: usize, n_events: usize| {
            let mut mapper = Mapper::new(&mapping);
            mapper.written_max = written_max;
            mapper.array(&line);
            let mut block = Block::new();
            block.take_mapped(mapper.output);
            assert_eq!(block.events.len(), n_events);
            let reason = |reject: &Reject| reject.reason.code;
            let rejects: Vec<Code> = block.rejects.iter().map(reason).collect();
            if n_events == 0 {
                assert_eq!(rejects, [Code::OutOfRange], "the line, once");
                assert_eq!(block.bytes(block.rejects[0].line), line.as_bytes());
            } else {
                assert!(rejects.is_empty());
            }
        };
        check(LINE_WRITTEN_MAX, 100);
        check(10_000, 0);
    }

    /// Records of other formats that have the same members, one after the other: what is remembered is not told of them.
    #[test]
    fn who_has_the_members_of_the_record_before_may_be_of_another_format() {
        let mapping = Mapping::new(MappingConfig {
            format: Some(crate::mapping::AUTO.to_owned()),
            ..MappingConfig::default()
        });
        let mapping = mapping.expect("it is built in");
        let mut mapper = Mapper::new(&mapping);
        let mut names = Vec::new();
        for kind in [
            "GitHub.Audit",
            "Zoom.Activity",
            "Zoom.Activity",
            "None",
            "Box.Event",
        ] {
            let record = format!(r#"{{"p_log_type":"{kind}"}}"#);
            let told = Mapper::tell_by_members(&mut mapper, record.leak(), true);
            names.push(match told.expect("it is an object") {
                Told::Format(number) => mapping.format(number).name.clone(),
                _ => "none".to_owned(),
            });
        }
        assert_eq!(names, ["github", "zoom", "zoom", "none", "box"]);
    }

    /// A letter says which record of its line it was: anybody may have written it.
    #[test]
    fn records_are_numbered_from_any_number_on() {
        let mapping = mapping();
        let mut block = Block::new();
        block.lines = (records(3) + "\n").into_bytes();
        block.origins.push(Origin {
            record: u32::MAX,
            ..block.origin.clone()
        });
        mapping.parse(&mut block, &Ahead::default(), LINE_BYTES_MAX);
        assert_eq!(block.events.len(), 3);
    }
}
