//! Revocations: their submission, watches, and notices. Extensions.

use attestation::Sha256Digest;

use super::{Fault, WireError, bytes, digest, exact, present, text};
use crate::limits::{
    APPROVAL_BYTES_MAX, ENTRY_BYTES_MAX, EXTENSION_FILE_BYTES_MAX, LOG_PROOF_BYTES_MAX, NOTICE_LEASES_MAX,
    REVOCATION_BYTES_MAX, SSHSIG_BYTES_MAX,
};
use crate::v1;

/// A revocation, or the lift of one, with its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationSubmission {
    /// The act, exact bytes (FORMAT.md §7).
    pub revocation: Vec<u8>,
    /// Approval statement with action `revoke` or `lift-revocation`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

/// Watches a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchLease {
    /// The lease.
    pub lease_id: Sha256Digest,
    /// By the lease key.
    pub lease_signature: [u8; 64],
}

/// The bytes of an extension file.
///
/// # Errors
/// `malformed-extension`.
pub fn extension(request: v1::SubmitExtensionRequest) -> Result<Vec<u8>, WireError> {
    bytes("malformed-extension", request.extension, EXTENSION_FILE_BYTES_MAX)
}

/// Leases that a keeper says it has revoked. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationNotice {
    /// The `revoke` entry, exact bytes.
    pub entry: Vec<u8>,
    /// C2SP tlog-proof of the entry.
    pub log_proof: String,
    /// Ascending, none twice, at least one.
    pub leases: Vec<Sha256Digest>,
    /// ECDSA P-384, r‖s.
    pub signature: [u8; 96],
}

/// What comes on a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Nothing happened.
    Watching,
    /// The lease is revoked.
    Notice(RevocationNotice),
}

impl TryFrom<v1::SubmitRevocationRequest> for RevocationSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitRevocationRequest) -> Result<Self, WireError> {
        Ok(Self {
            revocation: bytes("malformed-revocation", request.revocation, REVOCATION_BYTES_MAX)?,
            statement: bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<RevocationSubmission> for v1::SubmitRevocationRequest {
    fn from(submission: RevocationSubmission) -> Self {
        let RevocationSubmission { revocation, statement, signature } = submission;
        Self { revocation, statement, signature }
    }
}

impl TryFrom<v1::WatchLeaseRequest> for WatchLease {
    type Error = WireError;

    fn try_from(request: v1::WatchLeaseRequest) -> Result<Self, WireError> {
        Ok(Self {
            lease_id: digest("malformed-lease-id", &request.lease_id)?,
            lease_signature: exact("malformed-lease-signature", &request.lease_signature)?,
        })
    }
}

impl From<WatchLease> for v1::WatchLeaseRequest {
    fn from(request: WatchLease) -> Self {
        Self { lease_id: request.lease_id.as_bytes().to_vec(), lease_signature: request.lease_signature.to_vec() }
    }
}

impl TryFrom<v1::RevocationNotice> for RevocationNotice {
    type Error = WireError;

    fn try_from(notice: v1::RevocationNotice) -> Result<Self, WireError> {
        const LEASES: &str = "malformed-leases";
        if notice.leases.is_empty() {
            return Err(WireError::new(LEASES, Fault::Missing));
        }
        if notice.leases.len() > NOTICE_LEASES_MAX {
            let fault = Fault::TooLarge { max: NOTICE_LEASES_MAX, found: notice.leases.len() };
            return Err(WireError::new(LEASES, fault));
        }
        let leases = notice.leases.iter().map(|id| digest(LEASES, id)).collect::<Result<Vec<_>, _>>()?;
        if !leases.is_sorted_by(|one, next| one < next) {
            return Err(WireError::new(LEASES, Fault::Order));
        }
        Ok(Self {
            entry: bytes("malformed-entry", notice.entry, ENTRY_BYTES_MAX)?,
            log_proof: text("malformed-log-proof", notice.log_proof, LOG_PROOF_BYTES_MAX)?,
            leases,
            signature: exact("malformed-signature", &notice.signature)?,
        })
    }
}

impl From<RevocationNotice> for v1::RevocationNotice {
    fn from(notice: RevocationNotice) -> Self {
        Self {
            entry: notice.entry,
            log_proof: notice.log_proof,
            leases: notice.leases.iter().map(|id| id.as_bytes().to_vec()).collect(),
            signature: notice.signature.to_vec(),
        }
    }
}

impl TryFrom<v1::WatchLeaseResponse> for WatchEvent {
    type Error = WireError;

    fn try_from(response: v1::WatchLeaseResponse) -> Result<Self, WireError> {
        use v1::watch_lease_response::Event;
        match present("malformed-event", response.event)? {
            Event::Watching(true) => Ok(Self::Watching),
            Event::Watching(false) => Err(WireError::new("malformed-event", Fault::Value)),
            Event::Notice(notice) => Ok(Self::Notice(notice.try_into()?)),
        }
    }
}

impl From<WatchEvent> for v1::WatchLeaseResponse {
    fn from(event: WatchEvent) -> Self {
        use v1::watch_lease_response::Event;
        let event = match event {
            WatchEvent::Watching => Event::Watching(true),
            WatchEvent::Notice(notice) => Event::Notice(notice.into()),
        };
        Self { event: Some(event) }
    }
}
