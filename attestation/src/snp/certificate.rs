//! One certificate of AMD's: names, key, signature. What the chain makes of it is in `chain`.

use der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use der::oid::ObjectIdentifier;
use der::oid::db::{rfc4519, rfc5280};
use der::{Decode, Tagged};
use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::extensions::LeafExtensions;
use crate::certificate::{CERTIFICATE_BYTES_MAX, RawCertificate, check_extensions, read_extension};
use crate::certificate_key::PublicKey;
use crate::encoding::{Sha256Digest, UnixTime};
use crate::error::{CertificateError, SignatureInvalid, SnpCertificate, SnpError};

/// id-RSASSA-PSS (RFC 4055 §3.1).
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// RSASSA-PSS-params (RFC 4055 §3.1): SHA-384, MGF1 with SHA-384, 48 bytes of salt. The only other form in use states
/// the default trailer field too, which DER does not allow and AMD's roots do.
const PSS_SHA384: [u8; 54] = [
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30,
];
/// trailerField [3] INTEGER 1.
const TRAILER_FIELD: [u8; 5] = [0xa3, 0x03, 0x02, 0x01, 0x01];

/// A certificate of version 3 whose critical extensions are all known. Nothing else about it is checked yet.
#[derive(Clone, Debug)]
pub(crate) struct AmdCertificate {
    raw: RawCertificate,
    common_name: Option<String>,
    /// Of its INTEGER, without leading zeros.
    serial: Vec<u8>,
    key: PublicKey,
    has_pss: bool,
    signature: Vec<u8>,
    validity: Validity,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    leaf_extensions: Result<LeafExtensions, SnpError>,
}

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
}

impl Validity {
    pub(crate) fn check(&self, now: UnixTime) -> Result<(), CertificateError> {
        if now < self.not_before {
            return Err(CertificateError::NotYetValid);
        }
        if now > self.not_after {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }
}

impl AmdCertificate {
    /// Reads exactly one DER certificate. A serial number of 0, which every VCEK has, is taken.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge { found: der.len() });
        }
        let raw = RawCertificate::parse(der).map_err(|_| CertificateError::Malformed)?;
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let tbs = parsed.tbs_certificate();
        if tbs.version() != Version::V3 {
            return Err(CertificateError::Version);
        }
        if tbs.signature() != parsed.signature_algorithm() {
            return Err(CertificateError::SignatureAlgorithmMismatch);
        }
        let extensions = tbs.extensions().map_or(&[][..], |extensions| extensions);
        check_extensions(extensions)?;
        // AMD makes no other one critical, and none of those that the checks of EK chains know is checked here.
        let harmless = [rfc5280::ID_CE_BASIC_CONSTRAINTS, rfc5280::ID_CE_KEY_USAGE];
        if extensions.iter().any(|extension| extension.critical && !harmless.contains(&extension.extn_id)) {
            return Err(CertificateError::CriticalExtensionUnknown);
        }
        let signature = parsed.signature().as_bytes().ok_or(CertificateError::Malformed)?;
        Ok(Self {
            raw,
            common_name: common_name(tbs.subject()),
            serial: tbs.serial_number().as_bytes().to_vec(),
            key: PublicKey::parse(tbs.subject_public_key_info())?,
            has_pss: is_pss_sha384(parsed.signature_algorithm()),
            signature: signature.to_vec(),
            validity: Validity {
                not_before: UnixTime(tbs.validity().not_before.to_unix_duration().as_secs()),
                not_after: UnixTime(tbs.validity().not_after.to_unix_duration().as_secs()),
            },
            basic_constraints: read_extension(extensions, rfc5280::ID_CE_BASIC_CONSTRAINTS)?,
            key_usage: read_extension(extensions, rfc5280::ID_CE_KEY_USAGE)?,
            leaf_extensions: LeafExtensions::read(extensions),
        })
    }

    /// The one common name of the subject.
    pub(crate) fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The subject, DER as it stands in the certificate.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.raw.subject
    }

    pub(crate) const fn validity(&self) -> Validity {
        self.validity
    }

    /// Names are compared byte by byte: an authority writes its own name as it was written.
    pub(crate) fn names_issuer(&self, issuer: &Self) -> bool {
        self.raw.issuer == issuer.raw.subject
    }

    /// SHA-256 of the SubjectPublicKeyInfo, DER as it stands in the certificate.
    pub(crate) fn key_digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.raw.public_key_info)
    }

    /// What the extensions of a VCEK or VLEK say.
    pub(crate) fn leaf_extensions(&self) -> Result<LeafExtensions, SnpError> {
        self.leaf_extensions.clone()
    }

    /// The uncompressed SEC1 point of a leaf.
    pub(crate) fn p384_point(&self) -> Result<&[u8], SnpError> {
        match &self.key {
            PublicKey::P384(point) if point.len() == 97 && point[0] == 4 => Ok(point),
            PublicKey::P384(_) | PublicKey::P256(_) | PublicKey::Rsa(_) => Err(SnpError::LeafKey),
        }
    }

    /// That it is an authority's, with `authorities_below` between it and the leaf.
    pub(crate) fn check_authority(&self, place: SnpCertificate, authorities_below: u8) -> Result<(), SnpError> {
        let refuse = |error| SnpError::Certificate { certificate: place, error };
        let constraints = self.basic_constraints.as_ref().filter(|constraints| constraints.ca);
        let constraints = constraints.ok_or(refuse(CertificateError::NotAuthority))?;
        if !self.key_usage.as_ref().is_some_and(KeyUsage::key_cert_sign) {
            return Err(refuse(CertificateError::NotCertificateSigner));
        }
        if constraints.path_len_constraint.is_some_and(|allowed| authorities_below > allowed) {
            return Err(refuse(CertificateError::PathTooLong));
        }
        if !self.key.is_rsa_4096() {
            return Err(SnpError::CertificateRsaKey(place));
        }
        Ok(())
    }

    /// That it may sign revocation lists.
    pub(crate) fn signs_crls(&self) -> bool {
        self.key_usage.as_ref().is_some_and(KeyUsage::crl_sign)
    }

    /// That it is no authority's, and where it says what its key is for (AMD's leaves do not), that it may sign.
    pub(crate) fn check_leaf(&self) -> Result<(), SnpError> {
        let is_authority = self.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca);
        let signs = |usage: &KeyUsage| usage.key_cert_sign() || usage.crl_sign();
        if is_authority || self.key_usage.as_ref().is_some_and(signs) {
            return Err(SnpError::LeafIsAuthority);
        }
        if self.key_usage.as_ref().is_some_and(|usage| !usage.digital_signature()) {
            return Err(SnpError::LeafKeyUsage);
        }
        Ok(())
    }

    /// That `issuer` has the name that it gives for its issuer, and signed it. `place` is its own.
    pub(crate) fn check_issued_by(&self, issuer: &Self, place: SnpCertificate) -> Result<(), SnpError> {
        let refuse = |error| SnpError::Certificate { certificate: place, error };
        if !self.names_issuer(issuer) {
            return Err(refuse(CertificateError::IssuerMismatch));
        }
        if !self.has_pss {
            return Err(SnpError::CertificatePss(place));
        }
        issuer
            .verify_pss(&self.raw.tbs, &self.signature)
            .map_err(|SignatureInvalid| refuse(CertificateError::SignatureInvalid))
    }

    /// Checks an RSASSA-PSS signature of this key: SHA-384, MGF1 with SHA-384, 48 bytes of salt.
    pub(crate) fn verify_pss(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        match &self.key {
            PublicKey::Rsa(key) => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
                .verify(message, signature)
                .map_err(|_| SignatureInvalid),
            PublicKey::P256(_) | PublicKey::P384(_) => Err(SignatureInvalid),
        }
    }
}

/// The one common name of a certificate that need not be AMD's.
pub(crate) fn subject_common_name(der: &[u8]) -> Option<String> {
    common_name(x509_cert::Certificate::from_der(der).ok()?.tbs_certificate().subject())
}

/// Whether a signature is RSASSA-PSS with exactly the parameters that AMD uses. With others the same bytes would be
/// another signature, so nothing is taken for a default.
pub(crate) fn is_pss_sha384(identifier: &AlgorithmIdentifierOwned) -> bool {
    let Some(parameters) = &identifier.parameters else { return false };
    let (body, explicit) = (&PSS_SHA384[2..], [&PSS_SHA384[2..], &TRAILER_FIELD].concat());
    identifier.oid == RSASSA_PSS
        && parameters.tag() == der::Tag::Sequence
        && (parameters.value() == body || parameters.value() == explicit)
}

/// Exactly one common name, in one of the string types that certificates use for it.
fn common_name(name: &Name) -> Option<String> {
    let mut names = name.iter().filter(|attribute| attribute.oid == rfc4519::COMMON_NAME);
    let (Some(only), None) = (names.next(), names.next()) else { return None };
    let value = &only.value;
    let text = match value.tag() {
        der::Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str(),
        der::Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str(),
        der::Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str(),
        _ => return None,
    };
    Some(text.to_owned())
}
