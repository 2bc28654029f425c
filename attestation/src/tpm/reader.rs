//! A bounded reader of TPM 2.0 structures (Part 2): big-endian integers and buffers with a 2-byte length.

use crate::error::DecodeError;

/// Reads from the front; never allocates, never reads past the end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// TPMI_YES_NO: only 0 and 1, so that a value has one form.
    pub(crate) fn yes_no(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::YesNo { found }),
        }
    }

    /// A TPM2B of at most `max` bytes.
    pub(crate) fn sized(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(DecodeError::TooLong { max, found: length });
        }
        self.take(length)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The bytes that `read` goes over.
    pub(crate) fn spanned(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<&'a [u8], DecodeError> {
        let before = self.rest;
        read(self)?;
        let (span, _) = before.split_at(before.len() - self.rest.len());
        Ok(span)
    }

    /// Ends the structure: what is left would be bytes that nobody checked.
    pub(crate) const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_buffers_are_big_endian_and_exact() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 2, 8, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.yes_no(), Ok(true));
        assert_eq!(reader.sized(2), Ok([8, 9].as_slice()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn what_is_too_short_too_long_or_left_over_is_refused() {
        assert_eq!(Reader::new(&[0]).u16(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0, 2, 8]).sized(2), Err(DecodeError::Truncated));
        let too_long = DecodeError::TooLong { max: 1, found: 2 };
        assert_eq!(Reader::new(&[0, 2, 8, 9]).sized(1), Err(too_long));
        assert_eq!(Reader::new(&[2]).yes_no(), Err(DecodeError::YesNo { found: 2 }));
        assert_eq!(Reader::new(&[2]).finish(), Err(DecodeError::TrailingBytes));
    }
}
