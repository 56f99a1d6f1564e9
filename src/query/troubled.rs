//! Whom the anomalies are about: users with the worst of them.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Filter, Parts, Wanted, search};
use crate::store::{BySeverity, Order};

/// Users whose anomalies are counted at the most; those beyond it, who have been quiet for longest, are not.
const USERS_MAX: usize = 1 << 16;

/// A user and their anomalies.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TroubledUser {
    pub user: String,
    pub anomalies: u64,
    #[serde(flatten)]
    pub by_severity: BySeverity,
    pub max_score: f64,
    /// When the last of them was, in ms.
    pub last_ms: i64,
}

/// The users with the most critical anomalies first, of equals those with the most high ones, and so on.
/// `limit` of the filter says how many users.
///
/// # Errors
/// If a database cannot be read.
pub fn troubled_users(parts: Parts<'_>, filter: &Filter) -> anyhow::Result<Vec<TroubledUser>> {
    let newest_first = Filter {
        order: Order::NewestFirst,
        limit: usize::MAX,
        ..filter.clone()
    };
    let mut users: HashMap<String, TroubledUser> = HashMap::new();
    search(parts, Wanted::Anomalies, &newest_first, |found| {
        let Some(anomaly) = &found.anomaly else {
            return Ok(true);
        };
        let is_known = users.contains_key(&anomaly.user);
        if !is_known && users.len() == USERS_MAX {
            return Ok(true);
        }
        let name = anomaly.user.clone();
        let user = (users.entry(name)).or_insert_with(|| TroubledUser {
            user: anomaly.user.clone(),
            anomalies: 0,
            by_severity: BySeverity::default(),
            max_score: 0.0,
            last_ms: anomaly.timestamp,
        });
        user.anomalies += 1;
        user.max_score = user.max_score.max(anomaly.anomaly_score);
        *user.by_severity.of_mut(anomaly.severity) += 1;
        Ok(true)
    })?;
    let mut users: Vec<_> = users.into_values().collect();
    users.sort_by(|one, other| {
        let by_severity = |user: &TroubledUser| {
            let BySeverity {
                low,
                medium,
                high,
                critical,
            } = user.by_severity;
            Reverse([critical, high, medium, low])
        };
        by_severity(one)
            .cmp(&by_severity(other))
            .then_with(|| one.user.cmp(&other.user))
    });
    users.truncate(filter.limit);
    Ok(users)
}
