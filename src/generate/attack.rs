//! Attacks: episodes of hostile events with known times, for labels to test detectors against.

use super::benign::{endpoint, size_bytes};
use super::device::Device;
use super::episode::{Episode, N_SCENARIOS};
use super::event::{Endpoint, Event, EventType};
use super::place::{Address, CITIES};
use super::population::Population;
use super::random::{Random, mix};
use super::user::HOUR_MS;

/// One event in this many belongs to an attack.
const EVENTS_PER_ATTACK_EVENT: u64 = 200;
/// From this size on there is at least one episode of each scenario.
const EVENTS_FOR_ALL_SCENARIOS: u64 = 5000;
const EPISODE_EVENTS_MIN: u32 = 3;
/// 8 MB, as the events of attacks are held; beyond 100 million events the share of attacks falls.
const ATTACK_EVENTS_MAX: u64 = 500_000;
/// No episode lasts longer: the slowest is an insider's 30 steps of at most two minutes each.
const EPISODE_MS: i64 = 2 * HOUR_MS;

/// All episodes, and their events sorted by time.
pub(super) struct Attacks {
    population: Population,
    pub(super) episodes: Vec<Episode>,
    pub(super) steps: Vec<Step>,
}

/// One event of an episode. Small, because all are held; the rest is derived when it is written.
pub(super) struct Step {
    pub(super) timestamp_ms: i64,
    pub(super) episode: u32,
    /// Counts the events of the episode from 0.
    pub(super) position: u32,
}

impl Attacks {
    pub(super) fn none(population: Population) -> Self {
        Self {
            population,
            episodes: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Plans attacks that take their share of `n_events` and leave the first 40 % of the span free.
    pub(super) fn plan(
        population: Population,
        n_events: u64,
        start_ms: i64,
        end_ms: i64,
        key: u64,
    ) -> Self {
        let mut attacks = Self::none(population);
        let mut budget = (n_events / EVENTS_PER_ATTACK_EVENT).min(ATTACK_EVENTS_MAX) as u32;
        if n_events >= EVENTS_FOR_ALL_SCENARIOS {
            budget = budget.max(4 * N_SCENARIOS);
        }
        attacks.steps.reserve_exact(budget as usize);
        // Keeps the first six episodes within the budget.
        let n_steps_max = (budget / N_SCENARIOS).max(4);
        let from_ms = start_ms + (end_ms - start_ms) / 5 * 2;
        let to_ms = end_ms - EPISODE_MS;
        while budget >= EPISODE_EVENTS_MIN {
            let index = attacks.episodes.len() as u32;
            let mut random = Random::new(mix(key, u64::from(index)));
            let mut episode = Episode::new(&population, index, &mut random);
            episode.n_steps = episode.n_steps.min(n_steps_max).min(budget);
            budget -= episode.n_steps;
            let mut timestamp_ms = episode.choose_time_ms(from_ms, to_ms, &mut random);
            for position in 0..episode.n_steps {
                attacks.steps.push(Step {
                    timestamp_ms,
                    episode: index,
                    position,
                });
                timestamp_ms += episode.gap_ms(position, &mut random);
            }
            attacks.episodes.push(episode);
        }
        attacks
            .steps
            .sort_unstable_by_key(|step| (step.timestamp_ms, step.episode, step.position));
        attacks
    }

    /// Spells the event of a step out.
    pub(super) fn event(&self, step: &Step) -> Event {
        let episode = &self.episodes[step.episode as usize];
        let mut random = Random::new(mix(episode.key, u64::from(step.position)));
        let user = episode.user_of_step(&self.population, step.position);
        let event_type = episode.type_of_step(step.position, &mut random);
        let mut event = Event {
            timestamp_ms: step.timestamp_ms,
            user: user.index,
            kind: event_type,
            threat_percent: random.between(15, 85),
            has_failed: false,
            endpoint: endpoint(&user, event_type, &mut random),
            size_bytes: size_bytes(event_type, &mut random),
            address: Address::hostile(episode.city, episode.key),
            city: &CITIES[usize::from(episode.city)],
            device: Device::of_attacker(
                self.population.n_users(),
                episode.key,
                step.timestamp_ms / (24 * HOUR_MS),
            ),
        };
        if episode.is_own_place(step.position) {
            // One draw for all steps: the insider stays in one place.
            let whereabouts = user.whereabouts(step.timestamp_ms, &mut Random::new(episode.key));
            event.address = whereabouts.address;
            event.city = whereabouts.city;
            event.device = whereabouts.device;
            event.threat_percent = random.between(2, 30);
        }
        if event_type == EventType::FileDownload {
            event.size_bytes = u64::from(random.between(5_000_000, 90_000_000));
            let number = Some(random.below(100_000));
            event.endpoint = Endpoint {
                path: "/files/restricted/",
                number,
            };
        }
        event
    }
}
