//! Certificates that their issuer signed, and that are wrong in one thing.

use SnpCertificate::{Intermediate, Leaf, Root};
use attestation::{CertificateError, SigningKey, SnpCertificate, SnpError, SnpProduct};

use crate::asn1::{bit_string, boolean, integer, null, octet_string, oid, sequence, tlv};
use crate::soft::{BASIC_CONSTRAINTS, Certificate, KEY_USAGE, SIGNS_BOTH, Soft, chip, public_key};

const PRODUCT: &str = "1.3.6.1.4.1.3704.1.2";
const MICROCODE: &str = "1.3.6.1.4.1.3704.1.3.8";
const FMC: &str = "1.3.6.1.4.1.3704.1.3.9";
const HARDWARE_ID: &str = "1.3.6.1.4.1.3704.1.4";
const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";

pub(crate) fn certificate(certificate: SnpCertificate, error: CertificateError) -> SnpError {
    SnpError::Certificate { certificate, error }
}

fn place(soft: &mut Soft, place: SnpCertificate) -> &mut Certificate {
    match place {
        Leaf => &mut soft.leaf,
        Intermediate => &mut soft.ask,
        Root => &mut soft.ark,
    }
}

/// The refusal after a change of one certificate.
fn changed(at: SnpCertificate, change: impl FnOnce(&mut Certificate)) -> SnpError {
    Soft::milan().refusal(|soft| change(place(soft, at)))
}

pub(crate) fn rsa_key_info(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[integer(modulus), integer(exponent)]);
    public_key(&[oid("1.2.840.113549.1.1.1"), null()], &key)
}

/// A PSS algorithm in which one byte differs.
pub(crate) fn other_pss(byte: usize) -> Vec<u8> {
    let mut algorithm = crate::asn1::PSS_SHA384.to_vec();
    algorithm[byte] ^= 1;
    algorithm
}

#[test]
fn every_certificate_is_signed_with_the_one_pss_algorithm() {
    for at in [Leaf, Intermediate, Root] {
        // The salt's length, the hash, the mask's hash.
        for byte in [66, 29, 59] {
            assert_eq!(
                changed(at, |certificate| certificate.algorithm = other_pss(byte)),
                SnpError::CertificatePss(at)
            );
        }
        let sha384_with_rsa = sequence(&[oid("1.2.840.113549.1.1.12"), null()]);
        assert_eq!(changed(at, |certificate| certificate.algorithm = sha384_with_rsa), SnpError::CertificatePss(at));
    }
}

#[test]
fn certificate_that_states_the_default_trailer_field_is_taken() {
    let mut soft = Soft::milan();
    let parameters = [&crate::asn1::PSS_SHA384[15..], &[0xa3, 0x03, 0x02, 0x01, 0x01]].concat();
    soft.ask.algorithm = sequence(&[oid("1.2.840.113549.1.1.10"), tlv(0x30, &parameters)]);
    assert!(soft.verify().is_ok());
}

#[test]
fn dates_of_every_certificate_count() {
    for at in [Leaf, Intermediate, Root] {
        let expired = changed(at, |certificate| certificate.validity[1] = "260601000000Z");
        assert_eq!(expired, certificate(at, CertificateError::Expired));
        let early = changed(at, |certificate| certificate.validity[0] = "260801000000Z");
        assert_eq!(early, certificate(at, CertificateError::NotYetValid));
    }
}

#[test]
fn authorities_are_ones_and_the_leaf_is_none() {
    for at in [Intermediate, Root] {
        let no_ca = changed(at, |certificate| certificate.remove(BASIC_CONSTRAINTS));
        assert_eq!(no_ca, certificate(at, CertificateError::NotAuthority));
        let no_ca = changed(at, |certificate| certificate.extension(BASIC_CONSTRAINTS).2 = sequence(&[]));
        assert_eq!(no_ca, certificate(at, CertificateError::NotAuthority));
        let no_usage = changed(at, |certificate| certificate.remove(KEY_USAGE));
        assert_eq!(no_usage, certificate(at, CertificateError::NotCertificateSigner));
        // cRLSign alone.
        let crls = changed(at, |certificate| certificate.extension(KEY_USAGE).2 = vec![0x03, 0x02, 0x01, 0x02]);
        assert_eq!(crls, certificate(at, CertificateError::NotCertificateSigner));
        let mut exponent_3 = vec![0x80; 512];
        exponent_3[511] = 1;
        for key in [rsa_key_info(&[0x80; 256], &[1, 0, 1]), rsa_key_info(&exponent_3, &[3])] {
            let refused = changed(at, |certificate| certificate.key.clone_from(&key));
            let expected = if at == Root { SnpError::RootUnknown } else { SnpError::CertificateRsaKey(at) };
            assert_eq!(refused, expected);
        }
    }
    let path = sequence(&[boolean(true), integer(&[0])]);
    let refused = changed(Root, |certificate| certificate.extension(BASIC_CONSTRAINTS).2.clone_from(&path));
    assert_eq!(refused, certificate(Root, CertificateError::PathTooLong));
    let mut soft = Soft::milan();
    soft.ask.extension(BASIC_CONSTRAINTS).2 = path;
    assert!(soft.verify().is_ok(), "as AMD's ASKs have it");
    for extension in [(BASIC_CONSTRAINTS, true, sequence(&[boolean(true)])), (KEY_USAGE, true, SIGNS_BOTH.to_vec())] {
        assert_eq!(changed(Leaf, |leaf| leaf.extensions.push(extension)), SnpError::LeafIsAuthority);
    }
}

#[test]
fn key_of_a_leaf_that_says_what_it_is_for_may_sign() {
    let usage = |usage: u8| (KEY_USAGE, true, vec![0x03, 0x02, 0x00, usage]);
    let mut soft = Soft::milan();
    soft.leaf.extensions.push(usage(0x80));
    assert!(soft.verify().is_ok());
    // keyAgreement alone.
    assert_eq!(changed(Leaf, |leaf| leaf.extensions.push(usage(0x08))), SnpError::LeafKeyUsage);
}

#[test]
fn names_follow_amds_scheme_and_each_names_its_issuer() {
    for (at, names) in [
        (Leaf, vec!["VCEK", "SEV-VCEK ", "SEV-SVSM", ""]),
        (Intermediate, vec!["SEV-VLEK-Soft-Milan", "SEV-Soft-Genoa", "SEV-Milan", "SEV-Soft-milan", "ASK-Soft-Milan"]),
        (Root, vec!["ARK-Soft-Genoa", "ARK-Soft", "SEV-Soft-Milan", "ARK-Venice"]),
    ] {
        for name in names {
            let refused = Soft::milan().refusal(|soft| {
                place(soft, at).subject = name.to_owned();
                match at {
                    Leaf => (),
                    Intermediate => soft.leaf.issuer = name.to_owned(),
                    Root => (soft.ark.issuer, soft.ask.issuer) = (name.to_owned(), name.to_owned()),
                }
            });
            // Under a root for Genoa it is the intermediate that does not fit.
            let expected = if name == "ARK-Soft-Genoa" { Intermediate } else { at };
            assert_eq!(refused, SnpError::CertificateName(expected), "{name}");
        }
    }
    for at in [Leaf, Intermediate, Root] {
        let refused = changed(at, |certificate| certificate.issuer.push('x'));
        assert_eq!(refused, certificate(at, CertificateError::IssuerMismatch));
    }
}

#[test]
fn unknown_critical_extension_is_refused_anywhere() {
    for at in [Leaf, Intermediate, Root] {
        // One that nobody knows; extendedKeyUsage, which is looked at in an EK chain alone.
        for extension in [("1.2.3", null()), ("2.5.29.37", sequence(&[oid("2.5.29.37.0")]))] {
            let (id, value) = extension;
            let refused = changed(at, |certificate| certificate.extensions.push((id, true, value)));
            assert_eq!(refused, certificate(at, CertificateError::CriticalExtensionUnknown));
        }
        let twice = changed(at, |certificate| certificate.extensions.extend_from_within(..1));
        assert_eq!(twice, certificate(at, CertificateError::ExtensionRepeated));
    }
}

#[test]
fn key_of_the_leaf_is_on_p384() {
    let p256 = public_key(&[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")], &[4; 65]);
    let compressed = public_key(&[oid("1.2.840.10045.2.1"), oid("1.3.132.0.34")], &[2; 49]);
    for key in [p256, compressed] {
        assert_eq!(changed(Leaf, |leaf| leaf.key = key), SnpError::LeafKey);
    }
    let unsupported = sequence(&[sequence(&[oid("1.3.101.112")]), bit_string(&[0; 32])]);
    let refused = changed(Leaf, |leaf| leaf.key = unsupported);
    assert_eq!(refused, certificate(Leaf, CertificateError::KeyUnsupported));
}

#[test]
fn every_extension_of_the_leaf_is_needed_and_read_strictly() {
    let ids = [
        ("1.3.6.1.4.1.3704.1.1", "structure version"),
        ("1.3.6.1.4.1.3704.1.3.1", "boot loader patch level"),
        ("1.3.6.1.4.1.3704.1.3.2", "TEE patch level"),
        ("1.3.6.1.4.1.3704.1.3.3", "SNP patch level"),
        (MICROCODE, "microcode patch level"),
        (PRODUCT, "product"),
    ];
    for (id, extension) in ids {
        let missing = changed(Leaf, |leaf| leaf.remove(id));
        assert_eq!(missing, SnpError::LeafExtensionMissing { extension });
        // A number above 255, a negative one, not a number, something behind it.
        for value in [vec![2, 2, 1, 0], vec![2, 1, 0x80], octet_string(&[1]), vec![2, 1, 1, 0]] {
            let malformed = changed(Leaf, |leaf| leaf.extension(id).2 = value);
            assert_eq!(malformed, SnpError::LeafExtensionMalformed { extension });
        }
    }
    let version = changed(Leaf, |leaf| leaf.extension("1.3.6.1.4.1.3704.1.1").2 = integer(&[2]));
    assert_eq!(version, SnpError::LeafExtensionMalformed { extension: "structure version" });
    let reserved = changed(Leaf, |leaf| leaf.extension("1.3.6.1.4.1.3704.1.3.4").2 = integer(&[1]));
    assert_eq!(reserved, SnpError::LeafExtensionMalformed { extension: "reserved patch level" });
}

#[test]
fn product_of_the_leaf_is_that_of_its_issuers() {
    for name in ["Milan-B0", "Milan-B1"] {
        let mut soft = Soft::milan();
        soft.leaf.extension(PRODUCT).2 = tlv(0x16, name.as_bytes());
        assert!(soft.verify().is_ok());
    }
    let genoa = changed(Leaf, |leaf| leaf.extension(PRODUCT).2 = tlv(0x16, b"Genoa"));
    assert_eq!(genoa, SnpError::LeafProductMismatch { issuers: SnpProduct::Milan, leaf: SnpProduct::Genoa });
    let venice = changed(Leaf, |leaf| leaf.extension(PRODUCT).2 = tlv(0x16, b"Venice"));
    assert_eq!(venice, SnpError::LeafExtensionMalformed { extension: "product" });
}

#[test]
fn fmc_is_of_turin_alone() {
    let turin = Soft::new(SnpProduct::Turin, SigningKey::Vcek).refusal(|soft| soft.leaf.remove(FMC));
    assert_eq!(turin, SnpError::LeafExtensionMissing { extension: "FMC patch level" });
    let milan = changed(Leaf, |leaf| leaf.extensions.push((FMC, false, integer(&[0]))));
    assert_eq!(milan, SnpError::LeafExtensionUnexpected { extension: "FMC patch level" });
}

#[test]
fn vcek_names_a_chip_and_vlek_a_cloud() {
    let vlek = || Soft::new(SnpProduct::Milan, SigningKey::Vlek);
    let (cloud, id) = ((CSP_ID, false, tlv(0x16, b"CN=x")), (HARDWARE_ID, false, vec![1; 64]));
    let missing = |extension| SnpError::LeafExtensionMissing { extension };
    let unexpected = |extension| SnpError::LeafExtensionUnexpected { extension };
    assert_eq!(changed(Leaf, |leaf| leaf.remove(HARDWARE_ID)), missing("hardware id"));
    assert_eq!(changed(Leaf, |leaf| leaf.extensions.push(cloud)), unexpected("cloud"));
    assert_eq!(vlek().refusal(|soft| soft.leaf.remove(CSP_ID)), missing("cloud"));
    assert_eq!(vlek().refusal(|soft| soft.leaf.extensions.push(id)), unexpected("hardware id"));
    for value in [tlv(0x16, b""), tlv(0x16, &[b'x'; 257]), tlv(0x16, b"a\nb"), tlv(0x0c, b"CN=x")] {
        let refused = vlek().refusal(|soft| soft.leaf.extension(CSP_ID).2 = value);
        assert_eq!(refused, SnpError::LeafExtensionMalformed { extension: "cloud" });
    }
}

#[test]
fn hardware_id_may_stand_in_an_octet_string() {
    for product in SnpProduct::ALL {
        let mut soft = Soft::new(product, SigningKey::Vcek);
        let bare = soft.leaf.extension(HARDWARE_ID).2.clone();
        soft.leaf.extension(HARDWARE_ID).2 = octet_string(&bare);
        assert_eq!(soft.verify().unwrap().chip_id(), Some(&chip(product)));
        for value in [bare[1..].to_vec(), octet_string(&bare[1..]), [&bare[..], &[0]].concat(), Vec::new()] {
            let refused =
                Soft::new(product, SigningKey::Vcek).refusal(|soft| soft.leaf.extension(HARDWARE_ID).2 = value);
            assert_eq!(refused, SnpError::LeafExtensionMalformed { extension: "hardware id" });
        }
    }
}
