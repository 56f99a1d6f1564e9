//! What all users have in common: how they spread over levels, bins, hours and types, which values
//! several of them know, who fails from where.
//!
//! Events of one epoch, a minute of event time, are scored against the population as it was when
//! the epoch began, and what they change is added when it ends. Changes are integers and sets, so
//! that the order in which threads made them shows nowhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calibration::{self, Calibration};
use super::cells::{Age, HOURS, Histogram, N_POPULATION_CELLS};
use super::math::{exp, ln};
use super::view::View;
use super::{EPOCH_MS, priors};

/// Counts are kept in millionths.
const MICRO: f64 = 1e6;
/// Millionths from which on all sums are halved, after 4.5 billion events: below it they are exact as `f64`, too.
const MICRO_MAX: i64 = 1 << 52;
/// Millionths up to which sums are read. Earlier versions counted on.
const READ_MAX: i64 = 1 << 61;
/// Event types that are told apart; more are counted, but not one by one.
const TYPES_MAX: usize = 1_024;
/// Users from whom on a value counts as used by peers.
const PEERS_MIN: usize = 3;
/// Values whose users are remembered.
const PEERS_VALUES_MAX: usize = 65_536;
/// Addresses and networks whose failing users are remembered, and users for each.
const FAILING_NETWORKS_MAX: usize = 16_384;
const FAILING_USERS_MAX: usize = 64;
/// How long a failure is held against its network.
const FAILING_H: f64 = 24.0;
/// Failures count no later than that after what several users agree the time is.
const SURE_H: f64 = 1.0;
/// Surge changes of one millisecond that are applied one by one; more of them change nothing.
const SURGE_STEPS_MAX: u32 = 1_000;
/// A level of failures that no number of them reaches.
const SURGE_MAX: f64 = 1e18;

/// In millionths, rounded.
pub(super) fn micro(weight: f64) -> i64 {
    (weight * MICRO).round() as i64
}

/// What the events of an epoch change, not yet part of the population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deltas {
    cells: Vec<i64>,
    types: BTreeMap<u64, i64>,
    peers: BTreeMap<u64, Peers>,
    /// By network and user: when it failed last.
    failing: BTreeMap<(u64, u64), f64>,
    /// By millisecond of the epoch: how many, and their weights in tenths.
    surge: BTreeMap<u32, (u32, u64)>,
    calibration: calibration::Counts,
    is_empty: bool,
}

/// The users of a value, the three with the smallest keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Peers {
    users: [u64; PEERS_MIN],
}

impl Peers {
    fn add(&mut self, user: u64) {
        if self.users.contains(&user) {
            return;
        }
        if let Some(free) = self.users.iter_mut().find(|user| **user == 0) {
            *free = user;
        } else {
            self.users[PEERS_MIN - 1] = self.users[PEERS_MIN - 1].min(user);
        }
        // Free places come last.
        self.users.sort_unstable_by_key(|user| user.wrapping_sub(1));
    }

    fn are_enough(&self) -> bool {
        self.users[PEERS_MIN - 1] != 0
    }

    /// Whether there is one, none stands twice, and all stand in order.
    fn are_whole(&self) -> bool {
        let is_before = |a: &u64, b: &u64| *b == 0 || a.wrapping_sub(1) < b.wrapping_sub(1);
        self.users[0] != 0 && self.users.is_sorted_by(is_before)
    }
}

impl Default for Deltas {
    fn default() -> Self {
        Self {
            cells: vec![0; N_POPULATION_CELLS],
            types: BTreeMap::new(),
            peers: BTreeMap::new(),
            failing: BTreeMap::new(),
            surge: BTreeMap::new(),
            calibration: calibration::Counts::default(),
            is_empty: true,
        }
    }
}

impl Deltas {
    pub(super) fn add_cell(&mut self, cell: usize, micro: i64) {
        self.is_empty = false;
        self.cells[cell] += micro;
    }

    pub(super) fn add_type(&mut self, kind: u64, micro: i64) {
        *self.types.entry(kind).or_default() += micro;
    }

    pub(super) fn add_peer(&mut self, value: u64, user: u64) {
        self.peers.entry(value).or_default().add(user);
    }

    pub(super) fn add_failing(&mut self, network: u64, user: u64, at_h: f64) {
        let last_h = self.failing.entry((network, user)).or_insert(at_h);
        *last_h = last_h.max(at_h);
    }

    /// A failure from a network that is new to its user and not used by peers; the first of the
    /// user within an hour weighs ten times the others.
    pub(super) fn add_surge(&mut self, since_ms: u32, is_first: bool) {
        let (n_failures, tenths) = self.surge.entry(since_ms).or_default();
        *n_failures = n_failures.saturating_add(1);
        *tenths += if is_first { 10 } else { 1 };
    }

    pub(super) fn add_risk(&mut self, bin: usize) {
        self.calibration.add(bin);
    }

    /// Takes over what `other` holds, and leaves it empty.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        if other.is_empty {
            return;
        }
        self.is_empty = false;
        for (cell, more) in self.cells.iter_mut().zip(&mut other.cells) {
            *cell += std::mem::take(more);
        }
        for (kind, more) in std::mem::take(&mut other.types) {
            *self.types.entry(kind).or_default() += more;
        }
        for (value, peers) in std::mem::take(&mut other.peers) {
            for user in peers.users.into_iter().filter(|user| *user != 0) {
                self.add_peer(value, user);
            }
        }
        for ((network, user), at_h) in std::mem::take(&mut other.failing) {
            self.add_failing(network, user, at_h);
        }
        for (since_ms, (n_failures, tenths)) in std::mem::take(&mut other.surge) {
            let sums = self.surge.entry(since_ms).or_default();
            sums.0 = sums.0.saturating_add(n_failures);
            sums.1 += tenths;
        }
        self.calibration.absorb(&mut other.calibration);
        other.is_empty = true;
    }

    fn is_whole(&self) -> bool {
        let mut sums = self.cells.iter().chain(self.types.values());
        let is_surge = |(&since_ms, &(n_failures, tenths)): (&u32, &(u32, u64))| {
            let n_failures = u64::from(n_failures);
            i64::from(since_ms) < EPOCH_MS
                && n_failures > 0
                && (n_failures..=10 * n_failures).contains(&tenths)
        };
        self.cells.len() == N_POPULATION_CELLS
            && self.calibration.is_whole()
            && sums.all(|sum| (0..MICRO_MAX).contains(sum))
            && self.peers.values().all(Peers::are_whole)
            && self.failing.values().all(|at_h| at_h.is_finite())
            && self.surge.iter().all(is_surge)
    }
}

/// Users who failed from a network that was new to them, and when last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Failing {
    users: Vec<(u64, f64)>,
    last_h: f64,
}

/// The shared state as of the end of the last epoch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Population {
    cells: Vec<i64>,
    types: BTreeMap<u64, i64>,
    types_total: i64,
    #[serde(with = "sorted")]
    peers: HashMap<u64, Peers>,
    failing: BTreeMap<u64, Failing>,
    /// Failures from networks new to everybody: decayed within an hour, and the usual level.
    surge: f64,
    surge_usual: f64,
    surge_at_h: f64,
    /// When failures were last looked through for those that are too old.
    purged_h: f64,
    calibration: Calibration,
    #[serde(skip)]
    view: View,
}

/// By key, which is a hash or as good as one; looked up several times an event.
type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// Writes a map in the order of its keys: equal maps have to be equal bytes.
mod sorted {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{HashMap, Peers};

    pub(super) fn serialize<S: Serializer>(
        map: &HashMap<u64, Peers>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut entries: Vec<(u64, Peers)> =
            map.iter().map(|(key, peers)| (*key, *peers)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<HashMap<u64, Peers>, D::Error> {
        let entries = Vec::<(u64, Peers)>::deserialize(deserializer)?;
        Ok(entries.into_iter().collect())
    }
}

impl Population {
    pub(super) fn new() -> Self {
        let mut population = Self {
            cells: priors::population().map(micro).to_vec(),
            types: BTreeMap::new(),
            types_total: 0,
            peers: HashMap::default(),
            failing: BTreeMap::new(),
            surge: 0.0,
            surge_usual: 0.5,
            surge_at_h: 0.0,
            purged_h: 0.0,
            calibration: Calibration::new(),
            view: View::default(),
        };
        population.refresh(calibration::N_BINS);
        population
    }

    /// The share of events that fall into a cell of a histogram.
    #[inline]
    pub(super) fn share(&self, histogram: Histogram, age: Age, cell: usize) -> f64 {
        (self.view).share(&self.cells, histogram.of_population(age), cell)
    }

    /// The share of events that fall into that cell or a later one.
    #[inline]
    pub(super) fn tail_share(&self, histogram: Histogram, cell: usize) -> f64 {
        (self.view).tail_share(&self.cells, histogram.of_population(Age::Old), cell)
    }

    /// The share of activity around an hour of working days or weekends.
    pub(super) fn hour_share(&self, is_weekend: bool, hour: usize) -> f64 {
        let day = HOURS + usize::from(is_weekend) * 24;
        self.view.hour_share(&self.cells, day..day + 24, hour)
    }

    pub(super) fn is_used_by_peers(&self, value: u64) -> bool {
        self.peers.get(&value).is_some_and(Peers::are_enough)
    }

    /// Whether it would change anything to know that the user knows the value.
    pub(super) fn lacks_peer(&self, value: u64, user: u64) -> bool {
        self.peers
            .get(&value)
            .is_none_or(|peers| !peers.are_enough() && !peers.users.contains(&user))
    }

    /// How many others have failed from a network that was new to them, within a day.
    pub(super) fn n_others_failing(&self, network: u64, user: u64, now_h: f64) -> usize {
        self.failing.get(&network).map_or(0, |failing| {
            let is_other =
                |&&(other, at_h): &&(u64, f64)| other != user && now_h - at_h <= FAILING_H;
            failing.users.iter().filter(is_other).count()
        })
    }

    /// The current level of failures from networks new to everybody, and the usual one.
    pub(super) fn surge(&self, now_h: f64) -> (f64, f64) {
        let elapsed_h = (now_h - self.surge_at_h).max(0.0);
        (self.surge * exp(-elapsed_h), self.surge_usual.max(0.3))
    }

    pub(super) fn score(&self, risk: f64) -> f64 {
        self.view.score(risk)
    }

    /// The weight of a type, and of all.
    pub(super) fn type_weight(&self, kind: u64) -> Option<f64> {
        self.view.type_weight(kind)
    }

    pub(super) fn types_total(&self) -> f64 {
        self.types_total as f64 / MICRO
    }

    /// The number and the summed weight of the types that are rare by `is_rare`, which must hold
    /// for the lighter of two if it holds for the heavier.
    pub(super) fn rare_types(&self, is_rare: impl Fn(f64) -> bool) -> (usize, f64) {
        self.view.rare_types(is_rare)
    }

    /// Ends an epoch: its changes become visible. `epoch_h` is when it began, `sure_h` what several
    /// users agree it was: a wrong clock must not make anything old.
    pub(super) fn close_epoch(&mut self, deltas: &mut Deltas, epoch_h: f64, sure_h: f64) {
        if deltas.is_empty {
            return;
        }
        deltas.is_empty = true;
        for (cell, more) in self.cells.iter_mut().zip(&mut deltas.cells) {
            *cell += std::mem::take(more);
        }
        for (kind, more) in std::mem::take(&mut deltas.types) {
            self.types_total += more;
            if self.types.len() < TYPES_MAX || self.types.contains_key(&kind) {
                *self.types.entry(kind).or_default() += more;
            }
        }
        for (value, peers) in std::mem::take(&mut deltas.peers) {
            let known = self.peers.entry(value).or_default();
            for user in peers.users.into_iter().filter(|user| *user != 0) {
                known.add(user);
            }
        }
        if self.peers.len() > PEERS_VALUES_MAX {
            // Values that few know are the ones that can be made up.
            self.peers.retain(|_, peers| peers.are_enough());
            if self.peers.len() > PEERS_VALUES_MAX / 2 {
                self.peers.clear();
            }
        }
        self.close_failing(std::mem::take(&mut deltas.failing), epoch_h, sure_h);
        let latest_h = sure_h + SURE_H;
        if self.surge_at_h > latest_h + SURE_H {
            self.surge_at_h = latest_h;
        }
        for (since_ms, (n_failures, tenths)) in std::mem::take(&mut deltas.surge) {
            let at_h = epoch_h + f64::from(since_ms) / 3.6e6;
            self.add_surge(at_h.min(latest_h), n_failures, tenths);
        }
        self.halve();
        let end = self.calibration.add(&mut deltas.calibration);
        self.refresh(end);
    }

    /// Halves all sums while one of them is too great: what users share are shares, which stay.
    fn halve(&mut self) {
        let is_great = |sum: &i64| *sum >= MICRO_MAX;
        while is_great(&self.types_total)
            || self.cells.iter().any(is_great)
            || self.types.values().any(is_great)
        {
            self.types_total /= 2;
            for sum in self.types.values_mut() {
                *sum /= 2;
            }
            for cell in &mut self.cells {
                // None is ever 0.
                *cell -= *cell / 2;
            }
        }
    }

    fn close_failing(&mut self, failing: BTreeMap<(u64, u64), f64>, epoch_h: f64, sure_h: f64) {
        for ((network, user), at_h) in failing {
            // A user's own time may be ahead.
            let at_h = at_h.min(epoch_h + EPOCH_MS as f64 / 3.6e6);
            let known = self.failing.entry(network).or_default();
            known.last_h = known.last_h.max(at_h);
            match known.users.iter_mut().find(|(other, _)| *other == user) {
                Some((_, last_h)) => *last_h = last_h.max(at_h),
                None => known.users.push((user, at_h)),
            }
            if known.users.len() > 2 * FAILING_USERS_MAX {
                newest_failing(&mut known.users);
            }
        }
        let is_due = !(-FAILING_H..1.0).contains(&(sure_h - self.purged_h));
        if is_due || self.failing.len() > FAILING_NETWORKS_MAX {
            self.purged_h = sure_h;
            let is_live = |at_h: f64| sure_h - at_h <= FAILING_H && at_h - epoch_h <= FAILING_H;
            self.failing.retain(|_, failing| {
                failing.users.retain(|(_, at_h)| is_live(*at_h));
                newest_failing(&mut failing.users);
                !failing.users.is_empty()
            });
        }
        if self.failing.len() > FAILING_NETWORKS_MAX {
            let mut by_age: Vec<(f64, u64)> = self
                .failing
                .iter()
                .map(|(network, failing)| (failing.last_h, *network))
                .collect();
            by_age.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            for (_, network) in &by_age[FAILING_NETWORKS_MAX / 2..] {
                self.failing.remove(network);
            }
        }
    }

    fn add_surge(&mut self, now_h: f64, n_failures: u32, tenths: u64) {
        let weight = tenths as f64 / 10.0 / f64::from(n_failures);
        for i in 0..n_failures.min(SURGE_STEPS_MAX) {
            let elapsed_h = if i == 0 {
                (now_h - self.surge_at_h).max(0.0)
            } else {
                0.0
            };
            self.surge = self.surge * exp(-elapsed_h) + weight;
            let pace = (elapsed_h / (7.0 * 24.0)).clamp(0.0005, 0.02);
            let level = self.surge.min(5.0 * self.surge_usual + 1.0);
            self.surge_usual += pace * (level - self.surge_usual);
        }
        self.surge_at_h = self.surge_at_h.max(now_h);
    }

    /// Makes the view anew. Of risks only bins before `risks_end` have changed.
    fn refresh(&mut self, risks_end: usize) {
        let types = self.types.iter();
        self.view
            .refresh(types.map(|(kind, weight)| (*kind, *weight as f64 / MICRO)));
        self.view.calibrate(&self.calibration, risks_end);
    }

    /// Makes the view of a population that was stored; none if it is not whole.
    pub(super) fn restored(mut self, deltas: &Deltas) -> Option<Self> {
        let failures = self.failing.values().flat_map(|failing| &failing.users);
        let is_whole = self.cells.len() == N_POPULATION_CELLS
            && self.cells.iter().all(|cell| (1..READ_MAX).contains(cell))
            && (0..READ_MAX).contains(&self.types_total)
            && self.types.values().all(|sum| (0..READ_MAX).contains(sum))
            && self.types.len() <= TYPES_MAX
            && self.peers.values().all(Peers::are_whole)
            && [self.surge, self.surge_usual]
                .iter()
                .all(|level| (0.0..SURGE_MAX).contains(level))
            && [self.surge_at_h, self.purged_h]
                .iter()
                .all(|number| number.is_finite())
            && failures.into_iter().all(|(_, at_h)| at_h.is_finite())
            && self.calibration.is_whole()
            && deltas.is_whole();
        is_whole.then(|| {
            self.halve();
            self.refresh(calibration::N_BINS);
            self
        })
    }
}

/// How surprising a level of failures is, given the usual one: its Poisson deviance, halved.
pub(super) fn surprise(level: f64, usual: f64) -> f64 {
    level * ln(level / usual) - level + usual
}

/// Keeps the newest; of equals the ones with the smaller keys.
fn newest_failing(users: &mut Vec<(u64, f64)>) {
    users.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    users.truncate(FAILING_USERS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An epoch in which something of everything has happened.
    fn deltas() -> Deltas {
        let mut deltas = Deltas::default();
        deltas.add_cell(0, micro(0.5));
        deltas.add_type(7, micro(1.0));
        deltas.add_peer(9, 3);
        deltas.add_peer(9, 2);
        deltas.add_failing(5, 2, 1.0);
        deltas.add_surge(17, true);
        deltas.add_risk(100);
        deltas
    }

    /// The population as the next program reads it.
    fn stored(population: &Population, deltas: &Deltas) -> Option<Population> {
        let record = postcard::to_stdvec(population).expect("memory takes every write");
        let read: Population = postcard::from_bytes(&record).expect("it is ours");
        read.restored(deltas)
    }

    /// After 4.5 billion events a program wrote what it could not read again.
    #[test]
    fn there_is_no_end_to_events() {
        let mut population = Population::new();
        let mut deltas = deltas();
        for (sums, n_halved) in [(MICRO_MAX - 1, 1), (READ_MAX - MICRO_MAX, 9)] {
            population.types_total = sums;
            population.types.insert(7, sums);
            population.cells[0] = sums;
            let rare = population.cells[1];
            if sums < MICRO_MAX {
                population.close_epoch(&mut deltas, 1.0, 1.0);
            }
            let read = stored(&population, &Deltas::default()).expect("it is ours");
            let halved = (0..n_halved).fold(rare, |cell, _| cell - cell / 2);
            assert_eq!(read.cells[1], halved);
            assert!((MICRO_MAX / 2..MICRO_MAX).contains(&read.types_total));
            assert!((MICRO_MAX / 2..MICRO_MAX).contains(&read.cells[0]));
            let again = stored(&read, &Deltas::default()).expect("it is ours");
            assert_eq!(again.cells, read.cells, "it is halved once");
            population = read;
        }
    }

    #[test]
    fn what_no_events_lead_to_is_refused() {
        let population = Population::new();
        assert!(stored(&population, &deltas()).is_some());
        let check = |spoil: fn(&mut Population, &mut Deltas)| {
            let (mut population, mut deltas) = (Population::new(), deltas());
            spoil(&mut population, &mut deltas);
            assert!(stored(&population, &deltas).is_none());
        };
        check(|population, _| population.cells[3] = 0);
        check(|population, _| population.types_total = READ_MAX);
        check(|population, _| population.surge = -1.0);
        check(|population, _| population.surge_usual = f64::NAN);
        for users in [[0, 0, 5], [0; 3], [5, 5, 0], [6, 5, 0]] {
            let mut population = Population::new();
            population.peers.insert(1, Peers { users });
            assert!(stored(&population, &Deltas::default()).is_none());
        }
        check(|_, deltas| deltas.peers.extend([(1, Peers::default())]));
        check(|_, deltas| deltas.surge.extend([(EPOCH_MS as u32, (1, 1))]));
        check(|_, deltas| deltas.surge.extend([(0, (0, 0))]));
        check(|_, deltas| deltas.surge.extend([(0, (1, u64::MAX))]));
        check(|_, deltas| deltas.cells[0] = MICRO_MAX);
        // As many as there may be, and one more.
        let mut deltas = deltas();
        deltas.surge.insert(0, (u32::MAX, u64::from(u32::MAX)));
        assert!(stored(&population, &deltas).is_some());
        deltas.add_surge(0, false);
        let mut others = Deltas::default();
        others.absorb(&mut deltas.clone());
        others.absorb(&mut deltas);
    }
}
