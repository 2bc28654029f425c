//! The forge of SEV-SNP against AMD's own bytes: what it makes of the values in a real report or certificate is that report or
//! certificate, bit for bit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "snp_forge/derived_keys.rs"]
mod derived_keys;
#[path = "snp_forge/key_server.rs"]
mod key_server;
#[path = "snp_forge/program.rs"]
mod program;
#[path = "snp_forge/served.rs"]
mod served;
#[path = "snp_forge/tlv.rs"]
mod tlv;
#[path = "snp_forge/vectors.rs"]
mod vectors;

use ring::signature::{ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use tlv::Tlv;
use vault_tests::forge::amd::{Authorities, Issued, Name, Product, Tcb, Vek, VekKind};
use vault_tests::forge::keys::Scheme;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::report::{Firmware, REPORT_LEN, Report, SIGNED_LEN, SigningKey, put_signature};

#[test]
fn every_real_report_comes_back_from_its_fields() {
    let mut versions = Vec::new();
    for folder in ["snp", "azure-snp-vtpm"] {
        for (name, bytes) in vectors::files(folder, "report.bin") {
            let report = read(&bytes);
            let mut again = report.encode();
            put_signature(&mut again, &read_signature(&bytes));
            assert_eq!(hex::encode(again), hex::encode(&bytes), "{name}");
            versions.push(report.version);
        }
    }
    for version in [2, 3, 5] {
        assert!(versions.is_empty() || versions.contains(&version), "no real report of version {version}");
    }
}

#[test]
fn every_real_vek_certificate_comes_back_from_its_values() {
    for (folder, file, kind) in [
        ("snp", "vcek.der", VekKind::Vcek),
        ("azure-snp-vtpm", "vcek.der", VekKind::Vcek),
        ("snp", "vlek.der", VekKind::Vlek),
    ] {
        for (name, bytes) in vectors::files(folder, file) {
            let body = Tlv::first(&bytes).0.at(&[0]);
            let vek = read_vek(body, kind);
            let organization = "Advanced Micro Devices".to_owned();
            let mut issued = vek.issued();
            issued.issuer.organization.clone_from(&organization);
            issued.issuer.common_name = issued.issuer.common_name.replace("-Soft", "");
            issued.subject.organization = organization;
            // AMD has left it out since 2024.
            issued.trailer = body.at(&[2, 1]).children().len() == 4;
            assert_eq!(hex::encode(issued.to_be_signed()), hex::encode(body.whole), "{name}");
        }
    }
}

#[test]
fn every_real_authority_comes_back_from_its_values() {
    for product in Product::ALL {
        let name = format!("{}_ask_ark_asvk.pem", product.name().to_lowercase());
        let Some((_, pem)) = vectors::files("snp", &name).pop() else { continue };
        let soft = Authorities::new(product);
        let real = vectors::certificates(&pem);
        assert_eq!(real.len(), 3);
        for (bytes, like) in real.iter().zip([soft.ask, soft.ark, soft.asvk]) {
            let body = Tlv::first(bytes).0.at(&[0]);
            assert_eq!(hex::encode(read_authority(body, like).to_be_signed()), hex::encode(body.whole), "{product:?}");
        }
    }
}

#[test]
fn soft_chains_and_reports_verify() {
    for product in Product::ALL {
        let milan = SoftPlatform::new(product);
        let leased = milan.clone().with(|platform| platform.vlek = Some("CN=cloud.invalid".to_owned()));
        for platform in [milan, leased] {
            let [vek, signer, ark] = platform.chain();
            assert_signed_by(&ark, &ark);
            assert_signed_by(&signer, &ark);
            assert_signed_by(&vek, &signer);
            for version in 2..=5 {
                let platform = platform.clone().with(|platform| platform.report_version = version);
                let report = platform.signed_report(&SoftGuest::new([7; 48]), [9; 64]);
                let key = Tlv::first(&vek).0.at(&[0, 6, 1]).content;
                let signature = read_signature(&report);
                let verifier = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &key[1..]);
                verifier.verify(&report[..SIGNED_LEN], &signature).expect("the VEK signed it");
            }
        }
    }
}

#[test]
fn soft_revocation_lists_verify() {
    let authorities = Authorities::new(Product::Milan);
    let empty = authorities.crl(1_800_000_000);
    let revoking = empty.clone().revoking(authorities.ask.serial);
    for list in [&empty, &revoking] {
        assert_signed_by(&list.der(), &authorities.ark.der());
    }
    let bytes = revoking.der();
    let entry = Tlv::first(&bytes).0.at(&[0, 5, 0]);
    assert_eq!(entry.at(&[0]).number(), authorities.ask.serial);
    assert_eq!(entry.at(&[1]).utc_time(), revoking.this_update);
}

#[test]
fn the_key_that_signs_follows_from_chip_and_reported_tcb() {
    let platform = SoftPlatform::new(Product::Genoa);
    let key = |platform: &SoftPlatform| platform.vek_key().public_key();
    assert_eq!(key(&platform), key(&platform.clone()));
    assert_eq!(key(&platform), key(&platform.clone().with(|it| it.platform_info = 0)));
    assert_ne!(key(&platform), key(&platform.clone().with(|it| it.chip_secret[0] ^= 1)));
    assert_ne!(key(&platform), key(&platform.clone().with(|it| it.reported.microcode -= 1)));
    assert_ne!(key(&platform), key(&platform.clone().with(|it| it.vlek = Some("CN=cloud.invalid".to_owned()))));
}

#[test]
fn other_schemes_are_signed_as_they_say() {
    let good = Authorities::new(Product::Milan).ask;
    let key = Tlv::first(&good.der()).0.at(&[0, 6, 1]).whole.len();
    assert!(key > 512, "RSA-4096");
    for scheme in [Scheme::PssSha384 { salt: 32 }, Scheme::PssSha256, Scheme::Pkcs1Sha384, Scheme::Pkcs1Sha256] {
        let other = Issued { scheme, ..good.clone() }.der();
        assert_eq!(Tlv::first(&other).0.at(&[1]).whole, scheme.identifier(true));
        assert!(is_signed_by(&other, &Authorities::new(Product::Milan).ark.der()).is_err(), "{scheme:?}");
    }
    let claimed = Issued { claimed_scheme: Some(Scheme::PssSha384 { salt: 32 }), ..good }.der();
    assert_signed_by(&claimed, &Authorities::new(Product::Milan).ark.der());
}

/// The fields of a report, at the offsets of the specification.
fn read(bytes: &[u8]) -> Report {
    assert_eq!(bytes.len(), REPORT_LEN);
    fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes[at..at + N].try_into().unwrap()
    }
    let u32_at = |at| u32::from_le_bytes(array(bytes, at));
    let u64_at = |at| u64::from_le_bytes(array(bytes, at));
    let firmware_at = |at: usize| Firmware { build: bytes[at], minor: bytes[at + 1], major: bytes[at + 2] };
    let key_info = u32_at(0x48);
    Report {
        version: u32_at(0),
        guest_svn: u32_at(4),
        policy: u64_at(8),
        family_id: array(bytes, 0x10),
        image_id: array(bytes, 0x20),
        vmpl: u32_at(0x30),
        sig_algo: u32_at(0x34),
        current_tcb: array(bytes, 0x38),
        platform_info: u64_at(0x40),
        author_key_en: key_info & 1 != 0,
        mask_chip_key: key_info & 2 != 0,
        signing_key: match key_info >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => SigningKey::Other(other.try_into().unwrap()),
        },
        report_data: array(bytes, 0x50),
        measurement: array(bytes, 0x90),
        host_data: array(bytes, 0xC0),
        id_key_digest: array(bytes, 0xE0),
        author_key_digest: array(bytes, 0x110),
        report_id: array(bytes, 0x140),
        report_id_ma: array(bytes, 0x160),
        reported_tcb: array(bytes, 0x180),
        cpuid: array(bytes, 0x188),
        chip_id: array(bytes, 0x1A0),
        committed_tcb: array(bytes, 0x1E0),
        current: firmware_at(0x1E8),
        committed: firmware_at(0x1EC),
        launch_tcb: array(bytes, 0x1F0),
        launch_mit_vector: u64_at(0x1F8),
        current_mit_vector: u64_at(0x200),
    }
}

/// r and s of a report, big-endian, 48 bytes each.
fn read_signature(report: &[u8]) -> [u8; 96] {
    let half = |at: usize| report[at..at + 48].iter().rev().copied();
    half(0x2A0).chain(half(0x2E8)).collect::<Vec<_>>().try_into().unwrap()
}

fn read_vek(body: Tlv<'_>, kind: VekKind) -> Vek {
    let extension = |tail: &str| {
        let id = hex::decode(format!("2b060104019c7801{tail}")).unwrap();
        let all = body.at(&[7, 0]).children();
        all.into_iter().find(|extension| extension.at(&[0]).content == id).map(|extension| extension.at(&[1]).content)
    };
    let value = |tail| extension(tail).map(|content| Tlv::first(content).0);
    let spl = |tail| value(tail).map_or(0, |number| number.number().try_into().unwrap());
    let issuer = body.at(&[3, 5, 0, 1]).text();
    let product = Product::ALL.into_iter().find(|product| issuer.ends_with(product.name())).unwrap();
    Vek {
        product,
        kind,
        public_key: body.at(&[6]).whole.to_vec(),
        struct_version: value("01").unwrap().number(),
        product_name: value("02").unwrap().text(),
        tcb: Tcb {
            fmc: spl("0309"),
            bootloader: spl("0301"),
            tee: spl("0302"),
            snp: spl("0303"),
            microcode: spl("0308"),
        },
        hwid: extension("04").map(<[u8]>::to_vec),
        csp_id: value("05").map(Tlv::text),
        not_before: body.at(&[4, 0]).utc_time(),
        not_after: body.at(&[4, 1]).utc_time(),
    }
}

/// A soft authority with the values of a real one in it; the order and the form of its parts stay the soft one's.
fn read_authority(body: Tlv<'_>, mut like: Issued) -> Issued {
    let name =
        |at: usize| Name { organization: body.at(&[at, 4, 0, 1]).text(), common_name: body.at(&[at, 5, 0, 1]).text() };
    assert_eq!(like.subject.common_name.replace("-Soft", ""), name(5).common_name);
    like.serial = body.at(&[1]).number();
    (like.issuer, like.subject) = (name(3), name(5));
    (like.not_before, like.not_after) = (body.at(&[4, 0]).utc_time(), body.at(&[4, 1]).utc_time());
    like.public_key = body.at(&[6]).whole.to_vec();
    for extension in body.at(&[7, 0]).children() {
        let parts = extension.children();
        let content = parts.last().unwrap().content;
        let id = match parts[0].content {
            [0x55, 0x1D, 14] => "2.5.29.14",
            [0x55, 0x1D, 35] => "2.5.29.35",
            [0x55, 0x1D, 31] => "2.5.29.31",
            _ => continue,
        };
        like.extension(id).content = content.to_vec();
    }
    like
}

fn assert_signed_by(signed: &[u8], issuer: &[u8]) {
    is_signed_by(signed, issuer).expect("the issuer signed it");
}

/// Whether the issuer's key signed a certificate or revocation list, as AMD signs.
fn is_signed_by(signed: &[u8], issuer: &[u8]) -> Result<(), ring::error::Unspecified> {
    let signed = Tlv::first(signed).0;
    let key = Tlv::first(issuer).0.at(&[0, 6, 1]).content;
    let verifier = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &key[1..]);
    verifier.verify(signed.at(&[0]).whole, &signed.at(&[2]).content[1..])
}
