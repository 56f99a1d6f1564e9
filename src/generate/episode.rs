//! Episodes: one attack each, on one victim or many, and what happens at each of its steps.

use super::event::EventType;
use super::place::{CITIES, CityIndex, N_CITIES, N_TRAVEL_CITIES};
use super::population::Population;
use super::random::Random;
use super::user::{HOUR_MS, User};

/// Times tried in the search for an hour that is odd, or usual, for the victim.
const TIMES_TRIED: u32 = 24;

pub(super) const N_SCENARIOS: u32 = 6;

/// One attack.
pub(super) struct Episode {
    scenario: Scenario,
    /// Counts the episodes of the scenario from 1.
    pub(super) number: u32,
    victim: User,
    pub(super) n_steps: u32,
    /// Where a foreign attacker appears to be.
    pub(super) city: CityIndex,
    succeeds: bool,
    pub(super) key: u64,
}

/// A kind of attack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// A login from abroad at an odd hour, then things the user rarely does.
    AccountTakeover,
    /// Many passwords tried on one user within minutes.
    BruteForce,
    /// One password tried on many users.
    PasswordSpray,
    /// Large downloads from the user's own place at an odd hour.
    InsiderExfiltration,
    /// A login at home, and within the hour one far away.
    ImpossibleTravel,
    /// A burst of administration from a country the user was never in.
    NewCountryAdmin,
}

/// In turn, so that few episodes still cover all.
const SCENARIOS: [Scenario; N_SCENARIOS as usize] = [
    Scenario::AccountTakeover,
    Scenario::BruteForce,
    Scenario::PasswordSpray,
    Scenario::InsiderExfiltration,
    Scenario::ImpossibleTravel,
    Scenario::NewCountryAdmin,
];

impl Episode {
    pub(super) fn new(population: &Population, index: u32, random: &mut Random) -> Self {
        let scenario = SCENARIOS[(index % N_SCENARIOS) as usize];
        let mut victim = population.user(random.below(population.n_users()));
        for _ in 0..16 {
            if victim.role.is_human {
                break;
            }
            victim = population.user(random.below(population.n_users()));
        }
        let (n_steps_min, n_steps_max) = match scenario {
            Scenario::AccountTakeover => (5, 14),
            Scenario::BruteForce => (12, 60),
            Scenario::PasswordSpray => (15, 60),
            Scenario::InsiderExfiltration => (8, 30),
            Scenario::ImpossibleTravel => (3, 6),
            Scenario::NewCountryAdmin => (4, 12),
        };
        Self {
            scenario,
            number: index / N_SCENARIOS + 1,
            n_steps: random.between(n_steps_min, n_steps_max),
            city: foreign_city(victim.home, random),
            succeeds: random.chance(400),
            key: random.next(),
            victim,
        }
    }

    pub(super) fn scenario_name(&self) -> &'static str {
        match self.scenario {
            Scenario::AccountTakeover => "account_takeover",
            Scenario::BruteForce => "brute_force",
            Scenario::PasswordSpray => "password_spray",
            Scenario::InsiderExfiltration => "insider_exfiltration",
            Scenario::ImpossibleTravel => "impossible_travel",
            Scenario::NewCountryAdmin => "new_country_admin",
        }
    }

    /// Of some times, the one at which the victim is least active; a traveller's is at work.
    pub(super) fn choose_time_ms(&self, from_ms: i64, to_ms: i64, random: &mut Random) -> i64 {
        let wanted = if self.scenario == Scenario::ImpossibleTravel {
            1.0
        } else {
            -1.0
        };
        let mut best = (f64::NEG_INFINITY, from_ms);
        for _ in 0..TIMES_TRIED {
            let timestamp_ms = from_ms + (random.fraction() * (to_ms - from_ms) as f64) as i64;
            let fitness = wanted * self.victim.activity(timestamp_ms.div_euclid(HOUR_MS));
            if fitness > best.0 {
                best = (fitness, timestamp_ms);
            }
        }
        best.1
    }

    /// The time between a step and the next.
    pub(super) fn gap_ms(&self, position: u32, random: &mut Random) -> i64 {
        let (low, high) = match self.scenario {
            Scenario::ImpossibleTravel if position == 0 => (600_000, 3_000_000),
            Scenario::BruteForce => (1_500, 15_000),
            Scenario::PasswordSpray => (4_000, 40_000),
            _ => (15_000, 120_000),
        };
        i64::from(random.between(low, high))
    }

    pub(super) fn user_of_step(&self, population: &Population, position: u32) -> User {
        if self.scenario != Scenario::PasswordSpray {
            return self.victim;
        }
        // By rank from anywhere, so that no user is tried twice before all were tried once.
        let first = self.key % u64::from(population.n_users());
        population
            .user_of_rank(((first + u64::from(position)) % u64::from(population.n_users())) as u32)
    }

    pub(super) fn type_of_step(&self, position: u32, random: &mut Random) -> EventType {
        use EventType::{
            AccessDenied, AdminChange, ApiCall, ConfigChange, DbQuery, FileAccess, FileDownload,
            LoginFailed, LoginSuccess, MfaFailed,
        };
        let is_last = position + 1 == self.n_steps;
        match self.scenario {
            Scenario::BruteForce | Scenario::PasswordSpray if is_last && self.succeeds => {
                LoginSuccess
            }
            Scenario::BruteForce | Scenario::PasswordSpray => LoginFailed,
            Scenario::InsiderExfiltration => {
                random.choose(&[FileDownload, FileDownload, FileDownload, FileAccess])
            }
            _ if position == 0 => LoginSuccess,
            Scenario::ImpossibleTravel if position == 1 => LoginSuccess,
            Scenario::AccountTakeover => random.choose(&[
                ConfigChange,
                FileDownload,
                ConfigChange,
                FileDownload,
                DbQuery,
                AccessDenied,
                MfaFailed,
            ]),
            Scenario::ImpossibleTravel => {
                random.choose(&[ApiCall, FileAccess, DbQuery, FileDownload])
            }
            Scenario::NewCountryAdmin => {
                random.choose(&[AdminChange, AdminChange, AdminChange, ConfigChange])
            }
        }
    }

    /// Whether the step goes into the labels: the traveller's first login is their own.
    pub(super) fn is_labelled(&self, position: u32) -> bool {
        self.scenario != Scenario::ImpossibleTravel || position > 0
    }

    /// Whether the step is taken where the user usually is.
    pub(super) fn is_own_place(&self, position: u32) -> bool {
        match self.scenario {
            Scenario::InsiderExfiltration => true,
            Scenario::ImpossibleTravel => position == 0,
            _ => false,
        }
    }
}

/// A city in another country, at least four time zones away, mostly one where no user ever is.
fn foreign_city(home: CityIndex, random: &mut Random) -> CityIndex {
    let home = &CITIES[usize::from(home)];
    let first = if random.chance(700) {
        N_TRAVEL_CITIES
    } else {
        0
    };
    let mut city = random.between(first, N_CITIES - 1);
    // Ends: the list has cities far from any other.
    while CITIES[city as usize].country == home.country
        || CITIES[city as usize]
            .utc_offset_hours
            .abs_diff(home.utc_offset_hours)
            < 4
    {
        city = (city + 1) % N_CITIES;
    }
    city as CityIndex
}
