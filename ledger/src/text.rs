//! The lines that checkpoints and proofs are made of. Each value has exactly one text.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::merkle::Hash;

/// A decimal number without sign or leading zeros.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) || (text.starts_with('0') && text != "0") {
        return None;
    }
    text.parse().ok()
}

/// A hash in base64.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// The base64 of a hash.
pub(crate) fn hash_text(hash: &Hash) -> String {
    BASE64_STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_text() {
        assert_eq!(parse_decimal("0"), Some(0));
        assert_eq!(parse_decimal("18446744073709551615"), Some(u64::MAX));
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "١", "18446744073709551616"] {
            assert_eq!(parse_decimal(text), None, "{text}");
        }
        assert_eq!(parse_hash(&hash_text(&[7; 32])), Some([7; 32]));
        let text = hash_text(&[0; 32]);
        for wrong in [&text[1..], &text[..43], &text.replace("A=", "B="), &format!("{text}\n"), &text.replace('A', "-")]
        {
            assert_eq!(parse_hash(wrong), None, "{wrong}");
        }
    }
}
