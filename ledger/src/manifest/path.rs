//! A path of a source file, relative to wherever the model is unpacked.

use std::fmt;

/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most parts of a path.
pub const PATH_PARTS_MAX: usize = 16;

/// A relative path with `/` between parts that cannot name anything outside the directory it is joined to: no part is
/// empty, `.` or `..`, and there is no control character and no backslash (FORMAT.md §6). Ordered by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

/// Why a text is not a [`FilePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// The whole path is empty.
    Empty,
    /// More than 1024 bytes.
    TooLong,
    /// More than 16 parts.
    TooDeep,
    /// It starts with `/`.
    Absolute,
    /// `//` or `/` at the end.
    EmptyPart,
    /// A part is `.` or `..`.
    DotPart,
    /// A control character.
    ControlCharacter,
    /// A backslash, which some systems take for `/`.
    Backslash,
}

impl FilePath {
    /// The text, for joining to a directory.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories that this file lies in, outermost first: `a` and `a/b` for `a/b/c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| self.0.split_at(at).0)
    }
}

impl TryFrom<&str> for FilePath {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::ControlCharacter);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        for part in text.split('/') {
            match part {
                "" => return Err(PathError::EmptyPart),
                "." | ".." => return Err(PathError::DotPart),
                _ => {}
            }
        }
        if text.split('/').count() > PATH_PARTS_MAX {
            return Err(PathError::TooDeep);
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::str::FromStr for FilePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::try_from(text)
    }
}

impl AsRef<std::path::Path> for FilePath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PathError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            PathError::Empty => "path-empty",
            PathError::TooLong => "path-too-long",
            PathError::TooDeep => "path-too-deep",
            PathError::Absolute => "path-absolute",
            PathError::EmptyPart => "path-empty-part",
            PathError::DotPart => "path-dot-part",
            PathError::ControlCharacter => "path-control-character",
            PathError::Backslash => "path-backslash",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::Empty => "the path is empty",
            PathError::TooLong => "the path has more than 1024 bytes",
            PathError::TooDeep => "the path has more than 16 parts",
            PathError::Absolute => "the path is absolute",
            PathError::EmptyPart => "the path has an empty part",
            PathError::DotPart => "the path has a part '.' or '..'",
            PathError::ControlCharacter => "the path has a control character",
            PathError::Backslash => "the path has a backslash",
        })
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_its_directory_is_taken() {
        for text in ["a", "a/b", "model-00001-of-00002.safetensors", ".hidden", "...", "a/..b/c..", "ü/文", "a b"] {
            assert_eq!(FilePath::try_from(text).unwrap().as_str(), text);
        }
        assert!(FilePath::try_from("p".repeat(PATH_BYTES_MAX).as_str()).is_ok());
        assert!(FilePath::try_from(["p"; PATH_PARTS_MAX].join("/").as_str()).is_ok());
    }

    #[test]
    fn any_other_is_refused_by_its_own_error() {
        let cases = [
            ("", PathError::Empty),
            ("/", PathError::Absolute),
            ("/etc/passwd", PathError::Absolute),
            ("a/", PathError::EmptyPart),
            ("a//b", PathError::EmptyPart),
            (".", PathError::DotPart),
            ("..", PathError::DotPart),
            ("../a", PathError::DotPart),
            ("a/../../b", PathError::DotPart),
            ("a/.", PathError::DotPart),
            ("a\0b", PathError::ControlCharacter),
            ("a\nb", PathError::ControlCharacter),
            ("a\u{7f}", PathError::ControlCharacter),
            ("a\u{85}", PathError::ControlCharacter),
            ("a\\b", PathError::Backslash),
            ("..\\a", PathError::Backslash),
        ];
        for (text, error) in cases {
            assert_eq!(FilePath::try_from(text), Err(error), "{text:?}");
        }
        let long = "p".repeat(PATH_BYTES_MAX + 1);
        assert_eq!(FilePath::try_from(long.as_str()), Err(PathError::TooLong));
        let deep = ["p"; PATH_PARTS_MAX + 1].join("/");
        assert_eq!(FilePath::try_from(deep.as_str()), Err(PathError::TooDeep));
    }

    #[test]
    fn parents_are_the_directories_above() {
        let parents = |text| FilePath::try_from(text).unwrap().parents().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parents("a/b/c"), ["a", "a/b"]);
        assert!(parents("a").is_empty());
    }
}
