//! What is embedded: an event as its own line tells it, and what a detector has found of it. It is the
//! same whether it comes through a pipe, fused, or from a store.

use crate::record::anomaly::AnomalyRecord;
use crate::record::text::shorten;
use crate::record::{Event, EventView, Status};

/// Characters of a value that a sentence tells, and bytes of a whole sentence.
const VALUE_CHARS_MAX: usize = 256;
const SENTENCE_BYTES_MAX: usize = 4 << 10;

/// An event to embed.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub(super) view: EventView<'a>,
    pub(super) status: Status,
    pub(super) anomaly: Option<&'a AnomalyRecord>,
}

impl<'a> Subject<'a> {
    #[must_use]
    pub fn new(event: &Event, view: EventView<'a>, anomaly: Option<&'a AnomalyRecord>) -> Self {
        // What was looked up for the detector is not in the line: a program behind it in a pipe does
        // not see it.
        let view = EventView {
            geo_location: view.geo_location.filter(|_| !event.looked_up.place),
            asn: view.asn.filter(|_| !event.looked_up.provider),
            ..view
        };
        Self {
            view,
            status: event.status,
            anomaly,
        }
    }

    /// The event as a sentence, for models that read texts.
    #[must_use]
    pub fn sentence(&self) -> String {
        let view = &self.view;
        let mut sentence = String::new();
        let mut add = |before: &str, text: &str| {
            let text = shorten(text, VALUE_CHARS_MAX);
            if sentence.len() + before.len() + text.len() > SENTENCE_BYTES_MAX {
                return;
            }
            sentence.push_str(before);
            let is_space = |c: char| c.is_control() || c.is_whitespace();
            sentence.extend(text.chars().map(|c| if is_space(c) { ' ' } else { c }));
        };
        if let Some(anomaly) = self.anomaly {
            add("", anomaly.severity.name());
            add(
                " anomaly: ",
                anomaly.archetype.as_deref().unwrap_or("unusual"),
            );
            for reason in &anomaly.reasons {
                add("; ", reason);
            }
            add(". ", "");
        }
        add("", view.kind);
        add(" ", self.status.name());
        add(" by user ", view.user);
        for (name, value) in [
            (" from ", view.source_ip),
            (" in ", view.geo_location),
            (" provider ", view.asn),
            (" device ", view.device),
            (" endpoint ", view.endpoint),
            (" user agent ", view.user_agent),
        ] {
            if let Some(value) = value {
                add(name, value);
            }
        }
        sentence
    }
}
