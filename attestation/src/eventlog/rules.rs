//! What may be asked of a measured log. Each rule holds although nobody measured the types of events.

use super::replay::{Kind, MeasuredLog};
use crate::command_line::{RootHash, load_options, verity_root_hashes};
use crate::encoding::Sha256Digest;
use crate::error::EventLogError;

impl MeasuredLog {
    /// Secure boot was on: the *first* event of PCR 7 is the variable SecureBoot, with value 1 (PFP 3.3.4.8).
    ///
    /// Only the first will do. The firmware measures it before any other code runs; software that ran later can extend
    /// PCR 7 by the digest of "SecureBoot = 1" too, and log the firmware's own event under a type that says nothing.
    ///
    /// # Errors
    /// [`EventLogError::SecureBootNotFirst`], [`EventLogError::SecureBootOff`], [`EventLogError::PcrNotMeasured`].
    pub fn secure_boot(&self) -> Result<(), EventLogError> {
        match self.events(7)?.first().map(|event| event.kind) {
            Some(Kind::SecureBoot { on: true }) => Ok(()),
            Some(Kind::SecureBoot { on: false }) => Err(EventLogError::SecureBootOff),
            Some(Kind::BootSeparator | Kind::ErrorSeparator | Kind::BootAction | Kind::Other) | None => {
                Err(EventLogError::SecureBootNotFirst)
            }
        }
    }

    /// No boot loader, kernel or other EFI application ran but those with one of these Authenticode digests.
    ///
    /// Everything in PCR 4 is either on the list, or a separator or one of the two actions of the specification, by
    /// digest. An image that is logged under another type, with its own bytes as data, is unlisted all the same. At least one
    /// must be there: some firmware starts a kernel that is no EFI application without measuring it.
    ///
    /// # Errors
    /// [`EventLogError::BootApplicationUnlisted`], [`EventLogError::BootApplicationMissing`], [`EventLogError::ErrorSeparator`], [`EventLogError::PcrNotMeasured`].
    pub fn boot_applications_only(&self, listed: &[Sha256Digest]) -> Result<(), EventLogError> {
        let applications = self.boot_applications()?;
        match applications.iter().find(|digest| !listed.contains(digest)) {
            None if applications.is_empty() => Err(EventLogError::BootApplicationMissing),
            None => Ok(()),
            Some(digest) => Err(EventLogError::BootApplicationUnlisted { digest: *digest.as_bytes() }),
        }
    }

    /// Every digest in PCR 4, in order, that is not a separator or one of the two actions of the specification: boot
    /// loaders, kernels and other EFI applications, and whatever else got in there under any type.
    ///
    /// # Errors
    /// [`EventLogError::ErrorSeparator`], [`EventLogError::PcrNotMeasured`].
    pub fn boot_applications(&self) -> Result<Vec<Sha256Digest>, EventLogError> {
        let mut applications = Vec::new();
        for event in self.events(4)? {
            match event.kind {
                Kind::BootSeparator | Kind::BootAction => {}
                Kind::ErrorSeparator => return Err(EventLogError::ErrorSeparator { pcr: 4 }),
                Kind::SecureBoot { .. } | Kind::Other => applications.push(Sha256Digest::from_bytes(event.sha256)),
            }
        }
        Ok(applications)
    }

    /// The kernel's EFI stub got exactly these load options, and then no initrds but those listed (SHA-256 of the file): none
    /// where none is listed, else at least one. A kernel that is started without its initrd mounts whatever root file system
    /// the disk offers: nobody looks at the root hash of dm-verity then.
    ///
    /// `options` is the text as the loader gives it: QEMU with OVMF adds ` initrd=initrd` to `-append`. The text is not in
    /// the log, so it comes from whoever asks; the log shows that it was this one. PCR 9 must hold nothing else: a second
    /// command line would otherwise hide behind a later extend by the digest of a good one.
    ///
    /// # Errors
    /// [`EventLogError::CommandLineMismatch`], [`EventLogError::CommandLineNotAscii`], [`EventLogError::InitrdMissing`],
    /// [`EventLogError::InitrdUnlisted`], [`EventLogError::PcrNotMeasured`].
    pub fn kernel_command_line(
        &self,
        options: &str,
        initrds: &[Sha256Digest],
    ) -> Result<MeasuredCommandLine, EventLogError> {
        let expected = Sha256Digest::of(&load_options(options).ok_or(EventLogError::CommandLineNotAscii)?);
        let events = self.events(9)?;
        let Some((first, rest)) = events.split_first() else { return Err(EventLogError::CommandLineMismatch) };
        let is_listed = |digest: &[u8; 32]| initrds.iter().any(|listed| listed.as_bytes() == digest);
        if first.sha256 != *expected.as_bytes() {
            return Err(EventLogError::CommandLineMismatch);
        }
        if let Some(other) = rest.iter().find(|event| !is_listed(&event.sha256)) {
            return Err(EventLogError::InitrdUnlisted { digest: other.sha256 });
        }
        if rest.is_empty() && !initrds.is_empty() {
            return Err(EventLogError::InitrdMissing);
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
