//! The only code able to make a [`Verified`].

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::anchors::Trust;
use crate::binding::{Binding, Transcript};
use crate::encoding::Sha256Digest;
use crate::error::VerifyError;
use crate::tpm::attest::{self, QuoteInfo};
use crate::tpm::{AkName, EndorsedTpm, PcrSelection, TpmQuote};

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
    if !tpm.is(&quote.identity) {
        return Err(VerifyError::IdentityChanged);
    }
    // The credential was made for the AK in the binding; another AK's quote would show nothing about the EK.
    if binding.statement().ak_name() != tpm.ak().name() {
        return Err(VerifyError::AkNotBound);
    }
    attest::verify_signature(tpm.ak(), &quote.attest, &quote.signature)?;
    let info = attest::read_quote(&quote.attest)?;
    if !bool::from(info.extra_data.ct_eq(&binding.tpm_extra_data())) {
        return Err(VerifyError::ExtraDataMismatch);
    }
    check_pcrs(&info, expected_pcrs, &quote.pcrs)?;
    let claims = Claims {
        platform: tpm.ek().platform(),
        ak_name: *tpm.ak().name(),
        trust: tpm.ek().trust(),
        anchor: tpm.ek().anchor().to_owned(),
        pcrs: quote.pcrs.iter().copied().collect(),
        reset_count: info.reset_count,
        restart_count: info.restart_count,
        clock: info.clock,
        safe: info.safe,
        firmware_version: info.firmware_version,
    };
    let (binding_digest, preimage, statement) = binding.into_parts();
    Ok(Verified { claims, binding_digest, preimage, statement })
}

/// The quote is over the one bank and the very PCRs that were asked for, and the values given are those.
fn check_pcrs(info: &QuoteInfo<'_>, expected: &PcrSelection, values: &[(u32, [u8; 32])]) -> Result<(), VerifyError> {
    if info.pcr_selection != expected.tpml() {
        return Err(VerifyError::PcrSelectionMismatch);
    }
    if !values.iter().map(|(index, _)| *index).eq(expected.iter()) {
        return Err(VerifyError::PcrValuesMismatch);
    }
    let joined: Vec<u8> = values.iter().flat_map(|(_, value)| *value).collect();
    if info.pcr_digest != Sha256Digest::of(&joined).as_bytes() {
        return Err(VerifyError::PcrDigestMismatch);
    }
    Ok(())
}

/// A statement whose evidence holds. Private fields; only [`verify_tpm`] makes one, and it can neither be cloned nor read
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

/// What verified evidence shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    platform: Sha256Digest,
    ak_name: AkName,
    trust: Trust,
    anchor: String,
    pcrs: BTreeMap<u32, [u8; 32]>,
    reset_count: u32,
    restart_count: u32,
    clock: u64,
    safe: bool,
    firmware_version: u64,
}

impl Claims {
    /// The platform id: SHA-256 of the EK's SubjectPublicKeyInfo.
    #[must_use]
    pub const fn platform(&self) -> Sha256Digest {
        self.platform
    }

    /// The key that quoted.
    #[must_use]
    pub const fn ak_name(&self) -> &AkName {
        &self.ak_name
    }

    /// What the anchor vouches for.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The name of the anchor.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// The quoted PCRs of the SHA-256 bank.
    #[must_use]
    pub const fn pcrs(&self) -> &BTreeMap<u32, [u8; 32]> {
        &self.pcrs
    }

    /// TPM resets since the TPM was made (TPMS_CLOCK_INFO.resetCount): another value means another boot.
    #[must_use]
    pub const fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Resumes since the last reset (TPMS_CLOCK_INFO.restartCount).
    #[must_use]
    pub const fn restart_count(&self) -> u32 {
        self.restart_count
    }

    /// Milliseconds that the TPM has been powered (TPMS_CLOCK_INFO.clock).
    #[must_use]
    pub const fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether no higher clock value was ever reported (TPMS_CLOCK_INFO.safe).
    #[must_use]
    pub const fn safe(&self) -> bool {
        self.safe
    }

    /// Vendor-specific (TPMS_ATTEST.firmwareVersion).
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.firmware_version
    }
}
