//! What the budgets of the policy in force have used: sliding windows over the releases of the last day, exact to the
//! second, and the leases that run.
//!
//! **The reservation is the entry.** A release counts from its entry on, also while that waits for its commit: the next
//! decision sees it.
//!
//! **Time.** Windows do not slide by the time of the entries, which a host can set ahead, but by *measured time*: the sum of
//! the time between entries, less what no keeper measured. That is all of the time between an entry and a `start` behind it,
//! and what a `clock` entry says. So neither a restart nor a clock that is set ahead refills a budget.
//!
//! **Memory.** One record for each release of a measured day, at most [`HISTORY_MAX`].

mod history;
mod leases;
mod raises;
mod refusal;
mod view;

use std::collections::BTreeMap;

use attestation::{Sha256Digest, UnixTime};

use history::{Granted, History, Tally};
pub(super) use leases::LeaseTally;
pub use raises::{RAISE_SECS_MAX, RAISES_MAX, Raise};
pub(super) use raises::{Raises, check_raise};
pub use refusal::{BudgetExcess, BudgetRefusal};
use view::View;

use super::leases::Leases;
use super::stored::{Reader, Stored, Writer};
use crate::names::Name;
use crate::policy::{Budget, BudgetPer, BudgetUnit, OverBudget, Policy};
use crate::snapshot::SnapshotError;

/// The most releases of a measured day that are counted. With one more a release is refused while there are budgets:
/// what is not counted can't be limited. Without budgets the oldest is forgotten.
pub const HISTORY_MAX: usize = 1 << 18;
/// The most lines that a status has for one budget: those that used most of it.
const USES_PER_BUDGET_MAX: usize = 64;

/// Whose use of a budget is added up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetOf {
    /// The whole vault's.
    Vault,
    /// That of one model.
    Model(Name),
    /// That of one platform.
    Platform(Sha256Digest),
}

impl BudgetOf {
    fn of(per: BudgetPer, model: &Name, platform: Sha256Digest) -> Self {
        match per {
            BudgetPer::Vault => Self::Vault,
            BudgetPer::Model => Self::Model(model.clone()),
            BudgetPer::Platform => Self::Platform(platform),
        }
    }

    /// Whether a release or a lease of this model on this platform is part of it.
    pub(super) fn has(&self, model: &Name, platform: Sha256Digest) -> bool {
        match self {
            Self::Vault => true,
            Self::Model(of) => of == model,
            Self::Platform(of) => *of == platform,
        }
    }
}

impl std::fmt::Display for BudgetOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vault => f.write_str("the vault"),
            Self::Model(model) => write!(f, "model {model}"),
            Self::Platform(platform) => write!(f, "platform {platform}"),
        }
    }
}

/// A release that asks for its part of the budgets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a Name,
    pub(crate) platform: Sha256Digest,
    /// Plaintext bytes of the units.
    pub(crate) bytes: u64,
}

/// How much of a limit is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetUse {
    /// Name of the budget.
    pub budget: Name,
    /// Whose use it is.
    pub of: BudgetOf,
    /// What is counted.
    pub unit: BudgetUnit,
    /// The policy's limit.
    pub limit: u64,
    /// What counts now. More than the limit where a raise let it through, or where the policy became stricter.
    pub used: u64,
    /// What approved raises still let through above the limit.
    pub raised: u64,
    /// When the oldest of what counts no longer does, if the keeper runs until then; `None` where nothing counts.
    pub frees_at: Option<UnixTime>,
}

/// A part of a raise that a release uses up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    budget: Name,
    unit: BudgetUnit,
    amount: u64,
}

/// The state of all budgets.
#[derive(Debug, Clone, Default)]
pub(super) struct Budgets {
    history: History,
    /// By budget and whose use it is; follows from the history and the policy in force.
    tallies: BTreeMap<Name, BTreeMap<BudgetOf, Tally>>,
    raises: Raises,
}

/// Without the tallies: [`Budgets::count`] makes them again.
impl Stored for Budgets {
    fn store(&self, to: &mut Writer) {
        let Self { history, tallies: _, raises } = self;
        history.store(to);
        raises.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (history, raises) = (Stored::restore(from)?, Stored::restore(from)?);
        Ok(Self { history, tallies: BTreeMap::new(), raises })
    }
}

impl Budgets {
    /// The time of the last entry is now `time`; of the time since the one before, `unmeasured` seconds do not count.
    pub(super) fn advance(&mut self, time: UnixTime, unmeasured: u64, policy: &Policy) {
        self.history.pass(time, unmeasured);
        let tallies = &mut self.tallies;
        self.history.forget(|granted, part| {
            each_tally(tallies, policy, granted, |tally| tally.leave(granted, part));
        });
        self.raises.forget(time);
    }

    /// Seconds between the last entry and `time`.
    pub(super) fn gap(&self, time: UnixTime) -> u64 {
        self.history.gap(time)
    }

    /// Another policy is in force: its budgets count what the last day had. No raise outlives the policy that it was
    /// approved under.
    pub(super) fn follow(&mut self, policy: &Policy) {
        self.raises = Raises::default();
        self.count(policy);
    }

    /// Adds up what the last day had, by the budgets of a policy.
    pub(super) fn count(&mut self, policy: &Policy) {
        self.tallies.clear();
        let tallies = &mut self.tallies;
        self.history.each(|granted, part| {
            each_tally(tallies, policy, granted, |tally| tally.enter(granted, part));
        });
    }

    /// Whether the budgets let a release through at `now`, and by which raises.
    pub(super) fn check(
        &self,
        asked: &Asked<'_>,
        policy: &Policy,
        leases: &Leases,
        now: UnixTime,
    ) -> Result<Vec<Charge>, BudgetRefusal> {
        if policy.budgets().is_empty() {
            return Ok(Vec::new());
        }
        if self.history.count_at(now) >= HISTORY_MAX {
            return Err(BudgetRefusal::HistoryFull);
        }
        let (mut charges, mut held) = (Vec::new(), None);
        for (name, budget) in policy.budgets().iter().filter(|(_, budget)| budget.covers(asked.model)) {
            let of = BudgetOf::of(budget.per, asked.model, asked.platform);
            for (&unit, &limit) in &budget.limits {
                let view = View { name, budget, of: &of, unit, budgets: self, leases, now };
                let (used, wanted) = (view.used(), view.wanted(asked));
                let need = (used + u128::from(wanted)).saturating_sub(limit.into()).min(wanted.into());
                let need = u64::try_from(need).expect("at most what is wanted");
                if need == 0 {
                    continue;
                }
                let raised = self.raises.left(name, unit, now);
                match budget.over {
                    OverBudget::Hold if need <= raised => {
                        charges.push(Charge { budget: name.clone(), unit, amount: need });
                    }
                    // What no approval lets through is said first.
                    OverBudget::Refuse => return Err(view.excess(used, wanted, limit, raised)),
                    OverBudget::Hold => {
                        held.get_or_insert_with(|| view.excess(used, wanted, limit, raised));
                    }
                }
            }
        }
        held.map_or(Ok(charges), Err)
    }

    /// Counts a release that [`Self::check`] let through.
    pub(super) fn take(&mut self, asked: &Asked<'_>, charges: &[Charge], policy: &Policy, now: UnixTime) {
        charges.iter().for_each(|charge| self.raises.charge(&charge.budget, charge.unit, charge.amount, now));
        let granted = self.history.push(asked, now);
        for part in Part::ALL {
            each_tally(&mut self.tallies, policy, granted, |tally| tally.enter(granted, part));
        }
    }

    /// The raises that approvers gave.
    pub(super) fn raises(&self) -> &Raises {
        &self.raises
    }

    pub(super) fn raises_mut(&mut self) -> &mut Raises {
        &mut self.raises
    }

    /// Every limit that is in use, by budget; of a budget for each platform or model, the most used.
    pub(super) fn uses(&self, policy: &Policy, leases: &Leases, now: UnixTime) -> Vec<BudgetUse> {
        let of_budget = |(name, budget): (&Name, &Budget)| {
            let mut subjects: Vec<BudgetOf> =
                self.tallies.get(name).into_iter().flat_map(|of| of.keys().cloned()).collect();
            subjects.extend(leases.subjects(budget));
            subjects.extend((budget.per == BudgetPer::Vault).then_some(BudgetOf::Vault));
            subjects.sort();
            subjects.dedup();
            let lines = subjects.iter().flat_map(|of| {
                budget.limits.iter().map(move |(&unit, &limit)| {
                    let view = View { name, budget, of, unit, budgets: self, leases, now };
                    view.line(limit, self.raises.left(name, unit, now))
                })
            });
            let mut lines: Vec<BudgetUse> = lines.collect();
            lines.sort_by_key(|line| std::cmp::Reverse(line.used));
            lines.truncate(USES_PER_BUDGET_MAX);
            lines.sort_by(|a, b| (&a.of, a.unit).cmp(&(&b.of, b.unit)));
            lines
        };
        policy.budgets().iter().flat_map(of_budget).collect()
    }
}

/// Which window of a release begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Hour,
    Day,
}

impl Part {
    const ALL: [Self; 2] = [Self::Hour, Self::Day];
}

/// The tallies that a release is part of. An empty one is dropped.
fn each_tally(
    tallies: &mut BTreeMap<Name, BTreeMap<BudgetOf, Tally>>,
    policy: &Policy,
    granted: &Granted,
    mut change: impl FnMut(&mut Tally),
) {
    for (name, budget) in policy.budgets().iter().filter(|(_, budget)| budget.covers(&granted.model)) {
        let of = BudgetOf::of(budget.per, &granted.model, granted.platform);
        let of_budget = tallies.entry(name.clone()).or_default();
        let tally = of_budget.entry(of.clone()).or_default();
        change(tally);
        if tally.is_empty() {
            of_budget.remove(&of);
        }
        if of_budget.is_empty() {
            tallies.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"format = 1
vault = "genesis"
serial = 1
prev = "none"
not_after = "2027-03-01T00:00:00Z"
[approval]
threshold = 1
proposer_may_approve = true
approvers = [{ id = "a", key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVDBTmwHVi0DWcFS9xzs3BHy2lDCFDdgeL5JJ3hbMJd" }]
[keeper]
require = ["tpm"]
pcrs = { 7 = ["1111111111111111111111111111111111111111111111111111111111111111"] }
eks = "any"
[audit]
readers = "any"
"#;
    const BUDGET: &str = "[budget.b]\nper = \"vault\"\nmodels = \"any\"\nreleases_per_hour = 1\nover = \"hold\"\n";

    /// What is not counted can't be limited: with budgets nothing more is released, without the oldest is forgotten.
    #[test]
    fn more_releases_than_are_counted_are_refused_while_there_are_budgets() {
        let (none, some) = (Policy::parse(POLICY).unwrap(), Policy::parse(&format!("{POLICY}{BUDGET}")).unwrap());
        let (leases, model) = (Leases::default(), "m".parse().unwrap());
        let asked = Asked { model: &model, platform: Sha256Digest::from_bytes([1; 32]), bytes: 1 };
        let (mut budgets, start) = (Budgets::default(), UnixTime(1_800_000_000));
        budgets.advance(start, 0, &none);
        budgets.take(&asked, &[], &none, start);
        let later = start.plus(7200);
        budgets.advance(later, 0, &none);
        for _ in 1..HISTORY_MAX {
            budgets.take(&asked, &[], &none, later);
        }
        assert_eq!(budgets.check(&asked, &some, &leases, later), Err(BudgetRefusal::HistoryFull));
        assert_eq!(BudgetRefusal::HistoryFull.code(), "budget-history-full");
        assert_eq!(budgets.check(&asked, &none, &leases, later), Ok(Vec::new()));
        // The first is out of its day: there is room for one, if its limit has any.
        let day = start.plus(24 * 60 * 60);
        assert_eq!(budgets.check(&asked, &some, &leases, day).map(|charges| charges.len()), Ok(0));
        // Without budgets the number that is kept does not grow.
        budgets.take(&asked, &[], &none, later);
        assert_eq!(budgets.history.count_at(later), HISTORY_MAX);
        budgets.follow(&some);
        let used = budgets.uses(&some, &leases, later);
        assert_eq!(used[0].used, HISTORY_MAX as u64);
    }
}
