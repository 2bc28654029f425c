//! Why a model was not sealed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ledger::manifest::{FilePath, ManifestError, PathError};
use ledger::model_signature::SignError;
use ledger::names::NameError;
use ledger::safetensors::SafetensorsError;

use crate::container::OpenError;
use crate::publisher::PublisherError;
use crate::secret::SecretError;
use crate::wrap::WrapError;

/// Why a model was not sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealError {
    /// The source directory.
    Source {
        /// What in it.
        path: PathBuf,
        /// Why.
        error: SourceError,
    },
    /// A safetensors file that is not one.
    Safetensors {
        /// Which.
        file: FilePath,
        /// Why.
        error: SafetensorsError,
    },
    /// The plan or the manifest breaks a rule of the format.
    Manifest(ManifestError),
    /// No memory or randomness for the keys.
    Secret(SecretError),
    /// The DEK could not be wrapped to the vault's key.
    Wrap(WrapError),
    /// A unit could not be sealed.
    Seal(OpenError),
    /// The signature could not be made.
    Sign(SignError<PublisherError>),
    /// The target did not take it.
    Target {
        /// What.
        what: String,
        /// Kind of failure.
        kind: io::ErrorKind,
        /// In words.
        message: String,
    },
}

/// What was wrong with something in the source directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceError {
    /// It could not be read.
    Io {
        /// Kind of failure.
        kind: io::ErrorKind,
        /// In words.
        message: String,
    },
    /// It changed while the model was sealed.
    Changed,
    /// Neither a regular file nor a directory.
    NotRegular,
    /// A link to something that is no regular file.
    LinkToNoFile,
    /// Its name is not UTF-8.
    NotUtf8,
    /// Its path has no form in the manifest.
    Path(PathError),
    /// It lies deeper than a path may have parts.
    TooDeep,
    /// More files than a model may have units.
    TooManyFiles,
    /// What was to be its group is no label.
    Group(NameError),
    /// It was to have the label of headers, which every grant has.
    ReservedGroup,
}

impl SealError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source { error, .. } => error.code(),
            Self::Safetensors { error, .. } => error.code(),
            Self::Manifest(error) => error.code(),
            Self::Secret(error) => error.code(),
            Self::Wrap(error) => error.code(),
            Self::Seal(error) => error.code(),
            Self::Sign(_) => "model-sign-failed",
            Self::Target { .. } => "seal-target-failed",
        }
    }

    pub(super) fn source(path: &Path, error: &io::Error) -> Self {
        let error = SourceError::Io { kind: error.kind(), message: error.to_string() };
        Self::Source { path: path.to_owned(), error }
    }

    pub(super) fn target(what: &str, error: &io::Error) -> Self {
        Self::Target { what: what.to_owned(), kind: error.kind(), message: error.to_string() }
    }
}

impl SourceError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "source-unreadable",
            Self::Changed => "source-changed",
            Self::NotRegular => "source-not-regular",
            Self::LinkToNoFile => "source-link",
            Self::NotUtf8 => "source-name",
            Self::Path(error) => error.code(),
            Self::TooDeep => "path-too-deep",
            Self::TooManyFiles => "source-too-many-files",
            Self::Group(error) => error.code(),
            Self::ReservedGroup => "source-reserved-group",
        }
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Safetensors { file, error } => write!(f, "{file}: {error}"),
            Self::Manifest(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::Wrap(error) => write!(f, "the DEK was not wrapped: {error}"),
            Self::Seal(error) => error.fmt(f),
            Self::Sign(error) => write!(f, "the model was not signed: {error}"),
            Self::Target { what, message, .. } => write!(f, "{what} was not kept: {message}"),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { message, .. } => f.write_str(message),
            Self::Changed => f.write_str("changed while the model was sealed; seal a directory that nobody writes to"),
            Self::NotRegular => f.write_str("neither a regular file nor a directory"),
            Self::LinkToNoFile => f.write_str("a link to something that is no regular file"),
            Self::NotUtf8 => f.write_str("the name is not UTF-8"),
            Self::Path(error) => error.fmt(f),
            Self::TooDeep => write!(f, "lies deeper than {} directories", ledger::manifest::PATH_PARTS_MAX - 1),
            Self::TooManyFiles => write!(f, "a model has at most {} files", ledger::manifest::UNITS_MAX),
            Self::Group(error) => error.fmt(f),
            Self::ReservedGroup => f.write_str("`header` is the group that every grant has: no file can be of it"),
        }
    }
}

impl std::error::Error for SealError {}
impl std::error::Error for SourceError {}

impl From<SecretError> for SealError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}
