//! The decision: from verified evidence to a grant, by the state alone. Pure and total; every path that is not a grant is
//! a denial which says what was claimed, what was expected, what was seen, and by which key of the policy.
//!
//! A grant can be made only here, is moved into the log, and knows whom it is for: there is no way to name another
//! recipient later.
//!
//! ```compile_fail,E0277
//! fn copied<T: Clone>() {}
//! copied::<ledger::decide::ReleaseGrant>();
//! ```
//! ```
//! fn copied<T: Clone>() {}
//! copied::<ledger::lease::LeaseStatement>();
//! ```

mod denial;
mod grant;
mod remedy;
mod replay;
mod shown;

use std::collections::BTreeSet;
use std::sync::Arc;

use attestation::{Claims, EkEndorsement, Load, Renew, Sha256Digest, Trust, UnitSet, UnixTime, Verified, Workload};

pub use denial::{Denial, DenialReason, DeniedRequest, Explanation};
pub use grant::{EvidencedGrant, ReleaseGrant, RenewGrant};
pub use replay::{
    OpenQuestion, PastBytes, PastEvidence, PastRequest, PastUnits, PastWorkload, Replayed, rehearse, replay,
};
pub use shown::Shown;

use crate::entry::{Action, BootId, Machine, ReleasedUnits};
use crate::names::{Group, Name, Version};
use crate::policy::{AlarmOn, GuestRule, Policy, ReleaseRule, WorkloadField, WorkloadMismatch};
use crate::revocation::{Holding, Marks};
use crate::state::{AskedLoad, Lease, LoggedManifest, State, Vault};

/// Decides on a load. `manifest` is the one that the log names for the model; `now` is not before the last entry.
pub fn decide(
    state: &State,
    verified: Verified<Load>,
    manifest: &LoggedManifest,
    now: UnixTime,
) -> Result<ReleaseGrant, Denial> {
    match granted_load(state, &verified, manifest, now) {
        Ok(grant) => Ok(ReleaseGrant::new(grant, verified)),
        Err(reason) => {
            let load = verified.statement();
            let request = DeniedRequest {
                action: Action::Load,
                rule: load.rule().to_owned(),
                model: load.model().to_owned(),
                version: load.version().to_owned(),
                platform: verified.claims().platform(),
                tier: verified.claims().trust(),
                workload: load.workload().copied(),
            };
            Err(Denial::new(request, reason))
        }
    }
}

/// Decides on a renewal; `now` is not before the last entry. That the agent has shown a signed lease which still runs, and
/// that the lease key signed the request, is for the keeper to check.
pub fn decide_renew(state: &State, verified: Verified<Renew>, now: UnixTime) -> Result<RenewGrant, Denial> {
    match granted_renewal(state, &verified, now) {
        Ok(grant) => Ok(RenewGrant::new(grant, verified)),
        Err(reason) => {
            let lease = state.vault().and_then(|vault| vault.lease(verified.statement().lease()));
            let request = DeniedRequest {
                action: Action::Renew,
                rule: verified.statement().rule().to_owned(),
                model: lease.map(|lease| lease.model.to_string()).unwrap_or_default(),
                version: lease.map(|lease| lease.version.to_string()).unwrap_or_default(),
                platform: verified.claims().platform(),
                tier: verified.claims().trust(),
                workload: verified.statement().workload().copied(),
            };
            Err(Denial::new(request, reason))
        }
    }
}

/// What a granted load comes to, besides the evidence itself.
struct GrantedLoad {
    rule_name: Name,
    rule: Arc<ReleaseRule>,
    model: Name,
    version: Version,
    units: ReleasedUnits,
    marks: Marks,
    issued: UnixTime,
    /// The alarm rules that ring for it.
    rings: Vec<Name>,
    /// What was measured, where one of them rings for that.
    measurement: Option<Sha256Digest>,
}

fn granted_load(
    state: &State,
    verified: &Verified<Load>,
    manifest: &LoggedManifest,
    now: UnixTime,
) -> Result<GrantedLoad, DenialReason> {
    let load = verified.statement();
    let vault = open_vault(state, load.vault(), load.policy(), now)?;
    let (rule_name, rule) = named_rule(vault.policy(), load.rule())?;
    let (model, version) = logged_model(vault, load, manifest)?;
    check_model(&rule_name, rule, &model)?;
    let (units, groups) = granted_units(&rule_name, rule, load.units(), manifest)?;
    check_evidence(vault, &rule_name, rule, verified.claims())?;
    rule.workloads.check_load(load.workload()).map_err(not_allowed(&rule_name))?;
    let marks = Marks::of(verified.claims(), groups);
    let (lease, platform) = (load.lease_id(), verified.claims().platform());
    let held = Holding { lease, model: &model, version: &version, platform, rule, marks: Some(&marks) };
    check_not_revoked(vault, &held)?;
    if vault.lease(load.lease_id()).is_some() {
        return Err(DenialReason::LeaseRepeated { lease: load.lease_id() });
    }
    let leases = vault.lease_count(&rule_name, now);
    if leases >= rule.max_leases {
        return Err(DenialReason::TooManyLeases { rule: rule_name, max: rule.max_leases, leases });
    }
    let alarms = vault.policy().alarms();
    let measurement = (!alarms.is_empty()).then(|| Shown::from(verified.claims()).measurement());
    let passage = vault.allowances().check(&AskedLoad {
        rule_name: &rule_name,
        rule,
        model: &model,
        version: &version,
        platform,
        bytes: units.bytes,
        marks: Some(&marks),
        measurement,
        now,
    })?;
    let rings = passage.rings;
    let is_measured = rings.iter().any(|name| alarms.get(name).is_some_and(|rule| rule.on == AlarmOn::NewMeasurement));
    let measurement = measurement.filter(|_| is_measured);
    Ok(GrantedLoad { rule_name, rule: Arc::clone(rule), model, version, units, marks, issued: now, rings, measurement })
}

/// What a granted renewal comes to.
struct GrantedRenewal {
    rule_name: Name,
    rule: Arc<ReleaseRule>,
    issued: UnixTime,
}

fn granted_renewal(state: &State, verified: &Verified<Renew>, now: UnixTime) -> Result<GrantedRenewal, DenialReason> {
    let (renew, claims) = (verified.statement(), verified.claims());
    let vault = open_vault(state, renew.vault(), renew.policy(), now)?;
    let lease = vault.lease(renew.lease()).ok_or(DenialReason::LeaseUnknown { lease: renew.lease() })?;
    if let Some(revocation) = lease.revoked {
        return Err(DenialReason::Revoked { revocation });
    }
    if now > lease.renew_by {
        return Err(DenialReason::LeaseLapsed { renew_by: lease.renew_by, now });
    }
    if lease.rule.as_str() != renew.rule() {
        return Err(DenialReason::RuleOfAnotherLease { granted: lease.rule.clone(), named: renew.rule().to_owned() });
    }
    if lease.lease_key != *renew.lease_key() {
        return Err(DenialReason::LeaseKeyMismatch);
    }
    check_same_machine(lease, claims)?;
    let (rule_name, rule) = named_rule(vault.policy(), renew.rule())?;
    check_model(&rule_name, rule, &lease.model)?;
    if !lease.granted_under.groups.is_within(&rule.groups) {
        return Err(DenialReason::GroupsNarrowed { rule: rule_name });
    }
    check_evidence(vault, &rule_name, rule, claims)?;
    check_same_workload(lease.workload.as_ref(), renew.workload())?;
    rule.workloads.check_lease(lease.workload.as_ref()).map_err(not_allowed(&rule_name))?;
    // What it shows now may be revoked although what it showed at its release is not.
    let groups = lease.marks.as_ref().and_then(Marks::groups).cloned();
    let marks = groups.map(|groups| Marks::of(claims, groups));
    let held = lease.holding(renew.lease());
    check_not_revoked(vault, &Holding { marks: marks.as_ref().or(held.marks), ..held })?;
    Ok(GrantedRenewal { rule_name, rule: Arc::clone(rule), issued: now })
}

/// The vault is open, the request is for it, and its policy runs and is the one that the challenge was made under.
fn open_vault(state: &State, named: Sha256Digest, policy: Sha256Digest, now: UnixTime) -> Result<&Vault, DenialReason> {
    let vault = state.vault().ok_or(DenialReason::VaultNotOpen)?;
    if now < state.time() {
        return Err(DenialReason::TimeBehindLog { last: state.time(), now });
    }
    if named != vault.id() {
        return Err(DenialReason::VaultMismatch { expected: vault.id(), seen: named });
    }
    if policy != vault.policy().digest() {
        return Err(DenialReason::PolicyChanged { in_force: vault.policy().digest(), seen: policy });
    }
    if vault.policy().is_expired(now) {
        return Err(DenialReason::PolicyExpired { not_after: vault.policy().not_after(), now });
    }
    Ok(vault)
}

fn named_rule<'a>(policy: &'a Policy, name: &str) -> Result<(Name, &'a Arc<ReleaseRule>), DenialReason> {
    let unknown = || DenialReason::RuleUnknown { rule: name.to_owned() };
    let name = Name::try_from(name).map_err(|_| unknown())?;
    let rule = policy.release_rule(&name).ok_or_else(unknown)?;
    Ok((name, rule))
}

/// The request, the log and the manifest agree on the model.
fn logged_model(vault: &Vault, load: &Load, manifest: &LoggedManifest) -> Result<(Name, Version), DenialReason> {
    let unknown =
        || DenialReason::ModelNotPublished { model: load.model().to_owned(), version: load.version().to_owned() };
    let model = Name::try_from(load.model()).map_err(|_| unknown())?;
    let version = Version::try_from(load.version()).map_err(|_| unknown())?;
    let published = vault.model(&model, &version).ok_or_else(unknown)?;
    let logged = published.proposed.manifest;
    for seen in [load.manifest(), manifest.digest()] {
        if seen != logged {
            return Err(DenialReason::ManifestMismatch { logged, seen });
        }
    }
    Ok((model, version))
}

fn check_model(rule_name: &Name, rule: &ReleaseRule, model: &Name) -> Result<(), DenialReason> {
    match rule.models.permits(model) {
        true => Ok(()),
        false => Err(DenialReason::ModelNotInRule { rule: rule_name.clone(), model: model.clone() }),
    }
}

/// Every unit exists, and the one rule covers them all. With their labels.
fn granted_units(
    rule_name: &Name,
    rule: &ReleaseRule,
    units: &UnitSet,
    manifest: &LoggedManifest,
) -> Result<(ReleasedUnits, BTreeSet<Group>), DenialReason> {
    let (mut bytes, mut groups) = (0u64, BTreeSet::new());
    for index in units.iter() {
        let unit = manifest.manifest().unit(index).ok_or(DenialReason::UnitUnknown { index })?;
        if !rule.grants(&unit.group) {
            let group: Group = unit.group.clone();
            return Err(DenialReason::GroupNotGranted { rule: rule_name.clone(), index, group });
        }
        // A unit is counted once, and the sum over all units of a manifest fits.
        bytes = bytes.saturating_add(unit.length);
        if !groups.contains(&unit.group) {
            groups.insert(unit.group.clone());
        }
    }
    let count = u32::try_from(units.len()).expect("a unit set has at most 16,384 units");
    Ok((ReleasedUnits { count, bytes, digest: units.digest() }, groups))
}

fn check_not_revoked(vault: &Vault, held: &Holding) -> Result<(), DenialReason> {
    vault.revocation_of(held).map_or(Ok(()), |revocation| Err(DenialReason::Revoked { revocation }))
}

/// The anchor that the proofs rest on, and all that the rule asks of them.
fn check_evidence(vault: &Vault, rule_name: &Name, rule: &ReleaseRule, claims: &Claims) -> Result<(), DenialReason> {
    check_endorser(vault, claims)?;
    check_claims(rule_name, &rule.guest, claims)
}

/// The evidence may have been verified under the anchors of an earlier policy, or before the platform was removed.
fn check_endorser(vault: &Vault, claims: &Claims) -> Result<(), DenialReason> {
    match claims {
        Claims::Tpm { ek, .. } if ek.endorsement() == EkEndorsement::Enrolled => {
            let platform = ek.platform();
            match vault.platforms().get(platform) {
                Some(enrolled) if enrolled.counts_as == claims.trust() => Ok(()),
                Some(_) | None => Err(DenialReason::PlatformNotEnrolled { platform }),
            }
        }
        Claims::Tpm { .. } | Claims::Snp(_) | Claims::SnpUnboundTpm { .. } | Claims::SnpVtpm { .. } => {
            check_anchor(vault.policy(), claims.anchor(), claims.trust())
        }
    }
}

fn check_anchor(policy: &Policy, anchor: &str, tier: Trust) -> Result<(), DenialReason> {
    match policy.trust_anchors().trust_of(anchor) {
        Some(trust) if trust == tier => Ok(()),
        Some(_) | None => Err(DenialReason::AnchorNotInPolicy { anchor: anchor.to_owned(), tier }),
    }
}

/// The form of the evidence, the platform and what it booted: all that a rule asks of verified claims. An auditor checks
/// stored evidence with it.
pub fn check_claims(rule_name: &Name, rule: &GuestRule, claims: &Claims) -> Result<(), DenialReason> {
    Shown::from(claims).check(rule_name, rule)
}

/// A lease belongs to one boot of one machine: its keys were never anywhere else.
fn check_same_machine(lease: &Lease, claims: &Claims) -> Result<(), DenialReason> {
    if lease.platform != claims.platform() {
        return Err(DenialReason::PlatformChanged { granted: lease.platform, seen: claims.platform() });
    }
    match (lease.machine, Machine::of(claims)) {
        (Machine::Tpm(granted), Machine::Tpm(seen)) => check_same_boot(granted, seen)?,
        (Machine::Snp { report_id: granted }, Machine::Snp { report_id: seen }) => check_same_guest(granted, seen)?,
        (Machine::SnpVtpm { report_id: granted, vtpm }, Machine::SnpVtpm { report_id: seen, vtpm: seen_vtpm }) => {
            check_same_guest(granted, seen)?;
            check_same_boot(vtpm, seen_vtpm)?;
        }
        (Machine::Tpm(_), Machine::Snp { .. } | Machine::SnpVtpm { .. })
        | (Machine::Snp { .. }, Machine::Tpm(_) | Machine::SnpVtpm { .. })
        | (Machine::SnpVtpm { .. }, Machine::Tpm(_) | Machine::Snp { .. }) => return Err(DenialReason::ProofChanged),
    }
    if lease.tier != claims.trust() {
        return Err(DenialReason::TierChanged { granted: lease.tier, seen: claims.trust() });
    }
    Ok(())
}

/// What was shown at the release runs as long as the lease does.
fn check_same_workload(granted: Option<&Workload>, seen: Option<&Workload>) -> Result<(), DenialReason> {
    let part = |of: Option<&Workload>, field: WorkloadField| of.and_then(|workload| field.of(workload));
    let changed = WorkloadField::ALL.into_iter().find(|field| part(granted, *field) != part(seen, *field));
    changed.map_or(Ok(()), |field| {
        let (granted, seen) = (part(granted, field), part(seen, field));
        Err(DenialReason::WorkloadChanged { field, granted, seen })
    })
}

fn not_allowed(rule: &Name) -> impl Fn(WorkloadMismatch) -> DenialReason {
    |mismatch| DenialReason::WorkloadNotAllowed { rule: rule.clone(), mismatch }
}

fn check_same_boot(granted: BootId, seen: BootId) -> Result<(), DenialReason> {
    if granted.ak_name != seen.ak_name {
        return Err(DenialReason::AkChanged);
    }
    let counts = |boot: BootId| (boot.reset_count, boot.restart_count);
    match counts(granted) == counts(seen) {
        true => Ok(()),
        false => Err(DenialReason::Rebooted { granted: counts(granted), seen: counts(seen) }),
    }
}

/// REPORT_ID is made at launch and stays until the guest ends: another one is another guest of the same chip.
fn check_same_guest(granted: [u8; 32], seen: [u8; 32]) -> Result<(), DenialReason> {
    if granted == seen { Ok(()) } else { Err(DenialReason::GuestChanged { granted, seen }) }
}
