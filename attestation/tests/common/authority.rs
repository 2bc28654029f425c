//! Certificate authorities of TPM vendors.

use attestation::{Anchor, Trust, UnixTime};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};

/// Inside the validity of every certificate that the forge makes.
pub const NOW: UnixTime = UnixTime(1_800_000_000);
/// The first second of every certificate: 2020-01-01.
pub const NOT_BEFORE: UnixTime = UnixTime(1_577_836_800);
/// The last second of every certificate: 2040-01-01.
pub const NOT_AFTER: UnixTime = UnixTime(2_208_988_800);

/// tcg-kp-EKCertificate.
pub const EK_CERTIFICATE: [u64; 5] = [2, 23, 133, 8, 1];

/// subjectAltName with one directoryName that holds tcg-at-tpmManufacturer "id:00000000".
pub const TPM_MAKER: &[u8] = &[
    0x30, 0x1f, 0xa4, 0x1d, 0x30, 0x1b, 0x31, 0x19, 0x30, 0x17, 0x06, 0x05, 0x67, 0x81, 0x05, 0x02, 0x01, 0x0c, 0x0e,
    b'i', b'd', b':', b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'0',
];

/// An authority with its key.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its certificate.
    pub der: Vec<u8>,
}

impl Authority {
    /// A self-signed root with a P-256 key.
    pub fn root(name: &str) -> Self {
        Self::root_with(name, p256(), |_| ())
    }

    /// A self-signed root, changed by `edit` before it is signed.
    pub fn root_with(name: &str, key: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name);
        edit(&mut params);
        let der = params.self_signed(&key).expect("a root").der().to_vec();
        Self { params, key, der }
    }

    /// An intermediate with a P-256 key.
    pub fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, p256(), |_| ())
    }

    /// An intermediate, changed by `edit` before it is signed.
    pub fn intermediate_with(&self, name: &str, key: KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name);
        edit(&mut params);
        let der = params.signed_by(&key, &self.issuer()).expect("an intermediate").der().to_vec();
        Self { params, key, der }
    }

    /// A certificate for an EK, changed by `edit` before it is signed.
    pub fn endorse(&self, ek: &impl PublicKeyData, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = endorsement_params();
        if ek.algorithm() == &PKCS_ECDSA_P256_SHA256 || ek.algorithm() == &PKCS_ECDSA_P384_SHA384 {
            params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        }
        edit(&mut params);
        params.signed_by(ek, &self.issuer()).expect("an EK certificate").der().to_vec()
    }

    /// Its certificate as a policy has it.
    pub fn pem(&self) -> String {
        let base64 = BASE64.encode(&self.der);
        let lines = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
        let lines: String = lines.collect();
        format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
    }

    /// It as a trust anchor.
    pub fn anchor(&self, name: &str, trust: Trust) -> Anchor {
        Anchor { name: name.to_owned(), trust, certificate: self.der.clone() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// A fresh P-256 key.
pub fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a P-256 key")
}

/// A fresh key for another algorithm.
pub fn key_for(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key")
}

/// An RSA-2048 key, always the same.
pub fn rsa(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    let key = include_bytes!("keys/authority.pk8").as_slice();
    KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), algorithm).expect("an RSA key")
}

/// An extension that is or is not critical.
pub fn extension(id: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(id, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// An extension that no one knows.
pub fn unknown_extension(critical: bool) -> CustomExtension {
    extension(&[1, 2, 3, 4], critical, &[5, 0])
}

/// subjectAltName with these bytes, critical as EK certificates have it.
pub fn subject_alt_name(content: &[u8]) -> CustomExtension {
    extension(&[2, 5, 29, 17], true, content)
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn endorsement_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE.to_vec())];
    params.custom_extensions = vec![subject_alt_name(TPM_MAKER)];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}
