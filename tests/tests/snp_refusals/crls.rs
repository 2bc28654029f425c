//! Revocation lists.

use attestation::{CrlRule, SnpCertificate, SnpError, UnixTime};
use vault_tests::forge::amd::{ARK_SERIAL, ASK_SERIAL, ASVK_SERIAL, Crl, Extension, Name, Product};
use vault_tests::forge::keys::{RsaKey, Scheme};

use super::{Input, NOW, Output, with_input, with_output};

/// What becomes of good evidence if its list changes before it is signed.
fn with_list(change: impl FnOnce(&mut Crl)) -> SnpError {
    with_input(|it| change(&mut it.crls[0]))
}

#[test]
fn what_is_listed() {
    let revoked = with_list(|it| *it = it.clone().revoking(ASVK_SERIAL).revoking(ASK_SERIAL));
    assert_eq!(revoked, SnpError::Revoked(SnpCertificate::Intermediate));
    let root = with_list(|it| *it = it.clone().revoking(ARK_SERIAL));
    assert_eq!(root, SnpError::Revoked(SnpCertificate::Root));
    // Of the two lists that may be there, either counts.
    let second = with_input(|it| it.crls.push(it.crls[0].clone().revoking(ASK_SERIAL)));
    assert_eq!(second, SnpError::Revoked(SnpCertificate::Intermediate));

    let mut others = Input::new(Product::Milan);
    others.crls[0] = others.crls[0].clone().revoking(ASVK_SERIAL).revoking(7);
    assert!(Output::good(&others).verify().is_ok(), "others are listed");
    let mut leased = Input::leased();
    leased.crls[0] = leased.crls[0].clone().revoking(ASVK_SERIAL);
    assert_eq!(Output::good(&leased).refusal(), SnpError::Revoked(SnpCertificate::Intermediate));
}

#[test]
fn a_list_that_is_required_is_there_and_in_force() {
    assert_eq!(with_output(|it| it.evidence.crls.clear()), SnpError::CrlMissing);
    assert_eq!(with_list(|it| it.next_update = Some(NOW - 1)), SnpError::CrlStale);
    assert_eq!(with_list(|it| it.this_update = NOW + 1), SnpError::CrlNotYetValid);
    assert_eq!(with_list(|it| it.next_update = None), SnpError::CrlNextUpdateMissing);
    let mut output = Output::good(&Input::new(Product::Milan));
    output.now = UnixTime(NOW as u64 + 20 * 86_400);
    assert_eq!(output.refusal(), SnpError::CrlStale);
    output.rule = CrlRule::IfPresent;
    assert!(output.verify().is_ok());
}

#[test]
fn what_a_stale_list_revokes_stays_revoked() {
    let mut input = Input::new(Product::Milan);
    input.crls[0] = Crl { next_update: Some(NOW - 1), ..input.crls[0].clone() }.revoking(ASK_SERIAL);
    let mut output = Output::good(&input);
    output.rule = CrlRule::IfPresent;
    assert_eq!(output.refusal(), SnpError::Revoked(SnpCertificate::Intermediate));
}

#[test]
fn who_signed_it_and_how() {
    assert_eq!(with_list(|it| it.signer = RsaKey::Stranger), SnpError::CrlSignatureInvalid);
    // An ASK may not say what the ARK revokes.
    assert_eq!(with_list(|it| it.signer = RsaKey::Ask), SnpError::CrlSignatureInvalid);
    assert_eq!(with_list(|it| it.issuer = Name::soft("SEV-Soft-Milan")), SnpError::CrlIssuer);
    assert_eq!(with_list(|it| it.issuer = Name::soft("ARK-Soft-Genoa")), SnpError::CrlIssuer);
    for scheme in [Scheme::PssSha384 { salt: 32 }, Scheme::PssSha256, Scheme::Pkcs1Sha384] {
        assert_eq!(with_list(|it| it.scheme = scheme), SnpError::CrlPss);
    }
    let no_lists = with_input(|it| *it.platform.authorities.ark.extension("2.5.29.15") = Extension::key_usage(0x04));
    assert_eq!(no_lists, SnpError::CrlIssuer, "the root may not sign lists");
    // issuingDistributionPoint: a list of a part of what is revoked.
    let part = Extension::new("2.5.29.28", true, vec![0x30, 0]);
    assert_eq!(with_list(|it| it.extensions.push(part)), SnpError::CrlExtension);
}

#[test]
fn form() {
    let with_bytes = |change: fn(&mut Vec<u8>)| with_output(|it| change(&mut it.evidence.crls[0]));
    assert_eq!(with_bytes(|it| it.push(0)), SnpError::CrlMalformed);
    assert_eq!(with_bytes(Vec::clear), SnpError::CrlMalformed);
    assert_eq!(with_bytes(|it| it.resize(65_537, 0)), SnpError::CrlTooLarge { found: 65_537 });
    // INTEGER 0, which is version 1.
    assert_eq!(with_bytes(|it| it[10] = 0), SnpError::CrlVersion);
    let more = |it: &mut Input| it.crls.extend([it.crls[0].clone(), it.crls[0].clone()]);
    assert_eq!(with_input(more), SnpError::CrlsTooMany { found: 3 });
}
