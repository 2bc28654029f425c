//! Leases: their signed statements, renewal, end.

use attestation::{Sha256Digest, Workload};

use super::{EvidenceSet, WireError, bytes, digest, exact, present};
use crate::limits::LEASE_STATEMENT_BYTES_MAX;
use crate::v1;

/// A lease statement and the keeper's signature over it. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLease {
    /// Exact bytes (FORMAT.md §7).
    pub statement: Vec<u8>,
    /// ECDSA P-384, r‖s.
    pub signature: [u8; 96],
}

/// Redeems a renew challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewRequest {
    /// Of the challenge.
    pub session: [u8; 16],
    /// The lease.
    pub lease_id: Sha256Digest,
    /// Fresh evidence.
    pub evidence: EvidenceSet,
    /// The newest signed lease that the agent holds.
    pub lease: SignedLease,
    /// By the lease key.
    pub lease_signature: [u8; 64],
    /// What runs under the lease.
    pub workload: Option<Workload>,
}

/// Ends a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndLease {
    /// The lease.
    pub lease_id: Sha256Digest,
    /// By the lease key.
    pub lease_signature: [u8; 64],
}

impl TryFrom<v1::SignedLease> for SignedLease {
    type Error = WireError;

    fn try_from(lease: v1::SignedLease) -> Result<Self, WireError> {
        Ok(Self {
            statement: bytes("malformed-lease-statement", lease.statement, LEASE_STATEMENT_BYTES_MAX)?,
            signature: exact("malformed-lease-statement-signature", &lease.signature)?,
        })
    }
}

impl From<SignedLease> for v1::SignedLease {
    fn from(lease: SignedLease) -> Self {
        Self { statement: lease.statement, signature: lease.signature.to_vec() }
    }
}

impl TryFrom<v1::RenewLeaseRequest> for RenewRequest {
    type Error = WireError;

    fn try_from(request: v1::RenewLeaseRequest) -> Result<Self, WireError> {
        Ok(Self {
            session: exact("malformed-session", &request.session)?,
            lease_id: digest("malformed-lease-id", &request.lease_id)?,
            evidence: present("malformed-evidence", request.evidence)?.try_into()?,
            lease: present("malformed-lease", request.lease)?.try_into()?,
            lease_signature: exact("malformed-lease-signature", &request.lease_signature)?,
            workload: request.workload.map(super::workload::read).transpose()?,
        })
    }
}

impl From<RenewRequest> for v1::RenewLeaseRequest {
    fn from(request: RenewRequest) -> Self {
        Self {
            session: request.session.to_vec(),
            lease_id: request.lease_id.as_bytes().to_vec(),
            evidence: Some(request.evidence.into()),
            lease: Some(request.lease.into()),
            lease_signature: request.lease_signature.to_vec(),
            workload: request.workload.map(Into::into),
        }
    }
}

impl TryFrom<v1::RenewLeaseResponse> for SignedLease {
    type Error = WireError;

    fn try_from(response: v1::RenewLeaseResponse) -> Result<Self, WireError> {
        present("malformed-lease", response.lease)?.try_into()
    }
}

impl From<SignedLease> for v1::RenewLeaseResponse {
    fn from(lease: SignedLease) -> Self {
        Self { lease: Some(lease.into()) }
    }
}

impl TryFrom<v1::EndLeaseRequest> for EndLease {
    type Error = WireError;

    fn try_from(request: v1::EndLeaseRequest) -> Result<Self, WireError> {
        Ok(Self {
            lease_id: digest("malformed-lease-id", &request.lease_id)?,
            lease_signature: exact("malformed-lease-signature", &request.lease_signature)?,
        })
    }
}

impl From<EndLease> for v1::EndLeaseRequest {
    fn from(request: EndLease) -> Self {
        Self { lease_id: request.lease_id.as_bytes().to_vec(), lease_signature: request.lease_signature.to_vec() }
    }
}
