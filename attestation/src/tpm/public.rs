//! The public area of an attestation key: what it is, and that it can speak for nothing but its own TPM.

use std::fmt;

use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};

use super::alg;
use super::reader::Reader;
use crate::encoding::{Sha256Digest, exactly};
use crate::error::{DecodeError, SignatureInvalid, VerifyError};

/// The most bytes of a TPMT_PUBLIC; that of an RSA-2048 AK has 280.
const AK_PUBLIC_BYTES_MAX: usize = 1024;

/// TPMA_OBJECT (TPM 2.0 Part 2, "TPMA_OBJECT").
mod attribute {
    pub(super) const FIXED_TPM: u32 = 1 << 1;
    pub(super) const FIXED_PARENT: u32 = 1 << 4;
    pub(super) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub(super) const USER_WITH_AUTH: u32 = 1 << 6;
    pub(super) const NO_DA: u32 = 1 << 10;
    pub(super) const RESTRICTED: u32 = 1 << 16;
    pub(super) const DECRYPT: u32 = 1 << 17;
    pub(super) const SIGN: u32 = 1 << 18;
}

const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The name of an attestation key: `000b` ‖ SHA-256(TPMT_PUBLIC) (TPM 2.0 Part 1, "Names").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AkName([u8; 34]);

impl AkName {
    /// The 34 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 34] {
        &self.0
    }

    fn of(public: &[u8]) -> Self {
        let mut name = [0; 34];
        let (algorithm, digest) = name.split_at_mut(2);
        algorithm.copy_from_slice(&alg::SHA256.to_be_bytes());
        digest.copy_from_slice(Sha256Digest::of(public).as_bytes());
        Self(name)
    }
}

impl TryFrom<&[u8]> for AkName {
    type Error = DecodeError;

    /// Takes exactly 34 bytes that start with `000b`, the identifier of SHA-256.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        let name: [u8; 34] = exactly(bytes)?;
        if !name.starts_with(&alg::SHA256.to_be_bytes()) {
            return Err(DecodeError::NameAlgorithm);
        }
        Ok(Self(name))
    }
}

impl fmt::Debug for AkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AkName({})", hex::encode(self.0))
    }
}

/// A key whose public area makes it sign nothing but what its own TPM says about itself.
///
/// That the public area is of a key in a TPM at all is not shown by this type: only a quote whose binding holds an
/// activated secret shows that ([`EndorsedTpm`](super::EndorsedTpm)).
pub struct AttestationKey {
    name: AkName,
    key: QuotingKey,
}

/// The key as its signatures are checked, which fixes scheme and hash.
pub(crate) enum QuotingKey {
    /// An uncompressed point: ECDSA over P-256 with SHA-256.
    EcdsaP256([u8; 65]),
    /// A modulus; the exponent is 65537: RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSsa2048(Box<[u8; 256]>),
}

impl AttestationKey {
    /// Reads a TPMT_PUBLIC (no size prefix) and checks that it is a restricted signing key that never leaves its TPM.
    ///
    /// `userWithAuth` and `noDA` may be set or not: they say who may use the key, not what it may sign.
    pub fn parse(public: &[u8]) -> Result<Self, VerifyError> {
        if public.len() > AK_PUBLIC_BYTES_MAX {
            let found = public.len();
            let error = DecodeError::TooLong { max: AK_PUBLIC_BYTES_MAX, found };
            return Err(VerifyError::AkMalformed(error));
        }
        let mut reader = Reader::new(public);
        let kind = reader.u16().map_err(VerifyError::AkMalformed)?;
        let name_algorithm = reader.u16().map_err(VerifyError::AkMalformed)?;
        if name_algorithm != alg::SHA256 {
            return Err(VerifyError::AkNameAlgorithm { found: name_algorithm });
        }
        check_attributes(reader.u32().map_err(VerifyError::AkMalformed)?)?;
        read_auth_policy(&mut reader).map_err(VerifyError::AkMalformed)?;
        let key = match kind {
            alg::ECC => read_ecc(&mut reader)?,
            alg::RSA => read_rsa(&mut reader)?,
            found => return Err(VerifyError::AkTypeUnsupported { found }),
        };
        reader.finish().map_err(VerifyError::AkMalformed)?;
        Ok(Self { name: AkName::of(public), key })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &AkName {
        &self.name
    }

    pub(crate) const fn key(&self) -> &QuotingKey {
        &self.key
    }
}

impl QuotingKey {
    /// TPMI_ALG_SIG_SCHEME of every signature of this key.
    pub(super) const fn scheme(&self) -> u16 {
        match self {
            Self::EcdsaP256(_) => alg::ECDSA,
            Self::RsaSsa2048(_) => alg::RSASSA,
        }
    }

    /// Checks a signature: r‖s of 64 bytes, or the 256 bytes of RSASSA.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        match self {
            Self::EcdsaP256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::RsaSsa2048(modulus) => RsaPublicKeyComponents { n: modulus.as_slice(), e: &RSA_EXPONENT }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        }
        .map_err(|_| SignatureInvalid)
    }
}

fn check_attributes(bits: u32) -> Result<(), VerifyError> {
    let has = |attribute| bits & attribute != 0;
    if !has(attribute::FIXED_TPM) {
        return Err(VerifyError::AkNotFixedTpm);
    }
    if !has(attribute::FIXED_PARENT) {
        return Err(VerifyError::AkNotFixedParent);
    }
    if !has(attribute::SENSITIVE_DATA_ORIGIN) {
        return Err(VerifyError::AkNotMadeByTpm);
    }
    // An unrestricted key signs any digest, so also that of a TPMS_ATTEST that no TPM made.
    if !has(attribute::RESTRICTED) {
        return Err(VerifyError::AkNotRestricted);
    }
    if !has(attribute::SIGN) {
        return Err(VerifyError::AkNotSigning);
    }
    if has(attribute::DECRYPT) {
        return Err(VerifyError::AkDecrypts);
    }
    let known = attribute::FIXED_TPM
        | attribute::FIXED_PARENT
        | attribute::SENSITIVE_DATA_ORIGIN
        | attribute::USER_WITH_AUTH
        | attribute::NO_DA
        | attribute::RESTRICTED
        | attribute::SIGN;
    match bits & !known {
        0 => Ok(()),
        bits => Err(VerifyError::AkAttributesUnknown { bits }),
    }
}

/// An authPolicy is empty or a digest of the name algorithm. Who may use the AK is its TPM's affair.
fn read_auth_policy(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.sized(32)?.len() {
        0 | 32 => Ok(()),
        found => Err(DecodeError::Length { expected: 32, found }),
    }
}

/// TPMS_ECC_PARMS and TPMS_ECC_POINT.
fn read_ecc(reader: &mut Reader<'_>) -> Result<QuotingKey, VerifyError> {
    read_symmetric_and_scheme(reader, alg::ECDSA)?;
    let curve = reader.u16().map_err(VerifyError::AkMalformed)?;
    if curve != alg::CURVE_P256 {
        return Err(VerifyError::AkCurve { found: curve });
    }
    let kdf = reader.u16().map_err(VerifyError::AkMalformed)?;
    if kdf != alg::NULL {
        return Err(VerifyError::AkKdf { found: kdf });
    }
    let x = reader.sized(32).map_err(VerifyError::AkMalformed)?;
    let y = reader.sized(32).map_err(VerifyError::AkMalformed)?;
    if x.len() != 32 || y.len() != 32 {
        return Err(VerifyError::AkKeyMalformed);
    }
    let mut point = [4; 65];
    point[1..33].copy_from_slice(x);
    point[33..].copy_from_slice(y);
    Ok(QuotingKey::EcdsaP256(point))
}

/// TPMS_RSA_PARMS and TPM2B_PUBLIC_KEY_RSA.
fn read_rsa(reader: &mut Reader<'_>) -> Result<QuotingKey, VerifyError> {
    read_symmetric_and_scheme(reader, alg::RSASSA)?;
    let bits = reader.u16().map_err(VerifyError::AkMalformed)?;
    if bits != 2048 {
        return Err(VerifyError::AkKeyBits { found: bits });
    }
    let exponent = reader.u32().map_err(VerifyError::AkMalformed)?;
    if exponent != 0 && exponent != 65537 {
        return Err(VerifyError::AkExponent { found: exponent });
    }
    let modulus = reader.sized(256).map_err(VerifyError::AkMalformed)?;
    match <[u8; 256]>::try_from(modulus) {
        Ok(modulus) if modulus[0] & 0x80 != 0 => Ok(QuotingKey::RsaSsa2048(Box::new(modulus))),
        _ => Err(VerifyError::AkKeyMalformed),
    }
}

fn read_symmetric_and_scheme(reader: &mut Reader<'_>, expected: u16) -> Result<(), VerifyError> {
    let symmetric = reader.u16().map_err(VerifyError::AkMalformed)?;
    if symmetric != alg::NULL {
        return Err(VerifyError::AkSymmetric { found: symmetric });
    }
    let scheme = reader.u16().map_err(VerifyError::AkMalformed)?;
    if scheme != expected {
        return Err(VerifyError::AkScheme { scheme, hash: 0 });
    }
    let hash = reader.u16().map_err(VerifyError::AkMalformed)?;
    if hash != alg::SHA256 {
        return Err(VerifyError::AkScheme { scheme, hash });
    }
    Ok(())
}
