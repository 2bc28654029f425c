//! Permits in force, and what a release needs beside its rule: budgets, alarms that hold, a standing approval, or
//! break-glass in their place.

use attestation::{Sha256Digest, UnixTime};

use super::budgets::{Asked, BudgetRefusal, Charge};
use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::stored::{Reader, Stored, Writer, stored};
use super::vault::Vault;
use crate::entry::{PermitInForce, ProposedPermit, Release};
use crate::names::Name;
use crate::permit::{PERMIT_RELEASES_MAX, Permit, PermitKind, PermitRequest};
use crate::policy::Policy;
use crate::snapshot::SnapshotError;

/// The most permits of one kind that are not yet past their end.
pub const PERMITS_MAX: usize = 64;

/// A permit that has its approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePermit {
    /// Index of its `permit` entry.
    pub entry: u64,
    /// What the approvals named. It stays until the permit is past its end, so that nobody has it approved again by the
    /// same signatures.
    pub object: Sha256Digest,
    /// What was approved.
    pub permit: Permit,
    /// How many releases it still lets through.
    pub left: u64,
}

stored!(ActivePermit { entry, object, permit, left });

/// All of them, used up or not, in the order of their entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Permits(Vec<ActivePermit>);

impl Stored for Permits {
    fn store(&self, to: &mut Writer) {
        self.0.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Stored::restore(from).map(Self)
    }
}

impl Permits {
    pub(super) fn all(&self) -> &[ActivePermit] {
        &self.0
    }

    pub(super) fn is_full(&self, kind: PermitKind) -> bool {
        self.0.iter().filter(|active| active.permit.kind == kind).count() >= PERMITS_MAX
    }

    /// Those past their end: nothing signed for them counts any more.
    pub(super) fn forget(&mut self, time: UnixTime) {
        self.0.retain(|active| time <= active.permit.until);
    }

    /// Another policy is in force: what it does not list is void, and break-glass in any case.
    pub(super) fn follow(&mut self, policy: &Policy) {
        let listed = &policy.approval().standing;
        self.0.retain(|active| match active.permit.kind {
            PermitKind::Standing => listed.contains(&active.object),
            PermitKind::BreakGlass => false,
        });
    }

    /// The one that lets such a release through: that which ends first.
    pub(super) fn covering(&self, kind: PermitKind, asked: &PermitRequest) -> Option<&ActivePermit> {
        let covering =
            |active: &&ActivePermit| active.permit.kind == kind && active.left > 0 && active.permit.covers(asked);
        self.0.iter().filter(covering).min_by_key(|active| (active.permit.until, active.entry))
    }

    pub(super) fn add(&mut self, entry: u64, object: Sha256Digest, permit: &Permit) {
        self.0.push(ActivePermit { entry, object, left: permit.releases, permit: permit.clone() });
    }

    pub(super) fn charge(&mut self, entry: u64) {
        if let Some(active) = self.0.iter_mut().find(|active| active.entry == entry) {
            active.left = active.left.saturating_sub(1);
        }
    }
}

/// By what a release passes all that asks for more than its rule.
#[derive(Debug)]
pub(super) struct Passage {
    charges: Vec<Charge>,
    /// The alarms that hold it, each of which a raise lets it pass.
    raised: Vec<Name>,
    standing: Option<u64>,
    break_glass: Option<u64>,
}

/// The permits that a release uses up one release of, by the indices of their entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsedPermits {
    /// The standing approval that its rule asks for.
    pub standing: Option<u64>,
    /// What let it pass a budget, an alarm that holds, or a standing approval that is not there.
    pub break_glass: Option<u64>,
}

impl Vault {
    /// The permits that have their approvals and are not past their end at the last entry, used up or not.
    pub fn permits(&self) -> &[ActivePermit] {
        &self.permits.0
    }

    /// The permits by which the fold would take a release now; `None` where it would not.
    pub fn permits_used(&self, release: &Release) -> Option<UsedPermits> {
        let Passage { standing, break_glass, .. } = self.passage(release).ok()?;
        Some(UsedPermits { standing, break_glass })
    }

    /// A release takes its part of every budget and permit, and rings as its alarm says, or is refused.
    pub(super) fn spend(&mut self, index: u64, release: &Release) -> Result<(), FoldError> {
        let Passage { charges, raised, standing, break_glass } = self.passage(release)?;
        let policy = std::sync::Arc::clone(self.policy());
        self.budgets.take(&asked(release), &charges, &policy, release.time);
        raised.iter().for_each(|alarm| self.budgets.raises_mut().pass(alarm, release.time));
        [standing, break_glass].into_iter().flatten().for_each(|entry| self.permits.charge(entry));
        self.alarms.take(index, release, break_glass.is_some());
        Ok(())
    }

    fn passage(&self, release: &Release) -> Result<Passage, FoldError> {
        let policy = self.policy();
        let request = PermitRequest::from(release);
        let glass = self.permits.covering(PermitKind::BreakGlass, &request).map(|active| active.entry);
        let mut break_glass = None;
        let charges = match self.budgets.check(&asked(release), policy, &self.leases, release.time) {
            // What can't be counted is not let through by anybody.
            Err(BudgetRefusal::Over(_)) if glass.is_some() => {
                break_glass = glass;
                Vec::new()
            }
            charges => charges.map_err(FoldError::Budget)?,
        };
        let raised = match self.alarms.check(release, policy, &self.leases, self.budgets.raises()) {
            Err(FoldError::AlarmHeld { .. }) if glass.is_some() => {
                break_glass = glass;
                Vec::new()
            }
            raised => raised?,
        };
        let asks = policy.release_rule(&release.rule).is_some_and(|rule| rule.approvals.is_some());
        let standing = match (asks, self.permits.covering(PermitKind::Standing, &request)) {
            (false, _) => None,
            (true, Some(active)) => Some(active.entry),
            (true, None) if glass.is_some() => {
                break_glass = glass;
                None
            }
            (true, None) => return Err(FoldError::ReleaseNotApproved),
        };
        Ok(Passage { charges, raised, standing, break_glass })
    }

    pub(super) fn proposed_permit(
        &self,
        index: u64,
        time: UnixTime,
        proposed: ProposedPermit,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let ProposedPermit { object, permit, statement, signature } = proposed;
        if object != permit.object() {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&statement, &signature)?;
        self.expected(permit.kind.proposal(), object).check(signed.statement(), time)?;
        let threshold = self.permit_threshold(&permit)?;
        if permit.releases == 0 || permit.releases > PERMIT_RELEASES_MAX {
            return Err(FoldError::PermitReleases { releases: permit.releases });
        }
        if permit.until < time || permit.until > time.plus(permit.kind.secs_max()) {
            return Err(FoldError::PermitUntil { kind: permit.kind, until: permit.until });
        }
        // Its approvals are in the log for everybody to send again.
        if self.permits.0.iter().any(|active| active.object == object) {
            return Err(FoldError::PermitRepeated);
        }
        let not_after = signed.statement().not_after.min(permit.until);
        let subject = Subject::Permit { proposer: signed.approver().clone(), permit: Box::new(permit) };
        Ok(PendingProposal::new(index, object, subject, not_after, threshold))
    }

    /// How many approvals a permit takes under the policy in force.
    ///
    /// # Errors
    /// The policy has no such rule, the rule does not name the model, or nothing in it asks for such a permit.
    pub fn permit_threshold(&self, permit: &Permit) -> Result<u32, FoldError> {
        let rule = self.policy().release_rule(&permit.rule).ok_or(FoldError::RuleUnknown)?;
        if !rule.models.permits(&permit.model) {
            return Err(FoldError::ModelNotInRule);
        }
        match permit.kind {
            PermitKind::Standing => rule.approvals.ok_or(FoldError::StandingNotAsked),
            PermitKind::BreakGlass => {
                self.policy().approval().break_glass_threshold.ok_or(FoldError::BreakGlassNotAllowed)
            }
        }
    }

    pub(super) fn permit_in_force(&mut self, index: u64, effect: &PermitInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Permit { permit, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if (effect.object, effect.kind) != (proposal.object(), permit.kind) {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        if self.permits.is_full(permit.kind) {
            return Err(FoldError::TooManyPermits);
        }
        self.permits.add(index, effect.object, permit);
        self.proposals.void(effect.proposal);
        Ok(())
    }
}

fn asked(release: &Release) -> Asked<'_> {
    Asked { model: &release.model, platform: release.platform, bytes: release.units.bytes }
}
