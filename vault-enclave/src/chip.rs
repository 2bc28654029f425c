//! The evidence of an SNP guest: what its device gives, put together as a verifier wants it.

use std::fmt;
use std::sync::Arc;

use attestation::{
    AkName, AttestationKey, AzureEvidence, CertificateTable, CertificateTableError, PcrSelection, SnpEvidence,
    VerifyError,
};
use vault_proto::collateral::{Collateral, CollateralFailure};

use crate::snp::{AzureVtpm, GuestState, RootKey, SealingError, SnpDevice, SnpDeviceError, SnpSealing};

/// An SNP guest's chip.
#[derive(Clone)]
pub struct Chip {
    device: SnpDevice,
    collateral: CollateralUse,
}

/// How evidence gets the certificates that the host's table does not hold.
#[derive(Clone, Debug)]
pub enum CollateralUse {
    /// The caller may wait for a key service.
    Waiting(Arc<Collateral>),
    /// The caller decides for others and must not wait: what is not at hand is fetched in the background for its next time.
    AtOnce(Arc<Collateral>),
}

/// Why there is no evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChipError {
    /// The device.
    Device(SnpDeviceError),
    /// The host's certificate table.
    Table(CertificateTableError),
    /// The key at 0x81000003 is not of the kind that evidence needs.
    AttestationKey(VerifyError),
    /// This is no Azure guest.
    NotAzure,
    /// A certificate is missing that no verifier can do without.
    Collateral(CollateralFailure),
}

impl Chip {
    /// Behind an opened device.
    #[must_use]
    pub const fn new(device: SnpDevice, collateral: CollateralUse) -> Self {
        Self { device, collateral }
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &SnpDevice {
        &self.device
    }

    /// A report over `report_data`, with the certificates that the host gave, completed.
    ///
    /// # Errors
    /// [`ChipError`].
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<SnpEvidence, ChipError> {
        let raw = self.device.report(report_data, None)?;
        Ok(self.collateral.complete(CertificateTable::parse(&raw.certificate_table)?.evidence(raw.report))?)
    }

    /// The name of the AK of an Azure guest, for the binding.
    ///
    /// # Errors
    /// [`ChipError`].
    pub fn azure_ak_name(&self) -> Result<AkName, ChipError> {
        Ok(*AttestationKey::parse(&self.azure()?.ak_public()?)?.name())
    }

    /// The report of an Azure guest, and a quote over `extra_data`.
    ///
    /// # Errors
    /// [`ChipError`].
    pub fn azure_evidence(&self, extra_data: &[u8; 32], pcrs: PcrSelection) -> Result<AzureEvidence, ChipError> {
        let raw = self.azure()?.evidence(*extra_data, pcrs)?;
        let (hcl_report, ak_public, quote) = (raw.hcl_report, raw.ak_public, raw.quote.into_azure());
        let azure = AzureEvidence { hcl_report, certificates: Vec::new(), crls: Vec::new(), ak_public, quote };
        let SnpEvidence { certificates, crls, .. } = self.collateral.complete(Collateral::report_of(&azure)?)?;
        Ok(AzureEvidence { certificates, crls, ..azure })
    }

    /// A record for a key that the chip derives for this guest as it is now.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn new_sealing(&self, rng: &dyn ring::rand::SecureRandom) -> Result<SnpSealing, SealingError> {
        SnpSealing::new(&self.guest_state()?, RootKey::Default, rng)
    }

    /// What this guest may ask for at most.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn guest_state(&self) -> Result<GuestState, SealingError> {
        // Nobody takes this report for evidence.
        GuestState::of(&self.device.report(&[0; 64], None).map_err(SealingError::Device)?)
    }

    fn azure(&self) -> Result<&AzureVtpm, ChipError> {
        self.device.azure().ok_or(ChipError::NotAzure)
    }
}

impl CollateralUse {
    fn complete(&self, evidence: SnpEvidence) -> Result<SnpEvidence, CollateralFailure> {
        match self {
            Self::Waiting(collateral) => collateral.complete_waiting(evidence),
            Self::AtOnce(collateral) => collateral.complete_at_once(evidence),
        }
    }
}

impl ChipError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Device(error) => error.code(),
            Self::Table(error) => error.code(),
            Self::AttestationKey(error) => error.code(),
            Self::NotAzure => "snp-not-azure",
            Self::Collateral(error) => error.code(),
        }
    }
}

impl fmt::Display for ChipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Table(error) => write!(f, "the host's certificate table: {error}"),
            Self::AttestationKey(error) => write!(f, "the vTPM's attestation key: {error}"),
            Self::Collateral(error) => error.fmt(f),
            Self::NotAzure => f.write_str("this SNP device is not an Azure guest's"),
        }
    }
}

impl std::error::Error for ChipError {}

impl From<SnpDeviceError> for ChipError {
    fn from(error: SnpDeviceError) -> Self {
        Self::Device(error)
    }
}

impl From<CertificateTableError> for ChipError {
    fn from(error: CertificateTableError) -> Self {
        Self::Table(error)
    }
}

impl From<CollateralFailure> for ChipError {
    fn from(error: CollateralFailure) -> Self {
        Self::Collateral(error)
    }
}

impl From<VerifyError> for ChipError {
    fn from(error: VerifyError) -> Self {
        Self::AttestationKey(error)
    }
}
