//! Wire messages to domain types and back: the only place that knows both.
//!
//! Every length and count is checked here, once, against [`limits`](crate::limits). What comes out has the right shape
//! and no more: whether it is *true* is for the verifier and the decision. Conversions back cannot fail.

use std::fmt;

use attestation::{DecodeError, Sha256Digest};
use ledger::names::{Name, NameError, Version};

mod agent;
mod alarm;
mod asked;
mod budget;
mod escrow;
mod evidence;
mod join;
mod keeper;
mod key_epoch;
mod lease;
mod leave;
mod permit;
mod platform;
mod provision;
mod reseal;
mod revocation;
mod vault;
mod workload;

pub use agent::{AGENT_MODELS_MAX, AgentModel, AgentModelState, LoadOrder, OrderedPart, Peers};
pub use asked::{AskedEvidence, AskedQuote};
pub use escrow::{Contribution, EscrowSubmission, RecoveryOffer, RecoveryProgress};
pub use evidence::EvidenceSet;
pub use join::{HandOver, JoinAnswer, JoinChallenge, JoinRequest, joiner_identity};
pub use keeper::{KeeperEvidence, KeeperEvidenceRequest, KeeperIdentity, KeeperStanding, core, genesis};
pub use key_epoch::{KeyEpochLinks, KeyEpochSubmission, KeyEpochsRequest};
pub use lease::{EndLease, RenewRequest, SignedLease};
pub use leave::LeaveSubmission;
pub use platform::PlatformSubmission;
pub use provision::{
    Approval, GenesisWitness, PolicySubmission, Proposal, ProposalAction, Publication, UnitUpload, first_piece,
    next_piece,
};
pub use reseal::{KeeperSealing, NextSealing, ResealSubmission};
pub use revocation::{RevocationNotice, RevocationSubmission, WatchEvent, WatchLease, extension};
pub use vault::{Challenge, ChallengeFor, ChallengeRequest, FetchRequest, Grant, ModelName, Range, ReleaseRequest};

/// A field of a message that does not have the form its `.proto` comment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    code: &'static str,
    fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is there, where it has no meaning.
    Unexpected,
    /// It has another length than the one it must have.
    Length {
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// It is longer, or has more members, than it may.
    TooLarge {
        /// The most it may have.
        max: usize,
        /// What it has.
        found: usize,
    },
    /// A member is there twice, or the members are not in ascending order.
    Order,
    /// A number is not one of those it may be.
    Value,
    /// It is not a name.
    Name(NameError),
    /// It is not what it stands for.
    Form(DecodeError),
}

impl WireError {
    fn new(code: &'static str, fault: Fault) -> Self {
        Self { code, fault }
    }

    /// A stable name: `malformed-` and the field.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code.trim_start_matches("malformed-"))?;
        match self.fault {
            Fault::Missing => f.write_str("missing"),
            Fault::Unexpected => f.write_str("set where it has no meaning"),
            Fault::Length { expected, found } => write!(f, "{found} bytes, not {expected}"),
            Fault::TooLarge { max, found } => write!(f, "{found}, more than {max}"),
            Fault::Order => f.write_str("not in ascending order, or one twice"),
            Fault::Value => f.write_str("not one of the values it may have"),
            Fault::Name(error) => error.fmt(f),
            Fault::Form(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}

/// The blob that an auditor asks for.
///
/// # Errors
/// `malformed-digest`.
pub fn blob_digest(request: &crate::v1::GetBlobRequest) -> Result<Sha256Digest, WireError> {
    digest("malformed-digest", &request.digest)
}

/// A message that must be there.
fn present<T>(code: &'static str, field: Option<T>) -> Result<T, WireError> {
    field.ok_or(WireError::new(code, Fault::Missing))
}

/// Exactly `N` bytes.
fn exact<const N: usize>(code: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    let fault = if bytes.is_empty() { Fault::Missing } else { Fault::Length { expected: N, found: bytes.len() } };
    bytes.try_into().map_err(|_| WireError::new(code, fault))
}

/// 1 to `max` bytes.
fn bytes(code: &'static str, bytes: Vec<u8>, max: usize) -> Result<Vec<u8>, WireError> {
    check_size(code, bytes.len(), max)?;
    Ok(bytes)
}

/// 1 to `max` bytes of text.
fn text(code: &'static str, text: String, max: usize) -> Result<String, WireError> {
    check_size(code, text.len(), max)?;
    Ok(text)
}

/// 1 to `max` of something.
fn check_size(code: &'static str, found: usize, max: usize) -> Result<(), WireError> {
    match found {
        0 => Err(WireError::new(code, Fault::Missing)),
        found if found > max => Err(WireError::new(code, Fault::TooLarge { max, found })),
        _ => Ok(()),
    }
}

fn digest(code: &'static str, bytes: &[u8]) -> Result<Sha256Digest, WireError> {
    exact(code, bytes).map(Sha256Digest::from_bytes)
}

/// A digest, or nothing where the field is empty.
fn optional_digest(code: &'static str, bytes: &[u8]) -> Result<Option<Sha256Digest>, WireError> {
    if bytes.is_empty() { Ok(None) } else { digest(code, bytes).map(Some) }
}

/// A value that is read from bytes as they are: a public key.
fn key<'a, T: TryFrom<&'a [u8], Error = DecodeError>>(code: &'static str, bytes: &'a [u8]) -> Result<T, WireError> {
    T::try_from(bytes).map_err(|error| WireError::new(code, Fault::Form(error)))
}

fn name(code: &'static str, text: String) -> Result<Name, WireError> {
    Name::try_from(text).map_err(|error| WireError::new(code, Fault::Name(error)))
}

fn version(code: &'static str, text: String) -> Result<Version, WireError> {
    Version::try_from(text).map_err(|error| WireError::new(code, Fault::Name(error)))
}

/// Not more than `max` of something.
fn check_size_or_none(code: &'static str, found: usize, max: usize) -> Result<(), WireError> {
    if found == 0 { Ok(()) } else { check_size(code, found, max) }
}

/// Indices of PCRs, ascending, or nothing where there are none.
fn optional_pcrs(indices: &[u32]) -> Result<Option<attestation::PcrSelection>, WireError> {
    if indices.is_empty() { Ok(None) } else { pcrs("malformed-pcrs", indices).map(Some) }
}

/// Indices of PCRs: at least one, ascending.
fn pcrs(code: &'static str, indices: &[u32]) -> Result<attestation::PcrSelection, WireError> {
    if !indices.is_sorted_by(|a, b| a < b) {
        return Err(WireError::new(code, Fault::Order));
    }
    attestation::PcrSelection::try_from(indices).map_err(|error| WireError::new(code, Fault::Form(error)))
}
