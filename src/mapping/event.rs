//! Writes one event of a record in which everything has been found.

use sha2::{Digest, Sha256};

use super::format::{Fields, Format};
use super::rule::{Rule, Value, View};
use crate::record::text::{hex, push_integer, push_json_string};
use crate::record::{Checked, Code, Reason};

/// What an id is made of where a record has none.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    /// The topic's partition, if it is from one: offsets are of that.
    pub(super) partition: &'a str,
    /// Of the line.
    pub(super) offset: u64,
    /// The record's number among those of its line.
    pub(super) record_index: u32,
    /// The event's number among those of its record.
    pub(super) event_index: u32,
    /// As it came.
    pub(super) raw: &'a str,
}

/// Writes an event as one JSON object.
///
/// # Errors
/// What is missing in the record; `output` then holds a part of it.
pub(super) fn write(
    format: &Format,
    view: &View<'_, '_>,
    identity: &Identity<'_>,
    output: &mut Vec<u8>,
) -> Checked<()> {
    let fields = &format.fields;
    output.extend_from_slice(b"{\"event_id\":");
    write_id(fields, view, identity, output);
    output.extend_from_slice(b",\"user\":");
    if !view.push_first(&fields.user, false, output) {
        return Err(missing(format, "user", &fields.user));
    }
    output.extend_from_slice(b",\"timestamp\":");
    push_integer(output, timestamp_ms(format, view)?);
    output.extend_from_slice(b",\"type\":");
    if !view.push_first(&fields.kind, false, output) {
        return Err(missing(format, "type", &fields.kind));
    }
    for (name, rules, is_number) in [
        ("source_ip", &fields.source_ip, false),
        ("geo_location", &fields.geo_location, false),
        ("threat_score", &fields.threat_score, true),
        ("status", &fields.status, false),
    ] {
        push_member(view, name, rules, is_number, output);
    }
    output.extend_from_slice(b",\"metadata\":{\"format\":");
    push_json_string(output, &format.name);
    for (name, rules) in &format.metadata {
        push_member(view, name, rules, true, output);
    }
    output.extend_from_slice(b"}}");
    Ok(())
}

/// Appends a member, if rules give a value. Its name is one as it stands in JSON.
fn push_member(
    view: &View<'_, '_>,
    name: &str,
    rules: &[Rule],
    is_kept: bool,
    output: &mut Vec<u8>,
) {
    if rules.is_empty() {
        return;
    }
    let start = output.len();
    output.extend_from_slice(b",\"");
    output.extend_from_slice(name.as_bytes());
    output.extend_from_slice(b"\":");
    if !view.push_first(rules, is_kept, output) {
        output.truncate(start);
    }
}

/// The record's own id, or one made of its text and where it stands. Events of one record are numbered.
fn write_id(fields: &Fields, view: &View<'_, '_>, identity: &Identity<'_>, output: &mut Vec<u8>) {
    /// Enough that nobody finds two records with the same: 128 bits.
    const ID_BYTES: usize = 16;
    if !view.push_first(&fields.event_id, false, output) {
        let mut hash = Sha256::new();
        hash.update(identity.partition.as_bytes());
        hash.update(identity.offset.to_le_bytes());
        hash.update(identity.record_index.to_le_bytes());
        hash.update(identity.raw.trim_ascii().as_bytes());
        output.extend_from_slice(b"\"sg-");
        output.extend_from_slice(hex(&hash.finalize()[..ID_BYTES]).as_bytes());
        output.push(b'"');
    }
    if identity.event_index > 0 {
        output.pop();
        output.push(b'#');
        push_integer(output, identity.event_index);
        output.push(b'"');
    }
}

/// The first time that rules give. One that cannot be read is not passed over.
pub(super) fn timestamp_ms(format: &Format, view: &View<'_, '_>) -> Checked<i64> {
    let rules = &format.fields.timestamp;
    let Some((i, value)) = view.first(rules) else {
        return Err(missing(format, "timestamp", rules));
    };
    let text = match &value {
        Value::Found(slot) => view.text(slot),
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) => Some(number.as_str().into()),
    };
    let times = &rules[i].times;
    let found = text.and_then(|text| times.iter().find_map(|form| form.ms_of(&text)));
    found.ok_or_else(|| {
        let names: Vec<&str> = times.iter().map(super::time::TimeForm::name).collect();
        let message = format!(
            "what stands in {} is not a time of the form {}",
            rules[i].origin.shown(),
            names.join(" or ")
        );
        Reason::of_field(Code::InvalidValue, "timestamp", message)
    })
}

/// Says where a value would have been.
pub(super) fn missing(format: &Format, field: &'static str, rules: &[Rule]) -> Box<Reason> {
    let mut places: Vec<String> = Vec::new();
    for rule in rules {
        let shown = rule.origin.shown();
        if rule.origin.is_looked_up() && !places.contains(&shown) {
            places.push(shown);
        }
    }
    let article = if format.title.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    };
    let message = format!(
        "{article} {} record without one (looked for in {})",
        format.title,
        places.join(", ")
    );
    Reason::of_field(Code::MissingField, field, message)
}
