//! What a load needs beside its rule: room in the budgets, no alarm that holds it, the approvals that the rule asks for, or
//! break-glass in their place. One decision, of the vault as it is, and of a past under another policy.

use attestation::{Sha256Digest, UnixTime};

use super::alarms::{Alarms, Watched};
use super::budgets::{Asked, BudgetRefusal, BudgetUse, Budgets, Charge};
use super::leases::Leases;
use super::permits::{ActivePermit, Permits};
use super::vault::Vault;
use crate::decide::DenialReason;
use crate::names::{Name, Version};
use crate::permit::{PermitKind, PermitRequest};
use crate::policy::{AlarmRule, AlarmThen, Policy, ReleaseRule};
use crate::revocation::Marks;

/// What is left of budgets and permits, what alarms know, and which leases run, under a policy.
#[derive(Debug, Clone, Copy)]
pub struct Allowances<'a> {
    pub(super) policy: &'a Policy,
    pub(super) budgets: &'a Budgets,
    pub(super) alarms: &'a Alarms,
    pub(super) permits: &'a Permits,
    pub(super) leases: &'a Leases,
}

/// A load that its rule permits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedLoad<'a> {
    pub(crate) rule_name: &'a Name,
    pub(crate) rule: &'a ReleaseRule,
    pub(crate) model: &'a Name,
    pub(crate) version: &'a Version,
    pub(crate) platform: Sha256Digest,
    /// Plaintext bytes of the units.
    pub(crate) bytes: u64,
    pub(crate) marks: Option<&'a Marks>,
    /// What was measured, as far as it is known.
    pub(crate) measurement: Option<Sha256Digest>,
    pub(crate) now: UnixTime,
}

/// By what a load passes.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(super) charges: Vec<Charge>,
    /// The alarm rules that ring for it, ascending.
    pub(crate) rings: Vec<Name>,
    /// Those of them that hold it, each of which a raise lets it pass.
    pub(super) raised: Vec<Name>,
    pub(super) standing: Option<u64>,
    pub(super) break_glass: Option<u64>,
}

impl<'a> AskedLoad<'a> {
    fn permits(&self) -> PermitRequest<'a> {
        let Self { rule_name: rule, model, version, platform, marks, now, .. } = *self;
        PermitRequest { rule, model, version, platform, marks, now }
    }

    pub(super) fn budgets(&self) -> Asked<'a> {
        Asked { model: self.model, platform: self.platform, bytes: self.bytes }
    }
}

impl<'a> Allowances<'a> {
    /// The policy.
    pub fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// How many leases of a rule run at `now`.
    pub fn lease_count(&self, rule: &Name, now: UnixTime) -> u32 {
        self.leases.count(rule, now)
    }

    /// Every limit of its budgets that is in use at `now`.
    pub fn budget_uses(&self, now: UnixTime) -> Vec<BudgetUse> {
        self.budgets.uses(self.policy, self.leases, now)
    }

    /// The permits that are not past their end, used up or not.
    pub fn permits(&self) -> &'a [ActivePermit] {
        self.permits.all()
    }

    /// By what a load passes, or what holds it.
    pub(crate) fn check(&self, asked: &AskedLoad<'_>) -> Result<Passage, DenialReason> {
        let (permits, now) = (asked.permits(), asked.now);
        let glass = self.permits.covering(PermitKind::BreakGlass, &permits).map(|active| active.entry);
        let mut break_glass = None;
        let charges = match self.budgets.check(&asked.budgets(), self.policy, self.leases, now) {
            // What can't be counted is not let through by anybody.
            Err(BudgetRefusal::Over(_)) if glass.is_some() => {
                break_glass = glass;
                Vec::new()
            }
            judged => judged.map_err(DenialReason::Budget)?,
        };
        let watched = Watched { model: asked.model, platform: asked.platform, measurement: asked.measurement, now };
        let ringing: Vec<(&Name, &AlarmRule)> = self.alarms.ringing(watched, self.policy, self.leases).collect();
        let mut raised: Vec<Name> = Vec::new();
        for (alarm, rule) in ringing.iter().filter(|(_, rule)| rule.then == AlarmThen::Hold) {
            match self.budgets.raises().lets_pass(alarm, now) {
                true => raised.push((*alarm).clone()),
                false if glass.is_some() => break_glass = glass,
                false => return Err(DenialReason::HeldByAlarm { alarm: (*alarm).clone(), on: rule.on.clone() }),
            }
        }
        let standing = match (asked.rule.approvals, self.permits.covering(PermitKind::Standing, &permits)) {
            (None, _) => None,
            (Some(_), Some(active)) => Some(active.entry),
            (Some(_), None) if glass.is_some() => {
                break_glass = glass;
                None
            }
            (Some(approvals), None) => {
                return Err(DenialReason::NotApproved { rule: asked.rule_name.clone(), approvals });
            }
        };
        let rings = ringing.into_iter().map(|(name, _)| name.clone()).collect();
        Ok(Passage { charges, rings, raised, standing, break_glass })
    }
}

impl Vault {
    /// What is left under the policy in force.
    pub fn allowances(&self) -> Allowances<'_> {
        let Self { budgets, alarms, permits, leases, .. } = self;
        Allowances { policy: self.policy(), budgets, alarms, permits, leases }
    }
}
