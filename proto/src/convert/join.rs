//! A keeper that asks to take over: challenge, evidence, hand-over.

use attestation::{Credential, HPKE_PUBLIC_KEY_BYTES, JoinerKeys, Sha256Digest, TpmIdentity, UnixTime};

use super::{EvidenceSet, Fault, Proposal, WireError, bytes, digest, exact, key, present};
use crate::limits::WRAPPED_VAULT_KEYS_BYTES;
use crate::v1;

/// A challenge of the keeper that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinChallenge {
    /// Names the challenge.
    pub session: [u8; 16],
    /// Makes the evidence fresh.
    pub nonce: [u8; 32],
    /// Only the TPM that was named can open it.
    pub credential: Credential,
    /// The vault that answers.
    pub vault_id: Sha256Digest,
    /// The policy in force.
    pub policy: Sha256Digest,
    /// When the challenge stops being good.
    pub expires: UnixTime,
}

/// Redeems it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Of the challenge.
    pub session: [u8; 16],
    /// What the keeper made on its machine.
    pub joiner: JoinerKeys,
    /// Over the binding.
    pub evidence: EvidenceSet,
}

/// What a join comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinAnswer {
    /// It waits for approvals.
    Proposal(Proposal),
    /// The keeper that ran has retired.
    HandOver(HandOver),
}

/// The keys of a vault, and where its log ends. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Entries of the log.
    pub size: u64,
    /// Its Merkle root.
    pub root: Sha256Digest,
    /// HPKE encapsulated key.
    pub enc: Box<[u8; HPKE_PUBLIC_KEY_BYTES]>,
    /// HPKE ciphertext of the vault's keys.
    pub wrapped_keys: Vec<u8>,
    /// By the identity key.
    pub signature: [u8; 96],
}

/// Who asks for a challenge.
///
/// # Errors
/// `malformed-tpm-identity`, or the code of the field.
pub fn joiner_identity(request: v1::GetJoinChallengeRequest) -> Result<TpmIdentity, WireError> {
    present("malformed-tpm-identity", request.tpm)?.try_into()
}

impl TryFrom<v1::GetJoinChallengeResponse> for JoinChallenge {
    type Error = WireError;

    fn try_from(response: v1::GetJoinChallengeResponse) -> Result<Self, WireError> {
        Ok(Self {
            session: exact("malformed-session", &response.session)?,
            nonce: exact("malformed-nonce", &response.nonce)?,
            credential: present("malformed-credential", response.credential)?.try_into()?,
            vault_id: digest("malformed-vault-id", &response.vault_id)?,
            policy: digest("malformed-policy-digest", &response.policy_digest)?,
            expires: UnixTime(response.expires),
        })
    }
}

impl From<JoinChallenge> for v1::GetJoinChallengeResponse {
    fn from(challenge: JoinChallenge) -> Self {
        Self {
            session: challenge.session.to_vec(),
            nonce: challenge.nonce.to_vec(),
            credential: Some(challenge.credential.into()),
            vault_id: challenge.vault_id.as_bytes().to_vec(),
            policy_digest: challenge.policy.as_bytes().to_vec(),
            expires: challenge.expires.seconds(),
        }
    }
}

impl TryFrom<v1::JoinKeeperRequest> for JoinRequest {
    type Error = WireError;

    fn try_from(request: v1::JoinKeeperRequest) -> Result<Self, WireError> {
        Ok(Self {
            session: exact("malformed-session", &request.session)?,
            joiner: JoinerKeys {
                instance: exact("malformed-instance", &request.instance)?,
                hpke_key: key("malformed-hpke-key", &request.hpke_key)?,
                counter_name: exact("malformed-counter-name", &request.counter_name)?,
                counter: request.counter,
            },
            evidence: present("malformed-evidence", request.evidence)?.try_into()?,
        })
    }
}

impl From<JoinRequest> for v1::JoinKeeperRequest {
    fn from(request: JoinRequest) -> Self {
        let JoinRequest { session, joiner, evidence } = request;
        Self {
            session: session.to_vec(),
            instance: joiner.instance.to_vec(),
            hpke_key: joiner.hpke_key.as_bytes().to_vec(),
            counter_name: joiner.counter_name.to_vec(),
            counter: joiner.counter,
            evidence: Some(evidence.into()),
        }
    }
}

impl TryFrom<v1::JoinKeeperResponse> for JoinAnswer {
    type Error = WireError;

    fn try_from(response: v1::JoinKeeperResponse) -> Result<Self, WireError> {
        use v1::join_keeper_response::Outcome;
        match present("malformed-join-answer", response.outcome)? {
            Outcome::Proposal(proposal) => Ok(Self::Proposal(proposal.try_into()?)),
            Outcome::HandOver(hand_over) => Ok(Self::HandOver(hand_over.try_into()?)),
        }
    }
}

impl From<JoinAnswer> for v1::JoinKeeperResponse {
    fn from(answer: JoinAnswer) -> Self {
        use v1::join_keeper_response::Outcome;
        let outcome = match answer {
            JoinAnswer::Proposal(proposal) => Outcome::Proposal(proposal.into()),
            JoinAnswer::HandOver(hand_over) => Outcome::HandOver(hand_over.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::HandOver> for HandOver {
    type Error = WireError;

    fn try_from(hand_over: v1::HandOver) -> Result<Self, WireError> {
        const WRAPPED: &str = "malformed-wrapped-keys";
        let wrapped_keys = bytes(WRAPPED, hand_over.wrapped_keys, WRAPPED_VAULT_KEYS_BYTES)?;
        if wrapped_keys.len() != WRAPPED_VAULT_KEYS_BYTES {
            let fault = Fault::Length { expected: WRAPPED_VAULT_KEYS_BYTES, found: wrapped_keys.len() };
            return Err(WireError::new(WRAPPED, fault));
        }
        Ok(Self {
            size: hand_over.size,
            root: digest("malformed-root", &hand_over.root)?,
            enc: Box::new(exact("malformed-enc", &hand_over.enc)?),
            wrapped_keys,
            signature: exact("malformed-signature", &hand_over.signature)?,
        })
    }
}

impl From<HandOver> for v1::HandOver {
    fn from(hand_over: HandOver) -> Self {
        Self {
            size: hand_over.size,
            root: hand_over.root.as_bytes().to_vec(),
            enc: hand_over.enc.to_vec(),
            wrapped_keys: hand_over.wrapped_keys,
            signature: hand_over.signature.to_vec(),
        }
    }
}
