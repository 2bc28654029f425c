//! The header of a safetensors file: an 8-byte little-endian length and that many bytes of JSON.

use super::SafetensorsError;
use super::json::{RawHeader, RawTensor, read_json};
use crate::json::quoted;

/// Longest JSON of a header that is read. The format allows 100,000,000 bytes; real headers of thousands of tensors have
/// less than one MiB, and each byte costs the publisher's machine up to four of memory.
pub const HEADER_BYTES_MAX: u64 = 25 << 20;

pub(super) const LENGTH_BYTES: usize = 8;

/// A header whose tensors cover the rest of the file exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    json_bytes: u64,
    pub(super) metadata: Option<Vec<(String, String)>>,
    tensors: Vec<Tensor>,
}

/// Where one tensor's bytes are: tensors follow each other without gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its bytes; 0 where a dimension is 0.
    pub length: u64,
    /// Its type, as the header has it.
    pub(super) dtype: String,
    /// Its dimensions.
    pub(super) shape: Vec<u64>,
}

impl Tensor {
    /// Its type, as the header has it: `F16`, `BF16`, …
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }
}

impl Header {
    /// Bytes at the start of a file that [`Header::parse`] needs: the length prefix and the JSON. `start` is at least
    /// the first 8 bytes of a file of `file_len` bytes.
    pub fn bytes_needed(start: &[u8], file_len: u64) -> Result<usize, SafetensorsError> {
        if file_len < LENGTH_BYTES as u64 {
            return Err(SafetensorsError::TooShort { bytes: file_len });
        }
        let Some(prefix) = start.first_chunk::<LENGTH_BYTES>() else {
            return Err(SafetensorsError::NotRead { needed: LENGTH_BYTES, read: start.len() });
        };
        let json_bytes = u64::from_le_bytes(*prefix);
        if json_bytes > HEADER_BYTES_MAX {
            return Err(SafetensorsError::HeaderTooLarge { bytes: json_bytes });
        }
        if json_bytes > file_len - LENGTH_BYTES as u64 {
            return Err(SafetensorsError::HeaderPastEnd { bytes: json_bytes, file: file_len });
        }
        // At most 25 MiB.
        Ok(LENGTH_BYTES + json_bytes as usize)
    }

    /// Reads the header from the start of a file of `file_len` bytes and checks that its tensors cover the rest of the
    /// file exactly, each with as many bytes as its type and shape need.
    pub fn parse(start: &[u8], file_len: u64) -> Result<Self, SafetensorsError> {
        let needed = Self::bytes_needed(start, file_len)?;
        let Some(json) = start.get(LENGTH_BYTES..needed) else {
            return Err(SafetensorsError::NotRead { needed, read: start.len() });
        };
        let RawHeader { metadata, tensors: mut raw } = read_json(json)?;
        raw.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
        let data_bytes = file_len - needed as u64;
        let tensors = check_tensors(raw, data_bytes)?;
        Ok(Self { json_bytes: json.len() as u64, metadata, tensors })
    }

    /// Bytes of the length prefix and the JSON; the first tensor starts there.
    pub fn header_bytes(&self) -> u64 {
        LENGTH_BYTES as u64 + self.json_bytes
    }

    /// The tensors in the order of their bytes.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Tensors in the order of their offsets follow each other from 0 to the end of the data.
fn check_tensors(raw: Vec<(String, RawTensor)>, data_bytes: u64) -> Result<Vec<Tensor>, SafetensorsError> {
    let mut end = 0;
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, tensor) in raw {
        let [from, to] = tensor.data_offsets;
        let named = || quoted(&name);
        if from > to {
            return Err(SafetensorsError::OffsetsReversed { tensor: named() });
        }
        if from < end {
            return Err(SafetensorsError::Overlap { tensor: named() });
        }
        if from > end {
            return Err(SafetensorsError::Gap { tensor: named() });
        }
        if to > data_bytes {
            return Err(SafetensorsError::PastEnd { tensor: named() });
        }
        let expected = tensor_bytes(&name, &tensor)?;
        if to - from != expected {
            return Err(SafetensorsError::Length { tensor: named(), expected, found: to - from });
        }
        end = to;
        tensors.push(Tensor { name, length: to - from, dtype: tensor.dtype, shape: tensor.shape });
    }
    if end != data_bytes {
        return Err(SafetensorsError::Uncovered { bytes: data_bytes - end });
    }
    Ok(tensors)
}

/// Bytes that a tensor of this type and shape has.
fn tensor_bytes(name: &str, tensor: &RawTensor) -> Result<u64, SafetensorsError> {
    let overflow = || SafetensorsError::ShapeOverflow { tensor: quoted(name) };
    let Some(element_bits) = element_bits(&tensor.dtype) else {
        return Err(SafetensorsError::UnknownType { tensor: quoted(name), dtype: quoted(&tensor.dtype) });
    };
    let elements = tensor.shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    let bits = elements.and_then(|elements| elements.checked_mul(element_bits)).ok_or_else(overflow)?;
    if !bits.is_multiple_of(8) {
        return Err(SafetensorsError::PartialByte { tensor: quoted(name) });
    }
    Ok(bits / 8)
}

/// The types that the format has today; a later one is an error that names it.
fn element_bits(dtype: &str) -> Option<u64> {
    match dtype {
        "F4" => Some(4),
        "F6_E2M3" | "F6_E3M2" => Some(6),
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => Some(8),
        "I16" | "U16" | "F16" | "BF16" => Some(16),
        "I32" | "U32" | "F32" => Some(32),
        "C64" | "F64" | "I64" | "U64" => Some(64),
        _ => None,
    }
}
