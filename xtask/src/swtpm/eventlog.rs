//! Replay of a crypto-agile TCG event log (PC Client Platform Firmware Profile, "Event Logging"), SHA-256 bank only.
//!
//! Just enough to give a software TPM the PCRs of a real boot: digests are taken as they stand, event data is skipped.

use std::fmt;

/// One measurement: the PCR and the SHA-256 digest that the firmware extended it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measurement {
    pub(crate) pcr: u32,
    pub(crate) digest: [u8; 32],
}

/// The measurements of `log`, in order.
///
/// # Errors
/// A log that is not crypto-agile, has no SHA-256 bank, is cut short, or starts PCR 0 at another locality than 0
/// (which no extend can reproduce).
pub(crate) fn measurements(log: &[u8]) -> Result<Vec<Measurement>, LogError> {
    let mut reader = Reader(log);
    let sizes = spec_id(&mut reader)?;
    let mut measurements = Vec::new();
    while !at_end(reader.0) {
        if measurements.len() == EVENTS_MAX {
            return Err(LogError::TooLong);
        }
        measurements.extend(event(&mut reader, &sizes)?);
    }
    Ok(measurements)
}

/// Why a log was not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogError {
    Truncated,
    NotCryptoAgile,
    NoSha256,
    UnknownAlgorithm(u16),
    StartupLocality(u8),
    TooLong,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the event log ends inside an event"),
            Self::NotCryptoAgile => {
                write!(f, "the event log does not begin with \"Spec ID Event03\"")
            }
            Self::NoSha256 => write!(f, "the event log has no SHA-256 bank"),
            Self::UnknownAlgorithm(id) => {
                write!(f, "an event uses algorithm {id:#06x}, which the log's header does not list")
            }
            Self::StartupLocality(n) => {
                write!(f, "the TPM was started from locality {n}, which cannot be replayed")
            }
            Self::TooLong => write!(f, "the event log has more than {EVENTS_MAX} events"),
        }
    }
}

impl std::error::Error for LogError {}

const EVENTS_MAX: usize = 4096;
const ALGORITHMS_MAX: u32 = 16;
const ALG_SHA256: u16 = 0x000b;
const EV_NO_ACTION: u32 = 3;
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// TCG_EfiSpecIDEvent, inside a TCG_PCR_EVENT of the SHA-1 form: the digest size of each bank.
fn spec_id(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, LogError> {
    reader.take(4)?; // PCR 0
    let event_type = reader.u32()?;
    reader.take(20)?;
    let size = reader.size()?;
    let mut data = Reader(reader.take(size)?);
    if event_type != EV_NO_ACTION || data.take(16)? != b"Spec ID Event03\0" {
        return Err(LogError::NotCryptoAgile);
    }
    data.take(8)?; // platform class, version, size of UINTN
    let count = data.u32()?;
    if count > ALGORITHMS_MAX {
        return Err(LogError::TooLong);
    }
    let sizes = (0..count).map(|_| Ok((data.u16()?, usize::from(data.u16()?))));
    let sizes = sizes.collect::<Result<Vec<_>, LogError>>()?;
    match sizes.contains(&(ALG_SHA256, 32)) {
        true => Ok(sizes),
        false => Err(LogError::NoSha256),
    }
}

/// TCG_PCR_EVENT2. EV_NO_ACTION informs and extends nothing.
fn event(reader: &mut Reader<'_>, sizes: &[(u16, usize)]) -> Result<Option<Measurement>, LogError> {
    let pcr = reader.u32()?;
    let event_type = reader.u32()?;
    let mut digest = None;
    for _ in 0..reader.u32()?.min(ALGORITHMS_MAX) {
        let algorithm = reader.u16()?;
        let known = sizes.iter().find(|(id, _)| *id == algorithm);
        let (_, size) = known.ok_or(LogError::UnknownAlgorithm(algorithm))?;
        let bytes = reader.take(*size)?;
        if algorithm == ALG_SHA256 {
            digest = bytes.try_into().ok();
        }
    }
    let size = reader.size()?;
    let data = reader.take(size)?;
    if event_type == EV_NO_ACTION {
        return match data.strip_prefix(STARTUP_LOCALITY) {
            Some([0]) | None => Ok(None),
            Some(rest) => Err(LogError::StartupLocality(rest.first().copied().unwrap_or(0xff))),
        };
    }
    Ok(Some(Measurement { pcr, digest: digest.ok_or(LogError::NoSha256)? }))
}

/// A log ends with its bytes, or with a terminator: 0xffffffff or zeros to the end.
fn at_end(rest: &[u8]) -> bool {
    rest.starts_with(&[0xff; 4]) || rest.iter().all(|byte| *byte == 0)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], LogError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(LogError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, LogError> {
        let bytes = self.take(2)?.try_into().map_err(|_| LogError::Truncated)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, LogError> {
        let bytes = self.take(4)?.try_into().map_err(|_| LogError::Truncated)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn size(&mut self) -> Result<usize, LogError> {
        usize::try_from(self.u32()?).map_err(|_| LogError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const LOG: &[u8] = include_bytes!("../../data/ovmf-swtpm-debian12.bin");
    const PCRS: &str = include_str!("../../data/ovmf-swtpm-debian12.pcrs.json");

    #[test]
    fn replaying_the_recorded_log_gives_the_pcrs_read_in_the_guest() {
        let mut pcrs = BTreeMap::from_iter((0..24).map(|pcr| (pcr, [0; 32])));
        for Measurement { pcr, digest } in measurements(LOG).unwrap() {
            let old = pcrs[&pcr];
            pcrs.insert(pcr, sha256(&[old, digest].concat()));
        }
        let recorded: serde_json::Value = serde_json::from_str(PCRS).unwrap();
        for (pcr, value) in recorded["pcrs"]["sha256"].as_object().unwrap() {
            let pcr: u32 = pcr.parse().unwrap();
            if pcr != 10 {
                assert_eq!(value.as_str().unwrap(), hex::encode(pcrs[&pcr]), "PCR {pcr}");
            }
        }
    }

    #[test]
    fn a_log_cut_anywhere_is_refused_or_shorter_and_never_panics() {
        let whole = measurements(LOG).unwrap().len();
        for end in 0..LOG.len() {
            if let Ok(some) = measurements(&LOG[..end]) {
                assert!(some.len() <= whole);
            }
        }
        assert_eq!(measurements(&LOG[..LOG.len() - 1]), Err(LogError::Truncated));
    }

    #[test]
    fn a_log_of_the_old_format_is_refused() {
        let mut log = LOG.to_vec();
        log[32..48].copy_from_slice(b"Spec ID Event02\0");
        assert_eq!(measurements(&log), Err(LogError::NotCryptoAgile));
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        digest.as_ref().try_into().unwrap()
    }
}
