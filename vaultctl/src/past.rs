//! Decisions of the past, made again: under the policy that was in force, which explains a refusal, or under a candidate.
//! Pure. Evidence is verified at its own time; what it was made for is shown by `stored_evidence`, where its binding is kept.

mod help;

use attestation::{CrlRule, Sha256Digest, VerifyError};
use ledger::decide::{
    DenialReason, OpenQuestion, PastBytes, PastEvidence, PastRequest, PastUnits, PastWorkload, Replayed, rehearse,
    replay,
};
use ledger::entry::{Action, Deny, Release};
use ledger::policy::Policy;
use ledger::revocation::{Holding, Marks, Scope};
use ledger::state::{Allowances, Rehearsal, Vault};
use serde::Serialize;
use vault_proto::convert::EvidenceSet;

use crate::captured::{Captured, MadeFor, of_evidence};

/// Refusals that follow from the request and the log alone: no policy would have let it pass.
const NOT_BY_POLICY: [&str; 19] = [
    "vault-not-open",
    "time-behind-log",
    "vault-mismatch",
    "policy-changed",
    "manifest-mismatch",
    "unit-unknown",
    "lease-repeated",
    "lease-unknown",
    "lease-lapsed",
    "rule-of-another-lease",
    "lease-key-mismatch",
    "platform-changed",
    "ak-changed",
    "proof-changed",
    "guest-changed",
    "rebooted",
    "tier-changed",
    "workload-changed",
    "workload-unasked",
];
/// Refusals for what was asked for. Which units that were is not in a `deny` entry.
const BY_UNITS: [&str; 2] = ["group-not-granted", "groups-narrowed"];
/// Refusals that come before the units are looked at.
const BEFORE_UNITS: [&str; 4] = ["policy-expired", "rule-unknown", "model-not-published", "model-not-in-rule"];

/// What a decision would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// A grant.
    Granted,
    /// A refusal.
    Refused(Box<Why>),
    /// Not to be said from what is at hand.
    Open {
        /// Stable code.
        code: &'static str,
        /// What is not known.
        why: String,
    },
}

/// A refusal, and what would make it pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Stable code.
    pub code: String,
    /// What was checked.
    pub claim: &'static str,
    /// What it should have been.
    pub expected: String,
    /// What it was.
    pub seen: String,
    /// The key of the policy that asks for it.
    pub policy_key: Option<String>,
    /// What would make it pass.
    pub remedy: &'static str,
    /// Whether it waits for approvers, who can let it through as it is.
    pub waits: bool,
    /// What else there was then: how much is used, and when that frees; which permits there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    /// What somebody would have to propose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub propose: Vec<String>,
}

/// A `deny` entry, looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The policy that was in force refuses it, for the reason that the entry gives.
    ByPolicy(Box<Why>),
    /// For what was asked for, which the log does not have.
    ByUnits(Box<Why>),
    /// No policy would have let it pass.
    NotByPolicy,
    /// Not to be reproduced.
    Unexplained {
        /// Why not.
        why: String,
    },
}

impl From<&DenialReason> for Why {
    fn from(reason: &DenialReason) -> Self {
        let said = reason.explain();
        Self {
            policy_key: said.policy_key,
            waits: reason.waits(),
            ..Self::new(reason.code(), said.claim, (said.expected, said.seen), reason.remedy())
        }
    }
}

impl From<&VerifyError> for Why {
    fn from(error: &VerifyError) -> Self {
        let expected = "evidence that verifies under an anchor of the policy".to_owned();
        let remedy = "it shows evidence under an anchor of the policy, or a policy lists the anchor of this one";
        let why = Self::new(error.code(), "evidence", (expected, error.to_string()), remedy);
        Self { policy_key: Some("anchors".to_owned()), ..why }
    }
}

impl Why {
    fn new(code: &str, claim: &'static str, (expected, seen): (String, String), remedy: &'static str) -> Self {
        let (policy_key, facts, propose) = (None, Vec::new(), Vec::new());
        Self { code: code.to_owned(), claim, expected, seen, policy_key, remedy, waits: false, facts, propose }
    }
}

/// The evidence of a blob; `None` where it is no evidence, and where only the log says who endorses its EK.
pub fn evidence_of(blob: &[u8]) -> Option<Captured> {
    of_evidence(EvidenceSet::from_blob(blob).ok()?.evidence).ok().filter(|captured| match captured {
        Captured::Tpm(quote) => !quote.identity.ek_certificates.is_empty(),
        Captured::Snp { .. } | Captured::Azure(_) => true,
    })
}

/// What a decision came to again, with its reason as `decide` has it.
enum Outcome {
    Replayed(Replayed),
    /// The evidence does not hold under the policy.
    Unverified(VerifyError),
}

impl From<Outcome> for Judged {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Replayed(Replayed::Granted) => Self::Granted,
            Outcome::Replayed(Replayed::Refused(reason)) => Self::Refused(Box::new(Why::from(reason.as_ref()))),
            Outcome::Replayed(Replayed::Open(question)) => {
                Self::Open { code: question.code(), why: question.to_string() }
            }
            Outcome::Unverified(error) => Self::Refused(Box::new(Why::from(&error))),
        }
    }
}

/// Evidence as the anchors of a policy see it, and as it was then.
fn with_evidence<T>(
    policy: &Policy,
    request: &PastRequest<'_>,
    evidence: Option<&Captured>,
    then: impl FnOnce(&PastRequest<'_>) -> T,
) -> Result<T, (VerifyError, T)> {
    let without = PastRequest { evidence: None, ..*request };
    let Some(captured) = evidence else { return Ok(then(&without)) };
    let verify = |crl| captured.verify(MadeFor::default(), policy.trust_anchors(), crl, request.time);
    match verify(CrlRule::IfPresent) {
        Ok(holds) if holds.platform() == request.platform => {
            let (shown, anchor, tier) = (holds.shown(None), holds.anchor(), holds.trust());
            let revocation = verify(CrlRule::Required).is_ok();
            let evidence = Some(PastEvidence { shown, anchor, tier, revocation });
            Ok(then(&PastRequest { evidence, ..*request }))
        }
        // It is that of somebody else.
        Ok(_) => Ok(then(&without)),
        Err(error) => Err((error, then(&without))),
    }
}

fn decided(vault: &Vault, left: &Allowances<'_>, request: &PastRequest<'_>, evidence: Option<&Captured>) -> Outcome {
    match with_evidence(left.policy(), request, evidence, |request| replay(vault, left, request)) {
        Ok(replayed) | Err((_, replayed @ Replayed::Refused(_))) => Outcome::Replayed(replayed),
        Err((error, Replayed::Granted | Replayed::Open(_))) => Outcome::Unverified(error),
    }
}

/// Decides on a request again, by the policy of `left`. `request.evidence` is not looked at: it is made from `evidence`,
/// under the anchors of that policy.
pub fn judge(vault: &Vault, left: &Allowances<'_>, request: &PastRequest<'_>, evidence: Option<&Captured>) -> Judged {
    decided(vault, left, request, evidence).into()
}

/// Has what a candidate lets through take its part of what is left.
pub fn take(
    rehearsal: &mut Rehearsal,
    request: &PastRequest<'_>,
    evidence: Option<&Captured>,
    lease: Option<Sha256Digest>,
) {
    let policy = std::sync::Arc::clone(rehearsal.policy());
    // Only alarms, and a request that does not say what was shown, need it.
    let evidence = evidence.filter(|_| request.marks.is_none() || !policy.alarms().is_empty());
    let _ = with_evidence(&policy, request, evidence, |request| rehearse(rehearsal, request, lease));
}

/// The request of a `deny` entry. What it asked for follows from how far the decision came; how much it asked for, nothing
/// says.
pub fn denied_request<'a>(deny: &'a Deny, before: &'a Vault) -> PastRequest<'a> {
    let code = deny.code.as_str();
    let early = BEFORE_UNITS.contains(&code) || BY_UNITS.contains(&code) || NOT_BY_POLICY.contains(&code);
    let units = match before.policy().release_rule(&deny.rule) {
        Some(rule) if !early => PastUnits::Within(&rule.groups),
        Some(_) | None => PastUnits::Unknown,
    };
    let asks = before.policy().release_rule(&deny.rule).is_some_and(|rule| rule.workloads.asks());
    let workload = match &deny.workload {
        Some(workload) => PastWorkload::Shown(workload),
        None if asks => PastWorkload::Missing,
        None => PastWorkload::NotAsked,
    };
    let most = before.model(&deny.model, &deny.version).map_or(1, |model| model.proposed.bytes.max(1));
    PastRequest {
        action: deny.action,
        time: deny.time,
        rule: &deny.rule,
        model: &deny.model,
        version: &deny.version,
        platform: deny.platform,
        units,
        bytes: PastBytes { least: 1, most },
        marks: None,
        workload,
        evidence: None,
    }
}

/// The request of a `release` entry.
pub fn released_request<'a>(release: &'a Release, units: PastUnits<'a>) -> PastRequest<'a> {
    PastRequest {
        action: Action::Load,
        time: release.time,
        rule: &release.rule,
        model: &release.model,
        version: &release.version,
        platform: release.platform,
        units,
        bytes: PastBytes::exactly(release.units.bytes),
        marks: release.marks.as_ref(),
        workload: release.workload.as_ref().map_or(PastWorkload::NotAsked, PastWorkload::Shown),
        evidence: None,
    }
}

/// Looks at a `deny` entry again, under the policy that was in force.
pub fn explain(deny: &Deny, before: &Vault, evidence: Option<&Captured>) -> Denied {
    let code = deny.code.as_str();
    if NOT_BY_POLICY.contains(&code) {
        return Denied::NotByPolicy;
    }
    if BY_UNITS.contains(&code) {
        return Denied::ByUnits(Box::new(by_units(deny, before.policy())));
    }
    let (left, request) = (before.allowances(), denied_request(deny, before));
    if code == "revoked" {
        return match revocation(deny, before, before.policy(), evidence) {
            Revoked::By(revocation) => Denied::ByPolicy(Box::new(help::lift(before, revocation))),
            Revoked::Perhaps | Revoked::Not => {
                Denied::Unexplained { why: "nothing that is at hand revokes it".to_owned() }
            }
        };
    }
    // A budget of bytes refuses what asked for enough: the log does not say how much that was.
    let PastBytes { least, most } = request.bytes;
    let guesses = [request.bytes, PastBytes::exactly(most), PastBytes::exactly(least)];
    let mut first = None;
    for bytes in guesses {
        let outcome = decided(before, &left, &PastRequest { bytes, ..request }, evidence);
        if let Outcome::Replayed(Replayed::Refused(reason)) = &outcome
            && reason.code() == code
        {
            return Denied::ByPolicy(Box::new(help::explained(deny, before, reason)));
        }
        first.get_or_insert(outcome);
    }
    match first.map(Judged::from) {
        Some(Judged::Refused(why)) if why.code == code => Denied::ByPolicy(why),
        Some(Judged::Refused(why)) => Denied::Unexplained { why: format!("it is refused today as {}", why.code) },
        Some(Judged::Open { why, .. }) => Denied::Unexplained { why },
        Some(Judged::Granted) | None => Denied::Unexplained { why: "nothing that is at hand refuses it".to_owned() },
    }
}

/// What a candidate would have said to a request that was denied.
pub fn judge_denied(deny: &Deny, before: &Vault, left: &Allowances<'_>, evidence: Option<&Captured>) -> Judged {
    let request = denied_request(deny, before);
    let judged = match explain(deny, before, evidence) {
        Denied::NotByPolicy => {
            let seen = ("one that the log permits".to_owned(), "another".to_owned());
            let remedy = "the guest asks, or loads, anew: no policy decides this";
            return Judged::Refused(Box::new(Why::new(deny.code.as_str(), "request", seen, remedy)));
        }
        Denied::Unexplained { why } => return Judged::Open { code: "denial-not-reproduced", why },
        Denied::ByPolicy(_) => judge(before, left, &request, evidence),
        Denied::ByUnits(_) => match judge(before, left, &request, evidence) {
            refused @ Judged::Refused(_) => refused,
            // More was asked for than the rule gave, and it would give no more.
            Judged::Granted | Judged::Open { .. } if gives_no_more(deny, before.policy(), left.policy()) => {
                return Judged::Refused(Box::new(by_units(deny, left.policy())));
            }
            other @ (Judged::Granted | Judged::Open { .. }) => other,
        },
    };
    match (judged, revocation(deny, before, left.policy(), evidence)) {
        (refused @ Judged::Refused(_), _) | (refused, Revoked::Not) => refused,
        (Judged::Granted | Judged::Open { .. }, Revoked::By(revocation)) => {
            Judged::Refused(Box::new(help::lift(before, revocation)))
        }
        (Judged::Granted | Judged::Open { .. }, Revoked::Perhaps) => Judged::Open {
            code: OpenQuestion::Groups.code(),
            why: "whether it asked for a group that is revoked is not known".to_owned(),
        },
    }
}

/// Whether what was asked for was revoked, whatever the policy says.
enum Revoked {
    By(u64),
    /// A group is, and which groups were asked for is not known.
    Perhaps,
    Not,
}

fn revocation(deny: &Deny, before: &Vault, policy: &Policy, evidence: Option<&Captured>) -> Revoked {
    let Some(rule) = policy.release_rule(&deny.rule) else { return Revoked::Not };
    let request = denied_request(deny, before);
    let shown = |request: &PastRequest<'_>| request.evidence.map(|evidence| Marks::shown(&evidence.shown));
    // What it showed is what the policy of then has seen.
    let marks = with_evidence(before.policy(), &request, evidence, shown).ok().flatten();
    let lease = Sha256Digest::from_bytes([0; 32]);
    let held = Holding {
        lease,
        model: &deny.model,
        version: &deny.version,
        platform: deny.platform,
        rule,
        marks: marks.as_ref(),
    };
    match before.revocations().find(|(_, revocation)| revocation.scope.covers(&held)) {
        None => Revoked::Not,
        Some((_, revocation)) if matches!(revocation.scope, Scope::Group { .. }) && deny.code.as_str() != "revoked" => {
            Revoked::Perhaps
        }
        Some((entry, _)) => Revoked::By(entry),
    }
}

fn gives_no_more(deny: &Deny, in_force: &Policy, candidate: &Policy) -> bool {
    let groups = |policy: &Policy| policy.release_rule(&deny.rule).map(|rule| rule.groups.clone());
    groups(in_force).zip(groups(candidate)).is_some_and(|(gave, gives)| gives.is_within(&gave))
}

/// What can be said of a refusal for the units: their groups are not in a `deny` entry.
fn by_units(deny: &Deny, policy: &Policy) -> Why {
    let groups = policy.release_rule(&deny.rule).map(|rule| rule.groups.to_string()).unwrap_or_default();
    let seen = (format!("header units, and groups {groups}"), "more".to_owned());
    let remedy = "the guest asks for less (--group), or a policy gives the group";
    let why = Why::new(deny.code.as_str(), "groups", seen, remedy);
    Why { policy_key: Some(format!("release.{}.groups", deny.rule)), ..why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_of_one_kind() {
        let all: Vec<&str> = NOT_BY_POLICY.into_iter().chain(BY_UNITS).chain(BEFORE_UNITS).collect();
        let distinct: std::collections::BTreeSet<&&str> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn what_is_no_evidence_is_none() {
        assert!(evidence_of(b"no evidence at all").is_none());
    }
}
