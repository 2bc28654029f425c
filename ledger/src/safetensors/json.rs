//! The JSON of a header: tensors by name, and `__metadata__` of strings. A repeated name is refused: readers disagree
//! about which of the two counts.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::SafetensorsError;
use crate::json::{Object, parse_value, quoted};

pub(super) const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTensor {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: [u64; 2],
}

/// The JSON of a header, each name once.
pub(super) struct RawHeader {
    pub(super) metadata: Option<Vec<(String, String)>>,
    pub(super) tensors: Vec<(String, RawTensor)>,
}

/// Reads the JSON.
pub(super) fn read_json(json: &[u8]) -> Result<RawHeader, SafetensorsError> {
    std::str::from_utf8(json).map_err(|_| SafetensorsError::NotUtf8)?;
    if json.first() != Some(&b'{') {
        return Err(SafetensorsError::NotAnObject);
    }
    let fields: Pairs<Field> = parse_value(json).map_err(SafetensorsError::Json)?;
    check_unique(&fields.0)?;
    let (mut metadata, mut tensors) = (None, Vec::with_capacity(fields.0.len()));
    for (name, field) in fields.0 {
        match field {
            Field::Metadata(pairs) => {
                check_unique(&pairs.0)?;
                metadata = Some(pairs.0);
            }
            Field::Tensor(tensor) => tensors.push((name, tensor)),
        }
    }
    Ok(RawHeader { metadata, tensors })
}

fn check_unique<T>(pairs: &[(String, T)]) -> Result<(), SafetensorsError> {
    let mut names = BTreeSet::new();
    match pairs.iter().find(|(name, _)| !names.insert(name)) {
        Some((name, _)) => Err(SafetensorsError::NameTwice { name: quoted(name) }),
        None => Ok(()),
    }
}

enum Field {
    Metadata(Pairs<String>),
    Tensor(RawTensor),
}

/// A value whose type may depend on its name.
trait Named: Sized {
    fn read<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl Named for String {
    fn read<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl Named for Field {
    fn read<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error> {
        match name {
            METADATA => map.next_value().map(Field::Metadata),
            _ => map.next_value().map(|Object(tensor)| Field::Tensor(tensor)),
        }
    }
}

/// The fields of an object in their order, repeated ones too.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Named> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: Named> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = T::read(&name, &mut map)?;
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}
