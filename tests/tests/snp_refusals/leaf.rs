//! What a VCEK or VLEK must say.

use attestation::{CertificateError, SnpCertificate, SnpError, SnpProduct};
use vault_tests::forge::amd::{Extension, Issued, Product};
use vault_tests::forge::keys::{RsaKey, p256_public_key};

use super::{Input, with_input, with_leaf};

const AMD: &str = "1.3.6.1.4.1.3704.1";

/// What the extensions say, as refusals name it.
const NUMBERS: [(&str, &str); 5] = [
    ("1", "structure version"),
    ("3.1", "boot loader patch level"),
    ("3.2", "TEE patch level"),
    ("3.3", "SNP patch level"),
    ("3.8", "microcode patch level"),
];

fn id(tail: &str) -> String {
    format!("{AMD}.{tail}")
}

fn missing(extension: &'static str) -> SnpError {
    SnpError::LeafExtensionMissing { extension }
}

fn malformed(extension: &'static str) -> SnpError {
    SnpError::LeafExtensionMalformed { extension }
}

fn unexpected(extension: &'static str) -> SnpError {
    SnpError::LeafExtensionUnexpected { extension }
}

/// What becomes of good evidence if the leaf changes before it is signed.
fn refusal(input: &Input, change: impl FnOnce(&mut Issued)) -> SnpError {
    let mut leaf = input.vek.issued();
    change(&mut leaf);
    input.output(&leaf, input.report(|_| {})).refusal()
}

#[test]
fn numbers() {
    for (tail, name) in NUMBERS {
        assert_eq!(with_leaf(|it| it.remove_extension(&id(tail))), missing(name));
        // An OCTET STRING, more than a byte, less than zero, and no number at all.
        for content in [&[4, 1, 1][..], &[2, 2, 1, 0], &[2, 1, 0xFF], &[2, 0], &[]] {
            assert_eq!(with_leaf(|it| it.extension(&id(tail)).content = content.to_vec()), malformed(name));
        }
    }
    assert_eq!(with_input(|it| it.vek.struct_version = 2), malformed("structure version"));
    for tail in ["3.4", "3.5", "3.6", "3.7"] {
        assert_eq!(with_leaf(|it| it.extension(&id(tail)).content = vec![2, 1, 1]), malformed("reserved patch level"));
    }
    let turin = Input::new(Product::Turin);
    assert_eq!(refusal(&turin, |it| it.remove_extension(&id("3.9"))), missing("FMC patch level"));
    let fmc = Extension::new(&id("3.9"), false, vec![2, 1, 0]);
    assert_eq!(with_leaf(|it| it.extensions.push(fmc)), unexpected("FMC patch level"));
}

#[test]
fn product() {
    assert_eq!(with_leaf(|it| it.remove_extension(&id("2"))), missing("product"));
    for name in ["Venice", "Milano", "", "-B0", "milan"] {
        assert_eq!(with_input(|it| it.vek.product_name = name.to_owned()), malformed("product"), "{name}");
    }
    // A UTF8String.
    assert_eq!(with_leaf(|it| it.extension(&id("2")).content = b"\x0c\x05Milan".to_vec()), malformed("product"));
    let mismatch = SnpError::LeafProductMismatch { issuers: SnpProduct::Milan, leaf: SnpProduct::Genoa };
    assert_eq!(with_input(|it| it.vek.product_name = "Genoa".to_owned()), mismatch);
}

#[test]
fn chip_or_cloud() {
    let (chip, cloud) = ("hardware id", "cloud");
    assert_eq!(with_input(|it| it.vek.hwid = None), missing(chip));
    for len in [0, 8, 63, 65] {
        assert_eq!(with_input(|it| it.vek.hwid = Some(vec![1; len])), malformed(chip));
    }
    let turin = Input::new(Product::Turin);
    let long = turin.platform.chip_id.to_vec();
    assert_eq!(refusal(&turin, |it| it.extension(&id("4")).content = long), malformed(chip));
    assert_eq!(with_input(|it| it.vek.csp_id = Some("CN=cloud.invalid".to_owned())), unexpected(cloud));

    let leased = Input::leased();
    assert_eq!(refusal(&leased, |it| it.remove_extension(&id("5"))), missing(cloud));
    let hwid = Extension::new(&id("4"), false, vec![1; 64]);
    assert_eq!(refusal(&leased, |it| it.extensions.push(hwid)), unexpected(chip));
    for content in [&b"\x16\x00"[..], b"\x0c\x01a", b"\x16\x01\x07", b"bare"] {
        assert_eq!(refusal(&leased, |it| it.extension(&id("5")).content = content.to_vec()), malformed(cloud));
    }
}

#[test]
fn key() {
    assert_eq!(with_leaf(|it| it.public_key = p256_public_key()), SnpError::LeafKey);
    assert_eq!(with_leaf(|it| it.public_key = RsaKey::Stranger.public_key()), SnpError::LeafKey);
    let ed25519 = hex::decode("302a300506032b6570032100").unwrap().into_iter().chain([7; 32]).collect();
    let unsupported =
        SnpError::Certificate { certificate: SnpCertificate::Leaf, error: CertificateError::KeyUnsupported };
    assert_eq!(with_leaf(|it| it.public_key = ed25519), unsupported);
}

#[test]
fn leaf_is_no_authority() {
    assert_eq!(with_leaf(|it| it.extensions.push(Extension::authority(None))), SnpError::LeafIsAuthority);
    for bits in [0x04, 0x02] {
        assert_eq!(with_leaf(|it| it.extensions.push(Extension::key_usage(bits))), SnpError::LeafIsAuthority);
    }
    // keyAgreement: not for signing.
    assert_eq!(with_leaf(|it| it.extensions.push(Extension::key_usage(0x08))), SnpError::LeafKeyUsage);
}
