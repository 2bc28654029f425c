//! What verified evidence shows. Only [`verify`](crate::verify) makes one.

use std::collections::BTreeMap;

use crate::anchors::Trust;
use crate::encoding::Sha256Digest;
use crate::eventlog::MeasuredLog;
use crate::snp::SnpClaims;
use crate::tpm::{AkName, EkEndorsement, EndorsedEk};

/// What verified evidence shows, by its form. A form that is added later has to be handled wherever one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claims {
    /// A quote of a TPM that its EK endorses.
    Tpm {
        /// Whose TPM.
        ek: EkClaims,
        /// What it quoted.
        quote: QuoteClaims,
    },
    /// An SEV-SNP report.
    Snp(Box<SnpClaims>),
    /// A report, and a quote over the same binding. **Unbound**: nothing says that this TPM measured this guest, so the
    /// quote proves nothing about it and fulfils no rule.
    SnpUnboundTpm {
        /// The report.
        report: Box<SnpClaims>,
        /// Whose TPM.
        ek: EkClaims,
        /// What it quoted.
        quote: QuoteClaims,
    },
    /// A report that endorses the AK of the guest's own virtual TPM, and a quote of that AK.
    SnpVtpm {
        /// The report.
        report: Box<SnpClaims>,
        /// What the virtual TPM quoted.
        quote: QuoteClaims,
    },
}

impl Claims {
    /// The platform id (FORMAT.md §2): of the chip or the cloud where a report is, else of the EK.
    #[must_use]
    pub fn platform(&self) -> Sha256Digest {
        match self {
            Self::Tpm { ek, .. } => ek.platform,
            Self::Snp(report) | Self::SnpUnboundTpm { report, .. } | Self::SnpVtpm { report, .. } => report.platform(),
        }
    }

    /// What the anchor vouches for that the proof rests on. An unbound TPM neither adds to a report nor takes from it.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self {
            Self::Tpm { ek, .. } => ek.trust,
            Self::Snp(report) | Self::SnpUnboundTpm { report, .. } | Self::SnpVtpm { report, .. } => report.trust(),
        }
    }

    /// The name of that anchor; of an enrolled EK `enrolled as` and its label, which is no anchor's name.
    #[must_use]
    pub fn anchor(&self) -> &str {
        match self {
            Self::Tpm { ek, .. } => &ek.anchor,
            Self::Snp(report) | Self::SnpUnboundTpm { report, .. } | Self::SnpVtpm { report, .. } => report.anchor(),
        }
    }

    /// The report, where there is one.
    #[must_use]
    pub fn report(&self) -> Option<&SnpClaims> {
        match self {
            Self::Tpm { .. } => None,
            Self::Snp(report) | Self::SnpUnboundTpm { report, .. } | Self::SnpVtpm { report, .. } => Some(report),
        }
    }

    /// The quote, where there is one. Whether it says anything about the guest is for the form to tell.
    #[must_use]
    pub const fn quote(&self) -> Option<&QuoteClaims> {
        match self {
            Self::Snp(_) => None,
            Self::Tpm { quote, .. } | Self::SnpUnboundTpm { quote, .. } | Self::SnpVtpm { quote, .. } => Some(quote),
        }
    }
}

/// Whose TPM it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkClaims {
    platform: Sha256Digest,
    trust: Trust,
    anchor: String,
    endorsement: EkEndorsement,
}

impl EkClaims {
    pub(crate) fn of(ek: &EndorsedEk) -> Self {
        let (platform, trust, endorsement) = (ek.platform(), ek.trust(), ek.endorsement());
        Self { platform, trust, anchor: ek.anchor().to_owned(), endorsement }
    }

    /// Who vouches for it.
    #[must_use]
    pub const fn endorsement(&self) -> EkEndorsement {
        self.endorsement
    }

    /// The platform id: SHA-256 of the EK's SubjectPublicKeyInfo.
    #[must_use]
    pub const fn platform(&self) -> Sha256Digest {
        self.platform
    }

    /// What the anchor vouches for.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The name of the anchor; of an enrolled EK `enrolled as` and its label.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }
}

/// What a TPM quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteClaims {
    pub(crate) ak_name: AkName,
    pub(crate) pcrs: BTreeMap<u32, [u8; 32]>,
    pub(crate) reset_count: u32,
    pub(crate) restart_count: u32,
    pub(crate) clock: u64,
    pub(crate) safe: bool,
    pub(crate) firmware_version: u64,
    pub(crate) boot: Option<MeasuredLog>,
}

impl QuoteClaims {
    /// The key that quoted.
    #[must_use]
    pub const fn ak_name(&self) -> &AkName {
        &self.ak_name
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

    /// The event log that led to the quoted PCRs, where one came along and was replayed
    /// ([`Verified::with_event_log`](crate::Verified::with_event_log)).
    #[must_use]
    pub const fn boot(&self) -> Option<&MeasuredLog> {
        self.boot.as_ref()
    }

    /// Vendor-specific (TPMS_ATTEST.firmwareVersion).
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.firmware_version
    }
}
