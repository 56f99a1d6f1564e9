//! Lines at a steady rate, as a source that is live gives them.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

/// How long a reader waits for the next lines, at the most, where there are more than one in that time.
const TICK: Duration = Duration::from_millis(10);
/// How far it may fall behind a reader that is slow, and make up for afterwards.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Passes lines on to a writer, so many a second.
pub struct Paced<W> {
    to: W,
    per_second: f64,
    /// When the next line is due.
    next: Instant,
}

impl<W: Write> Paced<W> {
    pub fn new(to: W, per_second: NonZeroU32) -> Self {
        Self {
            to,
            per_second: f64::from(per_second.get()),
            next: Instant::now(),
        }
    }

    /// Waits until lines are due; how many are.
    fn wait(&mut self) -> usize {
        let pause = self.next.saturating_duration_since(Instant::now());
        if !pause.is_zero() {
            thread::sleep(pause.max(TICK));
        }
        let now = Instant::now();
        if let Some(earliest) = now.checked_sub(BEHIND_MAX) {
            self.next = self.next.max(earliest);
        }
        let behind = now.saturating_duration_since(self.next);
        1 + (behind.as_secs_f64() * self.per_second) as usize
    }
}

impl<W: Write> Write for Paced<W> {
    /// Writes as many of the lines as are due, and brings them on their way.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let n_due = self.wait();
        let mut ends = memchr::memchr_iter(b'\n', lines).take(n_due);
        let (mut n_lines, mut end) = (0_u32, lines.len());
        if let Some(first) = ends.next() {
            (n_lines, end) = ends.fold((1, first), |(n, _), end| (n + 1, end));
            end += 1;
        }
        self.to.write_all(&lines[..end])?;
        self.to.flush()?;
        self.next += Duration::from_secs_f64(f64::from(n_lines) / self.per_second);
        Ok(end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
