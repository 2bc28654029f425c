//! One share: what it is bound to, and the file that its custodian keeps.

use std::fmt;

use attestation::{Sha256Digest, lv};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::EscrowPlan;
use crate::entry::field;
use crate::json::{self, JsonError};
use crate::names::Name;

/// Bytes of a share: as long as the key that is split.
pub const SHARE_BYTES: usize = 32;
/// Longest share file, in bytes.
pub const SHARE_FILE_BYTES_MAX: usize = 8 << 10;

const SHARE_TAG: &[u8] = b"weightvault/v1 escrow share\0";
const CHECK_TAG: &[u8] = b"weightvault/v1 escrow check\0";
const CONTRIBUTION_TAG: &[u8] = b"weightvault/v1 contribution\0";
const SHARE_FILE_VERSION: u64 = 1;
/// HPKE encapsulated key, share, tag.
const SEALED_BYTES: usize = attestation::HPKE_PUBLIC_KEY_BYTES + SHARE_BYTES + 16;

/// Which share of which splitting of which vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareId {
    /// Vault id.
    pub vault: Sha256Digest,
    /// Epoch of the KEK.
    pub epoch: u32,
    /// Number of the escrow.
    pub number: u64,
    /// How many shares give the keys.
    pub threshold: u32,
    /// From 1: the point of the polynomial.
    pub index: u32,
    /// Whose it is.
    pub custodian: Name,
    /// The splitting: [`EscrowPlan::set`].
    pub set: Sha256Digest,
}

impl ShareId {
    /// The shares of a splitting, in the order of the custodians.
    pub fn all(plan: &EscrowPlan, vault: Sha256Digest, record: Sha256Digest) -> Vec<Self> {
        let set = plan.set(vault, record);
        let EscrowPlan { number, epoch, threshold, custodians } = plan;
        let (number, epoch, threshold) = (*number, *epoch, *threshold);
        let of = |(index, custodian): (u32, &super::Custodian)| Self {
            vault,
            epoch,
            number,
            threshold,
            index,
            custodian: custodian.id.clone(),
            set,
        };
        (1..).zip(custodians).map(of).collect()
    }

    /// HPKE info of the share as its custodian gets it: `"weightvault/v1 escrow share\0"` ‖ lv(vault id, be32(epoch),
    /// be64(number), be32(threshold), be32(index), custodian, set).
    pub fn info(&self) -> Vec<u8> {
        let fields = lv(&[
            self.vault.as_bytes(),
            &self.epoch.to_be_bytes(),
            &self.number.to_be_bytes(),
            &self.threshold.to_be_bytes(),
            &self.index.to_be_bytes(),
            self.custodian.as_str().as_bytes(),
            self.set.as_bytes(),
        ]);
        [SHARE_TAG, &fields].concat()
    }

    /// HPKE info of the share as its custodian gives it to a recovering keeper: `"weightvault/v1 contribution\0"` ‖
    /// lv(object of the recovery, set, be32(index)).
    pub fn contribution_info(&self, recovery: Sha256Digest) -> Vec<u8> {
        let fields = lv(&[recovery.as_bytes(), self.set.as_bytes(), &self.index.to_be_bytes()]);
        [CONTRIBUTION_TAG, &fields].concat()
    }

    /// Names this very share: SHA-256(`"weightvault/v1 escrow check\0"` ‖ lv(set, be32(index), share)).
    pub fn check(&self, share: &[u8; SHARE_BYTES]) -> Sha256Digest {
        let fields = Zeroizing::new(lv(&[self.set.as_bytes(), &self.index.to_be_bytes(), share]));
        Sha256Digest::of(&Zeroizing::new([CHECK_TAG, &fields].concat()))
    }
}

/// What a custodian keeps: a share that only his key opens, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareFile {
    id: ShareId,
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareFields {
    v: u64,
    vault: Sha256Digest,
    epoch: u32,
    number: u64,
    threshold: u32,
    index: u32,
    custodian: Name,
    set: Sha256Digest,
    #[serde(with = "field::base64")]
    sealed: Vec<u8>,
}

impl ShareFile {
    /// A share as the keeper sealed it, 1713 bytes: encapsulated key, then ciphertext.
    ///
    /// # Errors
    /// [`ShareFileError::SealedLength`].
    pub fn new(id: ShareId, sealed: Vec<u8>) -> Result<Self, ShareFileError> {
        match sealed.len() {
            SEALED_BYTES => Ok(Self { id, sealed }),
            bytes => Err(ShareFileError::SealedLength { bytes }),
        }
    }

    /// Reads exact bytes.
    ///
    /// # Errors
    /// [`ShareFileError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ShareFileError> {
        if bytes.len() > SHARE_FILE_BYTES_MAX {
            return Err(ShareFileError::TooLong { bytes: bytes.len() });
        }
        let fields: ShareFields = json::parse_object(bytes).map_err(ShareFileError::Malformed)?;
        let ShareFields { v, vault, epoch, number, threshold, index, custodian, set, sealed } = fields;
        if v != SHARE_FILE_VERSION {
            return Err(ShareFileError::UnknownVersion { found: v });
        }
        Self::new(ShareId { vault, epoch, number, threshold, index, custodian, set }, sealed)
    }

    /// The file, with a newline at its end.
    pub fn encode(&self) -> Vec<u8> {
        let ShareId { vault, epoch, number, threshold, index, custodian, set } = self.id.clone();
        let v = SHARE_FILE_VERSION;
        let sealed = self.sealed.clone();
        let fields = ShareFields { v, vault, epoch, number, threshold, index, custodian, set, sealed };
        let mut bytes = serde_json::to_vec(&fields).expect("every field is text or an integer");
        bytes.push(b'\n');
        bytes
    }

    /// Where it belongs.
    pub fn id(&self) -> &ShareId {
        &self.id
    }

    /// The sealed share: encapsulated key and ciphertext.
    pub fn sealed(&self) -> (&[u8], &[u8]) {
        self.sealed.split_at(attestation::HPKE_PUBLIC_KEY_BYTES)
    }

    /// SHA-256 of the sealed share, as the log names it.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.sealed)
    }
}

/// Why bytes are not a share file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareFileError {
    /// Longer than 8 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of a share file.
    Malformed(JsonError),
    /// `v` is not 1.
    UnknownVersion {
        /// What it is.
        found: u64,
    },
    /// The sealed share is not 1713 bytes long.
    SealedLength {
        /// How long it is.
        bytes: usize,
    },
}

impl ShareFileError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "share-file-too-long",
            Self::Malformed(_) => "share-file-malformed",
            Self::UnknownVersion { .. } => "share-file-version-unknown",
            Self::SealedLength { .. } => "share-file-length",
        }
    }
}

impl fmt::Display for ShareFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a share file of {bytes} bytes is longer than 8 KiB"),
            Self::Malformed(error) => write!(f, "not a share file: {error}"),
            Self::UnknownVersion { found } => write!(f, "share file version {found} is unknown; this program knows 1"),
            Self::SealedLength { bytes } => {
                write!(f, "a sealed share of {bytes} bytes, which must have {SEALED_BYTES}")
            }
        }
    }
}

impl std::error::Error for ShareFileError {}
