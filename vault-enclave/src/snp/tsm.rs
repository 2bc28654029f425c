//! Reports through configfs-tsm (Linux 6.7 and later; `Documentation/ABI/testing/configfs-tsm-report`).
//!
//! A directory made in the tree is an entry: the kernel fills it with attributes. What is written to them is the request,
//! reading `outblob` makes the report, and `generation` counts the writes of everybody. Each report has an entry of its own,
//! removed whatever came of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use super::error::errno;
use super::key_request::VMPL_MAX;
use super::{REPORT_BYTES, RawReport, SnpDeviceError};

/// The tree of this machine.
pub const TSM_ROOT: &str = "/sys/kernel/config/tsm/report";
/// What the kernel calls SNP guests.
const PROVIDER: &str = "sev_guest";

/// Reports by configfs-tsm.
#[derive(Clone, Debug)]
pub struct ConfigfsTsm {
    root: PathBuf,
    service: Option<SvsmService>,
    patience: Patience,
}

/// Ask the SVSM for the report, over itself and its services (Linux 6.10 and later).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SvsmService {
    /// One service, in the place of all.
    pub guid: Option<ServiceGuid>,
    /// Version of that service's manifest.
    pub manifest_version: Option<u32>,
}

/// Name of a service of the SVSM, as `63849ebb-3d92-4670-a1ff-58f9c94b87bb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceGuid(String);

/// How often, and how far apart, what is not there yet is looked for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    tries: u32,
    pause: Duration,
}

/// Two seconds: a kernel has everything at once, a tree of another kind soon.
const PATIENCE: Patience = Patience { tries: 80, pause: Duration::from_millis(25) };

const SHORT_BYTES_MAX: usize = 64;
/// Four pages are the most that the driver takes from a host (`SEV_FW_BLOB_MAX_SIZE`); an SVSM's manifest has its own bound.
const AUXBLOB_BYTES_MAX: usize = 64 << 10;
const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// Where a report has REPORT_DATA (56860, "ATTESTATION_REPORT").
const REPORT_DATA: std::ops::Range<usize> = 0x50..0x90;

impl ConfigfsTsm {
    /// The tree at `root`.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root, service: None, patience: PATIENCE }
    }

    /// The same tree, asked for reports of the SVSM.
    #[must_use]
    pub fn with_service(mut self, service: SvsmService) -> Self {
        self.service = Some(service);
        self
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether an entry can be made, and is of an SNP guest.
    pub(super) fn probe(&self) -> Result<(), SnpDeviceError> {
        Entry::create(self)?.expect_snp()
    }

    /// One try. Without a level the report is of the most privileged level that this guest has.
    pub(super) fn report(&self, report_data: &[u8; 64], vmpl: Option<u8>) -> Result<RawReport, SnpDeviceError> {
        let entry = Entry::create(self)?;
        entry.expect_snp()?;
        let before = entry.generation()?;
        let mut writes = 0;
        let mut write = |name, value: &[u8]| {
            writes += 1;
            entry.write(name, value)
        };
        if let Some(level) = level(vmpl, entry.floor()?)? {
            write("privlevel", level.to_string().as_bytes())?;
        }
        if let Some(SvsmService { guid, manifest_version }) = &self.service {
            write("service_provider", b"svsm")?;
            if let Some(guid) = guid {
                write("service_guid", guid.0.as_bytes())?;
            }
            if let Some(version) = manifest_version {
                write("service_manifest_version", version.to_string().as_bytes())?;
            }
        }
        write("inblob", report_data)?;
        let report = entry.outblob()?;
        let certificate_table = entry.read_optional("auxblob", AUXBLOB_BYTES_MAX)?.unwrap_or_default();
        let manifest = self.service.as_ref().map(|_| entry.read("manifestblob", MANIFEST_BYTES_MAX)).transpose()?;
        // Every write of anybody counts: with one more than ours, the report may be over what somebody else wrote.
        if entry.generation()? != before.wrapping_add(writes) {
            return Err(SnpDeviceError::Raced);
        }
        if report.len() != REPORT_BYTES {
            return Err(SnpDeviceError::ReportLength(report.len()));
        }
        // The SVSM's reports are over a digest of nonce and manifest, which the verifier compares.
        if self.service.is_none() && report[REPORT_DATA] != report_data[..] {
            return Err(SnpDeviceError::ReportOfOtherData);
        }
        Ok(RawReport { report, certificate_table, manifest })
    }
}

/// The level to write, or `None` where the kernel's own is meant.
fn level(vmpl: Option<u8>, floor: Option<u8>) -> Result<Option<u8>, SnpDeviceError> {
    match (vmpl, floor) {
        (Some(vmpl), _) if vmpl > VMPL_MAX => Err(SnpDeviceError::Vmpl(vmpl)),
        (Some(asked), Some(floor)) if asked < floor => Err(SnpDeviceError::VmplBelowFloor { asked, floor }),
        (Some(vmpl), _) => Ok(Some(vmpl)),
        // The kernel's own is 0, which a guest under an SVSM does not have.
        (None, Some(floor)) if floor > 0 => Ok(Some(floor)),
        (None, _) => Ok(None),
    }
}

/// Our directory in the tree, removed on drop.
struct Entry {
    path: PathBuf,
    patience: Patience,
}

impl Entry {
    fn create(tsm: &ConfigfsTsm) -> Result<Self, SnpDeviceError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| crate::secret::SecretError::Random)?;
        let path = tsm.root.join(format!("weightvault-{}-{}", std::process::id(), hex::encode(random)));
        fs::create_dir(&path).map_err(|error| match SnpDeviceError::at(&path, "mkdir", &error) {
            SnpDeviceError::Absent(_) => SnpDeviceError::Absent(tsm.root.clone()),
            SnpDeviceError::Denied(_) => SnpDeviceError::Denied(tsm.root.clone()),
            other => other,
        })?;
        Ok(Self { path, patience: tsm.patience })
    }

    fn expect_snp(&self) -> Result<(), SnpDeviceError> {
        let provider = self.patiently(|| match self.text("provider") {
            Err(SnpDeviceError::AttributeMissing(_)) => None,
            other => Some(other),
        });
        match provider.unwrap_or(Err(SnpDeviceError::AttributeMissing("provider")))? {
            provider if provider == PROVIDER => Ok(()),
            other => Err(SnpDeviceError::OtherProvider(other)),
        }
    }

    fn generation(&self) -> Result<u32, SnpDeviceError> {
        self.number("generation")
    }

    fn floor(&self) -> Result<Option<u8>, SnpDeviceError> {
        match self.number("privlevel_floor") {
            Ok(floor) => Ok(Some(floor)),
            Err(SnpDeviceError::AttributeMissing(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The report. A kernel makes it while it is read, so a busy one is not asked again here but at the next turn; a tree of
    /// another kind has it soon.
    fn outblob(&self) -> Result<Vec<u8>, SnpDeviceError> {
        // One byte more than a report, so that a longer one shows as such.
        let report = self.patiently(|| match self.read("outblob", REPORT_BYTES + 1) {
            Ok(report) if report.is_empty() => None,
            other => Some(other),
        });
        report.unwrap_or(Err(SnpDeviceError::ReportLength(0)))
    }

    fn patiently<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 1..self.patience.tries {
            if let Some(found) = look() {
                return Some(found);
            }
            thread::sleep(self.patience.pause);
        }
        look()
    }

    fn number<T: FromStr>(&self, name: &'static str) -> Result<T, SnpDeviceError> {
        self.text(name)?.parse().map_err(|_| SnpDeviceError::AttributeMalformed(name))
    }

    /// One line.
    fn text(&self, name: &'static str) -> Result<String, SnpDeviceError> {
        let malformed = SnpDeviceError::AttributeMalformed(name);
        let text = String::from_utf8(self.read(name, SHORT_BYTES_MAX)?).map_err(|_| malformed.clone())?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed);
        }
        Ok(line.to_owned())
    }

    fn read_optional(&self, name: &'static str, max: usize) -> Result<Option<Vec<u8>>, SnpDeviceError> {
        match self.read(name, max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(SnpDeviceError::AttributeMissing(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn read(&self, name: &'static str, max: usize) -> Result<Vec<u8>, SnpDeviceError> {
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let read = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.map_err(|error| refused(&path, name, &error))?;
        if bytes.len() > max { Err(SnpDeviceError::Oversize { what: name, max }) } else { Ok(bytes) }
    }

    /// In one call: each is a request of its own to the kernel.
    fn write(&self, name: &'static str, value: &[u8]) -> Result<(), SnpDeviceError> {
        let path = self.path.join(name);
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write(value));
        match written {
            Ok(length) if length == value.len() => Ok(()),
            Ok(_) => Err(SnpDeviceError::AttributeMalformed(name)),
            Err(error) => Err(refused(&path, name, &error)),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.path).or_else(|error| match error.kind() {
            // In configfs the attributes go with their directory; in a tree of another kind they are files.
            ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
            _ => Err(error),
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "an entry of configfs-tsm is left behind: {}", self.path.display());
        }
    }
}

fn refused(path: &Path, name: &'static str, error: &io::Error) -> SnpDeviceError {
    match error.kind() {
        ErrorKind::NotFound => SnpDeviceError::AttributeMissing(name),
        _ => SnpDeviceError::of(path, name, errno(error)),
    }
}

impl FromStr for ServiceGuid {
    type Err = SnpDeviceError;

    fn from_str(text: &str) -> Result<Self, SnpDeviceError> {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        match digits && lengths == [8, 4, 4, 4, 12] {
            true => Ok(Self(text.to_owned())),
            false => Err(SnpDeviceError::AttributeMalformed("service_guid")),
        }
    }
}

#[cfg(test)]
mod tests;
