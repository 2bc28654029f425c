//! How a call on a private log says who asks: a [`ReaderCredential`] in the metadata.

use std::fmt;

use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::limits::{READ_STATEMENT_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1::ReaderCredential;

/// The metadata that carries it.
pub const READER_METADATA: &str = "weightvault-reader-bin";

/// Two fields with their tags and lengths, at their longest.
const CREDENTIAL_BYTES_MAX: usize = READ_STATEMENT_BYTES_MAX + SSHSIG_BYTES_MAX + 8;

/// Why metadata is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// There is none.
    Missing,
    /// More than one, not base64, no message, or longer than its limits.
    Malformed,
}

impl CredentialError {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "audit-reader-missing",
            Self::Malformed => "malformed-reader-credential",
        }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "this log is private: the policy in force names its readers. Give the SSH key of a reader or approver \
                 with --reader-key"
            }
            Self::Malformed => "the metadata weightvault-reader-bin is not one ReaderCredential within its limits",
        })
    }
}

impl std::error::Error for CredentialError {}

/// Puts a credential into the metadata of a call.
pub fn attach(credential: &ReaderCredential, metadata: &mut MetadataMap) {
    metadata.insert_bin(READER_METADATA, MetadataValue::from_bytes(&credential.encode_to_vec()));
}

/// Takes the credential out of the metadata of a call.
///
/// # Errors
/// [`CredentialError`].
pub fn read(metadata: &MetadataMap) -> Result<ReaderCredential, CredentialError> {
    let mut values = metadata.get_all_bin(READER_METADATA).iter();
    let value = values.next().ok_or(CredentialError::Missing)?;
    if values.next().is_some() || value.as_encoded_bytes().len() > CREDENTIAL_BYTES_MAX.div_ceil(3) * 4 {
        return Err(CredentialError::Malformed);
    }
    let bytes = value.to_bytes().map_err(|_| CredentialError::Malformed)?;
    let credential = ReaderCredential::decode(bytes).map_err(|_| CredentialError::Malformed)?;
    if credential.statement.len() > READ_STATEMENT_BYTES_MAX || credential.signature.len() > SSHSIG_BYTES_MAX {
        return Err(CredentialError::Malformed);
    }
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(statement: usize, signature: usize) -> ReaderCredential {
        ReaderCredential { statement: vec![1; statement], signature: "s".repeat(signature) }
    }

    fn carried(credential: &ReaderCredential) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        attach(credential, &mut metadata);
        metadata
    }

    #[test]
    fn a_credential_comes_back_as_it_was_attached_up_to_its_limits() {
        let longest = credential(READ_STATEMENT_BYTES_MAX, SSHSIG_BYTES_MAX);
        assert_eq!(read(&carried(&longest)), Ok(longest));
        assert_eq!(read(&MetadataMap::new()).unwrap_err().code(), "audit-reader-missing");
    }

    #[test]
    fn metadata_that_is_not_one_credential_within_its_limits_is_refused() {
        let mut twice = carried(&credential(1, 1));
        twice.append_bin(READER_METADATA, MetadataValue::from_bytes(b""));
        let mut no_message = MetadataMap::new();
        no_message.insert_bin(READER_METADATA, MetadataValue::from_bytes(b"\xff\xff"));
        let long_statement = carried(&credential(READ_STATEMENT_BYTES_MAX + 1, 1));
        let long_signature = carried(&credential(1, SSHSIG_BYTES_MAX + 1));
        for wrong in [twice, no_message, long_statement, long_signature, carried(&credential(1 << 20, 1))] {
            assert_eq!(read(&wrong).unwrap_err().code(), "malformed-reader-credential");
        }
    }
}
