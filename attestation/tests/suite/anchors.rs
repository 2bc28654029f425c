//! What can be a trust anchor.

use attestation::{ANCHORS_MAX, Anchor, AnchorError, CertificateError, Trust, TrustAnchors};
use rcgen::{CertificateParams, IsCa};

use crate::common::authority::{Authority, NOT_AFTER, p256};
use crate::common::tpm::EkPublic;

fn add(anchors: TrustAnchors, anchor: Anchor) -> Result<TrustAnchors, AnchorError> {
    anchors.with(anchor)
}

fn refusal(anchor: Anchor) -> Option<AnchorError> {
    add(TrustAnchors::built_in(), anchor).err()
}

#[test]
fn anchors_keep_their_order_and_what_they_vouch_for() {
    let anchors = TrustAnchors::built_in()
        .with(Authority::root("one").anchor("one", Trust::Hardware))
        .and_then(|anchors| anchors.with(Authority::root("two").anchor("two", Trust::Emulated)))
        .unwrap();
    let seen: Vec<_> = anchors.iter().map(|(anchor, end)| (anchor.name.as_str(), anchor.trust, end)).collect();
    assert_eq!(seen, [("one", Trust::Hardware, NOT_AFTER), ("two", Trust::Emulated, NOT_AFTER)]);
}

#[test]
fn an_anchor_must_have_a_proper_name() {
    assert_eq!(refusal(Authority::root("root").anchor("Root", Trust::Emulated)), Some(AnchorError::Name));
}

#[test]
fn two_anchors_of_one_name_or_one_key_are_refused() {
    let root = Authority::root("root");
    let anchors = || TrustAnchors::built_in().with(root.anchor("root", Trust::Emulated)).unwrap();
    let renamed = add(anchors(), root.anchor("other", Trust::Hardware)).err();
    assert_eq!(renamed, Some(AnchorError::KeyRepeated));
    let namesake = add(anchors(), Authority::root("other").anchor("root", Trust::Hardware)).err();
    assert_eq!(namesake, Some(AnchorError::NameRepeated));
}

#[test]
fn there_is_a_limit() {
    let root = |number: usize| Authority::root("root").anchor(&format!("root-{number}"), Trust::Emulated);
    let full =
        (0..ANCHORS_MAX).try_fold(TrustAnchors::built_in(), |anchors, number| anchors.with(root(number))).unwrap();
    assert_eq!(full.with(root(ANCHORS_MAX)).err(), Some(AnchorError::TooMany));
}

#[test]
fn a_certificate_that_is_not_an_authoritys_is_refused() {
    let root = Authority::root("root");
    let certificate = root.endorse(&EkPublic::new(), |_| ());
    let ek = Anchor { certificate, ..root.anchor("root", Trust::Emulated) };
    assert_eq!(refusal(ek), Some(AnchorError::Certificate(CertificateError::NotAuthority)));

    let not_signer = Authority::root_with("root", p256(), |params: &mut CertificateParams| params.key_usages.clear());
    let error = CertificateError::NotCertificateSigner;
    assert_eq!(refusal(not_signer.anchor("root", Trust::Emulated)), Some(AnchorError::Certificate(error)));

    let not_authority = Authority::root_with("root", p256(), |params| params.is_ca = IsCa::NoCa);
    let error = CertificateError::NotAuthority;
    assert_eq!(refusal(not_authority.anchor("root", Trust::Emulated)), Some(AnchorError::Certificate(error)));
}

#[test]
fn pem_is_one_block_and_nothing_else() {
    let root = Authority::root("root");
    let pem = root.pem();
    let read = |pem: &str| Anchor::from_pem("root", Trust::Hardware, pem);
    let expected = root.anchor("root", Trust::Hardware);
    assert_eq!(read(&pem), Ok(expected.clone()));
    assert_eq!(read(&format!("\n{pem}\n\n")), Ok(expected));
    for wrong in [
        String::new(),
        format!("{pem}{pem}"),
        format!("{pem}and more"),
        format!("before\n{pem}"),
        pem.replace("CERTIFICATE", "PUBLIC KEY"),
        pem.replacen("CERTIFICATE", "TRUSTED CERTIFICATE", 1),
        pem.replace("-----END CERTIFICATE-----", ""),
    ] {
        assert_eq!(read(&wrong), Err(AnchorError::Pem), "{wrong}");
    }
}
