//! From one line to one event, or to the reason why not. All of the line is checked; only
//! what the stages need is kept, as offsets.

use std::net::IpAddr;

use super::members::{IN_METADATA, Member, Orders, in_metadata, key, unescape};
use super::order::Order;
use super::scan::{Quoted, Scanner, Span, Value};
use super::stage_field::{StageField, StageFields};
use super::{
    Checked, Code, EVENT_ID_BYTES_MAX, Event, FIELD_BYTES_MAX, LookedUp, Reason, Status,
    TIMESTAMP_MS_MAX, Text, is_failure_kind,
};

/// Reads the line that stands at `offset` of a block's lines.
///
/// Text that needs unescaping goes to `arena`, stage fields to `stage_fields`; the event refers
/// to both by position. `orders` is what was seen of lines before, which saves work and changes nothing.
///
/// # Errors
/// The first reason found why the line is not a valid event; `arena` and `stage_fields` may
/// then hold unused rests.
pub fn parse(
    line: &str,
    offset: usize,
    arena: &mut Vec<u8>,
    stage_fields: &mut Vec<StageFields>,
    orders: &mut Orders,
) -> Checked<Event> {
    let mut fields = Fields::default();
    fields.read(line, orders)?;
    let mut event = event_of(line, offset, &fields, arena)?;
    if let Some(mut found) = fields.added {
        found.move_by(offset);
        stage_fields.push(found);
        event.stage_fields = stage_fields.len() as u32;
    }
    Ok(event)
}

/// Makes an event of the members of a line, which stands at `offset` of a block's lines; it has none that stages
/// have added.
///
/// # Errors
/// The first reason found why it is not valid; `arena` may then hold unused rests.
pub(crate) fn event_of(
    line: &str,
    offset: usize,
    fields: &Fields,
    arena: &mut Vec<u8>,
) -> Checked<Event> {
    let mut place = Placer {
        line,
        offset,
        arena,
    };

    let event_id = place.required("event_id", fields.event_id, EVENT_ID_BYTES_MAX)?;
    if has_control_characters(place.text(event_id)) {
        return Err(Reason::of_field(
            Code::InvalidValue,
            "event_id",
            "control character",
        ));
    }
    let user = place.required("user", fields.user, FIELD_BYTES_MAX)?;
    let timestamp_ms = timestamp_ms(line, fields.timestamp)?;
    let kind_value = if is_given(fields.kind) {
        fields.kind
    } else {
        fields.event_type
    };
    let kind = place.required("type", kind_value, FIELD_BYTES_MAX)?;
    let source_ip = place.source_ip(fields.source_ip)?;
    let geo_location = if is_given(fields.geo_location) {
        place.optional("geo_location", fields.geo_location, FIELD_BYTES_MAX)?
    } else {
        let [value, ..] = fields.of_metadata;
        place.optional("metadata.geo_location", value, FIELD_BYTES_MAX)?
    };
    let threat_score = threat_score(line, fields.threat_score)?;
    let status = place.status(fields.status)?;
    let [_, asn, device, user_agent, endpoint, bytes] = fields.of_metadata;
    let asn = place.if_scalar(asn);
    let device = place.if_scalar(device);
    let user_agent = place.if_scalar(user_agent);
    let endpoint = place.if_scalar(endpoint);
    let bytes = bytes_of(line, bytes);
    let is_failure =
        matches!(status, Status::Failed | Status::Blocked) || is_failure_kind(place.text(kind));

    Ok(Event {
        line: Text::in_lines(offset, line.len()),
        close: (offset + fields.close) as u32,
        line_index: 0,
        timestamp_ms,
        event_id,
        user,
        kind,
        source_ip,
        geo_location,
        threat_score,
        status,
        asn,
        device,
        user_agent,
        endpoint,
        bytes,
        is_failure,
        looked_up: LookedUp::default(),
        stage_fields: 0,
    })
}

/// The known members of an event, as they stand in the line.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) event_id: Option<Value>,
    pub(crate) user: Option<Value>,
    pub(crate) timestamp: Option<Value>,
    pub(crate) kind: Option<Value>,
    event_type: Option<Value>,
    pub(crate) source_ip: Option<Value>,
    pub(crate) geo_location: Option<Value>,
    pub(crate) threat_score: Option<Value>,
    pub(crate) status: Option<Value>,
    metadata: Option<Value>,
    /// By [`in_metadata`].
    pub(crate) of_metadata: [Option<Value>; IN_METADATA.len()],
    added: Option<StageFields>,
    /// Offset of the closing brace.
    pub(crate) close: usize,
}

impl Fields {
    /// Looks which strings have escapes, which was not known when they were written. Most lines have none.
    pub(crate) fn find_escapes(&mut self, line: &[u8]) {
        if memchr::memchr(b'\\', line).is_none() {
            return;
        }
        let Self {
            event_id,
            user,
            timestamp,
            kind,
            event_type,
            source_ip,
            geo_location,
            threat_score,
            status,
            metadata,
            of_metadata,
            added: _,
            close: _,
        } = self;
        let of_event = [
            event_id,
            user,
            timestamp,
            kind,
            event_type,
            source_ip,
            geo_location,
            threat_score,
            status,
            metadata,
        ];
        for value in of_event.into_iter().chain(of_metadata).flatten() {
            value.find_escapes(line);
        }
    }

    /// Filled in place: it is large, and every line needs one.
    fn read(&mut self, line: &str, orders: &mut Orders) -> Checked<()> {
        let mut scanner = Scanner::new(line);
        if scanner.peek() != Some(b'{') {
            // Any other whole JSON value gets the more helpful reason.
            scanner.value(0)?;
            scanner.end()?;
            return Err(Reason::of_line(
                Code::NotAnObject,
                "the line is not a JSON object",
            ));
        }
        let mut cursor = orders.of_line.begin();
        let mut has_next = scanner.open_object()?;
        while has_next {
            let start = scanner.at();
            let read = |scanner: &mut Scanner<'_>| key(scanner, "a field name", Member::of);
            let member = orders.of_line.key(&mut cursor, &mut scanner, read)?;
            self.member(member, &mut scanner, start, &mut orders.of_metadata)?;
            has_next = scanner.next_member()?;
        }
        self.close = scanner.at() - 1;
        scanner.end()
    }

    fn member(
        &mut self,
        member: Member,
        scanner: &mut Scanner<'_>,
        start: usize,
        order: &mut Order<Option<u8>>,
    ) -> Checked<()> {
        let (slot, name) = match member {
            Member::EventId => (&mut self.event_id, "event_id"),
            Member::User => (&mut self.user, "user"),
            Member::Timestamp => (&mut self.timestamp, "timestamp"),
            Member::Kind => (&mut self.kind, "type"),
            Member::EventType => (&mut self.event_type, "event_type"),
            Member::SourceIp => (&mut self.source_ip, "source_ip"),
            Member::GeoLocation => (&mut self.geo_location, "geo_location"),
            Member::ThreatScore => (&mut self.threat_score, "threat_score"),
            Member::Status => (&mut self.status, "status"),
            Member::Metadata => return self.metadata(scanner, order),
            Member::Added(field) => return self.added(field, scanner, start),
            Member::Other => return scanner.value(1).map(drop),
        };
        put(slot, name, scanner.value(1)?)
    }

    fn metadata(
        &mut self,
        scanner: &mut Scanner<'_>,
        order: &mut Order<Option<u8>>,
    ) -> Checked<()> {
        if scanner.peek() != Some(b'{') {
            let value = scanner.value(1)?;
            if value != Value::Null {
                return Err(wrong_type("metadata", "an object", value));
            }
            return put(&mut self.metadata, "metadata", value);
        }
        put(&mut self.metadata, "metadata", Value::Object)?;
        let mut cursor = order.begin();
        let mut has_next = scanner.open_object()?;
        while has_next {
            let number = |name: &str| in_metadata(name).map(|number| number as u8);
            let read = |scanner: &mut Scanner<'_>| key(scanner, "a field name of metadata", number);
            let known = order.key(&mut cursor, scanner, read)?;
            let value = scanner.value(2)?;
            if let Some(number) = known {
                let number = usize::from(number);
                put(&mut self.of_metadata[number], IN_METADATA[number].1, value)?;
            }
            has_next = scanner.next_member()?;
        }
        Ok(())
    }

    /// A member that a stage has added, or one of that name.
    fn added(&mut self, field: StageField, scanner: &mut Scanner<'_>, start: usize) -> Checked<()> {
        scanner.peek();
        let value_start = scanner.at();
        scanner.value(1)?;
        let found = self.added.get_or_insert_default();
        if !found.members[field as usize].is_none() {
            return Err(duplicate(field.name()));
        }
        let end = scanner.at();
        if scanner.text()[value_start..end].starts_with(field.beginning()) {
            found.values[field as usize] = Text::in_lines(value_start, end - value_start);
            found.is_ours[field as usize] = true;
        }
        found.members[field as usize] = Text::in_lines(start, end - start);
        Ok(())
    }
}

/// Checks values and says where their text is.
struct Placer<'a, 'b> {
    line: &'a str,
    offset: usize,
    arena: &'b mut Vec<u8>,
}

impl<'a> Placer<'a, '_> {
    fn required(
        &mut self,
        name: &'static str,
        value: Option<Value>,
        bytes_max: usize,
    ) -> Checked<Text> {
        if !is_given(value) {
            return Err(Reason::of_field(
                Code::MissingField,
                name,
                "required field is missing",
            ));
        }
        let text = self.optional(name, value, bytes_max)?;
        if text.is_none() {
            return Err(Reason::of_field(
                Code::InvalidValue,
                name,
                "required field is empty",
            ));
        }
        Ok(text)
    }

    fn optional(
        &mut self,
        name: &'static str,
        value: Option<Value>,
        bytes_max: usize,
    ) -> Checked<Text> {
        let quoted = match value {
            None | Some(Value::Null) => return Ok(Text::NONE),
            Some(Value::String(quoted)) => quoted,
            Some(value) => return Err(wrong_type(name, "a string", value)),
        };
        let text = if quoted.has_escapes {
            let unescaped = unescape(name, self.get(quoted.span))?;
            self.in_arena(&unescaped)
        } else {
            self.in_line(quoted)
        };
        if text.end() - text.start() > bytes_max {
            let message = format!("longer than {bytes_max} bytes");
            return Err(Reason::of_field(Code::OutOfRange, name, message));
        }
        Ok(text)
    }

    /// The text of a string or number that detectors look at if it is there. Its length does not
    /// matter: they keep hashes. Anything else, also a string that stands for no text, is absent.
    fn if_scalar(&mut self, value: Option<Value>) -> Text {
        match value {
            Some(Value::String(quoted)) if quoted.has_escapes => {
                let unescaped = unescape("a field of metadata", self.get(quoted.span));
                unescaped.map_or(Text::NONE, |text| self.in_arena(&text))
            }
            Some(Value::String(quoted)) => self.in_line(quoted),
            Some(Value::Number(span)) => {
                let n_bytes = (span.end - span.start) as usize;
                Text::in_lines(self.offset + span.start as usize, n_bytes)
            }
            _ => Text::NONE,
        }
    }

    fn source_ip(&mut self, value: Option<Value>) -> Checked<Text> {
        let text = self.optional("source_ip", value, FIELD_BYTES_MAX)?;
        if text.is_none() {
            return Ok(text);
        }
        let Ok(address) = self.text(text).parse::<IpAddr>() else {
            let message = "not an IPv4 or IPv6 address";
            return Err(Reason::of_field(Code::InvalidValue, "source_ip", message));
        };
        // An IPv4 address has one spelling here; an IPv6 address has many (RFC 5952).
        match address {
            IpAddr::V4(_) => Ok(text),
            IpAddr::V6(address) => Ok(self.in_arena(&address.to_string())),
        }
    }

    fn status(&mut self, value: Option<Value>) -> Checked<Status> {
        let text = self.optional("status", value, FIELD_BYTES_MAX)?;
        if text.is_none() {
            return Ok(Status::Absent);
        }
        Status::from_name(self.text(text)).ok_or_else(|| {
            let message = "not one of success, failed, blocked, pending";
            Reason::of_field(Code::InvalidValue, "status", message)
        })
    }

    fn get(&self, span: Span) -> &'a str {
        &self.line[span.start as usize..span.end as usize]
    }

    fn in_line(&self, quoted: Quoted) -> Text {
        let Span { start, end } = quoted.span;
        Text::in_lines(self.offset + start as usize, (end - start) as usize)
    }

    fn in_arena(&mut self, text: &str) -> Text {
        let start = self.arena.len();
        self.arena.extend_from_slice(text.as_bytes());
        Text::in_arena(start, text.len())
    }

    fn text(&self, text: Text) -> &str {
        if text.is_in_arena() {
            let bytes = &self.arena[text.start()..text.end()];
            return std::str::from_utf8(bytes).expect("only whole strings are put there");
        }
        &self.line[text.start() - self.offset..text.end() - self.offset]
    }
}

fn timestamp_ms(line: &str, value: Option<Value>) -> Checked<i64> {
    const NAME: &str = "timestamp";
    let number = match value {
        None | Some(Value::Null) => {
            return Err(Reason::of_field(
                Code::MissingField,
                NAME,
                "required field is missing",
            ));
        }
        Some(Value::Number(span)) => &line[span.start as usize..span.end as usize],
        Some(value) => return Err(wrong_type(NAME, "an integer (ms since 1970)", value)),
    };
    if number.contains(['.', 'e', 'E']) {
        return Err(Reason::of_field(
            Code::WrongType,
            NAME,
            "not an integer (ms since 1970)",
        ));
    }
    match number.parse::<i64>() {
        Ok(timestamp_ms @ 0..=TIMESTAMP_MS_MAX) => Ok(timestamp_ms),
        _ => {
            let message =
                format!("not in 0..={TIMESTAMP_MS_MAX} (ms since 1970; is it in µs or ns?)");
            Err(Reason::of_field(Code::OutOfRange, NAME, message))
        }
    }
}

fn threat_score(line: &str, value: Option<Value>) -> Checked<Option<f64>> {
    const NAME: &str = "threat_score";
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(span)) => &line[span.start as usize..span.end as usize],
        Some(value) => return Err(wrong_type(NAME, "a number", value)),
    };
    match number.parse::<f64>() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(Some(score)),
        _ => Err(Reason::of_field(Code::OutOfRange, NAME, "not in 0..=1")),
    }
}

/// A number of bytes, if it is one.
fn bytes_of(line: &str, value: Option<Value>) -> Option<f64> {
    let Some(Value::Number(span)) = value else {
        return None;
    };
    let number: f64 = line[span.start as usize..span.end as usize].parse().ok()?;
    (number >= 0.0 && number.is_finite()).then_some(number)
}

fn has_control_characters(text: &str) -> bool {
    // Printable ASCII has none, and is what ids are made of.
    !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.chars().any(char::is_control)
}

fn is_given(value: Option<Value>) -> bool {
    !matches!(value, None | Some(Value::Null))
}

fn put(slot: &mut Option<Value>, name: &'static str, value: Value) -> Checked<()> {
    // Readers disagree on which of two equal names counts; an attacker would choose both.
    if slot.replace(value).is_some() {
        Err(duplicate(name))
    } else {
        Ok(())
    }
}

fn duplicate(name: &'static str) -> Box<Reason> {
    Reason::of_field(
        Code::DuplicateField,
        name,
        "field stands twice in the object",
    )
}

fn wrong_type(name: &'static str, wanted: &str, value: Value) -> Box<Reason> {
    let got = match value {
        Value::Null => "null",
        Value::Bool => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array => "an array",
        Value::Object => "an object",
    };
    Reason::of_field(
        Code::WrongType,
        name,
        format!("expected {wanted}, got {got}"),
    )
}
