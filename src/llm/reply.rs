//! What a model says of an event, checked: it is anybody's text until then, and it is not trusted after.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Subject;
use super::clean::clean;
use crate::record::analysis::{AnalysisRecord, Indicator, Outcome};
use crate::record::anomaly::Severity;
use crate::record::text::rounded;

const TEXT_CHARS_MAX: usize = 1_000;
const OBSERVATION_CHARS_MAX: usize = 400;
const FIELD_CHARS_MAX: usize = 200;
const INDICATORS_MAX: usize = 16;
const MODEL_CHARS_MAX: usize = 100;

/// An answer, as it is kept for events that are alike: stand-ins are still in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub severity: Severity,
    pub confidence: f64,
    pub indicators: Vec<Indicator>,
    #[serde(default)]
    pub indicators_dropped: u32,
    pub summary: String,
    pub recommendation: String,
    /// As the reply names it.
    pub model: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The event that was asked about.
    pub event_id: String,
}

/// What the schema asks for.
#[derive(Deserialize)]
struct Said {
    severity: Severity,
    confidence: f64,
    indicators: Vec<Indicator>,
    summary: String,
    recommendation: String,
}

/// Reads what a model has said; none if it is not what it was asked for.
#[must_use]
pub fn read(text: &str, subject: &Subject) -> Option<Verdict> {
    let said: Said = serde_json::from_str(text.trim()).ok()?;
    if !(0.0..=1.0).contains(&said.confidence) || said.summary.trim().is_empty() {
        return None;
    }
    let n_indicators = said.indicators.len();
    let indicators = said.indicators.into_iter().filter_map(|indicator| {
        Some(Indicator {
            field: path_of(&indicator.field, &subject.paths)?,
            observation: clean(&indicator.observation, OBSERVATION_CHARS_MAX).into_owned(),
        })
    });
    let indicators: Vec<_> = indicators.take(INDICATORS_MAX).collect();
    Some(Verdict {
        severity: said.severity,
        confidence: rounded(said.confidence),
        indicators_dropped: (n_indicators - indicators.len()) as u32,
        indicators,
        summary: clean(&said.summary, TEXT_CHARS_MAX).into_owned(),
        recommendation: clean(&said.recommendation, TEXT_CHARS_MAX).into_owned(),
        model: String::new(),
        input_tokens: 0,
        output_tokens: 0,
        event_id: subject.event_id.clone(),
    })
}

/// The field that a model means, if it was sent.
fn path_of(field: &str, paths: &BTreeSet<String>) -> Option<String> {
    if field.len() > FIELD_CHARS_MAX {
        return None;
    }
    let field = field.trim().trim_matches('`');
    let field = field.strip_prefix("event.").unwrap_or(field);
    // An item of a list is of the list.
    let field = field.split_once('[').map_or(field, |(list, _)| list);
    paths.get(field).cloned()
}

impl Verdict {
    /// Says who has answered.
    #[must_use]
    pub fn of_model(self, model: &str, input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            model: clean(model, MODEL_CHARS_MAX).into_owned(),
            input_tokens,
            output_tokens,
            ..self
        }
    }

    /// The record of an event, to which the answer applies.
    #[must_use]
    pub fn record(
        &self,
        outcome: Outcome,
        subject: &Subject,
        provider: &str,
        fingerprint: &str,
    ) -> AnalysisRecord {
        let show = |text: &str| subject.pseudonyms.show(text);
        // An event like the one that was asked about may lack a field.
        let indicators = self.indicators.iter();
        let indicators = indicators.filter(|indicator| subject.paths.contains(&indicator.field));
        let indicators: Vec<_> = indicators
            .map(|indicator| Indicator {
                field: show(&indicator.field),
                observation: show(&indicator.observation),
            })
            .collect();
        let n_dropped = self.indicators.len() - indicators.len();
        let is_other = self.event_id != subject.event_id;
        AnalysisRecord {
            severity: Some(self.severity),
            confidence: Some(self.confidence),
            indicators_dropped: self.indicators_dropped + n_dropped as u32,
            indicators: Some(indicators),
            summary: Some(show(&self.summary)),
            recommendation: Some(show(&self.recommendation)),
            model: Some(self.model.clone()),
            provider: Some(provider.to_owned()),
            fingerprint: Some(fingerprint.to_owned()),
            input_tokens: Some(self.input_tokens),
            output_tokens: Some(self.output_tokens),
            cached_from: is_other.then(|| self.event_id.clone()),
            ..AnalysisRecord::new(outcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Redact;

    fn subject() -> Subject {
        let line = br#"{"event_id":"e","user":"alice","timestamp":1,"type":"A","source_ip":"10.0.0.1","metadata":{"tags":["x"]}}"#;
        let redact = Redact {
            user: true,
            ip: true,
        };
        Subject::read(line, None, None, redact).expect("an event")
    }

    #[test]
    fn answers_are_checked() {
        let answer = |severity: &str, confidence: &str, more: &str| {
            let text = format!(
                r#" {{"severity":{severity},"confidence":{confidence},"indicators":[],"recommendation":""{more}}} "#
            );
            read(&text, &subject())
        };
        let summary = r#","summary":"s""#;
        assert!(answer("\"low\"", "0.5", summary).is_some());
        assert!(answer("\"critical\"", "1", summary).is_some());
        assert_eq!(answer("\"benign\"", "0.5", summary), None);
        assert_eq!(answer("\"LOW\"", "0.5", summary), None);
        assert_eq!(answer("\"low\"", "1.01", summary), None);
        assert_eq!(answer("\"low\"", "-0.1", summary), None);
        assert_eq!(answer("\"low\"", "\"0.5\"", summary), None);
        assert_eq!(answer("\"low\"", "0.5", ""), None);
        assert_eq!(answer("\"low\"", "0.5", r#","summary":" ""#), None);
        assert_eq!(read("It is harmless.", &subject()), None);
        assert_eq!(read("", &subject()), None);
    }

    #[test]
    fn indicators_name_what_was_sent_and_stand_ins_are_undone() {
        let text = r#"{"severity":"high","confidence":0.123456789,"indicators":[
            {"field":"source_ip","observation":"ip-1 is new\u001b[2J"},
            {"field":"`event.metadata.tags[0]`","observation":"x"},
            {"field":"event_id","observation":"not sent"},
            {"field":"metadata.password","observation":"made up"}],
            "summary":"user-1 was robbed","recommendation":"block ip-1"}"#;
        let verdict = read(text, &subject())
            .expect("an answer")
            .of_model("m", 1, 2);
        assert_eq!(verdict.indicators_dropped, 2);
        let record = verdict.record(Outcome::Ok, &subject(), "anthropic", "f");
        let json = String::from_utf8(record.to_json()).expect("text");
        assert_eq!(
            json,
            r#"{"outcome":"ok","severity":"high","confidence":0.123457,"indicators":[{"field":"source_ip","observation":"10.0.0.1 is new[2J"},{"field":"metadata.tags","observation":"x"}],"indicators_dropped":2,"summary":"alice was robbed","recommendation":"block 10.0.0.1","model":"m","provider":"anthropic","fingerprint":"f","input_tokens":1,"output_tokens":2}"#
        );
    }
}
