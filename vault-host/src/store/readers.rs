//! Who may read the log: `[audit]` of the policy in force, followed from the entries.
//!
//! Whoever can read the host's disk reads it anyway: this keeps other clients out, no more.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use attestation::{Sha256Digest, UnixTime};
use ledger::log_reader::{self, AuthorisedReader, ReaderError};
use ledger::policy::{Lineage, Permitted, Policy};
use vault_proto::v1::ReaderCredential;

use super::StoreError;
use super::files::{self, Scratch};

pub(super) const POLICY_BYTES_MAX: usize = 12 << 10;

/// Follows the policy in force.
#[derive(Debug)]
pub(crate) struct Readers {
    /// The text of the policy in force, so that a start need not look for it in the log.
    path: PathBuf,
    scratch: Scratch,
    in_force: RwLock<Option<Arc<InForce>>>,
}

/// A policy in force.
#[derive(Debug)]
pub(crate) struct InForce {
    vault: Sha256Digest,
    policy: Policy,
}

/// Why somebody may not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAuthorised {
    /// No policy is in force here that could name him.
    NoPolicy,
    /// The credential.
    Reader(ReaderError),
}

impl NotAuthorised {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoPolicy => "audit-no-policy",
            Self::Reader(error) => error.code(),
        }
    }
}

impl fmt::Display for NotAuthorised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("this host has no policy in force yet, so nobody is a reader of its log"),
            Self::Reader(error) => error.fmt(f),
        }
    }
}

impl Readers {
    /// Opens the copy at `path`; `genesis` is the digest of entry 0. The second value is false where there is none yet.
    pub(crate) fn open(
        path: PathBuf,
        scratch: Scratch,
        genesis: Option<Sha256Digest>,
    ) -> Result<(Self, bool), StoreError> {
        let text = files::read(&path, POLICY_BYTES_MAX)?;
        let followed = text.is_some() && genesis.is_some();
        let policy = text.and_then(|text| String::from_utf8(text).ok());
        let in_force = genesis.zip(policy).and_then(|(genesis, policy)| in_force(&policy, genesis));
        Ok((Self { path, scratch, in_force: RwLock::new(in_force) }, followed))
    }

    /// The policy in force.
    pub(crate) fn in_force(&self) -> Option<Arc<InForce>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A policy came into force; `genesis` is the digest of entry 0.
    pub(crate) fn follow(&self, policy: &str, genesis: Sha256Digest) -> Result<(), StoreError> {
        // Closed first: a failed write must not leave a log open that should be closed.
        self.set(None);
        self.scratch.write(&self.path, policy.as_bytes())?;
        self.set(in_force(policy, genesis));
        Ok(())
    }

    fn set(&self, in_force: Option<Arc<InForce>>) {
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = in_force;
    }
}

impl InForce {
    /// Serial of the policy.
    pub(super) fn serial(&self) -> u64 {
        self.policy.serial()
    }

    /// Whether anybody may.
    pub(crate) fn anyone(&self) -> bool {
        *self.policy.readers() == Permitted::Any
    }

    /// Whether the holder of this credential may.
    pub(crate) fn authorise(
        &self,
        credential: &ReaderCredential,
        now: UnixTime,
    ) -> Result<AuthorisedReader, NotAuthorised> {
        let ReaderCredential { statement, signature } = credential;
        log_reader::authorise(statement, signature, &self.policy, self.vault, now).map_err(NotAuthorised::Reader)
    }
}

/// The policy with this text, of the vault whose entry 0 has the digest `genesis`.
pub(super) fn in_force(policy: &str, genesis: Sha256Digest) -> Option<Arc<InForce>> {
    let policy = Policy::parse(policy).ok()?;
    let vault = match policy.lineage() {
        Lineage::Genesis => genesis,
        Lineage::Successor { vault, .. } => vault,
    };
    Some(Arc::new(InForce { vault, policy }))
}
