//! The leases that count, kept so that neither a release nor the passing of time walks over all of them.

mod stored_leases;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attestation::{LeaseKey, Sha256Digest, Trust, UnixTime, Workload};

use super::budgets::{BudgetOf, LeaseTally};
use super::error::FoldError;
use crate::entry::{Machine, Release, ReleasedUnits};
use crate::extension::ApprovedExtension;
use crate::names::{Name, Version};
use crate::policy::{Budget, Permitted, Policy, ReleaseRule};
use crate::revocation::{Holding, Marks, Scope};

/// How much later than its decision a renewal may stand in the log, in seconds (DESIGN: renewals join the next commit).
pub const RENEWAL_COMMIT_SECS_MAX: u64 = 300;

/// A lease, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Index of its `release` entry.
    pub entry: u64,
    /// The rule it was granted under, by name: a renewal needs the rule of that name in force.
    pub rule: Name,
    /// That rule as it was then.
    pub granted_under: Arc<ReleaseRule>,
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// What was released.
    pub units: ReleasedUnits,
    /// Signs renewals and the end.
    pub lease_key: LeaseKey,
    /// Platform id of the guest.
    pub platform: Sha256Digest,
    /// Which boot of which machine it belongs to.
    pub machine: Machine,
    /// What its proof rests on.
    pub tier: Trust,
    /// What a revocation finds it by.
    pub marks: Option<Marks>,
    /// What runs under it, as its release says.
    pub workload: Option<Workload>,
    /// Index of the `revoke` entry that ended it. It still counts until its holder has said that it ended, or `renew_by`.
    pub revoked: Option<u64>,
    /// Until when it runs by an extension, since its last renewal.
    pub extended: Option<UnixTime>,
    /// When it was granted or last renewed.
    pub issued: UnixTime,
    /// Its last moment without a renewal.
    pub renew_by: UnixTime,
    /// How long it ran last time, in seconds.
    seconds: u64,
    /// The policy that `granted_under` is of.
    policy: Arc<Policy>,
}

impl Lease {
    pub(super) fn of(entry: u64, release: Release, rule: Arc<ReleaseRule>, policy: Arc<Policy>) -> Self {
        Self {
            entry,
            rule: release.rule,
            seconds: rule.lease.seconds(),
            granted_under: rule,
            model: release.model,
            version: release.version,
            units: release.units,
            lease_key: release.lease_key,
            platform: release.platform,
            machine: release.machine,
            tier: release.tier,
            marks: release.marks,
            workload: release.workload,
            revoked: None,
            extended: None,
            issued: release.issued,
            renew_by: release.renew_by,
            policy,
        }
    }

    /// Until when its holder may have it signed, whatever that has heard of since: a renewal that ends sooner, and is lost on
    /// its way, would end it in the count alone. What an extension says no keeper has signed.
    pub fn signed_until(&self) -> UnixTime {
        match self.extended {
            None => self.renew_by,
            Some(_) => self.issued.plus(self.seconds),
        }
    }

    /// As revocations look at it; `id` is its own.
    pub fn holding(&self, id: Sha256Digest) -> Holding<'_> {
        Holding {
            lease: id,
            model: &self.model,
            version: &self.version,
            platform: self.platform,
            rule: &self.granted_under,
            marks: self.marks.as_ref(),
        }
    }
}

/// Leases by id, and by the time at which they run out.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    by_id: BTreeMap<Sha256Digest, Lease>,
    /// Those that run at the time of the last entry.
    running: Running,
    /// Those that ran out less than [`RENEWAL_COMMIT_SECS_MAX`] ago, by `renew_by`: a renewal decided in time may still
    /// come.
    lapsed: BTreeSet<(UnixTime, Sha256Digest)>,
}

#[derive(Debug, Clone, Default)]
struct Running {
    by_end: BTreeSet<(UnixTime, Sha256Digest)>,
    count_by_rule: BTreeMap<Name, u32>,
    tally: LeaseTally,
}

impl Leases {
    pub(super) fn get(&self, id: Sha256Digest) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(super) fn in_force(&self, now: UnixTime) -> impl Iterator<Item = (Sha256Digest, &Lease)> {
        self.by_id.iter().filter(move |(_, lease)| now <= lease.renew_by).map(|(id, lease)| (*id, lease))
    }

    /// How many leases of the rule run at `now`, which is not before the last entry.
    pub(super) fn count(&self, rule: &Name, now: UnixTime) -> u32 {
        let running = self.running.count_by_rule.get(rule).copied().unwrap_or(0);
        let ended = self.running.by_end.iter().take_while(|(renew_by, _)| *renew_by < now);
        let ended = ended.filter(|(_, id)| self.get(*id).is_some_and(|lease| lease.rule == *rule)).count();
        running.saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX))
    }

    /// How many leases that a budget covers run at `now`, of one subject.
    pub(super) fn count_of(&self, budget: &Budget, of: &BudgetOf, now: UnixTime) -> u64 {
        let ended = self.running.by_end.iter().take_while(|(renew_by, _)| *renew_by < now);
        let ended = ended.filter(|(_, id)| self.is_of(*id, budget, of)).count();
        self.running.tally.count(budget, of).saturating_sub(ended as u64)
    }

    /// How many leases of these models run at `now`.
    pub(super) fn count_covered(&self, models: &Permitted<Name>, now: UnixTime) -> u64 {
        let ended = self.running.by_end.iter().take_while(|(renew_by, _)| *renew_by < now);
        let ended = ended.filter(|(_, id)| self.get(*id).is_some_and(|lease| models.permits(&lease.model))).count();
        self.running.tally.count_covered(models).saturating_sub(ended as u64)
    }

    /// The last moments of those leases, the first one first.
    pub(super) fn ends_of(&self, budget: &Budget, of: &BudgetOf, now: UnixTime) -> impl Iterator<Item = UnixTime> {
        let running = self.running.by_end.iter().filter(move |(renew_by, _)| *renew_by >= now);
        running.filter(move |(_, id)| self.is_of(*id, budget, of)).map(|(renew_by, _)| *renew_by)
    }

    /// The subjects that have leases which a budget covers.
    pub(super) fn subjects(&self, budget: &Budget) -> Vec<BudgetOf> {
        self.running.tally.subjects(budget)
    }

    fn is_of(&self, id: Sha256Digest, budget: &Budget, of: &BudgetOf) -> bool {
        self.get(id).is_some_and(|lease| budget.covers(&lease.model) && of.has(&lease.model, lease.platform))
    }

    pub(super) fn add(&mut self, id: Sha256Digest, lease: Lease) {
        self.running.insert(id, &lease);
        self.by_id.insert(id, lease);
    }

    pub(super) fn end(&mut self, id: Sha256Digest) -> Result<(), FoldError> {
        self.remove(id).map(drop).ok_or(FoldError::LeaseUnknown)
    }

    /// Does nothing where there is no such lease; the caller has checked that.
    pub(super) fn renew(&mut self, id: Sha256Digest, issued: UnixTime, renew_by: UnixTime) {
        if let Some(mut lease) = self.remove(id) {
            lease.issued = issued;
            lease.renew_by = renew_by;
            lease.extended = None;
            lease.seconds = renew_by.seconds().saturating_sub(issued.seconds());
            self.add(id, lease);
        }
    }

    /// Those that run at `now`, are covered, and no revocation has ended yet.
    pub(super) fn covered(&self, scope: &Scope, now: UnixTime) -> Vec<Sha256Digest> {
        let runs = self.in_force(now).filter(|(_, lease)| lease.revoked.is_none());
        runs.filter(|(id, lease)| scope.covers(&lease.holding(*id))).map(|(id, _)| id).collect()
    }

    /// Ends what is covered: no renewal from here on, also of one that has just run out and could still get one.
    pub(super) fn revoke(&mut self, scope: &Scope, revocation: u64) {
        for (id, lease) in &mut self.by_id {
            if lease.revoked.is_none() && scope.covers(&lease.holding(*id)) {
                lease.revoked = Some(revocation);
            }
        }
    }

    /// Those that an extension lets run on at `now`, the ones among them that have just run out.
    pub(super) fn extended(&self, extension: &ApprovedExtension, now: UnixTime) -> Vec<Sha256Digest> {
        let longer = |id: Sha256Digest, lease: &Lease| {
            let until = extension.until(id, &lease.model, &lease.version, now);
            lease.revoked.is_none() && until.is_ok_and(|until| until > lease.renew_by)
        };
        self.by_id.iter().filter(|(id, lease)| longer(**id, lease)).map(|(id, _)| *id).collect()
    }

    /// They run until then.
    pub(super) fn extend(&mut self, leases: &[Sha256Digest], until: UnixTime) {
        for id in leases {
            if let Some(mut lease) = self.remove(*id) {
                lease.renew_by = until;
                lease.extended = Some(until);
                self.add(*id, lease);
            }
        }
    }

    pub(super) fn any_revoked_by(&self, revocation: u64) -> bool {
        self.by_id.values().any(|lease| lease.revoked == Some(revocation))
    }

    /// Every lease that was not over at `last` runs one full lease from `start` on: no less than it says, nor than it was
    /// last granted, where the rule has become shorter since. Its holder has that signed. One that was revoked had no
    /// renewal since, and all before it are in the log.
    pub(super) fn restart(&mut self, last: UnixTime, start: UnixTime, policy: &Policy) {
        for (id, lease) in &mut self.by_id {
            if lease.renew_by < last || lease.revoked.is_some() {
                continue;
            }
            let rule = policy.release_rule(&lease.rule).map_or(0, |rule| rule.lease.seconds());
            let until = start.plus(rule.max(lease.seconds));
            // It runs at `last`, so only its place in the order of ends changes.
            if until > lease.renew_by && self.running.by_end.remove(&(lease.renew_by, *id)) {
                self.running.by_end.insert((until, *id));
                lease.renew_by = until;
            }
        }
    }

    /// The time of the last entry is now `time`.
    pub(super) fn advance(&mut self, time: UnixTime) {
        while let Some(&(renew_by, id)) = self.running.by_end.first().filter(|(renew_by, _)| *renew_by < time) {
            if let Some(lease) = self.by_id.get(&id) {
                self.running.remove(id, lease);
            }
            self.lapsed.insert((renew_by, id));
        }
        let forgotten = |renew_by: UnixTime| renew_by.plus(RENEWAL_COMMIT_SECS_MAX) < time;
        while let Some(&(_, id)) = self.lapsed.first().filter(|(renew_by, _)| forgotten(*renew_by)) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: Sha256Digest) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.running.remove(id, &lease);
        self.lapsed.remove(&(lease.renew_by, id));
        Some(lease)
    }
}

impl Running {
    fn insert(&mut self, id: Sha256Digest, lease: &Lease) {
        self.by_end.insert((lease.renew_by, id));
        self.tally.add(&lease.model, lease.platform);
        match self.count_by_rule.get_mut(&lease.rule) {
            Some(count) => *count += 1,
            None => drop(self.count_by_rule.insert(lease.rule.clone(), 1)),
        }
    }

    /// Does nothing where the lease no longer runs.
    fn remove(&mut self, id: Sha256Digest, lease: &Lease) {
        if !self.by_end.remove(&(lease.renew_by, id)) {
            return;
        }
        self.tally.remove(&lease.model, lease.platform);
        if let Some(count) = self.count_by_rule.get_mut(&lease.rule) {
            *count -= 1;
            if *count == 0 {
                self.count_by_rule.remove(&lease.rule);
            }
        }
    }
}
