//! A publisher's public key: ECDSA on P-256 or P-384.

use std::fmt;

use attestation::{Sha256Digest, SignatureInvalid};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey, VerificationAlgorithm};

/// DER of a SubjectPublicKeyInfo up to its uncompressed point (RFC 5480): there is no other encoding of such a key.
const P256_PREFIX: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384_PREFIX: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
const PEM_LINE: usize = 64;
/// Longest PEM text that is read, in bytes.
const PEM_BYTES_MAX: usize = 1024;

/// Signs the sealed models of a publisher: an uncompressed point on P-256 (with SHA-256) or P-384 (with SHA-384).
#[derive(Clone, PartialEq, Eq)]
pub struct PublisherKey {
    curve: Curve,
    point: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

/// Why a text or bytes are no publisher key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherKeyError {
    /// Not one PEM block `PUBLIC KEY`.
    Pem,
    /// Not the SubjectPublicKeyInfo of an uncompressed point on P-256 or P-384.
    Kind,
}

impl PublisherKey {
    /// From PEM (RFC 7468): one block `PUBLIC KEY` and nothing else.
    pub fn from_pem(pem: &str) -> Result<Self, PublisherKeyError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(PublisherKeyError::Pem);
        }
        let mut lines = pem.lines();
        if lines.next() != Some(PEM_BEGIN) || lines.next_back() != Some(PEM_END) {
            return Err(PublisherKeyError::Pem);
        }
        let der = BASE64_STANDARD.decode(lines.collect::<String>()).map_err(|_| PublisherKeyError::Pem)?;
        Self::from_spki_der(&der)
    }

    /// From a DER SubjectPublicKeyInfo.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, PublisherKeyError> {
        let point = der.strip_prefix(P256_PREFIX).or_else(|| der.strip_prefix(P384_PREFIX));
        let key = Self::from_point(point.ok_or(PublisherKeyError::Kind)?)?;
        if key.spki_der() != der {
            return Err(PublisherKeyError::Kind);
        }
        Ok(key)
    }

    /// From an uncompressed SEC1 point, of 65 bytes on P-256 or 97 on P-384: what ring calls the public key of a pair.
    pub fn from_point(point: &[u8]) -> Result<Self, PublisherKeyError> {
        let curve = match (point.len(), point.first()) {
            (P256_POINT_BYTES, Some(0x04)) => Curve::P256,
            (P384_POINT_BYTES, Some(0x04)) => Curve::P384,
            _ => return Err(PublisherKeyError::Kind),
        };
        Ok(Self { curve, point: point.to_vec() })
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        let prefix = match self.curve {
            Curve::P256 => P256_PREFIX,
            Curve::P384 => P384_PREFIX,
        };
        [prefix, &self.point].concat()
    }

    /// The PEM text, with lines of 64 characters and a final newline, as common tools write it.
    pub fn to_pem(&self) -> String {
        let text = BASE64_STANDARD.encode(self.spki_der());
        let mut pem = format!("{PEM_BEGIN}\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(PEM_LINE.min(rest.len()));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem + PEM_END + "\n"
    }

    /// The publisher key digest: SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.spki_der())
    }

    /// Checks a DER ECDSA signature over `message`, with the hash of the key's curve.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        let algorithm: &dyn VerificationAlgorithm = match self.curve {
            Curve::P256 => &ECDSA_P256_SHA256_ASN1,
            Curve::P384 => &ECDSA_P384_SHA384_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &self.point).verify(message, signature).map_err(|_| SignatureInvalid)
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherKey({:?}, {})", self.curve, self.digest())
    }
}

impl PublisherKeyError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            PublisherKeyError::Pem => "publisher-key-pem",
            PublisherKeyError::Kind => "publisher-key-kind",
        }
    }
}

impl fmt::Display for PublisherKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PublisherKeyError::Pem => "a publisher key is one PEM block PUBLIC KEY",
            PublisherKeyError::Kind => "a publisher key is an uncompressed point on P-256 or P-384",
        })
    }
}

impl std::error::Error for PublisherKeyError {}
