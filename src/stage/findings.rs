//! What was found in the events of a batch, until it is brought to them.

use super::incident::{Alert, Incidents, News};
use super::look::{Place, Route};
use super::score::Emit;
use crate::batch::Block;
use crate::detect::{Raised, Verdict};
use crate::record::StageField;
use crate::record::anomaly::Severity;

/// Events that got a field, in input order.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    /// The JSON that they point to.
    text: Vec<u8>,
    pub(super) verdict: Verdict,
    /// Scores of all events, if anybody wants to know.
    scores: Option<Vec<f64>>,
}

struct Finding {
    block: u32,
    event: u32,
    /// End of the anomaly and of the context in the text; the start is the end before.
    anomaly_end: usize,
    context_end: usize,
    raised: Option<Raised>,
}

/// What the anomalies of a batch are to their incidents, in input order.
#[derive(Default)]
pub(super) struct Folded {
    list: Vec<(Place, News)>,
    /// The JSON of each, and where it ends.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Folded {
    /// Folds all anomalies that were found.
    pub(super) fn fold<'a, F>(
        &mut self,
        incidents: &mut Incidents,
        all_findings: impl Iterator<Item = &'a Findings>,
        routes: &[Route<F>],
        blocks: &[Block],
    ) {
        let mut raised: Vec<(Place, Raised)> = all_findings
            .flat_map(|findings| &findings.list)
            .filter_map(|finding| Some((finding.place(), finding.raised?)))
            .collect();
        raised.sort_unstable_by_key(|(place, _)| *place);
        self.list.clear();
        self.text.clear();
        self.ends.clear();
        for (place, raised) in raised {
            let block = &blocks[place.block];
            let user = routes[place.block].keys[place.event].stable;
            let alert = Alert::new(&block.view(&block.events[place.event]), user, raised);
            let news = incidents.fold(&alert);
            incidents.write(&alert, news, &mut self.text);
            self.list.push((place, news));
            self.ends.push(self.text.len());
        }
    }

    fn get(&self, place: Place) -> Option<(News, &[u8])> {
        let i = self.list.binary_search_by_key(&place, |(place, _)| *place);
        let i = i.ok()?;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some((self.list[i].1, &self.text[start..self.ends[i]]))
    }
}

impl Finding {
    fn place(&self) -> Place {
        Place {
            block: self.block as usize,
            event: self.event as usize,
        }
    }
}

impl Findings {
    /// With the scores of all events if somebody wants to know them.
    pub(super) fn new(with_scores: bool) -> Self {
        Self {
            scores: with_scores.then(Vec::new),
            ..Self::default()
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
        if let Some(scores) = &mut self.scores {
            scores.clear();
        }
    }

    /// Scores of all events.
    pub(super) fn scores(&self) -> &[f64] {
        self.scores.as_deref().unwrap_or_default()
    }

    /// Events that were raised, and how severe they are.
    pub(super) fn raised(&self) -> impl Iterator<Item = (Place, Severity)> {
        let raised = |finding: &Finding| Some((finding.place(), finding.raised?.severity));
        self.list.iter().filter_map(raised)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes over the verdict on an event, if there is something in it.
    pub(super) fn keep(&mut self, block: usize, event: usize) {
        let verdict = &self.verdict;
        if let (Some(scores), Some(score)) = (&mut self.scores, verdict.score) {
            scores.push(score);
        }
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
            raised: verdict.raised,
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
    folded: &Folded,
    emit: Emit,
) {
    // Whatever an earlier run has appended is no longer true.
    for i in 0..block.events.len() {
        if block.events[i].stage_fields != 0 {
            block.set_stage_value(i, StageField::Anomaly, &[]);
            block.set_stage_value(i, StageField::Context, &[]);
            // What was said of an event before it was scored is not about this anomaly, and whoever has
            // written the event may have said it.
            block.set_stage_value(i, StageField::Analysis, &[]);
        }
    }
    let mut with_incident = Vec::new();
    for findings in all_findings {
        for (start, finding) in findings.of(block_index as u32) {
            let event = finding.event as usize;
            let mut anomaly = &findings.text[start..finding.anomaly_end];
            if let Some((_, incident)) = folded.get(finding.place()) {
                with_incident.clear();
                with_incident.extend_from_slice(&anomaly[..anomaly.len() - 1]);
                with_incident.extend_from_slice(b",\"incident\":");
                with_incident.extend_from_slice(incident);
                with_incident.push(b'}');
                anomaly = &with_incident;
            }
            block.set_stage_value(event, StageField::Anomaly, anomaly);
            let context = &findings.text[finding.anomaly_end..finding.context_end];
            block.set_stage_value(event, StageField::Context, context);
        }
    }
    if emit == Emit::All {
        return;
    }
    let events = std::mem::take(&mut block.events);
    let n_before = events.len();
    let is_wanted = |event: usize| {
        let folded = folded.get(Place {
            block: block_index,
            event,
        });
        emit == Emit::Anomalies || folded.is_some_and(|(news, _)| news != News::More)
    };
    let events: Vec<_> = events
        .into_iter()
        .enumerate()
        .filter(|(_, event)| block.stage_value(event, StageField::Anomaly).is_some())
        .filter(|(i, _)| is_wanted(*i))
        .map(|(_, event)| event)
        .collect();
    block.n_filtered += (n_before - events.len()) as u64;
    block.events = events;
}
