//! Why a budget lets a release not through.

use std::fmt;

use attestation::UnixTime;

use super::BudgetOf;
use crate::names::Name;
use crate::policy::{BudgetUnit, OverBudget};

/// Why the budgets let a release not through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// It would pass a limit.
    Over(Box<BudgetExcess>),
    /// More releases in a day than are counted.
    HistoryFull,
}

/// A limit that a release would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetExcess {
    /// Name of the budget.
    pub budget: Name,
    /// Whose use it is.
    pub of: BudgetOf,
    /// What is counted.
    pub unit: BudgetUnit,
    /// The policy's limit.
    pub limit: u64,
    /// What counts now.
    pub used: u64,
    /// What the release would add.
    pub asked: u64,
    /// What approved raises still let through above the limit; less than it takes.
    pub raised: u64,
    /// Whether approvers can let it through.
    pub over: OverBudget,
    /// When it would pass, if nothing else is released or renewed and the keeper runs until then; `None`: never.
    pub passes_at: Option<UnixTime>,
}

impl BudgetRefusal {
    /// Stable code: which limit, or that approvers can let it through.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HistoryFull => "budget-history-full",
            Self::Over(excess) => match (excess.over, excess.unit) {
                (OverBudget::Hold, _) => "held-for-approval",
                (OverBudget::Refuse, BudgetUnit::Bytes) => "budget-bytes",
                (OverBudget::Refuse, BudgetUnit::Releases) => "budget-releases",
                (OverBudget::Refuse, BudgetUnit::Platforms) => "budget-platforms",
                (OverBudget::Refuse, BudgetUnit::Leases) => "budget-leases",
            },
        }
    }

    /// The key of the policy that asks for it.
    pub fn policy_key(&self) -> Option<String> {
        match self {
            Self::HistoryFull => None,
            Self::Over(excess) => Some(format!("budget.{}.{}", excess.budget, excess.unit.key())),
        }
    }

    /// What should have been.
    pub fn expected(&self) -> String {
        match self {
            Self::HistoryFull => format!("at most {} releases in 24 hours, which are all counted", super::HISTORY_MAX),
            Self::Over(excess) => format!("at most {} {} of {}", excess.limit, excess.unit, excess.of),
        }
    }

    /// What was, and what lets it through.
    pub fn seen(&self) -> String {
        match self {
            Self::HistoryFull => "more".to_owned(),
            Self::Over(excess) => excess.to_string(),
        }
    }
}

impl fmt::Display for BudgetExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} used and {} more asked for", self.used, self.asked)?;
        if self.raised > 0 {
            write!(f, ", {} of it raised", self.raised)?;
        }
        match self.passes_at {
            Some(at) => {
                write!(f, "; passes at {at} if nothing else is released or renewed and the keeper runs until then")?
            }
            None => f.write_str("; never passes under this policy")?,
        }
        match self.over {
            OverBudget::Refuse => Ok(()),
            OverBudget::Hold => write!(f, "; approvers let it through: vaultctl propose budget {}", self.budget),
        }
    }
}

impl fmt::Display for BudgetRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, seen {}", self.expected(), self.seen())
    }
}
