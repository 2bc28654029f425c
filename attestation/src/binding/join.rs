//! The transcript of a keeper that asks to take over a vault: fresh evidence of its machine, and what it made there.

use super::{BIND_TAG, Binding, RUNTIME_CLAIMS, TpmPart, Transcript, tagged};
use crate::encoding::Sha256Digest;
use crate::keys::HpkePublicKey;

/// What a keeper issued to a keeper that asks to take over. One use: not `Clone`, not serialisable.
pub struct JoinChallenge {
    /// Random, names the challenge.
    pub session: [u8; 16],
    /// Random, makes the evidence fresh.
    pub nonce: [u8; 32],
    /// The vault.
    pub vault: Sha256Digest,
    /// The policy in force when the challenge was made.
    pub policy: Sha256Digest,
    /// The TPM that takes part, if one does.
    pub tpm: TpmPart,
}

/// What the asking keeper made on its machine, once, and states in every run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinerKeys {
    /// 32 random bytes, made with its root key.
    pub instance: [u8; 32],
    /// The vault's keys are wrapped to it. Its private half comes from the root key.
    pub hpke_key: HpkePublicKey,
    /// Name of its NV counter (TPM 2.0 Part 1, "Names"): 34 bytes.
    pub counter_name: [u8; 34],
    /// What that counter reads.
    pub counter: u64,
}

impl JoinChallenge {
    /// Fixes the transcript.
    #[must_use]
    pub fn bind(self, joiner: JoinerKeys) -> Binding<Join> {
        Binding::new(Join { challenge: self, joiner })
    }
}

/// A keeper's wish to take over, as it states it.
pub struct Join {
    challenge: JoinChallenge,
    joiner: JoinerKeys,
}

impl Join {
    /// The session of the challenge.
    #[must_use]
    pub fn session(&self) -> &[u8; 16] {
        &self.challenge.session
    }

    /// The nonce of the challenge.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        &self.challenge.nonce
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> Sha256Digest {
        self.challenge.vault
    }

    /// The policy that the challenge was made under.
    #[must_use]
    pub fn policy(&self) -> Sha256Digest {
        self.challenge.policy
    }

    /// What it made on its machine.
    #[must_use]
    pub fn joiner(&self) -> &JoinerKeys {
        &self.joiner
    }
}

impl Transcript for Join {
    fn preimage(&self) -> Vec<u8> {
        let (challenge, joiner) = (&self.challenge, &self.joiner);
        tagged(
            BIND_TAG,
            &[
                b"keeper-join",
                &challenge.session,
                &challenge.nonce,
                challenge.vault.as_bytes(),
                challenge.policy.as_bytes(),
                &joiner.instance,
                joiner.hpke_key.as_bytes(),
                &joiner.counter_name,
                &joiner.counter.to_be_bytes(),
                challenge.tpm.ak_name_bytes(),
                challenge.tpm.secret_bytes(),
                RUNTIME_CLAIMS,
            ],
        )
    }

    fn tpm(&self) -> &TpmPart {
        &self.challenge.tpm
    }
}
