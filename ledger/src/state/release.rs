//! Releases and renewals as the fold sees them: everything that can be checked without the evidence itself. What the
//! evidence showed is checked by `decide` before the entry, and by an auditor who reads the blobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use attestation::lease_id;

use super::error::FoldError;
use super::leases::{Lease, RENEWAL_COMMIT_SECS_MAX};
use super::vault::Vault;
use crate::entry::{Release, Renew, Renewal};
use crate::policy::{BareEks, ReleaseRule};

impl Vault {
    pub(super) fn release(&mut self, index: u64, release: Release) -> Result<(), FoldError> {
        self.check_policy_runs(release.time)?;
        let policy = self.policy();
        if release.policy != policy.digest() {
            return Err(FoldError::PolicyNotInForce);
        }
        let rule = Arc::clone(policy.release_rule(&release.rule).ok_or(FoldError::RuleUnknown)?);
        if !policy.can_yield(&rule.guest, release.tier) && !self.enrolled_yields(&rule, &release) {
            return Err(FoldError::TierImpossible);
        }
        self.check_released_model(&release, &rule)?;
        if !rule.guest.permits_platform(release.platform) {
            return Err(FoldError::PlatformNotListed);
        }
        if release.marks.as_ref().is_some_and(|marks| !marks.are_possible(&rule)) {
            return Err(FoldError::MarksImpossible);
        }
        rule.workloads.check_load(release.workload.as_ref()).map_err(FoldError::Workload)?;
        self.check_new_lease(&release, &rule)?;
        let (id, lease) = (release.lease, Lease::of(index, release.clone(), rule, Arc::clone(policy)));
        self.check_not_revoked(&lease.holding(id))?;
        self.spend(index, &release)?;
        self.leases.add(id, lease);
        Ok(())
    }

    /// Whether the platform was enrolled, and so can have this tier without an anchor.
    fn enrolled_yields(&self, rule: &ReleaseRule, release: &Release) -> bool {
        let enrolled = self.platforms().get(release.platform);
        match rule.guest.bare_eks() {
            BareEks::Enrolled => enrolled.is_some_and(|enrolled| enrolled.counts_as == release.tier),
            BareEks::Refused => false,
        }
    }

    fn check_released_model(&self, release: &Release, rule: &ReleaseRule) -> Result<(), FoldError> {
        if !rule.models.permits(&release.model) {
            return Err(FoldError::ModelNotInRule);
        }
        let model = self.model(&release.model, &release.version).ok_or(FoldError::ModelUnknown)?;
        if release.manifest != model.proposed.manifest {
            return Err(FoldError::ManifestMismatch);
        }
        let units = release.units;
        if units.count == 0 || units.count > model.proposed.units || units.bytes > model.proposed.bytes {
            return Err(FoldError::UnitsImpossible);
        }
        Ok(())
    }

    fn check_new_lease(&self, release: &Release, rule: &ReleaseRule) -> Result<(), FoldError> {
        if release.lease != lease_id(&self.id(), &release.session, &release.lease_key) {
            return Err(FoldError::LeaseIdMismatch);
        }
        if release.issued != release.time {
            return Err(FoldError::IssuedMismatch);
        }
        if release.renew_by != release.issued.plus(rule.lease.seconds()) {
            return Err(FoldError::RenewByMismatch);
        }
        if self.leases.get(release.lease).is_some() {
            return Err(FoldError::LeaseRepeated);
        }
        if self.leases.count(&release.rule, release.time) >= rule.max_leases {
            return Err(FoldError::TooManyLeases { max: rule.max_leases });
        }
        Ok(())
    }

    /// All of them or none.
    pub(super) fn renew(&mut self, renew: &Renew) -> Result<(), FoldError> {
        if renew.renewals.is_empty() {
            return Err(FoldError::RenewalsEmpty);
        }
        let mut seen = BTreeSet::new();
        for renewal in &renew.renewals {
            if !seen.insert(renewal.lease) {
                return Err(FoldError::LeaseRepeated);
            }
            if renewal.issued > renew.time || renewal.issued.plus(RENEWAL_COMMIT_SECS_MAX) < renew.time {
                return Err(FoldError::IssuedMismatch);
            }
            self.check_renewal(renewal)?;
        }
        for renewal in &renew.renewals {
            self.leases.renew(renewal.lease, renewal.issued, renewal.renew_by);
        }
        Ok(())
    }

    fn check_renewal(&self, renewal: &Renewal) -> Result<(), FoldError> {
        self.check_policy_runs(renewal.issued)?;
        let lease = self.leases.get(renewal.lease).ok_or(FoldError::LeaseUnknown)?;
        if let Some(revocation) = lease.revoked {
            return Err(FoldError::Revoked { revocation });
        }
        if renewal.issued < lease.issued {
            return Err(FoldError::IssuedMismatch);
        }
        if renewal.issued > lease.renew_by {
            return Err(FoldError::LeaseLapsed { renew_by: lease.renew_by });
        }
        let rule = self.policy().release_rule(&lease.rule).ok_or(FoldError::RuleUnknown)?;
        if renewal.renew_by != renewal.issued.plus(rule.lease.seconds()) {
            return Err(FoldError::RenewByMismatch);
        }
        if !rule.models.permits(&lease.model) {
            return Err(FoldError::ModelNotInRule);
        }
        if !lease.granted_under.groups.is_within(&rule.groups) {
            return Err(FoldError::GroupsNarrowed);
        }
        if !rule.guest.permits_platform(lease.platform) {
            return Err(FoldError::PlatformNotListed);
        }
        rule.workloads.check_lease(lease.workload.as_ref()).map_err(FoldError::Workload)
    }
}
