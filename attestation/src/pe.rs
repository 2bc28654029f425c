//! PE images, as far as a measurement needs them: the Authenticode digest, and sections by name.
//!
//! Microsoft PE Format; "Windows Authenticode Portable Executable Signature Format", section "Calculating the PE Image
//! Hash". Firmware measures this digest when it loads an image (PFP, EV_EFI_BOOT_SERVICES_APPLICATION).

use ring::digest::{Context, SHA256};

use crate::error::PeError;
use crate::le::{End, LeReader};

/// The largest image, in bytes. A unified kernel image holds an initrd.
pub const PE_BYTES_MAX: usize = 1 << 30;
const SECTIONS_MAX: u16 = 96;
/// Index of the certificate table among the data directories.
const SECURITY_DIRECTORY: u32 = 4;

/// An image whose headers and sections lie within its bytes.
#[derive(Clone, Debug)]
pub struct PeImage<'a> {
    bytes: &'a [u8],
    /// Where CheckSum is, 4 bytes that are not part of the digest.
    checksum: usize,
    /// Where the directory entry of the certificates is, 8 bytes that are not either; and how long the certificates are.
    certificates: Option<(usize, usize)>,
    headers: usize,
    sections: Vec<PeSection<'a>>,
}

/// A section.
#[derive(Clone, Debug)]
pub struct PeSection<'a> {
    /// Up to 8 bytes, without the NULs behind.
    pub name: &'a [u8],
    /// Bytes in memory.
    pub virtual_size: usize,
    offset: usize,
    /// What the file holds of it, padded to the file's alignment.
    pub raw: &'a [u8],
}

impl From<End> for PeError {
    fn from(End: End) -> Self {
        Self::Truncated
    }
}

impl<'a> PeImage<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`PeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.len() > PE_BYTES_MAX {
            return Err(PeError::TooLong { found: bytes.len() });
        }
        if !bytes.starts_with(b"MZ") {
            return Err(PeError::NotPe);
        }
        let pe = LeReader::at(bytes, 0x3c)?.length()?;
        let mut coff = LeReader::at(bytes, pe)?;
        if coff.take(4)? != b"PE\0\0" {
            return Err(PeError::NotPe);
        }
        coff.take(2)?;
        let count = coff.u16()?;
        coff.take(12)?;
        let optional_length = usize::from(coff.u16()?);
        coff.take(2)?;
        if count > SECTIONS_MAX {
            return Err(PeError::SectionCount { found: count });
        }
        let optional = pe.checked_add(24).ok_or(PeError::Truncated)?;
        let table = LeReader::new(coff.take(optional_length)?).rest();
        let directories = match LeReader::new(table).u16()? {
            0x10b => 96usize,
            0x20b => 112,
            _ => return Err(PeError::NotPe),
        };
        let headers = LeReader::at(table, 60)?.length()?;
        let mut entries = LeReader::at(table, directories.saturating_sub(4))?;
        let certificates = if entries.u32()? > SECURITY_DIRECTORY {
            entries.take(8 * 4)?;
            let (_, length) = (entries.u32()?, entries.length()?);
            Some((optional.saturating_add(directories).saturating_add(32), length))
        } else {
            None
        };
        let sections = (0..count).map(|_| section(&mut coff, bytes)).collect::<Result<Vec<_>, _>>()?;
        let fixed = certificates.map_or(0, |(at, _)| at.saturating_add(8));
        if headers > bytes.len() || headers < fixed || headers < optional.saturating_add(68) {
            return Err(PeError::HeaderLength { found: headers });
        }
        Ok(Self { bytes, checksum: optional.saturating_add(64), certificates, headers, sections })
    }

    /// The Authenticode digest with SHA-256: headers without checksum and certificate entry, sections by file offset, and
    /// what is behind them, without the certificates at the end.
    ///
    /// # Errors
    /// [`PeError::CertificateRange`] if the certificates are longer than what is behind the sections.
    pub fn authenticode_sha256(&self) -> Result<[u8; 32], PeError> {
        let mut context = Context::new(&SHA256);
        let mut add = |from: usize, to: usize| match self.bytes.get(from..to) {
            Some(bytes) => {
                context.update(bytes);
                Ok(())
            }
            None => Err(PeError::Truncated),
        };
        add(0, self.checksum)?;
        let after_checksum = self.checksum.saturating_add(4);
        let certificate_bytes = match self.certificates {
            Some((entry, length)) => {
                add(after_checksum, entry)?;
                add(entry.saturating_add(8), self.headers)?;
                length
            }
            None => {
                add(after_checksum, self.headers)?;
                0
            }
        };
        let mut hashed = self.headers;
        let mut sections: Vec<&PeSection<'_>> =
            self.sections.iter().filter(|section| !section.raw.is_empty()).collect();
        sections.sort_by_key(|section| section.offset);
        for section in sections {
            add(section.offset, section.offset.saturating_add(section.raw.len()))?;
            hashed = hashed.saturating_add(section.raw.len());
        }
        // As EDK II does it: by how much was hashed, not by where the last section ends.
        let end = self.bytes.len().checked_sub(certificate_bytes).ok_or(PeError::CertificateRange)?;
        if end > hashed {
            add(hashed, end)?;
        } else if end < hashed {
            return Err(PeError::CertificateRange);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(digest)
    }

    /// The first section of that name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&PeSection<'a>> {
        self.sections.iter().find(|section| section.name == name.as_bytes())
    }
}

impl PeSection<'_> {
    /// The section as it is in memory: its virtual size, with zeros where the file has less.
    ///
    /// # Errors
    /// [`PeError::SectionLength`] if it is larger than any image.
    pub fn in_memory(&self) -> Result<Vec<u8>, PeError> {
        if self.virtual_size > PE_BYTES_MAX {
            return Err(PeError::SectionLength { found: self.virtual_size });
        }
        let mut bytes: Vec<u8> = self.raw.iter().copied().take(self.virtual_size).collect();
        bytes.resize(self.virtual_size, 0);
        Ok(bytes)
    }
}

/// Name 8, virtual size 4, virtual address 4, raw size 4, raw offset 4, then 16 that do not matter here.
fn section<'a>(table: &mut LeReader<'a>, bytes: &'a [u8]) -> Result<PeSection<'a>, PeError> {
    let name = table.take(8)?;
    let virtual_size = table.length()?;
    table.take(4)?;
    let (length, offset) = (table.length()?, table.length()?);
    table.take(16)?;
    let raw = if length == 0 { &[] } else { LeReader::at(bytes, offset)?.take(length)? };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(PeSection { name: name.split_at(end).0, virtual_size, offset, raw })
}
