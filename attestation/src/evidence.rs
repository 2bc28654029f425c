//! Evidence of one request, raw, in the forms that there are.

use std::fmt;

use crate::anchors::TrustAnchors;
use crate::binding::{Binding, Transcript};
use crate::claims::Claims;
use crate::encoding::UnixTime;
use crate::error::{SnpError, VerifyError};
use crate::snp::{AzureQuote, CrlRule, EndorsedReport, EndorsedVtpm, HclReport, KeptChains, SnpEvidence};
use crate::tpm::{AkName, AttestationKey, EndorsedTpm, PcrSelection, TpmQuote};
use crate::verify::{Verified, verify_snp, verify_snp_vtpm, verify_snp_with_tpm, verify_tpm};

/// Evidence (RFC 9334 §8.1), raw. A form that is added later has to be handled wherever one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A TPM quote.
    Tpm(TpmQuote),
    /// An SEV-SNP report.
    Snp(SnpEvidence),
    /// A report and a quote over one binding; nothing binds that TPM to the guest.
    SnpTpm {
        /// The report.
        report: SnpEvidence,
        /// The quote.
        quote: TpmQuote,
    },
    /// A report of Azure's paravisor, and a quote of the virtual TPM whose AK it endorses.
    AzureSnpVtpm(AzureEvidence),
}

/// What an Azure confidential guest shows, raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureEvidence {
    /// The HCL report as it stands in NV index 01400001h.
    pub hcl_report: Vec<u8>,
    /// As in [`SnpEvidence`].
    pub certificates: Vec<Vec<u8>>,
    /// As in [`SnpEvidence`].
    pub crls: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the AK, without a size prefix: its name stands in the binding.
    pub ak_public: Vec<u8>,
    /// What that AK signed.
    pub quote: AzureQuote,
}

impl AzureEvidence {
    /// The name of the AK that the evidence claims, for the binding. Whether the report endorses that AK is what the
    /// verification says.
    pub fn ak_name(&self) -> Result<AkName, VerifyError> {
        Ok(*AttestationKey::parse(&self.ak_public)?.name())
    }

    fn endorse(
        &self,
        endorsed: impl FnOnce(&SnpEvidence) -> Result<EndorsedReport, SnpError>,
    ) -> Result<(EndorsedVtpm, AttestationKey), VerifyError> {
        let hcl = HclReport::parse(&self.hcl_report)?;
        let (certificates, crls) = (self.certificates.clone(), self.crls.clone());
        let report = SnpEvidence { report: hcl.report().to_vec(), certificates, crls };
        let vtpm = hcl.endorse(endorsed(&report)?)?;
        let ak = AttestationKey::parse(&self.ak_public)?;
        vtpm.check_ak(&ak)?;
        Ok((vtpm, ak))
    }
}

/// The form of evidence, without what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceForm {
    /// A TPM quote.
    Tpm,
    /// An SEV-SNP report.
    Snp,
    /// A report, and a quote that nothing binds to it.
    SnpTpm,
    /// A report of Azure's paravisor, and a quote of its virtual TPM.
    AzureSnpVtpm,
}

impl EvidenceForm {
    /// The form that claims came from.
    #[must_use]
    pub const fn of(claims: &Claims) -> Self {
        match claims {
            Claims::Tpm { .. } => Self::Tpm,
            Claims::Snp(_) => Self::Snp,
            Claims::SnpUnboundTpm { .. } => Self::SnpTpm,
            Claims::SnpVtpm { .. } => Self::AzureSnpVtpm,
        }
    }
}

impl fmt::Display for EvidenceForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tpm => "tpm",
            Self::Snp => "snp",
            Self::SnpTpm => "snp + tpm (unbound)",
            Self::AzureSnpVtpm => "azure-snp-vtpm",
        })
    }
}

impl Evidence {
    /// Its form.
    #[must_use]
    pub const fn form(&self) -> EvidenceForm {
        match self {
            Self::Tpm(_) => EvidenceForm::Tpm,
            Self::Snp(_) => EvidenceForm::Snp,
            Self::SnpTpm { .. } => EvidenceForm::SnpTpm,
            Self::AzureSnpVtpm(_) => EvidenceForm::AzureSnpVtpm,
        }
    }

    /// Verifies it for exactly this binding, in the form that was asked for and no other.
    ///
    /// A report's chain is checked under `anchors` at `now`; that of an EK was checked when its [`EndorsedTpm`] was made.
    pub fn verify<S: Transcript>(
        self,
        binding: Binding<S>,
        expected: &Expected,
        anchors: &TrustAnchors,
        now: UnixTime,
    ) -> Result<Verified<S>, VerifyError> {
        self.verify_keeping(&mut KeptChains::default(), binding, expected, anchors, now)
    }

    /// The same for whoever verifies much: a chain that is in `chains` has its signatures checked no more.
    pub fn verify_keeping<S: Transcript>(
        self,
        chains: &mut KeptChains,
        binding: Binding<S>,
        expected: &Expected,
        anchors: &TrustAnchors,
        now: UnixTime,
    ) -> Result<Verified<S>, VerifyError> {
        let mut endorsed = |report: &SnpEvidence, crl| chains.endorse(report, anchors, crl, now);
        match (expected, self) {
            (Expected::Tpm { tpm, pcrs }, Self::Tpm(quote)) => verify_tpm(quote, tpm, binding, pcrs),
            (Expected::Snp { crl }, Self::Snp(report)) => verify_snp(endorsed(&report, *crl)?, binding),
            (Expected::SnpTpm { crl, tpm, pcrs }, Self::SnpTpm { report, quote }) => {
                verify_snp_with_tpm(endorsed(&report, *crl)?, quote, tpm, binding, pcrs)
            }
            (Expected::AzureSnpVtpm { crl, pcrs }, Self::AzureSnpVtpm(evidence)) => {
                let (vtpm, ak) = evidence.endorse(|report| endorsed(report, *crl))?;
                verify_snp_vtpm(vtpm, &ak, &evidence.quote, binding, pcrs)
            }
            (Expected::Tpm { .. }, Self::Snp(_) | Self::SnpTpm { .. } | Self::AzureSnpVtpm(_))
            | (Expected::Snp { .. }, Self::Tpm(_) | Self::SnpTpm { .. } | Self::AzureSnpVtpm(_))
            | (Expected::SnpTpm { .. }, Self::Tpm(_) | Self::Snp(_) | Self::AzureSnpVtpm(_))
            | (Expected::AzureSnpVtpm { .. }, Self::Tpm(_) | Self::Snp(_) | Self::SnpTpm { .. }) => {
                Err(VerifyError::FormMismatch)
            }
        }
    }
}

/// What a challenge was made for: the form, and what it is checked against.
pub enum Expected {
    /// A quote of this TPM over these PCRs.
    Tpm {
        /// Whose chain holds.
        tpm: EndorsedTpm,
        /// Exactly these.
        pcrs: PcrSelection,
    },
    /// A report.
    Snp {
        /// Whether a revocation list is a must.
        crl: CrlRule,
    },
    /// A report, and a quote of this TPM over these PCRs.
    SnpTpm {
        /// Whether a revocation list is a must.
        crl: CrlRule,
        /// Whose chain holds.
        tpm: EndorsedTpm,
        /// Exactly these.
        pcrs: PcrSelection,
    },
    /// A report, and a quote of the virtual TPM whose AK it endorses over these PCRs.
    AzureSnpVtpm {
        /// Whether a revocation list is a must.
        crl: CrlRule,
        /// Exactly these.
        pcrs: PcrSelection,
    },
}
