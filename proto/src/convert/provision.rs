//! Models, policy, approvals.

use attestation::Sha256Digest;
use bytes::Bytes;
use ledger::manifest::{MANIFEST_BYTES_MAX, UNIT_BYTES_MAX, sealed_len};
use ledger::names::Name;

use super::{EvidenceSet, Fault, WireError, bytes, digest, exact, name, present, text};
use crate::limits::{
    APPROVAL_BYTES_MAX, APPROVERS_MAX, DATA_BYTES_MAX, DEK_BYTES, MODEL_SIGNATURE_BYTES_MAX, POLICY_BYTES_MAX,
    SSHSIG_BYTES_MAX, SUMMARY_BYTES_MAX,
};
use crate::v1;

/// A sealed unit that is uploaded, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitUpload {
    /// SHA-256 of the manifest that it belongs to.
    pub manifest: Sha256Digest,
    /// SHA-256 of the sealed unit.
    pub sealed: Sha256Digest,
    /// Its sealed length.
    pub bytes: u64,
}

/// The small files of a sealed model, exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `dek.hpke`.
    pub dek: Vec<u8>,
    /// `model.sig`.
    pub model_signature: Vec<u8>,
}

/// A proposed policy with its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySubmission {
    /// TOML, exact bytes.
    pub policy: Vec<u8>,
    /// Approval statement with action `propose-policy`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

/// One approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Approval statement, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
    /// For a genesis and a recovery: what its approver saw.
    pub witness: Option<GenesisWitness>,
}

/// What an approver of the genesis saw in a run of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisWitness {
    /// As the keeper answered.
    pub evidence: EvidenceSet,
    /// The approver's nonce.
    pub nonce: [u8; 32],
    /// The secret of the approver's credential: no secret any more.
    pub activation_secret: [u8; 32],
}

/// What kind of thing is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalAction {
    /// The first entry.
    Genesis,
    /// A model.
    Model,
    /// A policy.
    Policy,
    /// A platform whose EK has no certificate.
    Platform,
    /// A boot state of the keeper.
    Reseal,
    /// Another keeper.
    KeeperJoin,
    /// Custodians of the vault's keys.
    Escrow,
    /// A keeper in the place of a lost one.
    Recover,
    /// That a keeper leaves the others.
    KeeperLeave,
    /// Keys of another epoch.
    KeyEpoch,
    /// A raise of a budget.
    Budget,
    /// A revocation.
    Revoke,
    /// The lift of one.
    LiftRevocation,
    /// A standing approval.
    Standing,
    /// Break-glass.
    BreakGlass,
}

/// A proposal and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What kind.
    pub action: ProposalAction,
    /// What approvals name.
    pub object: Sha256Digest,
    /// What approvals name as previous.
    pub previous: Sha256Digest,
    /// Of the policy in force.
    pub serial: u64,
    /// Who has signed.
    pub approved_by: Vec<Name>,
    /// How many have to.
    pub threshold: u32,
    /// Whether it took effect.
    pub effective: bool,
    /// Log index of the proposal.
    pub entry: u64,
    /// For a person.
    pub summary: String,
}

/// The first message of an upload: which unit, where its data begins, and the data.
///
/// # Errors
/// `malformed-unit` and the codes of its fields, `malformed-data`.
pub fn first_piece(message: v1::UploadUnitRequest) -> Result<(UnitUpload, u64, Bytes), WireError> {
    let unit = UnitUpload::try_from(present("malformed-unit", message.unit)?)?;
    Ok((unit, message.offset, data(message.data)?))
}

/// A later message of an upload: data alone.
///
/// # Errors
/// `malformed-unit`, `malformed-offset`, `malformed-data`.
pub fn next_piece(message: v1::UploadUnitRequest) -> Result<Bytes, WireError> {
    if message.unit.is_some() {
        return Err(WireError::new("malformed-unit", Fault::Unexpected));
    }
    if message.offset != 0 {
        return Err(WireError::new("malformed-offset", Fault::Unexpected));
    }
    data(message.data)
}

/// Data of a piece: it may be empty, since the first message may only name the unit.
fn data(data: Bytes) -> Result<Bytes, WireError> {
    if data.len() > DATA_BYTES_MAX {
        let fault = Fault::TooLarge { max: DATA_BYTES_MAX, found: data.len() };
        return Err(WireError::new("malformed-data", fault));
    }
    Ok(data)
}

impl TryFrom<v1::GetUploadRequest> for UnitUpload {
    type Error = WireError;

    fn try_from(request: v1::GetUploadRequest) -> Result<Self, WireError> {
        if !(sealed_len(0)..=sealed_len(UNIT_BYTES_MAX)).contains(&request.sealed_bytes) {
            return Err(WireError::new("malformed-sealed-bytes", Fault::Value));
        }
        Ok(Self {
            manifest: digest("malformed-manifest-digest", &request.manifest_digest)?,
            sealed: digest("malformed-sealed-sha256", &request.sealed_sha256)?,
            bytes: request.sealed_bytes,
        })
    }
}

impl From<UnitUpload> for v1::GetUploadRequest {
    fn from(unit: UnitUpload) -> Self {
        Self {
            manifest_digest: unit.manifest.as_bytes().to_vec(),
            sealed_sha256: unit.sealed.as_bytes().to_vec(),
            sealed_bytes: unit.bytes,
        }
    }
}

impl TryFrom<v1::PublishModelRequest> for Publication {
    type Error = WireError;

    fn try_from(request: v1::PublishModelRequest) -> Result<Self, WireError> {
        exact::<DEK_BYTES>("malformed-dek", &request.dek)?;
        Ok(Self {
            manifest: bytes("malformed-manifest", request.manifest, MANIFEST_BYTES_MAX)?,
            dek: request.dek,
            model_signature: bytes("malformed-model-signature", request.model_signature, MODEL_SIGNATURE_BYTES_MAX)?,
        })
    }
}

impl From<Publication> for v1::PublishModelRequest {
    fn from(publication: Publication) -> Self {
        Self { manifest: publication.manifest, dek: publication.dek, model_signature: publication.model_signature }
    }
}

impl TryFrom<v1::SubmitPolicyRequest> for PolicySubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitPolicyRequest) -> Result<Self, WireError> {
        Ok(Self {
            policy: bytes("malformed-policy", request.policy, POLICY_BYTES_MAX)?,
            statement: bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<PolicySubmission> for v1::SubmitPolicyRequest {
    fn from(submission: PolicySubmission) -> Self {
        Self { policy: submission.policy, statement: submission.statement, signature: submission.signature }
    }
}

impl TryFrom<v1::SubmitApprovalRequest> for Approval {
    type Error = WireError;

    fn try_from(request: v1::SubmitApprovalRequest) -> Result<Self, WireError> {
        Ok(Self {
            statement: bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
            witness: request.witness.map(GenesisWitness::try_from).transpose()?,
        })
    }
}

impl From<Approval> for v1::SubmitApprovalRequest {
    fn from(approval: Approval) -> Self {
        Self {
            statement: approval.statement,
            signature: approval.signature,
            witness: approval.witness.map(v1::GenesisWitness::from),
        }
    }
}

impl TryFrom<v1::GenesisWitness> for GenesisWitness {
    type Error = WireError;

    fn try_from(witness: v1::GenesisWitness) -> Result<Self, WireError> {
        Ok(Self {
            evidence: present("malformed-evidence", witness.evidence)?.try_into()?,
            nonce: exact("malformed-nonce", &witness.nonce)?,
            activation_secret: exact("malformed-activation-secret", &witness.activation_secret)?,
        })
    }
}

impl From<GenesisWitness> for v1::GenesisWitness {
    fn from(witness: GenesisWitness) -> Self {
        Self {
            evidence: Some(witness.evidence.into()),
            nonce: witness.nonce.to_vec(),
            activation_secret: witness.activation_secret.to_vec(),
        }
    }
}

impl ProposalAction {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Genesis,
        Self::Model,
        Self::Policy,
        Self::Platform,
        Self::Reseal,
        Self::KeeperJoin,
        Self::Escrow,
        Self::Recover,
        Self::KeeperLeave,
        Self::KeyEpoch,
        Self::Budget,
        Self::Revoke,
        Self::LiftRevocation,
        Self::Standing,
        Self::BreakGlass,
    ];

    /// As it stands in approvals and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Model => "model",
            Self::Policy => "policy",
            Self::Platform => "platform",
            Self::Reseal => "reseal",
            Self::KeeperJoin => "keeper-join",
            Self::Escrow => "escrow",
            Self::Recover => "recover",
            Self::KeeperLeave => "keeper-leave",
            Self::KeyEpoch => "key-epoch",
            Self::Budget => "budget",
            Self::Revoke => "revoke",
            Self::LiftRevocation => "lift-revocation",
            Self::Standing => "standing",
            Self::BreakGlass => "break-glass",
        }
    }
}

impl TryFrom<v1::Proposal> for Proposal {
    type Error = WireError;

    fn try_from(proposal: v1::Proposal) -> Result<Self, WireError> {
        let action = ProposalAction::ALL
            .into_iter()
            .find(|action| action.as_str() == proposal.action)
            .ok_or(WireError::new("malformed-action", Fault::Value))?;
        let too_large = |found, max| Fault::TooLarge { max, found };
        if proposal.approved_by.len() > APPROVERS_MAX {
            let fault = too_large(proposal.approved_by.len(), APPROVERS_MAX);
            return Err(WireError::new("malformed-approved-by", fault));
        }
        if proposal.summary.len() > SUMMARY_BYTES_MAX {
            return Err(WireError::new("malformed-summary", too_large(proposal.summary.len(), SUMMARY_BYTES_MAX)));
        }
        let approvers = proposal.approved_by.into_iter();
        Ok(Self {
            action,
            object: digest("malformed-object", &proposal.object)?,
            previous: digest("malformed-previous", &proposal.previous)?,
            serial: proposal.serial,
            approved_by: approvers.map(|id| name("malformed-approved-by", id)).collect::<Result<_, _>>()?,
            threshold: proposal.threshold,
            effective: proposal.effective,
            entry: proposal.entry,
            summary: proposal.summary,
        })
    }
}

impl From<Proposal> for v1::Proposal {
    fn from(proposal: Proposal) -> Self {
        Self {
            action: proposal.action.as_str().to_owned(),
            object: proposal.object.as_bytes().to_vec(),
            previous: proposal.previous.as_bytes().to_vec(),
            serial: proposal.serial,
            approved_by: proposal.approved_by.iter().map(ToString::to_string).collect(),
            threshold: proposal.threshold,
            effective: proposal.effective,
            entry: proposal.entry,
            summary: proposal.summary,
        }
    }
}
