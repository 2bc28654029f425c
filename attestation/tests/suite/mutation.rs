//! Whatever bit of the evidence is changed, and wherever it is cut or padded: it is never accepted.

use attestation::{EndorsedTpm, TpmQuote, VerifyError, verify_tpm};
use proptest::prelude::*;

use crate::common::authority::NOW;
use crate::common::tpm::SoftTpm;
use crate::scene::{PCRS, Scene, bind, selection};

/// The parts of the evidence that are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    EkCertificate,
    Issuer,
    AkPublic,
    Attest,
    Signature,
}

const PARTS: [Part; 5] = [Part::EkCertificate, Part::Issuer, Part::AkPublic, Part::Attest, Part::Signature];

fn bytes_of(quote: &mut TpmQuote, part: Part) -> &mut Vec<u8> {
    match part {
        Part::EkCertificate => &mut quote.identity.ek_certificates[0],
        Part::Issuer => &mut quote.identity.ek_certificates[1],
        Part::AkPublic => &mut quote.identity.ak_public,
        Part::Attest => &mut quote.attest,
        Part::Signature => &mut quote.signature,
    }
}

/// The whole way, as a keeper goes it for a requester who sends this from the start: the challenge is for the identity
/// that was sent, so nothing is refused only because it differs from an earlier message.
fn accept(scene: &Scene, quote: TpmQuote) -> Result<(), VerifyError> {
    let tpm = EndorsedTpm::verify(&quote.identity, &scene.anchors, NOW)?;
    let binding = bind(tpm.ak().name());
    verify_tpm(quote, &tpm, binding, &selection(&PCRS)).map(|_| ())
}

#[test]
fn evidence_that_nobody_changed_is_accepted() {
    for tpm in [SoftTpm::ecc(), SoftTpm::rsa()] {
        let scene = Scene::new(tpm);
        assert_eq!(accept(&scene, scene.quote()), Ok(()));
    }
}

#[test]
fn no_changed_bit_of_the_quote_is_accepted() {
    for tpm in [SoftTpm::ecc(), SoftTpm::rsa()] {
        let scene = Scene::new(tpm);
        let good = scene.quote();
        for part in [Part::AkPublic, Part::Attest, Part::Signature] {
            for bit in 0..bytes_of(&mut good.clone(), part).len() * 8 {
                let mut quote = good.clone();
                bytes_of(&mut quote, part)[bit / 8] ^= 1 << (bit % 8);
                assert!(accept(&scene, quote).is_err(), "{part:?} bit {bit}");
            }
        }
        for bit in 0..good.pcrs.len() * 256 {
            let mut quote = good.clone();
            quote.pcrs[bit / 256].1[bit % 256 / 8] ^= 1 << (bit % 8);
            assert_eq!(accept(&scene, quote), Err(VerifyError::PcrDigestMismatch));
        }
    }
}

#[test]
fn nothing_cut_short_is_accepted() {
    let scene = Scene::new(SoftTpm::ecc());
    let good = scene.quote();
    for part in PARTS {
        for length in 0..bytes_of(&mut good.clone(), part).len() {
            let mut quote = good.clone();
            bytes_of(&mut quote, part).truncate(length);
            assert!(accept(&scene, quote).is_err(), "{part:?} cut to {length}");
        }
    }
}

/// One good run for all cases: what is tested is the change.
struct Good {
    scene: Scene,
    quote: TpmQuote,
}

thread_local! {
    static GOOD: Good = {
        let scene = Scene::new(SoftTpm::ecc());
        let quote = scene.quote();
        Good { scene, quote }
    };
}

fn accepts_changed(part: Part, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    GOOD.with(|good| {
        let mut quote = good.quote.clone();
        let bytes = bytes_of(&mut quote, part);
        let before = bytes.clone();
        change(bytes);
        assert_ne!(*bytes, before, "nothing was changed");
        accept(&good.scene, quote).is_ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_flipped_bit_is_never_accepted(part in 0..PARTS.len(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let accepted = accepts_changed(PARTS[part], |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
        });
        prop_assert!(!accepted);
    }

    #[test]
    fn bytes_before_within_or_behind_are_never_accepted(
        part in 0..PARTS.len(),
        at in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let accepted = accepts_changed(PARTS[part], |bytes| {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more);
        });
        prop_assert!(!accepted);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(part in 0..PARTS.len(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(!accepts_changed(PARTS[part], |part| *part = bytes));
    }
}
