//! A notice: the keeper tells holders that their leases are revoked, and shows it (FORMAT.md §7).

use std::fmt;

use attestation::{IdentityKey, Sha256Digest, lv};

use super::ActKind;
use crate::checkpoint::LogVerifier;
use crate::entry::{Entry, EntryError, Revoke};
use crate::merkle::{Hash, leaf_hash};
use crate::proof::ProofError;

const NOTICE: &[u8] = b"weightvault/v1 revocation notice\0";
const WATCH: &[u8] = b"weightvault/v1 watch\0";

/// What the identity key signs for a notice: vault, index and leaf hash of the `revoke` entry, and the lease ids joined.
#[must_use]
pub fn notice_message(vault: &Sha256Digest, entry: u64, leaf: &Hash, leases: &[Sha256Digest]) -> Vec<u8> {
    let leases: Vec<u8> = leases.iter().flat_map(|lease| *lease.as_bytes()).collect();
    [NOTICE, &lv(&[vault.as_bytes(), &entry.to_be_bytes(), leaf, &leases])].concat()
}

/// What the lease key signs to watch its lease.
#[must_use]
pub fn watch_message(vault: &Sha256Digest, lease: &Sha256Digest) -> Vec<u8> {
    [WATCH, &lv(&[vault.as_bytes(), lease.as_bytes()])].concat()
}

/// A notice as it came: claims, until it is verified.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// The `revoke` entry, exact bytes.
    pub entry: &'a [u8],
    /// C2SP tlog-proof of it.
    pub log_proof: &'a str,
    /// The leases that it is about.
    pub leases: &'a [Sha256Digest],
    /// By the identity key.
    pub signature: &'a [u8; 96],
}

/// A lease that its vault has revoked. Only [`Notice::verify`] makes one: a host can withhold a notice, not make one up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedLease {
    index: u64,
    revoke: Revoke,
}

impl RevokedLease {
    /// Index of the `revoke` entry.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The entry.
    pub fn revoke(&self) -> &Revoke {
        &self.revoke
    }
}

impl Notice<'_> {
    /// Checks that the vault's keeper says of this lease that it is revoked, by an entry of the vault's log.
    ///
    /// # Errors
    /// [`NoticeError`].
    pub fn verify(
        &self,
        lease: Sha256Digest,
        log: &LogVerifier,
        identity: &IdentityKey,
    ) -> Result<RevokedLease, NoticeError> {
        if !self.leases.contains(&lease) {
            return Err(NoticeError::OtherLease);
        }
        let (index, _) = log.verify_proof(self.log_proof, self.entry).map_err(NoticeError::Proof)?;
        let message = notice_message(&log.vault(), index, &leaf_hash(self.entry), self.leases);
        identity.verify(&message, self.signature).map_err(|_| NoticeError::Signature)?;
        match Entry::parse(self.entry).map_err(NoticeError::Entry)? {
            Entry::Revoke(revoke) if revoke.act == ActKind::Revoke => Ok(RevokedLease { index, revoke }),
            _ => Err(NoticeError::NotARevocation),
        }
    }
}

/// Why a notice says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeError {
    /// It is about other leases.
    OtherLease,
    /// Its entry is not in the vault's log.
    Proof(ProofError),
    /// The vault's keeper did not sign it.
    Signature,
    /// Its entry is none.
    Entry(EntryError),
    /// Its entry revokes nothing.
    NotARevocation,
}

impl NoticeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherLease => "notice-other-lease",
            Self::Proof(error) => error.code(),
            Self::Signature => "notice-signature",
            Self::Entry(error) => error.code(),
            Self::NotARevocation => "notice-not-a-revocation",
        }
    }
}

impl fmt::Display for NoticeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherLease => f.write_str("the notice is about other leases"),
            Self::Proof(error) => write!(f, "the revocation is not in the vault's log: {error}"),
            Self::Signature => f.write_str("the vault's keeper did not sign the notice"),
            Self::Entry(error) => error.fmt(f),
            Self::NotARevocation => f.write_str("the entry of the notice revokes nothing"),
        }
    }
}

impl std::error::Error for NoticeError {}
