//! What would make a refused request pass.

use super::DenialReason;
use crate::policy::WorkloadMismatch;

impl DenialReason {
    /// What would make such a request pass, and who can do it: a sentence without values, which the explanation has.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::VaultNotOpen => "the approvers who are missing sign the genesis",
            Self::TimeBehindLog { .. } => "the keeper's clock is set right",
            Self::VaultMismatch { .. } => "the guest is given the file of this vault",
            Self::PolicyChanged { .. } => "the guest asks again: it then gets a challenge under the policy in force",
            Self::PolicyExpired { .. } => "the approvers put a policy into force that ends later",
            Self::RuleUnknown { .. } => {
                "the guest names a release rule of the policy, or a policy gets one of that name"
            }
            Self::ModelNotPublished { .. } => "the model is published, and approved",
            Self::ManifestMismatch { .. } => "the host serves the manifest that was published",
            Self::ModelNotInRule { .. } => "the guest names a rule with that model, or a policy adds it to this one",
            Self::UnitUnknown { .. } => "the guest asks for units that the model has",
            Self::GroupNotGranted { .. } => "the guest asks for less (--group), or a policy gives that group",
            Self::AnchorNotInPolicy { .. } => "a policy lists that anchor, with that trust",
            Self::PlatformNotEnrolled { .. } => "approvers enrol the platform: vaultctl platform add",
            Self::EkWithoutCertificate { .. } => {
                "it runs on a machine whose EK has a certificate, or a policy takes enrolled EKs under this rule"
            }
            Self::PlatformNotListed { .. } => "it runs on a platform that the rule lists, or a policy lists this one",
            Self::ProofMissing { .. } => "it runs on a machine with that hardware, under a rule that asks for it",
            Self::ReportNotAllowed { .. } => "it is launched as the rule asks, or a policy allows what was seen",
            Self::PcrNotAllowed { .. } => "the machine boots what the rule lists, or a policy lists what it booted",
            Self::BootNotAllowed { .. } => {
                "the agent sends the log of that boot, and the boot is as the rule asks, or a policy allows what was seen"
            }
            Self::WorkloadNotAllowed { mismatch: WorkloadMismatch::Missing, .. } => {
                "the model goes to a program that `vault-enclave run` starts, in a lease of its own, or a policy does not ask"
            }
            Self::WorkloadNotAllowed { mismatch: WorkloadMismatch::Unasked, .. } => {
                "the guest shows what the challenge asks for"
            }
            Self::WorkloadNotAllowed { mismatch: WorkloadMismatch::Differs { .. }, .. } => {
                "`run` starts what the rule lists, or a policy lists what it started: vaultctl measure workload"
            }
            Self::WorkloadChanged { .. } => "the guest loads anew: a lease belongs to what was started with it",
            Self::Revoked { .. } => "approvers lift the revocation: vaultctl revoke --lift",
            Self::LeaseRepeated { .. } => "the guest asks for a new challenge, with new keys",
            Self::TooManyLeases { .. } => "a lease of the rule ends, or a policy allows more",
            Self::Budget(_) => {
                "the window moves on, approvers raise the budget where it may be raised, or a policy allows more"
            }
            Self::HeldByAlarm { .. } => "approvers let it through: vaultctl propose budget",
            Self::NotApproved { .. } => "approvers let it through: vaultctl propose standing",
            Self::LeaseUnknown { .. } | Self::LeaseLapsed { .. } => "the guest loads anew: that lease is over",
            Self::RuleOfAnotherLease { .. } => "the guest names the rule of its lease",
            Self::LeaseKeyMismatch => "whoever was granted the lease renews it",
            Self::PlatformChanged { .. }
            | Self::AkChanged
            | Self::ProofChanged
            | Self::GuestChanged { .. }
            | Self::Rebooted { .. }
            | Self::TierChanged { .. } => "the guest loads anew: a lease belongs to one boot of one machine",
            Self::GroupsNarrowed { .. } => "the guest loads anew what the rule still gives",
        }
    }
}
