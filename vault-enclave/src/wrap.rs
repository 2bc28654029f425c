//! Keys wrapped to a public key: HPKE (RFC 9180) base mode, single shot, MLKEM1024-P384 (draft-ietf-hpke-pq),
//! HKDF-SHA384, AES-256-GCM.
//!
//! What a wrapped key is for is in the `info`, built here from typed values; `aad` is empty. Of a private key only its
//! 32-byte seed is kept, in locked memory: it is expanded on the stack for each use, and that stack is wiped.

use std::fmt;

use attestation::{HPKE_PUBLIC_KEY_BYTES, HpkePublicKey, LeaseKey, Sha256Digest, UnitSet, UnixTime, lv};
use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha384;
use hpke::kem::MlKem1024P384;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use ring::rand::SecureRandom;

use crate::derive::ModelContext;
use crate::drawn::Drawn;
use crate::region::RegionError;
use crate::secret::{Dek, Secret, SecretError};
use crate::stack::wiped_deep;
use crate::unit_keys::{UNIT_KEY_BYTES, UnitKeys};

/// Bytes of an encapsulated key.
pub const ENC_BYTES: usize = 1665;
/// Bytes of an AEAD tag at the end of a ciphertext.
pub const TAG_BYTES: usize = 16;
/// Bytes of `dek.hpke`.
pub const WRAPPED_DEK_BYTES: usize = ENC_BYTES + Dek::BYTES + TAG_BYTES;

const RELEASE: &[u8] = b"weightvault/v1 release\0";
/// Private key of the KEM in its serialised form.
const SEED_BYTES: usize = 32;
/// More than an encapsulation draws: 32 bytes for ML-KEM and 48 for each try at a P-384 scalar.
const RANDOM_BYTES: usize = 512;

/// A key pair that keys can be wrapped to.
pub struct HpkeKeyPair {
    seed: Secret<SEED_BYTES>,
    public: HpkePublicKey,
}

impl HpkeKeyPair {
    /// A fresh pair: one for each load of an agent.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, SecretError> {
        Ok(Self::from_seed(Secret::generate(rng)?))
    }

    /// DeriveKeyPair of RFC 9180 §7.1.3: the wrap key of a vault.
    pub(crate) fn derive(ikm: &[u8]) -> Result<Self, SecretError> {
        let seed = Secret::init_with(|seed| {
            wiped_deep(|| MlKem1024P384::derive_keypair(ikm).0.write_exact(seed));
            Ok::<_, SecretError>(())
        })?;
        Ok(Self::from_seed(seed))
    }

    /// Any 32 bytes are a seed.
    pub(crate) fn from_seed(seed: Secret<SEED_BYTES>) -> Self {
        let public = seed.with_bytes(|seed| {
            wiped_deep(|| {
                let mut public = [0; HPKE_PUBLIC_KEY_BYTES];
                MlKem1024P384::sk_to_pk(&private_key(seed)).write_exact(&mut public);
                public
            })
        });
        let public = HpkePublicKey::try_from(public.as_slice()).expect("the KEM writes keys of this length");
        Self { seed, public }
    }

    /// The public half.
    pub fn public_key(&self) -> &HpkePublicKey {
        &self.public
    }

    /// Lends the private half.
    pub(crate) fn with_seed<R>(&self, read: impl FnOnce(&[u8; SEED_BYTES]) -> R) -> R {
        self.seed.with_bytes(read)
    }

    pub(crate) fn open(&self, info: &[u8], enc: &[u8], ciphertext: &[u8], dest: &mut [u8]) -> Result<(), WrapError> {
        let expected = dest.len() + TAG_BYTES;
        let (body, tag) = match ciphertext.split_last_chunk::<TAG_BYTES>() {
            Some((body, tag)) if body.len() == dest.len() => (body, tag),
            _ => return Err(WrapError::Length { expected, found: ciphertext.len() }),
        };
        self.seed.with_bytes(|seed| {
            wiped_deep(|| {
                let enc = <MlKem1024P384 as Kem>::EncappedKey::from_bytes(enc).map_err(|_| WrapError::Refused)?;
                let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(|_| WrapError::Refused)?;
                let data = InOutBuf::new(body, dest).map_err(|_| WrapError::Refused)?;
                let key = private_key(seed);
                hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha384, MlKem1024P384>(
                    &OpModeR::Base,
                    &key,
                    &enc,
                    info,
                    data,
                    &[],
                    &tag,
                )
                .map_err(|_| WrapError::Refused)
            })
        })
    }
}

/// What a grant is bound to (FORMAT.md §5): all that the keeper decided on, and the log entry that says so.
#[derive(Clone, Copy, Debug)]
pub struct GrantInfo<'a> {
    /// Vault id.
    pub vault: Sha256Digest,
    /// Session of the challenge.
    pub session: [u8; 16],
    /// Nonce of the challenge.
    pub nonce: [u8; 32],
    /// SHA-256 of the evidence blob.
    pub evidence: Sha256Digest,
    /// SHA-256 of the policy in force.
    pub policy: Sha256Digest,
    /// SHA-256 of the manifest.
    pub manifest: Sha256Digest,
    /// The units whose keys are granted.
    pub units: &'a UnitSet,
    /// Signs renewals.
    pub lease_key: &'a LeaseKey,
    /// Lease id.
    pub lease: Sha256Digest,
    /// When the lease must be renewed.
    pub renew_by: UnixTime,
    /// RFC 9162 leaf hash of the release entry.
    pub leaf: [u8; 32],
}

impl GrantInfo<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fields = lv(&[
            b"load",
            self.vault.as_bytes(),
            &self.session,
            &self.nonce,
            self.evidence.as_bytes(),
            self.policy.as_bytes(),
            self.manifest.as_bytes(),
            &self.units.bytes(),
            self.lease_key.as_bytes(),
            self.lease.as_bytes(),
            &self.renew_by.seconds().to_be_bytes(),
            &self.leaf,
        ]);
        [RELEASE, &fields].concat()
    }
}

/// Unit keys on their way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKeys {
    /// Encapsulated key, 1665 bytes.
    pub enc: Vec<u8>,
    /// The keys in the order of the unit set, 32 bytes each, and a tag.
    pub ciphertext: Vec<u8>,
}

/// Wraps unit keys to the key in the evidence. `info.units` must be the units of `keys`.
///
/// # Errors
/// [`WrapError::PublicKey`] where the agent's key is none, [`WrapError::Units`].
pub fn wrap_unit_keys(
    to: &HpkePublicKey,
    info: &GrantInfo<'_>,
    keys: &UnitKeys,
    rng: &dyn SecureRandom,
) -> Result<WrappedKeys, WrapError> {
    if keys.units() != info.units {
        return Err(WrapError::Units);
    }
    keys.with_bytes(|keys| wrap(to, &info.bytes(), keys, rng))
}

/// Unwraps unit keys, and so uses up the pair: its secret half is wiped.
///
/// # Errors
/// [`WrapError::Refused`] where they were wrapped to another key, or for another grant.
pub fn unwrap_unit_keys(pair: HpkeKeyPair, info: &GrantInfo<'_>, wrapped: &WrappedKeys) -> Result<UnitKeys, WrapError> {
    let expected = info.units.len() * UNIT_KEY_BYTES + TAG_BYTES;
    if wrapped.ciphertext.len() != expected {
        return Err(WrapError::Length { expected, found: wrapped.ciphertext.len() });
    }
    UnitKeys::init_with(info.units.clone(), |keys| pair.open(&info.bytes(), &wrapped.enc, &wrapped.ciphertext, keys))
}

/// Wraps a DEK to the wrap key of a vault: the bytes of `dek.hpke`, enc ‖ ciphertext.
///
/// # Errors
/// [`WrapError::PublicKey`].
pub fn wrap_dek(
    to: &HpkePublicKey,
    context: ModelContext<'_>,
    dek: &Dek,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, WrapError> {
    let WrappedKeys { mut enc, ciphertext } = dek.with_bytes(|dek| wrap(to, &context.dek_info(), dek, rng))?;
    enc.extend_from_slice(&ciphertext);
    Ok(enc)
}

/// Unwraps `dek.hpke`.
///
/// # Errors
/// [`WrapError::Refused`] where it was wrapped to another vault, or for another model, version, plan or publisher.
pub fn unwrap_dek(pair: &HpkeKeyPair, context: ModelContext<'_>, wrapped: &[u8]) -> Result<Dek, WrapError> {
    let (enc, ciphertext) = match wrapped.split_at_checked(ENC_BYTES) {
        Some(parts) if wrapped.len() == WRAPPED_DEK_BYTES => parts,
        _ => return Err(WrapError::Length { expected: WRAPPED_DEK_BYTES, found: wrapped.len() }),
    };
    Dek::init_with(|dek| pair.open(&context.dek_info(), enc, ciphertext, dek))
}

pub(crate) fn wrap(
    to: &HpkePublicKey,
    info: &[u8],
    keys: &[u8],
    rng: &dyn SecureRandom,
) -> Result<WrappedKeys, WrapError> {
    // Ten tries at a scalar fit, and each fails with probability 2^-190.
    wrap_drawn(to, info, keys, Drawn::new(rng, RANDOM_BYTES)?)
}

fn wrap_drawn(to: &HpkePublicKey, info: &[u8], keys: &[u8], mut drawn: Drawn) -> Result<WrappedKeys, WrapError> {
    let mut ciphertext = vec![0; keys.len() + TAG_BYTES];
    let (body, tag) = ciphertext.split_at_mut(keys.len());
    let enc = wiped_deep(|| {
        let to = <MlKem1024P384 as Kem>::PublicKey::from_bytes(to.as_bytes()).map_err(|_| WrapError::PublicKey)?;
        let data = InOutBuf::new(keys, body).map_err(|_| WrapError::Refused)?;
        let (enc, sealed) = hpke::single_shot_seal_inout_detached_with_rng::<AesGcm256, HkdfSha384, MlKem1024P384>(
            &OpModeS::Base,
            &to,
            info,
            data,
            &[],
            &mut drawn,
        )
        .map_err(|_| WrapError::PublicKey)?;
        sealed.write_exact(tag);
        Ok::<_, WrapError>(enc.to_bytes().to_vec())
    })?;
    Ok(WrappedKeys { enc, ciphertext })
}

fn private_key(seed: &[u8; SEED_BYTES]) -> <MlKem1024P384 as Kem>::PrivateKey {
    Deserializable::from_bytes(seed).expect("any 32 bytes are a seed")
}

/// Why keys were not wrapped or unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapError {
    /// The recipient's key is not a key of the KEM.
    PublicKey,
    /// The keys are of other units than the grant names.
    Units,
    /// Not the length of such wrapped keys.
    Length {
        /// What it should be.
        expected: usize,
        /// What it is.
        found: usize,
    },
    /// Wrapped to another key or for another use, or changed. Says nothing more on purpose.
    Refused,
    /// No memory or randomness.
    Secret(SecretError),
}

impl WrapError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PublicKey => "hpke-public-key",
            Self::Units => "wrapped-units",
            Self::Length { .. } => "wrapped-length",
            Self::Refused => "unwrap-refused",
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for WrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKey => f.write_str("the recipient's key is not an MLKEM1024-P384 key"),
            Self::Units => f.write_str("the keys are of other units than the grant names"),
            Self::Length { expected, found } => write!(f, "wrapped keys of {found} bytes, expected {expected}"),
            Self::Refused => f.write_str("wrapped to another key or for another use, or changed on the way"),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WrapError {}

impl From<SecretError> for WrapError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<RegionError> for WrapError {
    fn from(error: RegionError) -> Self {
        Self::Secret(error.into())
    }
}

#[cfg(test)]
mod tests;
