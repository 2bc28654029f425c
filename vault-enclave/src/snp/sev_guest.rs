//! The sev-guest driver: `/dev/sev-guest` (Linux 5.19 and later; `Documentation/virt/coco/sev-guest.rst`).
//!
//! The requests are [`crate::region`]'s, and not those of crate `sev`, as its extended report follows offsets and lengths of
//! the host's certificate table without a bound, into this process's memory, and its derived keys are returned by value.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::key_request::{KeyRequest, VMPL_MAX};
use super::{REPORT_BYTES, RawReport, SnpDeviceError};
use crate::region::{GuestRequestError, snp_derived_key, snp_report};
use crate::secret::{Secret, SnpDerivedSecret};
use crate::stack::wiped;

/// The device of this machine.
pub const SEV_GUEST: &str = "/dev/sev-guest";

/// Reports and derived keys by the sev-guest driver.
#[derive(Clone, Debug)]
pub struct SevGuest {
    path: PathBuf,
}

/// The most that the driver takes from a host (`SEV_FW_BLOB_MAX_SIZE`).
const CERTIFICATES_BYTES: usize = 16 << 10;
/// Of a MSG_REPORT_RSP: status, size of the report, 24 reserved bytes.
const HEADER_BYTES: usize = 32;

impl SevGuest {
    /// The device at `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the device is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn open(&self) -> Result<File, SnpDeviceError> {
        let opened = File::options().read(true).write(true).open(&self.path);
        opened.map_err(|error| SnpDeviceError::at(&self.path, "open", &error))
    }

    /// One try. Without a level the report is of VMPL 0, as this driver does not say which level the guest has.
    pub(super) fn report(&self, report_data: &[u8; 64], vmpl: Option<u8>) -> Result<RawReport, SnpDeviceError> {
        let vmpl = vmpl.unwrap_or(0);
        if vmpl > VMPL_MAX {
            return Err(SnpDeviceError::Vmpl(vmpl));
        }
        let mut request = [0; 96];
        request[..64].copy_from_slice(report_data);
        request[64..68].copy_from_slice(&u32::from(vmpl).to_le_bytes());
        let (mut certificates, mut response) = (vec![0; CERTIFICATES_BYTES], [0; 4000]);
        snp_report(self.open()?, &request, &mut certificates, &mut response).map_err(|error| self.refused(error))?;
        let report = report(&response)?;
        certificates.truncate(table_bytes(&certificates));
        Ok(RawReport { report, certificate_table: certificates, manifest: None })
    }

    /// Derives a key, straight into locked memory.
    pub(super) fn derived_key(&self, request: &KeyRequest) -> Result<SnpDerivedSecret, SnpDeviceError> {
        let device = self.open()?;
        let response = Secret::init_with(|response| {
            wiped(|| snp_derived_key(&device, request.message_version(), &request.encode(), response))
                .map_err(|error| self.refused(error))
        })?;
        key(&response)
    }

    fn refused(&self, error: GuestRequestError) -> SnpDeviceError {
        /// The firmware was not asked (`SEV_RET_NO_FW_CALL`).
        const NOT_CALLED: u32 = 0xff;
        let [firmware, hypervisor] = [error.exit_info as u32, (error.exit_info >> 32) as u32];
        match (hypervisor, firmware) {
            (1, _) => SnpDeviceError::Oversize { what: "certificate table", max: CERTIFICATES_BYTES },
            (2, _) => SnpDeviceError::Busy,
            (0, 0 | NOT_CALLED) => SnpDeviceError::of(&self.path, "guest request", error.errno),
            (0, status) => SnpDeviceError::Firmware(status),
            (code, _) => SnpDeviceError::Hypervisor(code),
        }
    }
}

const STATUS_PARAMETERS: u32 = 0x16;
const STATUS_KEY_SELECT: u32 = 0x27;

/// The key of a MSG_KEY_RSP: status u32, 28 zeros, 32 bytes of key.
pub(super) fn key(response: &Secret<64>) -> Result<SnpDerivedSecret, SnpDeviceError> {
    response.with_bytes(|response| {
        let (status, rest) = response.split_first_chunk::<4>().ok_or(SnpDeviceError::KeyMalformed)?;
        match u32::from_le_bytes(*status) {
            0 => {}
            STATUS_PARAMETERS => return Err(SnpDeviceError::KeyParameters),
            STATUS_KEY_SELECT => return Err(SnpDeviceError::KeySelect),
            other => return Err(SnpDeviceError::Firmware(other)),
        }
        let (zeros, key) = rest.split_at(28);
        // A driver that answered nothing leaves the zeros that were there: no key that everybody knows is taken.
        if zeros.iter().any(|byte| *byte != 0) || key.iter().all(|byte| *byte == 0) {
            return Err(SnpDeviceError::KeyMalformed);
        }
        SnpDerivedSecret::init_with(|secret| {
            secret.copy_from_slice(key);
            Ok(())
        })
    })
}

fn report(response: &[u8; 4000]) -> Result<Vec<u8>, SnpDeviceError> {
    let word = |at: usize| response[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    match (word(0), usize::try_from(word(4)).unwrap_or(usize::MAX)) {
        (0, REPORT_BYTES) => Ok(response[HEADER_BYTES..HEADER_BYTES + REPORT_BYTES].to_vec()),
        (0, other) => Err(SnpDeviceError::ReportLength(other)),
        (status, _) => Err(SnpDeviceError::Firmware(status)),
    }
}

/// How much of the buffer the table takes: entries of GUID, offset and length, ended by zeros (GHCB, 56421, "SNP Extended
/// Guest Request"). Only for its length; what is in it, and whether it is any table, the verifier says.
fn table_bytes(buffer: &[u8]) -> usize {
    const ENTRY_BYTES: usize = 24;
    let entries = buffer.chunks_exact(ENTRY_BYTES).take_while(|entry| entry[..16] != [0; 16]);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word: usize, byte| word << 8 | usize::from(*byte));
    let (mut count, mut end) = (0, 0);
    for entry in entries {
        count += 1;
        end = end.max(word(&entry[16..20]).saturating_add(word(&entry[20..24])));
    }
    match count {
        0 => 0,
        count => end.max((count + 1) * ENTRY_BYTES).min(buffer.len()),
    }
}

#[cfg(test)]
mod tests;
