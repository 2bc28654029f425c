//! From a log to PCR values, and from verified PCR values to a log that can be believed.

use std::collections::BTreeMap;

use super::content::{Content, Separator};
use super::{Bank, Event, EventLog};
use crate::claims::QuoteClaims;
use crate::error::EventLogError;
use crate::snp::VtpmState;
use crate::tpm::{PCRS, PcrSelection};

/// A log, and the PCR values that it leads to.
#[derive(Clone, Debug)]
pub struct ReplayedLog<'a> {
    log: EventLog<'a>,
    values: BTreeMap<(Bank, u32), Vec<u8>>,
}

impl<'a> EventLog<'a> {
    /// Computes every PCR that the log has events for, in every bank that this crate knows.
    ///
    /// A PCR starts with zeros (17 to 22: 0xff; PCR 0: the locality of the start in its last byte), and each event that
    /// is not EV_NO_ACTION makes it H(old || digest) (TPM 2.0 Part 1, "Extend of a PCR"; PFP, "StartupLocality").
    #[must_use]
    pub fn replay(self) -> ReplayedLog<'a> {
        let mut values = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.extends()) {
            for (bank, digest) in &event.digests {
                let value =
                    values.entry((*bank, event.pcr)).or_insert_with(|| initial(*bank, event.pcr, self.locality));
                *value = extend(*bank, value, digest);
            }
        }
        ReplayedLog { log: self, values }
    }
}

impl<'a> ReplayedLog<'a> {
    /// The value of a PCR, or none if the log has no event for it in that bank.
    #[must_use]
    pub fn pcr(&self, bank: Bank, index: u32) -> Option<&[u8]> {
        self.values.get(&(bank, index)).map(Vec::as_slice)
    }

    /// The values of the SHA-256 bank, by index.
    pub fn sha256(&self) -> impl Iterator<Item = (u32, [u8; 32])> {
        let sha256 = self.values.iter().filter(|((bank, _), _)| *bank == Bank::Sha256);
        sha256.filter_map(|((_, index), value)| Some((*index, value.as_slice().try_into().ok()?)))
    }

    /// The log that was replayed.
    #[must_use]
    pub const fn log(&self) -> &EventLog<'a> {
        &self.log
    }

    /// Whether the events lead to these values of the SHA-256 bank.
    ///
    /// A quoted PCR that is not asked for may have another value than the log says: PCR 10 has IMA's events, PCR 11 those of
    /// user space, and neither log is this one. Nothing says here where `values` are from: only [`against`](Self::against)
    /// and [`against_captured`](Self::against_captured) make a log that is believed.
    ///
    /// # Errors
    /// [`EventLogError::PcrNotQuoted`] and [`EventLogError::ReplayMismatch`], for the lowest such PCR.
    pub fn compare(&self, values: &BTreeMap<u32, [u8; 32]>, pcrs: &PcrSelection) -> Result<(), EventLogError> {
        for pcr in pcrs.iter() {
            let value = values.get(&pcr).ok_or(EventLogError::PcrNotQuoted { pcr })?;
            if self.sha256_value(pcr) != *value {
                return Err(EventLogError::ReplayMismatch { pcr });
            }
        }
        Ok(())
    }

    /// What the log makes of a PCR of the SHA-256 bank: without an event that is what the PCR starts with.
    #[must_use]
    pub fn sha256_value(&self, pcr: u32) -> Vec<u8> {
        let unextended = || initial(Bank::Sha256, pcr, self.log.locality);
        self.pcr(Bank::Sha256, pcr).map_or_else(unextended, <[u8]>::to_vec)
    }

    /// Believes the events of the PCRs in `pcrs`: each is in the verified evidence, with the value that the log leads to.
    /// Events of other PCRs are dropped: nothing was checked about them.
    ///
    /// The log then speaks of the machine that the quote speaks of: for [`Claims::Tpm`](crate::Claims::Tpm) and
    /// [`Claims::SnpVtpm`](crate::Claims::SnpVtpm) the guest, for [`Claims::SnpUnboundTpm`](crate::Claims::SnpUnboundTpm)
    /// nobody knows which.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn against(self, quoted: &QuoteClaims, pcrs: &PcrSelection) -> Result<MeasuredLog, EventLogError> {
        self.against_values(quoted.pcrs(), pcrs)
    }

    /// The same with a quote that was captured somewhere: the key that signed it has been checked, and for whom and when it
    /// was made has not.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn against_captured(self, quoted: &VtpmState, pcrs: &PcrSelection) -> Result<MeasuredLog, EventLogError> {
        self.against_values(&quoted.pcrs, pcrs)
    }

    pub(crate) fn against_values(
        self,
        verified: &BTreeMap<u32, [u8; 32]>,
        pcrs: &PcrSelection,
    ) -> Result<MeasuredLog, EventLogError> {
        self.compare(verified, pcrs)?;
        let events = self.log.events.iter().filter(|event| event.extends() && pcrs.contains(event.pcr));
        let events = events.map(|event| MeasuredEvent { pcr: event.pcr, sha256: event.sha256, kind: Kind::of(event) });
        Ok(MeasuredLog { pcrs: *pcrs, events: events.collect() })
    }
}

/// Events that happened: their digests, in this order, lead to PCR values of verified evidence.
///
/// What was measured is the digests and their order. The type is still the log's word. The rules are written so that a
/// wrong type makes them refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredLog {
    pcrs: PcrSelection,
    events: Vec<MeasuredEvent>,
}

/// One of them, with as much of it as a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MeasuredEvent {
    pcr: u32,
    pub(super) sha256: [u8; 32],
    pub(super) kind: Kind,
}

/// What the log says that an event is, where that is data which its digest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The variable SecureBoot.
    SecureBoot { on: bool },
    /// Boot goes on.
    BootSeparator,
    /// The firmware failed to measure something.
    ErrorSeparator,
    /// An action that the specification has for PCR 4.
    BootAction,
    /// Anything else.
    Other,
}

/// The actions that firmware measures into PCR 4 (PFP, "EV_EFI_ACTION Event Types").
const BOOT_ACTIONS: [&str; 2] =
    ["Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option"];

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        match event.content() {
            Content::Variable(variable) => match variable.secure_boot() {
                Some(on) => Self::SecureBoot { on },
                None => Self::Other,
            },
            Content::Separator(Separator::Boot) => Self::BootSeparator,
            Content::Separator(Separator::Error) => Self::ErrorSeparator,
            Content::EfiAction(text) if BOOT_ACTIONS.contains(text) => Self::BootAction,
            Content::EfiAction(_)
            | Content::StartupLocality(_)
            | Content::NoAction
            | Content::Tag { .. }
            | Content::Ipl
            | Content::BootApplication
            | Content::Driver
            | Content::FirmwareBlob
            | Content::CrtmVersion
            | Content::Gpt
            | Content::Other => Self::Other,
        }
    }
}

impl MeasuredLog {
    /// The digests that a PCR was extended by, in order.
    ///
    /// # Errors
    /// [`EventLogError::PcrNotMeasured`] if that PCR was not compared with a quote.
    pub fn digests(&self, pcr: u32) -> Result<Vec<[u8; 32]>, EventLogError> {
        Ok(self.events(pcr)?.iter().map(|event| event.sha256).collect())
    }

    /// The events of one PCR, in order.
    pub(super) fn events(&self, pcr: u32) -> Result<Vec<&MeasuredEvent>, EventLogError> {
        if !self.pcrs.contains(pcr) {
            return Err(EventLogError::PcrNotMeasured { pcr });
        }
        Ok(self.events.iter().filter(|event| event.pcr == pcr).collect())
    }
}

/// H(old || digest).
pub(crate) fn extend(bank: Bank, old: &[u8], digest: &[u8]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(bank.algorithm());
    context.update(old);
    context.update(digest);
    context.finish().as_ref().to_vec()
}

fn initial(bank: Bank, pcr: u32, locality: u8) -> Vec<u8> {
    debug_assert!(pcr < PCRS);
    let fill = if (17..=22).contains(&pcr) { 0xff } else { 0 };
    let mut value = vec![fill; bank.algorithm().output_len()];
    if let (0, Some(last)) = (pcr, value.last_mut()) {
        *last = locality;
    }
    value
}
