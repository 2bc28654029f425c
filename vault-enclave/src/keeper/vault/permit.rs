//! Standing approvals and break-glass.

use ledger::entry::{Entry, Proposal, Propose, ProposedPermit};
use ledger::permit::PermitKind;
use vault_proto::v1::{self, keeper_reply::Response};

use super::{Outcome, Vault};
use crate::keeper::refusal::Refusal;

impl Vault {
    /// Proposes a permit, signed by an approver in force. The fold checks all of it.
    pub(super) fn submit_permit(&mut self, request: v1::SubmitPermitRequest) -> Result<Outcome, Refusal> {
        let proposed = ProposedPermit::try_from(request)?;
        let (time, object) = (self.now(), proposed.object);
        if proposed.permit.kind == PermitKind::BreakGlass {
            tracing::warn!(%object, "break-glass is proposed");
        }
        self.stage_entry(&Entry::Propose(Propose { time, proposal: Proposal::Permit(proposed) }))?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitPermit(v1::SubmitPermitResponse { proposal }))
        })))
    }
}
