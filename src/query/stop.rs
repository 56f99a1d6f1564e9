//! When a question is to end before it has its answer: its time is over, or nobody waits for it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The question was ended. It has no answer, not even a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the question was ended before it had its answer")]
pub struct Stopped;

/// Ends a question, which looks at it with each event that it considers.
#[derive(Debug)]
pub struct Stop {
    deadline: Instant,
    is_requested: AtomicBool,
}

impl Stop {
    /// Ends the question after that time at the latest.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            is_requested: AtomicBool::new(false),
        }
    }

    /// Ends the question now.
    pub fn request(&self) {
        self.is_requested.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), Stopped> {
        if self.is_requested.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(Stopped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_when_asked_or_when_time_is_over() {
        let stop = Stop::within(Duration::from_secs(3_600));
        assert_eq!(stop.check(), Ok(()));
        stop.request();
        assert_eq!(stop.check(), Err(Stopped));
        assert_eq!(Stop::within(Duration::ZERO).check(), Err(Stopped));
    }
}
