//! The members of a line of ours: what their names are, and in which order they came.

use super::order::Order;
use super::scan::Scanner;
use super::stage_field::StageField;
use super::{Checked, Code, Reason, text};

/// In which order members came in the lines before.
#[derive(Default)]
pub struct Orders {
    pub(super) of_line: Order<Member>,
    pub(super) of_metadata: Order<Option<u8>>,
}

/// A member of a line.
#[derive(Clone, Copy)]
pub(super) enum Member {
    EventId,
    User,
    Timestamp,
    Kind,
    EventType,
    SourceIp,
    GeoLocation,
    ThreatScore,
    Status,
    Metadata,
    Added(StageField),
    Other,
}

impl Member {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "event_id" => Self::EventId,
            "user" => Self::User,
            "timestamp" => Self::Timestamp,
            "type" => Self::Kind,
            "event_type" => Self::EventType,
            "source_ip" => Self::SourceIp,
            "geo_location" => Self::GeoLocation,
            "threat_score" => Self::ThreatScore,
            "status" => Self::Status,
            "metadata" => Self::Metadata,
            _ => {
                let mut all = StageField::ALL.into_iter();
                let added = all.find(|field| field.name() == name);
                added.map_or(Self::Other, Self::Added)
            }
        }
    }
}

/// The known members of `metadata`: their names there, and in messages.
pub(super) const IN_METADATA: [(&str, &str); 6] = [
    ("geo_location", "metadata.geo_location"),
    ("asn", "metadata.asn"),
    ("device", "metadata.device"),
    ("user_agent", "metadata.user_agent"),
    ("endpoint", "metadata.endpoint"),
    ("bytes", "metadata.bytes"),
];

/// Which of the known members of `metadata` has that name.
#[inline]
pub(crate) fn in_metadata(key: &str) -> Option<usize> {
    match key {
        "geo_location" => Some(0),
        "asn" => Some(1),
        "device" => Some(2),
        "user_agent" => Some(3),
        "endpoint" => Some(4),
        "bytes" => Some(5),
        _ => None,
    }
}

/// Reads a name and its colon; what it is.
pub(super) fn key<T>(
    scanner: &mut Scanner<'_>,
    what: &'static str,
    known: impl FnOnce(&str) -> T,
) -> Checked<T> {
    let key = scanner.key()?;
    let name = scanner.get(key.span);
    if key.has_escapes {
        return Ok(known(&unescape(what, name)?));
    }
    Ok(known(name))
}

/// The text of a string with escapes.
///
/// # Errors
/// If one of them stands for no character; `name` says what has it.
pub(super) fn unescape(name: &'static str, raw: &str) -> Checked<String> {
    text::unescape(raw).ok_or_else(|| {
        Reason::of_field(
            Code::InvalidValue,
            name,
            "escape that stands for no character",
        )
    })
}
