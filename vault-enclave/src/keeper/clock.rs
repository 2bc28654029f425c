//! The keeper's time: never before the last entry, and never further ahead than the keeper measured.
//!
//! Under witnesses the guest's clock is not asked. Each commit brings the times at which a quorum cosigned it, of which one
//! is taken that faulty witnesses can't set ahead ([`CosignedCheckpoint::not_before`]); from there on it is what the kernel
//! measures. A host can repeat the cosignatures of a log that is cosigned again as it is, and so hold a start back to the last
//! commit, and no further: the first commit of a run is of a log that nobody has seen before.
//!
//! [`CosignedCheckpoint::not_before`]: ledger::cosignature::CosignedCheckpoint::not_before
//!
//! The guest's clock can be set by its host, and by root in the guest. What depends on time passing (budgets) must not
//! believe it. So a run reads it once, and from then on lets it go no faster than the time that the kernel measures
//! (`CLOCK_BOOTTIME`). A clock that went further by more than [`JUMP_SECS_MIN`] is taken in only with an entry behind which
//! whoever holds a lease counts for a full one more ([`Clock::take_jump`]): holders go by boot clocks of their own, which
//! did not jump. One that went less far is not taken in at all: witnesses, whose clocks differ, would make such an entry of
//! every other commit. One that fell behind is measured from where it stands: what is decided meanwhile is of that time, and would be older at
//! once when the clock is put right again.
//!
//! **Limit.** A host that controls what the kernel measures by (kvm-clock, or a TSC without SecureTSC) can let that run
//! fast too, and then nothing here notices before the next commit of a vault with witnesses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::UnixTime;
use ledger::entry::TimeSource;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks are read in whole seconds: they may differ by one without anything having been set.
const ROUNDING_SECS: u64 = 1;

/// A clock that is ahead by no more is not followed, in seconds.
const JUMP_SECS_MIN: u64 = 60;

/// What a run takes for the time, measured or not.
#[derive(Clone, Copy)]
enum Source {
    /// The guest's clock, which its host can set: shown as `host clock` wherever time is shown.
    Host,
    /// What witnesses said last, and the boot time when it was heard.
    Witnesses(UnixTime, Duration),
}

/// The time of a run.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// The time when the run began, or when it last took in a jump.
    at: UnixTime,
    /// Boot time at that moment.
    begun: Duration,
    source: Source,
}

/// The maximum of the last entry's time and the guest's clock as it stands: for a run that has not begun.
pub(super) fn wall(last: UnixTime) -> UnixTime {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    last.max(UnixTime(clock))
}

impl Clock {
    /// Measures from now on; it is `at`.
    pub(super) fn started(at: UnixTime) -> Self {
        Self { at, begun: boot_time(), source: Source::Host }
    }

    /// The same, by what witnesses said just now where they did.
    pub(super) fn started_by(at: UnixTime, witnesses: Option<UnixTime>) -> Self {
        let mut clock = Self::started(at);
        clock.heard(witnesses);
        clock
    }

    /// What witnesses said with a commit.
    pub(super) fn heard(&mut self, witnesses: Option<UnixTime>) {
        if let Some(time) = witnesses {
            self.source = Source::Witnesses(time, boot_time());
        }
    }

    /// As it is shown.
    pub(super) fn source(&self) -> TimeSource {
        match self.source {
            Source::Host => TimeSource::HostClock,
            Source::Witnesses(..) => TimeSource::Witnesses,
        }
    }

    /// The time as its source has it, measured by this run or not.
    fn told(&self, last: UnixTime) -> UnixTime {
        match self.source {
            Source::Host => wall(last),
            Source::Witnesses(time, heard) => last.max(time.plus(boot_time().saturating_sub(heard).as_secs())),
        }
    }

    /// The maximum of the last entry's time and the guest's clock, as far as that was measured: a clock that is turned back
    /// stands still, and one that is set ahead goes on as if it were not. Whatever is decided is decided by this.
    pub(super) fn now(&mut self, last: UnixTime) -> UnixTime {
        let told = self.told(last);
        self.fall_back(told);
        self.bounded(last, told)
    }

    /// The same to look at, for what decides nothing.
    pub(super) fn shown(&self, last: UnixTime) -> UnixTime {
        self.bounded(last, self.told(last))
    }

    /// Whether the clock went so much further than was measured that it is taken in.
    pub(super) fn has_jumped(&self, last: UnixTime) -> bool {
        self.is_jump(last, self.told(last))
    }

    /// Takes in a clock that went further than was measured, and gives the new time; `None` where it did not.
    pub(super) fn take_jump(&mut self, last: UnixTime) -> Option<UnixTime> {
        self.jump_to(last, self.told(last))
    }

    /// Another keeper's entry may be of a time that this one has not measured: nothing is taken in for that.
    fn is_jump(&self, last: UnixTime, wall: UnixTime) -> bool {
        wall > last && wall > self.measured().plus(JUMP_SECS_MIN)
    }

    fn bounded(&self, last: UnixTime, wall: UnixTime) -> UnixTime {
        last.max(wall.min(self.measured().plus(ROUNDING_SECS)))
    }

    /// Measures from here on where the clock is behind what was measured.
    fn fall_back(&mut self, wall: UnixTime) {
        if wall.plus(ROUNDING_SECS) < self.measured() {
            *self = Self { source: self.source, ..Self::started(wall) };
        }
    }

    fn jump_to(&mut self, last: UnixTime, wall: UnixTime) -> Option<UnixTime> {
        self.fall_back(wall);
        if !self.is_jump(last, wall) {
            return None;
        }
        // A second that was already given for rounding is not given again after the jump.
        let given = last.seconds().saturating_sub(self.measured().seconds());
        (self.at, self.begun) = (UnixTime(wall.seconds().saturating_sub(given)), boot_time());
        Some(wall)
    }

    fn measured(&self) -> UnixTime {
        self.at.plus(boot_time().saturating_sub(self.begun).as_secs())
    }
}

fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime(1_000_000);

    /// A clock that has measured so many seconds.
    fn after(seconds: u64) -> Clock {
        let begun = boot_time().checked_sub(Duration::from_secs(seconds)).expect("the machine runs longer");
        Clock { at: START, begun, source: Source::Host }
    }

    #[test]
    fn a_clock_that_is_set_ahead_goes_on_as_if_it_were_not() {
        let clock = after(60);
        assert_eq!(clock.bounded(START, START.plus(60)), START.plus(60));
        assert_eq!(clock.bounded(START, START.plus(86_400)), START.plus(61));
        // Turned back, it stands still.
        assert_eq!(clock.bounded(START.plus(30), UnixTime(7)), START.plus(30));
        // The log is never behind.
        assert_eq!(clock.bounded(START.plus(90), START.plus(86_400)), START.plus(90));
    }

    #[test]
    fn a_jump_is_taken_in_and_what_is_none_is_not() {
        let mut clock = after(60);
        for ahead in [0, 1, JUMP_SECS_MIN] {
            assert_eq!(clock.jump_to(START, START.plus(60 + ahead)), None, "{ahead}");
            assert_eq!(clock.bounded(START, START.plus(60 + ahead)), START.plus(60 + ahead.min(1)));
        }
        let ahead = START.plus(60 + 86_400);
        assert_eq!(clock.jump_to(START.plus(10), ahead), Some(ahead));
        // Then it goes on from there.
        assert_eq!(clock.bounded(ahead, ahead), ahead);
        assert_eq!(clock.jump_to(ahead, ahead.plus(JUMP_SECS_MIN)), None);
        assert_eq!(clock.bounded(ahead, ahead.plus(1000)), ahead.plus(1));
    }

    #[test]
    fn what_was_decided_by_a_clock_that_was_turned_back_is_not_older_when_it_is_right_again() {
        let mut clock = after(120);
        // Turned back by two minutes: something is decided at the time of the last entry.
        clock.fall_back(START);
        let decided = clock.bounded(START, START);
        assert_eq!(decided, START);
        // Right again, they count as not measured.
        let right = START.plus(120);
        assert_eq!(clock.bounded(decided, right), decided.plus(1));
        assert_eq!(clock.jump_to(decided, right), Some(right));
        // One second behind is rounding.
        let mut clock = after(60);
        clock.fall_back(START.plus(59));
        assert_eq!(clock.measured(), START.plus(60));
    }

    #[test]
    fn an_entry_of_another_keeper_that_is_ahead_is_no_jump() {
        let mut clock = after(60);
        let ahead = START.plus(86_400);
        assert_eq!(clock.jump_to(ahead, ahead), None);
        assert_eq!(clock.bounded(ahead, ahead), ahead);
    }

    #[test]
    fn under_witnesses_the_clock_of_the_guest_is_not_asked() {
        // Witnesses are more than a minute ahead of the run, which measured a minute, and the guest's clock is years ahead of both.
        let mut clock = after(60);
        clock.heard(Some(START.plus(121)));
        assert!(matches!(clock.source(), TimeSource::Witnesses));
        assert_eq!(clock.now(START), START.plus(61));
        assert_eq!(clock.take_jump(START), Some(START.plus(121)));
        assert_eq!(clock.now(START.plus(121)), START.plus(121));
        // A kernel that ran fast is held back by what they say, and the log never is.
        let mut fast = Clock { at: START.plus(86_400), ..after(0) };
        fast.heard(Some(START.plus(60)));
        assert_eq!(fast.now(START), START.plus(60));
        assert_eq!(fast.now(START.plus(90)), START.plus(90));
        assert_eq!(fast.take_jump(START), None);
        // Without witnesses nothing changes.
        let mut host = after(60);
        host.heard(None);
        assert!(matches!(host.source(), TimeSource::HostClock));
    }

    #[test]
    fn many_jumps_give_no_more_than_the_rounding_of_one() {
        let (begun, mut clock) = (boot_time(), after(0));
        let (mut last, mut unmeasured) = (START, 0);
        for _ in 0..100 {
            // The host uses the second of rounding up, then sets the clock ahead. What lies behind the last entry counts as
            // not measured.
            last = clock.bounded(last, last.plus(1000));
            let time = clock.jump_to(last, last.plus(2 + JUMP_SECS_MIN)).expect("it is a jump");
            (last, unmeasured) = (time, unmeasured + time.seconds() - last.seconds());
        }
        let given = last.seconds() - START.seconds() - unmeasured;
        // One second of rounding, and those that passed meanwhile.
        assert!(
            given <= ROUNDING_SECS + boot_time().saturating_sub(begun).as_secs() + 1,
            "{given} of {} seconds",
            last.seconds()
        );
    }
}
