//! Real evidence from the forge: a guest whose TPM quotes for a challenge, verified as a keeper does.

use attestation::{
    ActivationSecret, EndorsedTpm, EnrolledEks, Evidence, HpkePublicKey, Join, JoinChallenge, JoinerKeys, LeaseKey,
    Load, LoadChallenge, PcrSelection, RecoverChallenge, Renew, RenewChallenge, Sha256Digest, TpmIdentity, TpmPart,
    TpmQuote, Transcript, TrustAnchors, UnitSet, Verified, Workload, verify_tpm,
};

use super::policy_text::{PCR_0, PCR_11_GUEST, pcr};
use super::world::{World, lease_key, rule, session};
use crate::common::attest::Attest;
use crate::common::authority::{Authority, NOW};
use crate::common::tpm::{EkPublic, SoftTpm};

/// A guest with a TPM.
pub struct Guest {
    pub tpm: SoftTpm,
    pub identity: TpmIdentity,
    pub anchors: TrustAnchors,
    pub enrolled: EnrolledEks,
    pub reset_count: u32,
    pub restart_count: u32,
    pub pcrs: Vec<u32>,
}

impl Guest {
    /// A guest that the good policy lets in.
    pub fn of(world: &World) -> Self {
        let mut tpm = SoftTpm::ecc();
        tpm.pcrs[0] = pcr(PCR_0);
        tpm.pcrs[11] = pcr(PCR_11_GUEST);
        let identity = tpm.identity(&world.authority, &[]);
        let anchors = world.policy().trust_anchors().clone();
        let enrolled = EnrolledEks::default();
        Self { tpm, identity, anchors, enrolled, reset_count: 7, restart_count: 1, pcrs: vec![0, 11] }
    }

    /// The same TPM with another EK.
    pub fn on_other_platform(mut self, authority: &Authority) -> Self {
        let other = EkPublic::changed(|key| key[100] ^= 2);
        self.identity.ek_certificates = vec![authority.endorse(&other, |_| ())];
        self
    }

    /// A guest whose TPM has no certificate, verified by the platforms that the vault has now.
    pub fn bare(world: &World) -> Self {
        let mut guest = Self::of(world);
        guest.identity = guest.tpm.bare_identity();
        guest.enrolled = world.vault().platforms().eks().as_ref().clone();
        guest
    }

    fn tpm_part(&self) -> TpmPart {
        TpmPart::Activated { ak_name: *self.endorsed().ak().name(), secret: ActivationSecret::from_bytes([5; 32]) }
    }

    pub fn endorsed(&self) -> EndorsedTpm {
        EndorsedTpm::verify_or_enrolled(&self.identity, &self.anchors, &self.enrolled, NOW).unwrap()
    }

    /// What a keeper would put into the challenge for a load of header and layer.0.
    pub fn load_challenge(&self, world: &World, n: u32) -> LoadChallenge {
        LoadChallenge {
            rule: rule().to_string(),
            model: "minilm".to_owned(),
            version: "1.0".to_owned(),
            session: session(n),
            nonce: [2; 32],
            vault: world.genesis.vault_id(),
            policy: world.policy().digest(),
            manifest: world.manifest().digest(),
            units: UnitSet::try_from(vec![0, 1]).unwrap(),
            tpm: self.tpm_part(),
        }
    }

    pub fn load(&self, challenge: LoadChallenge) -> Verified<Load> {
        self.prove(challenge.bind(hpke_key(), lease_key()))
    }

    /// The same of a guest that shows what it starts.
    pub fn load_showing(&self, challenge: LoadChallenge, workload: Workload) -> Verified<Load> {
        self.prove(challenge.bind_workload(hpke_key(), lease_key(), Some(workload)))
    }

    /// A good load of session `n`.
    pub fn good_load(&self, world: &World, n: u32) -> Verified<Load> {
        self.load(self.load_challenge(world, n))
    }

    /// What a keeper would put into the challenge for another keeper.
    pub fn join_challenge(&self, world: &World) -> JoinChallenge {
        let (vault, policy) = (world.genesis.vault_id(), world.policy().digest());
        JoinChallenge { session: session(2000), nonce: [2; 32], vault, policy, tpm: self.tpm_part() }
    }

    pub fn join(&self, challenge: JoinChallenge) -> Verified<Join> {
        let (hpke_key, counter_name) = (hpke_key(), [4; 34]);
        self.prove(challenge.bind(JoinerKeys { instance: [9; 32], hpke_key, counter_name, counter: 40 }))
    }

    /// Evidence of a machine that is about to do this.
    pub fn recovering(&self, world: &World, plan: Sha256Digest, keys: JoinerKeys) -> Evidence {
        let (vault, policy) = (world.genesis.vault_id(), world.policy().digest());
        let challenge = RecoverChallenge { nonce: [2; 32], vault, policy, plan, tpm: self.tpm_part() };
        Evidence::Tpm(self.quote(&challenge.bind(keys)))
    }

    /// The same of a keeper without a counter.
    pub fn join_uncounted(&self, challenge: JoinChallenge) -> Verified<Join> {
        let (hpke_key, counter_name) = (hpke_key(), [0; 34]);
        self.prove(challenge.bind(JoinerKeys { instance: [9; 32], hpke_key, counter_name, counter: 0 }))
    }

    pub fn renew_challenge(&self, world: &World, lease: Sha256Digest) -> RenewChallenge {
        RenewChallenge {
            rule: rule().to_string(),
            session: session(1000),
            nonce: [2; 32],
            vault: world.genesis.vault_id(),
            policy: world.policy().digest(),
            lease,
            lease_key: lease_key(),
            tpm: self.tpm_part(),
        }
    }

    pub fn renew(&self, challenge: RenewChallenge) -> Verified<Renew> {
        self.prove(challenge.bind())
    }

    /// The same of a guest that shows this, or nothing.
    pub fn renew_showing(&self, challenge: RenewChallenge, workload: Option<Workload>) -> Verified<Renew> {
        self.prove(challenge.bind_workload(workload))
    }

    pub fn good_renew(&self, world: &World, lease: Sha256Digest) -> Verified<Renew> {
        self.renew(self.renew_challenge(world, lease))
    }

    fn prove<S: Transcript>(&self, binding: attestation::Binding<S>) -> Verified<S> {
        let quote = self.quote(&binding);
        let selection = PcrSelection::try_from(self.pcrs.as_slice()).unwrap();
        verify_tpm(quote, &self.endorsed(), binding, &selection).unwrap()
    }

    /// What its TPM shows for a binding.
    pub fn quote<S: Transcript>(&self, binding: &attestation::Binding<S>) -> TpmQuote {
        let pcrs = self.tpm.pcr_values(&self.pcrs);
        let mut attest = Attest::quote(&binding.tpm_extra_data(), &pcrs);
        attest.reset_count = self.reset_count;
        attest.restart_count = self.restart_count;
        let attest = attest.bytes();
        let signature = self.tpm.sign(&attest);
        TpmQuote { identity: self.identity.clone(), attest, signature, pcrs }
    }
}

pub fn hpke_key() -> HpkePublicKey {
    HpkePublicKey::try_from([6; 1665].as_slice()).unwrap()
}

pub fn other_lease_key() -> LeaseKey {
    LeaseKey::try_from([0x18; 32].as_slice()).unwrap()
}
