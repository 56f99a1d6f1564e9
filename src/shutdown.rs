//! SIGINT and SIGTERM ask the program to stop reading, finish what it holds and end; a second
//! one ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the program has been asked to stop. Clones see the same answer.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    is_requested: Arc<AtomicBool>,
}

impl Shutdown {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        let shutdown = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset and only sets it.
            flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&shutdown.is_requested),
            )?;
            flag::register(signal, Arc::clone(&shutdown.is_requested))?;
        }
        Ok(shutdown)
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::Relaxed)
    }

    /// Asks for the end from within.
    pub fn request(&self) {
        self.is_requested.store(true, Ordering::Relaxed);
    }
}
