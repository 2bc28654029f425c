//! TPMS_ATTEST with a quote in it, and TPMT_SIGNATURE over it (TPM 2.0 Part 2).

use super::alg;
use super::pcrs::PcrSelection;
use super::public::{AttestationKey, QuotingKey};
use super::reader::Reader;
use crate::encoding::Sha256Digest;
use crate::error::{DecodeError, VerifyError};

/// The most bytes of a TPMS_ATTEST; a quote of one bank with 32 bytes of extraData has 145.
const ATTEST_BYTES_MAX: usize = 1024;
/// TPM2B_DATA holds at most a TPMT_HA.
const EXTRA_DATA_BYTES_MAX: usize = 2 + 64;
const NAME_BYTES_MAX: usize = 2 + 64;
const DIGEST_BYTES_MAX: usize = 64;
/// TPM_NUM_PCR_BANKS of the reference code.
const PCR_BANKS_MAX: usize = 16;
/// PCR_SELECT_MAX: 24 PCRs are 3 octets; the PC Client profile has no more.
const PCR_SELECT_BYTES_MAX: usize = 4;

/// TPM_GENERATED_VALUE: `ff` and "TCG". A restricted key never signs foreign data that starts so.
const MAGIC: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const QUOTE: u16 = 0x8018;

/// What a quote says.
#[derive(Debug)]
pub(crate) struct QuoteInfo<'a> {
    /// Qualified name of the key that signed.
    pub(crate) signer: &'a [u8],
    pub(crate) extra_data: &'a [u8],
    /// Milliseconds.
    pub(crate) clock: u64,
    pub(crate) reset_count: u32,
    pub(crate) restart_count: u32,
    pub(crate) safe: bool,
    pub(crate) firmware_version: u64,
    /// TPML_PCR_SELECTION as it stands: it must equal the one asked for, so nothing is read out of it.
    pub(crate) pcr_selection: &'a [u8],
    pub(crate) pcr_digest: &'a [u8],
}

/// Checks that the AK signed these very bytes. Nothing in them is read before that.
pub(crate) fn verify_signature(ak: &AttestationKey, attest: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    verify_signature_with(ak.key(), attest, signature)
}

/// The same for an AK that something else than its public area vouches for.
pub(crate) fn verify_signature_with(key: &QuotingKey, attest: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    if attest.len() > ATTEST_BYTES_MAX {
        let error = DecodeError::TooLong { max: ATTEST_BYTES_MAX, found: attest.len() };
        return Err(VerifyError::AttestMalformed(error));
    }
    let mut reader = Reader::new(signature);
    let scheme = reader.u16().map_err(VerifyError::SignatureMalformed)?;
    let hash = reader.u16().map_err(VerifyError::SignatureMalformed)?;
    if scheme != key.scheme() || hash != alg::SHA256 {
        return Err(VerifyError::SignatureScheme { scheme, hash });
    }
    let signature = if scheme == alg::ECDSA {
        read_ecdsa(&mut reader).map_err(VerifyError::SignatureMalformed)?
    } else {
        read_rsa(&mut reader).map_err(VerifyError::SignatureMalformed)?
    };
    reader.finish().map_err(VerifyError::SignatureMalformed)?;
    key.verify(attest, &signature).map_err(|_| VerifyError::SignatureInvalid)
}

/// Reads a TPMS_ATTEST that is a quote and nothing else.
pub(crate) fn read_quote(attest: &[u8]) -> Result<QuoteInfo<'_>, VerifyError> {
    let mut reader = Reader::new(attest);
    if reader.u32().map_err(VerifyError::AttestMalformed)? != MAGIC {
        return Err(VerifyError::AttestMagic);
    }
    let kind = reader.u16().map_err(VerifyError::AttestMalformed)?;
    if kind != QUOTE {
        return Err(VerifyError::AttestNotQuote { found: kind });
    }
    let signer = reader.sized(NAME_BYTES_MAX).map_err(VerifyError::AttestMalformed)?;
    if signer.len() != 34 || !signer.starts_with(&alg::SHA256.to_be_bytes()) {
        return Err(VerifyError::AttestSigner);
    }
    read_quote_body(reader, signer).map_err(VerifyError::AttestMalformed)
}

impl QuoteInfo<'_> {
    /// The quote is over the one bank and the very PCRs that were asked for, and the values given are those.
    pub(crate) fn check_pcrs(&self, expected: &PcrSelection, values: &[(u32, [u8; 32])]) -> Result<(), VerifyError> {
        if self.pcr_selection != expected.tpml() {
            return Err(VerifyError::PcrSelectionMismatch);
        }
        if !values.iter().map(|(index, _)| *index).eq(expected.iter()) {
            return Err(VerifyError::PcrValuesMismatch);
        }
        let joined: Vec<u8> = values.iter().flat_map(|(_, value)| *value).collect();
        if self.pcr_digest != Sha256Digest::of(&joined).as_bytes() {
            return Err(VerifyError::PcrDigestMismatch);
        }
        Ok(())
    }
}

fn read_quote_body<'a>(mut reader: Reader<'a>, signer: &'a [u8]) -> Result<QuoteInfo<'a>, DecodeError> {
    let quote = QuoteInfo {
        signer,
        extra_data: reader.sized(EXTRA_DATA_BYTES_MAX)?,
        clock: reader.u64()?,
        reset_count: reader.u32()?,
        restart_count: reader.u32()?,
        safe: reader.yes_no()?,
        firmware_version: reader.u64()?,
        pcr_selection: reader.spanned(skip_selection)?,
        pcr_digest: reader.sized(DIGEST_BYTES_MAX)?,
    };
    reader.finish()?;
    Ok(quote)
}

/// TPML_PCR_SELECTION: bounds alone; its bytes are compared as a whole.
fn skip_selection(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let banks = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if banks > PCR_BANKS_MAX {
        return Err(DecodeError::TooLong { max: PCR_BANKS_MAX, found: banks });
    }
    for _ in 0..banks {
        let _bank = reader.u16()?;
        let octets = usize::from(reader.u8()?);
        if octets > PCR_SELECT_BYTES_MAX {
            return Err(DecodeError::TooLong { max: PCR_SELECT_BYTES_MAX, found: octets });
        }
        reader.take(octets)?;
    }
    Ok(())
}

/// TPMS_SIGNATURE_ECDSA after its hash, as r‖s of 32 bytes each.
fn read_ecdsa(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let mut fixed = vec![0; 64];
    let (r, s) = fixed.split_at_mut(32);
    read_scalar(reader, r)?;
    read_scalar(reader, s)?;
    Ok(fixed)
}

/// TPMs write a scalar of P-256 in 32 bytes or without its leading zeros: both are the same number, no other form is.
fn read_scalar(reader: &mut Reader<'_>, fixed: &mut [u8]) -> Result<(), DecodeError> {
    let scalar = reader.sized(fixed.len())?;
    if scalar.len() < fixed.len() && scalar.first().is_none_or(|&first| first == 0) {
        return Err(DecodeError::Length { expected: fixed.len(), found: scalar.len() });
    }
    let (_, tail) = fixed.split_at_mut(fixed.len() - scalar.len());
    tail.copy_from_slice(scalar);
    Ok(())
}

/// TPMS_SIGNATURE_RSASSA after its hash: as long as the modulus.
fn read_rsa(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let signature = reader.sized(256)?;
    if signature.len() != 256 {
        return Err(DecodeError::Length { expected: 256, found: signature.len() });
    }
    Ok(signature.to_vec())
}
