//! The keeper's time: never before the last entry.

use std::time::{SystemTime, UNIX_EPOCH};

use attestation::UnixTime;

/// The guest's clock, which its host can set: shown as `host clock` wherever time is shown.
pub(super) struct Clock;

impl Clock {
    /// The maximum of the last entry's time and the guest's clock: a clock that is turned back stands still.
    pub(super) fn now(&self, last: UnixTime) -> UnixTime {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        last.max(UnixTime(clock))
    }
}
