//! A log written by hand, for tests that change one thing.

use super::content::*;

/// An event to be written: PCR, type, data, and what the digests are of.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) pcr: u32,
    pub(crate) event_type: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) hashed: Vec<u8>,
}

pub(crate) fn entry(pcr: u32, event_type: u32, data: &[u8]) -> Entry {
    Entry { pcr, event_type, data: data.to_vec(), hashed: data.to_vec() }
}

pub(crate) fn opaque(pcr: u32, event_type: u32, data: &[u8], hashed: &[u8]) -> Entry {
    Entry { pcr, event_type, data: data.to_vec(), hashed: hashed.to_vec() }
}

pub(crate) fn variable_data(name: &str, value: &[u8]) -> Vec<u8> {
    let mut data = vec![0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(value);
    data
}

/// A boot with secure boot, one application and the EFI stub's two events.
pub(crate) fn good() -> Vec<Entry> {
    vec![
        entry(0, EV_NO_ACTION, b"StartupLocality\0\x03"),
        entry(0, EV_S_CRTM_VERSION, b"1\0"),
        opaque(0, EV_EFI_PLATFORM_FIRMWARE_BLOB, &[0; 16], b"firmware"),
        entry(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &variable_data("SecureBoot", &[1])),
        entry(7, EV_SEPARATOR, &[0; 4]),
        opaque(1, EV_EFI_VARIABLE_BOOT, &variable_data("BootOrder", &[0, 0]), &[0, 0]),
        entry(4, EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
        entry(4, EV_SEPARATOR, &[0; 4]),
        opaque(4, EV_EFI_BOOT_SERVICES_APPLICATION, &[1; 40], b"kernel image"),
        opaque(9, EV_EVENT_TAG, b"\xed\x22\x3b\x8f\x01\0\0\0\0", &crate::command_line::load_options("quiet").unwrap()),
        opaque(9, EV_EVENT_TAG, b"\xec\x22\x3b\x8f\x01\0\0\0\0", b"initrd"),
        opaque(8, EV_IPL, b"grub_cmd: set a\0", b"set a"),
    ]
}

pub(crate) fn spec_id(algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
    data.extend((algorithms.len() as u32).to_le_bytes());
    for (id, size) in algorithms {
        data.extend(id.to_le_bytes());
        data.extend(size.to_le_bytes());
    }
    data.push(0);
    header(&data)
}

pub(crate) fn header(data: &[u8]) -> Vec<u8> {
    let mut bytes = [0u32.to_le_bytes(), EV_NO_ACTION.to_le_bytes()].concat();
    bytes.extend([0; 20]);
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) const BANKS: [(u16, u16); 2] = [(4, 20), (0xb, 32)];

pub(crate) fn write(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = spec_id(&BANKS);
    for entry in entries {
        bytes.extend(event(entry));
    }
    bytes
}

pub(crate) fn event(entry: &Entry) -> Vec<u8> {
    let mut bytes = [entry.pcr, entry.event_type, 2].map(u32::to_le_bytes).concat();
    for (id, algorithm) in [(4u16, &ring::digest::SHA1_FOR_LEGACY_USE_ONLY), (0xb, &ring::digest::SHA256)] {
        bytes.extend(id.to_le_bytes());
        bytes.extend(ring::digest::digest(algorithm, &entry.hashed).as_ref());
    }
    bytes.extend((entry.data.len() as u32).to_le_bytes());
    bytes.extend(&entry.data);
    bytes
}
