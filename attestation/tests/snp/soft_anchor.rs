//! Which anchors endorse chips, and which TPMs.

use SnpCertificate::Root;
use attestation::{
    Anchor, AnchorError, AnchorKind, CertificateError, EndorsedEk, SnpCertificate, SnpError, Trust, TrustAnchors,
    VerifyError,
};

use crate::asn1::{oid, sequence};
use crate::soft::{Certificate, KEY_USAGE, Soft};
use crate::soft_chain::{certificate, rsa_key_info};
use crate::vectors::{all, folder};

fn anchor(name: &str, certificate: Vec<u8>) -> Anchor {
    Anchor { name: name.to_owned(), trust: Trust::Emulated, certificate }
}

#[test]
fn anchor_that_is_named_like_an_ark_endorses_chips_and_must_be_one() {
    let soft = Soft::milan();
    assert_eq!(soft.anchors.kind_of("soft"), Some(AnchorKind::Snp));
    let ark = soft.evidence().certificates.pop().unwrap();
    for name in ["amd-milan", "amd-genoa", "amd-turin"] {
        let refused = TrustAnchors::built_in().with(anchor(name, ark.clone())).unwrap_err();
        assert_eq!(refused, AnchorError::NameRepeated);
    }
    let mut broken = ark;
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let refused = TrustAnchors::built_in().with(anchor("soft", broken)).unwrap_err();
    assert_eq!(refused, AnchorError::SnpRoot(certificate(Root, CertificateError::SignatureInvalid)));
}

#[test]
fn anchor_named_like_an_ark_needs_the_key_of_one() {
    let mut soft = Soft::milan();
    soft.ark.key = rsa_key_info(&[0x80; 256], &[1, 0, 1]);
    let refused = TrustAnchors::built_in().with(anchor("soft", soft.evidence().certificates[2].clone())).unwrap_err();
    assert_eq!(refused, AnchorError::SnpRoot(SnpError::CertificateRsaKey(Root)));
}

#[test]
fn anchor_of_chips_endorses_no_tpm() {
    let soft = Soft::milan();
    let mut modulus = [0x80; 256];
    modulus[255] = 1;
    // An EK certificate that the ARK signed, right in all that an EK chain looks at before the signature.
    let ek = Certificate {
        serial: 1,
        issuer: soft.ark.subject.clone(),
        subject: "EK".to_owned(),
        key: rsa_key_info(&modulus, &[1, 0, 1]),
        extensions: vec![
            (KEY_USAGE, true, vec![0x03, 0x02, 0x05, 0x20]),
            ("2.5.29.37", false, sequence(&[oid("2.23.133.8.1")])),
        ],
        ..soft.leaf.clone()
    };
    let refused = EndorsedEk::verify(&[soft.sign_with_ark(&ek)], &soft.anchors, crate::vectors::NOW);
    assert_eq!(refused.err(), Some(VerifyError::EkAnchorUnknown));
}

#[test]
fn anchor_of_tpms_endorses_no_chip() {
    let mut soft = Soft::milan();
    soft.ark.subject = "Root-Soft-Milan".to_owned();
    (soft.ark.issuer, soft.ask.issuer) = (soft.ark.subject.clone(), soft.ark.subject.clone());
    let certificate = soft.evidence().certificates[2].clone();
    soft.anchors = TrustAnchors::built_in().with(anchor("tpm", certificate)).unwrap();
    assert_eq!(soft.anchors.kind_of("tpm"), Some(AnchorKind::Tpm));
    assert_eq!(soft.verify(), Err(SnpError::RootUnknown));
}

#[test]
fn policy_cannot_rename_a_root_of_amds_or_lower_its_trust() {
    for vector in all() {
        let ark = vector.evidence.certificates[2].clone();
        let refused = TrustAnchors::built_in().with(anchor("mine", ark)).unwrap_err();
        assert_eq!(refused, AnchorError::KeyRepeated);
    }
    assert!(folder("snp").is_none() || !all().is_empty());
}

#[test]
fn kept_chain_ends_with_its_anchor() {
    let soft = Soft::milan();
    let evidence = soft.evidence();
    let now = crate::vectors::NOW;
    let chain = attestation::VerifiedChain::verify(&evidence, &soft.anchors, soft.rule, now).unwrap();
    assert!(chain.check(&evidence, &soft.anchors, soft.rule, now).is_ok());
    let gone = chain.check(&evidence, &TrustAnchors::built_in(), soft.rule, now);
    assert_eq!(gone, Err(SnpError::ChainChanged));
    let ark = evidence.certificates[2].clone();
    let anchors = TrustAnchors::built_in().with(anchor("renamed", ark)).unwrap();
    assert_eq!(chain.check(&evidence, &anchors, soft.rule, now), Err(SnpError::ChainChanged));
}

#[test]
fn root_of_a_soft_platform_never_counts_as_hardware() {
    let ark = Soft::milan().evidence().certificates[2].clone();
    let refused = TrustAnchors::built_in().with(Anchor { trust: Trust::Hardware, ..anchor("soft", ark) }).unwrap_err();
    assert_eq!((refused, refused.code()), (AnchorError::SnpNotHardware, "anchor-snp-not-hardware"));
}
