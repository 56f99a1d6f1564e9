//! Writes one event of a record in which everything has been found.

use sha2::{Digest, Sha256};

use super::format::Format;
use super::plan::{Field, Plan};
use super::rule::{Given, Rule, Rules, View};
use crate::record::scan::{Scanner, Value};
use crate::record::text::{hex, push_integer, push_json_string};
use crate::record::{Checked, Code, Fields, Reason};

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

/// Writes an event as one JSON object, and says where its members stand in it.
///
/// # Errors
/// What is missing in the record; `output` then holds a part of it.
pub(super) fn write(
    format: &Format,
    view: &View<'_, '_>,
    identity: &Identity<'_>,
    keeps_raw: bool,
    plan: &Plan,
    output: &mut Vec<u8>,
    members: &mut Fields,
) -> Checked<()> {
    let start = output.len();
    let from = |output: &Vec<u8>, at: usize| Value::at(&output[start..], at - start);
    let push = |field: Field, output: &mut Vec<u8>| plan.push_field(field, format, view, output);
    let missing = |name: &'static str, field: Field| {
        Err(missing(format, view, name, field.rules(&format.fields)))
    };
    output.extend_from_slice(b"{\"event_id\":");
    let at = output.len();
    if !push(Field::EventId, output) {
        make_id(identity, output);
    }
    number_id(identity, output);
    members.event_id = from(output, at);
    output.extend_from_slice(b",\"user\":");
    let at = output.len();
    if !push(Field::User, output) {
        return missing("user", Field::User);
    }
    members.user = from(output, at);
    output.extend_from_slice(b",\"timestamp\":");
    let at = output.len();
    push_integer(output, timestamp_ms(format, view)?);
    members.timestamp = from(output, at);
    output.extend_from_slice(b",\"type\":");
    let at = output.len();
    if !push(Field::Kind, output) {
        return missing("type", Field::Kind);
    }
    members.kind = from(output, at);
    let push = |before: &str, field: Field, output: &mut Vec<u8>| {
        push_member(before, output, |output| push(field, output))
    };
    if let Some(at) = push(",\"source_ip\":", Field::SourceIp, output) {
        members.source_ip = from(output, at);
    }
    if let Some(at) = push(",\"geo_location\":", Field::GeoLocation, output) {
        members.geo_location = from(output, at);
    }
    if let Some(at) = push(",\"threat_score\":", Field::ThreatScore, output) {
        make_number(output, at);
        members.threat_score = from(output, at);
    }
    if let Some(at) = push(",\"status\":", Field::Status, output) {
        members.status = from(output, at);
    }
    output.extend_from_slice(b",\"metadata\":{\"format\":");
    push_json_string(output, &format.name);
    plan.push_metadata(format, view, start, output, members);
    if keeps_raw {
        output.extend_from_slice(b",\"raw\":");
        let raw = identity.raw.trim_ascii();
        // As text, if it would be nested too deeply here.
        if raw.starts_with('{') && Scanner::new(raw).value(2).is_ok() {
            output.extend_from_slice(raw.as_bytes());
        } else {
            push_json_string(output, raw);
        }
    }
    output.extend_from_slice(b"}}");
    members.close = output.len() - 1 - start;
    members.find_escapes(&output[start..]);
    Ok(())
}

/// Appends a member, if `push` gives a value: where that begins. Its name stands before it as JSON has it.
pub(super) fn push_member(
    before: &str,
    output: &mut Vec<u8>,
    push: impl FnOnce(&mut Vec<u8>) -> bool,
) -> Option<usize> {
    let start = output.len();
    output.extend_from_slice(before.as_bytes());
    let value = output.len();
    if !push(output) {
        output.truncate(start);
        return None;
    }
    Some(value)
}

/// A table gives text, also for a number. Blanks around it are none of it.
fn make_number(output: &mut Vec<u8>, at: usize) {
    let inside = output[at..].strip_prefix(b"\"");
    let inside = inside.and_then(|text| text.strip_suffix(b"\""));
    let Some(inside) = inside.map(<[u8]>::trim_ascii) else {
        return;
    };
    if serde_json::from_slice::<serde_json::Number>(inside).is_ok() {
        let number = inside.to_vec();
        output.truncate(at);
        output.extend_from_slice(&number);
    }
}

/// Appends an id for a record that has none, made of its text and where it stands.
fn make_id(identity: &Identity<'_>, output: &mut Vec<u8>) {
    /// Enough that nobody finds two records with the same: 128 bits.
    const ID_BYTES: usize = 16;
    let mut hash = Sha256::new();
    hash.update(identity.partition.as_bytes());
    hash.update(identity.offset.to_le_bytes());
    hash.update(identity.record_index.to_le_bytes());
    hash.update(identity.raw.trim_ascii().as_bytes());
    output.extend_from_slice(b"\"sg-");
    output.extend_from_slice(hex(&hash.finalize()[..ID_BYTES]).as_bytes());
    output.push(b'"');
}

/// Events of one record are numbered.
fn number_id(identity: &Identity<'_>, output: &mut Vec<u8>) {
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
        return Err(missing(format, view, "timestamp", rules));
    };
    let text = match &value {
        Given::Found(slot) => view.text(slot),
        Given::Text(text) => Some(text.clone()),
        Given::Number(number) => Some(number.as_str().into()),
    };
    let times = &rules.all[i].times;
    let found = text.and_then(|text| times.iter().find_map(|form| form.ms_of(&text)));
    found.ok_or_else(|| {
        let names: Vec<&str> = times.iter().map(super::time::TimeForm::name).collect();
        let message = format!(
            "what stands in {} is not a time of the form {}",
            rules.all[i].origin.shown(),
            names.join(" or ")
        );
        Reason::of_field(Code::InvalidValue, "timestamp", message)
    })
}

/// Says where a value would have been.
fn missing(
    format: &Format,
    view: &View<'_, '_>,
    field: &'static str,
    rules: &Rules,
) -> Box<Reason> {
    /// More than that nobody reads.
    const PLACES_MAX: usize = 3;
    // Those of which it was the value that was missing come first.
    let (asked, others): (Vec<&Rule>, Vec<&Rule>) = rules
        .all
        .iter()
        .filter(|rule| rule.origin.is_looked_up())
        .partition(|rule| view.all_hold(&rule.conditions));
    let mut places: Vec<String> = Vec::new();
    for rule in asked.into_iter().chain(others) {
        let shown = rule.origin.shown();
        if !places.contains(&shown) {
            places.push(shown);
        }
    }
    let more = if places.len() > PLACES_MAX {
        ", ..."
    } else {
        ""
    };
    places.truncate(PLACES_MAX);
    let (title, places) = (&format.title, places.join(", "));
    let message = format!("the {title} record has none: looked for in {places}{more}");
    Reason::of_field(Code::MissingField, field, message)
}
