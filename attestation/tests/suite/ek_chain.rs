//! EK certificate chains: one thing changed, one refusal.

use attestation::{
    Anchor, CertificateError, EkKind, EndorsedEk, Sha256Digest, Trust, TrustAnchors, UnixTime, VerifyError,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512, PublicKeyData,
    date_time_ymd,
};

use crate::common::authority::{
    Authority, NOT_AFTER, NOT_BEFORE, NOW, extension, key_for, p256, rsa, subject_alt_name, unknown_extension,
};
use crate::common::tpm::{EkPublic, SoftTpm};
use crate::scene::trusting;

/// A root, an intermediate below it, and an EK certificate below that.
struct Vendor {
    root: Authority,
    intermediate: Authority,
    ek: Vec<u8>,
}

impl Vendor {
    fn new() -> Self {
        Self::with(|_| (), |_| (), |_| ())
    }

    fn with(
        root: impl FnOnce(&mut CertificateParams),
        intermediate: impl FnOnce(&mut CertificateParams),
        ek: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let root = Authority::root_with("root", p256(), root);
        let intermediate = root.intermediate_with("intermediate", p256(), intermediate);
        let ek = intermediate.endorse(&EkPublic::new(), ek);
        Self { root, intermediate, ek }
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.ek.clone(), self.intermediate.der.clone()]
    }

    fn verify(&self) -> Result<EndorsedEk, VerifyError> {
        EndorsedEk::verify(&self.chain(), &trusting(&self.root), NOW)
    }

    fn refusal(&self) -> VerifyError {
        self.verify().err().expect("is refused")
    }
}

fn refused(index: usize, error: CertificateError) -> VerifyError {
    VerifyError::EkCertificate { index, error }
}

#[test]
fn a_chain_to_an_anchor_names_platform_trust_and_anchor() {
    let vendor = Vendor::new();
    let ek = vendor.verify().unwrap();
    assert_eq!(ek.platform(), Sha256Digest::of(&EkPublic::new().subject_public_key_info()));
    assert_eq!((ek.trust(), ek.anchor()), (Trust::Emulated, "forge"));
}

#[test]
fn the_anchor_may_be_sent_along_or_be_an_intermediate() {
    let vendor = Vendor::new();
    let mut chain = vendor.chain();
    chain.push(vendor.root.der.clone());
    for (chain, anchor) in [
        (&chain[..], &vendor.root),
        (&chain[..2], &vendor.root),
        (&chain[..], &vendor.intermediate),
        (&chain[..2], &vendor.intermediate),
        (&chain[..1], &vendor.intermediate),
    ] {
        assert!(EndorsedEk::verify(chain, &trusting(anchor), NOW).is_ok(), "{} sent", chain.len());
    }
}

#[test]
fn the_anchor_nearest_to_the_ek_decides_trust() {
    let vendor = Vendor::new();
    let anchors = TrustAnchors::built_in()
        .with(vendor.root.anchor("root", Trust::Hardware))
        .and_then(|anchors| anchors.with(vendor.intermediate.anchor("intermediate", Trust::Emulated)))
        .unwrap();
    let ek = EndorsedEk::verify(&vendor.chain(), &anchors, NOW).unwrap();
    assert_eq!((ek.trust(), ek.anchor()), (Trust::Emulated, "intermediate"));
}

#[test]
fn issuers_may_be_rsa_or_ecdsa_on_p256_or_p256() {
    let keys =
        [rsa(&PKCS_RSA_SHA256), rsa(&PKCS_RSA_SHA384), rsa(&PKCS_RSA_SHA512), key_for(&PKCS_ECDSA_P384_SHA384), p256()];
    for key in keys {
        let root = Authority::root_with("root", key, |_| ());
        let ek = root.endorse(&EkPublic::new(), |_| ());
        assert!(EndorsedEk::verify(&[ek], &trusting(&root), NOW).is_ok());
    }
}

#[test]
fn a_chain_that_ends_at_no_anchor_is_refused() {
    let vendor = Vendor::new();
    let verify = |chain: &[_], anchors: &_| EndorsedEk::verify(chain, anchors, NOW).err();
    let unknown = Some(VerifyError::EkAnchorUnknown);
    assert_eq!(verify(&vendor.chain(), &TrustAnchors::built_in()), unknown);
    assert_eq!(verify(&vendor.chain(), &trusting(&Authority::root("other"))), unknown);
    assert_eq!(verify(&vendor.chain()[..1], &trusting(&vendor.root)), unknown);
}

#[test]
fn an_authority_with_the_anchors_name_but_another_key_is_refused() {
    let vendor = Vendor::new();
    let anchors = trusting(&Authority::root("root"));
    let refusal = EndorsedEk::verify(&vendor.chain(), &anchors, NOW).err();
    assert_eq!(refusal, Some(refused(1, CertificateError::SignatureInvalid)));
}

#[test]
fn no_certificate_and_too_many_are_refused() {
    let vendor = Vendor::new();
    let verify = |chain: &[_]| EndorsedEk::verify(chain, &trusting(&vendor.root), NOW).err();
    assert_eq!(verify(&[]), Some(VerifyError::EkCertificateMissing));
    assert_eq!(verify(&vec![vendor.ek.clone(); 7]), Some(VerifyError::EkCertificatesTooMany { found: 7 }));
}

#[test]
fn certificates_out_of_order_or_beside_the_chain_are_refused() {
    let vendor = Vendor::new();
    let verify = |chain: &[Vec<u8>]| EndorsedEk::verify(chain, &trusting(&vendor.root), NOW).err();
    let stranger = Authority::root("stranger");
    let [ek, intermediate, root] = [&vendor.ek, &vendor.intermediate.der, &vendor.root.der].map(Clone::clone);
    let beside = [ek.clone(), intermediate.clone(), stranger.der];
    assert_eq!(verify(&beside), Some(refused(1, CertificateError::IssuerMismatch)));
    let swapped = [ek.clone(), root, intermediate.clone()];
    assert_eq!(verify(&swapped), Some(refused(0, CertificateError::IssuerMismatch)));
    assert_eq!(verify(&[intermediate, ek]), Some(refused(0, CertificateError::EkIsAuthority)));
}

#[test]
fn an_issuer_of_the_right_name_that_did_not_sign_is_refused() {
    let vendor = Vendor::new();
    let namesake = vendor.root.intermediate("intermediate");
    let chain = [vendor.ek.clone(), namesake.der];
    let refusal = EndorsedEk::verify(&chain, &trusting(&vendor.root), NOW).err();
    assert_eq!(refusal, Some(refused(0, CertificateError::SignatureInvalid)));
}

#[test]
fn a_signature_of_another_kind_than_the_issuers_key_is_refused() {
    let ecdsa = Authority::root_with("root", p256(), |_| ());
    let rsa = Authority::root_with("root", rsa(&PKCS_RSA_SHA256), |_| ());
    for (signer, anchor) in [(&ecdsa, &rsa), (&rsa, &ecdsa)] {
        let ek = signer.endorse(&EkPublic::new(), |_| ());
        let refusal = EndorsedEk::verify(&[ek], &trusting(anchor), NOW).err();
        assert_eq!(refusal, Some(refused(0, CertificateError::SignatureInvalid)));
    }
}

#[test]
fn each_certificate_of_the_chain_must_be_valid_now() {
    let early = |params: &mut CertificateParams| params.not_after = date_time_ymd(2026, 1, 1);
    let late = |params: &mut CertificateParams| params.not_before = date_time_ymd(2028, 1, 1);
    let (expired, not_yet) = (CertificateError::Expired, CertificateError::NotYetValid);
    assert_eq!(Vendor::with(|_| (), |_| (), early).refusal(), refused(0, expired));
    assert_eq!(Vendor::with(|_| (), early, |_| ()).refusal(), refused(1, expired));
    assert_eq!(Vendor::with(early, |_| (), |_| ()).refusal(), refused(2, expired));
    assert_eq!(Vendor::with(|_| (), |_| (), late).refusal(), refused(0, not_yet));
    assert_eq!(Vendor::with(|_| (), late, |_| ()).refusal(), refused(1, not_yet));
    assert_eq!(Vendor::with(late, |_| (), |_| ()).refusal(), refused(2, not_yet));
}

#[test]
fn a_chain_ends_with_the_first_certificate_that_does() {
    let shorter = |params: &mut CertificateParams| params.not_after = date_time_ymd(2030, 1, 1);
    let end = UnixTime(1_893_456_000);
    assert_eq!(Vendor::new().verify().unwrap().not_after(), NOT_AFTER);
    assert_eq!(Vendor::with(|_| (), |_| (), shorter).verify().unwrap().not_after(), end);
    assert_eq!(Vendor::with(|_| (), shorter, |_| ()).verify().unwrap().not_after(), end);
    assert_eq!(Vendor::with(shorter, |_| (), |_| ()).verify().unwrap().not_after(), end);
}

#[test]
fn validity_includes_its_first_and_last_second() {
    let vendor = Vendor::new();
    let at = |now| EndorsedEk::verify(&vendor.chain(), &trusting(&vendor.root), now).err();
    assert_eq!((at(NOT_BEFORE), at(NOT_AFTER)), (None, None));
    assert_eq!(at(UnixTime(NOT_BEFORE.0 - 1)), Some(refused(0, CertificateError::NotYetValid)));
    assert_eq!(at(NOT_AFTER.plus(1)), Some(refused(0, CertificateError::Expired)));
}

#[test]
fn an_issuer_that_is_no_authority_is_refused() {
    let not_authority = refused(1, CertificateError::NotAuthority);
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        assert_eq!(Vendor::with(|_| (), |params| params.is_ca = is_ca, |_| ()).refusal(), not_authority);
    }
}

#[test]
fn an_issuer_whose_key_may_not_sign_certificates_is_refused() {
    let not_signer = refused(1, CertificateError::NotCertificateSigner);
    for usages in [vec![], vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature]] {
        assert_eq!(Vendor::with(|_| (), |params| params.key_usages = usages, |_| ()).refusal(), not_signer);
    }
}

#[test]
fn a_path_longer_than_an_authority_allows_is_refused() {
    let limit =
        |most| move |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
    assert!(Vendor::with(limit(1), limit(0), |_| ()).verify().is_ok());
    assert_eq!(Vendor::with(limit(0), |_| (), |_| ()).refusal(), refused(2, CertificateError::PathTooLong));

    let root = Authority::root("root");
    let upper = root.intermediate_with("upper", p256(), limit(0));
    let lower = upper.intermediate("lower");
    let chain = [lower.endorse(&EkPublic::new(), |_| ()), lower.der, upper.der];
    let refusal = EndorsedEk::verify(&chain, &trusting(&root), NOW).err();
    assert_eq!(refusal, Some(refused(2, CertificateError::PathTooLong)));
}

#[test]
fn an_authority_for_other_purposes_is_refused() {
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let vendor = Vendor::with(|_| (), for_servers, |_| ());
    assert_eq!(vendor.refusal(), refused(1, CertificateError::NotForEndorsement));
    for usage in [ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])] {
        assert!(Vendor::with(|_| (), |params| params.extended_key_usages = vec![usage], |_| ()).verify().is_ok());
    }
}

#[test]
fn an_ek_certificate_must_be_one() {
    let ek = |edit: fn(&mut CertificateParams)| Vendor::with(|_| (), |_| (), edit).refusal();
    let authority = ek(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(authority, refused(0, CertificateError::EkIsAuthority));

    let usage = refused(0, CertificateError::EkKeyUsage);
    assert_eq!(ek(|params| params.key_usages = vec![]), usage);
    assert_eq!(ek(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]), usage);
    assert_eq!(ek(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), usage);

    let purpose = refused(0, CertificateError::NotForEndorsement);
    assert_eq!(ek(|params| params.extended_key_usages = vec![]), purpose);
    assert_eq!(ek(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]), purpose);
}

#[test]
fn an_ecc_ek_is_for_key_agreement_and_for_nothing_else() {
    let root = Authority::root("root");
    for kind in [EkKind::EccP256, EkKind::EccP384] {
        let ek = SoftTpm::with_ek(kind).ek.public();
        let with = |usages: Vec<KeyUsagePurpose>| {
            EndorsedEk::verify(&[root.endorse(&ek, |params| params.key_usages = usages)], &trusting(&root), NOW)
        };
        let agrees = with(vec![KeyUsagePurpose::KeyAgreement]).unwrap();
        assert_eq!(agrees.platform(), Sha256Digest::of(&ek.subject_public_key_info()), "{kind:?}");
        let usage = Some(refused(0, CertificateError::EkKeyUsage));
        assert_eq!(with(vec![KeyUsagePurpose::KeyEncipherment]).err(), usage);
        assert_eq!(with(vec![KeyUsagePurpose::KeyAgreement, KeyUsagePurpose::KeyCertSign]).err(), usage);
    }
}

#[test]
fn a_subject_alt_name_without_the_tpms_maker_is_refused() {
    let dns_name = [0x30, 0x03, 0x82, 0x01, b'a'];
    let named = |content: &[u8]| {
        let extension = subject_alt_name(content);
        Vendor::with(|_| (), |_| (), |params| params.custom_extensions = vec![extension]).refusal()
    };
    assert_eq!(named(&dns_name), refused(0, CertificateError::EkSubjectAltName));
    assert_eq!(named(&[0x30, 0x05, 0x82]), refused(0, CertificateError::ExtensionMalformed));
}

#[test]
fn an_unknown_critical_extension_is_refused_anywhere_and_an_uncritical_one_ignored() {
    let critical = |params: &mut CertificateParams| params.custom_extensions.push(unknown_extension(true));
    let ignored = |params: &mut CertificateParams| params.custom_extensions.push(unknown_extension(false));
    let error = CertificateError::CriticalExtensionUnknown;
    assert_eq!(Vendor::with(|_| (), |_| (), critical).refusal(), refused(0, error));
    assert_eq!(Vendor::with(|_| (), critical, |_| ()).refusal(), refused(1, error));
    assert!(Vendor::with(ignored, ignored, ignored).verify().is_ok());
}

#[test]
fn any_certificate_policy_will_do_unless_one_is_demanded() {
    let any_policy = [0x30, 0x08, 0x30, 0x06, 0x06, 0x04, 0x55, 0x1d, 0x20, 0x00];
    let require_explicit_policy = [0x30, 0x03, 0x80, 0x01, 0x00];
    let policies =
        |params: &mut CertificateParams| params.custom_extensions.push(extension(&[2, 5, 29, 32], true, &any_policy));
    let demanded = |params: &mut CertificateParams| {
        params.custom_extensions.push(extension(&[2, 5, 29, 36], true, &require_explicit_policy))
    };
    assert!(Vendor::with(policies, policies, policies).verify().is_ok());
    let refusal = Vendor::with(|_| (), demanded, |_| ()).refusal();
    assert_eq!(refusal, refused(1, CertificateError::CriticalExtensionUnknown));
}

#[test]
fn an_extension_that_stands_twice_is_refused() {
    let twice = |params: &mut CertificateParams| {
        params.custom_extensions.extend([unknown_extension(false), unknown_extension(false)])
    };
    assert_eq!(Vendor::with(|_| (), |_| (), twice).refusal(), refused(0, CertificateError::ExtensionRepeated));
}

#[test]
fn keys_that_are_not_supported_are_refused() {
    let root = Authority::root("root");
    let verify = |ek: Vec<u8>| EndorsedEk::verify(&[ek], &trusting(&root), NOW).err();
    let unsupported = Some(refused(0, CertificateError::EkKeyUnsupported));
    // RSAPublicKey: the modulus is bytes 9 to 264, and the last byte is that of the exponent, 65537.
    assert_eq!(verify(root.endorse(&EkPublic::changed(|key| key[269] = 3), |_| ())), unsupported);
    assert_eq!(verify(root.endorse(&EkPublic::changed(|key| key[264] ^= 1), |_| ())), unsupported);
    assert_eq!(verify(root.endorse(&EkPublic::changed(|key| key.push(0)), |_| ())), unsupported);
    // 2047 bits: the modulus loses its first bit, and with it the zero byte before it.
    let shortened = |key: &mut Vec<u8>| {
        key[9] &= 0x7f;
        key.remove(8);
        (key[3], key[7]) = (0x09, 0x00);
    };
    assert_eq!(verify(root.endorse(&EkPublic::changed(shortened), |_| ())), unsupported);
    let point = [&[4], [7; 64].as_slice()].concat();
    let p521 = [&[4], [7; 132].as_slice()].concat();
    let off_curve = root.endorse(&EkPublic::of(&point, &PKCS_ECDSA_P256_SHA256), |_| ());
    assert_eq!(verify(off_curve), Some(refused(0, CertificateError::EkPoint)));
    let of_the_other_curve = root.endorse(&EkPublic::of(&p521, &PKCS_ECDSA_P384_SHA384), |_| ());
    assert_eq!(verify(of_the_other_curve), Some(refused(0, CertificateError::EkPoint)));
    let edwards = root.endorse(&key_for(&PKCS_ED25519), |_| ());
    assert_eq!(verify(edwards), Some(refused(0, CertificateError::KeyUnsupported)));
}

#[test]
fn a_certificate_that_is_not_exactly_one_der_certificate_is_refused() {
    let vendor = Vendor::new();
    let verify = |ek: Vec<u8>| {
        let chain = [ek, vendor.intermediate.der.clone()];
        EndorsedEk::verify(&chain, &trusting(&vendor.root), NOW).err()
    };
    let malformed = Some(refused(0, CertificateError::Malformed));
    assert_eq!(verify(Vec::new()), malformed);
    assert_eq!(verify([vendor.ek.as_slice(), &[0]].concat()), malformed);
    assert_eq!(verify(vendor.ek[..vendor.ek.len() - 1].to_vec()), malformed);
    let padded = [vendor.ek.as_slice(), &[0xff; 4096]].concat();
    let found = padded.len();
    assert_eq!(verify(padded), Some(refused(0, CertificateError::TooLarge { found })));
}

#[test]
fn a_certificate_of_version_2_is_refused() {
    let vendor = Vendor::new();
    let refusal = with_ek(&vendor, &[0xa0, 0x03, 0x02, 0x01, 0x02], &[0xa0, 0x03, 0x02, 0x01, 0x01], 0);
    assert_eq!(refusal, refused(0, CertificateError::Version));
}

#[test]
fn signature_algorithms_that_differ_or_are_not_supported_are_refused() {
    // ecdsa-with-SHA256 becomes ecdsa-with-SHA512: in what is signed alone, or in both places.
    let (sha256, sha512) = ([0xce, 0x3d, 0x04, 0x03, 0x02], [0xce, 0x3d, 0x04, 0x03, 0x04]);
    let vendor = Vendor::new();
    let inner = with_ek(&vendor, &sha256, &sha512, 0);
    assert_eq!(inner, refused(0, CertificateError::SignatureAlgorithmMismatch));
    let once = replaced(&vendor.ek, &sha256, &sha512, 0);
    let vendor = Vendor { ek: once, ..vendor };
    let both = with_ek(&vendor, &sha256, &sha512, 0);
    assert_eq!(both, refused(0, CertificateError::SignatureAlgorithmUnsupported));
}

#[test]
fn the_signature_of_an_anchor_itself_does_not_count() {
    let vendor = Vendor::new();
    let (sha256, sha512) = ([0xce, 0x3d, 0x04, 0x03, 0x02], [0xce, 0x3d, 0x04, 0x03, 0x04]);
    let der = replaced(&replaced(&vendor.root.der, &sha256, &sha512, 0), &sha256, &sha512, 0);
    let anchor = Anchor { certificate: der, ..vendor.root.anchor("old", Trust::Hardware) };
    let anchors = TrustAnchors::built_in().with(anchor).unwrap();
    assert!(EndorsedEk::verify(&vendor.chain(), &anchors, NOW).is_ok());
}

/// The refusal of a chain whose EK certificate has the `nth` occurrence of some bytes replaced.
fn with_ek(vendor: &Vendor, from: &[u8], to: &[u8], nth: usize) -> VerifyError {
    let chain = [replaced(&vendor.ek, from, to, nth), vendor.intermediate.der.clone()];
    EndorsedEk::verify(&chain, &trusting(&vendor.root), NOW).err().expect("is refused")
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8], nth: usize) -> Vec<u8> {
    let at = bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at);
    let at = at.clone().nth(nth).expect("there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
