//! Log entries (FORMAT.md §8): what each says, and its one form in bytes.
//!
//! An entry has exactly one encoding: JSON without white space, `v` and `type` first, the other fields in the order of
//! the structs here. [`Entry::parse`] refuses every other spelling, so two different byte strings never mean the same.
//! An entry carries no authority of its own: whether it may stand where it stands is for
//! [`State::apply`](crate::state::State::apply) to say.
//!
//! ```
//! use ledger::entry::{Cause, End, Entry};
//! # fn main() -> Result<(), ledger::entry::EntryError> {
//! let bytes = br#"{"v":1,"type":"end","time":7,"lease":"sha256:0000000000000000000000000000000000000000000000000000000000000000","cause":"agent"}"#;
//! let Entry::End(end) = Entry::parse(bytes)? else { panic!("not an end") };
//! assert_eq!(end.cause, Cause::Agent);
//! assert_eq!(Entry::End(end).encode()?, bytes);
//! # Ok(()) }
//! ```

mod alarm;
mod body;
mod budget;
mod error;
mod escrow;
mod exact;
pub(crate) mod field;
mod join;
mod key_epoch;
mod leave;
mod permit;
mod platform;
mod read;
mod reseal;
mod upgrade;

use std::io;

use attestation::UnixTime;
use serde::Serialize;

pub use alarm::AlarmEntry;
pub use body::{
    Action, Approve, BootId, Cause, Deny, DenySummary, End, Extend, GenesisEntry, GenesisWitness, Machine,
    ModelPublished, PolicyInForce, Proposal, Propose, ProposedModel, ProposedPolicy, ProposedRevocation, Release,
    ReleasedUnits, Renew, Renewal, Revoke, Start, TimeSource,
};
pub use budget::{BudgetRaised, ClockJump, ProposedRaise, RaiseAmounts};
pub use error::EntryError;
pub use escrow::{EscrowInForce, ProposedEscrow, ProposedRecovery, RecoverInForce};
pub use exact::ExactEntry;
use exact::Unread;
pub use join::{KeeperJoin, KeeperRetire, ProposedJoin};
pub use key_epoch::{KeyEpoch, ProposedEpoch};
pub use leave::{KeeperLeave, ProposedLeave};
pub use permit::{PermitInForce, ProposedPermit};
pub use platform::{PlatformAct, PlatformChange, PlatformInForce, ProposedPlatform};
pub use reseal::{ProposedReseal, ResealInForce, Resealed};
pub use upgrade::{Program, Upgrade};

pub use crate::release_log::ENTRY_BYTES_MAX;

/// The version that every entry of this format carries.
pub(crate) const ENTRY_VERSION: u64 = 1;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Entry {
    /// The vault: what it is and which keys it has. Entry 0, once.
    Genesis(Box<GenesisEntry>),
    /// A keeper started a run.
    Start(Start),
    /// Something waits for approvals.
    Propose(Propose),
    /// An approver signed.
    Approve(Approve),
    /// A policy came into force.
    Policy(PolicyInForce),
    /// A model was published.
    Model(ModelPublished),
    /// A platform was enrolled or removed.
    Platform(PlatformInForce),
    /// A reseal came into force.
    Reseal(ResealInForce),
    /// The keeper started on the boot state that it was resealed to.
    Resealed(Resealed),
    /// Approvers let another keeper in.
    KeeperJoin(KeeperJoin),
    /// The keeper ends, and names its successor.
    KeeperRetire(KeeperRetire),
    /// The vault's keys were split among custodians.
    Escrow(EscrowInForce),
    /// A keeper was lost, and another one has the vault's keys from its custodians.
    Recover(RecoverInForce),
    /// A keeper decides no more, and others go on.
    KeeperLeave(KeeperLeave),
    /// The vault has other keys from here on.
    KeyEpoch(Box<KeyEpoch>),
    /// Approvers raised a budget.
    Budget(BudgetRaised),
    /// Approvers let something be released.
    Permit(PermitInForce),
    /// The keeper's clock was set ahead.
    Clock(ClockJump),
    /// The release behind it rings.
    Alarm(AlarmEntry),
    /// Unit keys were granted under a lease.
    Release(Box<Release>),
    /// Leases were renewed.
    Renew(Renew),
    /// A lease ended before its time.
    End(End),
    /// Something was revoked, or a revocation lifted.
    Revoke(Revoke),
    /// Leases run on that no keeper renewed.
    Extend(Extend),
    /// Somebody whose evidence verified on hardware was refused.
    Deny(Deny),
    /// How many others were refused.
    DenySummary(DenySummary),
    /// A keeper runs another program.
    Upgrade(Upgrade),
}

impl Entry {
    /// Reads exact bytes. Refuses what is too long, any version but 1, an unknown type, an unknown, repeated or missing
    /// field, and any spelling but the one that [`Entry::encode`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong { bytes: bytes.len() });
        }
        let entry = read::entry(bytes)?;
        let mut rest = Unread(bytes);
        match entry.write(&mut rest) {
            Ok(()) if rest.0.is_empty() => Ok(entry),
            Ok(()) | Err(_) => Err(EntryError::NotCanonical),
        }
    }

    /// The exact bytes, which are hashed and stored. Refuses an entry that would be too long.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("every field is text, an integer, or a list or map of these with text keys");
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    fn write(&self, to: impl io::Write) -> serde_json::Result<()> {
        #[derive(Serialize)]
        struct Versioned<'a> {
            v: u64,
            #[serde(flatten)]
            entry: &'a Entry,
        }
        serde_json::to_writer(to, &Versioned { v: ENTRY_VERSION, entry: self })
    }

    /// When the entry was written. It never goes back along a log.
    pub fn time(&self) -> UnixTime {
        match self {
            Self::Genesis(entry) => entry.time,
            Self::Start(entry) => entry.time,
            Self::Propose(entry) => entry.time,
            Self::Approve(entry) => entry.time,
            Self::Policy(entry) => entry.time,
            Self::Model(entry) => entry.time,
            Self::Platform(entry) => entry.time,
            Self::Reseal(entry) => entry.time,
            Self::Resealed(entry) => entry.time,
            Self::KeeperJoin(entry) => entry.time,
            Self::KeeperRetire(entry) => entry.time,
            Self::Escrow(entry) => entry.time,
            Self::Recover(entry) => entry.time,
            Self::KeeperLeave(entry) => entry.time,
            Self::KeyEpoch(entry) => entry.time,
            Self::Budget(entry) => entry.time,
            Self::Permit(entry) => entry.time,
            Self::Clock(entry) => entry.time,
            Self::Alarm(entry) => entry.time,
            Self::Release(entry) => entry.time,
            Self::Renew(entry) => entry.time,
            Self::End(entry) => entry.time,
            Self::Revoke(entry) => entry.time,
            Self::Extend(entry) => entry.time,
            Self::Deny(entry) => entry.time,
            Self::DenySummary(entry) => entry.time,
            Self::Upgrade(entry) => entry.time,
        }
    }

    /// Its type as the bytes name it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::Start(_) => "start",
            Self::Propose(_) => "propose",
            Self::Approve(_) => "approve",
            Self::Policy(_) => "policy",
            Self::Model(_) => "model",
            Self::Platform(_) => "platform",
            Self::Reseal(_) => "reseal",
            Self::Resealed(_) => "resealed",
            Self::KeeperJoin(_) => "keeper-join",
            Self::KeeperRetire(_) => "keeper-retire",
            Self::Escrow(_) => "escrow",
            Self::Recover(_) => "recover",
            Self::KeeperLeave(_) => "keeper-leave",
            Self::KeyEpoch(_) => "key-epoch",
            Self::Budget(_) => "budget",
            Self::Permit(_) => "permit",
            Self::Clock(_) => "clock",
            Self::Alarm(_) => "alarm",
            Self::Release(_) => "release",
            Self::Renew(_) => "renew",
            Self::End(_) => "end",
            Self::Revoke(_) => "revoke",
            Self::Extend(_) => "extend",
            Self::Deny(_) => "deny",
            Self::DenySummary(_) => "deny-summary",
            Self::Upgrade(_) => "upgrade",
        }
    }
}
