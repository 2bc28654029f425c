//! Why a model's signature is refused, or cannot be made.

use std::fmt;

use crate::json::JsonError;

/// Why a bundle does not show that this publisher signed exactly these files. Names of files are shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ModelSignatureError {
    /// More than 8 MiB.
    TooLarge { bytes: usize },
    /// Not the JSON of a bundle.
    Bundle(JsonError),
    /// Not a Sigstore bundle of version 0.3.
    MediaType,
    /// Not the `key` method with one key, or not the `files` serialisation.
    Method,
    /// The bundle names another key.
    OtherKey,
    /// The payload is not an in-toto statement.
    PayloadType,
    /// Not exactly one signature.
    SignatureCount { count: usize },
    /// The signature has a key id, which this kind of bundle does not use.
    KeyId,
    /// Payload or signature is not base64.
    Base64,
    /// The signature does not verify.
    Signature,
    /// The payload is signed but not the JSON of a statement.
    Statement(JsonError),
    /// The statement is not of in-toto version 1.
    StatementType,
    /// The statement is not of Model Signing version 1.0.
    PredicateType,
    /// No file is signed.
    NoFiles,
    /// A file is hashed with something other than SHA-256.
    Algorithm,
    /// A digest is not 64 lower-case hex digits.
    Digest { name: String },
    /// Files are not in ascending order of their names, each once.
    Unordered { name: String },
    /// Not one subject with a name and the digest over all files.
    Subject,
    /// A signed file that should not be there.
    ExtraFile { name: String },
    /// A file that is not signed.
    MissingFile { name: String },
    /// A file whose digest is another.
    OtherContent { name: String },
}

/// Why no bundle was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError<E> {
    /// The signer failed.
    Signer(E),
    /// What was made does not verify: another key signed, or there is no file, or no subject.
    Bundle(ModelSignatureError),
}

impl ModelSignatureError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ModelSignatureError::TooLarge { .. } => "model-signature-too-large",
            ModelSignatureError::Bundle(_) => "model-signature-bundle",
            ModelSignatureError::MediaType => "model-signature-media-type",
            ModelSignatureError::Method => "model-signature-method",
            ModelSignatureError::OtherKey => "model-signature-other-key",
            ModelSignatureError::PayloadType => "model-signature-payload-type",
            ModelSignatureError::SignatureCount { .. } => "model-signature-count",
            ModelSignatureError::KeyId => "model-signature-key-id",
            ModelSignatureError::Base64 => "model-signature-base64",
            ModelSignatureError::Signature => "model-signature-invalid",
            ModelSignatureError::Statement(_) => "model-signature-statement",
            ModelSignatureError::StatementType => "model-signature-statement-type",
            ModelSignatureError::PredicateType => "model-signature-predicate-type",
            ModelSignatureError::NoFiles => "model-signature-no-files",
            ModelSignatureError::Algorithm => "model-signature-algorithm",
            ModelSignatureError::Digest { .. } => "model-signature-digest",
            ModelSignatureError::Unordered { .. } => "model-signature-unordered",
            ModelSignatureError::Subject => "model-signature-subject",
            ModelSignatureError::ExtraFile { .. } => "model-signature-extra-file",
            ModelSignatureError::MissingFile { .. } => "model-signature-missing-file",
            ModelSignatureError::OtherContent { .. } => "model-signature-other-content",
        }
    }
}

impl fmt::Display for ModelSignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSignatureError::TooLarge { bytes } => write!(f, "the signature has {bytes} bytes, more than 8 MiB"),
            ModelSignatureError::Bundle(error) => write!(f, "the signature is not a bundle: {error}"),
            ModelSignatureError::MediaType => f.write_str("the signature is not a Sigstore bundle of version 0.3"),
            ModelSignatureError::Method => f.write_str("the signature is not of the 'key' method over whole files"),
            ModelSignatureError::OtherKey => f.write_str("the signature is by another key"),
            ModelSignatureError::PayloadType => f.write_str("the signed payload is not an in-toto statement"),
            ModelSignatureError::SignatureCount { count } => write!(f, "{count} signatures where one belongs"),
            ModelSignatureError::KeyId => f.write_str("the signature has a key id"),
            ModelSignatureError::Base64 => f.write_str("payload or signature is not base64"),
            ModelSignatureError::Signature => f.write_str("the publisher's signature does not verify"),
            ModelSignatureError::Statement(error) => write!(f, "the signed statement is not as it should be: {error}"),
            ModelSignatureError::StatementType => f.write_str("the signed statement is not of in-toto version 1"),
            ModelSignatureError::PredicateType => {
                f.write_str("the signed statement is not of OpenSSF Model Signing version 1.0")
            }
            ModelSignatureError::NoFiles => f.write_str("no file is signed"),
            ModelSignatureError::Algorithm => f.write_str("a signed file is not hashed with SHA-256"),
            ModelSignatureError::Digest { name } => write!(f, "the signed digest of '{name}' is not one"),
            ModelSignatureError::Unordered { name } => write!(f, "'{name}' is signed twice or out of order"),
            ModelSignatureError::Subject => f.write_str("the subject is not one name and the digest over all files"),
            ModelSignatureError::ExtraFile { name } => write!(f, "'{name}' is signed but does not belong to the model"),
            ModelSignatureError::MissingFile { name } => write!(f, "'{name}' is not signed"),
            ModelSignatureError::OtherContent { name } => write!(f, "'{name}' has another digest than was signed"),
        }
    }
}

impl std::error::Error for ModelSignatureError {}

impl<E: fmt::Display> fmt::Display for SignError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Signer(error) => write!(f, "the signer failed: {error}"),
            SignError::Bundle(error) => write!(f, "the signature made is no good: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for SignError<E> {}
