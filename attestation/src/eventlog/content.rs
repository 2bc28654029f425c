//! What kinds of events there are (PFP, section 10.4.1 "Event Types" and 10.4.2 "Event Data").

use crate::error::EventLogError;
use crate::le::{End, LeReader};

pub(crate) const EV_NO_ACTION: u32 = 0x3;
pub(crate) const EV_SEPARATOR: u32 = 0x4;
pub(crate) const EV_EVENT_TAG: u32 = 0x6;
pub(crate) const EV_S_CRTM_VERSION: u32 = 0x8;
pub(crate) const EV_IPL: u32 = 0xd;
pub(crate) const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
pub(crate) const EV_EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
pub(crate) const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
pub(crate) const EV_EFI_BOOT_SERVICES_DRIVER: u32 = 0x8000_0004;
pub(crate) const EV_EFI_RUNTIME_SERVICES_DRIVER: u32 = 0x8000_0005;
pub(crate) const EV_EFI_GPT_EVENT: u32 = 0x8000_0006;
pub(crate) const EV_EFI_ACTION: u32 = 0x8000_0007;
pub(crate) const EV_EFI_PLATFORM_FIRMWARE_BLOB: u32 = 0x8000_0008;
pub(crate) const EV_EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
pub(crate) const EV_EFI_VARIABLE_BOOT2: u32 = 0x8000_000c;
pub(crate) const EV_EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;

/// What the log says that an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// EV_NO_ACTION "StartupLocality": PCR 0 starts with this locality in its last byte.
    StartupLocality(u8),
    /// Any other EV_NO_ACTION: extends nothing.
    NoAction,
    /// EV_SEPARATOR: firmware hands over.
    Separator(Separator),
    /// EV_EFI_ACTION: its text.
    EfiAction(&'a str),
    /// A UEFI variable.
    Variable(Variable<'a>),
    /// EV_EVENT_TAG: an id, and a label. The Linux EFI stub's digest is of what it tagged, not of this.
    Tag {
        /// Who defined the label: 0x8f3b22ed are load options, 0x8f3b22ec is an initrd (Linux, efistub.h).
        id: u32,
        /// The label.
        label: &'a [u8],
    },
    /// EV_IPL: a boot loader's text, or the name of a file whose contents were measured.
    Ipl,
    /// EV_EFI_BOOT_SERVICES_APPLICATION: a boot loader or a kernel, by Authenticode digest.
    BootApplication,
    /// EV_EFI_BOOT_SERVICES_DRIVER or EV_EFI_RUNTIME_SERVICES_DRIVER, by Authenticode digest.
    Driver,
    /// EV_EFI_PLATFORM_FIRMWARE_BLOB: a part of the firmware, by address.
    FirmwareBlob,
    /// EV_S_CRTM_VERSION.
    CrtmVersion,
    /// EV_EFI_GPT_EVENT: the partition table.
    Gpt,
    /// Any other type.
    Other,
}

/// Which separator (PFP, "EV_SEPARATOR").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// 0 or 0xffffffff: boot goes on.
    Boot,
    /// 1: the firmware failed to measure something.
    Error,
}

/// Which event held a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableClass {
    /// EV_EFI_VARIABLE_DRIVER_CONFIG: secure boot state and keys, PCR 7; other settings, PCR 1.
    DriverConfig,
    /// EV_EFI_VARIABLE_BOOT and BOOT2: boot order and entries, PCR 1.
    Boot,
    /// EV_EFI_VARIABLE_AUTHORITY: the entry of `db` that vouched for an image, PCR 7.
    Authority,
}

/// UEFI_VARIABLE_DATA: GUID 16, length of the name in UTF-16 units 8, length of the value 8, name, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// In which kind of event.
    pub class: VariableClass,
    /// The namespace, as UEFI stores GUIDs.
    pub guid: [u8; 16],
    /// The name, UTF-16LE. No terminator.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c (UEFI, "Globally Defined Variables").
const GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

impl Variable<'_> {
    /// Whether secure boot is on, where this is the variable that says so.
    #[must_use]
    pub fn secure_boot(&self) -> Option<bool> {
        self.is(&GLOBAL_VARIABLE, "SecureBoot").then_some(self.value == [1])
    }

    /// Whether the variable has this (ASCII) name in this namespace.
    #[must_use]
    pub fn is(&self, guid: &[u8; 16], name: &str) -> bool {
        self.guid == *guid && name.encode_utf16().flat_map(u16::to_le_bytes).eq(self.name.iter().copied())
    }

    /// The name, with `?` where it is not Unicode.
    #[must_use]
    pub fn name_text(&self) -> String {
        let units = self.name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        char::decode_utf16(units).map(|char| char.unwrap_or('?')).collect()
    }
}

/// Reads the data of an event by its type. `index` is for the refusal.
pub(super) fn read(event_type: u32, data: &[u8], index: usize) -> Result<Content<'_>, EventLogError> {
    let variable = |class| match variable(class, data) {
        Ok(variable) => Ok(Content::Variable(variable)),
        Err(End) => Err(EventLogError::VariableMalformed { index }),
    };
    Ok(match event_type {
        EV_NO_ACTION => match data.strip_prefix(b"StartupLocality\0".as_slice()) {
            // PFP 10.4.5.3: Locality 0, 3, or 4 (H-CRTM); no other can start a TPM.
            Some(&[locality @ (0 | 3 | 4)]) => Content::StartupLocality(locality),
            Some(_) => return Err(EventLogError::LocalityMalformed { index }),
            None => Content::NoAction,
        },
        EV_SEPARATOR => match data {
            [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => Content::Separator(Separator::Boot),
            [1, 0, 0, 0] => Content::Separator(Separator::Error),
            _ => return Err(EventLogError::SeparatorMalformed { index }),
        },
        EV_EFI_ACTION => match std::str::from_utf8(data) {
            Ok(text) => Content::EfiAction(text),
            Err(_) => return Err(EventLogError::ActionNotText { index }),
        },
        EV_EFI_VARIABLE_DRIVER_CONFIG => variable(VariableClass::DriverConfig)?,
        EV_EFI_VARIABLE_BOOT | EV_EFI_VARIABLE_BOOT2 => variable(VariableClass::Boot)?,
        EV_EFI_VARIABLE_AUTHORITY => variable(VariableClass::Authority)?,
        EV_EVENT_TAG => tag(data).unwrap_or(Content::Other),
        EV_IPL => Content::Ipl,
        EV_EFI_BOOT_SERVICES_APPLICATION => Content::BootApplication,
        EV_EFI_BOOT_SERVICES_DRIVER | EV_EFI_RUNTIME_SERVICES_DRIVER => Content::Driver,
        EV_EFI_PLATFORM_FIRMWARE_BLOB | EV_EFI_PLATFORM_FIRMWARE_BLOB2 => Content::FirmwareBlob,
        EV_S_CRTM_VERSION => Content::CrtmVersion,
        EV_EFI_GPT_EVENT => Content::Gpt,
        _ => Content::Other,
    })
}

/// Whether the digest of such an event is of its data (PFP, per event type), so that another one is a lie or a defect.
pub(super) const fn digest_is_of_data(event_type: u32) -> bool {
    matches!(
        event_type,
        EV_SEPARATOR
            | EV_EFI_ACTION
            | EV_EFI_VARIABLE_DRIVER_CONFIG
            | EV_EFI_VARIABLE_BOOT
            | EV_EFI_VARIABLE_BOOT2
            | EV_EFI_VARIABLE_AUTHORITY
            | EV_EFI_GPT_EVENT
    )
}

/// The parts of the data that the digest of such an event may be of, the whole first.
///
/// EV_EFI_VARIABLE_BOOT: older firmware measures the value alone (PFP 1.04 and before), so both are in use. EV_IPL: GRUB
/// writes `grub_cmd: TEXT` and measures TEXT; neither prefix nor terminator is measured. Other loaders measure the whole.
pub(super) fn measured_parts<'a>(event_type: u32, data: &'a [u8], content: &Content<'a>) -> Vec<&'a [u8]> {
    let mut parts = vec![data];
    match content {
        Content::Variable(variable) if event_type == EV_EFI_VARIABLE_BOOT => parts.push(variable.value),
        Content::Ipl => {
            let text = data.strip_suffix(&[0]).unwrap_or(data);
            parts.push(text);
            for prefix in
                [&b"grub_cmd: "[..], b"grub_cmd ", b"kernel_cmdline: ", b"grub_kernel_cmdline ", b"module_cmdline: "]
            {
                parts.extend(text.strip_prefix(prefix));
            }
        }
        _ => {}
    }
    parts
}

pub(super) const fn type_name(event_type: u32) -> &'static str {
    match event_type {
        0x0 => "EV_PREBOOT_CERT",
        0x1 => "EV_POST_CODE",
        EV_NO_ACTION => "EV_NO_ACTION",
        EV_SEPARATOR => "EV_SEPARATOR",
        0x5 => "EV_ACTION",
        EV_EVENT_TAG => "EV_EVENT_TAG",
        0x7 => "EV_S_CRTM_CONTENTS",
        EV_S_CRTM_VERSION => "EV_S_CRTM_VERSION",
        0xa => "EV_PLATFORM_CONFIG_FLAGS",
        0xb => "EV_TABLE_OF_DEVICES",
        EV_IPL => "EV_IPL",
        0x11 => "EV_NONHOST_INFO",
        EV_EFI_VARIABLE_DRIVER_CONFIG => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        EV_EFI_VARIABLE_BOOT => "EV_EFI_VARIABLE_BOOT",
        EV_EFI_BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
        EV_EFI_BOOT_SERVICES_DRIVER => "EV_EFI_BOOT_SERVICES_DRIVER",
        EV_EFI_RUNTIME_SERVICES_DRIVER => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        EV_EFI_GPT_EVENT => "EV_EFI_GPT_EVENT",
        EV_EFI_ACTION => "EV_EFI_ACTION",
        EV_EFI_PLATFORM_FIRMWARE_BLOB => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        EV_EFI_PLATFORM_FIRMWARE_BLOB2 => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        EV_EFI_VARIABLE_BOOT2 => "EV_EFI_VARIABLE_BOOT2",
        EV_EFI_VARIABLE_AUTHORITY => "EV_EFI_VARIABLE_AUTHORITY",
        _ => "other",
    }
}

fn variable(class: VariableClass, data: &[u8]) -> Result<Variable<'_>, End> {
    let mut reader = LeReader::new(data);
    let guid = reader.array()?;
    let units = usize::try_from(reader.u64()?).map_err(|_| End)?;
    let value = usize::try_from(reader.u64()?).map_err(|_| End)?;
    let name = reader.take(units.checked_mul(2).ok_or(End)?)?;
    let value = reader.take(value)?;
    if reader.rest().is_empty() { Ok(Variable { class, guid, name, value }) } else { Err(End) }
}

fn tag(data: &[u8]) -> Option<Content<'_>> {
    let mut reader = LeReader::new(data);
    let id = reader.u32().ok()?;
    let length = reader.length().ok()?;
    let label = reader.take(length).ok()?;
    reader.rest().is_empty().then_some(Content::Tag { id, label })
}
