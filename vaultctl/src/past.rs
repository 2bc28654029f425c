//! Decisions of the past, made again: under the policy that was in force, which explains a refusal, or under a candidate.
//! Pure. Evidence is verified at its own time; what it was made for is shown by `stored_evidence`, where its binding is kept.

use attestation::{CrlRule, Sha256Digest, UnixTime, VerifyError};
use ledger::decide::{DenialReason, PastEvidence, PastRequest, PastUnits, Replayed, replay};
use ledger::entry::{Action, Deny};
use ledger::names::{Name, Version};
use ledger::policy::Policy;
use ledger::state::Vault;
use serde::Serialize;
use vault_proto::convert::EvidenceSet;

use crate::captured::{Captured, MadeFor, of_evidence};

/// Refusals that follow from the request and the log alone: no policy would have let it pass.
const NOT_BY_POLICY: [&str; 18] = [
    "revoked",
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
        let (code, remedy) = (reason.code().to_owned(), reason.remedy());
        Self { code, claim: said.claim, expected: said.expected, seen: said.seen, policy_key: said.policy_key, remedy }
    }
}

impl From<&VerifyError> for Why {
    fn from(error: &VerifyError) -> Self {
        Self {
            code: error.code().to_owned(),
            claim: "evidence",
            expected: "evidence that verifies under an anchor of the policy".to_owned(),
            seen: error.to_string(),
            policy_key: Some("anchors".to_owned()),
            remedy: "it shows evidence under an anchor of the policy, or a policy lists the anchor of this one",
        }
    }
}

/// The evidence of a blob; `None` where it is no evidence, and where only the log says who endorses its EK.
pub fn evidence_of(blob: &[u8]) -> Option<Captured> {
    of_evidence(EvidenceSet::from_blob(blob).ok()?.evidence).ok().filter(|captured| match captured {
        Captured::Tpm(quote) => !quote.identity.ek_certificates.is_empty(),
        Captured::Snp { .. } | Captured::Azure(_) => true,
    })
}

/// Decides on a request again. `request.evidence` is not looked at: it is made from `evidence`, under the anchors of `policy`.
pub fn judge(vault: &Vault, policy: &Policy, request: PastRequest<'_>, evidence: Option<&Captured>) -> Judged {
    let without = PastRequest { evidence: None, ..request };
    let Some(captured) = evidence else { return replayed(&replay(vault, policy, &without)) };
    let verify = |crl| captured.verify(MadeFor::default(), policy.trust_anchors(), crl, request.time);
    match verify(CrlRule::IfPresent) {
        Ok(holds) if holds.platform() == request.platform => {
            let (shown, anchor, tier) = (holds.shown(None), holds.anchor(), holds.trust());
            let revocation = verify(CrlRule::Required).is_ok();
            let evidence = Some(PastEvidence { shown, anchor, tier, revocation });
            replayed(&replay(vault, policy, &PastRequest { evidence, ..request }))
        }
        // It is that of somebody else.
        Ok(_) => replayed(&replay(vault, policy, &without)),
        Err(error) => match replayed(&replay(vault, policy, &without)) {
            refused @ Judged::Refused(_) => refused,
            Judged::Granted | Judged::Open { .. } => Judged::Refused(Box::new(Why::from(&error))),
        },
    }
}

fn replayed(replayed: &Replayed) -> Judged {
    match replayed {
        Replayed::Granted => Judged::Granted,
        Replayed::Refused(reason) => Judged::Refused(Box::new(Why::from(reason.as_ref()))),
        Replayed::Open(question) => Judged::Open { code: question.code(), why: question.to_string() },
    }
}

/// The request of a `deny` entry. What it asked for follows from how far the decision came.
pub fn denied_request<'a>(deny: &'a Deny, before: &'a Vault, leases: u32) -> PastRequest<'a> {
    let code = deny.code.as_str();
    let early = BEFORE_UNITS.contains(&code) || BY_UNITS.contains(&code) || NOT_BY_POLICY.contains(&code);
    let units = match before.policy().release_rule(&deny.rule) {
        Some(rule) if !early => PastUnits::Within(&rule.groups),
        Some(_) | None => PastUnits::Unknown,
    };
    request(deny.action, deny.time, (&deny.rule, &deny.model, &deny.version), deny.platform, (units, leases))
}

/// A request without its evidence.
pub fn request<'a>(
    action: Action,
    time: UnixTime,
    (rule, model, version): (&'a Name, &'a Name, &'a Version),
    platform: Sha256Digest,
    (units, leases): (PastUnits<'a>, u32),
) -> PastRequest<'a> {
    PastRequest { action, time, rule, model, version, platform, units, evidence: None, leases }
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
    let leases = before.lease_count(&deny.rule, deny.time);
    match judge(before, before.policy(), denied_request(deny, before, leases), evidence) {
        Judged::Refused(why) if why.code == code => Denied::ByPolicy(why),
        Judged::Refused(why) => Denied::Unexplained { why: format!("it is refused today as {}", why.code) },
        Judged::Granted => Denied::Unexplained { why: "nothing that is at hand refuses it".to_owned() },
        Judged::Open { why, .. } => Denied::Unexplained { why },
    }
}

/// What a candidate would have said to a request that was denied.
pub fn judge_denied(
    deny: &Deny,
    before: &Vault,
    candidate: &Policy,
    evidence: Option<&Captured>,
    leases: u32,
) -> Judged {
    let not_explained = |why: String| Judged::Open { code: "denial-not-reproduced", why };
    match explain(deny, before, evidence) {
        Denied::NotByPolicy => Judged::Refused(Box::new(Why {
            code: deny.code.to_string(),
            claim: "request",
            expected: "one that the log permits".to_owned(),
            seen: "another".to_owned(),
            policy_key: None,
            remedy: "the guest asks, or loads, anew: no policy decides this",
        })),
        Denied::Unexplained { why } => not_explained(why),
        Denied::ByPolicy(_) => judge(before, candidate, denied_request(deny, before, leases), evidence),
        Denied::ByUnits(_) => match judge(before, candidate, denied_request(deny, before, leases), evidence) {
            refused @ Judged::Refused(_) => refused,
            // More was asked for than the rule gave, and it would give no more.
            Judged::Granted | Judged::Open { .. } if gives_no_more(deny, before.policy(), candidate) => {
                Judged::Refused(Box::new(by_units(deny, candidate)))
            }
            other @ (Judged::Granted | Judged::Open { .. }) => other,
        },
    }
}

fn gives_no_more(deny: &Deny, in_force: &Policy, candidate: &Policy) -> bool {
    let groups = |policy: &Policy| policy.release_rule(&deny.rule).map(|rule| rule.groups.clone());
    groups(in_force).zip(groups(candidate)).is_some_and(|(gave, gives)| gives.is_within(&gave))
}

/// What can be said of a refusal for the units: their groups are not in a `deny` entry.
fn by_units(deny: &Deny, policy: &Policy) -> Why {
    let groups = policy.release_rule(&deny.rule).map(|rule| rule.groups.to_string()).unwrap_or_default();
    Why {
        code: deny.code.to_string(),
        claim: "groups",
        expected: format!("header units, and groups {groups}"),
        seen: "more".to_owned(),
        policy_key: Some(format!("release.{}.groups", deny.rule)),
        remedy: "the guest asks for less (--groups), or a policy gives the group",
    }
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
