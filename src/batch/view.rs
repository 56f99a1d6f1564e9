//! Texts of events, where they stand.

use prefetch_index::prefetch_index;

use super::Block;
use crate::record::{Event, EventView, Text, Values};

impl Block {
    /// The text of an event's field.
    #[must_use]
    #[inline]
    pub fn text(&self, text: Text) -> &str {
        match &self.text {
            Some(lines) if !text.is_in_arena() => &lines[text.start()..text.end()],
            _ => self.other_text(text),
        }
    }

    /// Text that was not checked with all lines.
    fn other_text(&self, text: Text) -> &str {
        std::str::from_utf8(self.bytes(text)).expect("fields are checked when they are placed")
    }

    /// The bytes of a text, unchecked: those of a rejected line can be anything.
    #[must_use]
    pub fn bytes(&self, text: Text) -> &[u8] {
        &self.buffer(text)[text.start()..text.end()]
    }

    #[must_use]
    pub fn view(&self, event: &Event) -> EventView<'_> {
        let optional = |text: Text| (!text.is_none()).then(|| self.text(text));
        EventView {
            event_id: self.text(event.event_id),
            user: self.text(event.user),
            timestamp_ms: event.timestamp_ms,
            kind: self.text(event.kind),
            source_ip: optional(event.source_ip),
            geo_location: optional(event.geo_location),
            threat_score: event.threat_score,
            asn: optional(event.asn),
            device: optional(event.device),
            user_agent: optional(event.user_agent),
            endpoint: optional(event.endpoint),
            bytes: event.bytes,
            is_failure: event.is_failure,
        }
    }

    /// What the classic detector keeps of an event.
    #[must_use]
    pub fn values(&self, event: &Event) -> Values<'_> {
        let optional = |text: Text| (!text.is_none()).then(|| self.text(text));
        Values {
            timestamp_ms: event.timestamp_ms,
            kind: self.text(event.kind),
            source_ip: optional(event.source_ip),
            geo_location: optional(event.geo_location),
            threat_score: event.threat_score,
            is_failure: event.is_failure,
        }
    }

    /// Fetches where an event of that number says what it is, if there is one.
    pub fn prefetch(&self, event: usize) {
        prefetch_index(&self.events, event);
    }

    /// Fetches the values of an event of that number, if there is one.
    pub fn prefetch_values(&self, event: usize) {
        let Some(event) = self.events.get(event) else {
            return;
        };
        for text in [event.kind, event.source_ip, event.geo_location] {
            if !text.is_none() {
                prefetch_index(self.buffer(text), text.start());
            }
        }
    }

    fn buffer(&self, text: Text) -> &[u8] {
        if text.is_in_arena() {
            &self.arena
        } else {
            self.all_lines()
        }
    }
}
