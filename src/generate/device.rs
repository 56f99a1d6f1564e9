//! Devices and the user agents on them.

use super::random::{mix, reduce};

/// A device and the browser on it.
#[derive(Clone, Copy)]
pub(super) struct Device {
    pub(super) owner: u32,
    pub(super) ordinal: u32,
    pub(super) agent: &'static Agent,
    pub(super) agent_version: u32,
}

/// A user agent with a place for its version.
pub(super) struct Agent {
    pub(super) before: &'static str,
    version: u32,
    pub(super) after: &'static str,
    /// Browsers on desks get a new version every four weeks; others keep theirs for months.
    is_updated: bool,
}

const fn updated(before: &'static str, version: u32, after: &'static str) -> Agent {
    Agent {
        before,
        version,
        after,
        is_updated: true,
    }
}

const fn fixed(before: &'static str, version: u32, after: &'static str) -> Agent {
    Agent {
        before,
        version,
        after,
        is_updated: false,
    }
}

static DESK_AGENTS: [Agent; 6] = [
    updated(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/",
        126,
        ".0",
    ),
    updated(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/",
        126,
        ".0",
    ),
    updated(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0 Edg/",
        126,
        ".0",
    ),
    updated(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:109.0) Gecko/20100101 Firefox/",
        127,
        ".0",
    ),
    fixed(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/",
        17,
        ".5",
    ),
    updated("Mozilla/5.0 (X11; Linux x86_64) Chrome/", 126, ".0"),
];

static PHONE_AGENTS: [Agent; 2] = [
    fixed(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/",
        17,
        ".5 Mobile/15E148 Safari/604.1",
    ),
    fixed(
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/",
        126,
        ".0 Mobile",
    ),
];

static SERVICE_AGENTS: [Agent; 2] = [
    fixed(
        "batch-runner/4.2 (Linux x86_64; node pool batch; https://wiki.example/batch) python-requests/2.",
        32,
        ".3",
    ),
    fixed(
        "Apache-HttpClient/4.5.14 (Java/21.0.3; Linux amd64; connector) integration-gateway/",
        8,
        ".1.0",
    ),
];

static ATTACK_AGENTS: [Agent; 3] = [
    fixed("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/", 119, ".0"),
    fixed(
        "Mozilla/5.0 (Windows NT 6.1; Win64; x64; rv:102.0) Gecko/20100101 Firefox/",
        102,
        ".0",
    ),
    fixed("python-requests/2.", 31, ".0"),
];

/// What sort of device a user has under a number: 1 is the desk, 2 the phone, 3 a second desk.
pub(super) const DESK: u32 = 1;
pub(super) const PHONE: u32 = 2;
pub(super) const SECOND_DESK: u32 = 3;

impl Device {
    /// A device of a user, whose key decides which; the day decides how far it is updated.
    pub(super) fn of_human(owner: u32, key: u64, ordinal: u32, day: i64) -> Self {
        let pick = mix(key, u64::from(ordinal));
        let agents: &'static [Agent] = if ordinal == PHONE {
            &PHONE_AGENTS
        } else {
            &DESK_AGENTS
        };
        Self::with_agent(owner, ordinal, pick_agent(agents, pick), day)
    }

    pub(super) fn of_service(owner: u32, key: u64) -> Self {
        Self::with_agent(owner, DESK, pick_agent(&SERVICE_AGENTS, key), 0)
    }

    /// A device that belongs to no user, though its name does not say so; half of them have a
    /// browser like everybody's.
    pub(super) fn of_attacker(n_users: u32, key: u64, day: i64) -> Self {
        let owner = reduce(mix(key, 0), n_users);
        let ordinal = SECOND_DESK + 1 + reduce(mix(key, 2), 6);
        let pick = mix(key, 1);
        let agents: &'static [Agent] = if key & 1 == 0 {
            &DESK_AGENTS
        } else {
            &ATTACK_AGENTS
        };
        Self::with_agent(owner, ordinal, pick_agent(agents, pick), day)
    }

    fn with_agent(owner: u32, ordinal: u32, agent: &'static Agent, day: i64) -> Self {
        // Day 20,000 of the epoch is in October 2024. The bound keeps lines of far years short.
        let n_updates = ((day - 20_000) / 28).clamp(0, 800) as u32;
        let agent_version = agent.version + if agent.is_updated { n_updates } else { 0 };
        Self {
            owner,
            ordinal,
            agent,
            agent_version,
        }
    }
}

fn pick_agent(agents: &'static [Agent], key: u64) -> &'static Agent {
    &agents[reduce(key, agents.len() as u32) as usize]
}
