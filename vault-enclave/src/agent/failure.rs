//! What a person, or the parent process, is told when something failed.

use std::fmt;

use serde::{Deserialize, Serialize};
use vault_proto::client::{CallError, ConnectError};

/// A failure in words: code, sentence, and what to do next. It crosses from the loader to its parent as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    code: String,
    message: String,
    request_id: Option<String>,
    next: Option<String>,
}

impl Failure {
    /// With a stable code and a sentence.
    #[must_use]
    pub fn new(code: &str, message: impl fmt::Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string(), request_id: None, next: None }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// A file or the like that the operating system would not give.
    #[must_use]
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new("io", format!("{what}: {error}"))
    }

    /// The sentence alone.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(id) = &self.request_id {
            write!(f, "\n  request: {id}")?;
        }
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            request_id: error.request_id().map(str::to_owned),
            next: Some(error.next_step()),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(error.code(), &error).next(error.next_step())
    }
}

/// Errors that say all there is to say.
macro_rules! from {
    ($($error:ty),+ $(,)?) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error)
            }
        }
    )+ };
}

from! {
    super::error::SessionError,
    crate::open::DestinationError,
    crate::open::OpenModelError,
    crate::place::PlaceError,
    crate::region::RegionError,
    crate::secret::SecretError,
    crate::tpm::TctiError,
    crate::tpm::TpmError,
    ledger::manifest::ManifestError,
    ledger::manifest::SelectError,
    ledger::vault_file::VaultFileError,
    vault_proto::convert::WireError,
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::metadata::{MetadataMap, MetadataValue};
    use tonic::{Code, Status};
    use vault_proto::client::REFUSAL_TRAILER;
    use vault_proto::v1::Refusal;

    use super::*;

    #[test]
    fn a_refusal_says_code_request_and_next_step() {
        let request_id = "ab".repeat(16);
        let refusal = Refusal { code: "denied".into(), request_id: request_id.clone(), message: "was refused".into() };
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(REFUSAL_TRAILER, MetadataValue::from_bytes(&refusal.encode_to_vec()));
        let status = Status::with_metadata(Code::PermissionDenied, "", metadata);
        let failure = Failure::from(CallError::new("ReleaseKeys", "http://vault", &status));
        assert_eq!(failure.code(), "denied");
        let text = failure.to_string();
        for part in ["(denied)", &format!("request: {request_id}"), &format!("next: vaultctl explain {request_id}")] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn it_crosses_to_the_parent_unchanged() {
        let failure = Failure::new("place-swappable", "the place").next("swapoff");
        let line = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&line).unwrap(), failure);
    }
}
