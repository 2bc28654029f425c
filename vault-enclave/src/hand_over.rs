//! The keys of a vault on their way from a keeper that retired to its successor (FORMAT.md §5, "Hand-over").
//!
//! They are wrapped to the key that the successor's hardware signed for, and bound to all that was decided on. HPKE in base
//! mode says nothing about who wrapped: the vault's identity key signs it, which the successor knows from its vault file.

use attestation::{HpkePublicKey, IdentityKey, Sha256Digest, SignatureInvalid, lv};
use ring::rand::SecureRandom;

use crate::secret::VaultSecrets;
use crate::vault_keys::{VaultKeys, VaultKeysError};
use crate::wrap::{self, HpkeKeyPair, WrapError, WrappedKeys};

const HAND_OVER: &[u8] = b"weightvault/v1 hand-over\0";
const SIGNED: &[u8] = b"weightvault/v1 hand-over signature\0";

/// What a hand-over is bound to.
#[derive(Clone, Copy, Debug)]
pub struct HandOverInfo {
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
    /// The successor's instance.
    pub instance: [u8; 32],
    /// Entries of the log: the last one retires the keeper.
    pub size: u64,
    /// Merkle root of that log.
    pub root: Sha256Digest,
}

impl HandOverInfo {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fields = lv(&[
            b"keeper-join",
            self.vault.as_bytes(),
            &self.session,
            &self.nonce,
            self.evidence.as_bytes(),
            self.policy.as_bytes(),
            &self.instance,
            &self.size.to_be_bytes(),
            self.root.as_bytes(),
        ]);
        [HAND_OVER, &fields].concat()
    }

    fn signed(&self, wrapped: &WrappedKeys) -> Vec<u8> {
        [SIGNED, &lv(&[&self.bytes(), &wrapped.enc, &wrapped.ciphertext])].concat()
    }
}

/// Wraps the keys of a vault to its next keeper, and signs that.
///
/// # Errors
/// [`WrapError::PublicKey`] where the successor's key is none; what signing says.
pub(crate) fn wrap_vault_keys(
    keys: &VaultKeys,
    to: &HpkePublicKey,
    info: &HandOverInfo,
    rng: &dyn SecureRandom,
) -> Result<(WrappedKeys, [u8; 96]), HandOverError> {
    let secrets = keys.secrets().map_err(WrapError::Secret)?;
    let wrapped = secrets.with_bytes(|secrets| wrap::wrap(to, &info.bytes(), secrets, rng))?;
    let signature = keys.sign_identity(&info.signed(&wrapped))?;
    Ok((wrapped, signature))
}

/// Checks who handed over, then unwraps.
///
/// # Errors
/// [`HandOverError`]: another keeper signed, or it is for another key, run, or log.
pub(crate) fn unwrap_vault_keys(
    pair: &HpkeKeyPair,
    identity_key: &IdentityKey,
    info: &HandOverInfo,
    (wrapped, signature): (&WrappedKeys, &[u8; 96]),
) -> Result<VaultSecrets, HandOverError> {
    identity_key.verify(&info.signed(wrapped), signature).map_err(HandOverError::Signature)?;
    VaultSecrets::init_with(|secrets| pair.open(&info.bytes(), &wrapped.enc, &wrapped.ciphertext, secrets))
        .map_err(HandOverError::Wrap)
}

/// Why keys were not handed over or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverError {
    /// The vault's identity key did not sign it.
    Signature(SignatureInvalid),
    /// Wrapping or unwrapping.
    Wrap(WrapError),
    /// The keys of the vault.
    Keys(VaultKeysError),
}

impl HandOverError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signature(_) => "hand-over-signature",
            Self::Wrap(error) => error.code(),
            Self::Keys(error) => error.code(),
        }
    }
}

impl std::fmt::Display for HandOverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signature(_) => f.write_str("the vault's identity key did not sign this hand-over"),
            Self::Wrap(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandOverError {}

impl From<WrapError> for HandOverError {
    fn from(error: WrapError) -> Self {
        Self::Wrap(error)
    }
}

impl From<VaultKeysError> for HandOverError {
    fn from(error: VaultKeysError) -> Self {
        Self::Keys(error)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::derive::KeeperContext;
    use crate::secret::Root;

    fn info() -> HandOverInfo {
        let digest = Sha256Digest::of(b"digest");
        HandOverInfo {
            vault: digest,
            session: [1; 16],
            nonce: [2; 32],
            evidence: digest,
            policy: digest,
            instance: [3; 32],
            size: 7,
            root: digest,
        }
    }

    fn keys(rng: &SystemRandom) -> VaultKeys {
        let context = KeeperContext { instance: [9; 32], core: Sha256Digest::of(b"core") };
        VaultKeys::derive(&Root::generate(rng).unwrap(), &context).unwrap()
    }

    #[test]
    fn handed_over_keys_are_the_same_keys() {
        let rng = SystemRandom::new();
        let (keys, pair) = (keys(&rng), HpkeKeyPair::generate(&rng).unwrap());
        let (wrapped, signature) = wrap_vault_keys(&keys, pair.public_key(), &info(), &rng).unwrap();
        let secrets = unwrap_vault_keys(&pair, keys.identity_key(), &info(), (&wrapped, &signature)).unwrap();
        let taken = VaultKeys::from_secrets(&secrets).unwrap();
        assert_eq!(taken.identity_key(), keys.identity_key());
        assert_eq!(taken.log_key(), keys.log_key());
        assert_eq!(taken.wrap_key(), keys.wrap_key());
        taken.kek().with_bytes(|taken| keys.kek().with_bytes(|kek| assert_eq!(taken, kek)));
    }

    #[test]
    fn a_hand_over_opens_for_its_own_key_signer_and_circumstances_alone() {
        let rng = SystemRandom::new();
        let (keys, pair) = (keys(&rng), HpkeKeyPair::generate(&rng).unwrap());
        let (wrapped, signature) = wrap_vault_keys(&keys, pair.public_key(), &info(), &rng).unwrap();
        let open = |pair: &HpkeKeyPair, key: &IdentityKey, info: &HandOverInfo| {
            unwrap_vault_keys(pair, key, info, (&wrapped, &signature)).err().map(|error| error.code())
        };
        let identity = keys.identity_key();
        assert_eq!(open(&pair, identity, &info()), None);
        assert_eq!(open(&HpkeKeyPair::generate(&rng).unwrap(), identity, &info()), Some("unwrap-refused"));
        let other = self::keys(&rng);
        assert_eq!(open(&pair, other.identity_key(), &info()), Some("hand-over-signature"));
        let digest = Sha256Digest::of(b"other");
        for changed in [
            HandOverInfo { vault: digest, ..info() },
            HandOverInfo { session: [0; 16], ..info() },
            HandOverInfo { nonce: [0; 32], ..info() },
            HandOverInfo { evidence: digest, ..info() },
            HandOverInfo { policy: digest, ..info() },
            HandOverInfo { instance: [0; 32], ..info() },
            HandOverInfo { size: 8, ..info() },
            HandOverInfo { root: digest, ..info() },
        ] {
            assert_eq!(open(&pair, identity, &changed), Some("hand-over-signature"), "{changed:?}");
            // Whoever signs it anew, with keys of his own, did not wrap it for that.
            let signature = other.sign_identity(&changed.signed(&wrapped)).unwrap();
            let opened = unwrap_vault_keys(&pair, other.identity_key(), &changed, (&wrapped, &signature));
            assert_eq!(opened.err().map(|error| error.code()), Some("unwrap-refused"), "{changed:?}");
        }
    }
}
