//! A bounded reader of little-endian structures: event logs, firmware images, PE files.

/// The bytes end before the structure does. Each format has its own refusal for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End;

/// Reads from the front; never allocates, never reads past the end.
#[derive(Clone, Copy)]
pub(crate) struct LeReader<'a> {
    rest: &'a [u8],
}

impl<'a> LeReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads from `offset`.
    pub(crate) fn at(bytes: &'a [u8], offset: usize) -> Result<Self, End> {
        bytes.get(offset..).map(Self::new).ok_or(End)
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], End> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(End)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(End)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, End> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, End> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, End> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, End> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 32-bit length. What does not fit in memory is longer than the input in any case.
    pub(crate) fn length(&mut self) -> Result<usize, End> {
        usize::try_from(self.u32()?).map_err(|_| End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_the_end_is_an_error() {
        let bytes = [1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut reader = LeReader::new(&bytes);
        assert_eq!((reader.u8(), reader.u16(), reader.u32(), reader.u64()), (Ok(1), Ok(2), Ok(3), Ok(4)));
        assert_eq!(reader.rest(), [9]);
        assert_eq!((reader.take(2), reader.array::<2>(), reader.length()), (Err(End), Err(End), Err(End)));
        assert!(LeReader::at(&bytes, 17).is_err() && LeReader::at(&bytes, 16).is_ok());
    }
}
