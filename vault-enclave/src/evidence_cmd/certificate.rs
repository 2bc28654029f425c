//! What an endorsement certificate says, for a person. Nothing of it is verified here: that takes a policy's anchors.

use attestation::Sha256Digest;
use serde::Serialize;
use x509_cert::der::{Decode, Encode};
use x509_cert::name::Name;

use crate::failure::{Failure, Kind};

/// One certificate of the chain.
#[derive(Debug, Serialize)]
pub(super) struct CertificateReport {
    pub(super) subject: String,
    pub(super) issuer: String,
    /// SHA-256 of its SubjectPublicKeyInfo: of the leaf, the platform id that `eks` lists.
    pub(super) key: Sha256Digest,
    pub(super) not_after: String,
}

impl CertificateReport {
    pub(super) fn read(der: &[u8]) -> Result<Self, Failure> {
        let unreadable =
            |error| Failure::new(Kind::Failed, "ek-certificate-unreadable", format!("the EK certificate: {error}"));
        let certificate = x509_cert::Certificate::from_der(der).map_err(unreadable)?;
        let tbs = certificate.tbs_certificate();
        let key = tbs.subject_public_key_info().to_der().map_err(unreadable)?;
        Ok(Self {
            subject: in_words(tbs.subject()),
            issuer: in_words(tbs.issuer()),
            key: Sha256Digest::of(&key),
            not_after: tbs.validity().not_after.to_string(),
        })
    }
}

/// An EK's subject is often empty: what it is then stands in an extension.
fn in_words(name: &Name) -> String {
    let text = name.to_string();
    if text.is_empty() { "(empty)".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let refused = CertificateReport::read(&[0x30, 0x00]);
        assert_eq!(
            refused.err().map(|failure| failure.code().to_owned()).as_deref(),
            Some("ek-certificate-unreadable")
        );
    }
}
