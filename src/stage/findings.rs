//! What was found in the events of a batch, until it is brought to them.

use crate::batch::Block;
use crate::detect::Verdict;
use crate::record::StageField;

/// Events that got a field, in input order.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    /// The JSON that they point to.
    text: Vec<u8>,
    pub(super) verdict: Verdict,
}

struct Finding {
    block: u32,
    event: u32,
    /// End of the anomaly and of the context in the text; the start is the end before.
    anomaly_end: usize,
    context_end: usize,
}

impl Findings {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes over the verdict on an event, if there is something in it.
    pub(super) fn keep(&mut self, block: usize, event: usize) {
        let verdict = &self.verdict;
        if verdict.anomaly.is_empty() && verdict.context.is_empty() {
            return;
        }
        self.text.extend_from_slice(&verdict.anomaly);
        let anomaly_end = self.text.len();
        self.text.extend_from_slice(&verdict.context);
        self.list.push(Finding {
            block: block as u32,
            event: event as u32,
            anomaly_end,
            context_end: self.text.len(),
        });
    }

    /// Those of one block, each with where its text starts.
    fn of(&self, block: u32) -> impl Iterator<Item = (usize, &Finding)> {
        let first = self.list.partition_point(|finding| finding.block < block);
        let start = first.checked_sub(1).map_or(0, |i| self.list[i].context_end);
        self.list[first..]
            .iter()
            .take_while(move |finding| finding.block == block)
            .scan(start, |start, finding| {
                Some((std::mem::replace(start, finding.context_end), finding))
            })
    }
}

/// Brings what was found to the events of a block.
pub(super) fn apply<'a>(
    block_index: usize,
    block: &mut Block,
    all_findings: impl Iterator<Item = &'a Findings>,
    only_anomalies: bool,
) {
    // Whatever an earlier run has appended is no longer true.
    for i in 0..block.events.len() {
        if block.events[i].stage_fields != 0 {
            block.set_stage_value(i, StageField::Anomaly, &[]);
            block.set_stage_value(i, StageField::Context, &[]);
        }
    }
    for findings in all_findings {
        for (start, finding) in findings.of(block_index as u32) {
            let event = finding.event as usize;
            let (anomaly_end, context_end) = (finding.anomaly_end, finding.context_end);
            let text = &findings.text;
            block.set_stage_value(event, StageField::Anomaly, &text[start..anomaly_end]);
            block.set_stage_value(event, StageField::Context, &text[anomaly_end..context_end]);
        }
    }
    if only_anomalies {
        let events = std::mem::take(&mut block.events);
        let n_before = events.len();
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| block.stage_value(event, StageField::Anomaly).is_some())
            .collect();
        block.n_filtered += (n_before - events.len()) as u64;
        block.events = events;
    }
}
