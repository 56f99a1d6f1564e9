//! The event as it travels: one JSON object a line. This module knows what a valid event is
//! and how to read one without copying; it knows nothing of files, threads or stores.

pub mod analysis;
pub mod anomaly;
pub mod feedback;
mod members;
mod order;
mod parse;
mod reject;
pub(crate) mod scan;
mod stage_field;
pub mod text;

pub use members::Orders;
pub(crate) use members::in_metadata;
pub(crate) use order::Order;
pub use parse::parse;
pub(crate) use parse::{Fields, event_of};
pub use reject::{Checked, Code, Reason};
pub use stage_field::{StageField, StageFields};

/// Longest line that is read as one event, unless `--line-bytes-max` says otherwise.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// The same in a program that reads what another has checked and added to: a pipe has to keep
/// whatever one process would.
pub const CHECKED_LINE_BYTES_MAX: usize = 64 << 20;
/// Longest `event_id`, in bytes. It is part of every key of the store.
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Longest `user`, `type`, `geo_location`, in bytes: baselines keep these values.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Deepest nesting of objects and arrays in a line, the event itself being 1.
pub const DEPTH_MAX: u32 = 64;
/// Latest timestamp, in ms: what 15 digits hold. A clock in µs or ns is beyond it.
pub const TIMESTAMP_MS_MAX: i64 = 999_999_999_999_999;

/// A piece of text inside a block: bytes of its lines, or of its arena.
///
/// Events hold these instead of `&str` so that a parsed block can cross threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    start: u32,
    len: u32,
}

impl Text {
    const ARENA: u32 = 1 << 31;
    /// Bytes in which it can be.
    pub(crate) const BUFFER_BYTES_MAX: usize = Self::ARENA as usize - 1;
    /// No text: an absent field. An empty string counts as absent too.
    pub const NONE: Self = Self { start: 0, len: 0 };

    /// Text at `start..start + len` of the lines of a block.
    ///
    /// # Panics
    /// If it ends beyond what offsets can say.
    #[must_use]
    pub fn in_lines(start: usize, len: usize) -> Self {
        assert!(start + len < Self::ARENA as usize);
        Self {
            start: start as u32,
            len: len as u32,
        }
    }

    /// Text at `start..start + len` of the arena of a block.
    ///
    /// # Panics
    /// If it ends beyond what offsets can say.
    #[must_use]
    pub fn in_arena(start: usize, len: usize) -> Self {
        assert!(start + len < Self::ARENA as usize);
        Self {
            start: start as u32 | Self::ARENA,
            len: len as u32,
        }
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self.len == 0
    }

    /// Where the text starts, in the buffer it is in.
    #[must_use]
    pub fn start(self) -> usize {
        (self.start & !Self::ARENA) as usize
    }

    #[must_use]
    pub fn end(self) -> usize {
        self.start() + self.len as usize
    }

    #[must_use]
    pub fn is_in_arena(self) -> bool {
        self.start & Self::ARENA != 0
    }
}

/// How an event ended, as its `status` field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Absent,
    Success,
    Failed,
    Blocked,
    Pending,
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
        }
    }

    /// The status of that name, in any case of letters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Success, Self::Failed, Self::Blocked, Self::Pending]
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(name))
    }
}

/// One valid event of a block. The texts are read with `Block::text`.
#[derive(Clone, Debug)]
pub struct Event {
    /// The whole line without its end.
    pub line: Text,
    /// Offset of the closing brace in the block's lines.
    pub close: u32,
    /// The line's number within its block, from 0.
    pub line_index: u32,
    pub timestamp_ms: i64,
    pub event_id: Text,
    pub user: Text,
    /// The field `type`, or else `event_type`.
    pub kind: Text,
    /// In canonical form: `2001:db8::1`, never `2001:DB8:0::1`.
    pub source_ip: Text,
    /// The field `geo_location`, or else `metadata.geo_location`.
    pub geo_location: Text,
    pub threat_score: Option<f64>,
    pub status: Status,
    /// What is known of where it came from and what it touched: the members of `metadata` with
    /// these names. One of another type than expected counts as absent.
    pub asn: Text,
    pub device: Text,
    pub user_agent: Text,
    pub endpoint: Text,
    pub bytes: Option<f64>,
    /// Failed or blocked by status, or by the ending of its type.
    pub is_failure: bool,
    /// What of it the line does not say.
    pub looked_up: LookedUp,
    /// Where this event's stage fields are in the block, from 1; 0 is none.
    pub stage_fields: u32,
}

/// What was looked up for an event's address, since its line does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    pub place: bool,
    pub provider: bool,
}

/// The parts of an event that detectors look at, as plain borrowed values.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    pub event_id: &'a str,
    pub user: &'a str,
    pub timestamp_ms: i64,
    pub kind: &'a str,
    pub source_ip: Option<&'a str>,
    pub geo_location: Option<&'a str>,
    pub threat_score: Option<f64>,
    pub asn: Option<&'a str>,
    pub device: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    /// Not negative.
    pub bytes: Option<f64>,
    pub is_failure: bool,
}

/// What the classic detector keeps of an event: few of its texts, so that few of its bytes have to come to whoever
/// scores it.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    pub timestamp_ms: i64,
    pub kind: &'a str,
    pub source_ip: Option<&'a str>,
    pub geo_location: Option<&'a str>,
    pub threat_score: Option<f64>,
    pub is_failure: bool,
}

impl<'a> From<&EventView<'a>> for Values<'a> {
    fn from(event: &EventView<'a>) -> Self {
        Self {
            timestamp_ms: event.timestamp_ms,
            kind: event.kind,
            source_ip: event.source_ip,
            geo_location: event.geo_location,
            threat_score: event.threat_score,
            is_failure: event.is_failure,
        }
    }
}

/// Threat score from which an event is worth an analyst's look whatever its anomaly score.
pub const THREAT_SCORE_HIGH: f64 = 0.7;

impl EventView<'_> {
    /// Whether it is about signing in: its type begins with `LOGIN` or `MFA`.
    #[must_use]
    pub fn is_sign_in(&self) -> bool {
        self.kind.starts_with("LOGIN") || self.kind.starts_with("MFA")
    }

    #[must_use]
    pub fn is_threat(&self) -> bool {
        self.threat_score
            .is_some_and(|score| score >= THREAT_SCORE_HIGH)
    }
}

/// True if a type's name says that something failed or was refused.
#[must_use]
pub fn is_failure_kind(kind: &str) -> bool {
    kind.ends_with("_FAILED") || kind.ends_with("_DENIED") || kind.ends_with("_FAILURE")
}
