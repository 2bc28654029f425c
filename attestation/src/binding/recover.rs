//! The transcript of a keeper that recovers a lost one's vault: it shows itself to each approver and each custodian, since
//! no keeper is left to judge it.

use super::{Binding, RECOVER_TAG, RUNTIME_CLAIMS, TpmPart, Transcript, tagged};
use crate::binding::JoinerKeys;
use crate::encoding::Sha256Digest;

/// What somebody asks of a recovering keeper. One use: not `Clone`, not serialisable.
pub struct RecoverChallenge {
    /// The asker's own random bytes: they make the evidence fresh.
    pub nonce: [u8; 32],
    /// The vault.
    pub vault: Sha256Digest,
    /// The policy in force at the end of the log that it goes on from.
    pub policy: Sha256Digest,
    /// What it is about to do: digest of the plan (FORMAT.md §7, `recover`).
    pub plan: Sha256Digest,
    /// Its TPM.
    pub tpm: TpmPart,
}

impl RecoverChallenge {
    /// Fixes the transcript.
    #[must_use]
    pub fn bind(self, keys: JoinerKeys) -> Binding<Recover> {
        Binding::new(Recover { challenge: self, keys })
    }
}

/// What a recovering keeper states.
pub struct Recover {
    challenge: RecoverChallenge,
    keys: JoinerKeys,
}

impl Recover {
    /// What it is about to do.
    #[must_use]
    pub fn plan(&self) -> Sha256Digest {
        self.challenge.plan
    }

    /// What it made on its machine.
    #[must_use]
    pub fn keys(&self) -> &JoinerKeys {
        &self.keys
    }
}

impl Transcript for Recover {
    fn preimage(&self) -> Vec<u8> {
        let (challenge, keys) = (&self.challenge, &self.keys);
        tagged(
            RECOVER_TAG,
            &[
                &challenge.nonce,
                challenge.vault.as_bytes(),
                challenge.policy.as_bytes(),
                challenge.plan.as_bytes(),
                &keys.instance,
                keys.hpke_key.as_bytes(),
                &keys.counter_name,
                &keys.counter.to_be_bytes(),
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
