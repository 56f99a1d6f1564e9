//! The fields that stages add to a line.

use super::Text;

/// The fields that stages add to a line, in the order in which they are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageField {
    Anomaly,
    Context,
    Analysis,
    Embedding,
}

impl StageField {
    pub const ALL: [Self; 4] = [
        Self::Anomaly,
        Self::Context,
        Self::Analysis,
        Self::Embedding,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anomaly => "anomaly",
            Self::Context => "context",
            Self::Analysis => "analysis",
            Self::Embedding => "embedding",
        }
    }
}

impl StageField {
    /// How every value begins that a stage of ours has written. A field of the same name with
    /// another beginning is somebody else's, and passes through until a stage replaces it.
    pub(super) fn beginning(self) -> &'static str {
        match self {
            Self::Anomaly => "{\"event_id\":",
            Self::Context => "{\"failed_login_count\":",
            Self::Analysis => "{\"outcome\":",
            Self::Embedding => "{\"model\":",
        }
    }
}

/// The stage fields of one event, by [`StageField`]: their values now, and the members of the
/// line that have their names.
#[derive(Clone, Debug, Default)]
pub struct StageFields {
    /// JSON values; [`Text::NONE`] where there is none.
    pub values: [Text; 4],
    /// Name and value as they stand in the line, without a comma.
    pub members: [Text; 4],
    /// The member in the line was written by a stage of ours.
    pub is_ours: [bool; 4],
}

impl StageFields {
    /// Moves what stands in the line on, with the line.
    pub(super) fn move_by(&mut self, offset: usize) {
        for text in self.values.iter_mut().chain(&mut self.members) {
            if !text.is_none() {
                *text = Text::in_lines(text.start() + offset, text.end() - text.start());
            }
        }
    }
}
