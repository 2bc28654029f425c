//! Keys as types.
//!
//! A key lives in a [`Region`] from its first byte to its last, is filled in place and read through a closure. It cannot
//! be copied, printed, compared or serialised:
//!
//! ```
//! fn lend(key: &vault_enclave::secret::Dek) -> &vault_enclave::secret::Dek { key }
//! ```
//! ```compile_fail
//! fn copy(key: &vault_enclave::secret::Dek) -> vault_enclave::secret::Dek { key.clone() }
//! ```
//! ```
//! fn print(key: &vault_enclave::region::RegionError) -> String { format!("{key:?}") }
//! ```
//! ```compile_fail
//! fn print(key: &vault_enclave::secret::Dek) -> String { format!("{key:?}") }
//! ```
//! ```compile_fail
//! fn show(key: &vault_enclave::secret::Dek) -> String { format!("{key}") }
//! ```
//! ```compile_fail
//! fn same(a: &vault_enclave::secret::Dek, b: &vault_enclave::secret::Dek) -> bool { a == b }
//! ```
//! ```compile_fail
//! fn leak(key: &vault_enclave::secret::Dek) -> &[u8] { key }
//! ```
//! ```compile_fail
//! fn leak(key: &vault_enclave::secret::Dek) -> Vec<u8> { key.with_bytes(|bytes| bytes.to_vec()) }
//! ```
//! ```compile_fail
//! fn serialise(key: &vault_enclave::secret::Dek) -> String { serde_json::to_string(key).unwrap() }
//! ```

use std::fmt;

use ring::rand::SecureRandom;

use crate::region::{Region, RegionError};

/// `N` secret bytes in locked memory.
pub(crate) struct Secret<const N: usize>(Region);

impl<const N: usize> Secret<N> {
    /// Fills the bytes where they will stay. Where `fill` fails they are wiped.
    pub(crate) fn init_with<E: From<RegionError>>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut region = Region::new(N)?;
        fill(exactly_mut(region.bytes_mut()))?;
        Ok(Self(region))
    }

    /// Fresh random bytes.
    pub(crate) fn generate(rng: &dyn SecureRandom) -> Result<Self, SecretError> {
        Self::init_with(|bytes| rng.fill(bytes).map_err(|_| SecretError::Random))
    }

    /// A key that a test knows.
    #[cfg(test)]
    pub(crate) fn known(bytes: [u8; N]) -> Self {
        let mut secret = Self(Region::new(N).unwrap());
        secret.0.bytes_mut().copy_from_slice(&bytes);
        secret
    }

    /// Lends the bytes. A caller that copies them wipes the copy.
    pub(crate) fn with_bytes<R>(&self, read: impl FnOnce(&[u8; N]) -> R) -> R {
        read(exactly(self.0.bytes()))
    }
}

/// Declares a key of one purpose and length over [`Secret`].
macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        pub struct $name(Secret<$bytes>);

        #[allow(dead_code, reason = "not every key is made in every way")]
        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// A fresh random key.
            ///
            /// # Errors
            /// [`SecretError`].
            pub fn generate(rng: &dyn SecureRandom) -> Result<Self, SecretError> {
                Secret::generate(rng).map(Self)
            }

            /// Fills the key where it will stay. Where `fill` fails it is wiped.
            pub(crate) fn init_with<E: From<RegionError>>(
                fill: impl FnOnce(&mut [u8; $bytes]) -> Result<(), E>,
            ) -> Result<Self, E> {
                Secret::init_with(fill).map(Self)
            }

            /// A key that a test knows.
            #[cfg(test)]
            pub(crate) fn known(bytes: [u8; $bytes]) -> Self {
                Self(Secret::known(bytes))
            }

            /// Lends the bytes. A caller that copies them wipes the copy.
            pub(crate) fn with_bytes<R>(&self, read: impl FnOnce(&[u8; $bytes]) -> R) -> R {
                self.0.with_bytes(read)
            }
        }
    };
}

key! {
    /// What the TPM seals: the origin of a keeper's keys.
    TpmSecret, 64
}
key! {
    /// What the SNP firmware derives for this guest: the other origin of a keeper's keys.
    SnpDerivedSecret, 32
}
key! {
    /// The root of a keeper's keys, in its memory only.
    Root, 64
}
key! {
    /// Seals the keeper's head.
    HeadKey, 32
}
key! {
    /// Seals the keeper's snapshots.
    SnapshotKey, 32
}
key! {
    /// Authorises use of the keeper's TPM counter.
    CounterAuth, 32
}
key! {
    /// Seals the DEK records of one epoch.
    Kek, 32
}
key! {
    /// Seals what a keeper that joined keeps of its vault: the vault's own keys.
    VaultKeysKey, 32
}
key! {
    /// The secret halves of a vault's keys, one after another (FORMAT.md §5): for the next keeper.
    VaultSecrets, 144
}
key! {
    /// What custodians hold in shares: seals the secret halves of a vault's keys.
    EscrowKey, 32
}
key! {
    /// One custodian's share of an escrow key.
    EscrowShare, 32
}
key! {
    /// Seals the secrets of a key epoch beside the root that they belong to.
    EpochKey, 32
}
key! {
    /// The secret halves of a vault's keys, and what authorises its counter, which outlives the root that made it.
    EpochSecrets, 176
}
key! {
    /// Data encryption key of one model version: the origin of its unit keys.
    Dek, 64
}

/// Why a secret could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// No locked memory.
    Memory(RegionError),
    /// The system's random number generator failed.
    Random,
}

impl SecretError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Memory(error) => error.code(),
            Self::Random => "random-failed",
        }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Random => f.write_str("the system's random number generator failed"),
        }
    }
}

impl std::error::Error for SecretError {}

impl From<RegionError> for SecretError {
    fn from(error: RegionError) -> Self {
        Self::Memory(error)
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.try_into().expect("a Secret<N> is over a region of N bytes")
}

fn exactly_mut<const N: usize>(bytes: &mut [u8]) -> &mut [u8; N] {
    bytes.try_into().expect("a Secret<N> is over a region of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generated_keys_differ() {
        let rng = ring::rand::SystemRandom::new();
        let (a, b) = (Dek::generate(&rng).unwrap(), Dek::generate(&rng).unwrap());
        a.with_bytes(|a| b.with_bytes(|b| assert_ne!(a, b)));
    }

    #[test]
    fn a_failed_fill_gives_no_key() {
        let refused = Kek::init_with(|_| Err(SecretError::Random));
        assert_eq!(refused.err(), Some(SecretError::Random));
    }
}
