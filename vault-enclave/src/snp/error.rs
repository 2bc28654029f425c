//! Why there is no report or no derived key: one variant per reason, with what to do.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::region::RegionError;
use crate::secret::SecretError;
use crate::tpm::TpmError;

/// Why an SNP device did not give what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnpDeviceError {
    /// There is nothing at this path.
    Absent(PathBuf),
    /// This user may not use it.
    Denied(PathBuf),
    /// configfs-tsm is there, and no driver behind it.
    NoProvider,
    /// Another kind of guest: what configfs-tsm calls its provider.
    OtherProvider(String),
    /// An attribute that this kernel does not have.
    AttributeMissing(&'static str),
    /// An attribute whose content is not what the kernel documents.
    AttributeMalformed(&'static str),
    /// More bytes than any such thing has.
    Oversize {
        /// Attribute or message.
        what: &'static str,
        /// The bound in bytes.
        max: usize,
    },
    /// A report of this many bytes, where all have 1184.
    ReportLength(usize),
    /// A report over other data than was given in.
    ReportOfOtherData,
    /// Others wrote to our entry of configfs-tsm, again and again.
    Raced,
    /// The kernel, the hypervisor or the firmware was busy, again and again.
    Busy,
    /// Too many in this process wait for a report.
    TooMany,
    /// No such privilege level.
    Vmpl(u8),
    /// A level more privileged than this guest has.
    VmplBelowFloor {
        /// The level asked for.
        asked: u8,
        /// The lowest one that may be.
        floor: u8,
    },
    /// The hypervisor refused the message, with this number.
    Hypervisor(u32),
    /// The firmware refused the message, with this status.
    Firmware(u32),
    /// The firmware refuses the parameters of a key (status 0x16): a higher SVN, TCB or level than this guest has.
    KeyParameters,
    /// The chip has no such root key (status 0x27).
    KeySelect,
    /// A derived key of nothing but zeros, or an answer that is none.
    KeyMalformed,
    /// This device has no derived keys.
    NoDerivedKeys,
    /// This device's reports are over data of its own; the caller's goes into the quote.
    ReportDataFixed,
    /// What the vTPM holds in the place of an HCL report is none.
    HclMalformed,
    /// The vTPM.
    Tpm(TpmError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
    /// What the operating system said to anything else.
    System {
        /// Attribute or step.
        what: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl SnpDeviceError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent(_) => "snp-absent",
            Self::Denied(_) => "snp-denied",
            Self::NoProvider => "snp-no-provider",
            Self::OtherProvider(_) => "snp-other-provider",
            Self::AttributeMissing(_) => "snp-attribute-missing",
            Self::AttributeMalformed(_) => "snp-attribute-malformed",
            Self::Oversize { .. } => "snp-oversize",
            Self::ReportLength(_) => "snp-report-length",
            Self::ReportOfOtherData => "snp-report-of-other-data",
            Self::Raced => "snp-raced",
            Self::Busy => "snp-busy",
            Self::TooMany => "snp-too-many",
            Self::Vmpl(_) => "snp-vmpl-range",
            Self::VmplBelowFloor { .. } => "snp-vmpl-below-floor",
            Self::Hypervisor(_) => "snp-hypervisor",
            Self::Firmware(_) => "snp-firmware",
            Self::KeyParameters => "snp-key-parameters",
            Self::KeySelect => "snp-key-select",
            Self::KeyMalformed => "snp-key-malformed",
            Self::NoDerivedKeys => "snp-no-derived-keys",
            Self::ReportDataFixed => "snp-report-data-fixed",
            Self::HclMalformed => "snp-hcl-malformed",
            Self::Tpm(error) => error.code(),
            Self::Secret(error) => error.code(),
            Self::System { .. } => "snp-system",
        }
    }

    /// What an error of the operating system at `path` means.
    pub(super) fn at(path: &std::path::Path, what: &'static str, error: &std::io::Error) -> Self {
        match errno(error) {
            Errno::NOENT | Errno::NOTDIR => Self::Absent(path.into()),
            other => Self::of(path, what, other),
        }
    }

    pub(super) fn of(path: &std::path::Path, what: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => Self::Denied(path.into()),
            Errno::NXIO => Self::NoProvider,
            Errno::BUSY | Errno::AGAIN => Self::Busy,
            errno => Self::System { what, errno },
        }
    }
}

/// The number in an error of the standard library.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl fmt::Display for SnpDeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "there is no {}", path.display()),
            Self::Denied(path) => write!(f, "this user may not use {}", path.display()),
            Self::NoProvider => write!(f, "configfs-tsm has no driver behind it"),
            Self::OtherProvider(name) => write!(f, "this guest's reports are of {name:?}, not of sev_guest"),
            Self::AttributeMissing(name) => write!(f, "this kernel's configfs-tsm has no {name}"),
            Self::AttributeMalformed(name) => write!(f, "configfs-tsm gives a {name} that is none"),
            Self::Oversize { what, max } => write!(f, "{what} has more than {max} bytes"),
            Self::ReportLength(found) => write!(f, "the report has {found} bytes, where every report has 1184"),
            Self::ReportOfOtherData => write!(f, "the report is over other data than was asked for"),
            Self::Raced => write!(f, "others keep writing to our entry of configfs-tsm"),
            Self::Busy => write!(f, "the SNP firmware was busy each time"),
            Self::TooMany => write!(f, "too many wait for a report: there is about one a second"),
            Self::Vmpl(vmpl) => write!(f, "there is no VMPL {vmpl}: it is 0 to 3"),
            Self::VmplBelowFloor { asked, floor } => {
                write!(f, "VMPL {asked} is more privileged than this guest, which has reports from VMPL {floor} on")
            }
            Self::Hypervisor(code) => {
                write!(f, "the hypervisor refused the message to the SNP firmware, code {code:#x}")
            }
            Self::Firmware(status) => write!(f, "the SNP firmware refused, status {status:#x}"),
            Self::KeyParameters => {
                write!(f, "the SNP firmware derives no such key: SVN, TCB, mitigations or level are above this guest's")
            }
            Self::KeySelect => write!(f, "the chip has no such root key"),
            Self::KeyMalformed => write!(f, "the answer is no derived key"),
            Self::NoDerivedKeys => write!(f, "this device gives reports and no derived keys"),
            Self::ReportDataFixed => {
                write!(f, "this device's reports are over data of its own: what is to be bound goes into the quote")
            }
            Self::HclMalformed => write!(f, "what the vTPM holds in the place of an HCL report is none"),
            Self::Tpm(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::System { what, errno } => write!(f, "{what}: {errno}"),
        }
    }
}

impl std::error::Error for SnpDeviceError {}

impl From<TpmError> for SnpDeviceError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<SecretError> for SnpDeviceError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<RegionError> for SnpDeviceError {
    fn from(error: RegionError) -> Self {
        Self::Secret(error.into())
    }
}
