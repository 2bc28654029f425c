//! The policy: typed TOML, read totally. Nothing that weakens security has a default, `any` is spelled out, and what a
//! rule means does not depend on anything outside the text.
//!
//! ```no_run
//! use ledger::policy::Policy;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::parse(&std::fs::read_to_string("policy.toml")?)?;
//! for (name, rule) in policy.release_rules() {
//!     println!("{name}: a lease of {} s, at most {}", rule.lease.seconds(), rule.max_leases);
//! }
//! # Ok(()) }
//! ```

mod alarm;
mod alarm_parse;
mod boot;
mod boot_parse;
mod budget;
mod budget_parse;
mod change;
mod change_alarm;
mod change_boot;
mod change_budget;
mod change_snp;
mod change_workload;
mod error;
mod fields;
mod line;
mod parse;
mod pcrs;
mod rules;
mod snp;
mod snp_mismatch;
mod snp_parse;
mod value;
mod witnesses_parse;
mod workload;
mod workload_parse;

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{AnchorKind, Sha256Digest, Trust, TrustAnchors, UnixTime};

pub use alarm::{ALARMS_MAX, AlarmOn, AlarmRule, AlarmThen, Hours};
pub use boot::{BootMismatch, BootRule, CommandLines, SecureBoot};
pub use budget::{BUDGETS_MAX, Budget, BudgetPer, BudgetUnit, OverBudget};
pub use budget_parse::parse_bytes;
pub use change::describe_change;
pub use error::{PolicyError, PolicyProblem};
pub use line::line_of;
pub use pcrs::{PcrMismatch, PcrRule};
pub use rules::{
    Approval, Approver, BareEks, GuestRule, KeeperRule, LeaseEnd, LeaseTime, Permitted, Proof, ProposerRule,
    PublishRule, ReleaseRule, TpmRule, UnitCheck,
};
pub use snp::{Allowed, MinTcb, PlatformFeature, Sha384, SnpRule};
pub use snp_mismatch::{SnpMismatch, TcbField};
pub use workload::{WorkloadField, WorkloadMismatch, WorkloadPin, WorkloadRule};

use crate::cosignature::WitnessPolicy;
use crate::names::Name;

/// Longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 12 << 10;

/// The first fold with `workloads`.
const WORKLOADS_FOLD: u32 = 4;

/// A policy whose every rule was checked.
#[derive(Debug, Clone)]
pub struct Policy {
    text: Arc<str>,
    digest: Sha256Digest,
    lineage: Lineage,
    not_after: UnixTime,
    approval: Approval,
    platform_threshold: Option<u32>,
    trust_anchors: TrustAnchors,
    keeper: KeeperRule,
    publish: BTreeMap<Name, PublishRule>,
    release: BTreeMap<Name, Arc<ReleaseRule>>,
    budgets: BTreeMap<Name, Budget>,
    alarms: BTreeMap<Name, AlarmRule>,
    readers: Permitted<Approver>,
    witnesses: Option<WitnessPolicy>,
}

/// Equal texts are equal policies.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Policy {}

/// Where a policy stands in the life of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// The first: `vault = "genesis"`, `serial = 1`, `prev = "none"`. The vault's id follows from its text.
    Genesis,
    /// A later one.
    Successor {
        /// The vault's id.
        vault: Sha256Digest,
        /// From 2 up; one more than that of the policy before.
        serial: u64,
        /// Digest of the policy before.
        prev: Sha256Digest,
    },
}

impl Lineage {
    /// The serial: 1 for the first policy.
    pub fn serial(&self) -> u64 {
        match self {
            Self::Genesis => 1,
            Self::Successor { serial, .. } => *serial,
        }
    }
}

impl Policy {
    /// Reads a policy of at most 12 KiB. An error names the key and says what to write.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text)
    }

    /// The text, from which all else follows.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// The fold that a program must know to read it; 0 for all.
    pub fn fold(&self) -> u32 {
        let asks = self.release.values().any(|rule| rule.workloads.asks());
        if asks { WORKLOADS_FOLD } else { 0 }
    }

    /// Vault, serial and the policy before.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Serial of this policy.
    pub fn serial(&self) -> u64 {
        self.lineage.serial()
    }

    /// Its last moment. After that nothing is released or renewed; another policy can still be proposed.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether it is past its last moment.
    pub fn is_expired(&self, now: UnixTime) -> bool {
        now > self.not_after
    }

    /// Who approves changes, and how many of them it takes.
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    /// How many of them it takes to enrol an EK that has no certificate, or to remove one. `None`: there are no such EKs.
    pub fn platform_threshold(&self) -> Option<u32> {
        self.platform_threshold
    }

    /// The built-in anchors and those of this policy: what evidence is verified under.
    pub fn trust_anchors(&self) -> &TrustAnchors {
        &self.trust_anchors
    }

    /// What a keeper of the vault must prove.
    pub fn keeper(&self) -> &KeeperRule {
        &self.keeper
    }

    /// The publish rules, by name.
    pub fn publish_rules(&self) -> &BTreeMap<Name, PublishRule> {
        &self.publish
    }

    /// The release rules, by name.
    pub fn release_rules(&self) -> &BTreeMap<Name, Arc<ReleaseRule>> {
        &self.release
    }

    /// One release rule.
    pub fn release_rule(&self, name: &Name) -> Option<&Arc<ReleaseRule>> {
        self.release.get(name)
    }

    /// The budgets, by name.
    pub fn budgets(&self) -> &BTreeMap<Name, Budget> {
        &self.budgets
    }

    /// The alarm rules, by name.
    pub fn alarms(&self) -> &BTreeMap<Name, AlarmRule> {
        &self.alarms
    }

    /// Who may read the log.
    pub fn readers(&self) -> &Permitted<Approver> {
        &self.readers
    }

    /// Who must have cosigned the log before anything in it counts, where the vault has witnesses.
    pub fn witnesses(&self) -> Option<&WitnessPolicy> {
        self.witnesses.as_ref()
    }

    /// How many approvals a model of this publisher needs: the most that any rule asks for that names the model and has
    /// the key. `None`: no rule lets this key publish this model.
    pub fn approvals_to_publish(&self, model: &Name, publisher: Sha256Digest) -> Option<u32> {
        let rules = self.publish.values().filter(|rule| rule.covers(model, publisher));
        rules.map(|rule| rule.approvals).max()
    }

    /// Whether evidence for this rule that verifies under this policy can have this trust at all.
    pub fn can_yield(&self, rule: &GuestRule, trust: Trust) -> bool {
        let kind = match rule {
            GuestRule::Tpm(_) => AnchorKind::Tpm,
            GuestRule::Snp(_) | GuestRule::SnpParavisorVtpm { .. } => AnchorKind::Snp,
        };
        self.trust_anchors.can_yield(kind, trust)
    }
}
