//! What a keeper asks of another one that wants to take over, and what it takes for an answer: the same while it serves and
//! after it has retired.

use std::time::Instant;

use attestation::{
    ActivationSecret, Credential, EndorsedTpm, Expected, JoinChallenge, KeptChains, Sha256Digest, TpmIdentity, TpmPart,
    UnixTime,
};
use ledger::keeper_evidence;
use ledger::keepers::{AdmittedJoiner, JoinError};
use ledger::state::Vault;
use ring::rand::{SecureRandom, SystemRandom};
use vault_proto::convert::{self, JoinRequest};
use vault_proto::v1::{self, keeper_reply::Response};

use super::challenges::{Asked, CHALLENGE_TTL_SECS, Challenges, Pending};
use super::refusal::Refusal;
use super::service::Answer;

/// What it takes to ask and to judge.
pub(super) struct Desk<'a> {
    pub(super) vault: &'a Vault,
    pub(super) challenges: &'a mut Challenges,
    pub(super) chains: &'a mut KeptChains,
    pub(super) rng: &'a SystemRandom,
}

impl Desk<'_> {
    /// Issues a challenge to a TPM that `[keeper]` permits.
    pub(super) fn challenge(&mut self, request: v1::GetJoinChallengeRequest, now: UnixTime) -> Answer {
        let identity: TpmIdentity = convert::joiner_identity(request)?;
        let (expected, part, credential) = self.expected(&identity, now)?;
        let (mut session, mut nonce) = ([0; 16], [0; 32]);
        for bytes in [&mut session[..], &mut nonce[..]] {
            self.rng.fill(bytes).map_err(|_| Refusal::unavailable("random", "the system gave no random bytes"))?;
        }
        let (vault, policy) = (self.vault.id(), self.vault.policy().digest());
        let asked = Asked::Join(JoinChallenge { session, nonce, vault, policy, tpm: part });
        self.challenges.issue(session, Pending { asked, expected, events: None }, Instant::now());
        let expires = now.plus(CHALLENGE_TTL_SECS);
        let challenge = convert::JoinChallenge { session, nonce, credential, vault_id: vault, policy, expires };
        Ok(Response::GetJoinChallenge(challenge.into()))
    }

    fn expected(&self, identity: &TpmIdentity, now: UnixTime) -> Result<(Expected, TpmPart, Credential), Refusal> {
        let policy = self.vault.policy();
        let tpm = EndorsedTpm::verify(identity, policy.trust_anchors(), now)?;
        let platform = tpm.ek().platform();
        if !policy.keeper().tpm().platforms.permits(&platform) {
            let error = JoinError::PlatformNotListed { platform };
            return Err(Refusal::denied(error.code(), error));
        }
        let secret = ActivationSecret::generate(self.rng)?;
        let credential = tpm.make_credential(&secret, self.rng)?;
        let part = TpmPart::Activated { ak_name: *tpm.ak().name(), secret };
        let pcrs = self.vault.genesis().policy().keeper().tpm().pcrs.selection();
        Ok((keeper_evidence::expected(policy.keeper(), tpm, pcrs), part, credential))
    }

    /// Verifies a joiner's evidence and holds it against `[keeper]`; with the evidence blob.
    pub(super) fn admit(
        &mut self,
        pending: Pending,
        request: v1::JoinKeeperRequest,
        now: UnixTime,
    ) -> Result<(AdmittedJoiner, Vec<u8>), Refusal> {
        let (verified, blob) = self.verify(pending, request, now)?;
        let admitted = AdmittedJoiner::admit(self.vault, verified, Sha256Digest::of(&blob), now);
        Ok((admitted.map_err(refused)?, blob))
    }

    /// The same for a keeper that has retired: nobody but the one that it named.
    pub(super) fn admit_successor(
        &mut self,
        pending: Pending,
        request: v1::JoinKeeperRequest,
        now: UnixTime,
    ) -> Result<(AdmittedJoiner, Vec<u8>), Refusal> {
        let (admitted, blob) = self.admit(pending, request, now)?;
        match self.vault.keepers().successor() {
            Some(successor) if **successor == *admitted.joiner() => Ok((admitted, blob)),
            Some(_) | None => Err(refused(JoinError::NotApproved)),
        }
    }

    fn verify(
        &mut self,
        pending: Pending,
        request: v1::JoinKeeperRequest,
        now: UnixTime,
    ) -> Result<(attestation::Verified<attestation::Join>, Vec<u8>), Refusal> {
        let Asked::Join(challenge) = pending.asked else {
            return Err(Refusal::denied("challenge-action", "this challenge was made for another action"));
        };
        let JoinRequest { joiner, evidence, .. } = request.try_into()?;
        let blob = evidence.blob();
        let convert::EvidenceSet { evidence, event_log } = evidence;
        if event_log.is_some() {
            return Err(Refusal::denied("event-log-unasked", "[keeper] does not ask for an event log"));
        }
        let anchors = self.vault.policy().trust_anchors();
        let binding = challenge.bind(joiner);
        Ok((evidence.verify_keeping(self.chains, binding, &pending.expected, anchors, now)?, blob))
    }
}

pub(super) fn refused(error: JoinError) -> Refusal {
    match error {
        JoinError::PolicyChanged => Refusal::try_again(error.code(), error),
        error => Refusal::denied(error.code(), error),
    }
}
