//! What of a line comes from where, and what is missing.

use serde::Serialize;
use serde_json::Value as Json;

use super::format::{Extra, Format};
use super::mapper::{Mapper, Told, record_of};
use super::rule::{Given, Rules, View};
use super::slots::Kind;
use super::tsv::Ahead;
use super::{Mapping, event};
use crate::batch::Block;
use crate::record::Reason;

/// What became of a line, and for its first event where each value comes from.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The format that the line is of; none if it is of no known one.
    pub format: Option<String>,
    pub title: Option<String>,
    pub fields: Vec<Explained>,
    pub missing: Vec<Missing>,
    /// All events of the line.
    pub events: Vec<Json>,
    /// Why the line, or a record in it, is rejected.
    pub rejected: Vec<Reason>,
}

/// Where a value comes from.
#[derive(Debug, Serialize)]
pub struct Explained {
    pub field: String,
    pub value: Json,
    /// The paths that gave it, as the mapping writes them; none for a constant.
    pub from: Option<String>,
    /// The number of the rule that gave it, from 1, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
}

/// What the record does not say.
#[derive(Debug, Serialize)]
pub struct Missing {
    pub field: String,
    pub looked_for: Vec<String>,
}

impl Mapping {
    /// Explains a block of one line.
    #[must_use]
    pub fn explain(&self, block: &mut Block, ahead: &Ahead, line_bytes_max: usize) -> Explanation {
        let mut explanation = Explanation {
            format: None,
            title: None,
            fields: Vec::new(),
            missing: Vec::new(),
            events: Vec::new(),
            rejected: Vec::new(),
        };
        if let Some(record) = record_of(self, block, ahead, line_bytes_max) {
            let mut mapper = Mapper::new(self);
            let told = match record.format {
                Some(number) => mapper
                    .walk(number, &record.json)
                    .map(|_| Told::Format(number)),
                None if record.is_row => mapper.tell_by_members(&record.json, false),
                None => mapper.tell(&record.json, false),
            };
            match told {
                Ok(Told::Format(number)) => {
                    let format = self.format(number);
                    // What is wrong with it is said by whoever maps it.
                    let _ = mapper.go_inside(format, &record.json);
                    mapper.look_at_first_element(format);
                    format.find_patterns(&mut mapper.slots, &mut mapper.texts, &mut mapper.memos);
                    let view = View {
                        slots: &mapper.slots,
                        texts: &mapper.texts,
                    };
                    explanation.describe(format, &view);
                }
                Ok(Told::Native) => explanation.format = Some(super::NATIVE.to_owned()),
                Ok(Told::Envelope(_) | Told::Unknown) | Err(_) => {}
            }
        }
        self.parse(block, ahead, line_bytes_max);
        for event in &block.events {
            let line = block.bytes(event.line);
            explanation
                .events
                .extend(serde_json::from_slice::<Json>(line).ok());
        }
        let reasons = block.rejects.iter().map(|reject| (*reject.reason).clone());
        explanation.rejected = reasons.collect();
        explanation
    }
}

impl Explanation {
    fn describe(&mut self, format: &Format, view: &View<'_, '_>) {
        self.format = Some(format.name.clone());
        self.title = Some(format.title.clone());
        let fields = &format.fields;
        for (name, rules) in [
            ("event_id", &fields.event_id),
            ("user", &fields.user),
            ("timestamp", &fields.timestamp),
            ("type", &fields.kind),
            ("source_ip", &fields.source_ip),
            ("geo_location", &fields.geo_location),
            ("threat_score", &fields.threat_score),
            ("status", &fields.status),
        ] {
            self.describe_field(name, rules, view);
        }
        // A time is shown as it is stored.
        let timestamp = self
            .fields
            .iter_mut()
            .find(|explained| explained.field == "timestamp");
        if let Some(explained) = timestamp
            && let Ok(timestamp_ms) = event::timestamp_ms(format, view)
        {
            explained.value = timestamp_ms.into();
        }
        for Extra { name, rules, .. } in &format.metadata {
            self.describe_field(&format!("metadata.{name}"), rules, view);
        }
    }

    fn describe_field(&mut self, name: &str, rules: &Rules, view: &View<'_, '_>) {
        if let Some((number, value)) = view.first(rules) {
            let origin = &rules.all[number].origin;
            self.fields.push(Explained {
                field: name.to_owned(),
                value: json_of(&value, view),
                from: origin.is_looked_up().then(|| origin.found(view)),
                rule: (rules.all.len() > 1).then_some(number + 1),
            });
            return;
        }
        let mut looked_for = Vec::new();
        for rule in rules.all.iter().filter(|rule| rule.origin.is_looked_up()) {
            let shown = rule.origin.shown();
            if !looked_for.contains(&shown) {
                looked_for.push(shown);
            }
        }
        self.missing.push(Missing {
            field: name.to_owned(),
            looked_for,
        });
    }
}

fn json_of(value: &Given<'_>, view: &View<'_, '_>) -> Json {
    let text = match value {
        Given::Found(slot) => {
            let text = view.text(slot).unwrap_or_default();
            if matches!(slot.kind, Kind::Number | Kind::Bool) {
                return serde_json::from_str(&text).unwrap_or(Json::Null);
            }
            text.into_owned()
        }
        Given::Text(text) => text.clone().into_owned(),
        Given::Number(number) => return serde_json::from_str(number).unwrap_or(Json::Null),
    };
    Json::String(text)
}
