//! The transcript of a renewal: fresh evidence for a lease that exists.

use super::{BIND_TAG, Binding, TpmPart, Transcript, Workload, tagged};
use crate::encoding::Sha256Digest;
use crate::keys::LeaseKey;

/// What a keeper issued for the renewal of a lease. One use: not `Clone`, not serialisable.
pub struct RenewChallenge {
    /// The release rule that the lease was granted under.
    pub rule: String,
    /// Random, names the challenge.
    pub session: [u8; 16],
    /// Random, makes the evidence fresh.
    pub nonce: [u8; 32],
    /// The vault.
    pub vault: Sha256Digest,
    /// The policy in force when the challenge was made.
    pub policy: Sha256Digest,
    /// The lease.
    pub lease: Sha256Digest,
    /// The lease's own key: a renewal brings no new key.
    pub lease_key: LeaseKey,
    /// The TPM that takes part, if one does.
    pub tpm: TpmPart,
}

impl RenewChallenge {
    /// Fixes the transcript. The keys are those of the lease. It shows no workload.
    #[must_use]
    pub fn bind(self) -> Binding<Renew> {
        self.bind_workload(None)
    }

    /// The same, with what runs under the lease.
    #[must_use]
    pub fn bind_workload(self, workload: Option<Workload>) -> Binding<Renew> {
        Binding::new(Renew { challenge: self, workload })
    }
}

/// A renewal as the requester states it.
pub struct Renew {
    challenge: RenewChallenge,
    workload: Option<Workload>,
}

impl Renew {
    /// The release rule.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.challenge.rule
    }

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

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> Sha256Digest {
        self.challenge.lease
    }

    /// The lease's key, which also signs the request.
    #[must_use]
    pub fn lease_key(&self) -> &LeaseKey {
        &self.challenge.lease_key
    }

    /// What runs under the lease, if it was asked.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.as_ref()
    }
}

impl Transcript for Renew {
    fn preimage(&self) -> Vec<u8> {
        let challenge = &self.challenge;
        tagged(
            BIND_TAG,
            &[
                b"renew",
                challenge.rule.as_bytes(),
                &challenge.session,
                &challenge.nonce,
                challenge.vault.as_bytes(),
                challenge.policy.as_bytes(),
                challenge.lease.as_bytes(),
                challenge.lease_key.as_bytes(),
                challenge.tpm.ak_name_bytes(),
                challenge.tpm.secret_bytes(),
                &Workload::runtime_claims(self.workload()),
            ],
        )
    }

    fn tpm(&self) -> &TpmPart {
        &self.challenge.tpm
    }
}
