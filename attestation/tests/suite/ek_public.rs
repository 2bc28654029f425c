//! The public area of an EK: one thing changed, one refusal.

use attestation::{
    ActivationSecret, CertificateError, DecodeError, EkEndorsement, EkKind, EkPublic, EndorsedTpm, EnrolledEk,
    EnrolledEks, Sha256Digest, TpmIdentity, Trust, VerifyError,
};
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;

use crate::common::authority::{Authority, NOW};
use crate::common::tpm::SoftTpm;
use crate::scene::{Scene, trusting};

const KINDS: [EkKind; 3] = [EkKind::Rsa2048, EkKind::EccP256, EkKind::EccP384];

fn refusal(public: &[u8]) -> VerifyError {
    EkPublic::parse(public).err().expect("is refused")
}

#[test]
fn a_public_area_and_a_certificate_of_one_key_name_one_platform() {
    for kind in KINDS {
        let ek = SoftTpm::with_ek(kind).ek;
        let public = EkPublic::parse(&ek.public_area()).unwrap();
        assert_eq!(public.kind(), kind);
        assert_eq!(public.platform(), Sha256Digest::of(&ek.public().subject_public_key_info()));
        let (algorithm, length) = if kind == EkKind::EccP384 { (0x0c, 50) } else { (0x0b, 34) };
        assert_eq!((public.name()[..2].to_vec(), public.name().len()), (vec![0, algorithm], length));
    }
    let public = SoftTpm::with_ek(EkKind::EccP256).ek.public_area();
    let name = EkPublic::parse(&public).unwrap().name()[2..].to_vec();
    assert_eq!(name, Sha256Digest::of(&public).as_bytes());
}

#[test]
fn every_bit_before_the_key_is_the_templates() {
    for kind in KINDS {
        let public = SoftTpm::with_ek(kind).ek.public_area();
        for bit in 0..8 * kind.template_prefix().len() {
            let mut changed = public.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(refusal(&changed), VerifyError::EkTemplateUnknown, "{kind:?}, bit {bit}");
        }
    }
}

#[test]
fn a_key_of_another_size_or_off_its_curve_is_refused() {
    for kind in KINDS {
        let public = SoftTpm::with_ek(kind).ek.public_area();
        let at = kind.template_prefix().len();
        for length in 0..at {
            assert_eq!(refusal(&public[..length]), VerifyError::EkTemplateUnknown);
        }
        for length in at..public.len() {
            assert_eq!(refusal(&public[..length]), VerifyError::EkPublicMalformed(DecodeError::Truncated));
        }
        let trailing = [public.as_slice(), &[0]].concat();
        assert_eq!(refusal(&trailing), VerifyError::EkPublicMalformed(DecodeError::TrailingBytes));
        let mut changed = public.clone();
        *changed.last_mut().unwrap() ^= 1;
        let error =
            if kind == EkKind::Rsa2048 { CertificateError::EkKeyUnsupported } else { CertificateError::EkPoint };
        let refused = EkPublic::parse(&changed).err();
        // An even modulus is none; an odd one more than a good y is on no curve.
        assert_eq!(refused, Some(VerifyError::EkPublicKey(error)), "{kind:?}");
        let mut shorter = public.clone();
        shorter[at + 1] ^= 1;
        assert!(matches!(refusal(&shorter), VerifyError::EkPublicMalformed(_)), "{kind:?}");
    }
    let error = DecodeError::TooLong { max: 1024, found: 1025 };
    assert_eq!(refusal(&[0; 1025]), VerifyError::EkPublicMalformed(error));
}

#[test]
fn a_public_area_beside_a_certificate_is_of_the_same_key() {
    for kind in KINDS {
        let scene = Scene::new(SoftTpm::with_ek(kind));
        let mut identity = scene.identity.clone();
        identity.ek_public = scene.tpm.ek.public_area();
        assert!(EndorsedTpm::verify(&identity, &scene.anchors, NOW).is_ok(), "{kind:?}");
        for other in [EkKind::EccP256, EkKind::EccP384] {
            identity.ek_public = SoftTpm::with_ek(other).ek.public_area();
            let refused = EndorsedTpm::verify(&identity, &scene.anchors, NOW).err();
            assert_eq!(refused, Some(VerifyError::EkPublicOtherKey));
        }
        identity.ek_public = vec![1];
        let refused = EndorsedTpm::verify(&identity, &scene.anchors, NOW).err();
        assert_eq!(refused, Some(VerifyError::EkTemplateUnknown));
    }
}

#[test]
fn an_enrolled_ek_is_what_its_approvers_said_and_no_other_is() {
    let anchors = trusting(&Authority::root("root"));
    for kind in KINDS {
        let tpm = SoftTpm::with_ek(kind);
        let identity = tpm.bare_identity();
        let platform = identity.claimed_platform().unwrap();
        let eks = |platform| {
            let ek = EnrolledEk { label: "gpu-7".to_owned(), trust: Trust::Hardware };
            EnrolledEks::from_iter([(platform, ek)])
        };
        let verify = |identity: &_, eks: &_| EndorsedTpm::verify_or_enrolled(identity, &anchors, eks, NOW);
        let endorsed = verify(&identity, &eks(platform)).unwrap();
        let ek = endorsed.ek();
        assert_eq!((ek.platform(), ek.trust(), ek.anchor()), (platform, Trust::Hardware, "enrolled as gpu-7"));
        assert_eq!(ek.endorsement(), EkEndorsement::Enrolled);
        let credential =
            endorsed.make_credential(&ActivationSecret::from_bytes([9; 32]), &SystemRandom::new()).unwrap();
        assert_eq!(tpm.activate(&credential).unwrap(), [9; 32], "{kind:?}");

        let not_enrolled = Some(VerifyError::EkNotEnrolled { platform });
        assert_eq!(verify(&identity, &EnrolledEks::default()).err(), not_enrolled);
        assert_eq!(verify(&identity, &eks(Sha256Digest::of(b"another"))).err(), not_enrolled);
        let nothing = TpmIdentity { ek_public: Vec::new(), ..identity };
        assert_eq!(verify(&nothing, &eks(platform)).err(), Some(VerifyError::EkCertificateMissing));
        // A certificate counts alone, however its EK was enrolled.
        let certified = tpm.identity(&Authority::root("stranger"), &[]);
        assert_eq!(verify(&certified, &eks(platform)).err(), Some(VerifyError::EkAnchorUnknown));
    }
}

#[test]
fn a_public_area_endorses_nothing_without_a_certificate() {
    let identity = SoftTpm::with_ek(EkKind::EccP256).bare_identity();
    let refused = EndorsedTpm::verify(&identity, &trusting(&Authority::root("root")), NOW).err();
    assert_eq!(refused, Some(VerifyError::EkCertificateMissing));
}
