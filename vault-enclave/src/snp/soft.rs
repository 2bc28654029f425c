//! A soft platform in the place of a chip, named on the command line as `soft:DIR`.
//!
//! | below DIR | is |
//! |---|---|
//! | `report/` | a configfs-tsm tree as `/sys/kernel/config/tsm/report` is one, provider `sev_guest` |
//! | `derived-key` | a Unix stream socket; one request a connection |
//!
//! Request: MSG_KEY_REQ as the kernel takes it (`struct snp_derived_key_req`), 32 bytes, or 40 with LAUNCH_MIT_VECTOR
//! (message version 2); then the guest shuts its writing side down. Answer: MSG_KEY_RSP, 64 bytes (status u32 little-endian,
//! 28 zeros, the key), and the socket is closed.
//!
//! It weakens nothing: its reports chain to a root that a policy can trust only as `emulated`. Its derived keys protect
//! nothing, as whoever runs the soft platform has them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::key_request::KeyRequest;
use super::tsm::ConfigfsTsm;
use super::{SnpDeviceError, sev_guest};
use crate::secret::{Secret, SnpDerivedSecret};

/// Reports and derived keys of a soft platform.
#[derive(Clone, Debug)]
pub struct SoftSnp {
    pub(super) tsm: ConfigfsTsm,
    pub(super) keys: PathBuf,
}

/// Length of a request of message version 1.
const VERSION_1_BYTES: usize = 32;
/// For each step of the conversation.
const TIMEOUT: Duration = Duration::from_secs(5);

impl SoftSnp {
    /// The soft platform in `dir`.
    #[must_use]
    pub fn new(dir: &std::path::Path) -> Self {
        Self { tsm: ConfigfsTsm::new(dir.join("report")), keys: dir.join("derived-key") }
    }

    pub(super) fn derived_key(&self, request: &KeyRequest) -> Result<SnpDerivedSecret, SnpDeviceError> {
        let at = |error| SnpDeviceError::at(&self.keys, "derived-key", &error);
        let mut stream = UnixStream::connect(&self.keys).map_err(at)?;
        stream.set_read_timeout(Some(TIMEOUT)).and(stream.set_write_timeout(Some(TIMEOUT))).map_err(at)?;
        let encoded = request.encode();
        let length = if request.message_version() == 1 { VERSION_1_BYTES } else { encoded.len() };
        stream.write_all(&encoded[..length]).map_err(at)?;
        stream.shutdown(Shutdown::Write).map_err(at)?;
        let response = Secret::init_with(|response: &mut [u8; 64]| match stream.read_exact(response) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(SnpDeviceError::KeyMalformed),
            Err(error) => Err(at(error)),
        })?;
        match stream.read(&mut [0; 1]).map_err(at)? {
            0 => sev_guest::key(&response),
            _ => Err(SnpDeviceError::KeyMalformed),
        }
    }
}

#[cfg(test)]
mod tests;
