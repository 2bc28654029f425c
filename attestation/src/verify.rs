//! The only code able to make a [`Verified`].

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::binding::{Binding, TpmPart, Transcript};
use crate::claims::{Claims, EkClaims, QuoteClaims};
use crate::error::{EventLogError, VerifyError};
use crate::eventlog::ReplayedLog;
use crate::snp::{AzureQuote, EndorsedReport, EndorsedVtpm, VtpmState};
use crate::tpm::attest;
use crate::tpm::{AttestationKey, EndorsedTpm, PcrSelection, TpmQuote};

/// Verifies that `tpm` quoted exactly `expected_pcrs` for exactly this binding.
///
/// In this order: the quote is of the TPM and AK that the challenge was for; the signature's scheme is the AK's; the
/// signature holds; only then is the attestation read: magic, type, signer, extraData (in constant time), PCR
/// selection, PCR indices, PCR digest.
///
/// Binding and quote are consumed: a second try needs a new challenge.
pub fn verify_tpm<S: Transcript>(
    quote: TpmQuote,
    tpm: &EndorsedTpm,
    binding: Binding<S>,
    expected_pcrs: &PcrSelection,
) -> Result<Verified<S>, VerifyError> {
    let quote = activated_quote(quote, tpm, &binding, expected_pcrs)?;
    Ok(Verified::new(Claims::Tpm { ek: EkClaims::of(tpm.ek()), quote }, binding))
}

/// Verifies that `report` was made for exactly this binding, in which no TPM takes part.
pub fn verify_snp<S: Transcript>(report: EndorsedReport, binding: Binding<S>) -> Result<Verified<S>, VerifyError> {
    match binding.statement().tpm() {
        TpmPart::Absent => {}
        TpmPart::Activated { .. } | TpmPart::Reported { .. } => return Err(VerifyError::QuoteMissing),
    }
    report.check_report_data(binding.digest()).map_err(VerifyError::Snp)?;
    Ok(Verified::new(Claims::Snp(Box::new(report.into_claims())), binding))
}

/// Verifies that `report` and the quote of `tpm` were both made for exactly this binding. The TPM stays *unbound*: a
/// genuine TPM elsewhere would do as well.
pub fn verify_snp_with_tpm<S: Transcript>(
    report: EndorsedReport,
    quote: TpmQuote,
    tpm: &EndorsedTpm,
    binding: Binding<S>,
    expected_pcrs: &PcrSelection,
) -> Result<Verified<S>, VerifyError> {
    let quote = activated_quote(quote, tpm, &binding, expected_pcrs)?;
    report.check_report_data(binding.digest()).map_err(VerifyError::Snp)?;
    let report = Box::new(report.into_claims());
    Ok(Verified::new(Claims::SnpUnboundTpm { report, ek: EkClaims::of(tpm.ek()), quote }, binding))
}

/// Verifies that the virtual TPM whose AK a report endorses quoted exactly `expected_pcrs` for exactly this binding.
pub fn verify_snp_vtpm<S: Transcript>(
    vtpm: EndorsedVtpm,
    ak: &AttestationKey,
    quote: &AzureQuote,
    binding: Binding<S>,
    expected_pcrs: &PcrSelection,
) -> Result<Verified<S>, VerifyError> {
    match binding.statement().tpm() {
        TpmPart::Reported { ak_name } if ak_name == ak.name() => {}
        TpmPart::Reported { .. } | TpmPart::Absent | TpmPart::Activated { .. } => return Err(VerifyError::AkNotBound),
    }
    vtpm.check_ak(ak)?;
    let VtpmState { pcrs, reset_count, restart_count, clock, safe, firmware_version } =
        vtpm.verify_quote(quote, &binding.tpm_extra_data(), expected_pcrs)?;
    let ak_name = *ak.name();
    let boot = None;
    let quote = QuoteClaims { ak_name, pcrs, reset_count, restart_count, clock, safe, firmware_version, boot };
    let report = Box::new(vtpm.claims().clone());
    Ok(Verified::new(Claims::SnpVtpm { report, quote }, binding))
}

/// A quote of the TPM and the AK that the credential in the binding was made for.
fn activated_quote<S: Transcript>(
    quote: TpmQuote,
    tpm: &EndorsedTpm,
    binding: &Binding<S>,
    expected_pcrs: &PcrSelection,
) -> Result<QuoteClaims, VerifyError> {
    if !tpm.is(&quote.identity) {
        return Err(VerifyError::IdentityChanged);
    }
    // The credential was made for the AK in the binding; another AK's quote would show nothing about the EK. Without a
    // secret in the binding nothing would show that the AK is in the EK's TPM at all.
    match binding.statement().tpm() {
        TpmPart::Activated { ak_name, .. } if ak_name == tpm.ak().name() => {}
        TpmPart::Activated { .. } | TpmPart::Absent | TpmPart::Reported { .. } => return Err(VerifyError::AkNotBound),
    }
    checked_quote(tpm.ak(), &quote.attest, &quote.signature, &quote.pcrs, binding, expected_pcrs)
}

fn checked_quote<S: Transcript>(
    ak: &AttestationKey,
    attest: &[u8],
    signature: &[u8],
    pcrs: &[(u32, [u8; 32])],
    binding: &Binding<S>,
    expected_pcrs: &PcrSelection,
) -> Result<QuoteClaims, VerifyError> {
    attest::verify_signature(ak, attest, signature)?;
    let info = attest::read_quote(attest)?;
    if !bool::from(info.extra_data.ct_eq(&binding.tpm_extra_data())) {
        return Err(VerifyError::ExtraDataMismatch);
    }
    info.check_pcrs(expected_pcrs, pcrs)?;
    Ok(QuoteClaims {
        ak_name: *ak.name(),
        pcrs: pcrs.iter().copied().collect(),
        reset_count: info.reset_count,
        restart_count: info.restart_count,
        clock: info.clock,
        safe: info.safe,
        firmware_version: info.firmware_version,
        boot: None,
    })
}

/// A statement whose evidence holds. Private fields; only this module makes one, and it can neither be cloned nor read
/// from bytes.
///
/// ```compile_fail,E0599
/// # fn f(verified: attestation::Verified<attestation::Load>) {
/// let copy = verified.clone();
/// # }
/// ```
/// ```
/// # fn f(verified: attestation::Verified<attestation::Load>) {
/// let claims = verified.claims().clone();
/// # }
/// ```
pub struct Verified<S> {
    claims: Claims,
    binding_digest: [u8; 64],
    preimage: Zeroizing<Vec<u8>>,
    statement: S,
}

impl<S> Verified<S> {
    fn new(claims: Claims, binding: Binding<S>) -> Self {
        let (binding_digest, preimage, statement) = binding.into_parts();
        Self { claims, binding_digest, preimage, statement }
    }

    /// Adds what an event log says about the boot: believed only where it leads to the PCRs that this evidence quoted.
    ///
    /// # Errors
    /// As [`ReplayedLog::against`]; [`EventLogError::QuoteMissing`] where no quote speaks for the guest.
    pub fn with_event_log(mut self, log: ReplayedLog<'_>, pcrs: &PcrSelection) -> Result<Self, EventLogError> {
        match &mut self.claims {
            Claims::Tpm { quote, .. } | Claims::SnpVtpm { quote, .. } => quote.boot = Some(log.against(quote, pcrs)?),
            Claims::Snp(_) | Claims::SnpUnboundTpm { .. } => return Err(EventLogError::QuoteMissing),
        }
        Ok(self)
    }

    /// What the evidence shows.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What the requester stated.
    #[must_use]
    pub const fn statement(&self) -> &S {
        &self.statement
    }

    /// SHA-512 of the preimage.
    #[must_use]
    pub const fn binding_digest(&self) -> &[u8; 64] {
        &self.binding_digest
    }

    /// The preimage of the binding, which is kept beside the log.
    #[must_use]
    pub fn preimage(&self) -> &[u8] {
        &self.preimage
    }
}
