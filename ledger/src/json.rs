//! Strict JSON for bytes that were signed or hashed.
//!
//! A type that derives `Deserialize` with `deny_unknown_fields` already refuses unknown and repeated fields. What is
//! left to refuse is an array in the place of an object, which serde reads field by field: [`Object`] does that.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Characters of serde's message that are kept: it may quote the input.
const MESSAGE_CHARS_MAX: usize = 160;
/// Characters of a name that are kept.
const QUOTED_CHARS_MAX: usize = 120;

/// Why bytes are not the JSON that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault, from 1.
    pub column: usize,
    /// What was wrong, for a person; at most 160 characters.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}, column {})", self.message, self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

/// A text of somebody else's, short enough and plain enough for a message.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Reads one JSON object, with nothing after it but white space.
pub fn parse_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    parse_value(bytes).map(|Object(value)| value)
}

/// Reads one value that refuses by itself what it must.
pub(crate) fn parse_value<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(bytes).map_err(|error| JsonError {
        line: error.line(),
        column: error.column(),
        message: error.to_string().chars().take(MESSAGE_CHARS_MAX).collect(),
    })
}

/// A `T` that is read from a JSON object and from nothing else. Use it for nested objects too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
    }
}

struct ObjectVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        a: u64,
        b: Vec<Object<Inner>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        c: u64,
    }

    fn refusal(text: &str) -> String {
        parse_object::<Pair>(text.as_bytes()).unwrap_err().message
    }

    #[test]
    fn an_object_with_exactly_its_fields_is_read() {
        let pair: Pair = parse_object(br#" {"b":[{"c":3}],"a":1} "#).unwrap();
        assert_eq!(pair, Pair { a: 1, b: vec![Object(Inner { c: 3 })] });
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(refusal(r#"[1,[{"c":3}]]"#).contains("expected an object"));
        assert!(refusal(r#"{"a":1,"b":[[3]]}"#).contains("expected an object"));
        assert!(refusal(r#"{"a":1,"b":[],"x":1}"#).contains("unknown field"));
        assert!(refusal(r#"{"a":1,"b":[{"c":3,"d":1}]}"#).contains("unknown field"));
        assert!(refusal(r#"{"a":1,"a":1,"b":[]}"#).contains("duplicate field"));
        assert!(refusal(r#"{"a":1}"#).contains("missing field"));
        assert!(refusal(r#"{"a":1,"b":[]}{}"#).contains("trailing"));
        assert!(refusal(r#"{"a":1.0,"b":[]}"#).contains("floating point"));
        assert!(refusal(r#"{"a":-1,"b":[]}"#).contains("integer `-1`"));
        assert!(refusal("{\"a\":1,\"b\":[],\"\u{1}\":1}").contains("control character"));
        assert!(parse_object::<Pair>(b"{\"a\":1,\"b\":[],\"\xff\":1}").is_err());
    }

    #[test]
    fn a_message_does_not_carry_the_input() {
        let text = format!(r#"{{"a":1,"b":[],"{}":1}}"#, "x".repeat(5000));
        assert_eq!(refusal(&text).chars().count(), MESSAGE_CHARS_MAX);
    }
}
