//! `[budget.NAME]`: how much may be released in a time, whoever asks.

use std::collections::BTreeMap;
use std::fmt;

use super::rules::Permitted;
use crate::names::Name;

/// The most budgets of a policy: a release is held against each of them.
pub const BUDGETS_MAX: usize = 16;

/// `[budget.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Whose releases are added up.
    pub per: BudgetPer,
    /// Which models it covers. A release of another is not counted, and not limited.
    pub models: Permitted<Name>,
    /// The limits: at least one, none zero.
    pub limits: BTreeMap<BudgetUnit, u64>,
    /// What comes of a release that passes one of them.
    pub over: OverBudget,
}

/// `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetPer {
    /// Each model by itself.
    Model,
    /// Each platform by itself.
    Platform,
    /// All that the vault releases.
    Vault,
}

/// What a budget counts. The order is that in which a refusal names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetUnit {
    /// `bytes_per_day`: plaintext bytes of the granted units.
    Bytes,
    /// `releases_per_hour`.
    Releases,
    /// `platforms_per_day`: distinct platforms.
    Platforms,
    /// `leases` that run at once.
    Leases,
}

/// `over`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverBudget {
    /// It is refused: only another policy lets more through.
    Refuse,
    /// It is refused until approvers raise the budget.
    Hold,
}

impl Budget {
    /// Whether a release of this model counts.
    pub fn covers(&self, model: &Name) -> bool {
        self.models.permits(model)
    }
}

impl BudgetUnit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bytes, Self::Releases, Self::Platforms, Self::Leases];

    /// The key of the policy.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Bytes => "bytes_per_day",
            Self::Releases => "releases_per_hour",
            Self::Platforms => "platforms_per_day",
            Self::Leases => "leases",
        }
    }

    /// Length of its window in seconds; leases have none, they count while they run.
    pub const fn window_secs(self) -> Option<u64> {
        match self {
            Self::Bytes | Self::Platforms => Some(24 * 60 * 60),
            Self::Releases => Some(60 * 60),
            Self::Leases => None,
        }
    }
}

impl fmt::Display for BudgetUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes in 24 hours",
            Self::Releases => "releases in one hour",
            Self::Platforms => "platforms in 24 hours",
            Self::Leases => "leases at once",
        })
    }
}

impl fmt::Display for BudgetPer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Platform => "platform",
            Self::Vault => "vault",
        })
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Hold => "hold",
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "per {}, models {}", self.per, self.models)?;
        self.limits.iter().try_for_each(|(unit, limit)| write!(f, ", at most {limit} {unit}"))?;
        write!(f, ", over it: {}", self.over)
    }
}
