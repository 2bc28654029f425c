//! A boot as its firmware logs it: TCG PC Client Platform Firmware Profile, SHA-256 bank alone.

use ring::digest::{SHA256, digest};

const EV_NO_ACTION: u32 = 3;
const EV_SEPARATOR: u32 = 4;
const EV_EVENT_TAG: u32 = 6;
const EV_S_CRTM_VERSION: u32 = 8;
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
const EV_EFI_ACTION: u32 = 0x8000_0007;

/// What a machine booted, started directly by its firmware.
#[derive(Clone)]
pub struct Boot {
    pub firmware: &'static str,
    pub secure_boot: bool,
    /// The bytes that stand for the Authenticode digest of the kernel.
    pub image: &'static [u8],
    /// The options that the kernel's EFI stub got.
    pub options: String,
    /// None where it is empty.
    pub initrd: &'static [u8],
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            firmware: "1.0",
            secure_boot: true,
            image: b"kernel",
            options: format!("quiet roothash={}", ROOT_HASH),
            initrd: b"initrd",
        }
    }
}

/// A root hash of dm-verity.
pub const ROOT_HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One event: PCR, type, data, and what its digest is of.
type Entry = (u32, u32, Vec<u8>, Vec<u8>);

impl Boot {
    /// Its event log.
    pub fn log(&self) -> Vec<u8> {
        let mut log = spec_id();
        for (pcr, event_type, data, hashed) in self.entries() {
            log.extend([pcr, event_type, 1].map(u32::to_le_bytes).concat());
            log.extend(11u16.to_le_bytes());
            log.extend(sha256(&hashed));
            log.extend(length(&data));
            log.extend(data);
        }
        log
    }

    /// The PCRs that it leaves behind; those that have no event are zero.
    pub fn pcrs(&self) -> [[u8; 32]; 24] {
        let mut pcrs = [[0; 32]; 24];
        for (pcr, _, _, hashed) in self.entries() {
            let pcr = &mut pcrs[pcr as usize];
            *pcr = sha256(&[&pcr[..], &sha256(&hashed)].concat());
        }
        pcrs
    }

    fn entries(&self) -> Vec<Entry> {
        let of_data = |pcr, event_type, data: &[u8]| (pcr, event_type, data.to_vec(), data.to_vec());
        let secure_boot = variable("SecureBoot", &[u8::from(self.secure_boot)]);
        let mut entries = vec![
            of_data(0, EV_S_CRTM_VERSION, self.firmware.as_bytes()),
            of_data(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &secure_boot),
            of_data(7, EV_SEPARATOR, &[0; 4]),
            of_data(4, EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
        ];
        entries.extend([0, 1, 2, 3, 4, 5, 6].map(|pcr| of_data(pcr, EV_SEPARATOR, &[0; 4])));
        entries.push((4, EV_EFI_BOOT_SERVICES_APPLICATION, vec![0; 32], self.image.to_vec()));
        entries.push((9, EV_EVENT_TAG, tag(0x8f3b_22ed, b"LOADED_IMAGE::LoadOptions\0"), load_options(&self.options)));
        if !self.initrd.is_empty() {
            entries.push((9, EV_EVENT_TAG, tag(0x8f3b_22ec, b"Linux initrd\0"), self.initrd.to_vec()));
        }
        entries
    }
}

fn spec_id() -> Vec<u8> {
    let data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0";
    let mut header = [0, EV_NO_ACTION].map(u32::to_le_bytes).concat();
    header.extend([0; 20]);
    header.extend(length(data));
    header.extend(data);
    header
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let guid = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&guid[..], &(name.len() as u64).to_le_bytes(), &(value.len() as u64).to_le_bytes(), &units, value].concat()
}

fn tag(id: u32, label: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &length(label), label].concat()
}

/// As the firmware hands them over: UTF-16LE with a NUL.
fn load_options(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn length(data: &[u8]) -> [u8; 4] {
    u32::try_from(data.len()).expect("a short event").to_le_bytes()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}
