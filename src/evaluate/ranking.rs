//! How good a ranking by risk is: what is found within a budget of events or incidents.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::{DAYS_A_MONTH, Labels};

/// Shares of all events that could be looked at.
const BUDGETS: [(&str, f64); 3] = [("0.1% of events", 0.001), ("0.5%", 0.005), ("1%", 0.01)];

/// One event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    pub(super) risk: f64,
    pub(super) timestamp_ms: i64,
    pub(super) user: u32,
    pub(super) address: Option<u32>,
    /// The attack that it is part of.
    pub(super) episode: Option<u32>,
}

/// How good scores are.
#[derive(Debug, Serialize)]
pub struct Quality {
    /// Events that were labelled, and those of them that came.
    pub labels: usize,
    pub labels_matched: usize,
    pub attack_events: u64,
    pub episodes: u64,
    /// Area under the curve of precision over recall (average precision).
    pub pr_auc: f64,
    pub budgets: Vec<Budget>,
    pub scenarios: Vec<Scenario>,
}

/// What is found among the riskiest events.
#[derive(Debug, Serialize)]
pub struct Budget {
    pub budget: &'static str,
    pub events: usize,
    pub precision: f64,
    pub recall: f64,
    pub episode_recall: f64,
}

/// The same for one kind of attack, at one incident a user and month.
#[derive(Debug, Serialize)]
pub struct Scenario {
    pub scenario: String,
    pub episodes: usize,
    pub episodes_found: usize,
}

impl Quality {
    pub(super) fn of(events: &[Scored], labels: &Labels, n_users: usize, days: f64) -> Self {
        let mut order: Vec<u32> = (0..events.len() as u32).collect();
        // Of equals the earlier: a rank must not depend on what was an attack.
        order.sort_by(|&a, &b| events[b as usize].risk.total_cmp(&events[a as usize].risk));
        let attacks = events.iter().filter(|event| event.episode.is_some());
        let attack_events = attacks.count() as u64;
        let all: BTreeSet<u32> = events.iter().filter_map(|event| event.episode).collect();

        let find = |budget: &'static str, n_events: usize| {
            let top = order[..n_events].iter().map(|&i| &events[i as usize]);
            let found: Vec<u32> = top.filter_map(|event| event.episode).collect();
            let episodes: BTreeSet<u32> = found.iter().copied().collect();
            let found_budget = Budget {
                budget,
                events: n_events,
                precision: found.len() as f64 / n_events.max(1) as f64,
                recall: found.len() as f64 / attack_events.max(1) as f64,
                episode_recall: episodes.len() as f64 / all.len().max(1) as f64,
            };
            (found_budget, episodes)
        };
        let mut budgets: Vec<Budget> = BUDGETS
            .iter()
            .map(|(name, share)| {
                let n_events = (events.len() as f64 * share).round() as usize;
                find(
                    name,
                    n_events.clamp(1, events.len().max(1)).min(events.len()),
                )
                .0
            })
            .collect();
        let n_incidents_max = (n_users as f64 * days / DAYS_A_MONTH).max(1.0) as u64;
        let n_events = n_events_within(events, &order, n_incidents_max);
        let (budget, found) = find("1 incident a user and month", n_events);
        budgets.push(budget);
        let scenarios = labels.scenarios.iter().enumerate().map(|(i, scenario)| {
            let is_of = |episode: &&u32| labels.episodes[**episode as usize] == i;
            Scenario {
                scenario: scenario.clone(),
                episodes: all.iter().filter(is_of).count(),
                episodes_found: found.iter().filter(is_of).count(),
            }
        });
        Self {
            labels: labels.n_labels(),
            labels_matched: labels.n_found(),
            attack_events,
            episodes: all.len() as u64,
            pr_auc: average_precision(events, &order, attack_events),
            budgets,
            scenarios: scenarios.filter(|scenario| scenario.episodes > 0).collect(),
        }
    }
}

/// The sum of precisions, each by how much recall grows there; equal risks come together.
fn average_precision(events: &[Scored], order: &[u32], n_attacks: u64) -> f64 {
    let (mut n_found, mut n_seen, mut area) = (0_u64, 0_u64, 0.0);
    let same_risk = |a: &u32, b: &u32| {
        let (a, b) = (events[*a as usize].risk, events[*b as usize].risk);
        a.total_cmp(&b).is_eq()
    };
    for equals in order.chunk_by(same_risk) {
        let attacks = equals
            .iter()
            .filter(|&&i| events[i as usize].episode.is_some());
        let n_more = attacks.count() as u64;
        n_found += n_more;
        n_seen += equals.len() as u64;
        area += n_more as f64 * n_found as f64 / n_seen as f64;
    }
    area / n_attacks.max(1) as f64
}

/// As many of the riskiest events as make no more incidents than that, where one event more makes
/// one too many; found by halving, since more events hardly ever make fewer incidents.
fn n_events_within(events: &[Scored], order: &[u32], n_incidents_max: u64) -> usize {
    let n_incidents = |n_events: usize| {
        let mut top: Vec<u32> = order[..n_events].to_vec();
        top.sort_by_key(|&i| (events[i as usize].timestamp_ms, i));
        let mut incidents = Incidents::default();
        for i in top {
            incidents.add(&events[i as usize]);
        }
        incidents.n
    };
    let (mut low, mut high) = (0, order.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        if n_incidents(middle) <= n_incidents_max {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

const INCIDENT_MS: i64 = 3_600_000;

/// Incidents as the detector's specification counts them: alerts in order of time, of the same user or
/// from the same address within an hour.
#[derive(Default)]
struct Incidents {
    n: u64,
    last_of_user: HashMap<u32, i64>,
    last_of_address: HashMap<u32, i64>,
}

impl Incidents {
    fn add(&mut self, alert: &Scored) {
        let time_ms = alert.timestamp_ms;
        let is_open = |last_ms: Option<i64>| last_ms.is_some_and(|ms| time_ms - ms < INCIDENT_MS);
        let of_user = self.last_of_user.insert(alert.user, time_ms);
        let of_address = alert
            .address
            .and_then(|address| self.last_of_address.insert(address, time_ms));
        if !is_open(of_user) && !is_open(of_address) {
            self.n += 1;
        }
    }
}
