//! Platforms whose EKs have no certificate.

use ledger::entry::{self, Entry, PlatformInForce, Propose, ProposedPlatform};
use ledger::state::Platforms;
use vault_proto::convert::PlatformSubmission;
use vault_proto::v1::{self, keeper_reply::Response};

use super::provision::utf8;
use super::{Outcome, Vault};
use crate::keeper::refusal::Refusal;

impl Vault {
    /// Proposes a change of the platforms, signed by an approver of the policy in force. The fold checks all of it.
    pub(super) fn submit_platform(&mut self, request: v1::SubmitPlatformRequest) -> Result<Outcome, Refusal> {
        let PlatformSubmission { change, statement, signature } = request.try_into()?;
        self.opened()?;
        let object = change.object();
        let proposed = ProposedPlatform::new(change, utf8("statement", statement)?, signature);
        let entry = Entry::Propose(Propose { time: self.now(), proposal: entry::Proposal::Platform(proposed) });
        self.stage_entry(&entry)?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitPlatform(v1::SubmitPlatformResponse { proposal }))
        })))
    }

    /// The platforms that count now, as a rule takes them.
    pub(super) fn platforms(&self) -> Result<&Platforms, Refusal> {
        Ok(self.opened()?.platforms())
    }
}

/// The effect of an approved change.
pub(super) fn effect(
    time: attestation::UnixTime,
    proposal: u64,
    object: attestation::Sha256Digest,
    change: &entry::PlatformChange,
) -> Entry {
    Entry::Platform(PlatformInForce { time, proposal, object, act: change.act, platform: change.platform })
}
