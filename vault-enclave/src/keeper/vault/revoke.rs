//! Revocations: submitted, in force with their last approval, and told at once to those who watch their leases.

use attestation::Sha256Digest;
use ledger::entry::{self, Entry, Propose, ProposedRevocation, Revoke};
use ledger::merkle::{MerkleError, leaf_hash};
use ledger::revocation::{RevocationAct, notice_message, watch_message};
use vault_proto::convert::{RevocationNotice, RevocationSubmission, WatchLease};
use vault_proto::limits::NOTICE_LEASES_MAX;
use vault_proto::v1::{self, keeper_reply::Response};

use super::load::unknown_lease;
use super::provision::utf8;
use super::{Outcome, Vault};
use crate::keeper::refusal::Refusal;

/// Leases that a staged `revoke` entry ends.
pub(super) struct Revoked {
    pub(super) index: u64,
    pub(super) leases: Vec<Sha256Digest>,
}

impl Vault {
    /// Proposes a revocation or a lift. The proposer's signature counts; where no other is needed it takes effect in the
    /// same commit.
    pub(super) fn submit_revocation(&mut self, request: v1::SubmitRevocationRequest) -> Result<Outcome, Refusal> {
        let RevocationSubmission { revocation, statement, signature } = request.try_into()?;
        let revocation = RevocationAct::parse(&revocation).map_err(|error| Refusal::malformed(error.code(), error))?;
        let object = revocation.object();
        let proposed = ProposedRevocation { object, revocation, statement: utf8("statement", statement)?, signature };
        let proposal = entry::Proposal::Revocation(proposed);
        let time = self.now();
        self.stage_entry(&Entry::Propose(Propose { time, proposal }))?;
        let standing = self.proposal(object)?;
        self.stage_effects()?;
        let proposal = Some(self.standing_act(standing));
        Ok(Outcome::AfterCommit(Box::new(move |_| {
            Ok(Response::SubmitRevocation(v1::SubmitRevocationResponse { proposal }))
        })))
    }

    /// A proposal that no longer waits took effect. The state keeps what it changed, and of a lift not even that, nor of a
    /// keeper that left: so this is asked while the entries are staged.
    pub(super) fn standing_act(&self, standing: v1::Proposal) -> v1::Proposal {
        let now = self.clock.shown(self.state.time());
        let mut waiting = self.state.vault().into_iter().flat_map(|vault| vault.pending(now));
        let waits = waiting.any(|proposal| proposal.entry() == standing.entry);
        v1::Proposal { effective: !waits, ..standing }
    }

    /// Stages the effect of a revocation that has its approvals, behind every renewal that was signed before it.
    pub(super) fn stage_revocation(
        &mut self,
        proposal: u64,
        object: Sha256Digest,
        act: &RevocationAct,
    ) -> Result<(), Refusal> {
        let (time, index) = (self.now(), self.state.size());
        let leases = match act {
            RevocationAct::Revoke { scope, .. } => self.opened()?.leases_covered(scope, time),
            RevocationAct::Lift { .. } => Vec::new(),
        };
        let count = u32::try_from(leases.len()).unwrap_or(u32::MAX);
        self.stage_entry(&Entry::Revoke(Revoke { time, proposal, object, act: act.kind(), leases: count }))?;
        if !leases.is_empty() {
            self.pending.revoked.push(Revoked { index, leases });
        }
        Ok(())
    }

    /// Tells the host of leases whose revocation was committed; it tells those who watch.
    pub(super) fn announce(&mut self, revoked: &[Revoked]) {
        for Revoked { index, leases } in revoked {
            for some in leases.chunks(NOTICE_LEASES_MAX) {
                match self.notice(*index, some) {
                    Ok(notice) => self.store.announce(notice),
                    // They find out when they renew.
                    Err(refusal) => tracing::warn!(%refusal, index, "no notice of a revocation"),
                }
            }
        }
    }

    /// Proof of any committed entry. Of old ones the host has what is needed, and the tree knows whether it is.
    pub(super) fn log_proof(&mut self, index: u64) -> Result<String, Refusal> {
        let proof = match self.log.proof(index) {
            Err(MerkleError::Forgotten { bundle }) => {
                let read = self.store.bundle(bundle);
                let entries = read.map_err(|error| Refusal::unavailable("log-unavailable", error))?;
                self.log.recall(bundle, &entries).and_then(|()| self.log.proof(index))
            }
            proof => proof,
        };
        proof.map_err(|error| Refusal::unavailable(error.code(), error))
    }

    /// Whether a lease is revoked, for its holder.
    pub(super) fn watch_lease(&mut self, request: v1::WatchLeaseRequest) -> Result<Outcome, Refusal> {
        let WatchLease { lease_id, lease_signature } = request.try_into()?;
        let lease = self.opened()?.lease(lease_id).ok_or_else(|| unknown_lease(lease_id))?;
        lease
            .lease_key
            .verify(&watch_message(&self.vault_id(), &lease_id), &lease_signature)
            .map_err(|_| Refusal::denied("lease-signature", "the lease key did not sign this request"))?;
        // What is staged is said with its commit.
        let committed = lease.revoked.filter(|index| *index < self.log.head().size);
        let notice = committed.map(|index| self.notice(index, &[lease_id])).transpose()?;
        Ok(Outcome::Now(Ok(Response::WatchLease(v1::LeaseWatched { notice }))))
    }

    fn notice(&mut self, index: u64, leases: &[Sha256Digest]) -> Result<v1::RevocationNotice, Refusal> {
        let missing = || Refusal::unavailable("revocation-missing", "the state does not have this revocation");
        let revoke = self.opened()?.revoke_entry(index).cloned().ok_or_else(missing)?;
        let entry = Entry::Revoke(revoke).encode().map_err(|error| Refusal::denied(error.code(), error))?;
        let log_proof = self.log_proof(index)?;
        let message = notice_message(&self.vault_id(), index, &leaf_hash(&entry), leases);
        let signature = self.keys.sign_identity(&message)?;
        Ok(RevocationNotice { entry, log_proof, leases: leases.to_vec(), signature }.into())
    }
}
