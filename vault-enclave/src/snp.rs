//! This machine as an SEV-SNP guest: attestation reports and derived keys.
//!
//! A report can be had in three ways, which [`SnpDevice::open`] looks for in this order: configfs-tsm, the sev-guest driver,
//! and the virtual TPM of an Azure confidential VM. What they give is raw: it is sent as it is, and whoever verifies it trusts
//! nothing here. Only the sev-guest driver derives keys.
//!
//! **Never.** No report is kept: each is asked for anew, about one a second for all clones of a device, so a process opens one.
//! Calls block; async code takes a thread for them.

mod azure;
mod choice;
mod error;
mod key_request;
mod pace;
mod probe;
mod sealing;
mod sev_guest;
mod soft;
mod tsm;

pub use azure::{AzureEvidence, AzureVtpm, HCL_AK_HANDLE, HCL_REPORT_INDEX};
pub use choice::{SnpChoice, SnpChoiceError};
pub use error::SnpDeviceError;
pub use key_request::{GuestFields, KeyRequest, KeyRequestError, KeySpec, RootKey};
pub use probe::{NoSnpDevice, SnpDeviceKind, Unusable, probe};
pub use sealing::{GuestState, SealingError, SnpSealing};
pub use sev_guest::{SEV_GUEST, SevGuest};
pub use soft::SoftSnp;
pub use tsm::{ConfigfsTsm, ServiceGuid, SvsmService, TSM_ROOT};

use crate::secret::SnpDerivedSecret;
use crate::tpm::Tpm;
use pace::Pace;

/// Length of every attestation report (SEV-SNP Firmware ABI Specification, 56860, "ATTESTATION_REPORT").
pub const REPORT_BYTES: usize = 1184;

/// A way to reports and derived keys.
#[derive(Clone)]
pub struct SnpDevice {
    way: Way,
    pace: Pace,
}

/// Closed: another way is another variant, and every match says what it does with it.
#[derive(Clone)]
enum Way {
    ConfigfsTsm(ConfigfsTsm),
    SevGuest(SevGuest),
    AzureVtpm(AzureVtpm),
    Soft(SoftSnp),
}

/// A report as the firmware gave it, and what came with it. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReport {
    /// ATTESTATION_REPORT: 1184 bytes.
    pub report: Vec<u8>,
    /// The certificates that the host gave, as a table of GUIDs (GHCB, 56421); often empty.
    pub certificate_table: Vec<u8>,
    /// What the SVSM says about its services, where it was asked.
    pub manifest: Option<Vec<u8>>,
}

/// How often a report is asked for where the firmware was busy or others wrote to our entry.
const REPORT_TRIES: u32 = 5;

impl SnpDevice {
    /// The device that `choice` names, or the first usable one. An Azure vTPM is looked for in `tpm`.
    ///
    /// # Errors
    /// Why each device that was looked at is not usable.
    pub fn open(choice: &SnpChoice, tpm: Option<&Tpm>) -> Result<Self, NoSnpDevice> {
        let mut reasons = Vec::new();
        for (kind, probed) in probe(choice, tpm) {
            match probed {
                Ok(device) => return Ok(device),
                Err(reason) => reasons.push((kind, reason)),
            }
        }
        Err(NoSnpDevice(reasons))
    }

    /// Which of the ways it is.
    #[must_use]
    pub const fn kind(&self) -> SnpDeviceKind {
        match &self.way {
            Way::ConfigfsTsm(_) => SnpDeviceKind::ConfigfsTsm,
            Way::SevGuest(_) => SnpDeviceKind::SevGuest,
            Way::AzureVtpm(_) => SnpDeviceKind::AzureVtpm,
            Way::Soft(_) => SnpDeviceKind::Soft,
        }
    }

    /// A report over `report_data`, of `vmpl` or of the most privileged level that this guest has. It waits for its turn, and
    /// asks again, a bounded number of times, where the firmware was busy or others wrote to our entry. Each time the kernel
    /// itself may wait up to a minute for a host that throttles.
    ///
    /// # Errors
    /// [`SnpDeviceError`]; [`SnpDeviceError::ReportDataFixed`] on Azure, which has [`SnpDevice::azure`] for it.
    pub fn report(&self, report_data: &[u8; 64], vmpl: Option<u8>) -> Result<RawReport, SnpDeviceError> {
        let ask = || match &self.way {
            Way::ConfigfsTsm(tsm) | Way::Soft(SoftSnp { tsm, .. }) => tsm.report(report_data, vmpl),
            Way::SevGuest(guest) => guest.report(report_data, vmpl),
            Way::AzureVtpm(_) => Err(SnpDeviceError::ReportDataFixed),
        };
        for _ in 1..REPORT_TRIES {
            self.pace.wait()?;
            match ask() {
                Err(SnpDeviceError::Busy | SnpDeviceError::Raced) => {}
                settled => return settled,
            }
        }
        self.pace.wait()?;
        ask()
    }

    /// The key that the firmware derives for this request, filled where it stays. configfs-tsm derives none: the sev-guest
    /// driver of the same kernel is asked.
    ///
    /// # Errors
    /// [`SnpDeviceError`]; [`SnpDeviceError::NoDerivedKeys`] on Azure.
    pub fn derived_key(&self, request: &KeyRequest) -> Result<SnpDerivedSecret, SnpDeviceError> {
        match &self.way {
            Way::ConfigfsTsm(_) => SevGuest::new(SEV_GUEST.into()).derived_key(request),
            Way::SevGuest(guest) => guest.derived_key(request),
            Way::AzureVtpm(_) => Err(SnpDeviceError::NoDerivedKeys),
            Way::Soft(soft) => soft.derived_key(request),
        }
    }

    /// The Azure vTPM, where this is one.
    #[must_use]
    pub const fn azure(&self) -> Option<&AzureVtpm> {
        match &self.way {
            Way::AzureVtpm(azure) => Some(azure),
            Way::ConfigfsTsm(_) | Way::SevGuest(_) | Way::Soft(_) => None,
        }
    }

    /// The same device, its reports asked of the SVSM; only configfs-tsm can ask it.
    ///
    /// # Errors
    /// [`SnpDeviceError::AttributeMissing`] for every other device.
    pub fn with_service(self, service: SvsmService) -> Result<Self, SnpDeviceError> {
        let pace = self.pace;
        let way = match self.way {
            Way::ConfigfsTsm(tsm) => Way::ConfigfsTsm(tsm.with_service(service)),
            Way::Soft(SoftSnp { tsm, keys }) => Way::Soft(SoftSnp { tsm: tsm.with_service(service), keys }),
            Way::SevGuest(_) | Way::AzureVtpm(_) => return Err(SnpDeviceError::AttributeMissing("service_provider")),
        };
        Ok(Self { way, pace })
    }
}

impl From<Way> for SnpDevice {
    fn from(way: Way) -> Self {
        Self { way, pace: Pace::default() }
    }
}
