//! A safetensors file that holds some tensors of another one: what a load of a part of a model makes.

use std::ops::Range;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::header::LENGTH_BYTES;
use super::json::METADATA;
use super::{Header, SafetensorsError, Tensor};
use crate::json::quoted;

/// Data begin at a multiple of this, as other writers have it.
const ALIGNMENT: usize = 8;

/// The start of a smaller file; the data of its tensors follow in the order that they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Length prefix and JSON.
    pub header: Vec<u8>,
    /// How many tensors there are.
    pub tensors: usize,
}

impl Header {
    /// Each tensor and its place in the file, in the order of their bytes.
    pub fn places(&self) -> impl Iterator<Item = (&Tensor, Range<u64>)> {
        self.tensors().iter().scan(self.header_bytes(), |end, tensor| {
            let start = *end;
            *end += tensor.length;
            Some((tensor, start..*end))
        })
    }

    /// The header of a file that has, of this one, the tensors in `ranges` and those without bytes. The ranges are of the
    /// file, behind its header, and ascend; metadata stay as they are.
    ///
    /// # Errors
    /// [`SafetensorsError::CutTensor`]: a range begins or ends within a tensor, but for where the next one goes on.
    ///
    /// ```
    /// use ledger::safetensors::Header;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let json = br#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}"#;
    /// let start = [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat();
    /// let header = Header::parse(&start, start.len() as u64 + 7)?;
    /// let data = header.header_bytes() + 4;
    /// let part = header.part(&[data..data + 3])?;
    /// let smaller = Header::parse(&part.header, part.header.len() as u64 + 3)?;
    /// assert_eq!(smaller.tensors().iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["b"]);
    /// # Ok(()) }
    /// ```
    pub fn part(&self, ranges: &[Range<u64>]) -> Result<Part, SafetensorsError> {
        let runs = joined(ranges);
        let mut runs = runs.iter().peekable();
        let mut kept = Vec::new();
        for (tensor, place) in self.places() {
            while runs.next_if(|run| run.end <= place.start).is_some() {}
            let Some(run) = runs.peek() else {
                kept.extend(place.is_empty().then_some(tensor));
                continue;
            };
            let shared = place.start.max(run.start)..place.end.min(run.end);
            if place.is_empty() || shared == place {
                kept.push(tensor);
            } else if !shared.is_empty() {
                return Err(SafetensorsError::CutTensor { tensor: quoted(&tensor.name) });
            }
        }
        let json = Json { metadata: self.metadata.as_deref(), tensors: &kept };
        // Texts and numbers have no form that JSON lacks.
        let mut json = serde_json::to_vec(&json).unwrap_or_default();
        json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
        let mut header = Vec::with_capacity(LENGTH_BYTES + json.len());
        header.extend((json.len() as u64).to_le_bytes());
        header.append(&mut json);
        Ok(Part { header, tensors: kept.len() })
    }
}

/// Ranges that follow each other without a gap, as one.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        match runs.last_mut() {
            Some(run) if run.end == range.start => run.end = range.end,
            _ => runs.push(range.clone()),
        }
    }
    runs
}

/// The JSON of a header, in the order of its tensors.
struct Json<'a> {
    metadata: Option<&'a [(String, String)]>,
    tensors: &'a [&'a Tensor],
}

#[derive(Serialize)]
struct Described<'a> {
    dtype: &'a str,
    shape: &'a [u64],
    data_offsets: [u64; 2],
}

struct Pairs<'a>(&'a [(String, String)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(metadata) = self.metadata {
            map.serialize_entry(METADATA, &Pairs(metadata))?;
        }
        let mut start = 0;
        for Tensor { name, length, dtype, shape } in self.tensors {
            let end = start + length;
            map.serialize_entry(name, &Described { dtype, shape, data_offsets: [start, end] })?;
            start = end;
        }
        map.end()
    }
}
