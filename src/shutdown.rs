//! SIGINT and SIGTERM ask the program to stop reading, finish what it holds and end; a second
//! one ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// Signals that come together are one: `timeout` of the GNU coreutils sends its own to the program and to
/// the program's group.
const TOGETHER: Duration = Duration::from_millis(200);
/// Whether somebody stops by himself when he is asked to.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether the program has been asked to stop. Clones see the same answer.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    is_requested: Arc<AtomicBool>,
}

impl Shutdown {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// If the system refuses a handler, or the thread that waits for the first signal.
    pub fn install() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let is_first_over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_first_over))?;
            flag::register(signal, Arc::clone(&shutdown.is_requested))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                signals.forever().next();
                thread::sleep(TOGETHER);
                is_first_over.store(true, Ordering::Relaxed);
            })?;
        IS_INSTALLED.store(true, Ordering::Relaxed);
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

/// Does something before a signal ends the program, if it does that at once. A system that refuses leaves it
/// as it is.
pub fn before_end(act: fn()) {
    if IS_INSTALLED.load(Ordering::Relaxed) {
        return;
    }
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
        return;
    };
    thread::spawn(move || {
        for signal in signals.forever() {
            if !IS_INSTALLED.load(Ordering::Relaxed) {
                act();
                let _ = low_level::emulate_default_handler(signal);
            }
        }
    });
}
