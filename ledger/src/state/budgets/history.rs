//! The releases of the last measured day, and what they add up to.

use std::collections::{BTreeMap, VecDeque};

use attestation::{Sha256Digest, UnixTime};

use super::{Asked, HISTORY_MAX, Part};
use crate::names::Name;
use crate::state::stored::stored;

const HOUR_SECS: u64 = 60 * 60;
const DAY_SECS: u64 = 24 * HOUR_SECS;

/// One release.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    /// Measured time of its entry.
    at: u64,
    pub(super) model: Name,
    pub(super) platform: Sha256Digest,
    pub(super) bytes: u64,
}

stored!(Granted { at, model, platform, bytes });

/// Oldest first.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// Of the last entry.
    time: UnixTime,
    /// Measured time of the last entry, in seconds.
    clock: u64,
    granted: VecDeque<Granted>,
    /// The first that is in its hour: those before it are only in their day.
    in_hour: usize,
}

stored!(History { time, clock, granted, in_hour });

/// What the releases of one subject add up to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) bytes: u128,
    pub(super) releases: u64,
    /// By platform, how many.
    pub(super) platforms: BTreeMap<Sha256Digest, u32>,
}

impl Default for History {
    fn default() -> Self {
        Self { time: UnixTime(0), clock: 0, granted: VecDeque::new(), in_hour: 0 }
    }
}

impl History {
    pub(super) fn gap(&self, time: UnixTime) -> u64 {
        time.seconds().saturating_sub(self.time.seconds())
    }

    /// Measured time at `now`, which is not before the last entry.
    fn clock_at(&self, now: UnixTime) -> u64 {
        self.clock.saturating_add(self.gap(now))
    }

    /// The last entry is of `time`, and `unmeasured` of the seconds since the one before do not count.
    pub(super) fn pass(&mut self, time: UnixTime, unmeasured: u64) {
        self.clock = self.clock.saturating_add(self.gap(time).saturating_sub(unmeasured));
        self.time = time;
    }

    /// Forgets what is out of its windows, and tells of each.
    pub(super) fn forget(&mut self, mut left: impl FnMut(&Granted, Part)) {
        while let Some(granted) =
            self.granted.get(self.in_hour).filter(|granted| Part::Hour.end_of(granted) <= self.clock)
        {
            left(granted, Part::Hour);
            self.in_hour += 1;
        }
        while self.granted.front().is_some_and(|granted| Part::Day.end_of(granted) <= self.clock) {
            if let Some(granted) = self.granted.pop_front() {
                left(&granted, Part::Day);
                self.in_hour = self.in_hour.saturating_sub(1);
            }
        }
    }

    /// A release at `now`. Where too many are known the oldest is forgotten, which happens only without budgets.
    pub(super) fn push(&mut self, asked: &Asked<'_>, now: UnixTime) -> &Granted {
        if self.granted.len() >= HISTORY_MAX {
            self.granted.pop_front();
            self.in_hour = self.in_hour.saturating_sub(1);
        }
        let at = self.clock_at(now);
        let (model, platform, bytes) = (asked.model.clone(), asked.platform, asked.bytes);
        self.granted.push_back(Granted { at, model, platform, bytes });
        self.granted.back().expect("it was just put there")
    }

    /// Every release with each of the windows that it is in.
    pub(super) fn each(&self, mut enter: impl FnMut(&Granted, Part)) {
        for (index, granted) in self.granted.iter().enumerate() {
            enter(granted, Part::Day);
            if index >= self.in_hour {
                enter(granted, Part::Hour);
            }
        }
    }

    /// Those in a window at the time of the last entry, oldest first.
    pub(super) fn of(&self, part: Part) -> impl Iterator<Item = &Granted> {
        self.granted.range(match part {
            Part::Hour => self.in_hour..,
            Part::Day => 0..,
        })
    }

    /// Those of them that are out of it at `now`.
    pub(super) fn leaving(&self, part: Part, now: UnixTime) -> impl Iterator<Item = &Granted> {
        let clock = self.clock_at(now);
        self.of(part).take_while(move |granted| part.end_of(granted) <= clock)
    }

    /// How many are known at `now`.
    pub(super) fn count_at(&self, now: UnixTime) -> usize {
        // Only where it matters is it worth to count.
        if self.granted.len() < HISTORY_MAX {
            return self.granted.len();
        }
        self.granted.len() - self.leaving(Part::Day, now).count()
    }

    /// When a release is out of a window, if all the time from `now` on is measured.
    pub(super) fn leaves_at(&self, granted: &Granted, part: Part, now: UnixTime) -> UnixTime {
        now.plus(part.end_of(granted).saturating_sub(self.clock_at(now)))
    }
}

impl Part {
    fn end_of(self, granted: &Granted) -> u64 {
        granted.at.saturating_add(match self {
            Self::Hour => HOUR_SECS,
            Self::Day => DAY_SECS,
        })
    }
}

impl Tally {
    pub(super) fn enter(&mut self, granted: &Granted, part: Part) {
        match part {
            Part::Hour => self.releases += 1,
            Part::Day => {
                self.bytes += u128::from(granted.bytes);
                *self.platforms.entry(granted.platform).or_default() += 1;
            }
        }
    }

    pub(super) fn leave(&mut self, granted: &Granted, part: Part) {
        match part {
            Part::Hour => self.releases = self.releases.saturating_sub(1),
            Part::Day => {
                self.bytes = self.bytes.saturating_sub(granted.bytes.into());
                Self::remove(&mut self.platforms, granted.platform);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.releases == 0 && self.platforms.is_empty()
    }

    /// One less of this platform.
    pub(super) fn remove(platforms: &mut BTreeMap<Sha256Digest, u32>, platform: Sha256Digest) {
        match platforms.get_mut(&platform) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(platforms.remove(&platform)),
            None => {}
        }
    }
}
