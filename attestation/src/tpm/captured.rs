//! Quotes that were captured somewhere: what they say, and whether a key signed that, without a binding of one's own.
//!
//! Nothing here makes a [`Verified`](crate::Verified): that a quote was made for anybody takes a challenge.

use subtle::ConstantTimeEq;

use super::attest;
use super::public::{AttestationKey, QuotingKey};
use super::reader::Reader;
use super::{PcrSelection, alg};
use crate::error::{DecodeError, VerifyError};
use crate::snp::{AzureQuote, VtpmState};

/// What a TPMS_ATTEST says that is a quote. **That anyone signed it is not shown by this type.**
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteStatement {
    /// Qualified name of the key that signed: 34 bytes, `000b` first.
    pub signer: Vec<u8>,
    /// The caller's bytes: at most 66.
    pub extra_data: Vec<u8>,
    /// TPMS_CLOCK_INFO.clock, in milliseconds.
    pub clock: u64,
    /// TPMS_CLOCK_INFO.resetCount.
    pub reset_count: u32,
    /// TPMS_CLOCK_INFO.restartCount.
    pub restart_count: u32,
    /// TPMS_CLOCK_INFO.safe.
    pub safe: bool,
    /// TPMS_ATTEST.firmwareVersion.
    pub firmware_version: u64,
    /// What was quoted, bank by bank, in its order.
    pub banks: Vec<PcrBank>,
    /// Digest of the quoted values.
    pub pcr_digest: Vec<u8>,
}

/// PCRs of one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrBank {
    /// TPM_ALG_ID of the bank's hash: 000Bh is SHA-256.
    pub algorithm: u16,
    /// The indices, ascending.
    pub indices: Vec<u32>,
}

impl QuoteStatement {
    /// Reads exactly one TPMS_ATTEST (TPM 2.0 Part 2) that is a quote.
    ///
    /// # Errors
    ///
    /// Wrong magic, type or signer, or not exactly one such structure.
    pub fn parse(attest: &[u8]) -> Result<Self, VerifyError> {
        let info = attest::read_quote(attest)?;
        Ok(Self {
            signer: info.signer.to_vec(),
            extra_data: info.extra_data.to_vec(),
            clock: info.clock,
            reset_count: info.reset_count,
            restart_count: info.restart_count,
            safe: info.safe,
            firmware_version: info.firmware_version,
            banks: read_banks(info.pcr_selection).map_err(VerifyError::AttestMalformed)?,
            pcr_digest: info.pcr_digest.to_vec(),
        })
    }

    /// The PCRs, where they are of the SHA-256 bank and no other.
    #[must_use]
    pub fn sha256_pcrs(&self) -> Option<&[u32]> {
        match self.banks.as_slice() {
            [bank] if bank.algorithm == alg::SHA256 => Some(&bank.indices),
            _ => None,
        }
    }
}

impl AttestationKey {
    /// Verifies that this key quoted exactly `expected_pcrs` for exactly `extra_data`. In which TPM the key is stays open:
    /// only a binding with an activated secret shows that ([`verify_tpm`](crate::verify_tpm)).
    pub fn verify_quote(
        &self,
        quote: &AzureQuote,
        extra_data: &[u8],
        expected_pcrs: &PcrSelection,
    ) -> Result<VtpmState, VerifyError> {
        verify_quote(self.key(), quote, extra_data, expected_pcrs)
    }
}

/// In this order: signature; magic, type and signer; extraData in constant time; PCR selection, indices and digest.
pub(crate) fn verify_quote(
    key: &QuotingKey,
    quote: &AzureQuote,
    extra_data: &[u8],
    expected_pcrs: &PcrSelection,
) -> Result<VtpmState, VerifyError> {
    attest::verify_signature_with(key, &quote.attest, &quote.signature)?;
    let info = attest::read_quote(&quote.attest)?;
    if !bool::from(info.extra_data.ct_eq(extra_data)) {
        return Err(VerifyError::ExtraDataMismatch);
    }
    info.check_pcrs(expected_pcrs, &quote.pcrs)?;
    Ok(VtpmState {
        pcrs: quote.pcrs.iter().copied().collect(),
        reset_count: info.reset_count,
        restart_count: info.restart_count,
        clock: info.clock,
        safe: info.safe,
        firmware_version: info.firmware_version,
    })
}

/// TPML_PCR_SELECTION, whose bounds were checked when it was spanned.
fn read_banks(selection: &[u8]) -> Result<Vec<PcrBank>, DecodeError> {
    let mut reader = Reader::new(selection);
    let mut banks = Vec::new();
    for _ in 0..reader.u32()? {
        let algorithm = reader.u16()?;
        let octets = usize::from(reader.u8()?);
        let mut indices = Vec::new();
        for (first, octet) in (0..).step_by(8).zip(reader.take(octets)?) {
            indices.extend((0..8).filter(|bit| octet >> bit & 1 == 1).map(|bit| first + bit));
        }
        banks.push(PcrBank { algorithm, indices });
    }
    reader.finish()?;
    Ok(banks)
}
