//! Real certificates in wrong places.

use attestation::{CertificateError, SnpCertificate, SnpError, SnpEvidence, SnpProduct, UnixTime};
use ring::digest::{SHA256, digest};

use crate::vectors::{NOW, Vector, all, authorities, folder, named, verify};

/// The vector with its certificates changed by `change`, refused.
fn refusal(vector: &Vector, change: impl Fn(&mut Vec<Vec<u8>>)) -> SnpError {
    let mut evidence = vector.evidence.clone();
    change(&mut evidence.certificates);
    verify(&evidence, vector.now()).unwrap_err()
}

fn authorities_of(product: SnpProduct) -> [Vec<u8>; 3] {
    authorities(&folder("snp").unwrap().join("amd-roots"), product)
}

fn certificate(certificate: SnpCertificate, error: CertificateError) -> SnpError {
    SnpError::Certificate { certificate, error }
}

#[test]
fn pinned_keys_are_those_of_amds_roots() {
    let Some(_) = folder("snp") else { return };
    let expected = [
        (SnpProduct::Milan, "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
        (SnpProduct::Genoa, "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
        (SnpProduct::Turin, "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
    ];
    for (product, pin) in expected {
        let [_, ark, _] = authorities_of(product);
        assert_eq!(hex::encode(digest(&SHA256, &public_key_info(&ark))), pin);
    }
}

/// The SubjectPublicKeyInfo: the DER of the RSA-4096 key, found by how it starts.
fn public_key_info(ark: &[u8]) -> Vec<u8> {
    let start = [0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48];
    let at = ark.windows(start.len()).position(|window| window == start).unwrap();
    ark[at..at + 4 + 0x222].to_vec()
}

#[test]
fn missing_or_further_certificates_are_refused() {
    for vector in all() {
        let missing = |count| refusal(&vector, |chain| chain.truncate(count));
        assert_eq!(missing(0), SnpError::CertificateMissing(SnpCertificate::Leaf));
        assert_eq!(missing(1), SnpError::CertificateMissing(SnpCertificate::Intermediate));
        // The built-in roots are keys: the certificate must come with the evidence.
        assert_eq!(missing(2), SnpError::CertificateMissing(SnpCertificate::Root));
        let more = refusal(&vector, |chain| chain.push(chain[2].clone()));
        assert_eq!(more, SnpError::CertificatesTooMany { found: 4 });
    }
}

#[test]
fn certificate_above_4_kib_or_with_bytes_behind_it_is_refused() {
    let Some(vector) = named("milan-v3-oc") else { return };
    for (index, place) in [SnpCertificate::Leaf, SnpCertificate::Intermediate, SnpCertificate::Root].iter().enumerate()
    {
        let found = 4097;
        let large = refusal(&vector, |chain| chain[index].resize(found, 0));
        assert_eq!(large, certificate(*place, CertificateError::TooLarge { found }));
        let longer = refusal(&vector, |chain| chain[index].push(0));
        assert_eq!(longer, certificate(*place, CertificateError::Malformed));
    }
}

#[test]
fn authorities_of_another_product_are_refused() {
    for vector in all() {
        for product in SnpProduct::ALL.into_iter().filter(|product| *product != vector.product) {
            let [ask, ark, asvk] = authorities_of(product);
            let issuer = if vector.is_vlek() { asvk } else { ask };
            let all_other = refusal(&vector, |chain| *chain = vec![chain[0].clone(), issuer.clone(), ark.clone()]);
            assert_eq!(all_other, certificate(SnpCertificate::Leaf, CertificateError::IssuerMismatch));
            let other_root = refusal(&vector, |chain| chain[2].clone_from(&ark));
            assert_eq!(other_root, SnpError::CertificateName(SnpCertificate::Intermediate));
        }
    }
}

#[test]
fn issuer_of_the_other_kind_of_key_is_refused() {
    for vector in all() {
        let [ask, _, asvk] = authorities_of(vector.product);
        let other = if vector.is_vlek() { ask } else { asvk };
        let refused = refusal(&vector, |chain| chain[1].clone_from(&other));
        assert_eq!(refused, SnpError::CertificateName(SnpCertificate::Intermediate));
    }
}

#[test]
fn report_under_the_leaf_of_another_vector_is_refused() {
    let vectors = all();
    for vector in &vectors {
        for other in vectors.iter().filter(|other| other.evidence.certificates != vector.evidence.certificates) {
            let mut evidence = vector.evidence.clone();
            evidence.certificates.clone_from(&other.evidence.certificates);
            let refused = verify(&evidence, other.now()).unwrap_err();
            let expected = if vector.is_vlek() != other.is_vlek() {
                matches!(refused, SnpError::SigningKeyMismatch { .. })
            } else if vector.product == other.product {
                refused == SnpError::ReportSignatureInvalid
            } else if vector.report().version() >= 3 {
                matches!(refused, SnpError::ReportProductMismatch { .. })
            } else {
                matches!(refused, SnpError::ReportSignatureInvalid | SnpError::ReportReservedNotZero { .. })
            };
            assert!(expected, "{} under {}: {refused:?}", vector.name, other.name);
        }
    }
}

#[test]
fn chain_in_another_order_is_refused_and_select_puts_it_in_order() {
    for vector in all().iter().filter(|vector| !vector.is_debug()) {
        assert!(matches!(refusal(vector, |chain| chain.reverse()), SnpError::CertificateName(SnpCertificate::Leaf)));
        let mut certificates = vector.evidence.certificates.clone();
        for product in SnpProduct::ALL {
            certificates.extend(authorities_of(product));
        }
        certificates.push(named("milan-v3-vlek").unwrap().evidence.certificates[0].clone());
        certificates.push(vec![0x30, 0]);
        certificates.reverse();
        let selected = SnpEvidence::select(vector.evidence.report.clone(), &certificates, Vec::new());
        // A VLEK vector finds its own leaf, a VCEK vector too: the report says which kind it wants.
        assert_eq!(selected, vector.evidence, "{}", vector.name);
    }
}

#[test]
fn dates_count_at_both_ends_for_every_certificate() {
    let Some(vector) = named("milan-v3-oc") else { return };
    let at = |now: u64| verify(&vector.evidence, UnixTime(now)).map(|_| ());
    let end = vector.verify().unwrap().claims().not_after();
    assert_eq!(at(end.seconds()), Ok(()));
    assert_eq!(at(end.seconds() + 1), Err(certificate(SnpCertificate::Leaf, CertificateError::Expired)));
    // The leaf began in 2025, its issuers in 2020.
    assert_eq!(at(1_700_000_000), Err(certificate(SnpCertificate::Leaf, CertificateError::NotYetValid)));
    assert_eq!(at(NOW.seconds()), Ok(()));
}

#[test]
fn any_changed_byte_of_any_certificate_is_refused() {
    let Some(vector) = named("turin-v5-oc") else { return };
    for index in 0..3 {
        let length = vector.evidence.certificates[index].len();
        // Each refusal that reaches the signatures costs three RSA-4096; every seventh byte falls into every field.
        for at in (0..length).step_by(7) {
            let mut evidence = vector.evidence.clone();
            evidence.certificates[index][at] ^= 1;
            assert!(verify(&evidence, vector.now()).is_err(), "certificate {index}, byte {at}");
        }
    }
}
