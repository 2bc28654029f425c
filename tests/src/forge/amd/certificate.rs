//! X.509 certificates (RFC 5280), field by field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::der;
use super::super::keys::{RsaKey, Scheme};
use super::ORGANIZATION;

/// A distinguished name in AMD's form: `OU=Engineering, C=US, L=Santa Clara, ST=CA, O=…, CN=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// O.
    pub organization: String,
    /// CN.
    pub common_name: String,
}

impl Name {
    /// The name of somebody in the soft world.
    pub fn soft(common_name: &str) -> Self {
        Self { organization: ORGANIZATION.to_owned(), common_name: common_name.to_owned() }
    }

    /// Name, DER.
    pub fn der(&self) -> Vec<u8> {
        let parts = [
            ("2.5.4.11", der::UTF8_STRING, "Engineering"),
            ("2.5.4.6", der::PRINTABLE_STRING, "US"),
            ("2.5.4.7", der::UTF8_STRING, "Santa Clara"),
            ("2.5.4.8", der::UTF8_STRING, "CA"),
            ("2.5.4.10", der::UTF8_STRING, self.organization.as_str()),
            ("2.5.4.3", der::UTF8_STRING, self.common_name.as_str()),
        ];
        let part = |(id, tag, text): (&str, u8, &str)| {
            der::set(&[der::sequence(&[der::oid(id), der::tlv(tag, text.as_bytes())])])
        };
        der::sequence(&parts.map(part))
    }
}

/// An extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Dotted.
    pub id: String,
    /// Whether a reader that does not know it must refuse.
    pub critical: bool,
    /// What is in the OCTET STRING.
    pub content: Vec<u8>,
}

impl Extension {
    /// An extension.
    pub fn new(id: &str, critical: bool, content: Vec<u8>) -> Self {
        Self { id: id.to_owned(), critical, content }
    }

    /// basicConstraints, critical.
    pub fn authority(path_len: Option<u64>) -> Self {
        let mut parts = vec![der::tlv(der::BOOLEAN, &[0xFF])];
        parts.extend(path_len.map(der::integer));
        Self::new("2.5.29.19", true, der::sequence(&parts))
    }

    /// keyUsage, critical. 0x04 is keyCertSign, 0x02 cRLSign. AMD always says that one bit is unused, although DER wants the
    /// trailing zeros left out.
    pub fn key_usage(bits: u8) -> Self {
        Self::new("2.5.29.15", true, der::tlv(der::BIT_STRING, &[1, bits]))
    }

    /// subjectKeyIdentifier.
    pub fn subject_key(key: RsaKey) -> Self {
        Self::new("2.5.29.14", false, der::tlv(der::OCTET_STRING, &key.identifier()))
    }

    /// authorityKeyIdentifier with a key identifier alone.
    pub fn authority_key(key: RsaKey) -> Self {
        Self::new("2.5.29.35", false, der::sequence(&[der::tlv(0x80, &key.identifier())]))
    }

    /// cRLDistributionPoints with one address.
    pub fn crl_at(url: &str) -> Self {
        let name = der::explicit(0, &der::explicit(0, &der::tlv(0x86, url.as_bytes())));
        Self::new("2.5.29.31", false, der::sequence(&[der::sequence(&[name])]))
    }

    pub(super) fn der(&self) -> Vec<u8> {
        let mut parts = vec![der::oid(&self.id)];
        if self.critical {
            parts.push(der::tlv(der::BOOLEAN, &[0xFF]));
        }
        parts.push(der::tlv(der::OCTET_STRING, &self.content));
        der::sequence(&parts)
    }
}

/// A certificate before its signature, and who signs it how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// serialNumber. AMD's leaves have 0.
    pub serial: u64,
    /// issuer.
    pub issuer: Name,
    /// notBefore, in seconds of Unix time.
    pub not_before: i64,
    /// notAfter, in seconds of Unix time.
    pub not_after: i64,
    /// subject.
    pub subject: Name,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    /// In this order.
    pub extensions: Vec<Extension>,
    /// Whose key signs.
    pub signer: RsaKey,
    /// How it signs.
    pub scheme: Scheme,
    /// What the certificate says about how it is signed, where that is something else.
    pub claimed_scheme: Option<Scheme>,
    /// Whether the PSS parameters spell out their trailer field, as AMD's authorities do.
    pub trailer: bool,
}

impl Issued {
    /// TBSCertificate, DER.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let extensions: Vec<_> = self.extensions.iter().map(Extension::der).collect();
        der::sequence(&[
            der::explicit(0, &der::integer(2)),
            der::integer(self.serial),
            self.algorithm(),
            self.issuer.der(),
            der::sequence(&[der::time(self.not_before), der::time(self.not_after)]),
            self.subject.der(),
            self.public_key.clone(),
            der::explicit(3, &der::sequence(&extensions)),
        ])
    }

    /// The certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        let body = self.to_be_signed();
        let signature = self.signer.sign(self.scheme, &body);
        der::sequence(&[body, self.algorithm(), der::bit_string(&signature)])
    }

    /// The extension with this id.
    ///
    /// # Panics
    /// If there is none.
    pub fn extension(&mut self, id: &str) -> &mut Extension {
        self.extensions.iter_mut().find(|extension| extension.id == id).expect("the certificate has this extension")
    }

    /// Takes the extension with this id out.
    pub fn remove_extension(&mut self, id: &str) {
        self.extensions.retain(|extension| extension.id != id);
    }

    fn algorithm(&self) -> Vec<u8> {
        self.claimed_scheme.unwrap_or(self.scheme).identifier(self.trailer)
    }
}

/// A certificate as PEM (RFC 7468).
pub fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
