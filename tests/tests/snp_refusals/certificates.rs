//! The chain: what its certificates must be, each in its place.

use attestation::{
    Anchor, AnchorError, CertificateError, CrlRule, EndorsedReport, KeptChains, SnpCertificate, SnpError, Trust,
    TrustAnchors, VerifiedChain,
};
use vault_tests::forge::amd::{Authorities, Extension, Issued, Name, Product};
use vault_tests::forge::keys::{RsaKey, Scheme};

use super::tlv::Tlv;
use super::{Input, NOW, Output, anchors, vectors, with_input, with_leaf, with_output};

const PLACES: [SnpCertificate; 3] = [SnpCertificate::Leaf, SnpCertificate::Intermediate, SnpCertificate::Root];

fn refused(certificate: SnpCertificate, error: CertificateError) -> SnpError {
    SnpError::Certificate { certificate, error }
}

/// What becomes of a good chain if the certificate in this place changes before it is signed.
fn with_certificate(place: SnpCertificate, change: impl FnOnce(&mut Issued)) -> SnpError {
    match place {
        SnpCertificate::Leaf => with_leaf(change),
        SnpCertificate::Intermediate => with_input(|it| change(&mut it.platform.authorities.ask)),
        SnpCertificate::Root => with_input(|it| change(&mut it.platform.authorities.ark)),
    }
}

/// What becomes of it if bytes of that certificate are changed on the way.
fn with_bytes(place: SnpCertificate, change: impl FnOnce(&mut Vec<u8>)) -> SnpError {
    with_output(|it| change(&mut it.evidence.certificates[place as usize]))
}

fn replace_last(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).rposition(|window| window == old).expect("the bytes are there");
    bytes[at..at + old.len()].copy_from_slice(new);
}

#[test]
fn number_of_certificates() {
    for (count, place) in PLACES.into_iter().enumerate().take(2) {
        assert_eq!(with_output(|it| it.evidence.certificates.truncate(count)), SnpError::CertificateMissing(place));
    }
    let mut output = Output::good(&Input::new(Product::Milan));
    output.evidence.certificates.truncate(2);
    assert!(output.verify().is_ok(), "the policy has the root");
    output.anchors = anchors(Product::Genoa);
    assert_eq!(output.refusal(), SnpError::CertificateMissing(SnpCertificate::Root));
    let more = |it: &mut Output| it.evidence.certificates.push(it.evidence.certificates[0].clone());
    assert_eq!(with_output(more), SnpError::CertificatesTooMany { found: 4 });
}

#[test]
fn form_in_every_place() {
    for place in PLACES {
        let bytes = |change: fn(&mut Vec<u8>)| with_bytes(place, change);
        assert_eq!(bytes(|it| it.push(0)), refused(place, CertificateError::Malformed));
        assert_eq!(bytes(|it| it.truncate(it.len() - 1)), refused(place, CertificateError::Malformed));
        assert_eq!(bytes(|it| it.resize(4097, 0)), refused(place, CertificateError::TooLarge { found: 4097 }));
        let version = bytes(|it| replace_last(it, &[0xA0, 3, 2, 1, 2], &[0xA0, 3, 2, 1, 1]));
        assert_eq!(version, refused(place, CertificateError::Version));
        let outer = bytes(|it| replace_last(it, &[0xA2, 3, 2, 1, 48], &[0xA2, 3, 2, 1, 32]));
        assert_eq!(outer, refused(place, CertificateError::SignatureAlgorithmMismatch));
        let extension = |change: fn(&mut Issued)| with_certificate(place, change);
        let twice = extension(|it| it.extensions.push(it.extensions[0].clone()));
        assert_eq!(twice, refused(place, CertificateError::ExtensionRepeated));
        let unknown = extension(|it| it.extensions.push(Extension::new("1.2.3.4", true, vec![5, 0])));
        assert_eq!(unknown, refused(place, CertificateError::CriticalExtensionUnknown));
        // nameConstraints: known, but not looked at here.
        let unchecked = extension(|it| it.extensions.push(Extension::new("2.5.29.30", true, vec![0x30, 0])));
        assert_eq!(unchecked, refused(place, CertificateError::CriticalExtensionUnknown));
        let malformed = extension(|it| {
            it.remove_extension("2.5.29.19");
            it.extensions.push(Extension::new("2.5.29.19", true, vec![4, 0]));
        });
        assert_eq!(malformed, refused(place, CertificateError::ExtensionMalformed));
    }
}

#[test]
fn dates_in_every_place() {
    for place in PLACES {
        let expired = with_certificate(place, |it| it.not_after = NOW - 1);
        assert_eq!(expired, refused(place, CertificateError::Expired));
        let early = with_certificate(place, |it| it.not_before = NOW + 1);
        assert_eq!(early, refused(place, CertificateError::NotYetValid));
        let mut last = Input::new(Product::Milan);
        last.vek.not_after = NOW;
        last.platform.authorities.ask.not_before = NOW;
        assert!(Output::good(&last).verify().is_ok(), "both ends belong to it");
    }
}

#[test]
fn signatures_in_every_place() {
    let schemes = [Scheme::PssSha384 { salt: 32 }, Scheme::PssSha256, Scheme::Pkcs1Sha384, Scheme::Pkcs1Sha256];
    for place in PLACES {
        for scheme in schemes {
            assert_eq!(with_certificate(place, |it| it.scheme = scheme), SnpError::CertificatePss(place), "{scheme:?}");
            // The signature is good, but says that it is another.
            let claimed = with_certificate(place, |it| it.claimed_scheme = Some(scheme));
            assert_eq!(claimed, SnpError::CertificatePss(place), "{scheme:?}");
            // The other way round: what is said is right, what is there is not.
            let hidden = with_certificate(place, |it| {
                it.scheme = scheme;
                it.claimed_scheme = Some(Scheme::AMD);
            });
            assert_eq!(hidden, refused(place, CertificateError::SignatureInvalid), "{scheme:?}");
        }
        let stranger = with_certificate(place, |it| it.signer = RsaKey::Stranger);
        assert_eq!(stranger, refused(place, CertificateError::SignatureInvalid));
        let flipped = with_bytes(place, |it| *it.last_mut().unwrap() ^= 1);
        assert_eq!(flipped, refused(place, CertificateError::SignatureInvalid));
    }
}

#[test]
fn issuers() {
    for place in PLACES {
        let named = with_certificate(place, |it| it.issuer = Name::soft("SEV-Soft-Genoa"));
        assert_eq!(named, refused(place, CertificateError::IssuerMismatch));
        let owned = with_certificate(place, |it| it.issuer.organization = "Somebody".to_owned());
        assert_eq!(owned, refused(place, CertificateError::IssuerMismatch));
    }
    // ASK for ASVK: the name already says that it issues other leaves.
    let swapped = with_output(|it| it.evidence.certificates[1] = Authorities::new(Product::Milan).asvk.der());
    assert_eq!(swapped, SnpError::CertificateName(SnpCertificate::Intermediate));
}

#[test]
fn names() {
    let name = |place, name: &str| with_certificate(place, |it| it.subject = Name::soft(name));
    for wrong in ["SEV-XCEK", "VCEK", "", "SEV-VCEK ", "sev-vcek"] {
        assert_eq!(name(SnpCertificate::Leaf, wrong), SnpError::CertificateName(SnpCertificate::Leaf), "{wrong}");
    }
    // A VLEK's name needs a VLEK's issuer.
    assert_eq!(name(SnpCertificate::Leaf, "SEV-VLEK"), SnpError::CertificateName(SnpCertificate::Intermediate));
    for wrong in ["SEV-Milan", "SEV-Soft-Genoa", "SEV-Soft-", "ARK-Soft-Milan", "SEV-Soft-Milan-B0"] {
        let place = SnpCertificate::Intermediate;
        assert_eq!(name(place, wrong), SnpError::CertificateName(place), "{wrong}");
    }
    for wrong in ["SEV-Soft-Milan", "ARK-Soft-", "ARK-Soft-Venice", "ark-soft-milan"] {
        assert_eq!(name(SnpCertificate::Root, wrong), SnpError::CertificateName(SnpCertificate::Root), "{wrong}");
    }
    for other in ["ARK-Milan", "ARK-Soft-Genoa"] {
        let refusal = name(SnpCertificate::Root, other);
        assert_eq!(refusal, SnpError::CertificateName(SnpCertificate::Intermediate), "{other}");
    }
}

#[test]
fn authorities() {
    for place in [SnpCertificate::Intermediate, SnpCertificate::Root] {
        let none = with_certificate(place, |it| it.remove_extension("2.5.29.19"));
        assert_eq!(none, refused(place, CertificateError::NotAuthority));
        // SEQUENCE {}: cA is false by default.
        let not = with_certificate(place, |it| it.extension("2.5.29.19").content = vec![0x30, 0]);
        assert_eq!(not, refused(place, CertificateError::NotAuthority));
        let no_usage = with_certificate(place, |it| it.remove_extension("2.5.29.15"));
        assert_eq!(no_usage, refused(place, CertificateError::NotCertificateSigner));
        let lists_only = with_certificate(place, |it| *it.extension("2.5.29.15") = Extension::key_usage(0x02));
        assert_eq!(lists_only, refused(place, CertificateError::NotCertificateSigner));
    }
    let path = with_certificate(SnpCertificate::Root, |it| *it.extension("2.5.29.19") = Extension::authority(Some(0)));
    assert_eq!(path, refused(SnpCertificate::Root, CertificateError::PathTooLong));
    let small = with_certificate(SnpCertificate::Intermediate, |it| it.public_key = RsaKey::Small.public_key());
    assert_eq!(small, SnpError::CertificateRsaKey(SnpCertificate::Intermediate));
    let mut ark = Authorities::new(Product::Milan).ark;
    (ark.public_key, ark.signer) = (RsaKey::Small.public_key(), RsaKey::Small);
    let anchor = Anchor { name: "small".to_owned(), trust: Trust::Emulated, certificate: ark.der() };
    let refusal = TrustAnchors::built_in().with(anchor).unwrap_err();
    assert_eq!(refusal, AnchorError::SnpRoot(SnpError::CertificateRsaKey(SnpCertificate::Root)));
}

#[test]
fn roots() {
    assert_eq!(with_output(|it| it.anchors = TrustAnchors::built_in()), SnpError::RootUnknown);
    let foreign = with_input(|it| it.platform.authorities = Authorities::foreign(Product::Milan));
    assert_eq!(foreign, SnpError::RootUnknown);
    // The policy's root in the place of the stranger's: it did not sign that ASK.
    let mut output = Output::good(&Input::new(Product::Milan));
    output.evidence.certificates[1] = Authorities::foreign(Product::Milan).ask.der();
    assert_eq!(output.refusal(), refused(SnpCertificate::Intermediate, CertificateError::SignatureInvalid));
}

#[test]
fn a_pinned_root_is_for_its_own_product() {
    let Some((_, pem)) = vectors::files("snp", "milan_ask_ark_asvk.pem").pop() else { return };
    let ark = super::vectors::certificates(&pem).swap_remove(1);
    let amd_key = Tlv::first(&ark).0.at(&[0, 6]).whole.to_vec();
    let refusal = with_input(|it| {
        let all = &mut it.platform.authorities;
        (all.ark.public_key, all.ark.subject) = (amd_key, Name::soft("ARK-Genoa"));
        (all.ask.issuer, all.ask.subject) = (Name::soft("ARK-Genoa"), Name::soft("SEV-Genoa"));
    });
    assert_eq!(refusal, SnpError::RootProduct);
}

#[test]
fn a_chain_that_was_kept_is_the_one_of_the_evidence() {
    let input = Input::new(Product::Milan);
    let output = Output::good(&input);
    let Output { evidence, anchors: in_force, rule, now } = &output;
    let chain = VerifiedChain::verify(evidence, in_force, *rule, *now).unwrap();
    let verify = |evidence, anchors: &TrustAnchors, rule: CrlRule| {
        EndorsedReport::verify_with_chain(evidence, &chain, anchors, rule, *now).map(drop)
    };
    assert_eq!(verify(evidence, in_force, *rule), Ok(()));
    let other = Output::good(&Input::new(Product::Milan)).evidence;
    assert_eq!(verify(&other, in_force, *rule), Err(SnpError::ChainChanged));
    let mut without = evidence.clone();
    without.crls.clear();
    assert_eq!(verify(&without, in_force, CrlRule::IfPresent), Err(SnpError::ChainChanged));
    assert_eq!(verify(evidence, &anchors(Product::Genoa), *rule), Ok(()), "all soft roots have one key");
    assert_eq!(verify(evidence, &TrustAnchors::built_in(), *rule), Err(SnpError::ChainChanged));
}

#[test]
fn kept_chains_answer_as_a_verification_does() {
    let output = Output::good(&Input::new(Product::Milan));
    let Output { evidence, anchors: in_force, rule, now } = &output;
    let mut chains = KeptChains::default();
    let mut answers = |evidence: &_, anchors: &TrustAnchors, rule, now, kept| {
        let answer = chains.endorse(evidence, anchors, rule, now).map(EndorsedReport::into_claims);
        let cold = EndorsedReport::verify(evidence, anchors, rule, now).map(EndorsedReport::into_claims);
        assert_eq!(answer, cold);
        assert_eq!(chains.len(), kept);
        answer.err()
    };
    let mut forged = evidence.clone();
    forged.report[0x90] ^= 1;
    assert_eq!(
        answers(&forged, in_force, *rule, *now, 0),
        Some(SnpError::ReportSignatureInvalid),
        "its chain is not kept"
    );
    assert_eq!(answers(evidence, in_force, *rule, *now, 1), None);
    assert_eq!(answers(evidence, in_force, *rule, *now, 1), None, "it was kept");
    assert_eq!(answers(&forged, in_force, *rule, *now, 1), Some(SnpError::ReportSignatureInvalid));
    let years = now.plus(100 * 365 * 86400);
    assert_eq!(answers(evidence, in_force, *rule, years, 1).map(|error| error.code()), Some("certificate-expired"));
    let mut without = evidence.clone();
    without.crls.clear();
    assert_eq!(answers(&without, in_force, CrlRule::Required, *now, 1), Some(SnpError::CrlMissing));
    assert_eq!(answers(evidence, &TrustAnchors::built_in(), *rule, *now, 1), Some(SnpError::RootUnknown));
    let renamed = in_force.iter().fold(TrustAnchors::built_in(), |anchors, (anchor, _)| {
        anchors.with(Anchor { name: "another-name".to_owned(), ..anchor.clone() }).unwrap()
    });
    assert_eq!(answers(evidence, &renamed, *rule, *now, 1), None, "under the name of the policy in force");
}
