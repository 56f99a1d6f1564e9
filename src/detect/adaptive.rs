//! The adaptive detector: how much likelier than the user is an attacker to be where this event is,
//! on ladders of novelty that are the user's own (detector specification, section B: NLLR).
//!
//! Each event is placed on a few ladders (known address, known network, ... provider new to all).
//! How often this user stands on a step is learned; how often attackers do is given. The logarithms
//! of the ratios are summed by kind of attack to a risk, and the risk becomes a score by its rank
//! among usual events.

mod archetype;
mod assess;
mod calibration;
mod cells;
mod clock;
mod correct;
mod features;
mod learn;
mod math;
mod population;
mod priors;
mod reasons;
mod seen;
mod user;
mod view;

use serde::{Deserialize, Serialize};

pub use features::Features;
pub use population::{Deltas, Population};
pub use user::{RECORD_BYTES_MAX, RECORD_VERSION, User};

use super::{
    Detector, DetectorConfig, Explanation, Observed, Raised, RecordError, UserKey, Verdict,
    read_whole,
};
use crate::record::anomaly::{Anomaly, BaselineState, KNOWN_IPS_MAX, write_context};
use crate::record::{EventView, THREAT_SCORE_HIGH};
use archetype::Component;
pub use archetype::{Evidence, number as archetype_number};
use assess::{Assessment, Case};
use cells::Age;
use clock::Clock;
use features::Dimension;
use learn::Lesson;
use priors::Attacker;

/// The detector's name in records and options.
pub const NAME: &str = "adaptive";

const HALF_LIFE_H: f64 = 30.0 * 24.0;
const LAMBDA: f64 = std::f64::consts::LN_2 / HALF_LIFE_H;
/// The length of an epoch, and the most events in one.
const EPOCH_MS: i64 = 60_000;
const EPOCH_EVENTS_MAX: u64 = 1 << 18;
/// A user's last event this far ahead of the clock of all users was none: it had a wrong time.
const AHEAD_H: f64 = 12.0;
/// First contacts have no history: their risk is capped.
const FIRST_EVENTS: u32 = 5;
const FIRST_RISK_MAX: f64 = 4.0;

/// What an old weight still counts after that time.
fn decay(hours: f64) -> f64 {
    if hours > 0.0 {
        math::exp(-LAMBDA * hours)
    } else {
        1.0
    }
}

/// The inverse of [`decay`].
fn growth(hours: f64) -> f64 {
    math::exp(LAMBDA * hours)
}

/// The detector: settings, and what all users share.
pub struct Adaptive {
    config: DetectorConfig,
    attacker: Attacker,
    n_archetypes: usize,
    population: Population,
    clock: Clock,
    /// Events in the current epoch so far.
    n_epoch_events: u64,
}

/// The risk of an event, and what it is made of.
#[derive(Clone, Copy, Debug)]
pub struct Risk {
    /// Logarithms of how much likelier an attacker is than the user, by what was looked at.
    pub evidence: Evidence,
    pub risk: f64,
    /// The share of usual events that are less risky.
    pub score: f64,
    /// Index of the likeliest kind of attack.
    pub archetype: usize,
    age: Age,
}

/// What users share, as it is stored.
#[derive(Deserialize)]
struct Shared {
    clock: Clock,
    n_epoch_events: u64,
    population: Population,
    deltas: Deltas,
}

/// The same, borrowed.
#[derive(Serialize)]
struct SharedRef<'a> {
    clock: &'a Clock,
    n_epoch_events: u64,
    population: &'a Population,
    deltas: &'a Deltas,
}

/// The same, as it was stored by a version that believed any three events of what time it is.
#[derive(Deserialize)]
struct SharedBefore {
    epoch: i64,
    n_epoch_events: u64,
    _jump: (i64, u32),
    population: Population,
    deltas: Deltas,
}

impl From<SharedBefore> for Shared {
    fn from(before: SharedBefore) -> Self {
        Self {
            clock: Clock::at(before.epoch),
            n_epoch_events: before.n_epoch_events,
            population: before.population,
            deltas: before.deltas,
        }
    }
}

/// Version of the record of what users share, and the one before.
const SHARED_VERSION: u8 = 0x42;
const SHARED_VERSION_BEFORE: u8 = 0x41;

impl Adaptive {
    #[must_use]
    pub fn new(config: DetectorConfig) -> Self {
        Self {
            config,
            attacker: Attacker::new(),
            n_archetypes: 4,
            population: Population::new(),
            clock: Clock::new(),
            n_epoch_events: 0,
        }
    }

    /// Without the fourth kind of attack, floods, as the reference's vectors were made.
    #[must_use]
    pub fn without_floods(self) -> Self {
        Self {
            n_archetypes: 3,
            ..self
        }
    }

    /// The risk of an event, which is learned then.
    pub fn risk(
        &self,
        key: UserKey,
        user: &mut User,
        deltas: &mut Deltas,
        features: &Features,
    ) -> Risk {
        self.assess(key, user, deltas, features).0
    }

    /// Assesses an event, then learns it.
    fn assess(
        &self,
        key: UserKey,
        user: &mut User,
        deltas: &mut Deltas,
        features: &Features,
    ) -> (Risk, Assessment) {
        if user.last_h > hours(self.clock.now_ms()) + AHEAD_H {
            user.set_back(self.time_h(features));
        }
        let now_h = self.time_h(features).max(user.last_h);
        let case = self.case(key.stable.max(1), user, features, now_h);
        let found = case.assess();
        let (mut risk, archetype) = archetype::combine(&found.evidence, self.n_archetypes);
        if case.user.n_events < FIRST_EVENTS {
            risk = risk.min(FIRST_RISK_MAX);
        }
        let lesson = Lesson {
            user_key: case.user_key,
            seen: case.found,
            now_h,
            now_s: case.now_s,
            growth: case.growth,
            age: case.age,
            evidence_before: case.evidence_before(),
            risk,
        };
        let risk = Risk {
            evidence: found.evidence,
            risk,
            score: self.population.score(risk),
            archetype,
            age: case.age,
        };
        self.learn(user, deltas, features, &found, &lesson);
        (risk, found)
    }

    /// An event as it stands before the user's state at that time.
    fn case<'a>(
        &'a self,
        user_key: u64,
        user: &'a mut User,
        features: &'a Features,
        now_h: f64,
    ) -> Case<'a> {
        let growth = user.growth(now_h);
        let now_s = user.seconds(now_h);
        Case {
            features,
            user_key,
            population: &self.population,
            attacker: &self.attacker,
            found: user.seen.find(features, now_s),
            now_h,
            now_s,
            growth,
            hour_decay: assess::hour_decay(now_h - user.last_h),
            age: Age::of(now_h - user.first_h, user.n_events),
            user,
        }
    }

    fn write_anomaly(
        &self,
        event: &EventView<'_>,
        risk: &Risk,
        found: &Assessment,
        n_events: u32,
        output: &mut Vec<u8>,
    ) {
        let part = |evidence: f64| 1.0 - math::exp(-evidence.max(0.0));
        let of = |component: Component| found.evidence[component as usize];
        let net = math::ln(self.attacker.net[found.net] / found.net_share);
        let reasons = reasons::reasons(event, found, risk.archetype);
        let anomaly = Anomaly {
            event,
            score: risk.score,
            risk: risk.risk,
            time: part(of(Component::Time)),
            ip: part(net),
            location: part(of(Component::NetGeo) - net),
            kind: part(of(Component::Kind)),
            failure: part(of(Component::Failures)),
            reasons: &reasons,
            detector: NAME,
            archetype: Some(archetype::name(risk.archetype)),
            severity: self.config.severities.of(risk.score),
            baseline: if risk.age == Age::Old {
                BaselineState::Active
            } else {
                BaselineState::Learning
            },
            n_baseline_events: n_events.into(),
        };
        anomaly.write(output);
    }

    fn explain(
        &self,
        event: &EventView<'_>,
        risk: &Risk,
        found: &Assessment,
        n_events: u32,
    ) -> Explanation {
        let of_archetypes = archetype::risks(&found.evidence, self.n_archetypes);
        let named = of_archetypes.into_iter().enumerate();
        Explanation {
            event_id: event.event_id.to_owned(),
            user: event.user.to_owned(),
            timestamp: event.timestamp_ms,
            detector: NAME.to_owned(),
            anomaly_score: risk.score,
            risk: risk.risk,
            baseline_events: n_events.into(),
            archetypes: named
                .map(|(i, risk)| (archetype::name(i).to_owned(), risk))
                .collect(),
            components: reasons::pieces(event, found, risk.archetype),
        }
    }

    fn write_context(user: &User, now_s: u32, output: &mut Vec<u8>) {
        let addresses = user.seen.ranked(Dimension::Address, now_s, KNOWN_IPS_MAX);
        let known_ips = addresses.into_iter().map(features::show_address);
        let average = user.threat_score_sum / f64::from(user.n_threat_scores.max(1));
        write_context(user.n_failed.into(), known_ips, average, output);
    }
}

impl Detector for Adaptive {
    type Features = Features;
    /// Boxed, since tables of users grow.
    type User = Box<User>;
    type Deltas = Deltas;

    const USER_BYTES_MAX: usize = User::BYTES_MAX;
    const READS_VALUES: bool = false;

    fn features(event: &EventView<'_>) -> Features {
        Features::of(event)
    }

    fn new_user(&self, features: &Features) -> Box<User> {
        Box::new(User::new(self.time_h(features)))
    }

    fn user_bytes(user: &Box<User>) -> usize {
        size_of::<User>() + user.seen.heap_bytes()
    }

    fn observe<'a>(
        &self,
        key: UserKey,
        user: &mut Box<User>,
        deltas: &mut Deltas,
        features: &Features,
        event: &impl Observed<'a>,
        verdict: &mut Verdict,
    ) {
        let n_events = user.n_events;
        let (risk, found) = self.assess(key, user, deltas, features);
        verdict.score = Some(risk.score);
        if let Some(event_id) = &self.config.explain {
            let event = event.view();
            if event.event_id == event_id {
                self.explain(&event, &risk, &found, n_events)
                    .write(&mut verdict.anomaly);
            }
            return;
        }
        let is_raised = risk.score >= self.config.threshold;
        let is_anomaly = (is_raised || self.config.with_all_scores)
            && u64::from(n_events) >= self.config.n_events_min;
        if is_anomaly {
            self.write_anomaly(&event.view(), &risk, &found, n_events, &mut verdict.anomaly);
            verdict.raised = is_raised.then_some(Raised {
                severity: self.config.severities.of(risk.score),
                archetype: Some(risk.archetype as u8),
            });
        }
        let threat_score = features.threat_score;
        if is_anomaly || threat_score.is_some_and(|score| score >= THREAT_SCORE_HIGH) {
            let now_s = user.seconds(user.last_h);
            Self::write_context(user, now_s, &mut verdict.context);
        }
    }

    fn begins_epoch(&mut self, key: UserKey, features: &Features, n_events: u64) -> bool {
        self.n_epoch_events + n_events >= EPOCH_EVENTS_MAX
            || self.clock.hear(key.stable, epoch_of(features))
    }

    fn turn_epoch(&mut self, deltas: &mut Deltas, n_events: u64, is_over: bool) {
        self.n_epoch_events += n_events;
        if is_over {
            let before_ms = self.clock.now_ms();
            self.clock.turn();
            // If the clock was set back, what has happened since has happened now.
            let epoch_ms = before_ms.min(self.clock.now_ms());
            let sure_ms = self.clock.sure_ms().min(epoch_ms);
            self.population
                .close_epoch(deltas, hours(epoch_ms), hours(sure_ms));
            self.n_epoch_events = 0;
        }
    }

    fn n_late(&self) -> u64 {
        self.clock.n_late()
    }

    fn merge(into: &mut Deltas, from: &mut Deltas) {
        into.absorb(from);
    }

    fn prefetch(&self, user: &Box<User>, features: &Features, step: usize) {
        match step {
            0 => user.prefetch(),
            1 => user.seen.prefetch(),
            _ => user.seen.prefetch_values(features),
        }
    }

    fn write_user(&self, user: &Box<User>, record: &mut Vec<u8>) {
        user.write_record(record);
    }

    fn read_user(&self, record: &[u8]) -> Result<Box<User>, RecordError> {
        User::from_record(record).map(Box::new)
    }

    fn write_shared(&self, deltas: &Deltas) -> Vec<u8> {
        let mut record = vec![SHARED_VERSION];
        let shared = SharedRef {
            clock: &self.clock,
            n_epoch_events: self.n_epoch_events,
            population: &self.population,
            deltas,
        };
        postcard::to_io(&shared, &mut record).expect("memory takes every write");
        record
    }

    fn read_shared(&mut self, record: &[u8]) -> Result<Deltas, RecordError> {
        let damaged = |why: &str| RecordError::Damaged(why.to_owned());
        let (&version, rest) = record
            .split_first()
            .ok_or_else(|| damaged("record is empty"))?;
        let shared: Shared = match version {
            SHARED_VERSION => read_whole(rest)?,
            SHARED_VERSION_BEFORE => Shared::from(read_whole::<SharedBefore>(rest)?),
            _ => {
                return Err(RecordError::Version {
                    found: version,
                    known: SHARED_VERSION,
                });
            }
        };
        if !shared.clock.is_whole() {
            return Err(damaged("impossible times"));
        }
        if shared.n_epoch_events > EPOCH_EVENTS_MAX {
            return Err(damaged("an epoch with too many events"));
        }
        self.population = shared
            .population
            .restored(&shared.deltas)
            .ok_or_else(|| damaged("impossible counts"))?;
        self.clock = shared.clock;
        self.n_epoch_events = shared.n_epoch_events;
        Ok(shared.deltas)
    }
}

impl Adaptive {
    /// When an event took place: now, if its clock is far ahead of all others.
    fn time_h(&self, features: &Features) -> f64 {
        if self
            .clock
            .epoch()
            .is_some_and(|now| epoch_of(features) > now)
        {
            hours(self.clock.now_ms())
        } else {
            hours(features.timestamp_ms)
        }
    }
}

fn epoch_of(features: &Features) -> i64 {
    features.timestamp_ms.div_euclid(EPOCH_MS)
}

/// Hours since 1970.
fn hours(timestamp_ms: i64) -> f64 {
    timestamp_ms as f64 / 3.6e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::DetectorKind;

    /// Before the clock asked several users it was a number.
    #[test]
    fn what_users_shared_before_is_read() {
        let config = DetectorConfig::standard(DetectorKind::Adaptive);
        let mut detector = Adaptive::new(config.clone());
        let deltas = Deltas::default();
        let before = (
            1_000_i64,
            7_u64,
            (0_i64, 0_u32),
            &detector.population,
            &deltas,
        );
        let mut record = vec![SHARED_VERSION_BEFORE];
        postcard::to_io(&before, &mut record).expect("memory takes every write");
        detector.read_shared(&record).expect("it was ours");
        assert_eq!(detector.clock.epoch(), Some(1_000));
        let record = detector.write_shared(&deltas);
        let mut other = Adaptive::new(config);
        other.read_shared(&record).expect("it is ours");
        assert_eq!(
            (other.clock.epoch(), other.n_epoch_events),
            (Some(1_000), 7)
        );
    }

    #[test]
    fn what_users_share_is_read_whole_or_not_at_all() {
        let config = DetectorConfig::standard(DetectorKind::Adaptive);
        let mut detector = Adaptive::new(config);
        let mut record = detector.write_shared(&Deltas::default());
        assert!(detector.read_shared(&record).is_ok());
        record.push(0);
        assert!(detector.read_shared(&record).is_err(), "there is more");
        detector.n_epoch_events = EPOCH_EVENTS_MAX;
        let record = detector.write_shared(&Deltas::default());
        assert!(detector.read_shared(&record).is_ok());
        detector.n_epoch_events = u64::MAX;
        let record = detector.write_shared(&Deltas::default());
        assert!(detector.read_shared(&record).is_err());
    }
}
