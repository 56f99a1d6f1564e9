//! Leaves a service alone that fails again and again, and tries it with one call after a while.

/// Whether calls are let through.
#[derive(Debug)]
pub(super) struct Breaker {
    n_failures_max: u32,
    cooldown_ms: i64,
    /// In a row.
    n_failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until_ms: i64,
    },
    /// One call is on its way, and decides.
    HalfOpen,
}

/// A change that somebody should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Opened,
    Closed,
}

impl Breaker {
    pub(super) fn new(n_failures_max: u32, cooldown_ms: i64) -> Self {
        Self {
            n_failures_max,
            cooldown_ms,
            n_failures: 0,
            state: State::Closed,
        }
    }

    /// Whether a call may be made; its end has to be told.
    pub(super) fn admits(&mut self, now_ms: i64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until_ms } if now_ms >= until_ms => {
                self.state = State::HalfOpen;
                true
            }
            State::Open { .. } | State::HalfOpen => false,
        }
    }

    /// Whether a call would be let through.
    pub(super) fn is_passable(&self, now_ms: i64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until_ms } => now_ms >= until_ms,
            State::HalfOpen => false,
        }
    }

    pub(super) fn succeeded(&mut self) -> Option<Turned> {
        self.n_failures = 0;
        let was = std::mem::replace(&mut self.state, State::Closed);
        (was != State::Closed).then_some(Turned::Closed)
    }

    pub(super) fn failed(&mut self, now_ms: i64) -> Option<Turned> {
        self.n_failures = self.n_failures.saturating_add(1);
        match self.state {
            State::Closed if self.n_failures >= self.n_failures_max => self.open(now_ms),
            State::HalfOpen => {
                self.open(now_ms);
                None
            }
            State::Closed | State::Open { .. } => None,
        }
    }

    /// Every call would fail.
    pub(super) fn open(&mut self, now_ms: i64) -> Option<Turned> {
        let until_ms = now_ms.saturating_add(self.cooldown_ms);
        let was = std::mem::replace(&mut self.state, State::Open { until_ms });
        (was == State::Closed).then_some(Turned::Opened)
    }

    /// The call that was let through has not been made.
    pub(super) fn withdrawn(&mut self, now_ms: i64) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until_ms: now_ms };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::new(3, 1_000);
        for now_ms in 0..2 {
            assert!(breaker.admits(now_ms));
            assert_eq!(breaker.failed(now_ms), None);
        }
        // In a row.
        assert_eq!(breaker.succeeded(), None);
        for now_ms in 2..4 {
            assert_eq!(breaker.failed(now_ms), None);
        }
        assert!(breaker.admits(4));
        assert_eq!(breaker.failed(4), Some(Turned::Opened));
        // Those that were on their way change nothing.
        assert_eq!(breaker.failed(5), None);
        assert!(!breaker.admits(1_003));
        assert!(breaker.admits(1_004), "one may try");
        assert!(!breaker.admits(1_004), "and no other");
        assert_eq!(breaker.failed(1_100), None);
        assert!(!breaker.admits(2_099));
        assert!(breaker.admits(2_100));
        breaker.withdrawn(2_100);
        assert!(breaker.admits(2_100));
        assert_eq!(breaker.succeeded(), Some(Turned::Closed));
        assert!(breaker.admits(2_100) && breaker.admits(2_100));
        assert_eq!(breaker.open(3_000), Some(Turned::Opened));
        assert_eq!(breaker.open(3_001), None);
    }
}
