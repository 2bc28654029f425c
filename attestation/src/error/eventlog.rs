//! Why an event log is not believed.

use std::error::Error;
use std::fmt;

use crate::eventlog::{EVENT_LOG_BYTES_MAX, EVENTS_MAX};

/// A log that can't be read, does not agree with itself or with the quote, or does not show what was asked. Indices count
/// the events behind the Spec ID event, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the event, the PCR, or what was found; the variant says which is wrong"
)]
pub enum EventLogError {
    /// An EV_EFI_ACTION is not text.
    ActionNotText { index: usize },
    /// The header lists no algorithm, or too many.
    AlgorithmCount { found: u32 },
    /// The header lists an algorithm twice.
    AlgorithmRepeated { id: u16 },
    /// The header gives a known algorithm another digest size.
    AlgorithmSize { id: u16 },
    /// PCR 4 has no image at all.
    BootApplicationMissing,
    /// PCR 4 has something that is not on the list, under whatever type.
    BootApplicationUnlisted { digest: [u8; 32] },
    /// PCR 9 does not begin with the load options.
    CommandLineMismatch,
    /// A command line has a character that is not ASCII, or a control character: its measured form is not one.
    CommandLineNotAscii,
    /// The digest is not of the data, and for this type has to be.
    DataMismatch { index: usize },
    /// An event has a digest of an algorithm that the header does not list.
    DigestAlgorithm { index: usize, id: u16 },
    /// An event has more or fewer digests than the header lists algorithms.
    DigestCount { index: usize, found: u32 },
    /// An event has two digests of one algorithm.
    DigestRepeated { index: usize, id: u16 },
    /// The firmware failed to measure something, and said so.
    ErrorSeparator { pcr: u32 },
    /// PCR 9 has no initrd, and one is asked for.
    InitrdMissing,
    /// PCR 9 has something behind the load options that is no listed initrd.
    InitrdUnlisted { digest: [u8; 32] },
    /// The log is of the TCG 1.2 form, with SHA-1 digests only.
    LegacySha1,
    /// StartupLocality is not one byte of 0, 3 or 4.
    LocalityMalformed { index: usize },
    /// StartupLocality comes twice, or after an event of PCR 0.
    LocalityMisplaced { index: usize },
    /// The log has no SHA-256 digests.
    NoSha256,
    /// An event is of a PCR that does not exist.
    PcrIndex { index: usize, pcr: u32 },
    /// A rule needs a PCR whose events were not compared with a quote.
    PcrNotMeasured { pcr: u32 },
    /// The evidence does not hold the PCR.
    PcrNotQuoted { pcr: u32 },
    /// No quote speaks for the guest: there is none, or nothing binds its TPM to the guest.
    QuoteMissing,
    /// The events do not lead to the quoted value.
    ReplayMismatch { pcr: u32 },
    /// PCR 7 does not begin with the variable SecureBoot.
    SecureBootNotFirst,
    /// Secure boot was off.
    SecureBootOff,
    /// A separator is none of the three values.
    SeparatorMalformed { index: usize },
    /// The Spec ID event has a wrong field, or bytes behind its end.
    SpecIdMalformed,
    /// The first event is informative and not a Spec ID.
    SpecIdMissing,
    /// The log is longer than any is.
    TooLong { found: usize },
    /// The log has more events than any has.
    TooManyEvents,
    /// The log ends inside an event.
    Truncated,
    /// The data of a variable event is not UEFI_VARIABLE_DATA.
    VariableMalformed { index: usize },
}

impl EventLogError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ActionNotText { .. } => "event-action-not-text",
            Self::AlgorithmCount { .. } => "event-log-algorithm-count",
            Self::AlgorithmRepeated { .. } => "event-log-algorithm-repeated",
            Self::AlgorithmSize { .. } => "event-log-algorithm-size",
            Self::BootApplicationMissing => "boot-application-missing",
            Self::BootApplicationUnlisted { .. } => "boot-application-unlisted",
            Self::CommandLineMismatch => "kernel-command-line-mismatch",
            Self::CommandLineNotAscii => "kernel-command-line-not-ascii",
            Self::DataMismatch { .. } => "event-data-mismatch",
            Self::DigestAlgorithm { .. } => "event-digest-algorithm-unknown",
            Self::DigestCount { .. } => "event-digest-count",
            Self::DigestRepeated { .. } => "event-digest-repeated",
            Self::ErrorSeparator { .. } => "firmware-measurement-failed",
            Self::InitrdMissing => "initrd-missing",
            Self::InitrdUnlisted { .. } => "initrd-unlisted",
            Self::LegacySha1 => "event-log-legacy-sha1",
            Self::LocalityMalformed { .. } => "startup-locality-malformed",
            Self::LocalityMisplaced { .. } => "startup-locality-misplaced",
            Self::NoSha256 => "event-log-without-sha256",
            Self::PcrIndex { .. } => "event-pcr-unknown",
            Self::PcrNotMeasured { .. } => "pcr-not-measured",
            Self::PcrNotQuoted { .. } => "pcr-not-quoted",
            Self::QuoteMissing => "event-log-without-quote",
            Self::ReplayMismatch { .. } => "event-log-replay-mismatch",
            Self::SecureBootNotFirst => "secure-boot-not-shown",
            Self::SecureBootOff => "secure-boot-off",
            Self::SeparatorMalformed { .. } => "event-separator-malformed",
            Self::SpecIdMalformed => "event-log-spec-id-malformed",
            Self::SpecIdMissing => "event-log-spec-id-missing",
            Self::TooLong { .. } => "event-log-too-long",
            Self::TooManyEvents => "event-log-too-many-events",
            Self::Truncated => "event-log-truncated",
            Self::VariableMalformed { .. } => "event-variable-malformed",
        }
    }
}

impl fmt::Display for EventLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActionNotText { index } => write!(f, "event {index}: an EFI action that is not text"),
            Self::AlgorithmCount { found } => write!(f, "the log's header lists {found} digest algorithms"),
            Self::AlgorithmRepeated { id } => write!(f, "the log's header lists algorithm {id:#06x} twice"),
            Self::AlgorithmSize { id } => write!(f, "the log's header gives algorithm {id:#06x} another digest size"),
            Self::BootApplicationMissing => {
                f.write_str("PCR 4 has no image: the firmware measured nothing that it started")
            }
            Self::BootApplicationUnlisted { digest } => {
                write!(f, "PCR 4 has {}, which is not on the list", hex::encode(digest))
            }
            Self::CommandLineMismatch => f.write_str("PCR 9 does not begin with this command line"),
            Self::CommandLineNotAscii => f.write_str("the command line has a character that is not printable ASCII"),
            Self::DataMismatch { index } => write!(f, "event {index}: the digest is not that of the data"),
            Self::DigestAlgorithm { index, id } => write!(f, "event {index}: algorithm {id:#06x} is not in the header"),
            Self::DigestCount { index, found } => write!(f, "event {index}: {found} digests, unlike the header says"),
            Self::DigestRepeated { index, id } => write!(f, "event {index}: two digests of algorithm {id:#06x}"),
            Self::ErrorSeparator { pcr } => write!(f, "PCR {pcr}: the firmware says that it failed to measure"),
            Self::InitrdMissing => f.write_str("PCR 9 has no initrd behind the command line, and the rule lists one"),
            Self::InitrdUnlisted { digest } => {
                write!(f, "PCR 9 has {} behind the command line, which is no listed initrd", hex::encode(digest))
            }
            Self::LegacySha1 => f.write_str("the log is of the old form, with SHA-1 digests only"),
            Self::LocalityMalformed { index } => write!(f, "event {index}: the start-up locality is not 0, 3 or 4"),
            Self::LocalityMisplaced { index } => write!(f, "event {index}: a start-up locality twice or too late"),
            Self::NoSha256 => f.write_str("the log has no SHA-256 digests"),
            Self::PcrIndex { index, pcr } => write!(f, "event {index}: there is no PCR {pcr}"),
            Self::PcrNotMeasured { pcr } => write!(f, "the events of PCR {pcr} were not compared with a quote"),
            Self::PcrNotQuoted { pcr } => write!(f, "PCR {pcr} is not in the quote"),
            Self::QuoteMissing => f.write_str("no quote says that this log is the guest's"),
            Self::ReplayMismatch { pcr } => write!(f, "the events of PCR {pcr} do not lead to its quoted value"),
            Self::SecureBootNotFirst => f.write_str("PCR 7 does not begin with the variable SecureBoot"),
            Self::SecureBootOff => f.write_str("secure boot was off"),
            Self::SeparatorMalformed { index } => write!(f, "event {index}: not a separator"),
            Self::SpecIdMalformed => f.write_str("the log's header is malformed"),
            Self::SpecIdMissing => f.write_str("the log does not begin with a Spec ID event"),
            Self::TooLong { found } => write!(f, "{found} bytes where a log has at most {EVENT_LOG_BYTES_MAX}"),
            Self::TooManyEvents => write!(f, "more than {EVENTS_MAX} events"),
            Self::Truncated => f.write_str("the log ends inside an event"),
            Self::VariableMalformed { index } => write!(f, "event {index}: not the data of a variable"),
        }
    }
}

impl Error for EventLogError {}
