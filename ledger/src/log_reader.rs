//! Readers of a private log (FORMAT.md §7): a statement with a short life, and an SSH signature over its exact bytes by
//! a reader or an approver of the policy in force.
//!
//! ```
//! use attestation::{Sha256Digest, UnixTime};
//! use ledger::log_reader::ReadStatement;
//! let statement = ReadStatement { vault: Sha256Digest::of(b"the genesis"), not_after: UnixTime(1_800_000_000) };
//! // Sign this with `ssh-keygen -Y sign -n weightvault -f KEY FILE`.
//! assert_eq!(ReadStatement::parse(&statement.encode()), Ok(statement));
//! ```

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use crate::approvals::{SshsigError, signer};
use crate::json::{self, JsonError, quoted};
use crate::names::Name;
use crate::policy::{Permitted, Policy};

/// Longest statement, in bytes.
pub const READ_STATEMENT_BYTES_MAX: usize = 256;
/// How far ahead `not_after` may lie, in seconds: whoever gets hold of a statement reads no longer than that.
pub const READ_SECS_MAX: u64 = 12 * 60 * 60;

const STATEMENT_VERSION: u64 = 1;
const ACTION: &str = "read-log";

/// What a reader signs. It is no approval: an approval statement has other fields and other actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadStatement {
    /// The vault whose log is read.
    pub vault: Sha256Digest,
    /// Last moment at which it counts, in seconds since 1970.
    pub not_after: UnixTime,
}

/// Somebody who may read the log now. Only [`authorise`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorisedReader {
    id: Name,
}

impl AuthorisedReader {
    /// What the policy calls him.
    pub fn id(&self) -> &Name {
        &self.id
    }
}

/// Checks a statement and its armored SSHSIG, and finds the signer among the readers of `policy`, or among its
/// approvers: they have to see what they approve. `vault` is the vault whose log is asked for.
pub fn authorise(
    statement: &[u8],
    signature: &str,
    policy: &Policy,
    vault: Sha256Digest,
    now: UnixTime,
) -> Result<AuthorisedReader, ReaderError> {
    let said = ReadStatement::parse(statement)?;
    if said.vault != vault {
        return Err(ReaderError::OtherVault { found: said.vault });
    }
    if said.not_after < now {
        return Err(ReaderError::Expired { not_after: said.not_after });
    }
    if said.not_after.0 - now.0 > READ_SECS_MAX {
        return Err(ReaderError::TooFarAhead { not_after: said.not_after });
    }
    let key = signer(statement, signature).map_err(ReaderError::Signature)?;
    let readers = match policy.readers() {
        Permitted::Any => [].as_slice(),
        Permitted::Only(readers) => readers.as_slice(),
    };
    match readers.iter().chain(&policy.approval().approvers).find(|person| person.key == key) {
        Some(person) => Ok(AuthorisedReader { id: person.id.clone() }),
        None => Err(ReaderError::NotAReader { fingerprint: key.fingerprint() }),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementFields {
    v: u64,
    action: String,
    vault: Sha256Digest,
    not_after: UnixTime,
}

impl ReadStatement {
    /// Reads exact bytes: one JSON object, then at most one newline. Unknown and repeated fields are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReaderError> {
        if bytes.len() > READ_STATEMENT_BYTES_MAX {
            return Err(ReaderError::TooLong { bytes: bytes.len() });
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if !text.starts_with(b"{") || !text.ends_with(b"}") {
            return Err(ReaderError::Surrounded);
        }
        let fields: StatementFields = json::parse_object(text).map_err(ReaderError::Malformed)?;
        if fields.v != STATEMENT_VERSION {
            return Err(ReaderError::UnknownVersion { found: fields.v });
        }
        if fields.action != ACTION {
            return Err(ReaderError::OtherAction { found: quoted(&fields.action) });
        }
        Ok(Self { vault: fields.vault, not_after: fields.not_after })
    }

    /// The bytes to sign: compact, and with a newline at the end, as a text file has.
    pub fn encode(&self) -> Vec<u8> {
        let Self { vault, not_after } = *self;
        let fields = StatementFields { v: STATEMENT_VERSION, action: ACTION.to_owned(), vault, not_after };
        let mut bytes = serde_json::to_vec(&fields).expect("every field is text or an integer");
        bytes.push(b'\n');
        bytes
    }
}

/// Why somebody may not read the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderError {
    /// The statement is longer than 256 bytes.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// There is something around the object other than one newline at its end.
    Surrounded,
    /// Not a JSON object with exactly the fields of a statement.
    Malformed(JsonError),
    /// `v` is not 1.
    UnknownVersion {
        /// What it is.
        found: u64,
    },
    /// `action` is not `read-log`: it was signed for something else.
    OtherAction {
        /// What it is.
        found: String,
    },
    /// Signed for the log of another vault.
    OtherVault {
        /// Which.
        found: Sha256Digest,
    },
    /// It no longer counts.
    Expired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// It would count for longer than 12 hours.
    TooFarAhead {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// The signature.
    Signature(SshsigError),
    /// It verifies, but the key is neither a reader's nor an approver's.
    NotAReader {
        /// Of the key that signed.
        fingerprint: String,
    },
}

impl ReaderError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "reader-statement-too-long",
            Self::Surrounded => "reader-statement-surrounded",
            Self::Malformed(_) => "reader-statement-malformed",
            Self::UnknownVersion { .. } => "reader-statement-version-unknown",
            Self::OtherAction { .. } => "reader-action-other",
            Self::OtherVault { .. } => "reader-vault-other",
            Self::Expired { .. } => "reader-statement-expired",
            Self::TooFarAhead { .. } => "reader-statement-too-far-ahead",
            Self::Signature(error) => error.code(),
            Self::NotAReader { .. } => "not-a-reader",
        }
    }
}

impl fmt::Display for ReaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a reader's statement of {bytes} bytes is longer than 256"),
            Self::Surrounded => f.write_str("a reader's statement is one JSON object and at most one newline"),
            Self::Malformed(error) => write!(f, "not a reader's statement: {error}"),
            Self::UnknownVersion { found } => {
                write!(f, "version {found} of a reader's statement is unknown; this program knows 1")
            }
            Self::OtherAction { found } => write!(f, "signed for the action {found:?}, and not for {ACTION}"),
            Self::OtherVault { found } => write!(f, "signed for the log of the vault {found}, which is another"),
            Self::Expired { not_after } => {
                write!(f, "the reader's statement counted until {not_after}; sign a new one")
            }
            Self::TooFarAhead { not_after } => {
                write!(f, "the reader's statement counts until {not_after}, longer than 12 hours from now")
            }
            Self::Signature(error) => error.fmt(f),
            Self::NotAReader { fingerprint } => {
                write!(f, "signed by {fingerprint}, which is the key of no reader or approver in force")
            }
        }
    }
}

impl std::error::Error for ReaderError {}
