//! Why a file is not cut at tensor borders.

use std::fmt;

use crate::json::JsonError;
use crate::names::NameError;

/// Why a file is not a safetensors file, or cannot be cut. Texts of the file are shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the tensor at fault and the numbers that the message shows")]
pub enum SafetensorsError {
    /// Less than 8 bytes.
    TooShort { bytes: u64 },
    /// The caller gave less of the file than [`Header::bytes_needed`](super::Header::bytes_needed) says.
    NotRead { needed: usize, read: usize },
    /// More than 25 MiB of JSON.
    HeaderTooLarge { bytes: u64 },
    /// The header would end after the file.
    HeaderPastEnd { bytes: u64, file: u64 },
    /// The JSON is not UTF-8.
    NotUtf8,
    /// The JSON does not start with `{`.
    NotAnObject,
    /// The JSON is not that of a header.
    Json(JsonError),
    /// A tensor, or a key of the metadata, is there twice.
    NameTwice { name: String },
    /// A tensor's type is not known.
    UnknownType { tensor: String, dtype: String },
    /// The size of a tensor does not fit 64 bits.
    ShapeOverflow { tensor: String },
    /// A tensor of less than 8 bits an element does not end at a byte.
    PartialByte { tensor: String },
    /// A tensor ends before it starts.
    OffsetsReversed { tensor: String },
    /// A tensor starts before the end of the one before it.
    Overlap { tensor: String },
    /// A tensor starts after the end of the one before it.
    Gap { tensor: String },
    /// A tensor ends after the file.
    PastEnd { tensor: String },
    /// A tensor has another length than its type and shape.
    Length { tensor: String, expected: u64, found: u64 },
    /// The file goes on after the last tensor.
    Uncovered { bytes: u64 },
    /// The label given for a tensor is not a group label.
    Group { tensor: String, error: NameError },
    /// The label given for a tensor is `header`.
    ReservedGroup { tensor: String },
    /// A part of the file begins or ends within this tensor.
    CutTensor { tensor: String },
    /// The labels change so often, or the file is so long, that it has more than 16,384 units.
    TooManyUnits,
}

impl SafetensorsError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SafetensorsError::TooShort { .. } => "safetensors-too-short",
            SafetensorsError::NotRead { .. } => "safetensors-not-read",
            SafetensorsError::HeaderTooLarge { .. } => "safetensors-header-too-large",
            SafetensorsError::HeaderPastEnd { .. } => "safetensors-header-past-end",
            SafetensorsError::NotUtf8 => "safetensors-not-utf8",
            SafetensorsError::NotAnObject => "safetensors-not-an-object",
            SafetensorsError::Json(_) => "safetensors-json",
            SafetensorsError::NameTwice { .. } => "safetensors-name-twice",
            SafetensorsError::UnknownType { .. } => "safetensors-unknown-type",
            SafetensorsError::ShapeOverflow { .. } => "safetensors-shape-overflow",
            SafetensorsError::PartialByte { .. } => "safetensors-partial-byte",
            SafetensorsError::OffsetsReversed { .. } => "safetensors-offsets-reversed",
            SafetensorsError::Overlap { .. } => "safetensors-overlap",
            SafetensorsError::Gap { .. } => "safetensors-gap",
            SafetensorsError::PastEnd { .. } => "safetensors-past-end",
            SafetensorsError::Length { .. } => "safetensors-length",
            SafetensorsError::Uncovered { .. } => "safetensors-uncovered",
            SafetensorsError::Group { .. } => "safetensors-group",
            SafetensorsError::ReservedGroup { .. } => "safetensors-reserved-group",
            SafetensorsError::CutTensor { .. } => "safetensors-cut-tensor",
            SafetensorsError::TooManyUnits => "safetensors-too-many-units",
        }
    }
}

impl fmt::Display for SafetensorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SafetensorsError::TooShort { bytes } => write!(f, "a file of {bytes} bytes has no safetensors header"),
            SafetensorsError::NotRead { needed, read } => write!(f, "{needed} bytes are needed, {read} were read"),
            SafetensorsError::HeaderTooLarge { bytes } => {
                write!(f, "a header of {bytes} bytes; at most 25 MiB are read")
            }
            SafetensorsError::HeaderPastEnd { bytes, file } => {
                write!(f, "a header of {bytes} bytes in a file of {file} bytes")
            }
            SafetensorsError::NotUtf8 => f.write_str("the header is not UTF-8"),
            SafetensorsError::NotAnObject => f.write_str("the header does not start with '{'"),
            SafetensorsError::Json(error) => write!(f, "the header is not as it should be: {error}"),
            SafetensorsError::NameTwice { name } => write!(f, "'{name}' is in the header twice"),
            SafetensorsError::UnknownType { tensor, dtype } => write!(f, "tensor '{tensor}': unknown type '{dtype}'"),
            SafetensorsError::ShapeOverflow { tensor } => write!(f, "tensor '{tensor}': its shape overflows 64 bits"),
            SafetensorsError::PartialByte { tensor } => write!(f, "tensor '{tensor}' does not end at a byte"),
            SafetensorsError::OffsetsReversed { tensor } => write!(f, "tensor '{tensor}' ends before it starts"),
            SafetensorsError::Overlap { tensor } => write!(f, "tensor '{tensor}' overlaps the one before it"),
            SafetensorsError::Gap { tensor } => write!(f, "tensor '{tensor}' leaves a gap before it"),
            SafetensorsError::PastEnd { tensor } => write!(f, "tensor '{tensor}' ends after the file"),
            SafetensorsError::Length { tensor, expected, found } => {
                write!(f, "tensor '{tensor}' has {found} bytes, its type and shape {expected}")
            }
            SafetensorsError::Uncovered { bytes } => write!(f, "{bytes} bytes after the last tensor"),
            SafetensorsError::Group { tensor, error } => write!(f, "the label of tensor '{tensor}': {error}"),
            SafetensorsError::ReservedGroup { tensor } => {
                write!(f, "the label of tensor '{tensor}' is 'header', which every grant has")
            }
            SafetensorsError::CutTensor { tensor } => {
                write!(f, "a part of tensor '{tensor}' is there, and the rest of it is not")
            }
            SafetensorsError::TooManyUnits => f.write_str("the file has more than 16384 runs of one label"),
        }
    }
}

impl std::error::Error for SafetensorsError {}
