//! How long a lease lasts by this machine's own clock, and when to renew it. Pure.
//!
//! The keeper's clock is not this machine's. What is known: a statement was made after the request for it was sent. So
//! `boot time − keeper time` is at most what the freshest exchange showed, and a lease ends at `renew_by` plus that. The
//! least offset seen counts for later renewals too: a host that keeps answers back, to deliver each one renewal too
//! late, gains no time. Boot time goes on while the machine sleeps.

use std::time::Duration;

use attestation::UnixTime;
use ledger::lease::LeaseStatement;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of this machine's boot clock (CLOCK_BOOTTIME).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(u64);

/// How far two good clocks may drift apart: 200 millionths, both ways together.
const DRIFT_DIVISOR: i128 = 5_000;
/// Least and most that a failed renewal waits before the next try.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const NANOS: i128 = 1_000_000_000;

/// The term of a lease by this machine's boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Boot time less keeper time, in nanoseconds: the most it can be.
    offset: i128,
    asked: BootTime,
    deadline: BootTime,
    length: Duration,
}

impl BootTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // The clock starts at zero and is in no danger of the year 2554.
        Self(u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// From here to `later`; zero where that is past.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn clamped(nanos: i128) -> Self {
        Self(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

impl Term {
    /// Of a first lease, whose request was sent at `asked`.
    #[must_use]
    pub fn first(asked: BootTime, lease: &LeaseStatement) -> Self {
        Self::new(offset(asked, lease), asked, lease)
    }

    /// Of a renewal, whose request was sent at `asked`.
    #[must_use]
    pub fn renewed(&self, asked: BootTime, lease: &LeaseStatement) -> Self {
        let drift = i128::from(asked.0.saturating_sub(self.asked.0)) / DRIFT_DIVISOR;
        Self::new(offset(asked, lease).min(self.offset + drift), asked, lease)
    }

    fn new(offset: i128, asked: BootTime, lease: &LeaseStatement) -> Self {
        let deadline = BootTime::clamped(offset + i128::from(lease.renew_by.seconds()) * NANOS);
        let seconds = lease.renew_by.seconds().saturating_sub(lease.issued.seconds());
        Self { offset, asked, deadline, length: Duration::from_secs(seconds) }
    }

    /// When the lease is lost unless it was renewed.
    #[must_use]
    pub fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// Whether that has come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        BootTime::now() >= self.deadline
    }

    /// The same until the keeper's clock shows `until`, where that is later.
    #[must_use]
    pub fn extended(&self, until: UnixTime) -> Self {
        let until = BootTime::clamped(self.offset + i128::from(until.seconds()) * NANOS);
        Self { deadline: self.deadline.max(until), ..*self }
    }

    /// What the keeper's clock shows at `now`, at least.
    #[must_use]
    pub fn keeper_time(&self, now: BootTime) -> UnixTime {
        UnixTime(u64::try_from((i128::from(now.0) - self.offset) / NANOS).unwrap_or(0))
    }

    /// When to renew: a third into the lease, earlier or later by up to a tenth of that, so that a fleet that started
    /// together does not renew together. `random` is any number.
    #[must_use]
    pub fn renew_at(&self, random: u64) -> BootTime {
        let third = self.length / 3;
        let start = BootTime(self.deadline.0.saturating_sub(u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX)));
        let jitter = (random % 2_001) as f64 / 10_000.0;
        start.plus(third.mul_f64(0.9 + jitter))
    }

    /// When to try again after `failures` tries failed, or `None` where the lease will have ended.
    #[must_use]
    pub fn retry_at(&self, now: BootTime, failures: u32, random: u64) -> Option<BootTime> {
        let backoff = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(BACKOFF_MAX);
        let jitter = (random % 2_001) as f64 / 10_000.0;
        let at = now.plus(backoff.mul_f64(0.9 + jitter));
        if at < self.deadline {
            return Some(at);
        }
        // A last try while there is time for one.
        let last = BootTime(self.deadline.0.saturating_sub(u64::try_from(BACKOFF_MIN.as_nanos()).unwrap_or(0)));
        (last > now).then_some(last)
    }
}

fn offset(asked: BootTime, lease: &LeaseStatement) -> i128 {
    i128::from(asked.0) - i128::from(lease.issued.seconds()) * NANOS
}

#[cfg(test)]
mod tests {
    use attestation::{LeaseKey, Sha256Digest};
    use ledger::policy::{LeaseEnd, UnitCheck};

    use super::*;

    const HOUR: u64 = 3_600;

    fn lease(issued: u64, seconds: u64) -> LeaseStatement {
        LeaseStatement {
            vault: Sha256Digest::of(b"vault"),
            lease: Sha256Digest::of(b"lease"),
            lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
            rule: "serve".try_into().unwrap(),
            policy: Sha256Digest::of(b"policy"),
            issued: UnixTime(issued),
            renew_by: UnixTime(issued + seconds),
            lease_end: LeaseEnd::End,
            unit_check: UnitCheck::Hashed,
        }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_lease_lasts_from_the_request_whatever_the_keepers_clock_says() {
        for issued in [0, 1_700_000_000] {
            assert_eq!(Term::first(at(50), &lease(issued, 900)).deadline(), at(950));
        }
    }

    #[test]
    fn a_renewal_lasts_from_its_own_request() {
        let first = Term::first(at(50), &lease(1_000, 900));
        // The answer to the second request was quicker by a second: the offset is known better.
        assert_eq!(first.renewed(at(349), &lease(1_300, 900)).deadline(), at(1_249));
    }

    #[test]
    fn a_statement_that_was_kept_back_gains_no_time() {
        let first = Term::first(at(50), &lease(1_000, 900));
        // Issued 300 s after the first, but delivered for a request that was sent 800 s after it.
        let late = first.renewed(at(850), &lease(1_300, 900)).deadline();
        assert!(late >= at(1_250) && late < at(1_251), "{late:?}");
    }

    #[test]
    fn a_slow_clock_does_not_wear_a_lease_out() {
        let mut term = Term::first(at(0), &lease(1_000_000, HOUR));
        // This machine's clock gains 100 millionths on the keeper's: 36 s in a hundred hours.
        for hour in 1..=100 {
            let asked = BootTime(hour * HOUR * 1_000_100_000);
            term = term.renewed(asked, &lease(1_000_000 + hour * HOUR, HOUR));
            assert!(asked.until(term.deadline()) > Duration::from_secs(HOUR - 1), "hour {hour}");
        }
    }

    #[test]
    fn renewals_start_at_a_third_and_spread_by_a_tenth() {
        let term = Term::first(at(0), &lease(5, 900));
        assert_eq!(term.renew_at(0), at(270));
        assert_eq!(term.renew_at(1_000), at(300));
        assert_eq!(term.renew_at(2_000), at(330));
        assert!((0..10_000).all(|random| (at(270)..=at(330)).contains(&term.renew_at(random))));
    }

    #[test]
    fn tries_come_slower_and_end_with_one_before_the_deadline() {
        let term = Term::first(at(0), &lease(5, 900));
        let wait = |failures| at(300).until(term.retry_at(at(300), failures, 1_000).unwrap());
        assert_eq!([1, 2, 3, 9, 1_000].map(|n| wait(n).as_secs()), [1, 2, 4, 30, 30]);
        assert_eq!(term.retry_at(at(880), 9, 1_000), Some(at(899)));
        assert_eq!(term.retry_at(at(899), 9, 1_000), None);
        assert_eq!(term.retry_at(at(2_000), 9, 1_000), None);
    }

    #[test]
    fn an_extension_lasts_by_the_keepers_clock_and_takes_no_time_away() {
        let term = Term::first(at(50), &lease(1_000, 900));
        assert_eq!(term.keeper_time(at(150)), UnixTime(1_100));
        assert_eq!(term.extended(UnixTime(5_000)).deadline(), at(4_050));
        assert_eq!(term.extended(UnixTime(1_100)).deadline(), at(950));
        // A renewal afterwards lasts as long as the keeper says, and no longer.
        assert_eq!(term.extended(UnixTime(5_000)).renewed(at(2_050), &lease(3_000, 900)).deadline(), at(2_950));
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let before = BootTime::now();
        assert!(before > BootTime(0) && BootTime::now() >= before);
    }
}
