//! What an event log says about a boot. Whether it is true is for a quote to say.

use std::fmt;

use attestation::{Content, Event, EventLog, Separator, Sha256Digest, verity_root_hashes};
use serde::Serialize;

/// Tags of the Linux EFI stub (Linux, efistub.h).
const TAG_LOAD_OPTIONS: u32 = 0x8f3b_22ed;
const TAG_INITRD: u32 = 0x8f3b_22ec;
/// What GRUB writes before the command line that it measures, in its versions.
const CMDLINE_PREFIXES: [&str; 2] = ["kernel_cmdline: ", "grub_kernel_cmdline "];
/// The longest text of an event that is shown.
const TEXT_CHARS_MAX: usize = 400;

/// What is known of a boot if the log is true.
#[derive(Debug, Clone, Serialize)]
pub struct BootSays {
    /// By the first event of PCR 7.
    pub secure_boot: SecureBootSays,
    /// What was started, by the events of PCR 4, in order.
    pub images: Vec<ImageSays>,
    /// SHA-256 of the options that the kernel's EFI stub got (UTF-16, with a NUL). Their text is not in any log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_options: Option<Sha256Digest>,
    /// SHA-256 of the initrds that the EFI stub got.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initrds: Vec<Sha256Digest>,
    /// Command lines in the text of a boot loader, whose digest was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command_lines: Vec<String>,
    /// Root hashes of dm-verity on them: parameter and digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verity_root_hashes: Vec<String>,
}

/// Secure boot, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBootSays {
    /// On.
    On,
    /// Off.
    Off,
    /// PCR 7 does not begin with it.
    NotShown,
}

/// Something that the firmware started.
#[derive(Debug, Clone, Serialize)]
pub struct ImageSays {
    /// Its Authenticode digest, SHA-256.
    pub sha256: Sha256Digest,
    /// Where it was loaded from: a label that nobody measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl BootSays {
    /// Reads what the events of these PCRs say.
    pub fn of(log: &EventLog<'_>, counts: impl Fn(u32) -> bool) -> Self {
        let events = |pcr: u32| {
            let of_pcr = log.events().iter().filter(move |event| event.pcr() == pcr && extends(event));
            of_pcr.filter(|event| counts(event.pcr()))
        };
        let secure_boot = match events(7).next().and_then(|event| secure_boot(event.content())) {
            Some(true) => SecureBootSays::On,
            Some(false) => SecureBootSays::Off,
            None => SecureBootSays::NotShown,
        };
        let images = events(4).filter(|event| is_image(event)).map(|event| {
            let path = image_path(event.data()).map(|path| one_line(&path));
            ImageSays { sha256: Sha256Digest::from_bytes(*event.sha256()), path }
        });
        let tagged = |wanted: u32| {
            let tags =
                events(9).filter(move |event| matches!(event.content(), Content::Tag { id, .. } if *id == wanted));
            tags.map(|event| Sha256Digest::from_bytes(*event.sha256()))
        };
        let lines: Vec<String> = [8, 12].into_iter().flat_map(events).filter_map(command_line).collect();
        let roots = lines.iter().flat_map(|line| verity_root_hashes(line));
        let verity_root_hashes = roots.map(|root| format!("{} {}", root.parameter, root.hex)).collect();
        Self {
            secure_boot,
            images: images.collect(),
            load_options: tagged(TAG_LOAD_OPTIONS).next(),
            initrds: tagged(TAG_INITRD).collect(),
            command_lines: lines.iter().map(|line| one_line(line)).collect(),
            verity_root_hashes,
        }
    }
}

/// Whether an event changes its PCR.
pub(super) fn extends(event: &Event<'_>) -> bool {
    !matches!(event.content(), Content::NoAction | Content::StartupLocality(_))
}

/// Whether an event of PCR 4 stands for something that ran.
fn is_image(event: &Event<'_>) -> bool {
    !matches!(event.content(), Content::Separator(Separator::Boot | Separator::Error) | Content::EfiAction(_))
}

/// On or off, where this is the variable that says it.
pub(super) fn secure_boot(content: &Content<'_>) -> Option<bool> {
    match content {
        Content::Variable(variable) => variable.secure_boot(),
        _ => None,
    }
}

/// The command line of the kernel, where a boot loader measured its text.
fn command_line(event: &Event<'_>) -> Option<String> {
    let (Content::Ipl, Some(measured)) = (event.content(), event.measured()) else { return None };
    // systemd-boot measures the options as the kernel gets them.
    if let Some(text) = utf16(measured) {
        return Some(text);
    }
    let data = String::from_utf8_lossy(event.data());
    CMDLINE_PREFIXES.iter().any(|prefix| data.starts_with(prefix)).then(|| text(measured))
}

/// A name for what the EFI stub tagged.
pub(super) fn tag_name(id: u32) -> &'static str {
    match id {
        TAG_LOAD_OPTIONS => "options of the kernel",
        TAG_INITRD => "initrd",
        _ => "a tag that is unknown",
    }
}

/// Text of an event, in the encoding that it seems to have.
pub(super) fn text(bytes: &[u8]) -> String {
    utf16(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
}

/// UTF-16LE, as firmware and systemd-boot write ASCII: every second byte is zero.
fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, _) = bytes.as_chunks::<2>();
    let looks = units.len() > 1 && units.iter().all(|[low, high]| *high == 0 && (*low == 0 || *low >= b' '));
    looks.then(|| units.iter().map(|[low, _]| char::from(*low)).collect::<String>().trim_end_matches('\0').to_owned())
}

/// So that no text can pass for a line of ours, nor fill the screen.
pub(super) fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(TEXT_CHARS_MAX).map(|char| if char == '\n' { ' ' } else { char }).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// The file path in EFI_IMAGE_LOAD_EVENT: location 8, length 8, link-time address 8, length of the device path 8, device
/// path; in it the node of type 4, subtype 4 (UEFI, "Media Device Path"): type 1, subtype 1, length 2, UTF-16.
pub(super) fn image_path(data: &[u8]) -> Option<String> {
    let mut rest = data.get(32..)?;
    while let [kind, subtype, low, high, ..] = *rest {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let node = rest.get(4..length)?;
        if (kind, subtype) == (4, 4) {
            return utf16(node);
        }
        rest = rest.get(length..)?;
    }
    None
}

impl fmt::Display for SecureBootSays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::NotShown => "not shown",
        })
    }
}
