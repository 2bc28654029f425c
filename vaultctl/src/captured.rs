//! Evidence that was captured somewhere, out of files: what it is, and whether all of it holds that needs no challenge.
//!
//! Nothing here rests on a binding, so nothing here shows for whom and when evidence was made, unless the caller says what
//! the evidence must have been made over. No key is ever released on it.

mod boot;
mod detect;
mod files;
mod load;

use attestation::{
    AkName, AttestationKey, AzureQuote, CrlRule, EkEndorsement, EndorsedReport, EndorsedTpm, HclReport, MeasuredLog,
    PcrSelection, QuoteStatement, Sha256Digest, SnpClaims, SnpEvidence, TpmQuote, Trust, TrustAnchors, UnixTime,
    VerifyError, VtpmState,
};
use ledger::decide::Shown;

pub use boot::BootHolds;
pub use detect::Detected;
pub(crate) use files::read_pcrs;
pub use load::{Given, load, of_evidence, read_event_log};

use crate::cli::EvidenceKind;

/// Evidence of one kind, raw.
#[derive(Debug)]
pub enum Captured {
    /// A report.
    Snp {
        /// The report and its chain.
        evidence: SnpEvidence,
        /// A quote came with it that nothing binds to the guest: it is not looked at.
        unbound_tpm: bool,
    },
    /// A report, and a quote of the virtual TPM that it endorses.
    Azure(Box<AzureCaptured>),
    /// A quote, and the chain of an EK.
    Tpm(TpmQuote),
}

/// What an Azure guest shows.
#[derive(Debug)]
pub struct AzureCaptured {
    /// The report and the runtime data.
    pub hcl: HclReport,
    /// The same report and its chain.
    pub evidence: SnpEvidence,
    /// TPMT_PUBLIC of the AK, if it came along; the runtime data has only its key.
    pub ak_public: Option<Vec<u8>>,
    /// The quote.
    pub quote: AzureQuote,
}

/// What must be as the caller says.
#[derive(Debug, Clone, Copy, Default)]
pub struct MadeFor<'a> {
    /// REPORT_DATA.
    pub report_data: Option<&'a [u8; 64]>,
    /// extraData of the quote.
    pub extra_data: Option<&'a [u8]>,
}

/// Captured evidence of which all holds that needs no challenge.
#[derive(Debug)]
pub enum Holds {
    /// A report.
    Snp(Box<SnpClaims>),
    /// A report that endorses the AK of a virtual TPM, and a quote of it.
    Azure {
        /// The report.
        report: Box<SnpClaims>,
        /// What was quoted.
        quote: QuoteHolds,
    },
    /// A quote, and an EK that holds. **That the AK is in that EK's TPM is not shown.**
    Tpm {
        /// Whose TPM.
        ek: EkHolds,
        /// What was quoted.
        quote: QuoteHolds,
    },
}

/// An EK whose chain holds.
#[derive(Debug)]
pub struct EkHolds {
    /// Platform id.
    pub platform: Sha256Digest,
    /// What its anchor vouches for.
    pub trust: Trust,
    /// The anchor.
    pub anchor: String,
    /// The last second that the chain is valid.
    pub not_after: UnixTime,
}

/// A quote whose AK signed it.
#[derive(Debug)]
pub struct QuoteHolds {
    /// The AK, where its public area is known.
    pub ak_name: Option<AkName>,
    /// What it says.
    pub statement: QuoteStatement,
    /// What was quoted.
    pub state: VtpmState,
}

impl Captured {
    /// Verifies all that needs no challenge, and then that it was made for what the caller says.
    pub fn verify(
        &self,
        made_for: MadeFor<'_>,
        anchors: &TrustAnchors,
        crl: CrlRule,
        now: UnixTime,
    ) -> Result<Holds, VerifyError> {
        match self {
            Self::Snp { evidence, .. } => {
                let endorsed = EndorsedReport::verify(evidence, anchors, crl, now)?;
                if let Some(expected) = made_for.report_data {
                    endorsed.check_report_data(expected)?;
                }
                Ok(Holds::Snp(Box::new(endorsed.into_claims())))
            }
            Self::Azure(azure) => {
                let endorsed = EndorsedReport::verify(&azure.evidence, anchors, crl, now)?;
                let vtpm = azure.hcl.clone().endorse(endorsed)?;
                let ak = azure.ak_public.as_deref().map(AttestationKey::parse).transpose()?;
                if let Some(ak) = &ak {
                    vtpm.check_ak(ak)?;
                }
                let ak_name = ak.map(|ak| *ak.name());
                let quote = holds(&azure.quote, ak_name, made_for, |extra_data, pcrs| {
                    vtpm.verify_quote(&azure.quote, extra_data, pcrs)
                })?;
                Ok(Holds::Azure { report: Box::new(vtpm.claims().clone()), quote })
            }
            Self::Tpm(quote) => {
                let tpm = EndorsedTpm::verify(&quote.identity, anchors, now)?;
                let ek = EkHolds {
                    platform: tpm.ek().platform(),
                    trust: tpm.ek().trust(),
                    anchor: tpm.ek().anchor().to_owned(),
                    not_after: tpm.ek().not_after(),
                };
                let TpmQuote { attest, signature, pcrs, .. } = quote.clone();
                let bare = AzureQuote { attest, signature, pcrs };
                let quote = holds(&bare, Some(*tpm.ak().name()), made_for, |extra_data, pcrs| {
                    tpm.ak().verify_quote(&bare, extra_data, pcrs)
                })?;
                Ok(Holds::Tpm { ek, quote })
            }
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::Snp { .. } => EvidenceKind::Snp,
            Self::Azure(_) => EvidenceKind::AzureSnpVtpm,
            Self::Tpm(_) => EvidenceKind::Tpm,
        }
    }

    /// The report's evidence, if there is one.
    pub const fn report(&self) -> Option<&SnpEvidence> {
        match self {
            Self::Snp { evidence, .. } => Some(evidence),
            Self::Azure(azure) => Some(&azure.evidence),
            Self::Tpm(_) => None,
        }
    }

    /// The quote's TPMS_ATTEST, if there is one.
    pub const fn attest(&self) -> Option<&Vec<u8>> {
        match self {
            Self::Snp { .. } => None,
            Self::Azure(azure) => Some(&azure.quote.attest),
            Self::Tpm(quote) => Some(&quote.attest),
        }
    }
}

/// A quote is over the very PCRs that came with it; what it was made for is whatever it says, unless the caller knows.
fn holds(
    quote: &AzureQuote,
    ak_name: Option<AkName>,
    made_for: MadeFor<'_>,
    verify: impl FnOnce(&[u8], &PcrSelection) -> Result<VtpmState, VerifyError>,
) -> Result<QuoteHolds, VerifyError> {
    // Read before its signature is checked for this one field; what it says counts only after that.
    let unchecked = QuoteStatement::parse(&quote.attest).map(|statement| statement.extra_data);
    let indices: Vec<u32> = quote.pcrs.iter().map(|(index, _)| *index).collect();
    let selection = PcrSelection::try_from(indices.as_slice()).map_err(|_| VerifyError::PcrValuesMismatch)?;
    let state = verify(&unchecked.unwrap_or_default(), &selection)?;
    let statement = QuoteStatement::parse(&quote.attest)?;
    if made_for.extra_data.is_some_and(|expected| expected != statement.extra_data) {
        return Err(VerifyError::ExtraDataMismatch);
    }
    Ok(QuoteHolds { ak_name, statement, state })
}

impl Holds {
    /// What a rule is held against, with the log that led to the quote.
    pub fn shown<'a>(&'a self, boot: Option<&'a MeasuredLog>) -> Shown<'a> {
        match self {
            Self::Snp(report) => Shown::Snp(report),
            Self::Azure { report, quote } => Shown::AzureSnpVtpm { report, pcrs: &quote.state.pcrs, boot },
            Self::Tpm { ek, quote } => {
                // Captured evidence is verified by its certificate.
                let endorsement = EkEndorsement::Certificate;
                Shown::Tpm { platform: ek.platform, endorsement, pcrs: &quote.state.pcrs, boot }
            }
        }
    }

    /// The report, if there is one.
    pub const fn report(&self) -> Option<&SnpClaims> {
        match self {
            Self::Snp(report) | Self::Azure { report, .. } => Some(report),
            Self::Tpm { .. } => None,
        }
    }

    /// The quote, if there is one.
    pub const fn quote(&self) -> Option<&QuoteHolds> {
        match self {
            Self::Snp(_) => None,
            Self::Azure { quote, .. } | Self::Tpm { quote, .. } => Some(quote),
        }
    }

    /// What the anchor vouches for.
    pub const fn trust(&self) -> Trust {
        match self {
            Self::Snp(report) | Self::Azure { report, .. } => report.trust(),
            Self::Tpm { ek, .. } => ek.trust,
        }
    }

    /// The anchor.
    pub fn anchor(&self) -> &str {
        match self {
            Self::Snp(report) | Self::Azure { report, .. } => report.anchor(),
            Self::Tpm { ek, .. } => &ek.anchor,
        }
    }

    /// The platform id.
    pub fn platform(&self) -> Sha256Digest {
        match self {
            Self::Snp(report) | Self::Azure { report, .. } => report.platform(),
            Self::Tpm { ek, .. } => ek.platform,
        }
    }

    /// The last second that the chain is valid.
    pub const fn not_after(&self) -> UnixTime {
        match self {
            Self::Snp(report) | Self::Azure { report, .. } => report.not_after(),
            Self::Tpm { ek, .. } => ek.not_after,
        }
    }
}
