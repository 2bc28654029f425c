//! A policy in words: what it asks for, and what in it deserves a second look.

use std::collections::BTreeSet;
use std::fmt;

use attestation::{Sha256Digest, Trust, UnixTime};
use ledger::cosignature::WitnessPolicy;
use ledger::policy::{BareEks, Lineage, PcrRule, Permitted, Policy, Proof, ProposerRule, UnitCheck, WorkloadRule};
use serde::Serialize;

use crate::print::{distance, moment, span};

mod boot;
mod snp;

const SECS_PER_DAY: u64 = 24 * 60 * 60;
/// A policy that ends sooner than this deserves a word: its successor takes people and time.
const ENDS_SOON_SECS: u64 = 14 * SECS_PER_DAY;

/// A policy, explained.
#[derive(Debug, Serialize)]
pub struct PolicyReport {
    digest: Sha256Digest,
    serial: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Sha256Digest>,
    not_after: UnixTime,
    says: Vec<Clause>,
    warnings: Vec<String>,
    #[serde(skip)]
    now: UnixTime,
}

/// One section and what it says.
#[derive(Debug, Serialize)]
struct Clause {
    section: String,
    says: Vec<String>,
}

impl PolicyReport {
    /// Explains `policy` as of `now`.
    pub fn new(policy: &Policy, now: UnixTime) -> Self {
        let (vault, previous) = match policy.lineage() {
            Lineage::Genesis => (None, None),
            Lineage::Successor { vault, prev, .. } => (Some(vault), Some(prev)),
        };
        Self {
            digest: policy.digest(),
            serial: policy.serial(),
            vault,
            previous,
            not_after: policy.not_after(),
            says: clauses(policy),
            warnings: warnings(policy, now),
            now,
        }
    }
}

impl PolicyReport {
    /// The same with one more thing that deserves a second look.
    #[must_use]
    pub fn and_warning(mut self, warning: Option<String>) -> Self {
        self.warnings.extend(warning);
        self
    }

    /// What in it deserves a second look.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for PolicyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Policy {}, {}", self.serial, self.digest)?;
        match self.vault {
            None => writeln!(f, "  the first policy of a vault")?,
            Some(vault) => writeln!(f, "  for vault {vault}")?,
        }
        if let Some(previous) = self.previous {
            writeln!(f, "  replaces {previous}")?;
        }
        writeln!(f, "  ends {} ({})", moment(self.not_after), distance(self.not_after, self.now))?;
        for clause in &self.says {
            writeln!(f, "[{}]", clause.section)?;
            clause.says.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "! {warning}"))
    }
}

fn witnesses(policy: &WitnessPolicy) -> Clause {
    let (quorum, count, faulty) = (policy.quorum(), policy.witnesses().len(), policy.faulty());
    let first =
        format!("{quorum} of {count} cosign the log before anything is released; {faulty} of them may be faulty");
    let says = std::iter::once(first).chain(policy.witnesses().iter().map(ToString::to_string)).collect();
    Clause { section: "witnesses".to_owned(), says }
}

fn clauses(policy: &Policy) -> Vec<Clause> {
    let mut clauses = vec![approval(policy)];
    if let Some(threshold) = policy.platform_threshold() {
        let of = policy.approval().approvers.len();
        let says = vec![format!("{threshold} of {of} approvers enrol or remove an EK that has no certificate")];
        clauses.push(Clause { section: "platforms".to_owned(), says });
    }
    clauses.extend(policy.witnesses().map(witnesses));
    clauses.push(Clause { section: "anchors".to_owned(), says: anchors(policy) });
    clauses.push(keeper(policy));
    for (name, rule) in policy.publish_rules() {
        let keys: Vec<String> = rule.keys.iter().map(|key| key.digest().to_string()).collect();
        clauses.push(Clause {
            section: format!("publish.{name}"),
            says: vec![
                format!("models: {}", rule.models),
                format!("signed by one of: {}", keys.join(", ")),
                format!("{} of {} approvers must sign", rule.approvals, policy.approval().approvers.len()),
            ],
        });
    }
    clauses.extend(releases(policy));
    let budgets = policy.budgets().iter();
    clauses.extend(
        budgets.map(|(name, budget)| Clause { section: format!("budget.{name}"), says: vec![budget.to_string()] }),
    );
    let alarms = policy.alarms().iter();
    clauses
        .extend(alarms.map(|(name, rule)| Clause { section: format!("alarm.{name}"), says: vec![rule.to_string()] }));
    clauses.push(Clause {
        section: "audit".to_owned(),
        says: vec![format!("the log may be read by: {}", policy.readers())],
    });
    clauses
}

fn approval(policy: &Policy) -> Clause {
    let approval = policy.approval();
    let mut says = vec![format!("{} of {} approvers change the policy", approval.threshold, approval.approvers.len())];
    says.push(match approval.revoke_threshold {
        1 => "any one of them ends leases and stops releases (revoke)".to_owned(),
        several => format!("{several} of them end leases and stop releases (revoke)"),
    });
    says.push(match approval.break_glass_threshold {
        None => "there is no break-glass".to_owned(),
        Some(count) => {
            format!("{count} of them let releases pass budgets, holds and approvals for a day (break-glass)")
        }
    });
    says.extend(approval.standing.iter().map(|object| format!("the standing approval {object} goes on")));
    says.extend(approval.approvers.iter().map(ToString::to_string));
    says.push(match approval.proposer {
        ProposerRule::MayApprove => "who proposes a policy may also approve it".to_owned(),
        ProposerRule::MayNotApprove => "who proposes a policy does not count among its approvals".to_owned(),
    });
    Clause { section: "approval".to_owned(), says }
}

fn anchors(policy: &Policy) -> Vec<String> {
    let anchors = policy.trust_anchors().iter();
    if anchors.len() == 0 {
        return vec![
            "those that are built in alone: AMD's for SEV-SNP; for TPMs Infineon's, Nuvoton's, GlobalSign's".to_owned(),
        ];
    }
    anchors
        .map(|(anchor, until)| {
            let (digest, end) = (Sha256Digest::of(&anchor.certificate), moment(until));
            format!("{}: {}; its certificate is {digest} and ends {end}", anchor.name, trust(anchor.trust))
        })
        .collect()
}

fn keeper(policy: &Policy) -> Clause {
    let rule = policy.keeper();
    let mut says = vec![format!("must prove: {}", proofs(&rule.require()))];
    says.extend(rule.snp().map(snp::says).unwrap_or_default());
    says.push(format!("PCRs: {}", pcrs(rule.tpm().pcrs.allowed())));
    says.push(format!("TPMs: {}", tpms(&rule.tpm().platforms)));
    Clause { section: "keeper".to_owned(), says }
}

fn proofs(proofs: &BTreeSet<Proof>) -> String {
    let proofs: Vec<String> = proofs.iter().map(ToString::to_string).collect();
    proofs.join(", ")
}

fn releases(policy: &Policy) -> impl Iterator<Item = Clause> + '_ {
    policy.release_rules().iter().map(|(name, rule)| {
        let checked = match rule.unit_check {
            UnitCheck::Hashed => "every unit is hashed against the publisher's manifest",
            UnitCheck::SealOnly => "units are not hashed against the publisher's manifest",
        };
        let mut says = vec![
            format!("models: {}; groups: {}", rule.models, rule.groups),
            format!("must prove: {}", proofs(&rule.guest.require())),
        ];
        says.extend(rule.guest.snp().map(snp::says).unwrap_or_default());
        says.extend(rule.guest.pcrs().map(|rule| format!("PCRs: {}", pcrs(rule.allowed()))));
        says.extend(rule.guest.pcrs().map(boot::says).unwrap_or_default());
        says.extend(rule.guest.eks().map(|eks| format!("TPMs: {}", tpms(eks))));
        match rule.guest.bare_eks() {
            BareEks::Enrolled => says.push("TPMs without a certificate too, if they were enrolled".to_owned()),
            BareEks::Refused => {}
        }
        says.extend(workloads(&rule.workloads));
        let (lease, end, most) = (span(rule.lease.seconds()), rule.lease_end, rule.max_leases);
        says.extend(rule.approvals.map(|count| format!("each release takes a standing approval by {count} approvers")));
        says.push(format!("lease of {lease}, then: {end}; at most {most} at once"));
        says.push(checked.to_owned());
        Clause { section: format!("release.{name}"), says }
    })
}

/// The agent says it: whoever reads "must start" is to know what that is worth.
fn workloads(rule: &WorkloadRule) -> Option<String> {
    match rule {
        WorkloadRule::NotAsked => None,
        WorkloadRule::Asked(Permitted::Any) => {
            Some("says what it starts, which is logged; it may be anything".to_owned())
        }
        WorkloadRule::Asked(pins) => Some(format!(
            "starts, as the agent in its measured image says: {pins}; libraries and files that it reads are not in that"
        )),
    }
}

/// What in a policy deserves a second look.
pub fn warnings(policy: &Policy, now: UnixTime) -> Vec<String> {
    let mut warnings = Vec::new();
    let approval = policy.approval();
    if policy.is_expired(now) {
        warnings.push("it is over: nothing is released or renewed under it".to_owned());
    } else if policy.not_after() < now.plus(ENDS_SOON_SECS) {
        warnings.push(format!("it ends {}", distance(policy.not_after(), now)));
    }
    if approval.threshold == 1 {
        warnings.push("one approver alone can change the policy".to_owned());
    } else if approval.threshold == 2 && approval.proposer == ProposerRule::MayApprove {
        warnings.push("the proposer and one other can change the policy".to_owned());
    }
    if policy.platform_threshold() == Some(1) {
        warnings.push("platforms: one approver alone can enrol a TPM that has no certificate".to_owned());
    }
    if policy.trust_anchors().iter().any(|(anchor, _)| anchor.trust == Trust::Emulated) {
        warnings.push(
            "it trusts EMULATED hardware, whose keys anybody who runs it can take: good for tests alone".to_owned(),
        );
    }
    let any_tpm = |platforms: &Permitted<Sha256Digest>| *platforms == Permitted::Any;
    if any_tpm(&policy.keeper().tpm().platforms) {
        warnings.push("any TPM that an anchor endorses may be the keeper's".to_owned());
    }
    if let Some(rule) = policy.keeper().snp() {
        warnings.extend(snp::warnings(rule).into_iter().map(|warning| format!("keeper: {warning}")));
    }
    for (name, rule) in policy.publish_rules() {
        if rule.approvals == 1 {
            warnings.push(format!("publish.{name}: one approver alone lets a model in"));
        }
    }
    for (name, rule) in policy.release_rules() {
        if rule.guest.eks().is_some_and(any_tpm) {
            warnings.push(format!("release.{name}: any TPM that an anchor endorses may get keys"));
        }
        if rule.guest.pcrs().is_some_and(boots_anything) {
            warnings.push(format!(
                "release.{name}: PCR 4 is not checked: whoever starts another system on such a machine can bring PCRs 8 to 15 \
                 to the values of yours"
            ));
        }
        if let Some(rule) = rule.guest.snp() {
            warnings.extend(snp::warnings(rule).into_iter().map(|warning| format!("release.{name}: {warning}")));
        }
        if let WorkloadRule::Asked(Permitted::Only(pins)) = &rule.workloads
            && pins.iter().any(|pin| pin.arguments.is_none())
        {
            warnings.push(format!(
                "release.{name}: a program may be started with any arguments; those of an interpreter name the code"
            ));
        }
        if rule.unit_check == UnitCheck::SealOnly {
            warnings.push(format!("release.{name}: a node that has a unit's key could forge that unit for others"));
        }
    }
    if policy.release_rules().is_empty() {
        warnings.push("it has no release rule: no model can be loaded".to_owned());
    }
    warnings
}

/// PCRs 0 to 3 and 5 to 7 are those of the firmware, of how it is set, and of who signed what it starts; 8 to 15 hold what
/// the system that it started says. What it started is in PCR 4 alone, or in those of a dynamic launch.
fn boots_anything(rule: &PcrRule) -> bool {
    !rule.selection().iter().any(|index| matches!(index, 4 | 17..=22))
}

fn trust(trust: Trust) -> &'static str {
    match trust {
        Trust::Emulated => "EMULATED, proves nothing about hardware",
        Trust::Hardware => "hardware",
    }
}

fn pcrs(allowed: &std::collections::BTreeMap<u32, Vec<[u8; 32]>>) -> String {
    let one = |(index, values): (&u32, &Vec<[u8; 32]>)| format!("{index} = {}", either_of(values));
    allowed.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Each in full: another image whose digest begins the same is soon found.
fn either_of(digests: &[impl AsRef<[u8]>]) -> String {
    digests.iter().map(hex::encode).collect::<Vec<_>>().join(" or ")
}

fn tpms(platforms: &Permitted<Sha256Digest>) -> String {
    match platforms {
        Permitted::Any => "any that an anchor endorses".to_owned(),
        Permitted::Only(list) => {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("only {}", list.join(", "))
        }
    }
}
