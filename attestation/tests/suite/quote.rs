//! Quotes: one thing changed, one refusal.

use attestation::{
    ActivationSecret, Binding, DecodeError, EndorsedTpm, Load, LoadChallenge, Sha256Digest, TpmQuote, Transcript,
    Trust, UnitSet, VerifyError, verify_tpm,
};

use crate::common::attest::Attest;
use crate::common::authority::NOW;
use crate::common::public::sized;
use crate::common::tpm::SoftTpm;
use crate::scene::{PCRS, Scene, bind, bind_challenge, challenge, hpke_key, lease_key, part, selection};

fn scene() -> Scene {
    Scene::new(SoftTpm::ecc())
}

/// The refusal of a quote of which one thing was changed.
fn refusal(scene: &Scene, change: impl FnOnce(&mut TpmQuote)) -> VerifyError {
    let mut quote = scene.quote();
    change(&mut quote);
    scene.verify(quote).err().expect("is refused")
}

/// The refusal of a quote whose attestation was changed and then signed by the AK.
fn signed_refusal(change: impl FnOnce(&mut Attest)) -> VerifyError {
    let scene = scene();
    let binding = bind(scene.endorsed().ak().name());
    let mut attest = Attest::quote(&binding.tpm_extra_data(), &scene.tpm.pcr_values(&PCRS));
    change(&mut attest);
    resigned_refusal(&scene, attest.bytes())
}

fn resigned_refusal(scene: &Scene, attest: Vec<u8>) -> VerifyError {
    refusal(scene, |quote| {
        quote.signature = scene.tpm.sign(&attest);
        quote.attest = attest;
    })
}

#[test]
fn a_good_quote_shows_who_where_and_since_which_boot() {
    for tpm in [SoftTpm::ecc(), SoftTpm::rsa()] {
        let scene = Scene::new(tpm);
        let endorsed = scene.endorsed();
        let binding = bind(endorsed.ak().name());
        let (digest, preimage) = (*binding.digest(), binding.preimage().to_vec());
        let verified = verify_tpm(scene.quote(), &endorsed, binding, &selection(&PCRS)).unwrap();

        let claims = verified.claims();
        let quote = claims.quote().unwrap();
        assert_eq!(claims.platform(), endorsed.ek().platform());
        assert_eq!(quote.ak_name(), endorsed.ak().name());
        assert_eq!((claims.trust(), claims.anchor()), (Trust::Emulated, "forge"));
        assert_eq!(quote.pcrs().iter().map(|(i, v)| (*i, *v)).collect::<Vec<_>>(), scene.tpm.pcr_values(&PCRS));
        assert_eq!((quote.reset_count(), quote.restart_count()), (7, 1));
        assert_eq!((quote.clock(), quote.safe()), (86_400_000, true));
        assert_eq!(quote.firmware_version(), 0x2019_1023_0016_3636);
        assert_eq!((verified.binding_digest(), verified.preimage()), (&digest, preimage.as_slice()));
        assert_eq!(verified.statement().model(), "minilm");
        assert_eq!(verified.statement().preimage(), preimage);
    }
}

#[test]
fn a_quote_with_another_identity_than_the_challenge_was_for_is_refused() {
    let scene = scene();
    let other = SoftTpm::ecc().ak_public.bytes();
    let changed = VerifyError::IdentityChanged;
    assert_eq!(refusal(&scene, |quote| quote.identity.ak_public = other), changed);
    assert_eq!(refusal(&scene, |quote| drop(quote.identity.ek_certificates.pop())), changed);
    assert_eq!(refusal(&scene, |quote| quote.identity.ek_certificates.reverse()), changed);
    assert_eq!(refusal(&scene, |quote| quote.identity.ek_certificates[0].push(0)), changed);
}

#[test]
fn a_binding_for_another_ak_is_refused() {
    let scene = scene();
    let other = Scene::new(SoftTpm::ecc()).endorsed();
    let refusal = verify_tpm(scene.quote(), &scene.endorsed(), bind(other.ak().name()), &selection(&PCRS)).err();
    assert_eq!(refusal, Some(VerifyError::AkNotBound));
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let invalid = VerifyError::SignatureInvalid;
    let (ecc, other) = (scene(), SoftTpm::ecc());
    assert_eq!(refusal(&ecc, |quote| quote.signature = other.sign(&quote.attest)), invalid);
    assert_eq!(refusal(&ecc, |quote| quote.signature = ecc.tpm.sign(b"something else")), invalid);
    let rsa = Scene::new(SoftTpm::rsa());
    assert_eq!(refusal(&rsa, |quote| quote.signature = rsa.tpm.sign(b"something else")), invalid);
}

#[test]
fn a_signature_of_another_scheme_or_hash_is_refused() {
    let (ecc, rsa) = (scene(), Scene::new(SoftTpm::rsa()));
    let scheme = |scheme, hash| VerifyError::SignatureScheme { scheme, hash };
    assert_eq!(refusal(&ecc, |quote| quote.signature = rsa.tpm.sign(&quote.attest)), scheme(0x0014, 0x000b));
    assert_eq!(refusal(&rsa, |quote| quote.signature = ecc.tpm.sign(&quote.attest)), scheme(0x0018, 0x000b));
    assert_eq!(refusal(&ecc, |quote| quote.signature[3] = 0x04), scheme(0x0018, 0x0004));
    assert_eq!(refusal(&ecc, |quote| quote.signature[1] = 0x1a), scheme(0x001a, 0x000b));
}

#[test]
fn a_signature_cut_short_or_with_bytes_behind_it_is_refused() {
    for scene in [scene(), Scene::new(SoftTpm::rsa())] {
        let malformed = VerifyError::SignatureMalformed;
        assert_eq!(refusal(&scene, |quote| quote.signature.truncate(69)), malformed(DecodeError::Truncated));
        assert_eq!(refusal(&scene, |quote| quote.signature.clear()), malformed(DecodeError::Truncated));
        assert_eq!(refusal(&scene, |quote| quote.signature.push(0)), malformed(DecodeError::TrailingBytes));
    }
}

#[test]
fn a_scalar_stands_in_32_bytes_or_without_leading_zeros() {
    let header = [0x00, 0x18, 0x00, 0x0b];
    let with = |r: &[u8], s: &[u8]| {
        let signature = [&header, sized(r).as_slice(), &sized(s)].concat();
        refusal(&scene(), |quote| quote.signature = signature)
    };
    let malformed = |found| VerifyError::SignatureMalformed(DecodeError::Length { expected: 32, found });
    assert_eq!(with(&[1; 31], &[1; 32]), VerifyError::SignatureInvalid);
    assert_eq!(with(&[0; 31], &[1; 32]), malformed(31));
    assert_eq!(with(&[1; 32], &[]), malformed(0));
    let long = VerifyError::SignatureMalformed(DecodeError::TooLong { max: 32, found: 33 });
    assert_eq!(with(&[0; 33], &[1; 32]), long);
}

#[test]
fn an_rsa_signature_of_another_length_is_refused() {
    let scene = Scene::new(SoftTpm::rsa());
    let short = [&[0x00, 0x14, 0x00, 0x0b], sized(&[1; 255]).as_slice()].concat();
    let length = DecodeError::Length { expected: 256, found: 255 };
    assert_eq!(refusal(&scene, |quote| quote.signature = short), VerifyError::SignatureMalformed(length));
}

#[test]
fn an_ecdsa_quote_without_leading_zeros_verifies() {
    let scene = scene();
    // One signature in 128 has a scalar below 2^248.
    let short = (0..100_000).find_map(|_| {
        let quote = scene.quote();
        (quote.signature[6] == 0 && quote.signature[7] != 0).then_some(quote)
    });
    let mut quote = short.expect("within a hundred thousand signatures");
    let (r, s) = (quote.signature[7..38].to_vec(), quote.signature[40..].to_vec());
    quote.signature = [vec![0x00, 0x18, 0x00, 0x0b], sized(&r), sized(&s)].concat();
    assert!(scene.verify(quote).is_ok());
}

#[test]
fn an_attestation_that_no_tpm_made_is_refused() {
    assert_eq!(signed_refusal(|attest| attest.magic ^= 1), VerifyError::AttestMagic);
}

#[test]
fn an_attestation_of_something_else_is_refused() {
    for found in [0x8014, 0x8016, 0x8017, 0x8019, 0x801a, 0x801c] {
        assert_eq!(signed_refusal(|attest| attest.kind = found), VerifyError::AttestNotQuote { found });
    }
}

#[test]
fn a_signer_without_a_sha256_name_is_refused() {
    assert_eq!(signed_refusal(|attest| attest.signer[1] = 0x04), VerifyError::AttestSigner);
    assert_eq!(signed_refusal(|attest| attest.signer.clear()), VerifyError::AttestSigner);
    assert_eq!(signed_refusal(|attest| attest.signer.push(0)), VerifyError::AttestSigner);
}

#[test]
fn an_attestation_cut_short_or_with_bytes_behind_it_is_refused() {
    let scene = scene();
    let attest = scene.quote().attest;
    for length in 0..attest.len() {
        let refusal = resigned_refusal(&scene, attest[..length].to_vec());
        assert_eq!(refusal, VerifyError::AttestMalformed(DecodeError::Truncated), "{length}");
    }
    let trailing = resigned_refusal(&scene, [attest.as_slice(), &[0]].concat());
    assert_eq!(trailing, VerifyError::AttestMalformed(DecodeError::TrailingBytes));
}

#[test]
fn the_lengths_in_an_attestation_are_bounded() {
    let malformed = |max, found| VerifyError::AttestMalformed(DecodeError::TooLong { max, found });
    assert_eq!(signed_refusal(|attest| attest.signer = vec![0; 67]), malformed(66, 67));
    assert_eq!(signed_refusal(|attest| attest.extra_data = vec![0; 67]), malformed(66, 67));
    assert_eq!(signed_refusal(|attest| attest.pcr_digest = vec![0; 65]), malformed(64, 65));
    assert_eq!(signed_refusal(|attest| attest.selections = vec![(0x000b, vec![0; 3]); 17]), malformed(16, 17));
    assert_eq!(signed_refusal(|attest| attest.selections[0].1 = vec![0; 5]), malformed(4, 5));
    assert_eq!(refusal(&scene(), |quote| quote.attest.resize(1025, 0)), malformed(1024, 1025));
}

#[test]
fn yes_and_no_have_one_form() {
    let malformed = VerifyError::AttestMalformed(DecodeError::YesNo { found: 2 });
    assert_eq!(signed_refusal(|attest| attest.safe = 2), malformed);
    let scene = scene();
    let mut quote = scene.quote();
    let binding = bind(scene.endorsed().ak().name());
    let attest = Attest::quote(&binding.tpm_extra_data(), &scene.tpm.pcr_values(&PCRS));
    quote.attest = Attest { safe: 0, ..attest }.bytes();
    quote.signature = scene.tpm.sign(&quote.attest);
    assert!(!scene.verify(quote).unwrap().claims().quote().unwrap().safe());
}

#[test]
fn a_quote_for_another_binding_is_refused_whatever_differs() {
    let scene = scene();
    let tpm = scene.endorsed();
    let name = tpm.ak().name();
    let other = || Sha256Digest::of(b"other");
    let expected: Vec<Binding<Load>> = vec![
        bind_challenge(LoadChallenge { rule: "other".to_owned(), ..challenge(name) }),
        bind_challenge(LoadChallenge { session: [9; 16], ..challenge(name) }),
        bind_challenge(LoadChallenge { nonce: [9; 32], ..challenge(name) }),
        bind_challenge(LoadChallenge { vault: other(), ..challenge(name) }),
        bind_challenge(LoadChallenge { policy: other(), ..challenge(name) }),
        bind_challenge(LoadChallenge { manifest: other(), ..challenge(name) }),
        bind_challenge(LoadChallenge { units: UnitSet::try_from(vec![0, 1]).unwrap(), ..challenge(name) }),
        bind_challenge(LoadChallenge { tpm: part(name, ActivationSecret::from_bytes([6; 32])), ..challenge(name) }),
        challenge(name).bind(hpke_key(9), lease_key(4)),
        challenge(name).bind(hpke_key(3), lease_key(9)),
    ];
    for (number, binding) in expected.into_iter().enumerate() {
        let refusal = verify_tpm(scene.quote(), &tpm, binding, &selection(&PCRS)).err();
        assert_eq!(refusal, Some(VerifyError::ExtraDataMismatch), "{number}");
    }
}

#[test]
fn extra_data_of_another_length_is_refused() {
    assert_eq!(signed_refusal(|attest| attest.extra_data.clear()), VerifyError::ExtraDataMismatch);
    assert_eq!(signed_refusal(|attest| attest.extra_data.truncate(31)), VerifyError::ExtraDataMismatch);
    assert_eq!(signed_refusal(|attest| attest.extra_data.push(0)), VerifyError::ExtraDataMismatch);
}

#[test]
fn other_pcrs_or_banks_than_asked_for_are_refused() {
    let mismatch = VerifyError::PcrSelectionMismatch;
    assert_eq!(signed_refusal(|attest| attest.selections[0].1[0] ^= 0x01), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections[0].1[2] ^= 0x01), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections[0].0 = 0x0004), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections.clear()), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections[0].1.push(0)), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections.push((0x0004, vec![0; 3]))), mismatch);
    assert_eq!(signed_refusal(|attest| attest.selections.push(attest.selections[0].clone())), mismatch);
}

#[test]
fn a_quote_over_fewer_or_more_pcrs_than_asked_for_is_refused() {
    let scene = scene();
    let tpm = scene.endorsed();
    for indices in [&PCRS[..3], &[0, 1, 7, 11, 23], &[1, 7, 11, 23]] {
        let extra_data = bind(tpm.ak().name()).tpm_extra_data();
        let quote = scene.tpm.quote(&scene.identity, indices, &extra_data);
        assert_eq!(scene.verify(quote).err(), Some(VerifyError::PcrSelectionMismatch));
    }
}

#[test]
fn pcr_values_that_are_not_those_of_the_quoted_pcrs_in_order_are_refused() {
    let scene = scene();
    let mismatch = VerifyError::PcrValuesMismatch;
    assert_eq!(refusal(&scene, |quote| quote.pcrs.swap(0, 1)), mismatch);
    assert_eq!(refusal(&scene, |quote| quote.pcrs[0].0 = 1), mismatch);
    assert_eq!(refusal(&scene, |quote| quote.pcrs.clear()), mismatch);
    assert_eq!(refusal(&scene, |quote| quote.pcrs.truncate(3)), mismatch);
    assert_eq!(refusal(&scene, |quote| quote.pcrs.push((24, [0; 32]))), mismatch);
    assert_eq!(refusal(&scene, |quote| quote.pcrs.insert(1, quote.pcrs[0])), mismatch);
}

#[test]
fn pcr_values_that_were_not_quoted_are_refused() {
    let mismatch = VerifyError::PcrDigestMismatch;
    assert_eq!(refusal(&scene(), |quote| quote.pcrs[2].1[31] ^= 1), mismatch);
    assert_eq!(signed_refusal(|attest| attest.pcr_digest[0] ^= 1), mismatch);
    assert_eq!(signed_refusal(|attest| attest.pcr_digest.truncate(31)), mismatch);
    assert_eq!(signed_refusal(|attest| attest.pcr_digest.clear()), mismatch);
}

#[test]
fn an_ak_that_is_not_restricted_is_refused_before_any_quote() {
    let mut scene = scene();
    scene.tpm.ak_public.attributes &= !(1 << 16);
    scene.identity.ak_public = scene.tpm.ak_public.bytes();
    let refusal = EndorsedTpm::verify(&scene.identity, &scene.anchors, NOW).err();
    assert_eq!(refusal, Some(VerifyError::AkNotRestricted));
}
