//! Custodians of the vault's keys, and a keeper in the place of a lost one.

use attestation::{HPKE_PUBLIC_KEY_BYTES, HpkePublicKey, JoinerKeys, Sha256Digest, TpmIdentity};
use ledger::escrow::{CUSTODIANS_MAX, Custodian, EscrowPlan, LogPoint, RecoveryMode, Rollback};
use ledger::keeper_evidence::RecoveryClaims;
use ledger::names::Name;

use super::{Fault, WireError, bytes, digest, exact, key, name, present, text};
use crate::limits::{APPROVAL_BYTES_MAX, APPROVERS_MAX, CONTRIBUTION_BYTES, SSHSIG_BYTES_MAX};
use crate::v1;

/// Proposed custodians with their proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscrowSubmission {
    /// Who they are: names and digests of their keys.
    pub plan: EscrowPlan,
    /// Their keys, in the same order.
    pub keys: Vec<HpkePublicKey>,
    /// Approval statement with action `propose-escrow`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

/// What a recovering keeper says of itself. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryOffer {
    /// Of its TPM.
    pub tpm: TpmIdentity,
    /// What it is about to do.
    pub claims: RecoveryClaims,
    /// How far it is.
    pub progress: RecoveryProgress,
}

/// How far a recovery is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Who has signed.
    pub approved_by: Vec<Name>,
    /// How many have to.
    pub approvals: u32,
    /// Whose shares are there.
    pub shares_of: Vec<Name>,
    /// How many shares it takes.
    pub shares: u32,
    /// Whether the keys are there; in a drill, whether they were.
    pub done: bool,
}

/// A share for a recovering keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// What its custodian was shown.
    pub object: Sha256Digest,
    /// Index of the share.
    pub index: u32,
    /// HPKE encapsulated key.
    pub enc: Box<[u8; HPKE_PUBLIC_KEY_BYTES]>,
    /// HPKE ciphertext.
    pub ciphertext: [u8; CONTRIBUTION_BYTES],
}

impl TryFrom<v1::SubmitEscrowRequest> for EscrowSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitEscrowRequest) -> Result<Self, WireError> {
        let v1::SubmitEscrowRequest { number, epoch, threshold, custodians, statement, signature } = request;
        if custodians.len() > CUSTODIANS_MAX {
            let fault = Fault::TooLarge { max: CUSTODIANS_MAX, found: custodians.len() };
            return Err(WireError::new("malformed-custodians", fault));
        }
        let (mut named, mut keys) = (Vec::new(), Vec::new());
        for custodian in custodians {
            let of: HpkePublicKey = key("malformed-hpke-key", &custodian.key)?;
            named.push(Custodian {
                id: name("malformed-custodian", custodian.id)?,
                key: Sha256Digest::of(of.as_bytes()),
            });
            keys.push(of);
        }
        Ok(Self {
            plan: EscrowPlan { number, epoch, threshold, custodians: named },
            keys,
            statement: bytes("malformed-statement", statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<EscrowSubmission> for v1::SubmitEscrowRequest {
    fn from(submission: EscrowSubmission) -> Self {
        let EscrowSubmission { plan, keys, statement, signature } = submission;
        let custodians = plan.custodians.into_iter().zip(keys);
        let custodians = custodians
            .map(|(custodian, key)| v1::EscrowCustodian { id: custodian.id.to_string(), key: key.as_bytes().to_vec() });
        Self {
            number: plan.number,
            epoch: plan.epoch,
            threshold: plan.threshold,
            custodians: custodians.collect(),
            statement,
            signature,
        }
    }
}

impl TryFrom<v1::GetRecoveryResponse> for RecoveryOffer {
    type Error = WireError;

    fn try_from(response: v1::GetRecoveryResponse) -> Result<Self, WireError> {
        let mode = match response.mode.as_str() {
            "recover" => RecoveryMode::Recover,
            "drill" => RecoveryMode::Drill,
            _ => return Err(WireError::new("malformed-mode", Fault::Value)),
        };
        let rollback = match response.rollback.as_str() {
            "accepted" => Rollback::Accepted,
            _ => return Err(WireError::new("malformed-rollback", Fault::Value)),
        };
        let keys = JoinerKeys {
            instance: exact("malformed-instance", &response.instance)?,
            hpke_key: key("malformed-hpke-key", &response.hpke_key)?,
            counter_name: exact("malformed-counter-name", &response.counter_name)?,
            counter: response.counter,
        };
        let from = LogPoint { size: response.size, root: digest("malformed-root", &response.root)? };
        let policy = digest("malformed-policy-digest", &response.policy_digest)?;
        let set = digest("malformed-set", &response.set)?;
        Ok(Self {
            tpm: present("malformed-tpm-identity", response.tpm)?.try_into()?,
            claims: RecoveryClaims { mode, keys, policy, from, set, rollback },
            progress: present("malformed-progress", response.progress)?.try_into()?,
        })
    }
}

impl From<RecoveryOffer> for v1::GetRecoveryResponse {
    fn from(offer: RecoveryOffer) -> Self {
        let RecoveryOffer { tpm, claims, progress } = offer;
        let RecoveryClaims { mode, keys, policy, from, set, rollback } = claims;
        let rollback = match rollback {
            Rollback::Accepted => "accepted",
        };
        Self {
            tpm: Some(tpm.into()),
            instance: keys.instance.to_vec(),
            hpke_key: keys.hpke_key.as_bytes().to_vec(),
            counter_name: keys.counter_name.to_vec(),
            counter: keys.counter,
            mode: mode.as_str().to_owned(),
            policy_digest: policy.as_bytes().to_vec(),
            size: from.size,
            root: from.root.as_bytes().to_vec(),
            set: set.as_bytes().to_vec(),
            rollback: rollback.to_owned(),
            progress: Some(progress.into()),
        }
    }
}

impl TryFrom<v1::RecoveryProgress> for RecoveryProgress {
    type Error = WireError;

    fn try_from(progress: v1::RecoveryProgress) -> Result<Self, WireError> {
        let names = |code: &'static str, names: Vec<String>| {
            if names.len() > APPROVERS_MAX {
                return Err(WireError::new(code, Fault::TooLarge { max: APPROVERS_MAX, found: names.len() }));
            }
            names.into_iter().map(|id| name(code, id)).collect::<Result<_, _>>()
        };
        Ok(Self {
            approved_by: names("malformed-approved-by", progress.approved_by)?,
            approvals: progress.approvals,
            shares_of: names("malformed-shares-of", progress.shares_of)?,
            shares: progress.shares,
            done: progress.done,
        })
    }
}

impl From<RecoveryProgress> for v1::RecoveryProgress {
    fn from(progress: RecoveryProgress) -> Self {
        let names = |names: Vec<Name>| names.iter().map(ToString::to_string).collect();
        Self {
            approved_by: names(progress.approved_by),
            approvals: progress.approvals,
            shares_of: names(progress.shares_of),
            shares: progress.shares,
            done: progress.done,
        }
    }
}

impl TryFrom<v1::ContributeShareRequest> for Contribution {
    type Error = WireError;

    fn try_from(request: v1::ContributeShareRequest) -> Result<Self, WireError> {
        Ok(Self {
            object: digest("malformed-object", &request.object)?,
            index: request.index,
            enc: Box::new(exact("malformed-enc", &request.enc)?),
            ciphertext: exact("malformed-ciphertext", &request.ciphertext)?,
        })
    }
}

impl From<Contribution> for v1::ContributeShareRequest {
    fn from(contribution: Contribution) -> Self {
        Self {
            object: contribution.object.as_bytes().to_vec(),
            index: contribution.index,
            enc: contribution.enc.to_vec(),
            ciphertext: contribution.ciphertext.to_vec(),
        }
    }
}
