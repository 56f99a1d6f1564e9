//! What happens to programs whose surroundings fail: disks that are full, read-only or gone, files that are
//! damaged or missing, clocks that jump, signals at any instant, memory that ends. Each time: a clear message, the
//! documented exit code, nothing lost, and the same command again gives what an undisturbed run has.

mod clock;
pub(crate) mod disk;
mod files;
mod signals;
