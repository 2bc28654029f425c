//! Names of things (FORMAT.md §1): checked once, where they come in.

use std::fmt;

/// Longest name or version, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest group label, in bytes.
pub const GROUP_BYTES_MAX: usize = 128;

/// Why a text is not a name: one variant for each kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Not `[a-z0-9][a-z0-9._-]{0,63}`.
    Name,
    /// Not `[A-Za-z0-9][A-Za-z0-9._+-]{0,63}`.
    Version,
    /// Not 1 to 128 bytes of printable ASCII without space.
    Group,
}

impl NameError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            NameError::Name => "bad-name",
            NameError::Version => "bad-version",
            NameError::Group => "bad-group",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Name => {
                "a name has 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit"
            }
            NameError::Version => {
                "a version has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '+' and '-', and starts with a letter \
                 or digit"
            }
            NameError::Group => "a group label has 1 to 128 characters of printable ASCII without space",
        })
    }
}

impl std::error::Error for NameError {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $valid:path, $error:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                if $valid(text.as_bytes()) { Ok(Self(text)) } else { Err($error) }
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                // Checked before it is copied: the text may be long.
                if $valid(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err($error) }
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A model, rule, approver or anchor: `[a-z0-9][a-z0-9._-]{0,63}`.
    Name, is_name, NameError::Name
}

name! {
    /// A version of a model: `[A-Za-z0-9][A-Za-z0-9._+-]{0,63}`.
    Version, is_version, NameError::Version
}

name! {
    /// A label on any number of units: 1 to 128 bytes of printable ASCII without space.
    Group, is_group, NameError::Group
}

impl Group {
    /// Label of the header of a safetensors file. Every grant has those units, whatever groups its rule names.
    pub fn header() -> Self {
        Self("header".to_owned())
    }

    /// Label of a file that is not cut.
    pub fn files() -> Self {
        Self("files".to_owned())
    }

    /// Whether this is the label of header units.
    pub fn is_header(&self) -> bool {
        self.0 == "header"
    }
}

fn is_name(text: &[u8]) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(text, [first, rest @ ..] if rest.len() < NAME_BYTES_MAX
        && lower(first)
        && rest.iter().all(|b| lower(b) || b"._-".contains(b)))
}

fn is_version(text: &[u8]) -> bool {
    matches!(text, [first, rest @ ..] if rest.len() < NAME_BYTES_MAX
        && first.is_ascii_alphanumeric()
        && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(b)))
}

fn is_group(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= GROUP_BYTES_MAX && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for text in ["a", "0", "minilm", "llama-3.1_8b", &"a".repeat(64)] {
            assert_eq!(Name::try_from(text).unwrap().as_str(), text);
        }
        for text in ["1", "V1.0+cu12", "2026-11-22_a", &"A".repeat(64)] {
            assert_eq!(Version::try_from(text).unwrap().as_str(), text);
        }
        for text in ["layer.0", "!", "~", &"g".repeat(128)] {
            assert_eq!(Group::try_from(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "A", ".a", "-a", "_a", "a/b", "a b", "a\0", "ä", "..", &"a".repeat(65)] {
            assert_eq!(Name::try_from(text), Err(NameError::Name), "{text:?}");
        }
        for text in ["", ".1", "+1", "-1", "1/2", "1 2", "1\n", "ä", &"1".repeat(65)] {
            assert_eq!(Version::try_from(text), Err(NameError::Version), "{text:?}");
        }
        for text in ["", " ", "a b", "a\n", "a\u{7f}", "ä", &"g".repeat(129)] {
            assert_eq!(Group::try_from(text), Err(NameError::Group), "{text:?}");
        }
    }
}
