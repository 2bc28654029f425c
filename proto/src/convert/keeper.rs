//! The keeper before and after its ceremony: core, identity, evidence, genesis.

use attestation::{Credential, HpkePublicKey, IdentityKey, LogKey, PcrSelection, Sha256Digest, TpmIdentity};

use super::{EvidenceSet, Fault, WireError, bytes, digest, exact, key, optional_digest, pcrs, present, text};
use crate::limits::{CHECKPOINT_BYTES_MAX, CORE_BYTES_MAX, GENESIS_BYTES_MAX};
use crate::v1;

/// What a keeper says of itself. Worth nothing before its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperIdentity {
    /// Of the keeper's own TPM.
    pub tpm: TpmIdentity,
    /// Made with the root key.
    pub instance: [u8; 32],
    /// SHA-256 of the core.
    pub core_digest: Sha256Digest,
    /// DEKs are wrapped to it.
    pub wrap_key: HpkePublicKey,
    /// Signs replies.
    pub identity_key: IdentityKey,
    /// Signs checkpoints.
    pub log_key: LogKey,
    /// Once the vault is open.
    pub vault_id: Option<Sha256Digest>,
    /// What its evidence covers.
    pub pcrs: PcrSelection,
}

/// Asks a keeper for a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperEvidenceRequest {
    /// Fresh.
    pub nonce: [u8; 32],
    /// Made for the keeper's EK and AK.
    pub credential: Credential,
}

/// A keeper's evidence. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperEvidence {
    /// The quote.
    pub evidence: EvidenceSet,
    /// What the keeper binding names; `None` before the vault is open, where the quote is over the genesis binding.
    pub standing: Option<KeeperStanding>,
}

/// Where an open vault stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperStanding {
    /// The policy in force.
    pub policy: Sha256Digest,
    /// The newest checkpoint, a signed note.
    pub checkpoint: String,
}

/// The core that a keeper is given: exact bytes.
///
/// # Errors
/// `malformed-core`.
pub fn core(request: v1::InitKeeperRequest) -> Result<Vec<u8>, WireError> {
    bytes("malformed-core", request.core, CORE_BYTES_MAX)
}

/// The genesis that a keeper is offered: exact bytes.
///
/// # Errors
/// `malformed-genesis`.
pub fn genesis(request: v1::SubmitGenesisRequest) -> Result<Vec<u8>, WireError> {
    bytes("malformed-genesis", request.genesis, GENESIS_BYTES_MAX)
}

impl TryFrom<v1::GetKeeperIdentityResponse> for KeeperIdentity {
    type Error = WireError;

    fn try_from(response: v1::GetKeeperIdentityResponse) -> Result<Self, WireError> {
        Ok(Self {
            tpm: present("malformed-tpm-identity", response.tpm)?.try_into()?,
            instance: exact("malformed-instance", &response.instance)?,
            core_digest: digest("malformed-core-digest", &response.core_digest)?,
            wrap_key: key("malformed-wrap-key", &response.wrap_key)?,
            identity_key: key("malformed-identity-key", &response.identity_key)?,
            log_key: key("malformed-log-key", &response.log_key)?,
            vault_id: optional_digest("malformed-vault-id", &response.vault_id)?,
            pcrs: pcrs("malformed-pcrs", &response.pcrs)?,
        })
    }
}

impl From<KeeperIdentity> for v1::GetKeeperIdentityResponse {
    fn from(identity: KeeperIdentity) -> Self {
        Self {
            tpm: Some(identity.tpm.into()),
            instance: identity.instance.to_vec(),
            core_digest: identity.core_digest.as_bytes().to_vec(),
            wrap_key: identity.wrap_key.as_bytes().to_vec(),
            identity_key: identity.identity_key.as_bytes().to_vec(),
            log_key: identity.log_key.as_bytes().to_vec(),
            vault_id: identity.vault_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
            pcrs: identity.pcrs.iter().collect(),
        }
    }
}

impl TryFrom<v1::InitKeeperResponse> for KeeperIdentity {
    type Error = WireError;

    fn try_from(response: v1::InitKeeperResponse) -> Result<Self, WireError> {
        present("malformed-identity", response.identity)?.try_into()
    }
}

impl From<KeeperIdentity> for v1::InitKeeperResponse {
    fn from(identity: KeeperIdentity) -> Self {
        Self { identity: Some(identity.into()) }
    }
}

impl TryFrom<v1::GetKeeperEvidenceRequest> for KeeperEvidenceRequest {
    type Error = WireError;

    fn try_from(request: v1::GetKeeperEvidenceRequest) -> Result<Self, WireError> {
        Ok(Self {
            nonce: exact("malformed-nonce", &request.nonce)?,
            credential: present("malformed-credential", request.credential)?.try_into()?,
        })
    }
}

impl From<KeeperEvidenceRequest> for v1::GetKeeperEvidenceRequest {
    fn from(request: KeeperEvidenceRequest) -> Self {
        Self { nonce: request.nonce.to_vec(), credential: Some(request.credential.into()) }
    }
}

impl TryFrom<v1::GetKeeperEvidenceResponse> for KeeperEvidence {
    type Error = WireError;

    fn try_from(response: v1::GetKeeperEvidenceResponse) -> Result<Self, WireError> {
        let evidence = present("malformed-evidence", response.evidence)?.try_into()?;
        let standing = match optional_digest("malformed-policy-digest", &response.policy_digest)? {
            Some(policy) => {
                let checkpoint = text("malformed-checkpoint", response.checkpoint, CHECKPOINT_BYTES_MAX)?;
                Some(KeeperStanding { policy, checkpoint })
            }
            None if response.checkpoint.is_empty() => None,
            None => return Err(WireError::new("malformed-checkpoint", Fault::Unexpected)),
        };
        Ok(Self { evidence, standing })
    }
}

impl From<KeeperEvidence> for v1::GetKeeperEvidenceResponse {
    fn from(evidence: KeeperEvidence) -> Self {
        let (policy_digest, checkpoint) = match evidence.standing {
            Some(standing) => (standing.policy.as_bytes().to_vec(), standing.checkpoint),
            None => (Vec::new(), String::new()),
        };
        Self { evidence: Some(evidence.evidence.into()), policy_digest, checkpoint }
    }
}
