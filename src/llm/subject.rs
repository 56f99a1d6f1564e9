//! One event that a model is asked about: what is sent of it, what it has in common with others, and
//! who in it talks to the model.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::Redact;
use super::clean::clean;
use super::codes::code_of;
use super::injection;
use super::redact::Pseudonyms;
use super::sketch::sketch;
use crate::batch::Block;
use crate::record::anomaly::{AnomalyRecord, Severity};
use crate::record::text::rounded;
use crate::record::{Event, EventView, StageField};

/// Characters of a reason that are sent.
const REASON_CHARS_MAX: usize = 300;
const REASONS_MAX: usize = 8;
const KNOWN_IPS_MAX: usize = 10;

/// An event that is to be analysed. It holds what is needed of it, and is small.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(crate) event_id: String,
    /// The JSON that is sent.
    pub(super) data: String,
    /// The fields in it.
    pub(super) paths: BTreeSet<String>,
    /// What tells it from others that are to be asked about, one a line.
    pub(super) traits: String,
    pub(super) pseudonyms: Pseudonyms,
    /// Fields that talk to the model.
    pub(crate) hostile: Vec<String>,
    /// The anomaly's severity and its record, if it is one.
    pub(crate) anomaly: Option<(Severity, String)>,
    pub(crate) threat_score: Option<f64>,
}

/// The context that `sg-score` gives, as far as it is one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    failed_login_count: u64,
    known_ips: Vec<String>,
    avg_threat_score: Option<f64>,
}

impl Subject {
    /// From an event of a block, with what stages have added to it.
    #[must_use]
    pub fn of_event(block: &Block, event: &Event, redact: Redact) -> Self {
        let view = block.view(event);
        let mut line = Vec::new();
        block.push_bare_line(event, &mut line);
        let stage_value = |field| {
            let value = block.stage_value(event, field)?;
            std::str::from_utf8(value).ok()
        };
        let line = String::from_utf8_lossy(&line);
        let status = event.status.name();
        let anomaly = stage_value(StageField::Anomaly);
        Self::new(
            &view,
            status,
            &line,
            anomaly,
            stage_value(StageField::Context),
            redact,
        )
    }

    /// From an event's line, and the records that stages have made of it, as a store keeps them. None if
    /// the line is no event.
    #[must_use]
    pub fn read(
        line: &[u8],
        anomaly: Option<&[u8]>,
        context: Option<&[u8]>,
        redact: Redact,
    ) -> Option<Self> {
        let mut block = Block::new();
        block.lines = [line.trim_ascii_end(), b"\n"].concat();
        block.parse(usize::MAX);
        block.events.first()?;
        for (field, value) in [
            (StageField::Anomaly, anomaly),
            (StageField::Context, context),
        ] {
            block.set_stage_value(0, field, value.unwrap_or_default());
        }
        let event = block.events[0].clone();
        Some(Self::of_event(&block, &event, redact))
    }

    fn new(
        view: &EventView<'_>,
        status: &str,
        line: &str,
        anomaly: Option<&str>,
        context: Option<&str>,
        redact: Redact,
    ) -> Self {
        let mut pseudonyms = Pseudonyms::new(redact, view.user);
        let mut sketch = sketch(line.trim(), &mut pseudonyms);
        let record = anomaly.and_then(|json| serde_json::from_str::<AnomalyRecord>(json).ok());
        let context = context.and_then(|json| serde_json::from_str::<Context>(json).ok());
        let mut hidden = |text: &str, chars_max| pseudonyms.hide(&clean(text, chars_max));
        let mut data = serde_json::Map::new();
        data.insert("event".to_owned(), Json::Object(sketch.members));
        if let Some(record) = &record {
            let reasons = record.reasons.iter().take(REASONS_MAX);
            let reasons: Vec<_> = reasons.map(|text| hidden(text, REASON_CHARS_MAX)).collect();
            let mut anomaly = json!({
                "score": rounded(record.anomaly_score),
                "severity": record.severity,
                "reasons": reasons,
            });
            if let Some(archetype) = &record.archetype {
                anomaly["archetype"] = hidden(archetype, REASON_CHARS_MAX).into();
            }
            data.insert("anomaly".to_owned(), anomaly);
        }
        if let Some(context) = &context {
            let known_ips = context.known_ips.iter().take(KNOWN_IPS_MAX);
            let known_ips: Vec<_> = known_ips
                .map(|text| hidden(text, REASON_CHARS_MAX))
                .collect();
            let baseline = json!({
                "failed_login_count": context.failed_login_count,
                "known_ips": known_ips,
                "avg_threat_score": context.avg_threat_score.map(rounded),
            });
            data.insert("baseline".to_owned(), baseline);
        }
        for (name, value) in &data {
            if let (Json::Object(members), true) = (value, name != "event") {
                let paths = members.keys().map(|key| format!("{name}.{key}"));
                sketch.paths.extend(paths);
            }
        }
        if sketch.n_left_out > 0 {
            data.insert("fields_left_out".to_owned(), sketch.n_left_out.into());
        }
        // Reasons quote values; what they quote has been looked at where it comes from, unless a stage
        // of somebody else has made them.
        let mut hostile = sketch.hostile;
        let reasons = record.iter().flat_map(|record| &record.reasons);
        if hostile.is_empty()
            && reasons
                .into_iter()
                .any(|text| injection::find(text).is_some())
        {
            hostile.push("anomaly.reasons".to_owned());
        }
        let traits = traits(view, status, record.as_ref(), context.as_ref(), &hostile);
        let anomaly = record.as_ref().zip(anomaly);
        Self {
            event_id: view.event_id.to_owned(),
            data: Json::Object(data).to_string(),
            paths: sketch.paths,
            traits,
            pseudonyms,
            hostile,
            anomaly: anomaly.map(|(record, json)| (record.severity, json.to_owned())),
            threat_score: view.threat_score,
        }
    }

    /// Whether the event is an anomaly.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.anomaly.as_ref().map(|(severity, _)| *severity)
    }

    #[must_use]
    pub fn threat_score(&self) -> Option<f64> {
        self.threat_score
    }

    /// Whether somebody talks to the model in it.
    #[must_use]
    pub fn is_hostile(&self) -> bool {
        !self.hostile.is_empty()
    }

    /// The event's id.
    #[must_use]
    pub fn event_id(&self) -> &str {
        &self.event_id
    }
}

/// What an event has in common with those that are analysed as one with it: no ids, no times, no values.
fn traits(
    view: &EventView<'_>,
    status: &str,
    record: Option<&AnomalyRecord>,
    context: Option<&Context>,
    hostile: &[String],
) -> String {
    let mut traits = vec![
        format!("type {}", view.kind),
        format!("status {status} {}", view.is_failure),
        format!("threat {}", band(view.threat_score)),
    ];
    if let Some(record) = record {
        traits.push(format!("severity {}", record.severity));
        let archetype = record.archetype.as_deref().unwrap_or_default();
        traits.push(format!("archetype {archetype}"));
        let values = [
            view.source_ip,
            view.geo_location,
            view.endpoint,
            Some(view.kind),
        ];
        let values: Vec<_> = values.into_iter().flatten().collect();
        let reasons = record.reasons.iter().take(REASONS_MAX);
        let codes: BTreeSet<_> = reasons.map(|reason| code_of(reason, &values)).collect();
        traits.extend(codes.into_iter().map(|code| format!("reason {code}")));
    }
    if let (Some(context), Some(address)) = (context, view.source_ip) {
        let is_known = context.known_ips.iter().any(|known| known == address);
        traits.push(format!("address known {is_known}"));
    }
    let hostile: BTreeSet<_> = hostile.iter().collect();
    traits.extend(hostile.into_iter().map(|path| format!("hostile {path}")));
    // A line end within a value would make two of one.
    let traits = traits.iter().map(|text| text.replace('\n', " "));
    traits.collect::<Vec<_>>().join("\n")
}

fn band(threat_score: Option<f64>) -> &'static str {
    match threat_score {
        None => "none",
        Some(score) if score >= 0.9 => "severe",
        Some(score) if score >= 0.7 => "high",
        Some(_) => "low",
    }
}
