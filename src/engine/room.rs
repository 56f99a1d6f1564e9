//! How many bytes of lines may be on their way from the source to the sink. Few lines fill few blocks
//! of the usual size; but a line may be as long as hundreds of those.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes on their way.
pub(super) struct Room {
    n_bytes_max: usize,
    n_bytes: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    pub(super) fn new(n_bytes_max: usize) -> Self {
        Self {
            n_bytes_max,
            n_bytes: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits until there is room for so many bytes. What takes more than all of it goes alone.
    pub(super) fn take(&self, n_bytes: usize) {
        let mut taken = self.lock();
        while *taken > 0 && *taken + n_bytes > self.n_bytes_max {
            let waited = self.freed.wait(taken);
            taken = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *taken += n_bytes;
    }

    pub(super) fn give_back(&self, n_bytes: usize) {
        *self.lock() -= n_bytes;
        self.freed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.n_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_too_long_goes_alone() {
        let room = Room::new(100);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                for n_bytes in [60, 40, 1_000, 1] {
                    room.take(n_bytes);
                    sender.send(n_bytes).expect("it is listened to");
                }
            });
            let mut on_their_way = Vec::new();
            for n_bytes in [60, 40] {
                assert_eq!(receiver.recv(), Ok(n_bytes));
                on_their_way.push(n_bytes);
            }
            for n_bytes in on_their_way {
                assert!(receiver.try_recv().is_err());
                room.give_back(n_bytes);
            }
            assert_eq!(receiver.recv(), Ok(1_000));
            assert!(receiver.try_recv().is_err());
            room.give_back(1_000);
            assert_eq!(receiver.recv(), Ok(1));
        });
    }
}
