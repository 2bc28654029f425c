//! Endorsement keys: what kinds there are, and their public areas.

use rsa::{BigUint, RsaPublicKey};

use super::reader::Reader;
use crate::encoding::{Sha256Digest, exactly};
use crate::error::{CertificateError, DecodeError, VerifyError};

/// The most bytes of a TPMT_PUBLIC of an EK; that of RSA-2048 has 314.
const EK_PUBLIC_BYTES_MAX: usize = 1024;
const RSA_EXPONENT: u32 = 65537;

/// The kinds of endorsement keys that are known here, each with one template of the TCG EK Credential Profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EkKind {
    /// Template L-1 (B.3.3): SHA-256, AES-128. Its certificate is at NV index 01c00002h.
    Rsa2048,
    /// Template L-2 (B.3.4): SHA-256, AES-128. Its certificate is at NV index 01c0000ah.
    EccP256,
    /// Template H-3 (B.4.5): SHA-384, AES-256. Its certificate is at NV index 01c00016h.
    EccP384,
}

/// The key of an EK, and so how a credential reaches its TPM. A point is on its curve, a modulus of its size.
pub(crate) enum EkKey {
    Rsa2048(RsaPublicKey),
    /// An uncompressed SEC1 point.
    P256([u8; 65]),
    /// An uncompressed SEC1 point.
    P384([u8; 97]),
}

impl EkKey {
    pub(crate) fn rsa_2048(modulus: &[u8; 256]) -> Result<Self, CertificateError> {
        RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(RSA_EXPONENT))
            .map(Self::Rsa2048)
            .map_err(|_| CertificateError::EkKeyUnsupported)
    }

    /// Refuses a point that is not on the curve: what was agreed with it could be guessed.
    pub(crate) fn p256(point: &[u8]) -> Result<Self, CertificateError> {
        let point = exactly(point).map_err(|_| CertificateError::EkPoint)?;
        match p256::PublicKey::from_sec1_bytes(&point) {
            Ok(_) => Ok(Self::P256(point)),
            Err(_) => Err(CertificateError::EkPoint),
        }
    }

    /// As [`EkKey::p256`].
    pub(crate) fn p384(point: &[u8]) -> Result<Self, CertificateError> {
        let point = exactly(point).map_err(|_| CertificateError::EkPoint)?;
        match p384::PublicKey::from_sec1_bytes(&point) {
            Ok(_) => Ok(Self::P384(point)),
            Err(_) => Err(CertificateError::EkPoint),
        }
    }
}

/// The public area of an EK, of one of the three templates. **That a TPM has it is not shown by this type.**
pub struct EkPublic {
    kind: EkKind,
    key: EkKey,
    public_key_info: Vec<u8>,
    name: Vec<u8>,
}

impl EkPublic {
    /// Reads a TPMT_PUBLIC (no size prefix). All but the key itself must be as the template has it, so that the EK does
    /// nothing else than a TPM's EK does: restricted, decrypting, fixed to its TPM and made by it.
    ///
    /// # Errors
    /// [`VerifyError::EkTemplateUnknown`]; [`VerifyError::EkPublicMalformed`] where the key is not of its size or something
    /// stands behind it; [`VerifyError::EkPublicKey`] where the key is none.
    pub fn parse(public: &[u8]) -> Result<Self, VerifyError> {
        if public.len() > EK_PUBLIC_BYTES_MAX {
            let error = DecodeError::TooLong { max: EK_PUBLIC_BYTES_MAX, found: public.len() };
            return Err(VerifyError::EkPublicMalformed(error));
        }
        let of_template = |kind: EkKind| Some((kind, public.strip_prefix(kind.template_prefix().as_slice())?));
        let found = [EkKind::Rsa2048, EkKind::EccP256, EkKind::EccP384].into_iter().find_map(of_template);
        let (kind, unique) = found.ok_or(VerifyError::EkTemplateUnknown)?;
        let unique = kind.read_unique(unique).map_err(VerifyError::EkPublicMalformed)?;
        let key = kind.key(&unique).map_err(VerifyError::EkPublicKey)?;
        Ok(Self { kind, key, public_key_info: kind.public_key_info(&unique), name: kind.name(public) })
    }

    /// Of which template it is.
    #[must_use]
    pub const fn kind(&self) -> EkKind {
        self.kind
    }

    /// The platform id (FORMAT.md §2): SHA-256 of the key's DER SubjectPublicKeyInfo, the same that a certificate of it
    /// gives.
    #[must_use]
    pub fn platform(&self) -> Sha256Digest {
        Sha256Digest::of(&self.public_key_info)
    }

    /// Its name: the identifier of the template's name algorithm, and that hash of the public area (TPM 2.0 Part 1,
    /// "Names"). 34 bytes with SHA-256, 50 with SHA-384.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn into_key(self) -> EkKey {
        self.key
    }
}

/// TPMA_OBJECT of the low range: fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt. The high
/// range has userWithAuth as well.
const LOW_ATTRIBUTES: [u8; 4] = [0x00, 0x03, 0x00, 0xb2];
const HIGH_ATTRIBUTES: [u8; 4] = [0x00, 0x03, 0x00, 0xf2];

/// PolicyA for SHA-256 (TCG EK Credential Profile, B.6.2): PolicySecret of the endorsement hierarchy.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, //
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// PolicyB for SHA-384 (the same, B.6.3): PolicyA or a policy that stands in NV.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, //
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, //
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

impl EkKind {
    /// TPMT_PUBLIC as far as the key: type, nameAlg, objectAttributes, authPolicy and parameters.
    #[must_use]
    pub fn template_prefix(self) -> Vec<u8> {
        const RSA: [u8; 2] = [0x00, 0x01];
        const ECC: [u8; 2] = [0x00, 0x23];
        const SHA256: [u8; 2] = [0x00, 0x0b];
        const SHA384: [u8; 2] = [0x00, 0x0c];
        const AES_128_CFB_AND_NO_SCHEME: [u8; 8] = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10];
        const AES_256_CFB_AND_NO_SCHEME: [u8; 8] = [0x00, 0x06, 0x01, 0x00, 0x00, 0x43, 0x00, 0x10];
        // keyBits and exponent; or curve and no KDF.
        const BITS_2048: [u8; 6] = [0x08, 0x00, 0x00, 0x00, 0x00, 0x00];
        const P256: [u8; 4] = [0x00, 0x03, 0x00, 0x10];
        const P384: [u8; 4] = [0x00, 0x04, 0x00, 0x10];
        let policy_a = [&[0, 32][..], &POLICY_A_SHA256].concat();
        let policy_b = [&[0, 48][..], &POLICY_B_SHA384].concat();
        let parts: [&[u8]; 6] = match self {
            Self::Rsa2048 => [&RSA, &SHA256, &LOW_ATTRIBUTES, &policy_a, &AES_128_CFB_AND_NO_SCHEME, &BITS_2048],
            Self::EccP256 => [&ECC, &SHA256, &LOW_ATTRIBUTES, &policy_a, &AES_128_CFB_AND_NO_SCHEME, &P256],
            Self::EccP384 => [&ECC, &SHA384, &HIGH_ATTRIBUTES, &policy_b, &AES_256_CFB_AND_NO_SCHEME, &P384],
        };
        parts.concat()
    }

    /// The modulus, or 04 ‖ x ‖ y.
    fn read_unique(self, unique: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut reader = Reader::new(unique);
        let mut read = |length: usize| match reader.sized(length)? {
            part if part.len() == length => Ok(part),
            part => Err(DecodeError::Length { expected: length, found: part.len() }),
        };
        let key = match self {
            Self::Rsa2048 => read(256)?.to_vec(),
            Self::EccP256 => [&[4], read(32)?, read(32)?].concat(),
            Self::EccP384 => [&[4], read(48)?, read(48)?].concat(),
        };
        reader.finish()?;
        Ok(key)
    }

    fn key(self, unique: &[u8]) -> Result<EkKey, CertificateError> {
        match self {
            Self::Rsa2048 => match exactly::<256>(unique) {
                Ok(modulus) if modulus[0] & 0x80 != 0 => EkKey::rsa_2048(&modulus),
                Ok(_) | Err(_) => Err(CertificateError::EkKeyUnsupported),
            },
            Self::EccP256 => EkKey::p256(unique),
            Self::EccP384 => EkKey::p384(unique),
        }
    }

    /// DER SubjectPublicKeyInfo (RFC 8017 A.1, RFC 5480 §2), as a certificate has it.
    fn public_key_info(self, unique: &[u8]) -> Vec<u8> {
        const RSA_2048: [u8; 33] = [
            0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
            0x01, //
            0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
        ];
        const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
        const P256: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, //
            0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        const P384: [u8; 23] = [
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, //
            0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
        ];
        match self {
            Self::Rsa2048 => [&RSA_2048, unique, &EXPONENT].concat(),
            Self::EccP256 => [&P256, unique].concat(),
            Self::EccP384 => [&P384, unique].concat(),
        }
    }

    fn name(self, public: &[u8]) -> Vec<u8> {
        let (identifier, hash): ([u8; 2], _) = match self {
            Self::Rsa2048 | Self::EccP256 => ([0x00, 0x0b], &ring::digest::SHA256),
            Self::EccP384 => ([0x00, 0x0c], &ring::digest::SHA384),
        };
        [identifier.as_slice(), ring::digest::digest(hash, public).as_ref()].concat()
    }
}
