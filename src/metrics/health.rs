//! Whether a program takes events, and whether it works at all.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use super::lock;
use crate::shutdown::Shutdown;

/// Says what keeps a program from taking events, if something does.
type Hindrance = Box<dyn Fn() -> Option<String> + Send>;

pub(super) struct Health {
    /// A number of [`Phase`].
    phase: AtomicU8,
    shutdown: Shutdown,
    hindrances: Mutex<Vec<Hindrance>>,
}

/// What a program is about, in order of time.
#[derive(Clone, Copy)]
enum Phase {
    Starting,
    Working,
    /// The input has ended.
    Draining,
    Ended,
}

impl Health {
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            shutdown: shutdown.clone(),
            hindrances: Mutex::default(),
        }
    }

    pub(super) fn begin(&self) {
        self.turn(Phase::Working);
    }

    pub(super) fn drain(&self) {
        self.turn(Phase::Draining);
    }

    pub(super) fn end(&self) {
        self.turn(Phase::Ended);
    }

    fn turn(&self, phase: Phase) {
        // Never back: several threads may tell.
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.is_in(Phase::Ended)
    }

    pub(super) fn ask(&self, hindrance: Hindrance) {
        lock(&self.hindrances).push(hindrance);
    }

    pub(super) fn hindrance(&self) -> Option<String> {
        if self.is_in(Phase::Ended) {
            return Some("it has ended".to_owned());
        }
        if self.shutdown.is_requested() || self.is_in(Phase::Draining) {
            return Some("it is at its end, and finishes what it holds".to_owned());
        }
        if self.is_in(Phase::Starting) {
            return Some("it is starting".to_owned());
        }
        lock(&self.hindrances).iter().find_map(|ask| ask())
    }
}
