//! Raises: what approvers let through above a budget, once.

use attestation::{Sha256Digest, UnixTime};

use crate::entry::{ProposedRaise, RaiseAmounts};
use crate::names::Name;
use crate::policy::{AlarmThen, BudgetUnit, OverBudget, Policy};
use crate::snapshot::SnapshotError;
use crate::state::FoldError;
use crate::state::stored::{Reader, Stored, Writer, stored};

/// The most raises that are not yet past their end.
pub const RAISES_MAX: usize = 64;
/// Longest time from its proposal to the end of a raise, in seconds: what is needed for longer is a policy.
pub const RAISE_SECS_MAX: u64 = 7 * 24 * 60 * 60;

/// A raise that has its approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// Index of its `budget` entry.
    pub entry: u64,
    /// What the approvals named. It stays until the raise is past its end, so that nobody has it approved again by the
    /// same signatures.
    pub object: Sha256Digest,
    /// The budget, or the alarm that holds releases.
    pub budget: Name,
    /// What it still lets through.
    pub left: RaiseAmounts,
    /// Its last moment.
    pub until: UnixTime,
}

stored!(Raise { entry, object, budget, left, until });

/// All of them, used up or not.
#[derive(Debug, Clone, Default)]
pub(in crate::state) struct Raises(Vec<Raise>);

impl Stored for Raises {
    fn store(&self, to: &mut Writer) {
        self.0.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Stored::restore(from).map(Self)
    }
}

impl Raises {
    pub(in crate::state) fn all(&self) -> &[Raise] {
        &self.0
    }

    pub(in crate::state) fn is_full(&self) -> bool {
        self.0.len() >= RAISES_MAX
    }

    pub(in crate::state) fn has(&self, object: Sha256Digest) -> bool {
        self.0.iter().any(|raise| raise.object == object)
    }

    pub(in crate::state) fn add(&mut self, entry: u64, proposed: &ProposedRaise) {
        let ProposedRaise { object, budget, until, .. } = proposed;
        self.0.push(Raise { entry, object: *object, budget: budget.clone(), left: proposed.amounts(), until: *until });
    }

    /// Whether one of them lets a held release through.
    pub(in crate::state) fn lets_pass(&self, alarm: &Name, now: UnixTime) -> bool {
        self.left(alarm, BudgetUnit::Releases, now) > 0
    }

    /// Uses up the passing of one held release.
    pub(in crate::state) fn pass(&mut self, alarm: &Name, now: UnixTime) {
        self.charge(alarm, BudgetUnit::Releases, 1, now);
    }

    /// What is left of them for a limit.
    pub(super) fn left(&self, budget: &Name, unit: BudgetUnit, now: UnixTime) -> u64 {
        self.in_force(budget, now).fold(0, |left, raise| left.saturating_add(raise.left.of(unit)))
    }

    /// Uses up what [`Self::left`] has: that which ends first, first.
    pub(super) fn charge(&mut self, budget: &Name, unit: BudgetUnit, mut amount: u64, now: UnixTime) {
        let mut raises: Vec<&mut Raise> =
            self.0.iter_mut().filter(|raise| raise.budget == *budget && now <= raise.until).collect();
        raises.sort_by_key(|raise| (raise.until, raise.entry));
        for raise in raises {
            let part = amount.min(raise.left.of(unit));
            *raise.left.of_mut(unit) -= part;
            amount -= part;
        }
    }

    /// Those past their end: nothing signed for them counts any more.
    pub(super) fn forget(&mut self, time: UnixTime) {
        self.0.retain(|raise| time <= raise.until);
    }

    fn in_force(&self, budget: &Name, now: UnixTime) -> impl Iterator<Item = &Raise> {
        self.0.iter().filter(move |raise| raise.budget == *budget && now <= raise.until)
    }
}

/// What can be raised under this name: the limits of a budget, or the releases that an alarm holds.
fn raisable(name: &Name, policy: &Policy) -> Result<Vec<BudgetUnit>, FoldError> {
    match (policy.budgets().get(name), policy.alarms().get(name).map(|rule| rule.then)) {
        (Some(budget), _) => match budget.over {
            OverBudget::Hold => Ok(budget.limits.keys().copied().collect()),
            OverBudget::Refuse => Err(FoldError::BudgetNotRaisable),
        },
        (None, Some(AlarmThen::Hold)) => Ok(vec![BudgetUnit::Releases]),
        (None, Some(AlarmThen::Alarm)) => Err(FoldError::BudgetNotRaisable),
        (None, None) => Err(FoldError::BudgetUnknown),
    }
}

/// Whether the policy has what a raise would raise.
pub(in crate::state) fn check_raise(
    proposed: &ProposedRaise,
    policy: &Policy,
    time: UnixTime,
) -> Result<(), FoldError> {
    let limits = raisable(&proposed.budget, policy)?;
    let amounts = proposed.amounts();
    let raised: Vec<BudgetUnit> = BudgetUnit::ALL.into_iter().filter(|unit| amounts.of(*unit) > 0).collect();
    if raised.is_empty() {
        return Err(FoldError::RaiseEmpty);
    }
    if let Some(unit) = raised.into_iter().find(|unit| !limits.contains(unit)) {
        return Err(FoldError::RaiseOfNoLimit { key: unit.key() });
    }
    if proposed.until < time || proposed.until > time.plus(RAISE_SECS_MAX) {
        return Err(FoldError::RaiseUntil { until: proposed.until });
    }
    Ok(())
}
