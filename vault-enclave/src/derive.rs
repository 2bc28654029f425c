//! HKDF-SHA512 (RFC 5869) into locked memory, and the labels of FORMAT.md §5.
//!
//! Written over `hmac`, since crate `hkdf` refuses an input key shorter than its hash, which C2SP chunked-encryption
//! has (32 bytes, as NIST SP 800-108 allows). Intermediate blocks are wiped, and so is the stack.

use attestation::{Sha256Digest, lv};
use hmac::{Hmac, KeyInit, Mac};
use ledger::genesis::SealTo;
use ledger::manifest::{Manifest, ModelId};
use sha2::Sha512;
use zeroize::Zeroize;

use crate::secret::{
    CounterAuth, EpochKey, HeadKey, Root, Secret, SecretError, SnapshotKey, SnpDerivedSecret, TpmSecret, VaultKeysKey,
};
use crate::stack::wiped;

const ROOT_SALT: &[u8] = b"weightvault/v1 root\0";
const HEAD: &[u8] = b"weightvault/v1 head\0";
const SNAPSHOT: &[u8] = b"weightvault/v1 snapshot\0";
const EPOCH: &[u8] = b"weightvault/v1 epoch\0";
const COUNTER: &[u8] = b"weightvault/v1 counter\0";
const KEY: &[u8] = b"weightvault/v1 key\0";
const UNIT: &[u8] = b"weightvault/v1 unit\0";
const UNIT_CONTEXT: &[u8] = b"weightvault/v1 unit ctx\0";
const DEK: &[u8] = b"weightvault/v1 dek\0";

/// Output of SHA-512.
const HASH_BYTES: usize = 64;

/// Where ROOT comes from. What each record is sealed to is part of it, so that no source stands for another.
#[derive(Clone, Copy)]
pub enum RootSource<'a> {
    /// What the TPM sealed.
    Tpm(&'a TpmSecret),
    /// That, and what the SNP firmware derives with the salt of its record: either alone gives nothing.
    SnpAndTpm(&'a SnpDerivedSecret, &'a [u8; 32], &'a TpmSecret),
}

impl RootSource<'_> {
    /// What the core says of these sources.
    #[must_use]
    pub const fn seal_to(&self) -> SealTo {
        match self {
            Self::Tpm(_) => SealTo::Tpm,
            Self::SnpAndTpm(..) => SealTo::SnpTpm,
        }
    }

    /// ROOT: Extract over the secrets in this order, then Expand over `seal_to` and the salt.
    ///
    /// # Errors
    /// [`SecretError::Memory`].
    pub fn root(&self) -> Result<Root, SecretError> {
        let extracted = Secret::<HASH_BYTES>::init_with(|prk| {
            match self {
                Self::Tpm(tpm) => tpm.with_bytes(|tpm| extract(ROOT_SALT, &[tpm], prk)),
                Self::SnpAndTpm(snp, _, tpm) => {
                    snp.with_bytes(|snp| tpm.with_bytes(|tpm| extract(ROOT_SALT, &[snp, tpm], prk)));
                }
            }
            Ok::<_, SecretError>(())
        })?;
        let info = match self {
            // As vaults have it that were made before there were other sources.
            Self::Tpm(_) => lv(&[self.seal_to().as_str().as_bytes()]),
            Self::SnpAndTpm(_, salt, _) => lv(&[self.seal_to().as_str().as_bytes(), &salt[..]]),
        };
        Root::init_with(|root| {
            extracted.with_bytes(|prk| expand(prk, &[&info], root));
            Ok(())
        })
    }
}

/// The key of the head record.
///
/// # Errors
/// [`SecretError::Memory`].
pub fn head_key(root: &Root) -> Result<HeadKey, SecretError> {
    HeadKey::init_with(|key| {
        root.with_bytes(|root| expand(root, &[HEAD], key));
        Ok(())
    })
}

/// The key of the keeper's snapshots.
///
/// # Errors
/// [`SecretError::Memory`].
pub fn snapshot_key(root: &Root) -> Result<SnapshotKey, SecretError> {
    SnapshotKey::init_with(|key| {
        root.with_bytes(|root| expand(root, &[SNAPSHOT], key));
        Ok(())
    })
}

/// What seals the secrets of the epoch that a root was made for.
///
/// # Errors
/// [`SecretError::Memory`].
pub fn epoch_key(root: &Root) -> Result<EpochKey, SecretError> {
    EpochKey::init_with(|key| {
        root.with_bytes(|root| expand(root, &[EPOCH], key));
        Ok(())
    })
}

/// What authorises use of the keeper's counter in the TPM, of the root that the counter was defined under.
///
/// # Errors
/// [`SecretError::Memory`].
pub fn counter_auth(root: &Root) -> Result<CounterAuth, SecretError> {
    CounterAuth::init_with(|auth| {
        root.with_bytes(|root| expand(root, &[COUNTER], auth));
        Ok(())
    })
}

/// What the keys of a keeper depend on besides ROOT: under another core it has other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperContext {
    /// The keeper's random instance.
    pub instance: [u8; 32],
    /// SHA-256 of the core; of a keeper that joined, the vault's id.
    pub core: Sha256Digest,
}

impl KeeperContext {
    /// The key that seals the vault's keys, where another keeper handed them over.
    ///
    /// # Errors
    /// [`SecretError::Memory`].
    pub(crate) fn vault_keys_key(&self, root: &Root) -> Result<VaultKeysKey, SecretError> {
        VaultKeysKey::init_with(|key| {
            self.expand_key(root, "vault keys", key);
            Ok(())
        })
    }

    /// Expands the key of `label` into `out`.
    pub(crate) fn expand_key(&self, root: &Root, label: &str, out: &mut [u8]) {
        let fields = lv(&[label.as_bytes(), &self.instance, self.core.as_bytes()]);
        root.with_bytes(|root| expand(root, &[KEY, &fields], out));
    }
}

/// What the keys of a sealed model depend on besides its DEK.
#[derive(Clone, Copy, Debug)]
pub struct ModelContext<'a> {
    /// Vault, model, version and publisher.
    pub id: &'a ModelId,
    /// Digest of the plan.
    pub plan: Sha256Digest,
}

impl<'a> From<&'a Manifest> for ModelContext<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        Self { id: manifest.id(), plan: manifest.plan_digest() }
    }
}

impl ModelContext<'_> {
    /// HKDF info of the key of one unit.
    pub(crate) fn unit_info(&self, unit: u32) -> Vec<u8> {
        [UNIT, &self.names(), &unit.to_be_bytes(), self.plan.as_bytes()].concat()
    }

    /// Cobblestone context of one unit of `length` bytes.
    pub(crate) fn unit_context(&self, unit: u32, length: u64) -> Vec<u8> {
        let (unit, length) = (unit.to_be_bytes(), length.to_be_bytes());
        [UNIT_CONTEXT, &self.names(), &unit, self.plan.as_bytes(), &length].concat()
    }

    /// HPKE info of the wrapped DEK. It names the publisher: else whoever may publish B could publish A's files as B.
    pub(crate) fn dek_info(&self) -> Vec<u8> {
        let ModelId { vault, model, version, publisher } = self.id;
        let (model, version) = (model.as_str().as_bytes(), version.as_str().as_bytes());
        [DEK, &lv(&[vault.as_bytes(), model, version, self.plan.as_bytes(), publisher.as_bytes()])].concat()
    }

    fn names(&self) -> Vec<u8> {
        let ModelId { vault, model, version, .. } = self.id;
        lv(&[vault.as_bytes(), model.as_str().as_bytes(), version.as_str().as_bytes()])
    }
}

/// HKDF-Extract: HMAC under the salt of the input, given in parts whose number and lengths the caller fixes.
fn extract(salt: &[u8], ikm: &[&[u8]], prk: &mut [u8; HASH_BYTES]) {
    wiped(|| {
        let mut mac = keyed(salt);
        ikm.iter().for_each(|part| mac.update(part));
        finish(mac, prk);
    });
}

/// HKDF-Expand. The parts of `info` are joined.
///
/// # Panics
/// Where `out` is longer than HKDF gives: 255 × 64 bytes. No caller's length comes from outside.
pub(crate) fn expand(prk: &[u8], info: &[&[u8]], out: &mut [u8]) {
    wiped(|| expand_keyed(&keyed(prk), info, out));
}

/// [`expand`] for many outputs of one key.
pub(crate) fn expand_each<'a>(prk: &[u8], outputs: impl Iterator<Item = (Vec<u8>, &'a mut [u8])>) {
    wiped(|| {
        let mac = keyed(prk);
        outputs.for_each(|(info, out)| expand_keyed(&mac, &[&info], out));
    });
}

fn expand_keyed(prk: &Hmac<Sha512>, info: &[&[u8]], out: &mut [u8]) {
    assert!(out.len() <= 255 * HASH_BYTES, "HKDF-SHA512 gives at most 16320 bytes");
    let mut block = [0; HASH_BYTES];
    for (part, counter) in out.chunks_mut(HASH_BYTES).zip(1..=u8::MAX) {
        let mut mac = prk.clone();
        // T(0) is empty: RFC 5869 §2.3.
        if counter > 1 {
            mac.update(&block);
        }
        info.iter().for_each(|part| mac.update(part));
        mac.update(&[counter]);
        finish(mac, &mut block);
        part.copy_from_slice(&block[..part.len()]);
    }
    block.zeroize();
}

fn keyed(key: &[u8]) -> Hmac<Sha512> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn finish(mac: Hmac<Sha512>, out: &mut [u8; HASH_BYTES]) {
    let mut tag = mac.finalize().into_bytes();
    out.copy_from_slice(&tag);
    tag.zeroize();
}

#[cfg(test)]
mod tests;
