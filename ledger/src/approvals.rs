//! Approvals (FORMAT.md §7): a statement, and an SSH signature over its exact bytes by an approver in force.
//!
//! ```
//! use ledger::approvals::{ApprovalAction, ApprovalStatement};
//! # use attestation::{Sha256Digest, UnixTime};
//! # fn main() -> Result<(), ledger::approvals::StatementError> {
//! let statement = ApprovalStatement {
//!     action: ApprovalAction::Policy,
//!     object: Sha256Digest::of(b"the text of the policy"),
//!     previous: Sha256Digest::of(b"the policy in force"),
//!     vault: Sha256Digest::of(b"the genesis"),
//!     serial: 1,
//!     not_after: UnixTime(1_800_000_000),
//! };
//! // Sign this with `ssh-keygen -Y sign -n weightvault -f KEY FILE`.
//! let bytes = statement.encode();
//! assert_eq!(ApprovalStatement::parse(&bytes)?, statement);
//! # Ok(()) }
//! ```

mod ed25519;
mod key;
mod sshsig;

use std::fmt;

use attestation::{Sha256Digest, UnixTime, lv};
use serde::{Deserialize, Serialize};

pub use key::{ApproverKey, KeyError};
pub(crate) use sshsig::signer;
pub use sshsig::{SSHSIG_BYTES_MAX, SSHSIG_NAMESPACE, SshsigError};

use crate::entry::RaiseAmounts;
use crate::json::{self, JsonError};
use crate::names::{Name, Version};
use crate::policy::Approver;

/// Longest statement, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 1 << 10;

const STATEMENT_VERSION: u64 = 1;
const MODEL_TAG: &[u8] = b"weightvault/v1 model\0";
const RAISE_TAG: &[u8] = b"weightvault/v1 budget raise\0";

/// What an approver agrees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalAction {
    /// The vault comes into being.
    Genesis,
    /// Another policy is proposed.
    ProposePolicy,
    /// A proposed policy comes into force.
    Policy,
    /// A proposed model is published.
    Model,
    /// That a platform be enrolled or removed is proposed.
    ProposePlatform,
    /// A platform is enrolled or removed.
    Platform,
    /// Another boot state of the keeper is proposed.
    ProposeReseal,
    /// The keeper is sealed to a proposed boot state.
    Reseal,
    /// A proposed keeper may take over.
    KeeperJoin,
    /// That the vault's keys be split among custodians is proposed.
    ProposeEscrow,
    /// The vault's keys are split among custodians.
    Escrow,
    /// A keeper that was lost is replaced by one that has the keys from custodians.
    Recover,
    /// That a keeper leaves the others is proposed.
    ProposeKeeperLeave,
    /// A keeper leaves the others.
    KeeperLeave,
    /// Keys of another epoch are asked for.
    ProposeKeyEpoch,
    /// An epoch begins with the keys that the keeper made.
    KeyEpoch,
    /// A raise of a budget is proposed.
    ProposeBudget,
    /// A proposed raise of a budget counts.
    Budget,
    /// Something is revoked; whoever signs it first proposes it.
    Revoke,
    /// A revocation is lifted; whoever signs it first proposes it.
    LiftRevocation,
    /// Leases run on without a keeper.
    Extend,
    /// A standing approval is proposed.
    ProposeStanding,
    /// A proposed standing approval counts.
    Standing,
    /// Break-glass is proposed.
    ProposeBreakGlass,
    /// Proposed break-glass counts.
    BreakGlass,
}

/// What is signed: nothing in it is left to the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalStatement {
    /// What is agreed to.
    pub action: ApprovalAction,
    /// Digest of the thing.
    pub object: Sha256Digest,
    /// What it follows: the policy in force; for the genesis, the core.
    pub previous: Sha256Digest,
    /// The vault.
    pub vault: Sha256Digest,
    /// Serial of the policy in force; for the genesis, 0.
    pub serial: u64,
    /// Last moment at which it counts.
    pub not_after: UnixTime,
}

/// A statement whose signature was verified and whose signer is an approver. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    statement: ApprovalStatement,
    approver: Name,
}

impl SignedStatement {
    /// What was signed.
    pub fn statement(&self) -> &ApprovalStatement {
        &self.statement
    }

    /// Who signed.
    pub fn approver(&self) -> &Name {
        &self.approver
    }
}

/// Checks an armored SSHSIG over the exact bytes of a statement, and finds the signer among the approvers.
pub fn verify(statement: &[u8], signature: &str, approvers: &[Approver]) -> Result<SignedStatement, ApprovalError> {
    let parsed = ApprovalStatement::parse(statement)?;
    let key = signer(statement, signature)?;
    match approvers.iter().find(|approver| approver.key == key) {
        Some(approver) => Ok(SignedStatement { statement: parsed, approver: approver.id.clone() }),
        None => Err(ApprovalError::NotAnApprover { fingerprint: key.fingerprint() }),
    }
}

/// What the approval of a model names: SHA-256 over model, version, manifest and the publisher's signature.
pub fn model_object(
    model: &Name,
    version: &Version,
    manifest: Sha256Digest,
    model_signature: Sha256Digest,
) -> Sha256Digest {
    let fields =
        lv(&[model.as_str().as_bytes(), version.as_str().as_bytes(), manifest.as_bytes(), model_signature.as_bytes()]);
    Sha256Digest::of(&[MODEL_TAG, &fields].concat())
}

/// What the approval of a raise names: SHA-256 over the budget, each amount, and the last moment.
pub fn raise_object(budget: &Name, amounts: RaiseAmounts, until: UnixTime) -> Sha256Digest {
    let RaiseAmounts { bytes, releases, platforms, leases } = amounts;
    let numbers = [bytes, releases, platforms, leases, until.seconds()].map(u64::to_be_bytes);
    let mut fields = vec![budget.as_str().as_bytes()];
    fields.extend(numbers.iter().map(<[u8; 8]>::as_slice));
    Sha256Digest::of(&[RAISE_TAG, &lv(&fields)].concat())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementFields {
    v: u64,
    action: ApprovalAction,
    object: Sha256Digest,
    previous: Sha256Digest,
    vault: Sha256Digest,
    serial: u64,
    not_after: UnixTime,
}

impl ApprovalStatement {
    /// Reads exact bytes: one JSON object, then at most one newline. Unknown and repeated fields are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong { bytes: bytes.len() });
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if !text.starts_with(b"{") || !text.ends_with(b"}") {
            return Err(StatementError::Surrounded);
        }
        let fields: StatementFields = json::parse_object(text).map_err(StatementError::Malformed)?;
        if fields.v != STATEMENT_VERSION {
            return Err(StatementError::UnknownVersion { found: fields.v });
        }
        Ok(Self {
            action: fields.action,
            object: fields.object,
            previous: fields.previous,
            vault: fields.vault,
            serial: fields.serial,
            not_after: fields.not_after,
        })
    }

    /// The bytes to sign: compact, and with a newline at the end, as a text file has.
    pub fn encode(&self) -> Vec<u8> {
        let fields = StatementFields {
            v: STATEMENT_VERSION,
            action: self.action,
            object: self.object,
            previous: self.previous,
            vault: self.vault,
            serial: self.serial,
            not_after: self.not_after,
        };
        let mut bytes = serde_json::to_vec(&fields).expect("every field is text or an integer");
        bytes.push(b'\n');
        bytes
    }
}

/// Why bytes are not an approval statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementError {
    /// Longer than 1 KiB.
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
}

impl StatementError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "statement-too-long",
            Self::Surrounded => "statement-surrounded",
            Self::Malformed(_) => "statement-malformed",
            Self::UnknownVersion { .. } => "statement-version-unknown",
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a statement of {bytes} bytes is longer than 1 KiB"),
            Self::Surrounded => f.write_str("a statement is one JSON object and at most one newline"),
            Self::Malformed(error) => write!(f, "not an approval statement: {error}"),
            Self::UnknownVersion { found } => write!(f, "statement version {found} is unknown; this program knows 1"),
        }
    }
}

impl std::error::Error for StatementError {}

/// Why a statement and a signature are not an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalError {
    /// The statement.
    Statement(StatementError),
    /// The signature.
    Signature(SshsigError),
    /// It verifies, but the key is not an approver's.
    NotAnApprover {
        /// Of the key that signed.
        fingerprint: String,
    },
}

impl ApprovalError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Statement(error) => error.code(),
            Self::Signature(error) => error.code(),
            Self::NotAnApprover { .. } => "not-an-approver",
        }
    }
}

impl fmt::Display for ApprovalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(error) => error.fmt(f),
            Self::Signature(error) => error.fmt(f),
            Self::NotAnApprover { fingerprint } => {
                write!(f, "signed by {fingerprint}, which is not the key of an approver in force")
            }
        }
    }
}

impl std::error::Error for ApprovalError {}

impl From<StatementError> for ApprovalError {
    fn from(error: StatementError) -> Self {
        Self::Statement(error)
    }
}

impl From<SshsigError> for ApprovalError {
    fn from(error: SshsigError) -> Self {
        Self::Signature(error)
    }
}
