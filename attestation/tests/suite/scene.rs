//! What a good run looks like, from which each test changes one thing.

use attestation::{
    ActivationSecret, AkName, Binding, EndorsedTpm, HpkePublicKey, LeaseKey, Load, LoadChallenge, PcrSelection,
    Sha256Digest, TpmIdentity, TpmPart, TpmQuote, Trust, TrustAnchors, UnitSet, Verified, VerifyError, verify_tpm,
};

use crate::common::authority::{Authority, NOW};
use crate::common::tpm::SoftTpm;

/// The PCRs that every good quote is over.
pub(crate) const PCRS: [u32; 4] = [0, 7, 11, 23];

/// A TPM endorsed through an intermediate by a root, which is the only anchor.
pub(crate) struct Scene {
    pub(crate) tpm: SoftTpm,
    pub(crate) identity: TpmIdentity,
    pub(crate) anchors: TrustAnchors,
}

impl Scene {
    pub(crate) fn new(tpm: SoftTpm) -> Self {
        let root = Authority::root("root");
        let intermediate = root.intermediate("intermediate");
        let identity = tpm.identity(&intermediate, &[&intermediate]);
        Self { tpm, identity, anchors: trusting(&root) }
    }

    pub(crate) fn endorsed(&self) -> EndorsedTpm {
        EndorsedTpm::verify(&self.identity, &self.anchors, NOW).expect("the scene is good")
    }

    /// A good quote for the binding of [`bind`].
    pub(crate) fn quote(&self) -> TpmQuote {
        let extra_data = bind(self.endorsed().ak().name()).tpm_extra_data();
        self.tpm.quote(&self.identity, &PCRS, &extra_data)
    }

    /// What verification says to a quote.
    pub(crate) fn verify(&self, quote: TpmQuote) -> Result<Verified<Load>, VerifyError> {
        let tpm = self.endorsed();
        verify_tpm(quote, &tpm, bind(tpm.ak().name()), &selection(&PCRS))
    }
}

/// Anchors that hold one authority, as emulated.
pub(crate) fn trusting(authority: &Authority) -> TrustAnchors {
    TrustAnchors::built_in().with(authority.anchor("forge", Trust::Emulated)).expect("an authority")
}

pub(crate) fn selection(indices: &[u32]) -> PcrSelection {
    PcrSelection::try_from(indices).expect("a selection")
}

/// A challenge with nothing random in it, but for the AK.
pub(crate) fn part(ak_name: &AkName, secret: ActivationSecret) -> TpmPart {
    TpmPart::Activated { ak_name: *ak_name, secret }
}

pub(crate) fn challenge(ak_name: &AkName) -> LoadChallenge {
    LoadChallenge {
        rule: "serve".to_owned(),
        model: "minilm".to_owned(),
        version: "1.0".to_owned(),
        session: [1; 16],
        nonce: [2; 32],
        vault: Sha256Digest::of(b"vault"),
        policy: Sha256Digest::of(b"policy"),
        manifest: Sha256Digest::of(b"manifest"),
        units: UnitSet::try_from(vec![0, 1, 2]).expect("a unit set"),
        tpm: part(ak_name, ActivationSecret::from_bytes([5; 32])),
    }
}

/// [`challenge`], bound.
pub(crate) fn bind(ak_name: &AkName) -> Binding<Load> {
    bind_challenge(challenge(ak_name))
}

pub(crate) fn bind_challenge(challenge: LoadChallenge) -> Binding<Load> {
    challenge.bind(hpke_key(3), lease_key(4))
}

pub(crate) fn hpke_key(byte: u8) -> HpkePublicKey {
    HpkePublicKey::try_from([byte; 1665].as_slice()).expect("of its size")
}

pub(crate) fn lease_key(byte: u8) -> LeaseKey {
    LeaseKey::try_from([byte; 32].as_slice()).expect("of its size")
}
