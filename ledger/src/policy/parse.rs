//! From text to [`Policy`], section by section.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attestation::{Anchor, AnchorError, Sha256Digest, TrustAnchors};

use super::boot::BootRule;
use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use super::pcrs::PcrRule;
use super::rules::{
    Approval, Approver, BareEks, GuestRule, KeeperRule, Permitted, Proof, ProposerRule, PublishRule, ReleaseRule,
    TpmRule, UnitCheck,
};
use super::snp_parse::{self, CodeCoveredBy};
use super::{
    Lineage, POLICY_BYTES_MAX, Policy, alarm_parse, boot_parse, budget_parse, value, witnesses_parse, workload_parse,
};
use crate::model_signature::PublisherKey;
use crate::names::Name;

const FORMAT: u64 = 1;

pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > POLICY_BYTES_MAX {
        let problem = PolicyProblem::TooLong { bytes: text.len() };
        return Err(PolicyError { key: String::new(), problem });
    }
    let mut root = Fields::root(text)?;
    let format = root.count("format")?;
    if format.value != FORMAT {
        return Err(format.refuse(PolicyProblem::FormatUnknown { found: format.value }));
    }
    let lineage = lineage(&mut root)?;
    let not_after = value::time(&root.text("not_after")?)?;
    let approval = approval(root.table("approval")?)?;
    let platform_threshold = platform_threshold(&mut root, &approval)?;
    let trust_anchors = anchors(root.tables_if_any("anchors")?)?;
    let keeper = keeper(root.table("keeper")?)?;
    let publish = by_name(root.named_tables_if_any("publish")?, |fields| publish_rule(fields, &approval))?;
    let release =
        by_name(root.named_tables_if_any("release")?, |fields| release_rule(fields, &keeper, &approval).map(Arc::new))?;
    check_platforms(&release, platform_threshold)?;
    let budgets = budget_parse::budgets(&mut root)?;
    let alarms = alarm_parse::alarms(&mut root, &budgets)?;
    let mut audit = root.table("audit")?;
    let readers = match audit.any_or_tables("readers")? {
        Some(readers) => Permitted::Only(people(readers)?),
        None => Permitted::Any,
    };
    audit.finish()?;
    let witnesses = witnesses_parse::witnesses(&mut root)?;
    root.finish()?;
    let digest = Sha256Digest::of(text.as_bytes());
    Ok(Policy {
        text: text.into(),
        digest,
        lineage,
        not_after,
        approval,
        platform_threshold,
        trust_anchors,
        keeper,
        publish,
        release,
        budgets,
        alarms,
        readers,
        witnesses,
    })
}

fn lineage(root: &mut Fields) -> Result<Lineage, PolicyError> {
    let (vault, serial, prev) = (root.text("vault")?, root.count("serial")?, root.text("prev")?);
    match (vault.value.as_str(), serial.value, prev.value.as_str()) {
        ("genesis", 1, "none") => Ok(Lineage::Genesis),
        ("genesis", _, _) | (_, 0 | 1, _) | (_, _, "none") => Err(serial.refuse(PolicyProblem::LineageMixed)),
        _ => {
            Ok(Lineage::Successor { vault: value::digest(&vault)?, serial: serial.value, prev: value::digest(&prev)? })
        }
    }
}

fn approval(mut fields: Fields) -> Result<Approval, PolicyError> {
    let threshold = fields.count("threshold")?;
    let revoke_threshold = fields.count_if_any("revoke_threshold")?;
    let break_glass = fields.count_if_any("break_glass_threshold")?;
    let standing = standing(&mut fields)?;
    let proposer = match fields.yes_or_no("proposer_may_approve")?.value {
        true => ProposerRule::MayApprove,
        false => ProposerRule::MayNotApprove,
    };
    let approvers = people(fields.tables("approvers")?)?;
    fields.finish()?;
    let threshold = reachable(&threshold, able_to_approve(proposer, &approvers))?;
    // Left out it is no easier than anything else; that one person suffices has to be written.
    let revoke_threshold = revoke_threshold.map_or(Ok(threshold), |field| reachable(&field, approvers.len()))?;
    let able = able_to_approve(proposer, &approvers);
    let break_glass_threshold = break_glass.map(|field| match reachable(&field, able)? {
        count if count < threshold => Err(field.refuse(PolicyProblem::BreakGlassEasier { threshold })),
        count => Ok(count),
    });
    let break_glass_threshold = break_glass_threshold.transpose()?;
    Ok(Approval { threshold, revoke_threshold, break_glass_threshold, standing, proposer, approvers })
}

/// The standing approvals that outlive the policy before.
fn standing(fields: &mut Fields) -> Result<Vec<Sha256Digest>, PolicyError> {
    let listed = if fields.has("standing") { fields.texts("standing")? } else { Vec::new() };
    listed.iter().map(value::digest).collect()
}

/// Where the proposer does not count, a threshold of all could never be reached, and no policy would ever follow.
fn able_to_approve(proposer: ProposerRule, approvers: &[Approver]) -> usize {
    match proposer {
        ProposerRule::MayApprove => approvers.len(),
        ProposerRule::MayNotApprove => approvers.len() - 1,
    }
}

/// `[platforms]`: without it no EK can be enrolled.
fn platform_threshold(root: &mut Fields, approval: &Approval) -> Result<Option<u32>, PolicyError> {
    if !root.has("platforms") {
        return Ok(None);
    }
    let mut fields = root.table("platforms")?;
    let threshold = fields.count("threshold")?;
    fields.finish()?;
    reachable(&threshold, able_to_approve(approval.proposer, &approval.approvers)).map(Some)
}

/// A rule that takes what nobody can enrol, or remove again, says something else than it does.
fn check_platforms(release: &BTreeMap<Name, Arc<ReleaseRule>>, threshold: Option<u32>) -> Result<(), PolicyError> {
    let bare = release.iter().find(|(_, rule)| rule.guest.bare_eks() == BareEks::Enrolled);
    match (threshold, bare) {
        (None, Some((name, _))) => {
            let key = format!("release.{name}.ek_without_certificate");
            Err(PolicyError { key, problem: PolicyProblem::PlatformsMissing })
        }
        (Some(_), _) | (None, None) => Ok(()),
    }
}

/// A number of approvals that is neither none nor more than can ever be given.
fn reachable(threshold: &Field<u64>, approvers: usize) -> Result<u32, PolicyError> {
    if threshold.value == 0 {
        return Err(threshold.refuse(PolicyProblem::ThresholdZero));
    }
    match (u32::try_from(threshold.value), usize::try_from(threshold.value)) {
        (Ok(count), Ok(needed)) if needed <= approvers => Ok(count),
        _ => Err(threshold.refuse(PolicyProblem::ThresholdUnreachable { threshold: threshold.value, approvers })),
    }
}

/// `{ id, key }`, ids and keys distinct: a person with two ids would count twice.
fn people(list: Vec<Fields>) -> Result<Vec<Approver>, PolicyError> {
    let mut people: Vec<Approver> = Vec::new();
    for mut fields in list {
        let (id, key) = (fields.text("id")?, fields.text("key")?);
        fields.finish()?;
        let person = Approver { id: value::name(&id)?, key: value::approver_key(&key)? };
        if people.iter().any(|other| other.id == person.id) {
            return Err(id.refuse(PolicyProblem::IdRepeated));
        }
        if people.iter().any(|other| other.key.point() == person.key.point()) {
            return Err(key.refuse(PolicyProblem::KeyRepeated));
        }
        people.push(person);
    }
    Ok(people)
}

fn anchors(list: Vec<Fields>) -> Result<TrustAnchors, PolicyError> {
    let mut anchors = TrustAnchors::built_in();
    for mut fields in list {
        let (name, trust) = (fields.text("name")?, fields.text("trust")?);
        let certificate = fields.text("certificate")?;
        fields.finish()?;
        let trust = trust.value.parse().map_err(|_| trust.refuse(PolicyProblem::TrustUnknown))?;
        anchors = Anchor::from_pem(&name.value, trust, &certificate.value)
            .and_then(|anchor| anchors.with(anchor))
            .map_err(|error| match error {
                AnchorError::Name => name.refuse(PolicyProblem::NameMalformed),
                AnchorError::NameRepeated => name.refuse(PolicyProblem::IdRepeated),
                other => certificate.refuse(PolicyProblem::AnchorRefused(other)),
            })?;
    }
    Ok(anchors)
}

fn keeper(mut fields: Fields) -> Result<KeeperRule, PolicyError> {
    let (require_key, proofs) = (fields.key("require"), proofs(&mut fields)?);
    let rule = match (proofs.contains(&Proof::Snp), proofs.contains(&Proof::Tpm)) {
        (false, _) => KeeperRule::Tpm(tpm_rule(&mut fields)?),
        (true, false) => {
            let snp = snp_parse::launched(fields.table("snp")?)?;
            KeeperRule::Snp { snp: Box::new(snp), tpm: tpm_rule(&mut fields)? }
        }
        (true, true) => return Err(PolicyError { key: require_key, problem: PolicyProblem::KeeperTpmUnbound }),
    };
    fields.finish()?;
    Ok(rule)
}

fn tpm_rule(fields: &mut Fields) -> Result<TpmRule, PolicyError> {
    Ok(TpmRule { pcrs: pcrs(fields, None)?, platforms: platforms(fields)?, bare_eks: BareEks::Refused })
}

/// That of a guest, which may ask for events. They are what the firmware says: so that has to be a known one.
fn guest_tpm_rule(fields: &mut Fields) -> Result<TpmRule, PolicyError> {
    let boot = boot(fields)?;
    let asked = boot.is_some();
    let rule = TpmRule { pcrs: pcrs(fields, boot)?, platforms: platforms(fields)?, bare_eks: bare_eks(fields)? };
    match asked && !rule.pcrs.allowed().contains_key(&0) {
        true => Err(PolicyError { key: fields.key("pcrs"), problem: PolicyProblem::BootFirmwareOpen }),
        false => Ok(rule),
    }
}

fn boot(fields: &mut Fields) -> Result<Option<BootRule>, PolicyError> {
    if fields.has("boot") { boot_parse::rule(fields.table("boot")?).map(Some) } else { Ok(None) }
}

fn bare_eks(fields: &mut Fields) -> Result<BareEks, PolicyError> {
    match fields.has("ek_without_certificate") && fields.yes_or_no("ek_without_certificate")?.value {
        true => Ok(BareEks::Enrolled),
        false => Ok(BareEks::Refused),
    }
}

/// What a guest must prove. Keys of a proof that is not required are unknown: nothing would check them.
fn guest_rule(fields: &mut Fields) -> Result<GuestRule, PolicyError> {
    let proofs = proofs(fields)?;
    if !proofs.contains(&Proof::Snp) {
        return Ok(GuestRule::Tpm(guest_tpm_rule(fields)?));
    }
    let (covered, snp) = snp_parse::rule(fields.table("snp")?)?;
    let snp = Box::new(snp);
    match (covered.value, proofs.contains(&Proof::Tpm)) {
        (CodeCoveredBy::Launch, false) => Ok(GuestRule::Snp(snp)),
        (CodeCoveredBy::ParavisorVtpm, true) => {
            let boot = boot(fields)?;
            Ok(GuestRule::SnpParavisorVtpm { snp, pcrs: pcrs(fields, boot)? })
        }
        (CodeCoveredBy::ParavisorVtpm, false) => Err(covered.refuse(PolicyProblem::CodeNotCovered)),
        (CodeCoveredBy::Launch, true) => Err(covered.refuse(PolicyProblem::GuestTpmUnbound)),
    }
}

pub(super) fn by_name<T>(
    sections: Vec<(Field<String>, Fields)>,
    mut read: impl FnMut(Fields) -> Result<T, PolicyError>,
) -> Result<BTreeMap<Name, T>, PolicyError> {
    sections.into_iter().map(|(name, fields)| Ok((value::name(&name)?, read(fields)?))).collect()
}

fn publish_rule(mut fields: Fields, approval: &Approval) -> Result<PublishRule, PolicyError> {
    let models = models(&mut fields)?;
    let mut keys: Vec<PublisherKey> = Vec::new();
    for field in fields.texts("keys")? {
        let key = PublisherKey::from_pem(&field.value)
            .map_err(|error| field.refuse(PolicyProblem::PublisherKeyRefused(error)))?;
        if keys.iter().any(|other| other.digest() == key.digest()) {
            return Err(field.refuse(PolicyProblem::KeyRepeated));
        }
        keys.push(key);
    }
    let approvals = reachable(&fields.count("approvals")?, approval.approvers.len())?;
    fields.finish()?;
    Ok(PublishRule { models, keys, approvals })
}

fn release_rule(mut fields: Fields, keeper: &KeeperRule, approval: &Approval) -> Result<ReleaseRule, PolicyError> {
    let (require_key, pcrs_key, snp_key) = (fields.key("require"), fields.key("pcrs"), fields.key("snp.measurements"));
    let rule = ReleaseRule {
        models: models(&mut fields)?,
        groups: permitted(fields.any_or_texts("groups")?, value::group)?,
        guest: guest_rule(&mut fields)?,
        workloads: workload_parse::rule(&mut fields)?,
        lease: value::lease(&fields.text("lease")?)?,
        lease_end: value::lease_end(&fields.text("on_lease_end")?)?,
        max_leases: max_leases(&fields.count("max_leases")?)?,
        unit_check: match fields.yes_or_no("verify_units")?.value {
            true => UnitCheck::Hashed,
            false => UnitCheck::SealOnly,
        },
        approvals: match fields.count_if_any("approvals")? {
            Some(field) => Some(reachable(&field, able_to_approve(approval.proposer, &approval.approvers))?),
            None => None,
        },
    };
    fields.finish()?;
    check_against_keeper(&rule, keeper).map_err(|problem| {
        let key = match &problem {
            PolicyProblem::KeeperNotDisjoint => pcrs_key,
            PolicyProblem::KeeperSameLaunch => snp_key,
            _ => require_key,
        };
        PolicyError { key, problem }
    })?;
    Ok(rule)
}

/// A keeper must not prove less than it asks of others, and no machine that is granted keys may pose as a keeper.
fn check_against_keeper(rule: &ReleaseRule, keeper: &KeeperRule) -> Result<(), PolicyProblem> {
    let missing = |proof: Proof| Err(PolicyProblem::ProofNotOfKeeper { proof: proof.to_string() });
    match (&rule.guest, keeper) {
        (GuestRule::Tpm(guest), KeeperRule::Tpm(keeper)) => match guest.pcrs.is_disjoint(&keeper.pcrs) {
            true => Ok(()),
            false => Err(PolicyProblem::KeeperNotDisjoint),
        },
        // The virtual TPM only covers what the launch digest does not; a keeper's digest covers all.
        (GuestRule::Snp(guest) | GuestRule::SnpParavisorVtpm { snp: guest, .. }, KeeperRule::Snp { snp, .. }) => {
            match guest.measurements.iter().any(|digest| snp.measurements.contains(digest)) {
                true => Err(PolicyProblem::KeeperSameLaunch),
                false => Ok(()),
            }
        }
        (GuestRule::Tpm(_), KeeperRule::Snp { .. }) => missing(Proof::Tpm),
        (GuestRule::Snp(_) | GuestRule::SnpParavisorVtpm { .. }, KeeperRule::Tpm(_)) => missing(Proof::Snp),
    }
}

pub(super) fn models(fields: &mut Fields) -> Result<Permitted<Name>, PolicyError> {
    permitted(fields.any_or_texts("models")?, value::name)
}

fn platforms(fields: &mut Fields) -> Result<Permitted<Sha256Digest>, PolicyError> {
    permitted(fields.any_or_texts("eks")?, value::digest)
}

fn permitted<T>(
    list: Option<Vec<Field<String>>>,
    read: impl FnMut(&Field<String>) -> Result<T, PolicyError>,
) -> Result<Permitted<T>, PolicyError> {
    match list {
        None => Ok(Permitted::Any),
        Some(texts) => Ok(Permitted::Only(texts.iter().map(read).collect::<Result<_, _>>()?)),
    }
}

fn proofs(fields: &mut Fields) -> Result<BTreeSet<Proof>, PolicyError> {
    let texts = fields.texts("require")?;
    let proofs = texts.iter().map(|field| match field.value.as_str() {
        "tpm" => Ok(Proof::Tpm),
        "snp" => Ok(Proof::Snp),
        other => Err(field.refuse(PolicyProblem::ProofUnknown { found: other.to_owned() })),
    });
    proofs.collect()
}

fn pcrs(fields: &mut Fields, boot: Option<BootRule>) -> Result<PcrRule, PolicyError> {
    let boot_key = fields.key("boot");
    let (key, lists) = fields.named_texts("pcrs")?;
    let (mut allowed, mut open) = (BTreeMap::new(), BTreeSet::new());
    for (index, values) in lists {
        let pcr = value::pcr_index(&index)?;
        match values {
            Some(values) => {
                allowed.insert(pcr, values.iter().map(value::pcr_value).collect::<Result<Vec<_>, _>>()?);
            }
            None => {
                open.insert(pcr);
            }
        }
    }
    PcrRule::new(allowed, open, boot).map_err(|problem| {
        let key = match &problem {
            PolicyProblem::PcrOpen { pcr } => format!("{key}.{pcr}"),
            PolicyProblem::BootPcrNotQuoted { .. } | PolicyProblem::BootImagesOpen => boot_key,
            _ => key,
        };
        PolicyError { key, problem }
    })
}

fn max_leases(field: &Field<u64>) -> Result<u32, PolicyError> {
    match u32::try_from(field.value) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(field.refuse(PolicyProblem::MaxLeasesOutOfBounds)),
    }
}
