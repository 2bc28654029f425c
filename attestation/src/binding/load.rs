//! The transcript of a load: unit keys for an attested guest.

use super::{BIND_TAG, Binding, TpmPart, Transcript, Workload, lease_id, tagged};
use crate::encoding::{Sha256Digest, UnitSet};
use crate::keys::{HpkePublicKey, LeaseKey};

/// What a keeper issued for a load. One use: not `Clone`, not serialisable.
pub struct LoadChallenge {
    /// The release rule that was asked for.
    pub rule: String,
    /// The model. Hashed only through the manifest, which names model and version: whoever makes the challenge takes the
    /// digest of the manifest of this very version.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Random, names the challenge.
    pub session: [u8; 16],
    /// Random, makes the evidence fresh.
    pub nonce: [u8; 32],
    /// The vault.
    pub vault: Sha256Digest,
    /// The policy in force when the challenge was made.
    pub policy: Sha256Digest,
    /// The manifest that the log names for this model and version.
    pub manifest: Sha256Digest,
    /// The units asked for.
    pub units: UnitSet,
    /// The TPM that takes part, if one does.
    pub tpm: TpmPart,
}

impl LoadChallenge {
    /// Fixes the keys of the requester: the grant can be wrapped to `hpke` alone, the lease renewed with `lease` alone. It
    /// shows no workload.
    #[must_use]
    pub fn bind(self, hpke: HpkePublicKey, lease: LeaseKey) -> Binding<Load> {
        self.bind_workload(hpke, lease, None)
    }

    /// The same, with what the requester starts.
    #[must_use]
    pub fn bind_workload(self, hpke: HpkePublicKey, lease: LeaseKey, workload: Option<Workload>) -> Binding<Load> {
        Binding::new(Load { challenge: self, hpke, lease, workload })
    }
}

/// A load as the requester states it: the challenge and its own keys.
pub struct Load {
    challenge: LoadChallenge,
    hpke: HpkePublicKey,
    lease: LeaseKey,
    workload: Option<Workload>,
}

impl Load {
    /// The release rule.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.challenge.rule
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.challenge.model
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.challenge.version
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

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Sha256Digest {
        self.challenge.manifest
    }

    /// The units asked for.
    #[must_use]
    pub fn units(&self) -> &UnitSet {
        &self.challenge.units
    }

    /// Where the grant is wrapped to.
    #[must_use]
    pub fn hpke_key(&self) -> &HpkePublicKey {
        &self.hpke
    }

    /// Signs renewals and the end of the lease.
    #[must_use]
    pub fn lease_key(&self) -> &LeaseKey {
        &self.lease
    }

    /// What the requester starts, if it was asked.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.as_ref()
    }

    /// The id of the lease that a grant would open.
    #[must_use]
    pub fn lease_id(&self) -> Sha256Digest {
        lease_id(&self.challenge.vault, &self.challenge.session, &self.lease)
    }
}

impl Transcript for Load {
    fn preimage(&self) -> Vec<u8> {
        let challenge = &self.challenge;
        tagged(
            BIND_TAG,
            &[
                b"load",
                challenge.rule.as_bytes(),
                &challenge.session,
                &challenge.nonce,
                challenge.vault.as_bytes(),
                challenge.policy.as_bytes(),
                challenge.manifest.as_bytes(),
                &challenge.units.bytes(),
                self.hpke.as_bytes(),
                self.lease.as_bytes(),
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
