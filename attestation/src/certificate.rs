//! One X.509 certificate: parsed with x509-cert, checked here, its signature verified with ring over the bytes as sent.

use der::oid::ObjectIdentifier;
use der::oid::db::rfc5280;
use der::{Decode, Reader, SliceReader};
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::certificate_key::{PublicKey, SignatureAlgorithm};
use crate::encoding::UnixTime;
use crate::error::CertificateError;

/// The most bytes of a certificate.
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 4096;

/// tcg-kp-EKCertificate (TCG EK Credential Profile, "Extended Key Usage").
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");

/// The extensions that these checks understand; of others none may be critical.
///
/// certificatePolicies is here because TPM vendors make it critical and any policy will do (RFC 5280 §6.1.1, (c)); an
/// authority that demands one says so in policyConstraints, which is not here.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 5] = [
    rfc5280::ID_CE_BASIC_CONSTRAINTS,
    rfc5280::ID_CE_CERTIFICATE_POLICIES,
    rfc5280::ID_CE_EXT_KEY_USAGE,
    rfc5280::ID_CE_KEY_USAGE,
    rfc5280::ID_CE_SUBJECT_ALT_NAME,
];

/// A certificate of version 3 whose critical extensions are all known. Nothing else about it is checked yet.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    raw: RawCertificate,
    key: PublicKey,
    /// Looked at when the signature is: an anchor's own, often of SHA-1, never is.
    signature_algorithm: Result<SignatureAlgorithm, CertificateError>,
    signature: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    extended_key_usage: Option<ExtendedKeyUsage>,
    subject_alt_name: Option<SubjectAltName>,
}

impl Certificate {
    /// Reads exactly one DER certificate.
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
        let signature = parsed.signature().as_bytes().ok_or(CertificateError::Malformed)?;
        Ok(Self {
            raw,
            key: PublicKey::parse(tbs.subject_public_key_info())?,
            signature_algorithm: SignatureAlgorithm::parse(parsed.signature_algorithm()),
            signature: signature.to_vec(),
            not_before: UnixTime(tbs.validity().not_before.to_unix_duration().as_secs()),
            not_after: UnixTime(tbs.validity().not_after.to_unix_duration().as_secs()),
            basic_constraints: read_extension(extensions, rfc5280::ID_CE_BASIC_CONSTRAINTS)?,
            key_usage: read_extension(extensions, rfc5280::ID_CE_KEY_USAGE)?,
            extended_key_usage: read_extension(extensions, rfc5280::ID_CE_EXT_KEY_USAGE)?,
            subject_alt_name: read_extension(extensions, rfc5280::ID_CE_SUBJECT_ALT_NAME)?,
        })
    }

    /// SubjectPublicKeyInfo, the DER bytes as they stand in the certificate.
    pub(crate) fn public_key_info(&self) -> &[u8] {
        &self.raw.public_key_info
    }

    pub(crate) const fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The last second of its validity.
    pub(crate) const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Both ends of the validity belong to it (RFC 5280 §4.1.2.5).
    pub(crate) fn check_validity(&self, now: UnixTime) -> Result<(), CertificateError> {
        if now < self.not_before {
            return Err(CertificateError::NotYetValid);
        }
        if now > self.not_after {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }

    /// That it is an authority's which may endorse TPMs, with `authorities_below` between it and the EK certificate.
    pub(crate) fn check_authority(&self, authorities_below: usize) -> Result<(), CertificateError> {
        let constraints = self.basic_constraints.as_ref().filter(|constraints| constraints.ca);
        let constraints = constraints.ok_or(CertificateError::NotAuthority)?;
        if !self.key_usage.as_ref().is_some_and(KeyUsage::key_cert_sign) {
            return Err(CertificateError::NotCertificateSigner);
        }
        let allowed = constraints.path_len_constraint.map_or(usize::MAX, usize::from);
        if authorities_below > allowed {
            return Err(CertificateError::PathTooLong);
        }
        // Where an authority's certificate lists purposes, it may issue for no other.
        match &self.extended_key_usage {
            Some(usage)
                if !usage.0.contains(&EK_CERTIFICATE) && !usage.0.contains(&rfc5280::ANY_EXTENDED_KEY_USAGE) =>
            {
                Err(CertificateError::NotForEndorsement)
            }
            _ => Ok(()),
        }
    }

    /// That it is an EK certificate (TCG EK Credential Profile for TPM Family 2.0, §3).
    pub(crate) fn check_endorsement(&self) -> Result<(), CertificateError> {
        if self.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca) {
            return Err(CertificateError::EkIsAuthority);
        }
        let may_receive = |usage: &KeyUsage| match &self.key {
            PublicKey::Rsa(_) => usage.key_encipherment(),
            PublicKey::P256(_) | PublicKey::P384(_) => usage.key_agreement(),
        };
        if !self.key_usage.as_ref().is_some_and(|usage| may_receive(usage) && !usage.key_cert_sign()) {
            return Err(CertificateError::EkKeyUsage);
        }
        if !self.extended_key_usage.as_ref().is_some_and(|usage| usage.0.contains(&EK_CERTIFICATE)) {
            return Err(CertificateError::NotForEndorsement);
        }
        if self.subject_alt_name.as_ref().is_some_and(|name| !has_directory_name(name)) {
            return Err(CertificateError::EkSubjectAltName);
        }
        Ok(())
    }

    /// Names are compared byte by byte: an authority writes its own name as it was written.
    pub(crate) fn names_issuer(&self, issuer: &Self) -> bool {
        self.raw.issuer == issuer.raw.subject
    }

    /// Checks the signature over the TBSCertificate as sent.
    pub(crate) fn check_signature(&self, issuer: &Self) -> Result<(), CertificateError> {
        issuer
            .key
            .verify(self.signature_algorithm?, &self.raw.tbs, &self.signature)
            .map_err(|_| CertificateError::SignatureInvalid)
    }
}

/// The parts of a certificate whose exact bytes count, so that none is hashed or compared after a re-encoding.
#[derive(Clone, Debug)]
pub(crate) struct RawCertificate {
    pub(crate) tbs: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key_info: Vec<u8>,
}

impl RawCertificate {
    pub(crate) fn parse(der: &[u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let tbs = reader.sequence(|certificate| {
            let tbs = certificate.tlv_bytes()?;
            let _algorithm = certificate.tlv_bytes()?;
            let _signature = certificate.tlv_bytes()?;
            Ok::<_, der::Error>(tbs)
        })?;
        reader.finish()?;
        let mut reader = SliceReader::new(tbs)?;
        reader.sequence(|fields| {
            let _version = fields.tlv_bytes()?;
            let _serial = fields.tlv_bytes()?;
            let _algorithm = fields.tlv_bytes()?;
            let issuer = fields.tlv_bytes()?.to_vec();
            let _validity = fields.tlv_bytes()?;
            let subject = fields.tlv_bytes()?.to_vec();
            let public_key_info = fields.tlv_bytes()?.to_vec();
            while !fields.is_finished() {
                fields.tlv_bytes()?;
            }
            Ok(Self { tbs: tbs.to_vec(), issuer, subject, public_key_info })
        })
    }
}

pub(crate) fn check_extensions(extensions: &[Extension]) -> Result<(), CertificateError> {
    for (index, extension) in extensions.iter().enumerate() {
        let id = extension.extn_id;
        if extensions.iter().take(index).any(|earlier| earlier.extn_id == id) {
            return Err(CertificateError::ExtensionRepeated);
        }
        if extension.critical && !KNOWN_EXTENSIONS.contains(&id) {
            return Err(CertificateError::CriticalExtensionUnknown);
        }
    }
    Ok(())
}

pub(crate) fn read_extension<'a, T: Decode<'a>>(
    extensions: &'a [Extension],
    id: ObjectIdentifier,
) -> Result<Option<T>, CertificateError> {
    extensions
        .iter()
        .find(|extension| extension.extn_id == id)
        .map(|extension| T::from_der(extension.extn_value.as_bytes()))
        .transpose()
        .map_err(|_| CertificateError::ExtensionMalformed)
}

/// TPM manufacturer, model and version stand in a directoryName (TCG EK Credential Profile, "Subject Alternative Name").
fn has_directory_name(name: &SubjectAltName) -> bool {
    name.0.iter().any(|name| matches!(name, GeneralName::DirectoryName(_)))
}
