//! Incidents, put together from the stored anomalies that are part of them.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Filter, Found, Parts, Wanted, search};
use crate::record::anomaly::{AnomalyRecord, IncidentRecord, Severity};
use crate::store::Order;
use crate::time::format_time;

/// One incident, as far as its anomalies match the question.
#[derive(Debug, Serialize, ToSchema)]
pub struct Incident {
    /// The event that it began with.
    pub incident: String,
    /// `user`, `address` or `campaign`: what its anomalies have in common.
    pub kind: String,
    pub first: String,
    pub last: String,
    pub alerts: u32,
    pub users: u32,
    pub severity: Severity,
    pub anomaly_score: f64,
    /// Of the riskiest anomaly, and the rest too.
    pub risk: f64,
    pub event_id: String,
    pub user: String,
    pub source_ip: Option<String>,
    pub archetype: Option<String>,
    pub reasons: Vec<String>,
    /// The anomaly that it began with was among those that match.
    #[serde(skip)]
    has_first: bool,
}

/// The incidents with an anomaly that matches, the one with the newest anomaly first, and whether there
/// are more than the limit.
///
/// # Errors
/// If a database cannot be read.
pub fn incidents(parts: Parts<'_>, filter: &Filter) -> anyhow::Result<(Vec<Incident>, bool)> {
    let newest_first = Filter {
        order: Order::NewestFirst,
        limit: usize::MAX,
        ..filter.clone()
    };
    let mut found: Vec<Incident> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut n_open = 0;
    let mut has_more = false;
    search(parts, Wanted::Anomalies, &newest_first, |anomaly| {
        let Some((record, of_incident)) = records(anomaly) else {
            return Ok(true);
        };
        let is_full = found.len() == filter.limit;
        let place = match places.get(&of_incident.id) {
            Some(place) => *place,
            None if is_full => {
                has_more = true;
                return Ok(n_open > 0);
            }
            None => {
                n_open += 1;
                places.insert(of_incident.id.clone(), found.len());
                found.push(Incident::new(record, of_incident));
                found.len() - 1
            }
        };
        found[place].add(anomaly, record);
        // Nothing before the anomaly that opened an incident is part of it.
        n_open -= usize::from(of_incident.state == "opened");
        Ok(n_open > 0 || !has_more)
    })?;
    for incident in found.iter_mut().filter(|incident| !incident.has_first) {
        // Gone with its event, if that was pruned.
        if let Some(first_ms) = first_ms(parts, &incident.incident)? {
            incident.first = format_time(first_ms);
        }
    }
    Ok((found, has_more))
}

/// When the anomaly was that an incident began with, which does not have to match the question.
fn first_ms(parts: Parts<'_>, incident: &str) -> anyhow::Result<Option<i64>> {
    let mut first_ms = None;
    super::events_of_id(parts, incident, Order::OldestFirst, |found| {
        let first = records(&found).filter(|(_, of)| of.id == incident && of.state == "opened");
        first_ms = first.map(|(anomaly, _)| anomaly.timestamp);
        Ok(first_ms.is_none())
    })?;
    Ok(first_ms)
}

fn records(found: &Found) -> Option<(&AnomalyRecord, &IncidentRecord)> {
    let anomaly = found.anomaly.as_ref()?;
    Some((anomaly, anomaly.incident.as_ref()?))
}

impl Incident {
    /// Begins with the newest anomaly, which knows of all before it.
    fn new(anomaly: &AnomalyRecord, incident: &IncidentRecord) -> Self {
        Self {
            incident: incident.id.clone(),
            kind: incident.kind.clone(),
            first: String::new(),
            last: format_time(anomaly.timestamp),
            alerts: incident.alerts,
            users: incident.users,
            severity: anomaly.severity,
            anomaly_score: 0.0,
            risk: f64::NEG_INFINITY,
            event_id: String::new(),
            user: String::new(),
            source_ip: None,
            archetype: None,
            reasons: Vec::new(),
            has_first: false,
        }
    }

    fn add(&mut self, found: &Found, anomaly: &AnomalyRecord) {
        self.first = format_time(anomaly.timestamp);
        let incident = anomaly.incident.as_ref();
        self.has_first |= incident.is_some_and(|incident| incident.state == "opened");
        self.severity = self.severity.max(anomaly.severity);
        self.anomaly_score = self.anomaly_score.max(anomaly.anomaly_score);
        // Of equals the earlier.
        if anomaly.risk >= self.risk {
            let view = found.block.view(&found.block.events[0]);
            self.risk = anomaly.risk;
            self.event_id.clone_from(&anomaly.event_id);
            self.user.clone_from(&anomaly.user);
            self.source_ip = view.source_ip.map(str::to_owned);
            self.archetype.clone_from(&anomaly.archetype);
            self.reasons.clone_from(&anomaly.reasons);
        }
    }
}
