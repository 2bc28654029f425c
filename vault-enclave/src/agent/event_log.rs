//! The firmware's event log, as the kernel hands it out.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vault_proto::limits::EVENT_LOG_BYTES_MAX;

use super::error::SessionError;

/// Where Linux has the log of the first TPM. Only root may read it.
pub const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// Reads the log: whole, and no longer than a message may have it.
///
/// # Errors
/// [`SessionError::EventLogUnreadable`], [`SessionError::EventLogLength`].
pub fn read_event_log(path: &Path) -> Result<Vec<u8>, SessionError> {
    let unreadable = |error: std::io::Error| SessionError::EventLogUnreadable {
        path: path.to_owned(),
        kind: error.kind(),
        why: error.to_string(),
    };
    let limit = u64::try_from(EVENT_LOG_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    match bytes.len() {
        1..=EVENT_LOG_BYTES_MAX => Ok(bytes),
        found => Err(SessionError::EventLogLength { path: path.to_owned(), found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &Path) -> &'static str {
        read_event_log(path).expect_err("must be refused").code()
    }

    #[test]
    fn log_is_read_whole_or_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        assert_eq!(code(&file), "event-log-unreadable");
        assert!(read_event_log(&file).unwrap_err().to_string().contains("--event-log"));
        std::fs::write(&file, b"").unwrap();
        assert_eq!(code(&file), "event-log-length");
        std::fs::write(&file, vec![1; EVENT_LOG_BYTES_MAX + 1]).unwrap();
        assert_eq!(code(&file), "event-log-length");
        std::fs::write(&file, vec![1; EVENT_LOG_BYTES_MAX]).unwrap();
        assert_eq!(read_event_log(&file).unwrap().len(), EVENT_LOG_BYTES_MAX);
    }
}
