//! Evidence that a TPM made which is not ours (data/README.md).

use attestation::{
    ActivationSecret, Anchor, EndorsedEk, EndorsedTpm, LoadChallenge, TpmIdentity, TpmQuote, Trust, TrustAnchors,
    UnixTime, VerifyError, verify_tpm,
};
use serde_json::Value;

use crate::common::authority::NOW;
use crate::scene::{bind_challenge, challenge, part, selection};

const PCRS: [u32; 5] = [0, 1, 2, 7, 11];

struct Recorded {
    quote: TpmQuote,
    anchors: TrustAnchors,
    now: UnixTime,
    secret: [u8; 32],
    reset_count: u64,
}

impl Recorded {
    /// The quotes of the P-256 and of the RSA-2048 AK.
    fn all() -> Vec<Self> {
        let data: Value = serde_json::from_str(include_str!("../data/swtpm.json")).unwrap();
        data["quotes"].as_array().unwrap().iter().map(|quote| Self::of(&data, quote)).collect()
    }

    fn of(data: &Value, quote: &Value) -> Self {
        let anchor = Anchor { name: "swtpm".to_owned(), trust: Trust::Emulated, certificate: bytes(&data["anchor"]) };
        let identity = TpmIdentity {
            ek_public: Vec::new(),
            ek_certificates: data["ek_certificates"].as_array().unwrap().iter().map(bytes).collect(),
            ak_public: bytes(&quote["ak_public"]),
        };
        let value = |index: u32| (index, bytes(&data["pcrs"][index.to_string()]).try_into().unwrap());
        Self {
            quote: TpmQuote {
                identity,
                attest: bytes(&quote["attest"]),
                signature: bytes(&quote["signature"]),
                pcrs: PCRS.map(value).to_vec(),
            },
            anchors: TrustAnchors::built_in().with(anchor).unwrap(),
            now: UnixTime(data["now"].as_u64().unwrap()),
            secret: bytes(&quote["secret"]).try_into().unwrap(),
            reset_count: quote["reset_count"].as_u64().unwrap(),
        }
    }

    fn endorsed(&self) -> EndorsedTpm {
        EndorsedTpm::verify(&self.quote.identity, &self.anchors, self.now).unwrap()
    }
}

fn bytes(hex_text: &Value) -> Vec<u8> {
    hex::decode(hex_text.as_str().unwrap()).unwrap()
}

#[test]
fn what_a_software_tpm_quoted_verifies() {
    for recorded in Recorded::all() {
        let tpm = recorded.endorsed();
        let secret = ActivationSecret::from_bytes(recorded.secret);
        let binding =
            bind_challenge(LoadChallenge { tpm: part(tpm.ak().name(), secret), ..challenge(tpm.ak().name()) });
        let verified = verify_tpm(recorded.quote, &tpm, binding, &selection(&PCRS)).unwrap();
        let claims = verified.claims().quote().unwrap();
        assert_eq!((verified.claims().trust(), verified.claims().anchor()), (Trust::Emulated, "swtpm"));
        assert_eq!(
            (u64::from(claims.reset_count()), claims.restart_count(), claims.safe()),
            (recorded.reset_count, 0, true)
        );
    }
}

#[test]
fn a_recorded_quote_without_the_activated_secret_is_refused() {
    for recorded in Recorded::all() {
        let tpm = recorded.endorsed();
        let binding = bind_challenge(challenge(tpm.ak().name()));
        let refusal = verify_tpm(recorded.quote, &tpm, binding, &selection(&PCRS)).err();
        assert_eq!(refusal, Some(VerifyError::ExtraDataMismatch));
    }
}

#[test]
fn the_quote_of_one_recorded_ak_is_not_that_of_the_other() {
    let [ecc, rsa] = Recorded::all().try_into().ok().unwrap();
    let tpm = rsa.endorsed();
    let binding = bind_challenge(challenge(tpm.ak().name()));
    let quote = TpmQuote { identity: rsa.quote.identity, ..ecc.quote };
    let refusal = verify_tpm(quote, &tpm, binding, &selection(&PCRS)).err();
    assert_eq!(refusal, Some(VerifyError::SignatureScheme { scheme: 0x0018, hash: 0x000b }));
}

#[test]
fn ecdsa_with_the_hash_of_the_other_curve_verifies() {
    let chains: Value = serde_json::from_str(include_str!("../data/openssl.json")).unwrap();
    for chain in chains.as_array().unwrap() {
        let anchor = Anchor { name: "root".to_owned(), trust: Trust::Emulated, certificate: bytes(&chain["anchor"]) };
        let anchors = TrustAnchors::built_in().with(anchor).unwrap();
        assert!(EndorsedEk::verify(&[bytes(&chain["ek_certificate"])], &anchors, NOW).is_ok(), "{}", chain["curve"]);
    }
}
