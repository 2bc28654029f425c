//! The certificate table that a host hands to its guest: `auxblob` of configfs-tsm, and the answer of
//! SNP_GET_EXT_REPORT (GHCB specification, "SNP Extended Guest Request").

use std::ops::Range;

use super::evidence::SnpEvidence;
use crate::error::CertificateTableError;

/// The most bytes of a table.
const TABLE_BYTES_MAX: usize = 256 * 1024;
const ENTRIES_MAX: usize = 16;
/// GUID, offset, length.
const ENTRY_BYTES: usize = 16 + 4 + 4;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableEntry {
    /// Versioned chip endorsement key.
    Vcek,
    /// Versioned loaded endorsement key.
    Vlek,
    /// The issuer of the leaf: the ASK, or beside a VLEK the ASVK.
    Ask,
    /// The root.
    Ark,
    /// Revocation list.
    Crl,
}

impl TableEntry {
    const ALL: [Self; 5] = [Self::Vcek, Self::Vlek, Self::Ask, Self::Ark, Self::Crl];

    /// The GUID, in the order in which it is written (RFC 9562 §4).
    const fn guid(self) -> u128 {
        match self {
            Self::Vcek => 0x63da758d_e664_4564_adc5_f4b93be8accd,
            Self::Vlek => 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
            Self::Ask => 0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
            Self::Ark => 0xc0b406a4_a803_4952_9743_3fb6014cd0ae,
            Self::Crl => 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
        }
    }
}

/// What the host hands over. It chose all of it, and nothing in it is trusted: every byte is signed by someone else.
///
/// ```text
/// entries   { GUID 16 bytes, offset u32, length u32 } each, numbers little-endian, offsets from the start of the table
/// end       24 zero bytes
/// data
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateTable<'a> {
    entries: Vec<(TableEntry, &'a [u8])>,
}

impl<'a> CertificateTable<'a> {
    /// Reads a table. No bytes at all are a table without entries, as a host that has none hands over. Entries of other
    /// kinds, which clouds add, are bounded like the rest and left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CertificateTableError> {
        if bytes.len() > TABLE_BYTES_MAX {
            return Err(CertificateTableError::TooLarge { found: bytes.len() });
        }
        let heads = if bytes.is_empty() { Vec::new() } else { read_heads(bytes)? };
        let head_end = (heads.len() + 1) * ENTRY_BYTES;
        let mut entries = Vec::new();
        for (index, (guid, range)) in heads.iter().enumerate() {
            if range.start < head_end || range.end > bytes.len() {
                return Err(CertificateTableError::EntryOutside { index });
            }
            let earlier = heads.iter().take(index);
            for (other_guid, other) in earlier {
                if other_guid == guid {
                    return Err(CertificateTableError::EntryRepeated { index });
                }
                if range.start < other.end && other.start < range.end {
                    return Err(CertificateTableError::EntriesOverlap { index });
                }
            }
            if let Some(kind) = TableEntry::ALL.into_iter().find(|kind| kind.guid() == *guid) {
                entries.push((kind, &bytes[range.clone()]));
            }
        }
        Ok(Self { entries })
    }

    /// What the entry of this kind holds.
    #[must_use]
    pub fn get(&self, kind: TableEntry) -> Option<&'a [u8]> {
        self.entries.iter().find(|(entry, _)| *entry == kind).map(|(_, data)| *data)
    }

    /// The entries, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TableEntry, &'a [u8])> {
        self.entries.iter().copied()
    }

    /// Evidence of `report`, with the certificates that are its own picked out of the table.
    #[must_use]
    pub fn evidence(&self, report: Vec<u8>) -> SnpEvidence {
        let is_crl = |kind: &TableEntry| *kind == TableEntry::Crl;
        let certificates: Vec<Vec<u8>> =
            self.entries.iter().filter(|(kind, _)| !is_crl(kind)).map(|(_, data)| data.to_vec()).collect();
        let crls = self.get(TableEntry::Crl).filter(|crl| !crl.is_empty());
        SnpEvidence::select(report, &certificates, crls.map(<[u8]>::to_vec).into_iter().collect())
    }
}

/// The entries up to the one that is all zero, as they stand.
fn read_heads(bytes: &[u8]) -> Result<Vec<(u128, Range<usize>)>, CertificateTableError> {
    let mut heads = Vec::new();
    let mut rest = bytes;
    loop {
        let (guid, after) = rest.split_first_chunk::<16>().ok_or(CertificateTableError::Truncated)?;
        let (offset, after) = after.split_first_chunk::<4>().ok_or(CertificateTableError::Truncated)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or(CertificateTableError::Truncated)?;
        let guid = u128::from_be_bytes(*guid);
        if guid == 0 {
            return Ok(heads);
        }
        if heads.len() >= ENTRIES_MAX {
            return Err(CertificateTableError::EntriesTooMany);
        }
        let to_usize = |number: &[u8; 4]| usize::try_from(u32::from_le_bytes(*number)).unwrap_or(usize::MAX);
        let start = to_usize(offset);
        heads.push((guid, start..start.saturating_add(to_usize(length))));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: u128 = 0x11;

    /// A table of these entries, their data right behind the head, one after the other.
    fn table(entries: &[(u128, &[u8])]) -> Vec<u8> {
        let mut offset = (entries.len() + 1) * ENTRY_BYTES;
        let mut head = Vec::new();
        for (guid, data) in entries {
            head.extend(guid.to_be_bytes());
            head.extend(u32::try_from(offset).unwrap().to_le_bytes());
            head.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            offset += data.len();
        }
        head.extend([0; ENTRY_BYTES]);
        head.extend(entries.iter().flat_map(|(_, data)| *data));
        head
    }

    fn refusal(bytes: &[u8]) -> CertificateTableError {
        CertificateTable::parse(bytes).unwrap_err()
    }

    #[test]
    fn entries_are_found_by_their_guid_and_others_left_out() {
        let all = TableEntry::ALL.map(|kind| kind.guid());
        let bytes = table(&[(all[0], b"vcek"), (OTHER, b"?"), (all[2], b"ask"), (all[3], b"ark"), (all[4], b"crl")]);
        let parsed = CertificateTable::parse(&bytes).unwrap();
        assert_eq!(parsed.get(TableEntry::Vcek), Some(&b"vcek"[..]));
        assert_eq!(parsed.get(TableEntry::Vlek), None);
        assert_eq!(parsed.get(TableEntry::Ask), Some(&b"ask"[..]));
        assert_eq!(parsed.get(TableEntry::Ark), Some(&b"ark"[..]));
        assert_eq!(parsed.get(TableEntry::Crl), Some(&b"crl"[..]));
        assert_eq!(parsed.iter().len(), 4);
        // In the bytes a GUID stands as it is written.
        assert_eq!(bytes[..4], [0x63, 0xda, 0x75, 0x8d]);
    }

    #[test]
    fn host_that_has_no_certificates_hands_over_a_table_without_entries() {
        for bytes in [&[][..], &[0; ENTRY_BYTES], &[0; 4096]] {
            assert_eq!(CertificateTable::parse(bytes).unwrap().iter().len(), 0);
        }
    }

    #[test]
    fn table_without_an_end_is_refused() {
        let bytes = table(&[(OTHER, b"")]);
        for length in 1..bytes.len() {
            assert_eq!(refusal(&bytes[..length]), CertificateTableError::Truncated, "{length}");
        }
    }

    #[test]
    fn entry_outside_of_the_table_or_in_its_head_is_refused() {
        let good = table(&[(OTHER, b"data")]);
        let change = |at: usize, number: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            refusal(&bytes)
        };
        let outside = CertificateTableError::EntryOutside { index: 0 };
        assert_eq!([change(16, 47), change(16, 49), change(16, u32::MAX)], [outside; 3]);
        assert_eq!([change(20, 5), change(20, u32::MAX)], [outside; 2]);
    }

    #[test]
    fn entries_that_overlap_or_stand_twice_are_refused() {
        let mut bytes = table(&[(OTHER, b"data"), (OTHER + 1, b"more")]);
        assert!(CertificateTable::parse(&bytes).is_ok());
        bytes[ENTRY_BYTES + 16] -= 1;
        assert_eq!(refusal(&bytes), CertificateTableError::EntriesOverlap { index: 1 });
        let twice = table(&[(OTHER, b"data"), (OTHER, b"more")]);
        assert_eq!(refusal(&twice), CertificateTableError::EntryRepeated { index: 1 });
    }

    #[test]
    fn table_is_bounded() {
        let entries: Vec<(u128, &[u8])> = (1..=17).map(|guid| (guid, &b"x"[..])).collect();
        assert!(CertificateTable::parse(&table(&entries[..16])).is_ok());
        assert_eq!(refusal(&table(&entries)), CertificateTableError::EntriesTooMany);
        let found = TABLE_BYTES_MAX + 1;
        assert_eq!(refusal(&vec![0; found]), CertificateTableError::TooLarge { found });
    }
}
