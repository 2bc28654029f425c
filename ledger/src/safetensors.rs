//! Cuts a safetensors file into units at tensor borders (FORMAT.md §6).
//!
//! The bytes are never rewritten: units are ranges of the file as it is. A header that is not exactly as the format says
//! is an error and not a guess, since a cut in the wrong place would release one layer's bytes with another's.
//!
//! ```
//! use ledger::manifest::{Plan, PlanUnit};
//! use ledger::safetensors::{Header, layer_group};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let json = br#"{"h.0.w":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},
//!                 "h.1.w":{"dtype":"F16","shape":[4],"data_offsets":[8,16]}}"#;
//! let mut file = (json.len() as u64).to_le_bytes().to_vec();
//! file.extend(json);
//! file.extend([0; 16]);
//!
//! // Only the start of the file is read: its first 8 bytes say how much.
//! let needed = Header::bytes_needed(&file[..8], file.len() as u64)?;
//! let header = Header::parse(&file[..needed], file.len() as u64)?;
//! let mut units = PlanUnit::whole_file("config.json".parse()?, 612);
//! units.extend(header.cut(&"model.safetensors".parse()?, &layer_group)?);
//! let plan = Plan::new(units)?;
//! let groups: Vec<_> = plan.units().iter().map(|unit| unit.group.as_str()).collect();
//! assert_eq!(groups, ["files", "header", "layer.0", "layer.1"]);
//! # Ok(()) }
//! ```

mod error;
mod header;
mod json;
mod part;

pub use error::SafetensorsError;
pub use header::{HEADER_BYTES_MAX, Header, Tensor};
pub use part::Part;

use crate::json::quoted;
use crate::manifest::{FilePath, PlanUnit, UNIT_BYTES_MAX, UNITS_MAX};
use crate::names::Group;

/// Most digits of a layer's number.
const LAYER_DIGITS_MAX: usize = 10;

impl Header {
    /// The units of this file, in order: the header, then each run of adjacent tensors with one label. A run is cut at
    /// a tensor border before 4 GiB; a tensor that is longer is cut at each 4 GiB.
    ///
    /// `label` says which group a tensor of this name belongs to; [`layer_group`] is the usual one. It must give a
    /// [`Group`] and never `header`, since every grant has those units.
    pub fn cut(&self, file: &FilePath, label: &dyn Fn(&str) -> String) -> Result<Vec<PlanUnit>, SafetensorsError> {
        let mut units = PlanUnit::pieces(file, 0, self.header_bytes(), &Group::header());
        let mut start = self.header_bytes();
        for tensor in self.tensors() {
            if tensor.length == 0 {
                // It has no bytes of its own: the header says all there is.
                continue;
            }
            let group = tensor_group(tensor, label)?;
            match units.last_mut() {
                Some(run) if run.group == group && run.length + tensor.length <= UNIT_BYTES_MAX => {
                    run.length += tensor.length;
                }
                _ => units.extend(PlanUnit::pieces(file, start, tensor.length, &group)),
            }
            if units.len() > UNITS_MAX {
                return Err(SafetensorsError::TooManyUnits);
            }
            start += tensor.length;
        }
        Ok(units)
    }
}

fn tensor_group(tensor: &Tensor, label: &dyn Fn(&str) -> String) -> Result<Group, SafetensorsError> {
    let group = Group::try_from(label(&tensor.name))
        .map_err(|error| SafetensorsError::Group { tensor: quoted(&tensor.name), error })?;
    if group.is_header() {
        return Err(SafetensorsError::ReservedGroup { tensor: quoted(&tensor.name) });
    }
    Ok(group)
}

/// The usual label of a tensor: `layer.N` where its name has `layers.N.`, `layer.N.`, `h.N.` or `blocks.N.` as whole
/// components (the first of them), else `other`.
///
/// ```
/// use ledger::safetensors::layer_group;
/// assert_eq!(layer_group("model.layers.12.mlp.up_proj.weight"), "layer.12");
/// assert_eq!(layer_group("model.embed_tokens.weight"), "other");
/// ```
pub fn layer_group(tensor: &str) -> String {
    let parts: Vec<&str> = tensor.split('.').collect();
    let layer = parts.windows(3).find_map(|window| match window {
        ["layers" | "layer" | "h" | "blocks", number, _] if is_layer_number(number) => Some(number),
        _ => None,
    });
    match layer {
        Some(number) => format!("layer.{number}"),
        None => "other".to_owned(),
    }
}

fn is_layer_number(text: &str) -> bool {
    (1..=LAYER_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}
