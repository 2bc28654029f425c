//! What a firmware image (OVMF) says about its own launch.
//!
//! The image ends at 4 GiB. 32 bytes before its end is the end of a table of entries (EDK II, OvmfPkg/ResetVector/Ia16/
//! ResetVectorVtf0.asm), which is read backwards: each entry is its data, then length 2 (of all of it) and GUID 16. The
//! footer is such an entry and its length is that of the whole table.

use super::guid;
use crate::error::LaunchError;
use crate::le::{End, LeReader};

/// The largest firmware image, in bytes.
pub const FIRMWARE_BYTES_MAX: usize = 64 << 20;
const TABLE_END_FROM_END: usize = 32;
const ENTRY_HEADER: usize = 18;
const SECTIONS_MAX: u32 = 64;
/// All sections together: what they describe is low memory.
const SECTION_BYTES_MAX: u64 = 64 << 20;
const FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
const HASH_TABLE: [u8; 16] = guid(0x7255_371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);
const RESET_BLOCK: [u8; 16] = guid(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
const METADATA: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);

/// A firmware image with SEV metadata.
#[derive(Clone, Debug)]
pub struct Firmware {
    image: Vec<u8>,
    reset_address: u32,
    hash_table_address: Option<u64>,
    sections: Vec<Section>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) address: u32,
    pub(super) size: u32,
    pub(super) kind: SectionKind,
}

/// EDK II, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionKind {
    SecMemory,
    Secrets,
    Cpuid,
    SvsmCaa,
    KernelHashes,
}

impl Firmware {
    /// Reads the table and the SEV metadata of an image.
    ///
    /// # Errors
    /// [`LaunchError`]. An image without the footer or without metadata is not built for SEV-SNP: Debian's
    /// `OVMF_CODE_4M.fd`, for one.
    pub fn parse(image: Vec<u8>) -> Result<Self, LaunchError> {
        if image.is_empty() || image.len() > FIRMWARE_BYTES_MAX || !image.len().is_multiple_of(4096) {
            return Err(LaunchError::FirmwareLength { found: image.len() });
        }
        let table = table(&image)?;
        let metadata = entry(table, &METADATA)?.ok_or(LaunchError::NoMetadata)?;
        let sections = sections(&image, metadata)?;
        let reset = entry(table, &RESET_BLOCK)?.ok_or(LaunchError::NoResetBlock)?;
        let reset_address = LeReader::new(reset).u32().map_err(|End| LaunchError::TableMalformed)?;
        let hash_table_address = match entry(table, &HASH_TABLE)? {
            Some(data) => match LeReader::new(data).u32().map_err(|End| LaunchError::TableMalformed)? {
                0 => None,
                address => Some(u64::from(address)),
            },
            None => None,
        };
        Ok(Self { image, reset_address, hash_table_address, sections })
    }

    /// Whether the firmware checks kernel, initrd and command line against a measured page.
    #[must_use]
    pub fn takes_kernel_hashes(&self) -> bool {
        self.hash_table_address.is_some() && self.sections.iter().any(|s| s.kind == SectionKind::KernelHashes)
    }

    pub(super) fn image(&self) -> &[u8] {
        &self.image
    }

    /// Where the image begins, so that it ends at 4 GiB.
    pub(super) fn address(&self) -> u64 {
        (1u64 << 32).saturating_sub(u64::try_from(self.image.len()).unwrap_or(u64::MAX))
    }

    /// Where vCPUs but the first begin.
    pub(super) const fn reset_address(&self) -> u32 {
        self.reset_address
    }

    pub(super) const fn hash_table_address(&self) -> Option<u64> {
        self.hash_table_address
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }
}

/// The table's entries, without the footer.
fn table(image: &[u8]) -> Result<&[u8], LaunchError> {
    let end = image.len().checked_sub(TABLE_END_FROM_END).ok_or(LaunchError::NoFooter)?;
    let (before, _) = image.split_at(end);
    let (before, footer) = before.split_last_chunk::<ENTRY_HEADER>().ok_or(LaunchError::NoFooter)?;
    let (length, found) = footer.split_at(2);
    if found != FOOTER {
        return Err(LaunchError::NoFooter);
    }
    let length = LeReader::new(length).u16().map_err(|End| LaunchError::TableMalformed)?;
    let entries = usize::from(length).checked_sub(ENTRY_HEADER).ok_or(LaunchError::TableMalformed)?;
    let start = before.len().checked_sub(entries).ok_or(LaunchError::TableMalformed)?;
    Ok(before.split_at(start).1)
}

/// The data of the entry with this GUID. The last one of a table comes first.
fn entry<'a>(mut table: &'a [u8], wanted: &[u8; 16]) -> Result<Option<&'a [u8]>, LaunchError> {
    while !table.is_empty() {
        let (before, header) = table.split_last_chunk::<ENTRY_HEADER>().ok_or(LaunchError::TableMalformed)?;
        let (length, guid) = header.split_at(2);
        let length = LeReader::new(length).u16().map_err(|End| LaunchError::TableMalformed)?;
        let data = usize::from(length).checked_sub(ENTRY_HEADER).ok_or(LaunchError::TableMalformed)?;
        let start = before.len().checked_sub(data).ok_or(LaunchError::TableMalformed)?;
        let (rest, data) = before.split_at(start);
        if guid == wanted {
            return Ok(Some(data));
        }
        table = rest;
    }
    Ok(None)
}

/// The metadata entry holds the distance of a header from the image's end: "ASEV", length 4, version 4 (1), count 4, then
/// sections: address 4, size 4, kind 4.
fn sections(image: &[u8], metadata: &[u8]) -> Result<Vec<Section>, LaunchError> {
    let malformed = |End| LaunchError::MetadataMalformed;
    let from_end = LeReader::new(metadata).length().map_err(malformed)?;
    let start = image.len().checked_sub(from_end).ok_or(LaunchError::MetadataMalformed)?;
    let mut reader = LeReader::at(image, start).map_err(malformed)?;
    let signature: [u8; 4] = reader.array().map_err(malformed)?;
    let (_, version, count) =
        (reader.u32().map_err(malformed)?, reader.u32().map_err(malformed)?, reader.u32().map_err(malformed)?);
    if signature != *b"ASEV" || version != 1 || count > SECTIONS_MAX {
        return Err(LaunchError::MetadataMalformed);
    }
    let mut sections = Vec::new();
    let mut total = 0u64;
    for _ in 0..count {
        let (address, size) = (reader.u32().map_err(malformed)?, reader.u32().map_err(malformed)?);
        let kind = match reader.u32().map_err(malformed)? {
            1 => SectionKind::SecMemory,
            2 => SectionKind::Secrets,
            3 => SectionKind::Cpuid,
            4 => SectionKind::SvsmCaa,
            0x10 => SectionKind::KernelHashes,
            kind => return Err(LaunchError::SectionKind { kind }),
        };
        total = total.saturating_add(u64::from(size));
        let one_page = matches!(kind, SectionKind::Secrets | SectionKind::Cpuid | SectionKind::KernelHashes);
        if size == 0
            || !size.is_multiple_of(4096)
            || !address.is_multiple_of(4096)
            || total > SECTION_BYTES_MAX
            || (one_page && size != 4096)
        {
            return Err(LaunchError::SectionRange { address, size });
        }
        sections.push(Section { address, size, kind });
    }
    Ok(sections)
}
