//! `[alarm.NAME]`: releases that deserve a look, or somebody's word, although every rule lets them through.

use std::fmt;

use attestation::UnixTime;

use super::rules::Permitted;
use crate::names::Name;

/// The most alarm rules of a policy.
pub const ALARMS_MAX: usize = 16;

const DAY_SECS: u64 = 24 * 60 * 60;

/// `[alarm.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmRule {
    /// Which models it watches.
    pub models: Permitted<Name>,
    /// When it rings.
    pub on: AlarmOn,
    /// What comes of it.
    pub then: AlarmThen,
}

/// `on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlarmOn {
    /// `new-platform`: the first release of a model to a platform.
    NewPlatform,
    /// `new-measurement`: the first release of a model to a launch digest, or to a set of PCR values.
    NewMeasurement,
    /// `more-leases`: with the release, more leases of the models run at once than `more_than`.
    MoreLeases {
        /// From 1 up.
        more_than: u64,
    },
    /// `outside-hours`: at a time that is not within `hours` of `days`.
    OutsideHours(Hours),
    /// `canary`: every release. Nobody has a reason to load such a model.
    Canary,
}

/// `then`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmThen {
    /// An `alarm` entry before the release.
    Alarm,
    /// It is refused until approvers let it through; then with an `alarm` entry.
    Hold,
}

/// Hours of some days, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First second of the day.
    pub(super) from: u64,
    /// First second of the day that is outside again.
    pub(super) to: u64,
    /// By weekday from Monday.
    pub(super) days: [bool; 7],
}

/// Names of the weekdays, from Monday.
pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl AlarmRule {
    /// Whether it watches a model.
    pub fn covers(&self, model: &Name) -> bool {
        self.models.permits(model)
    }
}

impl AlarmOn {
    /// As the policy spells it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NewPlatform => "new-platform",
            Self::NewMeasurement => "new-measurement",
            Self::MoreLeases { .. } => "more-leases",
            Self::OutsideHours(_) => "outside-hours",
            Self::Canary => "canary",
        }
    }
}

impl Hours {
    /// Whether a moment is within.
    pub fn has(&self, time: UnixTime) -> bool {
        let (day, second) = (time.seconds() / DAY_SECS, time.seconds() % DAY_SECS);
        // 1970-01-01 was a Thursday, the fourth day from Monday.
        let weekday = usize::try_from((day + 3) % 7).unwrap_or(0);
        self.days.get(weekday).copied().unwrap_or(false) && (self.from..self.to).contains(&second)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |second: u64| format!("{:02}:{:02}", second / 3600, second / 60 % 60);
        let days = WEEKDAYS.iter().zip(self.days).filter(|(_, has)| *has).map(|(name, _)| *name);
        write!(f, "{}-{} UTC on {}", clock(self.from), clock(self.to), days.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for AlarmOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewPlatform => f.write_str("the first release to a platform"),
            Self::NewMeasurement => f.write_str("the first release to a measurement"),
            Self::MoreLeases { more_than } => write!(f, "more than {more_than} leases at once"),
            Self::OutsideHours(hours) => write!(f, "a release outside {hours}"),
            Self::Canary => f.write_str("any release: a canary"),
        }
    }
}

impl fmt::Display for AlarmThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alarm => "alarm",
            Self::Hold => "hold",
        })
    }
}

impl fmt::Display for AlarmRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}, models {}, then {}", self.on, self.models, self.then)
    }
}
