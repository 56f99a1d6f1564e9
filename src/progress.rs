//! How far long work has come, on a terminal: one line at its end, which goes when the work ends. Alone
//! names `indicatif`. Who works says what is done in the pieces that it works in; while nothing is shown
//! that costs a look at a flag.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::shutdown;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Bytes of inputs, of all that there are; events are counted beside them.
    Bytes { n_bytes: u64 },
    /// Things of a kind, of so many if that is known.
    Things {
        what: &'static str,
        n_things: Option<u64>,
    },
}

/// Whether a line is shown.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);
/// A terminal has one last line.
static LINE: Mutex<Option<Line>> = Mutex::new(None);
/// Signals are listened to once.
static SIGNALS: Once = Once::new();
/// Events, beside bytes.
static N_EVENTS: AtomicU64 = AtomicU64::new(0);

struct Line {
    bar: ProgressBar,
    work: Work,
}

/// How often the line is drawn if nothing is done.
const TICK: Duration = Duration::from_millis(250);
/// How often work is asked that does not say how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// Progress that is shown until this is dropped, if it is shown at all.
#[must_use]
#[derive(Debug)]
pub struct Shown {
    is_shown: bool,
    is_over: Arc<AtomicBool>,
}

/// Shows how far work has come, if standard error is a terminal that can, nothing is written to standard
/// output on a terminal meanwhile, and nothing else is shown.
pub fn show(work: Work, writes_output: bool) -> Shown {
    let is_shown = is_able() && !(writes_output && io::stdout().is_terminal()) && begin(work);
    Shown {
        is_shown,
        is_over: Arc::default(),
    }
}

/// Nothing is shown.
pub fn nothing() -> Shown {
    Shown {
        is_shown: false,
        is_over: Arc::default(),
    }
}

/// Bytes of an input were read.
pub fn bytes(n_bytes: u64) {
    advance(|work| match work {
        Work::Bytes { .. } => n_bytes,
        Work::Things { .. } => 0,
    });
}

/// Things were done; events, where bytes are shown.
pub fn things(n_things: u64) {
    advance(|work| match work {
        Work::Bytes { .. } => {
            N_EVENTS.fetch_add(n_things, Ordering::Relaxed);
            0
        }
        Work::Things { .. } => n_things,
    });
}

/// So many more things are to be done.
pub fn expect(n_things: u64) {
    if !IS_SHOWN.load(Ordering::Relaxed) {
        return;
    }
    if let Some(line) = &*lock() {
        line.bar.inc_length(n_things);
    }
}

/// Does something, such as writing a message, while the line is away.
pub fn without_line<T>(write: impl FnOnce() -> T) -> T {
    if !IS_SHOWN.load(Ordering::Relaxed) {
        return write();
    }
    let bar = lock().as_ref().map(|line| line.bar.clone());
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

impl Shown {
    /// Asks now and then how much is done, for work that does not say.
    pub fn follow(&self, n_done: impl Fn() -> u64 + Send + 'static) {
        if !self.is_shown {
            return;
        }
        let is_over = Arc::clone(&self.is_over);
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let n_done = n_done();
                if let Some(line) = &*lock() {
                    line.bar.set_position(n_done);
                }
                thread::sleep(LOOK);
            }
        });
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.is_shown {
            self.is_over.store(true, Ordering::Relaxed);
            clear();
        }
    }
}

fn is_able() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    io::stderr().is_terminal() && !is_dumb
}

fn begin(work: Work) -> bool {
    let mut line = lock();
    if line.is_some() {
        return false;
    }
    N_EVENTS.store(0, Ordering::Relaxed);
    let length = match work {
        Work::Bytes { n_bytes } => Some(n_bytes),
        Work::Things { n_things, .. } => n_things,
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style(work));
    bar.enable_steady_tick(TICK);
    *line = Some(Line { bar, work });
    IS_SHOWN.store(true, Ordering::Relaxed);
    // Who is ended by a signal leaves no half a line behind.
    SIGNALS.call_once(|| shutdown::before_end(clear));
    true
}

/// Without colours and in ASCII, for every terminal.
fn style(work: Work) -> ProgressStyle {
    let template = match work {
        Work::Bytes { .. } => {
            "[{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {events}{eta} left"
        }
        Work::Things {
            n_things: Some(_), ..
        } => "[{bar:24}] {human_pos} of {human_len} {what}, {rate}/s, {eta} left",
        Work::Things { n_things: None, .. } => "{human_pos} {what}, {rate}/s, {elapsed}",
    };
    let what = match work {
        Work::Bytes { .. } => "",
        Work::Things { what, .. } => what,
    };
    ProgressStyle::with_template(template)
        .expect("the templates are right")
        .progress_chars("=> ")
        .with_key(
            "what",
            move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
                let _ = text.write_str(what);
            },
        )
        .with_key(
            "rate",
            |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                let _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
            },
        )
        .with_key(
            "events",
            |_: &ProgressState, text: &mut dyn std::fmt::Write| {
                let n_events = N_EVENTS.load(Ordering::Relaxed);
                if n_events > 0 {
                    let _ = write!(text, "{} events, ", HumanCount(n_events));
                }
            },
        )
}

fn advance(n_done: impl FnOnce(Work) -> u64) {
    if !IS_SHOWN.load(Ordering::Relaxed) {
        return;
    }
    if let Some(line) = &*lock() {
        line.bar.inc(n_done(line.work));
    }
}

fn clear() {
    IS_SHOWN.store(false, Ordering::Relaxed);
    if let Some(line) = lock().take() {
        line.bar.finish_and_clear();
    }
}

fn lock() -> MutexGuard<'static, Option<Line>> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}
