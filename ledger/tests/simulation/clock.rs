//! The keeper's time, as `vault-enclave/src/keeper/clock.rs` reckons it: boot time is true, the wall clock is the host's.

use attestation::UnixTime;

use crate::bug::Bug;

const ROUNDING_SECS: u64 = 1;
const JUMP_SECS_MIN: u64 = 60;

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
        let wall = wall(time, last);
        wall > last && wall > self.measured(time).plus(JUMP_SECS_MIN) && self.bug != Some(Bug::HostSetsTheClock)
    }

    /// The time after a jump of the clock.
    pub fn take_jump(&mut self, time: Time, last: UnixTime) -> Option<UnixTime> {
        self.fall_back(wall(time, last), time);
        if !self.has_jumped(time, last) {
            return None;
        }
        let given = last.seconds().saturating_sub(self.measured(time).seconds());
        *self = Self::started(UnixTime(wall(time, last).seconds().saturating_sub(given)), time, self.bug);
        Some(wall(time, last))
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
