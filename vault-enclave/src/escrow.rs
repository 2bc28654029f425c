//! A vault's keys in shares (FORMAT.md §5, "Escrow"): split for custodians by the keeper that has them, and put together
//! again by one that takes the place of a lost keeper.
//!
//! What is split is a fresh key of 32 bytes, by Shamir's scheme over GF(256) of crate `vsss-rs`, whose arithmetic has no
//! branches and no tables. It seals one record of the keys: its commitment refuses whatever does not come of the right
//! shares. Each share is sealed to its custodian, and the log names a digest of each, so that a wrong one is found by itself.

use std::collections::BTreeMap;
use std::fmt;

use attestation::{HpkePublicKey, Sha256Digest};
use ledger::escrow::{EscrowPlan, ShareDigests, ShareId};
use ledger::state::Escrow;
use ring::rand::SecureRandom;
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

use crate::container::OpenError;
use crate::drawn::Drawn;
use crate::record::{open_escrow, seal_escrow};
use crate::secret::{EscrowKey, EscrowShare, SecretError, VaultSecrets};
use crate::stack::wiped_deep;
use crate::vault_keys::{VaultKeys, VaultKeysError};
use crate::wrap::{self, HpkeKeyPair, WrapError};

/// The keys of a vault, split: all of it may be public.
pub struct Splitting {
    /// The keys, sealed under what was split.
    pub record: Vec<u8>,
    /// Each share as its custodian gets it, encapsulated key ‖ ciphertext.
    pub sealed: Vec<Vec<u8>>,
    /// What the log says of each.
    pub digests: Vec<ShareDigests>,
}

/// Splits the keys of a vault for the custodians of a plan, whose HPKE keys are given in its order.
///
/// # Errors
/// [`EscrowKeysError`].
pub fn split(
    keys: &VaultKeys,
    vault: Sha256Digest,
    plan: &EscrowPlan,
    custodians: &[HpkePublicKey],
    rng: &dyn SecureRandom,
) -> Result<Splitting, EscrowKeysError> {
    let named = plan.custodians.iter().map(|custodian| custodian.key);
    if !custodians.iter().map(|key| Sha256Digest::of(key.as_bytes())).eq(named) {
        return Err(EscrowKeysError::CustodianKeys);
    }
    let key = EscrowKey::generate(rng)?;
    let record = seal_escrow(&key, vault, (plan.object(vault), plan.epoch), &keys.secrets()?, rng)?;
    let ids = ShareId::all(plan, vault, Sha256Digest::of(&record));
    let shares = shares_of(&key, plan.threshold, ids.len(), rng)?;
    let (mut sealed, mut digests) = (Vec::new(), Vec::new());
    for ((id, share), to) in ids.iter().zip(&shares).zip(custodians) {
        let wrapped = share.with_bytes(|share| wrap::wrap(to, &id.info(), share, rng))?;
        let bytes = [wrapped.enc, wrapped.ciphertext].concat();
        digests
            .push(ShareDigests { sealed: Sha256Digest::of(&bytes), check: share.with_bytes(|share| id.check(share)) });
        sealed.push(bytes);
    }
    Ok(Splitting { record, sealed, digests })
}

/// Shares with the points 1, 2, …: a byte of each for each byte of the key.
fn shares_of(
    key: &EscrowKey,
    threshold: u32,
    count: usize,
    rng: &dyn SecureRandom,
) -> Result<Vec<EscrowShare>, EscrowKeysError> {
    /// A coefficient is drawn from at most so many bytes.
    const COEFFICIENT_BYTES: usize = 8;
    let threshold = usize::try_from(threshold).map_err(|_| EscrowKeysError::Shares)?;
    let drawn = Drawn::new(rng, EscrowKey::BYTES * threshold * COEFFICIENT_BYTES)?;
    let split = key.with_bytes(|key| wiped_deep(|| Gf256::split_bytes(threshold, count, key, drawn)));
    let shares = Zeroizing::new(split.map_err(|_| EscrowKeysError::Shares)?);
    let take = |(index, share): (u8, &Vec<u8>)| match share.split_first() {
        Some((point, share)) if *point == index && share.len() == EscrowShare::BYTES => EscrowShare::init_with(|to| {
            to.copy_from_slice(share);
            Ok(())
        }),
        Some(_) | None => Err(EscrowKeysError::Shares),
    };
    (1..=u8::MAX).zip(shares.iter()).map(take).collect()
}

/// Shares on their way back together, in a keeper that takes the place of a lost one or practises that.
pub struct Gathering {
    vault: Sha256Digest,
    escrow: Escrow,
    /// What the shares are given for.
    object: Sha256Digest,
    shares: BTreeMap<u32, EscrowShare>,
}

impl Gathering {
    /// Of the escrow in force, for this recovery or drill.
    pub fn new(vault: Sha256Digest, escrow: Escrow, object: Sha256Digest) -> Self {
        Self { vault, escrow, object, shares: BTreeMap::new() }
    }

    /// Takes a share that its custodian sealed to `pair` for this recovery. The same share again counts once.
    ///
    /// # Errors
    /// [`EscrowKeysError::ShareUnknown`]; [`EscrowKeysError::ShareRefused`] where it was sealed for something else;
    /// [`EscrowKeysError::ShareWrong`] where it is not the share that the log names.
    pub fn take(
        &mut self,
        index: u32,
        (enc, ciphertext): (&[u8], &[u8]),
        pair: &HpkeKeyPair,
    ) -> Result<(), EscrowKeysError> {
        let named = self.escrow.shares(self.vault).find(|(id, _)| id.index == index);
        let (id, digests) = named.ok_or(EscrowKeysError::ShareUnknown { index })?;
        let info = id.contribution_info(self.object);
        let share = EscrowShare::init_with(|share| pair.open(&info, enc, ciphertext, share));
        let share = share.map_err(|_| EscrowKeysError::ShareRefused { index })?;
        if share.with_bytes(|share| id.check(share)) != digests.check {
            return Err(EscrowKeysError::ShareWrong { index, custodian: id.custodian });
        }
        self.shares.insert(index, share);
        Ok(())
    }

    /// Whose shares are here.
    pub fn custodians(&self) -> impl Iterator<Item = &ledger::names::Name> {
        let of = |index: &u32| self.escrow.plan().custodian(*index).map(|custodian| &custodian.id);
        self.shares.keys().filter_map(of)
    }

    /// The escrow.
    pub fn escrow(&self) -> &Escrow {
        &self.escrow
    }

    /// Forgets them.
    pub fn wipe(&mut self) {
        self.shares.clear();
    }

    /// Whether there are enough.
    pub fn is_complete(&self) -> bool {
        u32::try_from(self.shares.len()).is_ok_and(|count| count >= self.escrow.plan().threshold)
    }

    /// Puts the key together and opens the record, which must be the one that the log names.
    ///
    /// # Errors
    /// [`EscrowKeysError::TooFew`], [`EscrowKeysError::OtherRecord`]; [`EscrowKeysError::Seal`] where the key that comes out
    /// is not the one that was split.
    pub fn open(&self, record: &[u8]) -> Result<VaultSecrets, EscrowKeysError> {
        if !self.is_complete() {
            return Err(EscrowKeysError::TooFew { given: self.shares.len() });
        }
        if Sha256Digest::of(record) != self.escrow.record() {
            return Err(EscrowKeysError::OtherRecord);
        }
        let key = self.key()?;
        let of = (self.escrow.object(), self.escrow.plan().epoch);
        Ok(open_escrow(&key, self.vault, of, record)?)
    }

    fn key(&self) -> Result<EscrowKey, EscrowKeysError> {
        let with_point = |(index, share): (&u32, &EscrowShare)| {
            let point = u8::try_from(*index).map_err(|_| EscrowKeysError::Shares)?;
            Ok(share.with_bytes(|share| [&[point], share.as_slice()].concat()))
        };
        let shares = self.shares.iter().map(with_point).collect::<Result<Vec<_>, EscrowKeysError>>();
        let shares = Zeroizing::new(shares?);
        let combined = wiped_deep(|| Gf256::combine_bytes(shares.as_slice()));
        let mut combined = combined.map_err(|_| EscrowKeysError::Shares)?;
        let key = EscrowKey::init_with(|key| match combined.len() {
            EscrowKey::BYTES => {
                key.copy_from_slice(&combined);
                Ok(())
            }
            _ => Err(EscrowKeysError::Shares),
        });
        combined.zeroize();
        key
    }
}

/// Why keys were not split, or do not come out of shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EscrowKeysError {
    /// The keys that are given are not those that the plan names.
    CustodianKeys,
    /// The crate split or combined otherwise than it should: does not happen with a plan that was checked.
    Shares,
    /// The escrow has no share of this index.
    ShareUnknown {
        /// The index.
        index: u32,
    },
    /// The share was sealed to another keeper or for another use, or changed.
    ShareRefused {
        /// Its index.
        index: u32,
    },
    /// It opens, and is not the share that was split: its custodian gave something else.
    ShareWrong {
        /// Its index.
        index: u32,
        /// Who gave it.
        custodian: ledger::names::Name,
    },
    /// Fewer shares than it takes.
    TooFew {
        /// How many.
        given: usize,
    },
    /// The record is not the one of the escrow.
    OtherRecord,
    /// The record does not open under what the shares gave, or the keys could not be sealed.
    Seal(OpenError),
    /// A custodian's key, or sealing to it.
    Wrap(WrapError),
    /// The keys of the vault.
    Keys(VaultKeysError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
}

impl EscrowKeysError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CustodianKeys => "escrow-custodian-keys",
            Self::Shares => "escrow-shares",
            Self::ShareUnknown { .. } => "share-unknown",
            Self::ShareRefused { .. } => "share-refused",
            Self::ShareWrong { .. } => "share-wrong",
            Self::TooFew { .. } => "shares-too-few",
            Self::OtherRecord => "escrow-other-record",
            Self::Seal(error) => error.code(),
            Self::Wrap(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for EscrowKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CustodianKeys => f.write_str("the custodians' keys are not those that were approved"),
            Self::Shares => f.write_str("the shares do not fit together"),
            Self::ShareUnknown { index } => write!(f, "the escrow in force has no share {index}"),
            Self::ShareRefused { index } => {
                write!(f, "share {index} was sealed to another keeper or for another use, or was changed on the way")
            }
            Self::ShareWrong { index, custodian } => {
                write!(f, "what {custodian} gave is not share {index} of the escrow in force")
            }
            Self::TooFew { given } => write!(f, "{given} shares are too few"),
            Self::OtherRecord => f.write_str("the record of the keys is not the one that the log names"),
            Self::Seal(error) => error.fmt(f),
            Self::Wrap(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EscrowKeysError {}

impl From<OpenError> for EscrowKeysError {
    fn from(error: OpenError) -> Self {
        Self::Seal(error)
    }
}

impl From<WrapError> for EscrowKeysError {
    fn from(error: WrapError) -> Self {
        Self::Wrap(error)
    }
}

impl From<VaultKeysError> for EscrowKeysError {
    fn from(error: VaultKeysError) -> Self {
        Self::Keys(error)
    }
}

impl From<SecretError> for EscrowKeysError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<crate::region::RegionError> for EscrowKeysError {
    fn from(error: crate::region::RegionError) -> Self {
        Self::Secret(error.into())
    }
}

#[cfg(test)]
mod tests;
