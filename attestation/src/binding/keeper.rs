//! The transcripts of a keeper that shows itself: before the genesis, and in every day's work.

use super::{Binding, GENESIS_TAG, KEEPER_TAG, TpmPart, Transcript, tagged};
use crate::encoding::Sha256Digest;
use crate::keys::{HpkePublicKey, IdentityKey, LogKey};

/// What a caller asks of a keeper that has no genesis yet. One use: not `Clone`, not serialisable.
pub struct GenesisChallenge {
    /// The caller's own, random.
    pub nonce: [u8; 32],
    /// What the keeper calls this ceremony, random.
    pub instance: [u8; 32],
    /// The core that the ceremony is for.
    pub core: Sha256Digest,
    /// Where DEKs are wrapped to.
    pub wrap_key: HpkePublicKey,
    /// Signs the keeper's answers.
    pub identity_key: IdentityKey,
    /// Signs the checkpoints.
    pub log_key: LogKey,
    /// The TPM that takes part, if one does.
    pub tpm: TpmPart,
}

impl GenesisChallenge {
    /// Fixes the transcript.
    #[must_use]
    pub fn bind(self) -> Binding<Genesis> {
        Binding::new(Genesis { challenge: self })
    }
}

/// What a keeper without a vault states: its keys, under one core.
pub struct Genesis {
    challenge: GenesisChallenge,
}

impl Genesis {
    /// The caller's nonce.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        &self.challenge.nonce
    }

    /// The ceremony.
    #[must_use]
    pub fn instance(&self) -> &[u8; 32] {
        &self.challenge.instance
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> Sha256Digest {
        self.challenge.core
    }

    /// Where DEKs are wrapped to.
    #[must_use]
    pub fn wrap_key(&self) -> &HpkePublicKey {
        &self.challenge.wrap_key
    }

    /// Signs the keeper's answers.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        &self.challenge.identity_key
    }

    /// Signs the checkpoints.
    #[must_use]
    pub fn log_key(&self) -> &LogKey {
        &self.challenge.log_key
    }
}

impl Transcript for Genesis {
    fn preimage(&self) -> Vec<u8> {
        let challenge = &self.challenge;
        tagged(
            GENESIS_TAG,
            &[
                &challenge.nonce,
                &challenge.instance,
                challenge.core.as_bytes(),
                challenge.wrap_key.as_bytes(),
                challenge.identity_key.as_bytes(),
                challenge.log_key.as_bytes(),
                challenge.tpm.secret_bytes(),
            ],
        )
    }

    fn tpm(&self) -> &TpmPart {
        &self.challenge.tpm
    }
}

/// What a caller asks of the keeper of a vault. One use: not `Clone`, not serialisable.
pub struct KeeperChallenge {
    /// The caller's own, random.
    pub nonce: [u8; 32],
    /// The vault.
    pub vault: Sha256Digest,
    /// Where DEKs are wrapped to.
    pub wrap_key: HpkePublicKey,
    /// Signs the keeper's answers.
    pub identity_key: IdentityKey,
    /// Signs the checkpoints.
    pub log_key: LogKey,
    /// The policy in force.
    pub policy: Sha256Digest,
    /// The newest checkpoint, as a signed note.
    pub checkpoint: String,
    /// The TPM that takes part, if one does.
    pub tpm: TpmPart,
}

impl KeeperChallenge {
    /// Fixes the transcript.
    #[must_use]
    pub fn bind(self) -> Binding<Keeper> {
        Binding::new(Keeper { challenge: self })
    }
}

/// What the keeper of a vault states: its keys, its policy, the head of its log.
pub struct Keeper {
    challenge: KeeperChallenge,
}

impl Keeper {
    /// The caller's nonce.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        &self.challenge.nonce
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> Sha256Digest {
        self.challenge.vault
    }

    /// Where DEKs are wrapped to.
    #[must_use]
    pub fn wrap_key(&self) -> &HpkePublicKey {
        &self.challenge.wrap_key
    }

    /// Signs the keeper's answers.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        &self.challenge.identity_key
    }

    /// Signs the checkpoints.
    #[must_use]
    pub fn log_key(&self) -> &LogKey {
        &self.challenge.log_key
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Sha256Digest {
        self.challenge.policy
    }

    /// The newest checkpoint, as a signed note.
    #[must_use]
    pub fn checkpoint(&self) -> &str {
        &self.challenge.checkpoint
    }
}

impl Transcript for Keeper {
    fn preimage(&self) -> Vec<u8> {
        let challenge = &self.challenge;
        tagged(
            KEEPER_TAG,
            &[
                &challenge.nonce,
                challenge.vault.as_bytes(),
                challenge.wrap_key.as_bytes(),
                challenge.identity_key.as_bytes(),
                challenge.log_key.as_bytes(),
                challenge.policy.as_bytes(),
                challenge.checkpoint.as_bytes(),
                challenge.tpm.secret_bytes(),
            ],
        )
    }

    fn tpm(&self) -> &TpmPart {
        &self.challenge.tpm
    }
}
