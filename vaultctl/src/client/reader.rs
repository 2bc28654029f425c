//! Who reads a private log: signs a reader's statement once, when a host asks for it.

use std::path::PathBuf;

use attestation::{Sha256Digest, UnixTime};
use ledger::log_reader::ReadStatement;
use tokio::sync::OnceCell;
use tonic::Request;
use vault_proto::reader::{self, CredentialError};
use vault_proto::v1::ReaderCredential;

use crate::failure::Failure;
use crate::ssh;

/// How long a statement counts: a long log takes its time, and a stolen statement shall not.
const READ_SECS: u64 = 60 * 60;

/// The reader of this invocation.
pub struct Reader {
    key: Option<PathBuf>,
    statement: ReadStatement,
    signed: OnceCell<ReaderCredential>,
}

impl Reader {
    /// Reads the log of `vault`; `key` signs if a host asks who reads.
    pub fn new(key: Option<PathBuf>, vault: Sha256Digest, now: UnixTime) -> Self {
        let statement = ReadStatement { vault, not_after: UnixTime(now.0.saturating_add(READ_SECS)) };
        Self { key, statement, signed: OnceCell::new() }
    }

    /// A request of this reader: with his credential if he has signed one.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(credential) = self.signed.get() {
            reader::attach(credential, request.metadata_mut());
        }
        request
    }

    /// What to do about a refusal: `Ok` where the same call is worth another try, now with a credential.
    pub(super) async fn refused(&self, failure: Failure) -> Result<(), Failure> {
        if failure.code() != CredentialError::Missing.code() || self.signed.initialized() {
            return Err(failure);
        }
        let Some(key) = self.key.clone() else {
            return Err(failure.next(
                "give --reader-key KEY (or set WEIGHTVAULT_READER_KEY): the SSH key of a reader that [audit] of the \
                 policy names, or of an approver",
            ));
        };
        let statement = self.statement.encode();
        let signature = ssh::sign(&key, &statement)?;
        // Nobody else signs meanwhile: one invocation reads one thing after another.
        let _ = self.signed.set(ReaderCredential { statement, signature });
        Ok(())
    }
}
