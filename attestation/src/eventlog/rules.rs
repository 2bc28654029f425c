//! What may be asked of a measured log. Each rule holds although nobody measured the types of events.

use super::content::{Content, Separator};
use super::replay::MeasuredLog;
use crate::command_line::{RootHash, load_options, verity_root_hashes};
use crate::encoding::Sha256Digest;
use crate::error::EventLogError;

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c (UEFI, "Globally Defined Variables").
const GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// The actions that firmware measures into PCR 4 (PFP, "EV_EFI_ACTION Event Types").
const BOOT_ACTIONS: [&str; 2] =
    ["Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option"];

impl MeasuredLog<'_> {
    /// Secure boot was on: the *first* event of PCR 7 is the variable SecureBoot, with value 1 (PFP 3.3.4.8).
    ///
    /// Only the first will do. The firmware measures it before any other code runs; software that ran later can extend
    /// PCR 7 by the digest of "SecureBoot = 1" too, and log the firmware's own event under a type that says nothing.
    ///
    /// # Errors
    /// [`EventLogError::SecureBootNotFirst`], [`EventLogError::SecureBootOff`], [`EventLogError::PcrNotMeasured`].
    pub fn secure_boot(&self) -> Result<(), EventLogError> {
        let events = self.events(7)?;
        match events.first().map(|event| event.content()) {
            Some(Content::Variable(variable)) if variable.is(&GLOBAL_VARIABLE, "SecureBoot") => {
                if variable.value == [1] { Ok(()) } else { Err(EventLogError::SecureBootOff) }
            }
            _ => Err(EventLogError::SecureBootNotFirst),
        }
    }

    /// No boot loader, kernel or other EFI application ran but those with one of these Authenticode digests.
    ///
    /// Everything in PCR 4 is either on the list, or a separator or one of the two actions of the specification, by
    /// digest. An image that is logged under another type, with its own bytes as data, is unlisted all the same.
    ///
    /// # Errors
    /// [`EventLogError::BootApplicationUnlisted`], [`EventLogError::ErrorSeparator`], [`EventLogError::PcrNotMeasured`].
    pub fn boot_applications_only(&self, listed: &[Sha256Digest]) -> Result<(), EventLogError> {
        for event in self.events(4)? {
            match event.content() {
                Content::Separator(Separator::Boot) => {}
                Content::Separator(Separator::Error) => return Err(EventLogError::ErrorSeparator { pcr: 4 }),
                Content::EfiAction(text) if BOOT_ACTIONS.contains(text) => {}
                _ if listed.iter().any(|digest| digest.as_bytes() == event.sha256()) => {}
                _ => return Err(EventLogError::BootApplicationUnlisted { digest: *event.sha256() }),
            }
        }
        Ok(())
    }

    /// The kernel's EFI stub got exactly these load options, and then no initrds but those listed (SHA-256 of the file).
    ///
    /// `options` is the text as the loader gives it: QEMU with OVMF adds ` initrd=initrd` to `-append`. The text is not in
    /// the log, so it comes from whoever asks; the log shows that it was this one. PCR 9 must hold nothing else: a second
    /// command line would otherwise hide behind a later extend by the digest of a good one.
    ///
    /// # Errors
    /// [`EventLogError::CommandLineMismatch`], [`EventLogError::CommandLineNotAscii`], [`EventLogError::PcrNotMeasured`].
    pub fn kernel_command_line(
        &self,
        options: &str,
        initrds: &[Sha256Digest],
    ) -> Result<MeasuredCommandLine, EventLogError> {
        let expected = Sha256Digest::of(&load_options(options).ok_or(EventLogError::CommandLineNotAscii)?);
        let events = self.events(9)?;
        let Some((first, rest)) = events.split_first() else { return Err(EventLogError::CommandLineMismatch) };
        let is_listed = |digest: &[u8; 32]| initrds.iter().any(|listed| listed.as_bytes() == digest);
        if first.sha256() != expected.as_bytes() || !rest.iter().all(|event| is_listed(event.sha256())) {
            return Err(EventLogError::CommandLineMismatch);
        }
        Ok(MeasuredCommandLine { text: options.to_owned() })
    }
}

/// A command line that the kernel was started with. Only [`MeasuredLog::kernel_command_line`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredCommandLine {
    text: String,
}

impl MeasuredCommandLine {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The root hashes of dm-verity that it names.
    #[must_use]
    pub fn verity_root_hashes(&self) -> Vec<RootHash> {
        verity_root_hashes(&self.text)
    }
}
