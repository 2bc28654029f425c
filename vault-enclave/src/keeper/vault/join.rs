//! Another keeper asks to take over: it is proposed to the approvers and, once they let it in, gets the vault.

use attestation::Sha256Digest;
use ledger::entry::{Entry, Proposal, Propose, ProposedLeave};
use ledger::genesis::AntiRollback;
use ledger::keepers::{AdmittedJoiner, JoinError};
use ledger::state::{Keepers, State, Subject};
use prost::Message;
use vault_proto::convert::LeaveSubmission;
use vault_proto::v1::{self, join_keeper_response, keeper_reply::Response};

use super::provision::utf8;
use super::{Outcome, Reply, Vault};
use crate::keeper::challenges::Pending;
use crate::keeper::join::{Desk, refused};
use crate::keeper::refusal::Refusal;
use crate::keeper::retired::{self, HandOverHead, Retired};
use crate::keeper::service::Answer;

impl Vault {
    /// Issues a challenge to a keeper that asks to take over.
    pub(super) fn get_join_challenge(&mut self, request: v1::GetJoinChallengeRequest) -> Result<Outcome, Refusal> {
        let now = self.now();
        Ok(Outcome::Now(self.desk()?.challenge(request, now)))
    }

    /// Redeems it.
    pub(super) fn join_keeper(&mut self, request: v1::JoinKeeperRequest, reply: Reply) {
        let digest = Sha256Digest::of(&request.encode_to_vec());
        let Some((redemption, reply)) = self.redeem(&request.session, digest, reply) else { return };
        let session = redemption.session;
        let outcome =
            self.decide_join(redemption.pending, request).unwrap_or_else(|refusal| Outcome::Now(Err(refusal)));
        self.settle(outcome, Some(session), reply);
    }

    fn decide_join(&mut self, pending: Pending, request: v1::JoinKeeperRequest) -> Result<Outcome, Refusal> {
        let now = self.now();
        let (admitted, blob) = self.desk()?.admit(pending, request, now)?;
        let preimage = admitted.verified().preimage().to_vec();
        match self.genesis.core().anti_rollback() {
            AntiRollback::Witnesses => return self.decide_beside(admitted, blob),
            AntiRollback::Counter | AntiRollback::None => {}
        }
        match admitted.retires(self.opened()?, now) {
            Ok(retirement) => {
                // Nothing comes after the last entry, so all that was promised is in the log before it.
                self.stage_renewals();
                let ticket = self.stage(retirement)?;
                self.pending.blobs.extend([blob, preimage]);
                Ok(Outcome::AfterCommit(Box::new(move |vault| match ticket.redeem() {
                    Ok(_) => vault.hand_over(&admitted),
                    Err(_) => Err(Refusal::unavailable("not-logged", "the entry is not in the log: try again")),
                })))
            }
            Err(JoinError::NotApproved | JoinError::ApprovalOver { .. }) => self.propose_join(&admitted, blob),
            Err(error) => Err(refused(error)),
        }
    }

    /// Under witnesses the keys go to whom approvers let in, and this keeper goes on: what both write is one log. They go
    /// behind an entry of this moment, which a quorum has cosigned: a keeper that is shown an older log, or was paused, does
    /// not know that approvers have sent away again whom they let in.
    fn decide_beside(&mut self, admitted: AdmittedJoiner, blob: Vec<u8>) -> Result<Outcome, Refusal> {
        let now = self.now();
        let let_in = match admitted.let_in(self.opened()?, now) {
            Ok(let_in) => let_in,
            Err(JoinError::NotApproved) => return self.propose_join(&admitted, blob),
            Err(error) => return Err(refused(error)),
        };
        if let_in.entry() >= self.log.head().size {
            // It is of this very commit: asked again, it is in the log.
            return Ok(Outcome::Now(self.proposed(let_in.object())));
        }
        let summary = self.denials.summary(now);
        self.stage_entry(&Entry::DenySummary(summary))?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| vault.hand_over_beside(&admitted))))
    }

    /// The same commit may have sent it away.
    fn hand_over_beside(&mut self, to: &AdmittedJoiner) -> Answer {
        let now = self.now();
        let let_in = to.let_in(self.opened()?, now).map_err(refused)?;
        let head = HandOverHead::beside(&self.log, &let_in).ok_or_else(retired::refusal)?;
        head.hand_over(&self.keys, self.vault_id(), to, &self.rng)
    }

    /// Proposes it once; asked again, it says how far the proposal is.
    fn propose_join(&mut self, admitted: &AdmittedJoiner, blob: Vec<u8>) -> Result<Outcome, Refusal> {
        let now = self.now();
        let waits = self.opened()?.pending(now).find(|proposal| match proposal.subject() {
            Subject::Join(joiner) => **joiner == *admitted.joiner(),
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => false,
        });
        if let Some(object) = waits.map(|proposal| proposal.object()) {
            return Ok(Outcome::Now(self.proposed(object)));
        }
        // Evidence earns an entry, as a refusal of it does: a machine that makes keys anew does not fill the log.
        if !self.denials.earns_entry(admitted.joiner().machine.platform) {
            return Err(Refusal::busy(
                "join-too-often",
                "this machine proposed other keepers a moment ago: wait a minute",
            ));
        }
        let proposed = admitted.proposed(self.opened()?, now);
        let object = proposed.object;
        self.stage_entry(&Entry::Propose(Propose { time: now, proposal: Proposal::KeeperJoin(proposed) }))?;
        self.pending.blobs.extend([blob, admitted.verified().preimage().to_vec()]);
        Ok(Outcome::AfterCommit(Box::new(move |vault| vault.proposed(object))))
    }

    fn proposed(&self, object: Sha256Digest) -> Answer {
        let outcome = Some(join_keeper_response::Outcome::Proposal(self.proposal(object)?));
        Ok(Response::JoinKeeper(v1::JoinKeeperResponse { outcome }))
    }

    /// The act itself, after the last commit of this keeper.
    fn hand_over(&mut self, to: &AdmittedJoiner) -> Answer {
        let head = HandOverHead::of(&self.anchor, &self.state).ok_or_else(retired::refusal)?;
        head.hand_over(&self.keys, self.vault_id(), to, &self.rng)
    }

    fn desk(&mut self) -> Result<Desk<'_>, Refusal> {
        let vault = super::opened(&self.state)?;
        Ok(Desk { vault, challenges: &mut self.challenges, chains: &mut self.chains, rng: &self.rng })
    }

    /// Proposes that a keeper leaves the others, signed by an approver.
    pub(super) fn submit_keeper_leave(&mut self, request: v1::SubmitKeeperLeaveRequest) -> Result<Outcome, Refusal> {
        let LeaveSubmission { revision, instance, statement, signature } = request.try_into()?;
        let time = self.now();
        let statement = utf8("statement", statement)?;
        let proposed = ProposedLeave::new(self.vault_id(), revision, instance, statement, signature);
        let object = proposed.object;
        self.stage_entry(&Entry::Propose(Propose { time, proposal: Proposal::KeeperLeave(proposed) }))?;
        let proposal = Some(self.proposal(object)?);
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |_| {
            Ok(Response::SubmitKeeperLeave(v1::SubmitKeeperLeaveResponse { proposal }))
        })))
    }

    /// Whether its last entry is written or about to be, by itself or by another keeper.
    pub(in crate::keeper) fn is_retired(&self) -> bool {
        is_retired(&self.state, self.instance)
    }

    /// What is left of it.
    pub(in crate::keeper) fn retire(self) -> Retired {
        let Self { genesis, keys, anchor, state, challenges, chains, clock, rng, .. } = self;
        Retired { genesis, keys, anchor, state, challenges, chains, clock, rng }
    }
}

fn is_retired(state: &State, instance: [u8; 32]) -> bool {
    let gone = |keepers: &Keepers| keepers.successor().is_some() || keepers.has_left(instance);
    state.vault().is_some_and(|vault| gone(vault.keepers()))
}
