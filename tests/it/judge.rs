//! A second reading of what an event is, slow and plain, on top of `serde_json`. `random.rs`
//! compares the program's own with it.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use streamguard::batch::Block;
use streamguard::record::{
    Code, DEPTH_MAX, EVENT_ID_BYTES_MAX, FIELD_BYTES_MAX, LINE_BYTES_MAX, Orders, TIMESTAMP_MS_MAX,
    parse,
};

/// JSON with all its members, also those of equal names.
#[derive(Debug)]
enum Json {
    Null,
    Bool,
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(Number::from_f64(number).unwrap()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

impl Json {
    fn depth(&self) -> u32 {
        match self {
            Self::Array(values) => 1 + values.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// The only value of that name, or null; an error if there are two.
fn member<'a>(members: &'a [(String, Json)], name: &str) -> Result<&'a Json, ()> {
    let mut values = members.iter().filter(|member| member.0 == name);
    let value = values.next().map_or(&Json::Null, |(_, value)| value);
    if values.next().is_some() {
        Err(())
    } else {
        Ok(value)
    }
}

fn text(value: &Json, n_bytes_max: usize) -> Result<&str, ()> {
    match value {
        Json::Null => Ok(""),
        Json::String(text) if text.len() <= n_bytes_max => Ok(text),
        _ => Err(()),
    }
}

/// What the documentation calls an event: `event_id`, `user`, type and place. Slow and plain.
fn judge(json: &Json) -> Result<[&str; 4], ()> {
    let Json::Object(members) = json else {
        return Err(());
    };
    for name in ["anomaly", "context", "analysis", "embedding"] {
        member(members, name)?;
    }
    let metadata = match member(members, "metadata")? {
        Json::Null => &[][..],
        Json::Object(members) => members,
        _ => return Err(()),
    };
    let places = [
        member(members, "geo_location")?,
        member(metadata, "geo_location")?,
    ];
    let kinds = [member(members, "type")?, member(members, "event_type")?];
    let first = |values: [&'_ Json; 2]| usize::from(matches!(values[0], Json::Null));
    let event_id = text(member(members, "event_id")?, EVENT_ID_BYTES_MAX)?;
    let user = text(member(members, "user")?, FIELD_BYTES_MAX)?;
    let kind = text(kinds[first(kinds)], FIELD_BYTES_MAX)?;
    let place = text(places[first(places)], FIELD_BYTES_MAX)?;
    let is_number_in = |value: &Json, max: f64| match value {
        Json::Number(number) => (0.0..=max).contains(&number.as_f64().unwrap()),
        _ => false,
    };
    let timestamp = member(members, "timestamp")?;
    let is_integer = matches!(timestamp, Json::Number(number) if !number.is_f64());
    let score = member(members, "threat_score")?;
    let address = text(member(members, "source_ip")?, FIELD_BYTES_MAX)?;
    let status = text(member(members, "status")?, FIELD_BYTES_MAX)?.to_ascii_lowercase();
    let is_event = json.depth() <= DEPTH_MAX
        && ![event_id, user, kind].contains(&"")
        && !event_id.chars().any(char::is_control)
        && is_integer
        && is_number_in(timestamp, TIMESTAMP_MS_MAX as f64)
        && (matches!(score, Json::Null) || is_number_in(score, 1.0))
        && (address.is_empty() || address.parse::<IpAddr>().is_ok())
        && ["", "success", "failed", "blocked", "pending"].contains(&&*status);
    if is_event {
        Ok([event_id, user, kind, place])
    } else {
        Err(())
    }
}

/// Compares what is made of a line with what `serde_json` and [`judge`] make of it.
pub(crate) fn agrees(line: &str) -> Result<(), TestCaseError> {
    thread_local! {
        /// In which order members came in all lines before.
        static ORDERS: RefCell<Orders> = RefCell::default();
    }
    let read = |orders: &mut Orders| parse(line, 0, &mut Vec::new(), &mut Vec::new(), orders);
    let found = read(&mut Orders::default());
    // Whether its members are those that are expected changes nothing.
    for _ in 0..2 {
        let again = ORDERS.with_borrow_mut(read);
        prop_assert_eq!(format!("{again:?}"), format!("{found:?}"));
    }
    let code = found.as_ref().err().map(|reason| reason.code);
    let is_json = serde_json::from_str::<IgnoredAny>(line).is_ok();
    if is_json {
        prop_assert_ne!(code, Some(Code::InvalidJson));
    } else {
        // These are found before the end of the line has been seen.
        let is_early = matches!(
            code,
            Some(Code::TooDeep | Code::DuplicateField | Code::WrongType | Code::InvalidValue)
        );
        prop_assert!(code == Some(Code::InvalidJson) || is_early, "{:?}", code);
    }
    // serde_json itself refuses numbers that no f64 holds, lone surrogates and 128 levels, and
    // takes -0 for a fraction.
    let Ok(json) = serde_json::from_str::<Json>(line) else {
        return Ok(());
    };
    if line.contains("-0") {
        return Ok(());
    }
    let judged = judge(&json);
    prop_assert_eq!(found.is_ok(), judged.is_ok(), "{:?}", code);
    let Ok([event_id, user, kind, place]) = judged else {
        return Ok(());
    };
    let mut block = Block::new();
    block.lines = format!("\n{line}\n").into_bytes();
    block.parse(LINE_BYTES_MAX);
    let view = block.view(&block.events[0]);
    prop_assert_eq!(
        (view.event_id, view.user, view.kind),
        (event_id, user, kind)
    );
    prop_assert_eq!(view.geo_location.unwrap_or_default(), place);
    let value: Value = serde_json::from_str(line).unwrap();
    prop_assert_eq!(Some(view.timestamp_ms), value["timestamp"].as_i64());
    let mut output = Vec::new();
    block.push_line(&block.events[0], &mut output);
    // Only the `\r` of the line's end is no part of it.
    let expected = line.strip_suffix('\r').unwrap_or(line);
    prop_assert_eq!(String::from_utf8(output).unwrap(), format!("{expected}\n"));
    Ok(())
}
