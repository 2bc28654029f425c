//! The public area of an AK: one field changed, one refusal.

use attestation::{AkName, AttestationKey, DecodeError, Sha256Digest, VerifyError};

use crate::common::public::{AK_ATTRIBUTES, AkPublic, Parameters};
use crate::common::tpm::SoftTpm;

fn ecc() -> AkPublic {
    SoftTpm::ecc().ak_public
}

fn rsa() -> AkPublic {
    SoftTpm::rsa().ak_public
}

fn refusal(public: &AkPublic) -> VerifyError {
    AttestationKey::parse(&public.bytes()).err().expect("is refused")
}

fn with_attributes(attributes: u32) -> VerifyError {
    refusal(&AkPublic { attributes, ..ecc() })
}

#[test]
fn the_name_of_a_good_key_is_that_of_its_public_area() {
    for public in [ecc(), rsa()] {
        let ak = AttestationKey::parse(&public.bytes()).unwrap();
        let digest = Sha256Digest::of(&public.bytes());
        assert_eq!(*ak.name().as_bytes(), [&[0x00, 0x0b], digest.as_bytes().as_slice()].concat()[..]);
        assert_eq!(AkName::try_from(ak.name().as_bytes().as_slice()), Ok(*ak.name()));
    }
}

#[test]
fn a_name_of_another_length_or_algorithm_is_refused() {
    let wrong = DecodeError::Length { expected: 34, found: 33 };
    assert_eq!(AkName::try_from([0; 33].as_slice()), Err(wrong));
    assert_eq!(AkName::try_from([0; 34].as_slice()), Err(DecodeError::NameAlgorithm));
}

#[test]
fn a_key_that_could_leave_its_tpm_or_sign_anything_is_refused() {
    let without = |bit: u32| with_attributes(AK_ATTRIBUTES & !(1 << bit));
    assert_eq!(without(1), VerifyError::AkNotFixedTpm);
    assert_eq!(without(4), VerifyError::AkNotFixedParent);
    assert_eq!(without(5), VerifyError::AkNotMadeByTpm);
    assert_eq!(without(16), VerifyError::AkNotRestricted);
    assert_eq!(without(18), VerifyError::AkNotSigning);
}

#[test]
fn a_key_that_does_more_than_sign_is_refused() {
    assert_eq!(with_attributes(AK_ATTRIBUTES | 1 << 17), VerifyError::AkDecrypts);
    for bit in (0..32).filter(|bit| AK_ATTRIBUTES & (1 << bit) == 0 && *bit != 17) {
        let bits = 1 << bit;
        assert_eq!(with_attributes(AK_ATTRIBUTES | bits), VerifyError::AkAttributesUnknown { bits });
    }
}

#[test]
fn who_may_use_a_key_is_its_tpms_affair() {
    let (user_with_auth, no_da) = (1 << 6, 1 << 10);
    for attributes in [AK_ATTRIBUTES & !user_with_auth, AK_ATTRIBUTES & !no_da] {
        assert!(AttestationKey::parse(&AkPublic { attributes, ..ecc() }.bytes()).is_ok());
    }
    let auth_policy = vec![7; 32];
    assert!(AttestationKey::parse(&AkPublic { auth_policy, ..ecc() }.bytes()).is_ok());
}

#[test]
fn an_auth_policy_is_empty_or_one_digest() {
    let with = |length| refusal(&AkPublic { auth_policy: vec![7; length], ..ecc() });
    let wrong = DecodeError::Length { expected: 32, found: 31 };
    assert_eq!(with(31), VerifyError::AkMalformed(wrong));
    assert_eq!(with(33), VerifyError::AkMalformed(DecodeError::TooLong { max: 32, found: 33 }));
}

#[test]
fn a_key_of_another_type_or_algorithm_is_refused() {
    let keyed_hash = 0x0008;
    assert_eq!(refusal(&AkPublic { kind: keyed_hash, ..ecc() }), VerifyError::AkTypeUnsupported { found: keyed_hash });
    let sha1 = 0x0004;
    assert_eq!(refusal(&AkPublic { name_algorithm: sha1, ..ecc() }), VerifyError::AkNameAlgorithm { found: sha1 });
    let aes = 0x0006;
    assert_eq!(refusal(&AkPublic { symmetric: aes, ..ecc() }), VerifyError::AkSymmetric { found: aes });
    for public in [ecc(), rsa()] {
        let scheme = public.scheme;
        assert_eq!(refusal(&AkPublic { hash: sha1, ..public }), VerifyError::AkScheme { scheme, hash: sha1 });
    }
    let (ecdaa, rsapss) = (0x001a, 0x0016);
    assert_eq!(refusal(&AkPublic { scheme: ecdaa, ..ecc() }), VerifyError::AkScheme { scheme: ecdaa, hash: 0 });
    assert_eq!(refusal(&AkPublic { scheme: rsapss, ..rsa() }), VerifyError::AkScheme { scheme: rsapss, hash: 0 });
}

#[test]
fn a_key_of_another_curve_or_size_is_refused() {
    let (p384, kdf1) = (0x0004, 0x0020);
    let curve = Parameters::Ecc { curve: p384, kdf: 0x0010 };
    assert_eq!(refusal(&AkPublic { parameters: curve, ..ecc() }), VerifyError::AkCurve { found: p384 });
    let kdf = Parameters::Ecc { curve: 0x0003, kdf: kdf1 };
    assert_eq!(refusal(&AkPublic { parameters: kdf, ..ecc() }), VerifyError::AkKdf { found: kdf1 });
    let bits = Parameters::Rsa { bits: 1024, exponent: 0 };
    assert_eq!(refusal(&AkPublic { parameters: bits, ..rsa() }), VerifyError::AkKeyBits { found: 1024 });
    let exponent = Parameters::Rsa { bits: 2048, exponent: 3 };
    assert_eq!(refusal(&AkPublic { parameters: exponent, ..rsa() }), VerifyError::AkExponent { found: 3 });
    let written_out = Parameters::Rsa { bits: 2048, exponent: 65537 };
    assert!(AttestationKey::parse(&AkPublic { parameters: written_out, ..rsa() }.bytes()).is_ok());
}

#[test]
fn a_point_or_modulus_of_another_size_is_refused() {
    let mut short = ecc();
    short.unique[1].pop();
    assert_eq!(refusal(&short), VerifyError::AkKeyMalformed);
    let mut short = rsa();
    short.unique[0].pop();
    assert_eq!(refusal(&short), VerifyError::AkKeyMalformed);
    let mut small = rsa();
    small.unique[0][0] = 0x7f;
    assert_eq!(refusal(&small), VerifyError::AkKeyMalformed);
}

#[test]
fn a_public_area_cut_short_or_with_bytes_behind_it_is_refused() {
    for public in [ecc().bytes(), rsa().bytes()] {
        for length in 0..public.len() {
            let refusal = AttestationKey::parse(&public[..length]).err();
            assert_eq!(refusal, Some(VerifyError::AkMalformed(DecodeError::Truncated)), "{length}");
        }
        let trailing = [public.as_slice(), &[0]].concat();
        let refusal = AttestationKey::parse(&trailing).err();
        assert_eq!(refusal, Some(VerifyError::AkMalformed(DecodeError::TrailingBytes)));
    }
}

#[test]
fn a_public_area_is_bounded() {
    let error = DecodeError::TooLong { max: 1024, found: 1025 };
    assert_eq!(AttestationKey::parse(&[0; 1025]).err(), Some(VerifyError::AkMalformed(error)));
}
