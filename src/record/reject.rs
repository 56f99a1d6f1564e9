//! Why a line is not an event. A reject is a value: it is counted, explained and kept.

use std::borrow::Cow;

use serde::Serialize;

/// The kinds of reasons. The names are part of the dead letter format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The line is longer than the limit.
    LineTooLong,
    InvalidUtf8,
    /// Not one JSON value (RFC 8259), or something after it.
    InvalidJson,
    /// JSON, but not an object.
    NotAnObject,
    TooDeep,
    MissingField,
    DuplicateField,
    WrongType,
    /// A number or length outside its limits.
    OutOfRange,
    /// A string that does not say what the field needs.
    InvalidValue,
    /// Of no format that is known.
    UnknownFormat,
    /// A record of a known format that is no act of a user.
    NoEvent,
    /// It is an event, but whoever was to be told of its anomaly will not have it.
    AlertRefused,
}

impl Code {
    /// Those that lines are rejected for.
    pub const OF_LINES: [Self; 12] = [
        Self::LineTooLong,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::MissingField,
        Self::DuplicateField,
        Self::WrongType,
        Self::OutOfRange,
        Self::InvalidValue,
        Self::UnknownFormat,
        Self::NoEvent,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LineTooLong => "line_too_long",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::MissingField => "missing_field",
            Self::DuplicateField => "duplicate_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::InvalidValue => "invalid_value",
            Self::UnknownFormat => "unknown_format",
            Self::NoEvent => "no_event",
            Self::AlertRefused => "alert_refused",
        }
    }
}

/// Why a line was rejected: what kind, which field, and a sentence for a person.
/// The message never repeats the line's own text: that text is hostile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
    pub message: Cow<'static, str>,
}

/// A result of reading a line. The reason is boxed: it is rare, and the other outcome must stay
/// in registers.
pub type Checked<T> = Result<T, Box<Reason>>;

impl Reason {
    /// A reason that concerns the line as a whole.
    #[cold]
    pub fn of_line(code: Code, message: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self {
            code,
            field: None,
            message: message.into(),
        })
    }

    /// A reason that concerns one field.
    #[cold]
    pub fn of_field(
        code: Code,
        field: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self {
            code,
            field: Some(field),
            message: message.into(),
        })
    }
}
