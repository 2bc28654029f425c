//! Key epochs: asked for, and shown to whoever knows an older key.

use ledger::key_epoch::{EpochLink, LINKS_MAX};
use ledger::proof::PROOF_BYTES_MAX;
use ledger::release_log::ENTRY_BYTES_MAX;

use super::{Fault, WireError, bytes, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

/// A request for the keys of the next epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEpochSubmission {
    /// Approval statement with action `propose-key-epoch`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

/// Asks for the epochs behind the one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEpochsRequest {
    /// From 1.
    pub known: u32,
}

/// How the keys of a vault followed each other. Worth nothing before [`follow`](ledger::key_epoch::follow) took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEpochLinks {
    /// In order.
    pub links: Vec<EpochLink>,
}

impl TryFrom<v1::SubmitKeyEpochRequest> for KeyEpochSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitKeyEpochRequest) -> Result<Self, WireError> {
        let statement = bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?;
        let signature = text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?;
        Ok(Self { statement, signature })
    }
}

impl From<KeyEpochSubmission> for v1::SubmitKeyEpochRequest {
    fn from(KeyEpochSubmission { statement, signature }: KeyEpochSubmission) -> Self {
        Self { statement, signature }
    }
}

impl TryFrom<v1::GetKeyEpochsRequest> for KeyEpochsRequest {
    type Error = WireError;

    fn try_from(request: v1::GetKeyEpochsRequest) -> Result<Self, WireError> {
        match request.known {
            0 => Err(WireError::new("malformed-epoch", Fault::Value)),
            known => Ok(Self { known }),
        }
    }
}

impl From<KeyEpochsRequest> for v1::GetKeyEpochsRequest {
    fn from(KeyEpochsRequest { known }: KeyEpochsRequest) -> Self {
        Self { known }
    }
}

impl TryFrom<v1::GetKeyEpochsResponse> for KeyEpochLinks {
    type Error = WireError;

    fn try_from(response: v1::GetKeyEpochsResponse) -> Result<Self, WireError> {
        if response.links.len() > LINKS_MAX {
            let fault = Fault::TooLarge { max: LINKS_MAX, found: response.links.len() };
            return Err(WireError::new("malformed-links", fault));
        }
        let link = |link: v1::KeyEpochLink| {
            let entry = bytes("malformed-entry", link.entry, ENTRY_BYTES_MAX)?;
            let proof = text("malformed-log-proof", link.log_proof, PROOF_BYTES_MAX)?;
            Ok(EpochLink { entry, proof })
        };
        Ok(Self { links: response.links.into_iter().map(link).collect::<Result<_, WireError>>()? })
    }
}

impl From<KeyEpochLinks> for v1::GetKeyEpochsResponse {
    fn from(KeyEpochLinks { links }: KeyEpochLinks) -> Self {
        let link = |EpochLink { entry, proof }| v1::KeyEpochLink { entry, log_proof: proof };
        Self { links: links.into_iter().map(link).collect() }
    }
}
