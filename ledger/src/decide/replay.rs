//! A request of the past, decided again: under the policy that was in force, which explains a refusal, or under a candidate,
//! which shows what it would have changed. It makes no grant. What is left of budgets and permits comes with the policy: see
//! [`Allowances`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use attestation::{CrlRule, EkEndorsement, Sha256Digest, Trust, UnitSet, UnixTime, Workload};

use super::{DenialReason, Shown, check_anchor, check_model, granted_units, named_rule, not_allowed};
use crate::entry::Action;
use crate::names::{Group, Name, Version};
use crate::policy::{GuestRule, Permitted, Policy, ReleaseRule};
use crate::revocation::Marks;
use crate::state::{Allowances, AskedLoad, LoggedManifest, Rehearsal, Vault};

/// What the log and its evidence say of a request.
#[derive(Debug, Clone, Copy)]
pub struct PastRequest<'a> {
    /// Load or renew.
    pub action: Action,
    /// When it was decided.
    pub time: UnixTime,
    /// The rule that was named.
    pub rule: &'a Name,
    /// Model.
    pub model: &'a Name,
    /// Its version.
    pub version: &'a Version,
    /// Platform id.
    pub platform: Sha256Digest,
    /// What was asked for.
    pub units: PastUnits<'a>,
    /// How many bytes that were.
    pub bytes: PastBytes,
    /// What its release says of itself, where it was one.
    pub marks: Option<&'a Marks>,
    /// What the guest started, as far as it is known.
    pub workload: PastWorkload<'a>,
    /// What was shown, where it is at hand.
    pub evidence: Option<PastEvidence<'a>>,
}

/// What a guest of the past started, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastWorkload<'a> {
    /// It said so.
    Shown(&'a Workload),
    /// It was asked, and did not say so.
    Missing,
    /// Nobody asked it: whether it could have said so, and what, is open.
    NotAsked,
}

/// Plaintext bytes of the units of a past request, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastBytes {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

/// The units of a past request, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub enum PastUnits<'a> {
    /// These, of this manifest.
    Known {
        /// The units.
        units: &'a UnitSet,
        /// The manifest, which says their groups.
        manifest: &'a LoggedManifest,
    },
    /// Only that a rule with these groups gave them all.
    Within(&'a Permitted<Group>),
    /// Nothing.
    Unknown,
}

/// Evidence that was verified again.
#[derive(Debug, Clone, Copy)]
pub struct PastEvidence<'a> {
    /// What it shows.
    pub shown: Shown<'a>,
    /// The anchor that it rests on.
    pub anchor: &'a str,
    /// What that anchor vouches for.
    pub tier: Trust,
    /// Whether it passes where revocation lists are a must.
    pub revocation: bool,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It passes.
    Granted,
    /// It is refused.
    Refused(Box<DenialReason>),
    /// Nothing refuses it, and something could not be judged.
    Open(OpenQuestion),
}

/// What could not be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenQuestion {
    /// Evidence is not at hand, or does not verify.
    Evidence,
    /// The policy wants a PCR that nobody had asked for.
    PcrNotQuoted {
        /// Which.
        index: u32,
    },
    /// The policy wants revocation lists, and nobody had asked for them.
    RevocationList,
    /// The policy asks what was booted, and the event log is not at hand.
    EventLog,
    /// Which groups the units are of.
    Groups,
    /// How many bytes the units have: enough to pass a budget, or not.
    Bytes,
    /// The policy asks what is started, and it is not known.
    Workload,
}

/// Decides again, by the policy of `left`. What only the log decides (models, enrolled platforms) is taken from `vault`, the
/// state before the entry. In the order of [`decide`](super::decide); but what cannot be judged does not hide a refusal
/// behind it.
pub fn replay(vault: &Vault, left: &Allowances<'_>, request: &PastRequest<'_>) -> Replayed {
    match judge(vault, left, request) {
        Ok(None) => Replayed::Granted,
        Ok(Some(question)) => Replayed::Open(question),
        Err(reason) => Replayed::Refused(Box::new(reason)),
    }
}

/// Has a load take its part of what is left: a release, with its lease, or a refusal that the candidate would grant.
pub fn rehearse(rehearsal: &mut Rehearsal, request: &PastRequest<'_>, lease: Option<Sha256Digest>) {
    let Some(rule) = rehearsal.policy().release_rule(request.rule).map(Arc::clone) else { return };
    let shown = request.evidence.map(|evidence| Marks::shown(&evidence.shown));
    rehearsal.take(&request.asked(request.rule, &rule, request.bytes.most, shown.as_ref()), lease);
}

fn judge(
    vault: &Vault,
    left: &Allowances<'_>,
    request: &PastRequest<'_>,
) -> Result<Option<OpenQuestion>, DenialReason> {
    let policy = left.policy();
    if policy.is_expired(request.time) {
        return Err(DenialReason::PolicyExpired { not_after: policy.not_after(), now: request.time });
    }
    let (name, rule) = named_rule(policy, request.rule.as_str())?;
    if vault.model(request.model, request.version).is_none() {
        let (model, version) = (request.model.to_string(), request.version.to_string());
        return Err(DenialReason::ModelNotPublished { model, version });
    }
    check_model(&name, rule, request.model)?;
    let groups = check_units(&name, rule, request.units)?;
    let evidence = check_evidence(vault, policy, &name, rule, request)?;
    let workload = check_workload(&name, rule, request)?;
    match request.action {
        Action::Load => {
            let leases = left.lease_count(&name, request.time);
            if leases >= rule.max_leases {
                return Err(DenialReason::TooManyLeases { rule: name, max: rule.max_leases, leases });
            }
            let bytes = check_left(left, &name, rule, request)?;
            Ok(evidence.or(workload).or(groups).or(bytes))
        }
        Action::Renew => Ok(evidence.or(workload).or(groups)),
    }
}

/// Whether budgets, alarms and approvals let it through.
fn check_left(
    left: &Allowances<'_>,
    name: &Name,
    rule: &ReleaseRule,
    request: &PastRequest<'_>,
) -> Result<Option<OpenQuestion>, DenialReason> {
    let shown = request.evidence.map(|evidence| Marks::shown(&evidence.shown));
    let check = |bytes| left.check(&request.asked(name, rule, bytes, shown.as_ref()));
    check(request.bytes.least)?;
    Ok(check(request.bytes.most).is_err().then_some(OpenQuestion::Bytes))
}

impl PastRequest<'_> {
    fn asked<'a>(
        &'a self,
        rule_name: &'a Name,
        rule: &'a ReleaseRule,
        bytes: u64,
        shown: Option<&'a Marks>,
    ) -> AskedLoad<'a> {
        AskedLoad {
            rule_name,
            rule,
            model: self.model,
            version: self.version,
            platform: self.platform,
            bytes,
            marks: self.marks.or(shown),
            measurement: self.evidence.map(|evidence| evidence.shown.measurement()),
            now: self.time,
        }
    }
}

impl PastBytes {
    /// So many.
    pub const fn exactly(bytes: u64) -> Self {
        Self { least: bytes, most: bytes }
    }
}

fn check_units(name: &Name, rule: &ReleaseRule, units: PastUnits<'_>) -> Result<Option<OpenQuestion>, DenialReason> {
    let fits = match units {
        PastUnits::Known { units, manifest } => return granted_units(name, rule, units, manifest).map(|_| None),
        PastUnits::Within(groups) => groups.is_within(&rule.groups),
        PastUnits::Unknown => rule.groups == Permitted::Any,
    };
    Ok((!fits).then_some(OpenQuestion::Groups))
}

fn check_workload(
    name: &Name,
    rule: &ReleaseRule,
    request: &PastRequest<'_>,
) -> Result<Option<OpenQuestion>, DenialReason> {
    match request.workload {
        // A rule that does not ask would not have been told.
        PastWorkload::Shown(shown) => rule.workloads.check_lease(Some(shown)).map(|()| None).map_err(not_allowed(name)),
        PastWorkload::Missing => rule.workloads.check_lease(None).map(|()| None).map_err(not_allowed(name)),
        PastWorkload::NotAsked => Ok(rule.workloads.asks().then_some(OpenQuestion::Workload)),
    }
}

fn check_evidence(
    vault: &Vault,
    policy: &Policy,
    name: &Name,
    rule: &ReleaseRule,
    request: &PastRequest<'_>,
) -> Result<Option<OpenQuestion>, DenialReason> {
    let Some(PastEvidence { shown, anchor, tier, revocation }) = request.evidence else {
        return match rule.guest.permits_platform(request.platform) {
            true => Ok(Some(OpenQuestion::Evidence)),
            false => Err(DenialReason::PlatformNotListed { rule: name.clone(), platform: request.platform }),
        };
    };
    match shown {
        Shown::Tpm { platform, endorsement: EkEndorsement::Enrolled, .. } => {
            // A policy without `[platforms]` forgets who was enrolled.
            let enrolled = vault.platforms().get(platform).filter(|_| policy.platform_threshold().is_some());
            if enrolled.is_none_or(|enrolled| enrolled.counts_as != tier) {
                return Err(DenialReason::PlatformNotEnrolled { platform });
            }
        }
        Shown::Tpm { .. } | Shown::Snp(_) | Shown::SnpUnboundTpm(_) | Shown::AzureSnpVtpm { .. } => {
            check_anchor(policy, anchor, tier)?;
        }
    }
    match shown.check(name, &rule.guest) {
        Ok(()) if revocation || !wants_revocation_lists(&rule.guest) => Ok(None),
        Ok(()) => Ok(Some(OpenQuestion::RevocationList)),
        // Whoever replays has no log that led to the quote; it may well have been sent.
        Err(DenialReason::BootNotAllowed { .. }) if shown.boot().is_none() => Ok(Some(OpenQuestion::EventLog)),
        Err(reason) => not_quoted(name, &rule.guest, shown, reason).map(Some),
    }
}

fn wants_revocation_lists(rule: &GuestRule) -> bool {
    rule.snp().is_some_and(|snp| snp.crl == CrlRule::Required)
}

/// A PCR that no policy had asked for says nothing against a guest; one that was quoted with another value does.
fn not_quoted(
    name: &Name,
    rule: &GuestRule,
    shown: Shown<'_>,
    reason: DenialReason,
) -> Result<OpenQuestion, DenialReason> {
    let (DenialReason::PcrNotAllowed { mismatch, .. }, Some(pcrs), Some(quoted)) =
        (&reason, rule.pcrs(), pcrs_of(shown))
    else {
        return Err(reason);
    };
    if mismatch.seen.is_some() {
        return Err(reason);
    }
    // As if each PCR that was not asked for had a value that the rule allows.
    let mut assumed = quoted.clone();
    for (index, allowed) in pcrs.allowed() {
        if let Some(value) = allowed.first() {
            assumed.entry(*index).or_insert(*value);
        }
    }
    pcrs.check(&assumed).map(|()| OpenQuestion::PcrNotQuoted { index: mismatch.index }).map_err(|mismatch| {
        let allowed = pcrs.allowed().get(&mismatch.index).cloned().unwrap_or_default();
        DenialReason::PcrNotAllowed { rule: name.clone(), allowed, mismatch }
    })
}

fn pcrs_of(shown: Shown<'_>) -> Option<&BTreeMap<u32, [u8; 32]>> {
    match shown {
        Shown::Tpm { pcrs, .. } | Shown::AzureSnpVtpm { pcrs, .. } => Some(pcrs),
        Shown::Snp(_) | Shown::SnpUnboundTpm(_) => None,
    }
}

impl OpenQuestion {
    /// Stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Evidence => "evidence-not-at-hand",
            Self::PcrNotQuoted { .. } => "pcr-not-quoted",
            Self::RevocationList => "revocation-list-not-shown",
            Self::EventLog => "event-log-not-at-hand",
            Self::Groups => "groups-not-known",
            Self::Bytes => "bytes-not-known",
            Self::Workload => "workload-not-known",
        }
    }
}

impl fmt::Display for OpenQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence => f.write_str("its evidence is not at hand, or does not verify"),
            Self::PcrNotQuoted { index } => write!(f, "PCR {index} was not asked for then"),
            Self::RevocationList => f.write_str("revocation lists were not asked for then"),
            Self::EventLog => f.write_str("the log of its boot is not at hand"),
            Self::Groups => f.write_str("of which groups its units are is not known"),
            Self::Workload => f.write_str("what its guest started is not known"),
            Self::Bytes => f.write_str("how many bytes it asked for is not known, and a budget has room for some"),
        }
    }
}
