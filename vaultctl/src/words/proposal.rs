//! A proposal as a change in words, from the verified log.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::{PlatformAct, PlatformChange, ProposedModel};
use ledger::names::Name;
use ledger::policy::{BareEks, ProposerRule, describe_change};
use ledger::revocation::RevocationAct;
use ledger::state::{PendingProposal, Subject, Vault};
use serde::Serialize;

use super::budget::raise_says;
use super::entry::act_in_words;
use super::permit::permit_says;
use super::{epoch_in_words, escrow_in_words, joiner_in_words, leave_in_words, machine_in_words, reseal_in_words};
use crate::print::{count_of, distance, indented, moment, size};

/// The kind of a proposal that nobody signed: the machine showed itself.
const KEEPER: &str = "keeper";

/// What is proposed, who agreed, who can.
#[derive(Debug, Serialize)]
pub struct ProposalReport {
    object: Sha256Digest,
    entry: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposer: Option<String>,
    says: Vec<String>,
    approved_by: Vec<String>,
    threshold: u32,
    missing: u64,
    may_approve: Vec<String>,
    not_after: UnixTime,
    #[serde(skip)]
    now: UnixTime,
}

impl ProposalReport {
    /// Explains a proposal of `vault` as of `now`.
    pub fn new(proposal: &PendingProposal, vault: &Vault, now: UnixTime) -> Self {
        let (kind, proposer, says) = match proposal.subject() {
            Subject::Policy { proposer, policy } => {
                let mut says = describe_change(vault.policy(), policy);
                if says.is_empty() {
                    says.push("changes nothing that is decided by".to_owned());
                }
                ("policy", Some(proposer), says)
            }
            Subject::Model(model) => ("model", None, model_in_words(model)),
            Subject::Platform { proposer, change } => ("platform", Some(proposer), platform_in_words(change, vault)),
            Subject::Reseal { proposer, reseal } => ("reseal", Some(proposer), reseal_in_words(reseal, vault)),
            Subject::Join(joiner) => (KEEPER, None, joiner_in_words(joiner, vault)),
            Subject::Escrow { proposer, plan } => ("escrow", Some(proposer), escrow_in_words(plan)),
            Subject::Recover(recovery) => {
                let mut says =
                    vec!["LOOSER: a keeper in the place of a lost one gets all keys of this vault:".to_owned()];
                says.extend(machine_in_words(&recovery.joiner.machine));
                (KEEPER, None, says)
            }
            Subject::Leave { proposer, instance } => {
                ("keeper that leaves", Some(proposer), leave_in_words(*instance, vault))
            }
            Subject::KeyEpoch { proposer, next } => ("key epoch", Some(proposer), epoch_in_words(next, vault)),
            Subject::Raise { proposer, raise } => ("budget", Some(proposer), raise_says(raise, vault, now)),
            Subject::Permit { proposer, permit } => (permit.kind.as_str(), Some(proposer), permit_says(permit, vault)),
            Subject::Revocation { proposer, act } => match act {
                RevocationAct::Revoke { scope, .. } => {
                    let ends = vault.leases_covered(scope, now).len() as u64;
                    let says = vec![act_in_words(act, Some(vault)), format!("ends {} now", count_of(ends, "lease"))];
                    ("revocation", Some(proposer), says)
                }
                RevocationAct::Lift { .. } => {
                    let says = vec![format!("LOOSER: {}", act_in_words(act, Some(vault)))];
                    ("lift of a revocation", Some(proposer), says)
                }
            },
        };
        let approved: Vec<&Name> = proposal.approved_by(now).collect();
        let missing = u64::from(proposal.threshold()).saturating_sub(approved.len() as u64);
        Self {
            object: proposal.object(),
            entry: proposal.entry(),
            kind,
            says,
            threshold: proposal.threshold(),
            missing,
            may_approve: may_approve(vault, proposer, &approved),
            proposer: proposer.map(ToString::to_string),
            approved_by: approved.iter().map(ToString::to_string).collect(),
            not_after: proposal.not_after(),
            now,
        }
    }
}

impl fmt::Display for ProposalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)?;
        match &self.proposer {
            Some(proposer) => writeln!(f, ", proposed by {proposer} (entry {})", self.entry)?,
            None if self.kind == KEEPER => writeln!(f, ", by evidence of its own (entry {})", self.entry)?,
            None => writeln!(f, ", proposed by its publisher (entry {})", self.entry)?,
        }
        f.write_str(&indented(self.says.join("\n")))?;
        let signed = if self.approved_by.is_empty() { "nobody".to_owned() } else { self.approved_by.join(", ") };
        writeln!(f, "  approved by: {signed} ({} of {})", self.approved_by.len(), self.threshold)?;
        if self.missing > 0 {
            writeln!(f, "  missing: {} of {}", self.missing, self.may_approve.join(", "))?;
        }
        writeln!(f, "  counts until {} ({})", moment(self.not_after), distance(self.not_after, self.now))
    }
}

/// Who could still approve.
fn may_approve(vault: &Vault, proposer: Option<&Name>, approved: &[&Name]) -> Vec<String> {
    let approval = vault.policy().approval();
    // A revocation's proposer has approved already, and is not missing.
    let barred = match approval.proposer {
        ProposerRule::MayApprove => None,
        ProposerRule::MayNotApprove => proposer,
    };
    let ids = approval.approvers.iter().map(|approver| &approver.id);
    ids.filter(|id| Some(*id) != barred && !approved.contains(id)).map(ToString::to_string).collect()
}

fn model_in_words(model: &ProposedModel) -> Vec<String> {
    vec![
        format!("publishes {}@{}", model.model, model.version),
        format!("publisher: {}", model.publisher),
        format!("size:      {} in {}", size(model.bytes), count_of(u64::from(model.units), "unit")),
        format!("manifest:  {}", model.manifest),
    ]
}

/// What a change of the platforms gives or takes, and by which rules.
pub fn platform_in_words(change: &PlatformChange, vault: &Vault) -> Vec<String> {
    let PlatformChange { act, platform, label, counts_as, .. } = change;
    let takes = |rule: &ledger::policy::GuestRule| {
        rule.bare_eks() == BareEks::Enrolled && rule.eks().is_some_and(|eks| eks.permits(platform))
    };
    let rules = vault.policy().release_rules().iter().filter(|(_, rule)| takes(&rule.guest));
    let rules: Vec<String> = rules.map(|(name, _)| format!("release.{name}")).collect();
    let rules = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
    let first = match act {
        PlatformAct::Add => {
            format!("LOOSER: the EK without a certificate {platform} is taken as {counts_as}, under the label {label}")
        }
        PlatformAct::Remove => format!("stricter: the EK {platform} ({label}, {counts_as}) is taken no more"),
    };
    let second = match act {
        PlatformAct::Add => {
            "nobody but its approvers says that this is a TPM: compare it with what `vault-enclave evidence` prints there"
        }
        PlatformAct::Remove => "its leases are not renewed: they end by themselves",
    };
    vec![first, format!("by: {rules}"), second.to_owned()]
}
