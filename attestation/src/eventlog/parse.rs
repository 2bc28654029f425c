//! Reading a log: every length is checked against what is left, and every digest that can be against its data.

use super::content::{self, Content, EV_NO_ACTION};
use super::{BANKS_MAX, Bank, Digests, EVENT_LOG_BYTES_MAX, EVENTS_MAX, Event, EventLog};
use crate::encoding::Sha256Digest;
use crate::error::EventLogError;
use crate::le::{End, LeReader};
use crate::tpm::PCRS;

impl From<End> for EventLogError {
    fn from(End: End) -> Self {
        Self::Truncated
    }
}

impl<'a> EventLog<'a> {
    /// Reads a crypto-agile log, such as Linux's `/sys/kernel/security/tpm0/binary_bios_measurements`.
    ///
    /// Behind the last event there may be nothing, or only zeros, or only 0xff (firmware gives away its whole buffer).
    ///
    /// # Errors
    /// See [`EventLogError`]. A log of the SHA-1 form is [`EventLogError::LegacySha1`]: nothing in it can be compared with
    /// PCRs of the SHA-256 bank.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        if bytes.len() > EVENT_LOG_BYTES_MAX {
            return Err(EventLogError::TooLong { found: bytes.len() });
        }
        let mut reader = LeReader::new(bytes);
        let algorithms = spec_id(&mut reader)?;
        let mut log = Self { banks: banks(&algorithms)?, locality: 0, events: Vec::new() };
        let (mut locality_seen, mut pcr0_extended) = (false, false);
        while !at_end(reader.rest()) {
            let index = log.events.len();
            if index == EVENTS_MAX {
                return Err(EventLogError::TooManyEvents);
            }
            let event = event(&mut reader, &algorithms, index)?;
            if let Content::StartupLocality(locality) = event.content {
                // Later, or a second time, it would change what PCR 0 started with after the fact.
                if locality_seen || pcr0_extended {
                    return Err(EventLogError::LocalityMisplaced { index });
                }
                (log.locality, locality_seen) = (locality, true);
            }
            pcr0_extended |= event.pcr == 0 && event.extends();
            log.events.push(event);
        }
        Ok(log)
    }
}

/// An algorithm of the header: TPM_ALG_ID, and bytes of a digest.
type Algorithm = (u16, usize);

/// TCG_PCClientPCREvent: PCR 4, type 4, SHA-1 digest 20, length 4, then TCG_EfiSpecIDEvent: signature 16, platform class
/// 4, minor 1, major 1, errata 1, size of UINTN 1, number of algorithms 4, each id 2 and size 2, vendor length 1, vendor.
fn spec_id(reader: &mut LeReader<'_>) -> Result<Vec<Algorithm>, EventLogError> {
    let pcr = reader.u32()?;
    let event_type = reader.u32()?;
    let digest: [u8; 20] = reader.array()?;
    let length = reader.length()?;
    let mut data = LeReader::new(reader.take(length)?);
    if event_type != EV_NO_ACTION {
        return Err(EventLogError::LegacySha1);
    }
    match data.take(16) {
        Ok(b"Spec ID Event03\0") => {}
        Ok(b"Spec ID Event00\0" | b"Spec ID Event02\0") => return Err(EventLogError::LegacySha1),
        Ok(_) | Err(End) => return Err(EventLogError::SpecIdMissing),
    }
    let malformed = |End| EventLogError::SpecIdMalformed;
    data.take(8).map_err(malformed)?;
    let count = data.u32().map_err(malformed)?;
    if count == 0 || count > BANKS_MAX {
        return Err(EventLogError::AlgorithmCount { found: count });
    }
    let mut algorithms: Vec<Algorithm> = Vec::new();
    for _ in 0..count {
        let id = data.u16().map_err(malformed)?;
        let size = usize::from(data.u16().map_err(malformed)?);
        if algorithms.iter().any(|(other, _)| *other == id) {
            return Err(EventLogError::AlgorithmRepeated { id });
        }
        if Bank::of(id).is_some_and(|bank| bank.algorithm().output_len() != size) {
            return Err(EventLogError::AlgorithmSize { id });
        }
        algorithms.push((id, size));
    }
    let vendor = usize::from(data.u8().map_err(malformed)?);
    data.take(vendor).map_err(malformed)?;
    if pcr != 0 || digest != [0; 20] || !data.rest().is_empty() {
        return Err(EventLogError::SpecIdMalformed);
    }
    Ok(algorithms)
}

fn banks(algorithms: &[Algorithm]) -> Result<Vec<Bank>, EventLogError> {
    let banks: Vec<Bank> = algorithms.iter().filter_map(|(id, _)| Bank::of(*id)).collect();
    if banks.contains(&Bank::Sha256) { Ok(banks) } else { Err(EventLogError::NoSha256) }
}

/// TCG_PCR_EVENT2: PCR 4, type 4, number of digests 4, each id 2 and digest, length 4, data.
fn event<'a>(reader: &mut LeReader<'a>, algorithms: &[Algorithm], index: usize) -> Result<Event<'a>, EventLogError> {
    let pcr = reader.u32()?;
    let event_type = reader.u32()?;
    // An informative event may name no PCR (0xffffffff), since it extends none.
    if pcr >= PCRS && event_type != EV_NO_ACTION {
        return Err(EventLogError::PcrIndex { index, pcr });
    }
    let (digests, sha256) = digests(reader, algorithms, index)?;
    let length = reader.length()?;
    let data = reader.take(length)?;
    let content = content::read(event_type, data, index)?;
    let mut measured = None;
    if event_type != EV_NO_ACTION {
        let of_data = content::digest_is_of_data(event_type);
        for part in content::measured_parts(event_type, data, &content) {
            if *Sha256Digest::of(part).as_bytes() == sha256 {
                measured = Some(part);
                break;
            }
        }
        let agrees = |bank: Bank, digest: &[u8], part| ring::digest::digest(bank.algorithm(), part).as_ref() == digest;
        let others_agree = |part| digests.iter().all(|(bank, digest)| agrees(*bank, digest, part));
        if of_data && !measured.is_some_and(others_agree) {
            return Err(EventLogError::DataMismatch { index });
        }
    }
    Ok(Event { pcr, event_type, digests, sha256, data, content, measured })
}

/// One digest of each algorithm of the header, in any order: those of known banks, and that of SHA-256.
fn digests<'a>(
    reader: &mut LeReader<'a>,
    algorithms: &[Algorithm],
    index: usize,
) -> Result<(Digests<'a>, [u8; 32]), EventLogError> {
    let count = reader.u32()?;
    if usize::try_from(count).ok() != Some(algorithms.len()) {
        return Err(EventLogError::DigestCount { index, found: count });
    }
    let mut seen = Vec::new();
    let mut digests = Vec::new();
    let mut sha256 = None;
    for _ in 0..count {
        let id = reader.u16()?;
        let known = algorithms.iter().find(|(other, _)| *other == id);
        let (_, size) = known.ok_or(EventLogError::DigestAlgorithm { index, id })?;
        if seen.contains(&id) {
            return Err(EventLogError::DigestRepeated { index, id });
        }
        seen.push(id);
        let digest = reader.take(*size)?;
        if let Some(bank) = Bank::of(id) {
            if bank == Bank::Sha256 {
                sha256 = digest.try_into().ok();
            }
            digests.push((bank, digest));
        }
    }
    Ok((digests, sha256.ok_or(EventLogError::NoSha256)?))
}

fn at_end(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0) || rest.iter().all(|byte| *byte == 0xff)
}
