//! The keys of a vault's keeper, all from ROOT, its instance and its core (FORMAT.md §5).
//!
//! Keys are kept as their shortest secret form in locked memory and expanded on the stack for each use, which is then
//! wiped.

use std::fmt;

use attestation::{HpkePublicKey, IdentityKey, LogKey};
use ecdsa::hazmat::sign_prehashed_rfc6979;
use p384::NistP384;
use ring::rand::SecureRandom;
use ring::signature::KeyPair;
use sha2::{Digest, Sha384};
use zeroize::Zeroizing;

use crate::derive::{KeeperContext, ModelContext};
use crate::region::RegionError;
use crate::secret::{CounterAuth, Dek, EpochSecrets, Kek, Root, Secret, SecretError, VaultSecrets};
use crate::stack::wiped_deep;
use crate::wrap::{self, HpkeKeyPair, WrapError};

/// How many labels the identity key may try: each fails with probability 2^-190.
const IDENTITY_TRIES: u32 = 8;

/// KEK, identity key, log key and wrap key, one after another.
const KEYS_BYTES: usize = 144;

/// What a keeper signs, wraps and unwraps with.
pub struct VaultKeys {
    kek: Kek,
    identity: Secret<48>,
    identity_key: IdentityKey,
    log: Secret<32>,
    log_key: LogKey,
    wrap: HpkeKeyPair,
}

impl VaultKeys {
    /// Derives them all.
    ///
    /// # Errors
    /// [`VaultKeysError`].
    pub fn derive(root: &Root, context: &KeeperContext) -> Result<Self, VaultKeysError> {
        let kek = Kek::init_with(|key| expand(context, root, "kek 1", key))?;
        let (identity, identity_key) = derive_identity(root, context)?;
        let log = Secret::init_with(|seed| expand(context, root, "log", seed))?;
        let log_key = log.with_bytes(|seed| wiped_deep(|| log_key(seed)))?;
        let ikm = Secret::<64>::init_with(|ikm| expand(context, root, "wrap", ikm))?;
        let wrap = ikm.with_bytes(|ikm| HpkeKeyPair::derive(ikm))?;
        Ok(Self { kek, identity, identity_key, log, log_key, wrap })
    }

    /// Their secret halves: KEK, scalar of the identity key, seeds of the log key and of the wrap key.
    ///
    /// # Errors
    /// [`SecretError::Memory`].
    pub(crate) fn secrets(&self) -> Result<VaultSecrets, SecretError> {
        VaultSecrets::init_with(|secrets| {
            let (kek, rest) = secrets.split_at_mut(32);
            let (identity, rest) = rest.split_at_mut(48);
            let (log, wrap) = rest.split_at_mut(32);
            self.kek.with_bytes(|key| kek.copy_from_slice(key));
            self.identity.with_bytes(|key| identity.copy_from_slice(key));
            self.log.with_bytes(|key| log.copy_from_slice(key));
            self.wrap.with_seed(|key| wrap.copy_from_slice(key));
            Ok(())
        })
    }

    /// The keys of these secret halves.
    ///
    /// # Errors
    /// [`VaultKeysError::Identity`] where the scalar is none.
    pub(crate) fn from_secrets(secrets: &VaultSecrets) -> Result<Self, VaultKeysError> {
        secrets.with_bytes(|secrets| {
            let (kek, rest) = secrets.split_at(32);
            let (identity, rest) = rest.split_at(48);
            let (log, wrap) = rest.split_at(32);
            let kek = Kek::init_with(|key| copy(kek, key))?;
            let identity = Secret::init_with(|key| copy(identity, key))?;
            let identity_key = identity.with_bytes(|scalar| wiped_deep(|| identity_key(scalar)));
            let identity_key = identity_key.ok_or(VaultKeysError::Identity)?;
            let log = Secret::init_with(|key| copy(log, key))?;
            let log_key = log.with_bytes(|seed| wiped_deep(|| log_key(seed)))?;
            let wrap = HpkeKeyPair::from_seed(Secret::init_with(|key| copy(wrap, key))?);
            Ok(Self { kek, identity, identity_key, log, log_key, wrap })
        })
    }

    /// Those of the next epoch: KEK, identity key and wrap key are fresh, the log key is the same.
    ///
    /// # Errors
    /// [`VaultKeysError`].
    pub(crate) fn renewed(&self, rng: &dyn SecureRandom) -> Result<Self, VaultKeysError> {
        let (identity, identity_key) = fresh_identity(rng)?;
        let log = Secret::init_with(|seed| self.log.with_bytes(|log| copy(log, seed)))?;
        let wrap = HpkeKeyPair::from_seed(Secret::generate(rng)?);
        Ok(Self { kek: Kek::generate(rng)?, identity, identity_key, log, log_key: self.log_key.clone(), wrap })
    }

    /// Their secret halves, and what authorises the counter.
    ///
    /// # Errors
    /// [`SecretError::Memory`].
    pub(crate) fn epoch_secrets(&self, auth: &CounterAuth) -> Result<EpochSecrets, SecretError> {
        let keys = self.secrets()?;
        EpochSecrets::init_with(|secrets| {
            let (to_keys, to_auth) = secrets.split_at_mut(KEYS_BYTES);
            keys.with_bytes(|keys| to_keys.copy_from_slice(keys));
            auth.with_bytes(|auth| to_auth.copy_from_slice(auth));
            Ok(())
        })
    }

    /// The keys, and what authorises the counter.
    ///
    /// # Errors
    /// [`VaultKeysError::Identity`] where the scalar is none.
    pub(crate) fn from_epoch_secrets(secrets: &EpochSecrets) -> Result<(Self, CounterAuth), VaultKeysError> {
        secrets.with_bytes(|secrets| {
            let (keys, auth) = secrets.split_at(KEYS_BYTES);
            let keys = VaultSecrets::init_with(|to| copy(keys, to))?;
            Ok((Self::from_secrets(&keys)?, CounterAuth::init_with(|to| copy(auth, to))?))
        })
    }

    /// Verifies what [`VaultKeys::sign_identity`] signs.
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// Verifies what [`VaultKeys::sign_log`] signs.
    pub fn log_key(&self) -> &LogKey {
        &self.log_key
    }

    /// What publishers wrap DEKs to.
    pub fn wrap_key(&self) -> &HpkePublicKey {
        self.wrap.public_key()
    }

    /// Seals DEK records.
    pub fn kek(&self) -> &Kek {
        &self.kek
    }

    /// ECDSA P-384 with SHA-384 over `message` (RFC 6979), r‖s: grants and lease statements.
    ///
    /// # Errors
    /// [`VaultKeysError::Sign`].
    pub fn sign_identity(&self, message: &[u8]) -> Result<[u8; 96], VaultKeysError> {
        self.identity.with_bytes(|scalar| {
            wiped_deep(|| {
                let key = p384::SecretKey::from_slice(scalar).map_err(|_| VaultKeysError::Sign)?;
                // What `SigningKey` does, without the public key, which it would compute anew for each signature.
                let scalar = Zeroizing::new(key.to_nonzero_scalar());
                let (signature, _) = sign_prehashed_rfc6979::<NistP384, Sha384>(&scalar, &Sha384::digest(message), &[]);
                Ok(signature.to_bytes().into())
            })
        })
    }

    /// Ed25519 over `message`: checkpoints.
    ///
    /// # Errors
    /// [`VaultKeysError::Sign`].
    pub fn sign_log(&self, message: &[u8]) -> Result<[u8; 64], VaultKeysError> {
        self.log.with_bytes(|seed| {
            wiped_deep(|| {
                let pair = ed25519(seed)?;
                pair.sign(message).as_ref().try_into().map_err(|_| VaultKeysError::Sign)
            })
        })
    }

    /// Opens the `dek.hpke` of a model.
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn unwrap_dek(&self, context: ModelContext<'_>, wrapped: &[u8]) -> Result<Dek, WrapError> {
        wrap::unwrap_dek(&self.wrap, context, wrapped)
    }
}

/// Both have the length that the caller split off.
fn copy<const N: usize>(from: &[u8], to: &mut [u8; N]) -> Result<(), SecretError> {
    to.copy_from_slice(from);
    Ok(())
}

/// The first of `identity`, `identity 1`, `identity 2`, … that is a scalar of the curve.
fn derive_identity(root: &Root, context: &KeeperContext) -> Result<(Secret<48>, IdentityKey), VaultKeysError> {
    for attempt in 0..IDENTITY_TRIES {
        let label = if attempt == 0 { "identity".to_owned() } else { format!("identity {attempt}") };
        let scalar = Secret::init_with(|scalar| expand(context, root, &label, scalar))?;
        if let Some(key) = scalar.with_bytes(|scalar| wiped_deep(|| identity_key(scalar))) {
            return Ok((scalar, key));
        }
    }
    Err(VaultKeysError::Identity)
}

/// A fresh scalar of the curve.
fn fresh_identity(rng: &dyn SecureRandom) -> Result<(Secret<48>, IdentityKey), VaultKeysError> {
    for _ in 0..IDENTITY_TRIES {
        let scalar = Secret::generate(rng)?;
        if let Some(key) = scalar.with_bytes(|scalar| wiped_deep(|| identity_key(scalar))) {
            return Ok((scalar, key));
        }
    }
    Err(VaultKeysError::Identity)
}

/// `None` where the scalar is 0 or not below the order of the curve.
fn identity_key(scalar: &[u8; 48]) -> Option<IdentityKey> {
    let key = p384::ecdsa::SigningKey::from_slice(scalar).ok()?;
    IdentityKey::try_from(key.verifying_key().to_sec1_point(false).as_bytes()).ok()
}

fn log_key(seed: &[u8; 32]) -> Result<LogKey, VaultKeysError> {
    LogKey::try_from(ed25519(seed)?.public_key().as_ref()).map_err(|_| VaultKeysError::Sign)
}

fn ed25519(seed: &[u8; 32]) -> Result<ring::signature::Ed25519KeyPair, VaultKeysError> {
    ring::signature::Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| VaultKeysError::Sign)
}

fn expand(context: &KeeperContext, root: &Root, label: &str, out: &mut [u8]) -> Result<(), VaultKeysError> {
    context.expand_key(root, label, out);
    Ok(())
}

/// Why a keeper's keys could not be had or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultKeysError {
    /// No locked memory.
    Secret(SecretError),
    /// No label gave a scalar: does not happen unless HKDF is broken.
    Identity,
    /// The library refused to sign: does not happen with keys made here.
    Sign,
}

impl VaultKeysError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Secret(error) => error.code(),
            Self::Identity => "identity-key",
            Self::Sign => "sign-failed",
        }
    }
}

impl fmt::Display for VaultKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(error) => error.fmt(f),
            Self::Identity => f.write_str("no identity key could be derived"),
            Self::Sign => f.write_str("signing failed"),
        }
    }
}

impl std::error::Error for VaultKeysError {}

impl From<SecretError> for VaultKeysError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<RegionError> for VaultKeysError {
    fn from(error: RegionError) -> Self {
        Self::Secret(error.into())
    }
}

#[cfg(test)]
mod tests;
