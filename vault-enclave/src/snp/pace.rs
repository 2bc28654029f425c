//! How often this process asks for reports.
//!
//! Hosts throttle guest requests, and kernels about 6.1 could lose the message key for good when one was throttled. So
//! one device, with all its clones, asks about once a second; who would wait too long is refused at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::SnpDeviceError;

/// One turn a gap, shared by all clones.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    next: Arc<Mutex<Option<Instant>>>,
    gap: Duration,
}

/// From one report to the next.
const GAP: Duration = Duration::from_secs(1);
/// Longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(10);

impl Default for Pace {
    fn default() -> Self {
        Self { next: Arc::default(), gap: GAP }
    }
}

impl Pace {
    /// Waits for this caller's turn.
    pub(super) fn wait(&self) -> Result<(), SnpDeviceError> {
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let (wait, after) = turn(*next, Instant::now(), self.gap).ok_or(SnpDeviceError::TooMany)?;
            *next = Some(after);
            wait
        };
        thread::sleep(wait);
        Ok(())
    }

    /// For tests of something else.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { next: Arc::default(), gap: Duration::ZERO }
    }
}

/// How long to wait, and when the turn after is.
fn turn(next: Option<Instant>, now: Instant, gap: Duration) -> Option<(Duration, Instant)> {
    let at = next.map_or(now, |next| next.max(now));
    let wait = at.duration_since(now);
    (wait <= WAIT_MAX).then(|| (wait, at + gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_a_gap_apart_and_a_queue_that_is_too_long_is_refused() {
        let now = Instant::now();
        let mut next = None;
        for turns in 0..=10 {
            let (wait, after) = turn(next, now, GAP).unwrap();
            assert_eq!(wait, GAP * turns);
            next = Some(after);
        }
        assert_eq!(turn(next, now, GAP), None);
        let later = now + Duration::from_secs(60);
        assert_eq!(turn(next, later, GAP), Some((Duration::ZERO, later + GAP)));
    }

    #[test]
    fn clones_share_one_queue() {
        let now = Instant::now();
        let pace = Pace { next: Arc::new(Mutex::new(Some(now + Duration::from_secs(3600)))), gap: GAP };
        assert_eq!(pace.clone().wait(), Err(SnpDeviceError::TooMany));
    }
}
