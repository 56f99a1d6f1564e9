//! The analysis record: what became of asking a language model about one event. It holds no times, so
//! that the same input and the same replies give the same bytes.

use serde::{Deserialize, Serialize};

use super::anomaly::Severity;
use super::text::rounded;

/// How an attempt to have an event analysed has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A model has answered.
    Ok,
    /// A model has answered about an event like it.
    Cached,
    /// The model does not want to answer. It says nothing about the event.
    Refused,
    /// The answer was cut off.
    Truncated,
    /// The answer is not one, or the service takes no such question.
    Invalid,
    Timeout,
    /// The service cannot be reached, or refuses everybody.
    Unavailable,
    /// A limit on calls or money.
    OverBudget,
    /// The service has failed too often to be asked now.
    BreakerOpen,
}

impl Outcome {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Cached,
        Self::Refused,
        Self::Truncated,
        Self::Invalid,
        Self::Timeout,
        Self::Unavailable,
        Self::OverBudget,
        Self::BreakerOpen,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cached => "cached",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::OverBudget => "over_budget",
            Self::BreakerOpen => "breaker_open",
        }
    }

    /// Whether asking again would come to the same; all else is to be tried again later.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Ok | Self::Cached | Self::Refused | Self::Truncated | Self::Invalid => true,
            Self::Timeout | Self::Unavailable | Self::OverBudget | Self::BreakerOpen => false,
        }
    }

    /// Whether there is an answer.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Ok | Self::Cached)
    }
}

/// Something that the model has seen in a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indicator {
    /// A field that was sent: `source_ip`, `metadata.user_agent`.
    pub field: String,
    pub observation: String,
}

/// The record. What is `None` or empty is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalysisRecord {
    /// First, since every record of ours begins with it.
    pub outcome: Outcome,
    /// What the model has said; the event's own severity is never lowered by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indicators: Option<Vec<Indicator>>,
    /// Indicators that named what was not sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub indicators_dropped: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<String>,
    /// As the reply names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What events that are analysed as one have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// The event that the model was asked about, if it was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<String>,
    /// Fields that talk to the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub injection: Vec<String>,
    /// The anomaly's severity before the analysis has raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised_from: Option<Severity>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like that")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl AnalysisRecord {
    /// One that says nothing but how it has ended.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            severity: None,
            confidence: None,
            indicators: None,
            indicators_dropped: 0,
            summary: None,
            recommendation: None,
            model: None,
            provider: None,
            fingerprint: None,
            input_tokens: None,
            output_tokens: None,
            cached_from: None,
            injection: Vec::new(),
            raised_from: None,
        }
    }

    /// The record as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let confidence = self.confidence.map(rounded);
        let record = Self {
            confidence,
            ..self.clone()
        };
        serde_json::to_vec(&record).expect("memory takes every write")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_begin_as_records_of_ours_do() {
        for outcome in Outcome::ALL {
            let json = AnalysisRecord::new(outcome).to_json();
            let expected = format!("{{\"outcome\":\"{}\"}}", outcome.name());
            assert_eq!(String::from_utf8(json).expect("text"), expected);
        }
    }
}
