//! Which SNP devices this machine has, and why the others are not usable.

use std::fmt;
use std::path::Path;

use super::azure::AzureVtpm;
use super::sev_guest::{SEV_GUEST, SevGuest};
use super::soft::SoftSnp;
use super::tsm::{ConfigfsTsm, TSM_ROOT};
use super::{SnpChoice, SnpDevice, SnpDeviceError, Way};
use crate::tpm::{Tpm, TpmError};

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnpDeviceKind {
    /// configfs-tsm.
    ConfigfsTsm,
    /// The sev-guest driver.
    SevGuest,
    /// The virtual TPM of an Azure confidential VM.
    AzureVtpm,
    /// A soft platform, whose evidence is emulated.
    Soft,
}

/// Why a device is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The kernel is older than what has this device.
    KernelTooOld {
        /// The running one.
        found: String,
        /// Major and minor version of the first that has it.
        needs: (u32, u32),
    },
    /// configfs is not mounted.
    ConfigfsUnmounted,
    /// The kernel could have it, and nothing made it: the driver is not loaded, or this is no SNP guest.
    DriverAbsent(&'static str),
    /// No TPM was given to look in.
    NoTpm,
    /// The TPM is none of an Azure confidential VM.
    NotAzure,
    /// It is there and gives nothing.
    Device(SnpDeviceError),
}

/// Each device looked at, with why it is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSnpDevice(pub Vec<(SnpDeviceKind, Unusable)>);

/// First Linux with configfs-tsm.
const TSM_KERNEL: (u32, u32) = (6, 7);
/// First Linux with the sev-guest driver.
const SEV_GUEST_KERNEL: (u32, u32) = (5, 19);

/// Looks at the devices that `choice` allows, one at each step, in the order of preference. No report is asked for.
pub fn probe(
    choice: &SnpChoice,
    tpm: Option<&Tpm>,
) -> impl Iterator<Item = (SnpDeviceKind, Result<SnpDevice, Unusable>)> {
    let choices = match choice {
        SnpChoice::Auto => {
            vec![SnpChoice::ConfigfsTsm(TSM_ROOT.into()), SnpChoice::SevGuest(SEV_GUEST.into()), SnpChoice::AzureVtpm]
        }
        named => vec![named.clone()],
    };
    let tpm = tpm.cloned();
    choices.into_iter().map(move |choice| look(&choice, tpm.as_ref()))
}

fn look(choice: &SnpChoice, tpm: Option<&Tpm>) -> (SnpDeviceKind, Result<SnpDevice, Unusable>) {
    match choice {
        // `probe` has put the three in its place; alone it stands for the first.
        SnpChoice::Auto => tsm(ConfigfsTsm::new(TSM_ROOT.into())),
        SnpChoice::ConfigfsTsm(root) => tsm(ConfigfsTsm::new(root.clone())),
        SnpChoice::SevGuest(path) => {
            let guest = SevGuest::new(path.clone());
            let opened = guest.open().map_err(|error| sev_guest_reason(path, error, &Machine::read()));
            (SnpDeviceKind::SevGuest, opened.map(|_| Way::SevGuest(guest).into()))
        }
        SnpChoice::AzureVtpm => {
            let found = tpm.ok_or(Unusable::NoTpm).and_then(|tpm| {
                let azure = AzureVtpm::new(tpm.clone());
                azure.probe().map(|()| Way::AzureVtpm(azure).into()).map_err(azure_reason)
            });
            (SnpDeviceKind::AzureVtpm, found)
        }
        SnpChoice::Soft(dir) => {
            let soft = SoftSnp::new(dir);
            let found = soft.tsm.probe().map_err(Unusable::Device);
            (SnpDeviceKind::Soft, found.map(|()| Way::Soft(soft).into()))
        }
    }
}

fn tsm(tsm: ConfigfsTsm) -> (SnpDeviceKind, Result<SnpDevice, Unusable>) {
    let found = tsm.probe().map_err(|error| tsm_reason(tsm.root(), error, &Machine::read()));
    (SnpDeviceKind::ConfigfsTsm, found.map(|()| Way::ConfigfsTsm(tsm).into()))
}

/// What of a machine explains that a device is absent.
struct Machine {
    kernel: String,
    has_configfs: bool,
}

impl Machine {
    fn read() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            has_configfs: mounts.lines().any(|mount| mount.contains(" - configfs ")),
        }
    }

    /// An unreadable version is taken for a new one: the reason after it is told instead.
    fn is_before(&self, needs: (u32, u32)) -> bool {
        let mut numbers = self.kernel.split(|char: char| !char.is_ascii_digit()).map(|part| part.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor) < needs,
            _ => false,
        }
    }
}

fn tsm_reason(root: &Path, error: SnpDeviceError, machine: &Machine) -> Unusable {
    match error {
        SnpDeviceError::Absent(_) if root == Path::new(TSM_ROOT) => {
            if machine.is_before(TSM_KERNEL) {
                Unusable::KernelTooOld { found: machine.kernel.clone(), needs: TSM_KERNEL }
            } else if machine.has_configfs {
                Unusable::DriverAbsent(TSM_ROOT)
            } else {
                Unusable::ConfigfsUnmounted
            }
        }
        other => Unusable::Device(other),
    }
}

fn sev_guest_reason(path: &Path, error: SnpDeviceError, machine: &Machine) -> Unusable {
    match error {
        SnpDeviceError::Absent(_) if path == Path::new(SEV_GUEST) => match machine.is_before(SEV_GUEST_KERNEL) {
            true => Unusable::KernelTooOld { found: machine.kernel.clone(), needs: SEV_GUEST_KERNEL },
            false => Unusable::DriverAbsent(SEV_GUEST),
        },
        other => Unusable::Device(other),
    }
}

fn azure_reason(error: SnpDeviceError) -> Unusable {
    match error {
        SnpDeviceError::Tpm(TpmError::NvMissing(_) | TpmError::KeyMissing(_)) => Unusable::NotAzure,
        other => Unusable::Device(other),
    }
}

impl SnpDeviceKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigfsTsm => "configfs-tsm",
            Self::SevGuest => "sev-guest",
            Self::AzureVtpm => "azure",
            Self::Soft => "soft",
        }
    }
}

impl Unusable {
    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KernelTooOld { .. } => "snp-kernel-too-old",
            Self::ConfigfsUnmounted => "snp-configfs-unmounted",
            Self::DriverAbsent(_) => "snp-driver-absent",
            Self::NoTpm => "snp-no-tpm",
            Self::NotAzure => "snp-not-azure",
            Self::Device(error) => error.code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::KernelTooOld { needs: (major, minor), .. } => format!("boot Linux {major}.{minor} or later"),
            Self::ConfigfsUnmounted => "mount -t configfs none /sys/kernel/config".to_owned(),
            Self::DriverAbsent(_) => {
                "modprobe sev-guest; where that fails, `dmesg | grep SEV` says whether this is an SEV-SNP guest at all"
                    .to_owned()
            }
            Self::NoTpm => "name the virtual TPM with --tpm".to_owned(),
            Self::NotAzure => {
                "nothing, unless this is an Azure confidential VM: then name its TPM with --tpm".to_owned()
            }
            Self::Device(SnpDeviceError::Denied(path)) => {
                format!("let this user use {}: a udev rule or ACL, or run as root", path.display())
            }
            Self::Device(SnpDeviceError::NoProvider) => "modprobe sev-guest".to_owned(),
            Self::Device(SnpDeviceError::OtherProvider(_)) => {
                "take an SEV-SNP guest: this one is of another kind".to_owned()
            }
            Self::Device(SnpDeviceError::Absent(path)) => {
                format!("start what makes {}, or name another device with --snp", path.display())
            }
            Self::Device(_) => "`dmesg | grep -i sev` may say more".to_owned(),
        }
    }
}

impl fmt::Display for SnpDeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld { found, needs: (major, minor) } => {
                write!(f, "Linux {found} does not have it, {major}.{minor} and later do")
            }
            Self::ConfigfsUnmounted => write!(f, "configfs is not mounted"),
            Self::DriverAbsent(path) => write!(f, "there is no {path}: no driver made it"),
            Self::NoTpm => write!(f, "no TPM to look in"),
            Self::NotAzure => write!(f, "the TPM holds no SNP report"),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl NoSnpDevice {
    /// Stable name of the refusal.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "snp-no-device"
    }
}

impl fmt::Display for NoSnpDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no usable SNP device")?;
        let mut before = ": ";
        for (kind, reason) in &self.0 {
            write!(f, "{before}{kind}: {reason} ({})", reason.code())?;
            before = "; ";
        }
        Ok(())
    }
}

impl std::error::Error for NoSnpDevice {}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kernel: &str, has_configfs: bool) -> Machine {
        Machine { kernel: kernel.into(), has_configfs }
    }

    #[test]
    fn an_absent_tree_is_explained_by_kernel_mount_or_driver() {
        let absent = || SnpDeviceError::Absent(TSM_ROOT.into());
        let code =
            |kernel, has_configfs| tsm_reason(Path::new(TSM_ROOT), absent(), &machine(kernel, has_configfs)).code();
        assert_eq!(code("6.6.9-generic", true), "snp-kernel-too-old");
        assert_eq!(code("5.19", false), "snp-kernel-too-old");
        assert_eq!(code("6.7.0", false), "snp-configfs-unmounted");
        assert_eq!(code("6.12.3-cloud", true), "snp-driver-absent");
        assert_eq!(code("unreadable", true), "snp-driver-absent");
        let elsewhere =
            tsm_reason(Path::new("/tmp/tsm"), SnpDeviceError::Absent("/tmp/tsm".into()), &machine("5.0", false));
        assert_eq!(elsewhere.code(), "snp-absent");
        let other = SnpDeviceError::OtherProvider("tdx_guest".into());
        assert_eq!(tsm_reason(Path::new(TSM_ROOT), other, &machine("5.0", false)).code(), "snp-other-provider");
    }

    #[test]
    fn an_absent_driver_is_explained_by_the_kernel_or_the_module() {
        let code = |kernel| {
            let absent = SnpDeviceError::Absent(SEV_GUEST.into());
            sev_guest_reason(Path::new(SEV_GUEST), absent, &machine(kernel, true)).code()
        };
        assert_eq!((code("5.18.1"), code("5.19.0")), ("snp-kernel-too-old", "snp-driver-absent"));
        let denied = SnpDeviceError::Denied(SEV_GUEST.into());
        let denied = sev_guest_reason(Path::new(SEV_GUEST), denied, &machine("6.1", true));
        assert_eq!(denied.code(), "snp-denied");
        assert!(denied.fix().contains("udev"));
    }

    #[test]
    fn a_tpm_without_report_is_not_azures_and_any_other_failure_is_itself() {
        assert_eq!(azure_reason(TpmError::NvMissing(1).into()).code(), "snp-not-azure");
        assert_eq!(azure_reason(TpmError::KeyMissing(1).into()).code(), "snp-not-azure");
        assert_eq!(azure_reason(TpmError::Timeout.into()).code(), "tpm-timeout");
        assert_eq!(azure_reason(SnpDeviceError::HclMalformed).code(), "snp-hcl-malformed");
    }

    #[test]
    fn auto_looks_in_order_and_never_at_a_soft_platform() {
        let kinds: Vec<_> = probe(&SnpChoice::Auto, None).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [SnpDeviceKind::ConfigfsTsm, SnpDeviceKind::SevGuest, SnpDeviceKind::AzureVtpm]);
        let azure = probe(&SnpChoice::AzureVtpm, None).next().unwrap();
        assert_eq!(azure.1.err(), Some(Unusable::NoTpm));
    }

    #[test]
    fn what_is_absent_says_so_and_how_to_go_on() {
        let none = SnpDevice::open(&SnpChoice::Soft("/nonexistent".into()), None).err().unwrap();
        let absent = Unusable::Device(SnpDeviceError::Absent("/nonexistent/report".into()));
        assert_eq!(none, NoSnpDevice(vec![(SnpDeviceKind::Soft, absent)]));
        let text = "no usable SNP device: soft: there is no /nonexistent/report (snp-absent)";
        assert_eq!((none.to_string().as_str(), none.code()), (text, "snp-no-device"));
    }
}
