//! An entry together with the bytes that it was read from, so that whoever looks at it before it is folded reads it once.

use std::io;

use super::{Entry, EntryError};

/// An entry, and its one encoding: what is hashed and folded is what was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactEntry<B> {
    entry: Entry,
    bytes: B,
}

impl<B: AsRef<[u8]>> ExactEntry<B> {
    /// Reads exact bytes.
    ///
    /// # Errors
    /// As [`Entry::parse`].
    pub fn parse(bytes: B) -> Result<Self, EntryError> {
        Entry::parse(bytes.as_ref()).map(|entry| Self { entry, bytes })
    }

    /// What it says.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The bytes that it was read from.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    pub(crate) fn into_parts(self) -> (Entry, B) {
        (self.entry, self.bytes)
    }
}

/// Bytes that are compared with what is written, as far as that goes: an encoding is checked without one being made.
pub(super) struct Unread<'a>(pub(super) &'a [u8]);

impl io::Write for &mut Unread<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
