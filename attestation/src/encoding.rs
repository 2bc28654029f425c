//! The small shared encodings of FORMAT.md §1 and §2: `lv`, digests, times, unit sets.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::DecodeError;

/// The most units that a model, and so a [`UnitSet`], may have.
pub const UNITS_MAX: usize = 16_384;

const DIGEST_TEXT_PREFIX: &str = "sha256:";
const DIGEST_TEXT_BYTES: usize = DIGEST_TEXT_PREFIX.len() + 64;

/// Joins fields so that no two lists of fields give the same bytes: each as its length in 4 bytes big-endian, then
/// its bytes (FORMAT.md §1).
///
/// # Panics
/// If a field is 4 GiB or longer, whose length has no encoding. Every reader in this project bounds its fields far below.
#[must_use]
pub fn lv(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    for field in fields {
        let length = u32::try_from(field.len()).expect("fields are bounded far below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// A SHA-256 digest or an id made with it. In text and JSON `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(out)
    }

    /// Takes bytes that are a digest already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes, which is what is hashed and signed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DigestText::of(self).as_str())
    }
}

/// `sha256:` and 64 digits, without an allocation: a log has ten of them in an entry.
struct DigestText([u8; DIGEST_TEXT_BYTES]);

impl DigestText {
    fn of(digest: &Sha256Digest) -> Self {
        let mut text = [0; DIGEST_TEXT_BYTES];
        let (prefix, digits) = text.split_at_mut(DIGEST_TEXT_PREFIX.len());
        prefix.copy_from_slice(DIGEST_TEXT_PREFIX.as_bytes());
        hex::encode_to_slice(digest.0, digits).expect("two digits a byte");
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Digest {
    type Err = DecodeError;

    /// Reads exactly the form that `Display` writes: upper-case digits and a missing prefix are refused.
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let digits = text.strip_prefix(DIGEST_TEXT_PREFIX).ok_or(DecodeError::DigestText)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| DecodeError::DigestText)?;
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(DecodeError::DigestText);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Sha256Digest {
    type Error = DecodeError;

    /// Takes exactly 32 raw bytes.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes).map(Self)
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(DigestText::of(self).as_str())
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DigestVisitor)
    }
}

struct DigestVisitor;

impl de::Visitor<'_> for DigestVisitor {
    type Value = Sha256Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Sha256Digest, E> {
        text.parse().map_err(E::custom)
    }
}

/// Whole seconds since the Unix epoch. This crate never reads a clock: every `now` is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The time `seconds` later; the largest time where that does not fit.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which units of a model: strictly ascending indices, at least one, at most [`UNITS_MAX`].
///
/// One set has one form, so that its bytes can be hashed into a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitSet(Vec<u32>);

#[expect(clippy::len_without_is_empty, reason = "a unit set is never empty")]
impl UnitSet {
    /// Each index as 4 bytes big-endian, ascending, joined (FORMAT.md §2).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|index| index.to_be_bytes()).collect()
    }

    /// SHA-256 of [`UnitSet::bytes`].
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.bytes())
    }

    /// The indices, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// The indices, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// How many units; at least 1.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the unit with this index is in the set.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.0.binary_search(&index).is_ok()
    }
}

impl TryFrom<Vec<u32>> for UnitSet {
    type Error = DecodeError;

    fn try_from(indices: Vec<u32>) -> Result<Self, DecodeError> {
        if indices.is_empty() {
            return Err(DecodeError::UnitSetEmpty);
        }
        if indices.len() > UNITS_MAX {
            return Err(DecodeError::UnitSetTooLarge { count: indices.len() });
        }
        if !indices.is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::UnitSetNotAscending);
        }
        Ok(Self(indices))
    }
}

/// A field that must have exactly `N` bytes. Never pads or truncates.
pub(crate) fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length { expected: N, found: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lv_puts_a_length_before_each_field() {
        assert_eq!(lv(&[b"ab", b"", b"c"]), b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
        assert_ne!(lv(&[b"ab", b"c"]), lv(&[b"a", b"bc"]));
    }

    #[test]
    fn digest_text_has_exactly_one_form() {
        let digest = Sha256Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Sha256Digest>(&format!("\"{text}\"")).unwrap(), digest);
        for wrong in [
            text.to_uppercase(),
            text.replace('a', "A"),
            text.trim_start_matches("sha256:").to_owned(),
            format!("{text}0"),
            format!(" {text}"),
            text[..text.len() - 1].to_owned(),
            text.replace('b', "g"),
        ] {
            assert_eq!(wrong.parse::<Sha256Digest>(), Err(DecodeError::DigestText), "{wrong}");
        }
    }

    #[test]
    fn digest_of_another_length_is_refused() {
        assert_eq!(Sha256Digest::try_from([7; 32].as_slice()), Ok(Sha256Digest::from_bytes([7; 32])));
        let wrong = DecodeError::Length { expected: 32, found: 33 };
        assert_eq!(Sha256Digest::try_from([7; 33].as_slice()), Err(wrong));
    }

    #[test]
    fn time_is_an_integer_and_does_not_wrap() {
        assert_eq!(serde_json::to_string(&UnixTime(12)).unwrap(), "12");
        assert_eq!(serde_json::from_str::<UnixTime>("12").unwrap(), UnixTime(12));
        assert!(serde_json::from_str::<UnixTime>("-1").is_err());
        assert_eq!(UnixTime(12).plus(3).seconds(), 15);
        assert_eq!(UnixTime(u64::MAX).plus(1), UnixTime(u64::MAX));
    }

    #[test]
    fn unit_set_is_hashed_as_joined_be32() {
        let set = UnitSet::try_from(vec![0, 1, 258]).unwrap();
        assert_eq!(set.bytes(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2]);
        assert_eq!(set.digest(), Sha256Digest::of(&set.bytes()));
        assert_eq!((set.len(), set.iter().collect::<Vec<_>>()), (3, vec![0, 1, 258]));
        assert!(set.contains(258) && !set.contains(2));
    }

    #[test]
    fn unit_set_has_one_form_and_a_limit() {
        assert_eq!(UnitSet::try_from(vec![]), Err(DecodeError::UnitSetEmpty));
        assert_eq!(UnitSet::try_from(vec![1, 1]), Err(DecodeError::UnitSetNotAscending));
        assert_eq!(UnitSet::try_from(vec![2, 1]), Err(DecodeError::UnitSetNotAscending));
        assert!(UnitSet::try_from((0..16_384).collect::<Vec<_>>()).is_ok());
        let count = 16_385;
        let too_large = Err(DecodeError::UnitSetTooLarge { count });
        assert_eq!(UnitSet::try_from((0..16_385).collect::<Vec<_>>()), too_large);
    }
}
