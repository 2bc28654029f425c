//! PCR values of a boot that has not happened yet.
//!
//! Only what kernel, initrd and command line decide: PCR 4, 9 and 11. PCRs 0 to 3 and 5 to 7 are the firmware's, its
//! settings' and its disks': they are known from a log of that machine.

mod qemu;
#[cfg(test)]
mod tests;

use crate::command_line::load_options;
use crate::encoding::Sha256Digest;
use crate::error::{EventLogError, PeError};
use crate::eventlog::{Bank, Content, ReplayedLog, extend};
use crate::pe::PeImage;

pub use qemu::QemuQ35;

/// The sections that systemd-stub measures into PCR 11, in its order (systemd, src/fundamental/uki.h; UAPI.5 "Unified
/// Kernel Image"), for the versions whose programs were looked at: Debian 12's, Ubuntu 24.04's and Debian 13's. `.pcrsig`
/// is not measured: it holds signatures over the result. Images and boots agreed for 252 and 257 (QEMU 7.2, OVMF 2022.11,
/// swtpm), and so did `systemd-measure` 252 for 252.
const UKI_252: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];
const UKI_255: [&str; 9] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"];
const UKI_257: [&str; 10] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"];
/// Sections among which the stub chooses by boot menu or hardware: PCR 11 is then not one value.
const UKI_CHOICES: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];

/// PCR 4 when QEMU's `-kernel` is started by OVMF: the kernel's Authenticode digest, then the action "Calling EFI
/// Application from Boot Option" and the separator, which OVMF measures on its way to that kernel.
///
/// `kernel` is what the firmware gets, which is rarely the file: see [`QemuQ35`].
///
/// # Errors
/// [`PeError`].
pub fn ovmf_direct_boot_pcr4(kernel: &PeImage<'_>) -> Result<[u8; 32], PeError> {
    Ok(direct_boot(kernel.authenticode_sha256()?))
}

/// PCR 9 after the kernel's EFI stub (Linux 5.17 and later): the load options as UTF-16LE with a NUL, then the initrd.
///
/// `options` is the text that the loader gives. QEMU with OVMF adds ` initrd=initrd` to `-append` where there is an initrd.
///
/// # Errors
/// [`EventLogError::CommandLineNotAscii`].
pub fn efi_stub_pcr9(options: &str, initrd: Option<&[u8]>) -> Result<[u8; 32], EventLogError> {
    let options = load_options(options).ok_or(EventLogError::CommandLineNotAscii)?;
    let digests = std::iter::once(options.as_slice()).chain(initrd).map(|bytes| *Sha256Digest::of(bytes).as_bytes());
    Ok(pcr(digests))
}

/// PCR 11 after systemd-stub, before any boot phase ("enter-initrd" and later ones extend it again): for each section that
/// this version of the stub measures and the image has, its name with a NUL, then its contents as in memory.
///
/// # Errors
/// [`PeError::NotUki`], [`PeError::UkiStub`], [`PeError::UkiChoice`] and what reading a section refuses.
pub fn systemd_stub_pcr11(image: &PeImage<'_>) -> Result<[u8; 32], PeError> {
    if image.section(".linux").is_none() {
        return Err(PeError::NotUki);
    }
    let measured: &[&str] = match stub_version(image) {
        Some(252) => &UKI_252,
        Some(255) => &UKI_255,
        Some(257) => &UKI_257,
        found => return Err(PeError::UkiStub { found }),
    };
    if let Some(section) = UKI_CHOICES.into_iter().find(|name| image.section(name).is_some()) {
        return Err(PeError::UkiChoice { section });
    }
    let mut digests = Vec::new();
    for name in measured {
        if let Some(section) = image.section(name) {
            digests.push(*Sha256Digest::of(&[name.as_bytes(), &[0]].concat()).as_bytes());
            digests.push(*Sha256Digest::of(&section.in_memory()?).as_bytes());
        }
    }
    Ok(pcr(digests))
}

/// The major version in `.sdmagic`: `#### LoaderInfo: systemd-stub 252.39-1 ####`.
fn stub_version(image: &PeImage<'_>) -> Option<u32> {
    let text = std::str::from_utf8(image.section(".sdmagic")?.raw).ok()?;
    let (_, version) = text.split_once("LoaderInfo: systemd-stub ")?;
    version.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

impl ReplayedLog<'_> {
    /// PCR 4 of this boot with another kernel: the digest of the only EFI application of PCR 4 replaced. None where the log
    /// has none, or several: which one changes is then not known.
    #[must_use]
    pub fn pcr4_with_application(&self, digest: &[u8; 32]) -> Option<[u8; 32]> {
        let events = || self.log().events().iter().filter(|event| event.pcr() == 4 && event.extends());
        let is_application = |content: &Content<'_>| *content == Content::BootApplication;
        if events().filter(|event| is_application(event.content())).count() != 1 {
            return None;
        }
        Some(pcr(events().map(|event| if is_application(event.content()) { *digest } else { *event.sha256() })))
    }
}

fn direct_boot(kernel: [u8; 32]) -> [u8; 32] {
    let action = Sha256Digest::of(b"Calling EFI Application from Boot Option");
    let separator = Sha256Digest::of(&[0; 4]);
    pcr([kernel, *action.as_bytes(), *separator.as_bytes()])
}

fn pcr(digests: impl IntoIterator<Item = [u8; 32]>) -> [u8; 32] {
    let value = digests.into_iter().fold(vec![0; 32], |value, digest| extend(Bank::Sha256, &value, &digest));
    let mut array = [0; 32];
    array.copy_from_slice(&value);
    array
}
