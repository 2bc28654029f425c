//! Messages out of frames, which may end anywhere.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use super::PREFIX_BYTES;
use crate::limits::DATA_BYTES_MAX;
use crate::v1;

/// Everything of a message but its data: two numbers, and fields that a later version may have.
const FIELDS_BYTES_MAX: usize = 64;
/// A varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;
const DATA_FIELD: u64 = 3;

/// A part of a stream of `FetchUnitsResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A message begins.
    Head {
        /// Index of its unit.
        unit: u32,
        /// Where in the unit its data stands.
        offset: u64,
        /// How long its data is.
        bytes: usize,
    },
    /// The next bytes of its data, never none.
    Data(Bytes),
}

/// Reads a stream of `FetchUnitsResponse`. The data comes last in its message, as everybody writes it who writes fields in
/// the order of their numbers.
#[derive(Debug)]
pub struct Messages {
    at: At,
    /// Bytes of a part that a frame did not hold whole.
    part: Vec<u8>,
    /// Fields before the data.
    fields: Vec<u8>,
}

/// Where in a message the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Prefix,
    /// At the fields, with so many bytes of the message to come.
    Fields(usize),
    Data(usize),
}

impl Default for Messages {
    fn default() -> Self {
        Self { at: At::Prefix, part: Vec::new(), fields: Vec::new() }
    }
}

impl Messages {
    /// The next piece out of `frame`, or `None` once nothing is left in it.
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read then.
    pub fn next(&mut self, frame: &mut Bytes) -> Result<Option<Piece>, FrameError> {
        loop {
            match self.at {
                At::Data(0) => self.at = At::Prefix,
                At::Data(_) if frame.is_empty() => return Ok(None),
                At::Data(left) => {
                    let data = frame.split_to(left.min(frame.len()));
                    self.at = At::Data(left - data.len());
                    return Ok(Some(Piece::Data(data)));
                }
                At::Fields(0) => return self.begin_data(0).map(Some),
                At::Prefix | At::Fields(_) if frame.is_empty() => return Ok(None),
                At::Prefix => {
                    self.part.extend_from_slice(&frame.split_to(1));
                    if let Some(prefix) = self.part.first_chunk::<PREFIX_BYTES>() {
                        self.at = At::Fields(message_length(prefix)?);
                        self.part.clear();
                    }
                }
                At::Fields(left) => {
                    self.part.extend_from_slice(&frame.split_to(1));
                    self.at = At::Fields(left - 1);
                    if let Some(bytes) = self.take_field(left - 1)? {
                        return self.begin_data(bytes).map(Some);
                    }
                }
            }
        }
    }

    /// That the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::CutShort`] within a message.
    pub fn finish(&self) -> Result<(), FrameError> {
        let between = matches!(self.at, At::Prefix | At::Data(0)) && self.part.is_empty();
        if between { Ok(()) } else { Err(FrameError::CutShort) }
    }

    /// Looks whether a field is whole; where it is the data, gives its length.
    fn take_field(&mut self, left: usize) -> Result<Option<usize>, FrameError> {
        match field(&self.part)? {
            Field::Incomplete if left == 0 || self.part.len() + self.fields.len() >= FIELDS_BYTES_MAX => {
                Err(FrameError::Malformed)
            }
            Field::Incomplete => Ok(None),
            Field::Whole => {
                self.fields.append(&mut self.part);
                Ok(None)
            }
            Field::Data(bytes) if bytes == left as u64 => {
                self.part.clear();
                Ok(Some(left))
            }
            Field::Data(_) => Err(FrameError::Malformed),
        }
    }

    fn begin_data(&mut self, bytes: usize) -> Result<Piece, FrameError> {
        let fields = v1::FetchUnitsResponse::decode(self.fields.as_slice()).map_err(|_| FrameError::Malformed)?;
        self.fields.clear();
        self.at = At::Data(bytes);
        Ok(Piece::Head { unit: fields.unit, offset: fields.offset, bytes })
    }
}

fn message_length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(FrameError::Compressed);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > DATA_BYTES_MAX + FIELDS_BYTES_MAX { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

enum Field {
    Incomplete,
    Whole,
    /// Key and length of the data, which has so many bytes.
    Data(u64),
}

/// What a field is whose first bytes these are (the encoding of protocol buffers).
fn field(bytes: &[u8]) -> Result<Field, FrameError> {
    let Some((key, used)) = varint(bytes)? else { return Ok(Field::Incomplete) };
    let whole = match key & 7 {
        0 => varint(&bytes[used..])?.map(|(_, more)| (used + more) as u64),
        1 => Some(used as u64 + 8),
        2 => match varint(&bytes[used..])? {
            Some((length, _)) if key >> 3 == DATA_FIELD => return Ok(Field::Data(length)),
            Some((length, more)) => Some(length.saturating_add((used + more) as u64)),
            None => None,
        },
        5 => Some(used as u64 + 4),
        _ => return Err(FrameError::Malformed),
    };
    Ok(if whole == Some(bytes.len() as u64) { Field::Whole } else { Field::Incomplete })
}

/// A varint and its length; `None` where it is not whole yet.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let Some(end) = bytes.iter().position(|byte| byte & 0x80 == 0) else {
        return if bytes.len() < VARINT_BYTES_MAX { Ok(None) } else { Err(FrameError::Malformed) };
    };
    if end >= VARINT_BYTES_MAX {
        return Err(FrameError::Malformed);
    }
    let value = bytes[..=end].iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Ok(Some((value, end + 1)))
}

/// Why bytes are no stream of `FetchUnitsResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A compressed message, which nobody asked for.
    Compressed,
    /// A message of so many bytes.
    TooLong(usize),
    /// A message that is no `FetchUnitsResponse`, or does not end with its data.
    Malformed,
    /// The stream ended within a message.
    CutShort,
}

impl FrameError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Compressed => "message-compressed",
            Self::TooLong(_) => "message-too-long",
            Self::Malformed => "message-malformed",
            Self::CutShort => "message-cut-short",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed => f.write_str("the host sent a compressed message, which nobody asked for"),
            Self::TooLong(bytes) => write!(f, "the host sent a message of {bytes} bytes"),
            Self::Malformed => f.write_str("the host sent a message that is no piece of a unit"),
            Self::CutShort => f.write_str("the host ended the stream within a message"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests;
