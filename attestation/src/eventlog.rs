//! TCG event logs: what the firmware says that it measured.
//!
//! A log is a claim. Whoever runs the machine can write any log, and an event's *type* is measured by nobody. So:
//!
//! ```text
//! bytes ──EventLog::parse──▶ EventLog ──replay──▶ ReplayedLog ──against(QuoteClaims, PCRs)──▶ MeasuredLog ──▶ rules
//! ```
//!
//! Only a [`MeasuredLog`], whose replay gives the PCR values of a verified quote, answers questions (`rules.rs`).
//!
//! Format: TCG PC Client Platform Firmware Profile 1.05 (PFP), sections 9 and 10: one `TCG_PCClientPCREvent` with a
//! `TCG_EfiSpecIDEvent` ("Spec ID Event03"), then `TCG_PCR_EVENT2`s. All integers are little-endian.

mod content;
mod parse;
mod replay;
mod rules;
#[cfg(test)]
pub(crate) mod testlog;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use content::{Content, Separator, Variable, VariableClass};
pub(crate) use replay::extend;
pub use replay::{MeasuredLog, ReplayedLog};
pub use rules::MeasuredCommandLine;

/// The longest log, in bytes. The longest recorded one has 50 kB; Linux allows as much as the firmware gives.
pub const EVENT_LOG_BYTES_MAX: usize = 1 << 20;
/// Most events in a log.
pub const EVENTS_MAX: usize = 4096;
/// Most digest algorithms in a log.
pub(crate) const BANKS_MAX: u32 = 8;

/// A bank of PCRs that this crate can compute. Others (SM3, SHA-3) are read over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bank {
    /// TPM_ALG_SHA1. Never the base of a decision.
    Sha1,
    /// TPM_ALG_SHA256: the bank that is quoted.
    Sha256,
    /// TPM_ALG_SHA384.
    Sha384,
    /// TPM_ALG_SHA512.
    Sha512,
}

impl Bank {
    /// By TPM_ALG_ID (TCG Algorithm Registry).
    pub(crate) const fn of(algorithm: u16) -> Option<Self> {
        match algorithm {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    pub(crate) const fn algorithm(self) -> &'static ring::digest::Algorithm {
        match self {
            Self::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &ring::digest::SHA256,
            Self::Sha384 => &ring::digest::SHA384,
            Self::Sha512 => &ring::digest::SHA512,
        }
    }

    /// The name that Linux and tpm2-tools use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

/// A log that can be read, and whose digests are of their data where they have to be. Nothing says yet that it is true.
///
/// There is no way from here to a rule:
/// ```compile_fail,E0599
/// # fn f(log: attestation::EventLog<'_>) {
/// log.secure_boot();
/// # }
/// ```
/// ```
/// # fn f(log: attestation::EventLog<'_>) {
/// log.replay();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EventLog<'a> {
    pub(crate) banks: Vec<Bank>,
    pub(crate) locality: u8,
    pub(crate) events: Vec<Event<'a>>,
}

impl<'a> EventLog<'a> {
    /// The events, in order, without the Spec ID event.
    #[must_use]
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The banks of the log that can be replayed, in the order of its header.
    #[must_use]
    pub fn banks(&self) -> &[Bank] {
        &self.banks
    }
}

/// The digests of an event in the banks that are known.
pub(crate) type Digests<'a> = Vec<(Bank, &'a [u8])>;

/// One entry of a log.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    pub(crate) pcr: u32,
    pub(crate) event_type: u32,
    /// In the order of [`EventLog::banks`].
    pub(crate) digests: Digests<'a>,
    pub(crate) sha256: [u8; 32],
    pub(crate) data: &'a [u8],
    pub(crate) content: Content<'a>,
    pub(crate) measured: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// The PCR, 0 to 23. An EV_NO_ACTION event extends none, whatever it says here.
    #[must_use]
    pub const fn pcr(&self) -> u32 {
        self.pcr
    }

    /// The type, as it is in the log (PFP table "Events").
    #[must_use]
    pub const fn event_type(&self) -> u32 {
        self.event_type
    }

    /// The digest in the SHA-256 bank.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// What the log says that it is. Nobody measured the type, and the data only where [`measured`](Self::measured) says.
    #[must_use]
    pub const fn content(&self) -> &Content<'a> {
        &self.content
    }

    /// All data of the event, measured or not.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes that the SHA-256 digest is of: all of the data, or the value of a boot variable, or the text behind a
    /// loader's prefix. None where the digest is of something that the log does not hold, such as an image.
    #[must_use]
    pub const fn measured(&self) -> Option<&'a [u8]> {
        self.measured
    }

    /// The name of the type.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        content::type_name(self.event_type)
    }

    pub(crate) const fn extends(&self) -> bool {
        self.event_type != content::EV_NO_ACTION
    }
}
