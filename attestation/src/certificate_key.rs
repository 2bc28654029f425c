//! The keys and signatures that certificates have.

use der::asn1::{AnyRef, UintRef};
use der::oid::ObjectIdentifier;
use der::{Decode, Reader, SliceReader};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::error::{CertificateError, SignatureInvalid};
use crate::tpm::ek::EkKey;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// The public key of a certificate.
#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    /// RSAPublicKey in DER (RFC 8017, A.1.1).
    Rsa(Vec<u8>),
    /// A SEC1 point on P-256.
    P256(Vec<u8>),
    /// A SEC1 point on P-384.
    P384(Vec<u8>),
}

/// How a certificate is signed (RFC 4055 §5, RFC 5758 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    RsaSha256,
    RsaSha384,
    RsaSha512,
    EcdsaSha256,
    EcdsaSha384,
}

impl PublicKey {
    pub(crate) fn parse(info: &SubjectPublicKeyInfoOwned) -> Result<Self, CertificateError> {
        let unsupported = CertificateError::KeyUnsupported;
        let bytes = info.subject_public_key.as_bytes().ok_or(unsupported)?.to_vec();
        let parameters = info.algorithm.parameters.as_ref().ok_or(unsupported)?;
        match info.algorithm.oid {
            RSA_ENCRYPTION if parameters.is_null() => Ok(Self::Rsa(bytes)),
            EC_PUBLIC_KEY => match parameters.decode_as().map_err(|_| unsupported)? {
                P256 => Ok(Self::P256(bytes)),
                P384 => Ok(Self::P384(bytes)),
                _ => Err(unsupported),
            },
            _ => Err(unsupported),
        }
    }

    /// Checks a signature of this key. A key of one kind never checks a signature of another.
    pub(crate) fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureInvalid> {
        use SignatureAlgorithm::{EcdsaSha256, EcdsaSha384, RsaSha256, RsaSha384, RsaSha512};
        let (key, algorithm): (_, &'static dyn VerificationAlgorithm) = match (self, algorithm) {
            (Self::Rsa(key), RsaSha256) => (key, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Self::Rsa(key), RsaSha384) => (key, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Self::Rsa(key), RsaSha512) => (key, &signature::RSA_PKCS1_2048_8192_SHA512),
            (Self::P256(key), EcdsaSha256) => (key, &signature::ECDSA_P256_SHA256_ASN1),
            (Self::P256(key), EcdsaSha384) => (key, &signature::ECDSA_P256_SHA384_ASN1),
            (Self::P384(key), EcdsaSha256) => (key, &signature::ECDSA_P384_SHA256_ASN1),
            (Self::P384(key), EcdsaSha384) => (key, &signature::ECDSA_P384_SHA384_ASN1),
            (Self::Rsa(_), EcdsaSha256 | EcdsaSha384)
            | (Self::P256(_) | Self::P384(_), RsaSha256 | RsaSha384 | RsaSha512) => {
                return Err(SignatureInvalid);
            }
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| SignatureInvalid)
    }

    /// Whether it is an RSA-4096 key with exponent 65537.
    pub(crate) fn is_rsa_4096(&self) -> bool {
        let Self::Rsa(der) = self else { return false };
        read_rsa_public_key(der).is_ok_and(|(modulus, exponent)| {
            let modulus = modulus.as_bytes();
            modulus.len() == 512 && modulus[0] & 0x80 != 0 && exponent.as_bytes() == [1, 0, 1]
        })
    }

    /// The key of an EK: RSA-2048 with exponent 65537, or a point on P-256 or P-384.
    pub(crate) fn ek_key(&self) -> Result<EkKey, CertificateError> {
        match self {
            Self::Rsa(der) => EkKey::rsa_2048(&rsa_2048_modulus(der)?),
            Self::P256(point) => EkKey::p256(point),
            Self::P384(point) => EkKey::p384(point),
        }
    }
}

/// The modulus of an RSA-2048 key with exponent 65537, which is what the TCG's RSA EK template gives.
fn rsa_2048_modulus(der: &[u8]) -> Result<[u8; 256], CertificateError> {
    let unsupported = CertificateError::EkKeyUnsupported;
    let (modulus, exponent) = read_rsa_public_key(der).map_err(|_| unsupported)?;
    let modulus: [u8; 256] = modulus.as_bytes().try_into().map_err(|_| unsupported)?;
    if modulus[0] & 0x80 == 0 || exponent.as_bytes() != [1, 0, 1] {
        return Err(unsupported);
    }
    Ok(modulus)
}

impl SignatureAlgorithm {
    pub(crate) fn parse(identifier: &AlgorithmIdentifierOwned) -> Result<Self, CertificateError> {
        let parameters = identifier.parameters.as_ref().map(AnyRef::from);
        let null = parameters.is_some_and(AnyRef::is_null);
        match identifier.oid {
            SHA256_WITH_RSA if null => Ok(Self::RsaSha256),
            SHA384_WITH_RSA if null => Ok(Self::RsaSha384),
            SHA512_WITH_RSA if null => Ok(Self::RsaSha512),
            ECDSA_WITH_SHA256 if parameters.is_none() => Ok(Self::EcdsaSha256),
            ECDSA_WITH_SHA384 if parameters.is_none() => Ok(Self::EcdsaSha384),
            _ => Err(CertificateError::SignatureAlgorithmUnsupported),
        }
    }
}

fn read_rsa_public_key(der: &[u8]) -> der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let numbers =
        reader.sequence(|numbers| Ok::<_, der::Error>((UintRef::decode(numbers)?, UintRef::decode(numbers)?)))?;
    reader.finish()?;
    Ok(numbers)
}
