//! The keeper's time, as `vault-enclave/src/keeper/clock.rs` reckons it: boot time is true, the wall clock is the host's.

use attestation::UnixTime;

use crate::bug::Bug;

const ROUNDING_SECS: u64 = 1;

/// `boot` is the true time, which stands for CLOCK_BOOTTIME; `wall` what the host lets the guest's clock show.
#[derive(Clone, Copy)]
pub struct Time {
    pub boot: u64,
    pub wall: u64,
}

pub struct Clock {
    at: UnixTime,
    begun: u64,
    bug: Option<Bug>,
}

pub fn wall(time: Time, last: UnixTime) -> UnixTime {
    last.max(UnixTime(time.wall))
}

impl Clock {
    pub fn started(at: UnixTime, time: Time, bug: Option<Bug>) -> Self {
        Self { at, begun: time.boot, bug }
    }

    pub fn now(&mut self, time: Time, last: UnixTime) -> UnixTime {
        self.fall_back(wall(time, last), time);
        self.shown(time, last)
    }

    pub fn shown(&self, time: Time, last: UnixTime) -> UnixTime {
        if self.bug == Some(Bug::HostSetsTheClock) {
            return wall(time, last);
        }
        last.max(wall(time, last).min(self.measured(time).plus(ROUNDING_SECS)))
    }

    pub fn has_jumped(&self, time: Time, last: UnixTime) -> bool {
        wall(time, last) > self.measured(time).plus(ROUNDING_SECS) && self.bug != Some(Bug::HostSetsTheClock)
    }

    /// The time after a jump of the clock, and how much of it was not measured.
    pub fn take_jump(&mut self, time: Time, last: UnixTime) -> Option<(UnixTime, u64)> {
        self.fall_back(wall(time, last), time);
        let (measured, wall) = (self.measured(time), wall(time, last));
        if wall <= measured.plus(ROUNDING_SECS) || self.bug == Some(Bug::HostSetsTheClock) {
            return None;
        }
        let ahead = wall.seconds().saturating_sub(measured.seconds());
        let unmeasured = ahead.min(wall.seconds().saturating_sub(last.seconds()));
        let given = ahead - unmeasured;
        *self = Self::started(UnixTime(wall.seconds().saturating_sub(given)), time, self.bug);
        Some((wall, unmeasured))
    }

    fn fall_back(&mut self, wall: UnixTime, time: Time) {
        if wall.plus(ROUNDING_SECS) < self.measured(time) && self.bug != Some(Bug::ClockTurnedBackMeasures) {
            *self = Self::started(wall, time, self.bug);
        }
    }

    fn measured(&self, time: Time) -> UnixTime {
        self.at.plus(time.boot.saturating_sub(self.begun))
    }
}
