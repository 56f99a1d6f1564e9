//! Folds anomalies into incidents, so that one thing that goes on is one thing to look at: anomalies of
//! one user or from one address within a time, and those of one campaign of guessing. It knows
//! nothing of detectors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::detect::{Raised, RecordError, read_whole};
use crate::record::anomaly::Severity;
use crate::record::text::{push_integer, push_json_string};
use crate::record::{EventView, TIMESTAMP_MS_MAX};

/// Users whose accounts somebody guesses at within the time, each an incident of its own, from which
/// on it is one campaign.
const CAMPAIGN_USERS_MIN: usize = 4;
/// Users and addresses that are remembered, and half of the incidents. Beyond it the ones quiet for
/// longest go: what comes of them later is a new incident.
const ENTRIES_MAX: usize = 1 << 16;

/// Users of an incident whose first success is news, so that an address that many share is not news
/// all day.
const SUCCESSES_MAX: u8 = 64;

/// Long before any anomaly.
const NEVER_MS: i64 = i64::MIN / 2;
/// More incidents than there will ever be.
const N_OPENED_MAX: u64 = 1 << 53;

/// Version of the record, and what tells it from a detector's. Of the version before only the length
/// is read: what went on then begins anew.
const RECORD_VERSION: u8 = 0x6a;
const RECORD_VERSION_BEFORE: u8 = 0x69;

/// The incidents that go on. Anomalies come in input order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Incidents {
    /// An anomaly this long after the last one belongs to another incident. Every run says its own.
    #[serde(skip)]
    window_ms: i64,
    with_campaigns: bool,
    /// Which incident anomalies of a user, and from an address, were part of last.
    by_user: BTreeMap<u64, Link>,
    by_address: BTreeMap<u64, Link>,
    going_on: BTreeMap<u64, Incident>,
    /// Users who were guessed at, in the order of their incidents.
    guessed: Vec<(u64, i64)>,
    campaign: Option<Link>,
    n_opened: u64,
    purged_ms: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Link {
    incident: u64,
    last_ms: i64,
    /// Of a user: something has succeeded within the incident.
    has_success: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Incident {
    /// The event that it began with.
    id: Box<str>,
    n_alerts: u32,
    n_users: u32,
    is_campaign: bool,
    severity: u8,
    /// Kinds of attack seen so far, a bit each.
    archetypes: u8,
    /// Users of whom something has succeeded, up to [`SUCCESSES_MAX`].
    n_successes: u8,
}

/// An anomaly that is to be folded.
#[derive(Clone, Copy, Debug)]
pub struct Alert<'a> {
    pub event_id: &'a str,
    pub timestamp_ms: i64,
    pub user: u64,
    pub address: Option<u64>,
    pub is_failure: bool,
    /// Somebody tries passwords: so the detector says, or a sign-in failed.
    pub is_guessing: bool,
    pub raised: Raised,
}

/// What an anomaly is to its incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is the first.
    Opened,
    /// It is more severe than those before, another kind of attack, or the first of its user that
    /// succeeded.
    Worse,
    /// It is one more of the same.
    More,
}

impl News {
    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Worse => "worse",
            Self::More => "more",
        }
    }
}

impl Incidents {
    /// No incidents yet; `window_ms` is the time without anomalies that ends one.
    #[must_use]
    pub fn new(window_ms: i64) -> Self {
        Self {
            window_ms,
            with_campaigns: true,
            by_user: BTreeMap::new(),
            by_address: BTreeMap::new(),
            going_on: BTreeMap::new(),
            guessed: Vec::new(),
            campaign: None,
            n_opened: 0,
            purged_ms: NEVER_MS,
        }
    }

    /// By user and address only.
    #[must_use]
    pub fn without_campaigns(self) -> Self {
        Self {
            with_campaigns: false,
            ..self
        }
    }

    /// Goes on with another time that ends an incident.
    #[must_use]
    pub fn with_window(self, window_ms: i64) -> Self {
        Self { window_ms, ..self }
    }

    /// Incidents that were opened so far.
    #[must_use]
    pub fn n_opened(&self) -> u64 {
        self.n_opened
    }

    /// Adds an anomaly to its incident.
    pub fn fold(&mut self, alert: &Alert<'_>) -> News {
        self.purge(alert.timestamp_ms);
        let is_open = |link: Option<&Link>| {
            let link = link.copied();
            link.filter(|link| self.is_within(link.last_ms, alert.timestamp_ms))
        };
        let of_user = is_open(self.by_user.get(&alert.user));
        let of_address = is_open(alert.address.and_then(|key| self.by_address.get(&key)));
        let is_guessing = self.with_campaigns && alert.is_guessing;
        let of_campaign = is_open(self.campaign.as_ref()).filter(|_| is_guessing);
        let known = of_user.or(of_address).or(of_campaign);
        let incident = match known {
            Some(link) => link.incident,
            None => self.open(alert, is_guessing),
        };
        let before = of_user.filter(|link| link.incident == incident);
        let had_success = before.is_some_and(|link| link.has_success);
        let link = Link {
            incident,
            last_ms: alert.timestamp_ms,
            has_success: had_success || !alert.is_failure,
        };
        self.by_user.insert(alert.user, link);
        let is_success = link.has_success && !had_success;
        if let Some(address) = alert.address {
            self.by_address.insert(address, link);
        }
        if self
            .campaign
            .is_some_and(|campaign| campaign.incident == incident)
            && is_guessing
        {
            self.campaign = Some(link);
        }
        let incident = self.going_on.get_mut(&incident);
        incident
            .expect("links lead to incidents")
            .add(alert, before.is_none(), is_success)
    }

    /// The record of what goes on, which another begins after; empty if that is nothing.
    pub(super) fn record(&self) -> Vec<u8> {
        if self.n_opened == 0 {
            return Vec::new();
        }
        let incidents = postcard::to_stdvec(self).expect("memory takes every write");
        let mut record = vec![RECORD_VERSION];
        record.extend_from_slice(&(incidents.len() as u32).to_le_bytes());
        record.extend_from_slice(&incidents);
        record
    }

    fn is_within(&self, last_ms: i64, now_ms: i64) -> bool {
        // A clock that is far ahead must not keep an incident open until then.
        (now_ms - last_ms).abs() < self.window_ms
    }

    fn open(&mut self, alert: &Alert<'_>, is_guessing: bool) -> u64 {
        let number = self.n_opened;
        self.n_opened += 1;
        let mut is_campaign = false;
        if is_guessing {
            let (window_ms, now_ms) = (self.window_ms, alert.timestamp_ms);
            self.guessed.retain(|(user, last_ms)| {
                *user != alert.user && (now_ms - last_ms).abs() < window_ms
            });
            self.guessed.push((alert.user, now_ms));
            is_campaign = self.guessed.len() >= CAMPAIGN_USERS_MIN;
        }
        if is_campaign {
            self.campaign = Some(Link {
                incident: number,
                last_ms: alert.timestamp_ms,
                has_success: false,
            });
        }
        self.going_on.insert(
            number,
            Incident {
                id: alert.event_id.into(),
                n_alerts: 0,
                n_users: 0,
                is_campaign,
                severity: 0,
                archetypes: 0,
                n_successes: 0,
            },
        );
        number
    }

    /// Forgets what is over, each time as much time has passed, and when there is too much.
    fn purge(&mut self, now_ms: i64) {
        let n_entries = |incidents: &Self| incidents.by_user.len().max(incidents.by_address.len());
        // Users whose clocks go back and forth open one incident after the other within the time.
        let is_full = n_entries(self) > ENTRIES_MAX || self.going_on.len() > 2 * ENTRIES_MAX;
        if self.is_within(self.purged_ms, now_ms) && !is_full {
            return;
        }
        self.purged_ms = now_ms;
        let mut window_ms = self.window_ms;
        loop {
            let is_open = |last_ms: i64| (now_ms - last_ms).abs() < window_ms;
            self.by_user.retain(|_, link| is_open(link.last_ms));
            self.by_address.retain(|_, link| is_open(link.last_ms));
            self.guessed.retain(|(_, last_ms)| is_open(*last_ms));
            self.campaign = self.campaign.filter(|link| is_open(link.last_ms));
            if n_entries(self) <= ENTRIES_MAX / 2 {
                break;
            }
            window_ms /= 2;
        }
        let links = self.by_user.values().chain(self.by_address.values());
        let live: BTreeSet<u64> = links
            .chain(&self.campaign)
            .map(|link| link.incident)
            .collect();
        self.going_on.retain(|number, _| live.contains(number));
    }

    /// Whether anomalies can have led to them.
    fn are_whole(&self) -> bool {
        let is_time = |at_ms: &i64| (0..=TIMESTAMP_MS_MAX).contains(at_ms);
        let links = self.by_user.values().chain(self.by_address.values());
        let mut links = links.chain(&self.campaign);
        let mut guessed = self.guessed.iter();
        // They are numbered one by one.
        let last = self.going_on.keys().next_back();
        self.n_opened <= N_OPENED_MAX
            && last.is_none_or(|last| *last < self.n_opened)
            && links
                .all(|link| is_time(&link.last_ms) && self.going_on.contains_key(&link.incident))
            && guessed.all(|(_, last_ms)| is_time(last_ms))
            && (is_time(&self.purged_ms) || self.purged_ms == NEVER_MS)
            && self.going_on.values().all(Incident::is_whole)
    }

    /// Appends what an anomaly that was just folded is to its incident, as one JSON object.
    pub(super) fn write(&self, alert: &Alert<'_>, news: News, output: &mut Vec<u8>) {
        let link = self.by_user.get(&alert.user);
        let incident = link.and_then(|link| self.going_on.get(&link.incident));
        let incident = incident.expect("it was folded");
        output.extend_from_slice(b"{\"id\":");
        push_json_string(output, &incident.id);
        output.extend_from_slice(b",\"state\":");
        push_json_string(output, news.name());
        output.extend_from_slice(b",\"kind\":");
        push_json_string(output, incident.kind());
        output.extend_from_slice(b",\"alerts\":");
        push_integer(output, incident.n_alerts);
        output.extend_from_slice(b",\"users\":");
        push_integer(output, incident.n_users);
        output.push(b'}');
    }
}

/// The incidents that a record begins with, if it begins with any, and what follows.
///
/// # Errors
/// If it is damaged.
pub(super) fn read(record: &[u8]) -> Result<(Option<Incidents>, &[u8]), RecordError> {
    let (is_known, rest) = match record.split_first() {
        Some((&RECORD_VERSION, rest)) => (true, rest),
        Some((&RECORD_VERSION_BEFORE, rest)) => (false, rest),
        _ => return Ok((None, record)),
    };
    let damaged = || RecordError::Damaged("incidents are cut short or impossible".to_owned());
    let (n_bytes, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let n_bytes = u32::from_le_bytes(*n_bytes) as usize;
    let (of_incidents, rest) = rest.split_at_checked(n_bytes).ok_or_else(damaged)?;
    if !is_known {
        return Ok((None, rest));
    }
    let incidents: Incidents = read_whole(of_incidents).map_err(|_| damaged())?;
    if !incidents.are_whole() {
        return Err(damaged());
    }
    Ok((Some(incidents), rest))
}

/// The detector's part of the record of what users share.
///
/// # Errors
/// If it is damaged.
pub fn of_detector(record: &[u8]) -> Result<&[u8], RecordError> {
    read(record).map(|(_, of_detector)| of_detector)
}

impl Incident {
    /// `is_success` if it is the first of its user that succeeded.
    fn add(&mut self, alert: &Alert<'_>, is_other_user: bool, is_success: bool) -> News {
        let Raised {
            severity,
            archetype,
        } = alert.raised;
        let archetype = archetype.map_or(0, |archetype| 1 << archetype);
        let is_worse = severity as u8 > self.severity
            || archetype & !self.archetypes != 0
            || is_success && self.n_successes < SUCCESSES_MAX;
        let news = match self.n_alerts {
            0 => News::Opened,
            _ if is_worse => News::Worse,
            _ => News::More,
        };
        self.n_alerts = self.n_alerts.saturating_add(1);
        self.n_users = self.n_users.saturating_add(u32::from(is_other_user));
        self.severity = self.severity.max(severity as u8);
        self.archetypes |= archetype;
        self.n_successes = self
            .n_successes
            .saturating_add(u8::from(is_success))
            .min(SUCCESSES_MAX);
        news
    }

    fn is_whole(&self) -> bool {
        self.severity <= Severity::Critical as u8
            && self.n_successes <= SUCCESSES_MAX
            && (1..=self.n_alerts).contains(&self.n_users)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self {
                is_campaign: true, ..
            } => "campaign",
            Self { n_users: 2.., .. } => "address",
            _ => "user",
        }
    }
}

impl<'a> Alert<'a> {
    /// The anomaly of an event of that user.
    #[must_use]
    pub fn new(event: &EventView<'a>, user: u64, raised: Raised) -> Self {
        Self {
            event_id: event.event_id,
            timestamp_ms: event.timestamp_ms,
            user,
            address: event.source_ip.and_then(address_key),
            is_failure: event.is_failure,
            is_guessing: raised.is_guessing() || event.is_failure && event.is_sign_in(),
            raised,
        }
    }
}

/// A number for an address; IPv6 hosts change the lower half of theirs at will.
fn address_key(text: &str) -> Option<u64> {
    match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => Some(u64::from(address.to_bits())),
        IpAddr::V6(address) => Some((address.to_bits() >> 64) as u64 | 1 << 63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    fn alert(minute: i64, user: u64, address: u64) -> Alert<'static> {
        Alert {
            event_id: "e",
            timestamp_ms: minute * MINUTE_MS,
            user,
            address: Some(address),
            is_failure: false,
            is_guessing: false,
            raised: Raised {
                severity: Severity::Low,
                archetype: Some(0),
            },
        }
    }

    fn guess(minute: i64, user: u64, address: u64) -> Alert<'static> {
        let mut alert = alert(minute, user, address);
        alert.is_failure = true;
        alert.is_guessing = true;
        alert.raised.archetype = Some(Raised::GUESSING);
        alert
    }

    fn news(alerts: &[Alert<'_>]) -> Vec<News> {
        let mut incidents = Incidents::new(60 * MINUTE_MS);
        alerts.iter().map(|alert| incidents.fold(alert)).collect()
    }

    #[test]
    fn alerts_of_a_user_or_an_address_within_an_hour_are_one() {
        use News::{More, Opened, Worse};
        assert_eq!(
            news(&[alert(0, 1, 1), alert(59, 1, 2), alert(119, 1, 2)]),
            [Opened, More, Opened]
        );
        // By the address, then by a user that it led to.
        assert_eq!(
            news(&[alert(0, 1, 1), alert(1, 2, 1), alert(2, 2, 3)]),
            [Opened, Worse, More]
        );
        assert_eq!(news(&[alert(0, 1, 1), alert(1, 2, 2)]), [Opened, Opened]);
        // Late by less than the time; and after one whose clock was years ahead.
        assert_eq!(news(&[alert(50, 1, 1), alert(0, 1, 2)]), [Opened, More]);
        assert_eq!(
            news(&[alert(9_000_000, 1, 1), alert(0, 1, 2)]),
            [Opened, Opened]
        );
    }

    #[test]
    fn what_gets_worse_is_news() {
        use News::{More, Opened, Worse};
        let mut severe = alert(1, 1, 1);
        severe.raised.severity = Severity::Critical;
        assert_eq!(
            news(&[alert(0, 1, 1), severe, severe, alert(2, 1, 1)]),
            [Opened, Worse, More, More]
        );
        // Guessing, and then somebody is in.
        let mut success = guess(3, 1, 1);
        success.is_failure = false;
        assert_eq!(
            news(&[guess(0, 1, 1), guess(1, 1, 1), success]),
            [Opened, More, Worse]
        );
        assert_eq!(news(&[guess(0, 1, 1), alert(1, 1, 1)]), [Opened, Worse]);
    }

    /// Of a spray that got into several accounts only the first was news.
    #[test]
    fn each_account_that_somebody_gets_into_is_news() {
        use News::{More, Opened, Worse};
        let success = |minute: i64, user: u64| {
            let mut success = guess(minute, user, 1);
            success.is_failure = false;
            success
        };
        let alerts = [guess(0, 1, 1), guess(1, 2, 1), guess(2, 3, 1)];
        let successes = [success(3, 2), success(4, 1), success(5, 2), success(6, 1)];
        assert_eq!(
            news(&[&alerts[..], &successes].concat()),
            [Opened, More, More, Worse, Worse, More, More]
        );
        // An address that many share is no news all day.
        let shared: Vec<_> = (0..200).map(|user| success(1, user)).collect();
        let n_news = |alerts: &[Alert<'_>]| {
            let news = news(alerts);
            news.into_iter().filter(|news| *news != More).count()
        };
        assert_eq!(n_news(&shared), usize::from(SUCCESSES_MAX));
    }

    #[test]
    fn a_record_of_the_version_before_begins_anew() {
        let mut incidents = Incidents::new(60 * MINUTE_MS);
        incidents.fold(&alert(0, 1, 1));
        let mut record = incidents.record();
        record.extend_from_slice(b"detector");
        assert!(read(&record).expect("it is ours").0.is_some());
        record[0] = RECORD_VERSION_BEFORE;
        let (incidents, rest) = read(&record).expect("it was ours");
        assert!(incidents.is_none());
        assert_eq!(rest, b"detector");
    }

    #[test]
    fn a_record_that_no_anomalies_lead_to_is_refused() {
        let mut whole = Incidents::new(60 * MINUTE_MS);
        for i in 0..9 {
            whole.fold(&guess(i, i as u64, 1_000 + i as u64));
        }
        let is_read = |incidents: &Incidents| read(&incidents.record()).is_ok();
        assert!(is_read(&whole) && is_read(&Incidents::new(1)));
        let spoilt: [fn(&mut Incidents); 10] = [
            |it| it.n_opened = u64::MAX,
            |it| it.n_opened -= 1,
            |it| it.purged_ms = i64::MIN,
            |it| it.guessed[0].1 = i64::MIN,
            |it| it.campaign.as_mut().expect("it is there").last_ms = i64::MAX,
            |it| it.by_user.get_mut(&1).expect("it is there").last_ms = i64::MIN,
            |it| it.by_address.get_mut(&1_001).expect("it is there").last_ms = -1,
            |it| it.by_user.get_mut(&1).expect("it is there").incident = 99,
            |it| it.going_on.get_mut(&1).expect("it is there").severity = 9,
            |it| it.going_on.get_mut(&1).expect("it is there").n_users = 9,
        ];
        for (i, spoil) in spoilt.into_iter().enumerate() {
            let mut incidents = whole.clone();
            spoil(&mut incidents);
            assert!(!is_read(&incidents), "number {i}");
        }
        let mut record = whole.record();
        record.push(0);
        let n_bytes = record.len() as u32 - 5;
        record[1..5].copy_from_slice(&n_bytes.to_le_bytes());
        assert!(read(&record).is_err(), "there is more");
    }

    #[test]
    fn guessing_at_many_users_from_many_addresses_is_one_campaign() {
        let alerts: Vec<_> = (0..100).map(|i| guess(i as i64, i, 1_000 + i)).collect();
        let mut incidents = Incidents::new(60 * MINUTE_MS);
        for alert in &alerts {
            incidents.fold(alert);
        }
        assert_eq!(incidents.n_opened(), CAMPAIGN_USERS_MIN as u64);
        let mut text = Vec::new();
        incidents.write(&alerts[99], News::More, &mut text);
        let text = String::from_utf8(text).expect("it is JSON");
        assert!(
            text.contains(r#""kind":"campaign","alerts":97,"users":97"#),
            "{text}"
        );
        // Another kind of attack on somebody else is no part of it.
        assert_eq!(incidents.fold(&alert(100, 5_000, 5_000)), News::Opened);
        let mut plain = Incidents::new(60 * MINUTE_MS).without_campaigns();
        for alert in &alerts {
            plain.fold(alert);
        }
        assert_eq!(plain.n_opened(), 100);
    }

    #[test]
    fn a_flood_of_alerts_is_bounded() {
        let mut incidents = Incidents::new(60 * MINUTE_MS);
        for i in 0..300_000_u32 {
            incidents.fold(&alert(i64::from(i) / 100_000, u64::from(i), u64::from(i)));
            assert!(incidents.by_user.len() <= ENTRIES_MAX + 1);
        }
        assert!(incidents.going_on.len() <= 2 * ENTRIES_MAX + 1);
        // One with a clock far ahead leads nobody to an incident that is gone.
        incidents.fold(&alert(10, 1, 7));
        incidents.fold(&alert(90_000_000, 2, 7));
        incidents.fold(&alert(11, 1, 8));
        assert!(incidents.going_on.len() <= 2 * ENTRIES_MAX + 1);
    }

    /// Each opened an incident, none was thrown away: the record of them could not be read again.
    #[test]
    fn a_clock_that_goes_back_and_forth_is_bounded() {
        let mut incidents = Incidents::new(60 * MINUTE_MS);
        for i in 0..300_000_i64 {
            let minute = 1_000 + if i % 2 == 0 { 54 } else { -54 };
            incidents.fold(&alert(if i == 0 { 1_000 } else { minute }, 1, 1));
            assert!(incidents.going_on.len() <= 2 * ENTRIES_MAX + 1);
        }
        assert!(incidents.n_opened() > 250_000);
        let record = incidents.record();
        assert!(read(&record).expect("it is ours").0.is_some());
    }
}
