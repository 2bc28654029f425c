//! The state of a vault: a pure fold over its log. The keeper decides by it, appends, then acts; an auditor who runs the
//! same fold over the same entries has the same state.
//!
//! ```no_run
//! use ledger::state::State;
//! # fn entries() -> Vec<Vec<u8>> { Vec::new() }
//! # fn main() -> Result<(), ledger::state::FoldError> {
//! let mut state = State::new();
//! for entry in entries() {
//!     state.apply(state.size(), &entry)?;
//! }
//! # Ok(()) }
//! ```

mod alarms;
mod allowances;
mod budgets;
mod ceremony;
mod error;
mod escrow;
mod extensions;
mod keepers;
mod key_epochs;
mod leases;
mod manifest;
mod permits;
mod platforms;
mod proposals;
mod raise;
mod rehearsal;
mod release;
mod reseal;
mod revocations;
mod statement;
pub(crate) mod stored;
mod succession;
mod upgrades;
mod vault;

use attestation::{Sha256Digest, UnixTime, lv};

pub use alarms::{ALARMS_SHOWN_MAX, Alarm, KNOWN_MAX};
pub use allowances::Allowances;
pub(crate) use allowances::AskedLoad;
pub use budgets::{BudgetExcess, BudgetOf, BudgetRefusal, BudgetUse, HISTORY_MAX, RAISE_SECS_MAX, RAISES_MAX, Raise};
pub use ceremony::Ceremony;
pub use error::FoldError;
pub use escrow::{Escrow, Escrows, Recovered};
pub use keepers::{ApprovedJoiner, Keepers, Member};
pub use key_epochs::{Begun, KeyEpochs};
pub use leases::{Lease, RENEWAL_COMMIT_SECS_MAX};
pub use manifest::{LoggedManifest, OpenManifestError};
pub use permits::{ActivePermit, PERMITS_MAX, UsedPermits};
pub use platforms::{EnrolledPlatform, PLATFORMS_MAX, Platforms};
pub use proposals::{PROPOSALS_PER_PROPOSER_MAX, PendingProposal, Subject};
pub use rehearsal::Rehearsal;
pub use reseal::{NextBoot, Sealing, Standing};
pub use revocations::{REVOCATIONS_MAX, REVOCATIONS_PER_PROPOSER_MAX, Revocation};
pub use succession::{IndexedEntry, Succession};
pub(crate) use succession::{Succeeded, succeed};
pub use upgrades::Upgrades;
pub use vault::{PublishedModel, Vault};

use crate::entry::{Entry, ExactEntry, Start};
use crate::genesis::Genesis;
use crate::keepers::JoinError;
use crate::snapshot::{FOLD_NUMBER, SnapshotError};
use stored::{Reader, Stored, Writer, stored};

const STATE_TAG: &[u8] = b"weightvault/v1 state\0";

/// What the entries so far amount to.
#[derive(Debug, Clone)]
pub struct State {
    size: u64,
    time: UnixTime,
    digest: Sha256Digest,
    run: Option<[u8; 16]>,
    stage: Stage,
    upgrades: Upgrades,
}

stored!(State { size, time, digest, run, upgrades, stage });

/// How far a vault is.
#[derive(Debug, Clone)]
enum Stage {
    Empty,
    Ceremony(Ceremony),
    Open(Box<Vault>),
}

impl Stored for Stage {
    fn store(&self, to: &mut Writer) {
        match self {
            Self::Empty => 0u8.store(to),
            Self::Ceremony(ceremony) => {
                1u8.store(to);
                ceremony.store(to);
            }
            Self::Open(vault) => {
                2u8.store(to);
                vault.store(to);
            }
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        match u8::restore(from)? {
            0 => Ok(Self::Empty),
            1 => Stored::restore(from).map(Self::Ceremony),
            2 => Stored::restore(from).map(Self::Open),
            _ => Err(SnapshotError::Malformed { what: "stage" }),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Before the first entry.
    pub fn new() -> Self {
        let digest = Sha256Digest::of(STATE_TAG);
        Self { size: 0, time: UnixTime(0), digest, run: None, stage: Stage::Empty, upgrades: Upgrades::default() }
    }

    /// Takes the next entry, exact bytes. Refuses what is out of order or not permitted by the state: an entry that no
    /// keeper should have written. After a refusal the state is as it was.
    pub fn apply(&mut self, index: u64, bytes: &[u8]) -> Result<(), FoldError> {
        if index != self.size {
            return Err(FoldError::IndexMismatch { expected: self.size, found: index });
        }
        self.apply_exact(ExactEntry::parse(bytes).map_err(FoldError::Entry)?)
    }

    /// The same for one that was read already.
    pub fn apply_exact(&mut self, entry: ExactEntry<impl AsRef<[u8]>>) -> Result<(), FoldError> {
        let (entry, bytes) = entry.into_parts();
        let (time, bytes) = (entry.time(), bytes.as_ref());
        if time < self.time {
            return Err(FoldError::TimeWentBack { last: self.time, found: time });
        }
        let unmeasured = self.unmeasured(&entry);
        let is_start = matches!(entry, Entry::Start(_));
        self.upgrades.check_said(&entry).map_err(FoldError::Upgrade)?;
        self.check_readable(&entry)?;
        self.take(entry, bytes)?;
        if !is_start {
            self.upgrades.silence();
        }
        self.size += 1;
        self.time = time;
        self.digest = Sha256Digest::of(&lv(&[STATE_TAG, self.digest.as_bytes(), bytes]));
        if let Stage::Open(vault) = &mut self.stage {
            // What wrote the first run made the vault, and says what it is when it starts again.
            let fold = if self.run.is_none() { FOLD_NUMBER } else { self.upgrades.fold() };
            vault.advance(time, unmeasured, fold);
        }
        Ok(())
    }

    /// Entries taken; the index of the next.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Time of the last entry; 0 before the first.
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// Stands for the entries taken: equal digests, equal entries in equal order.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// The genesis, once there is one.
    pub fn genesis(&self) -> Option<&Genesis> {
        match &self.stage {
            Stage::Empty => None,
            Stage::Ceremony(ceremony) => Some(ceremony.genesis()),
            Stage::Open(vault) => Some(vault.genesis()),
        }
    }

    /// The ceremony, while approvals of the genesis are missing.
    pub fn ceremony(&self) -> Option<&Ceremony> {
        match &self.stage {
            Stage::Ceremony(ceremony) => Some(ceremony),
            Stage::Empty | Stage::Open(_) => None,
        }
    }

    /// The vault, once every approver has signed its genesis.
    pub fn vault(&self) -> Option<&Vault> {
        match &self.stage {
            Stage::Open(vault) => Some(vault),
            Stage::Empty | Stage::Ceremony(_) => None,
        }
    }

    /// The seconds since the last entry that no keeper measured: between two runs, all of them.
    fn unmeasured(&self, entry: &Entry) -> u64 {
        match entry {
            Entry::Start(start) => start.time.seconds().saturating_sub(self.time.seconds()),
            Entry::Clock(jump) => jump.unmeasured,
            Entry::Genesis(_) | Entry::Propose(_) | Entry::Approve(_) | Entry::Policy(_) | Entry::Model(_) => 0,
            Entry::Platform(_) | Entry::Reseal(_) | Entry::Resealed(_) => 0,
            Entry::KeeperJoin(_) | Entry::KeeperRetire(_) | Entry::KeeperLeave(_) => 0,
            Entry::Escrow(_) | Entry::Recover(_) | Entry::KeyEpoch(_) => 0,
            Entry::Revoke(_) | Entry::Extend(_) => 0,
            Entry::Permit(_) => 0,
            Entry::Budget(_) | Entry::Alarm(_) | Entry::Release(_) | Entry::Renew(_) | Entry::End(_) => 0,
            Entry::Deny(_) | Entry::DenySummary(_) | Entry::Upgrade(_) => 0,
        }
    }

    fn take(&mut self, entry: Entry, bytes: &[u8]) -> Result<(), FoldError> {
        match (&mut self.stage, entry) {
            (Stage::Empty, Entry::Genesis(entry)) => {
                let genesis = Genesis::from_entry(*entry, bytes).map_err(FoldError::Genesis)?;
                self.stage = Stage::Ceremony(Ceremony::new(genesis));
                Ok(())
            }
            (Stage::Empty, _) => Err(FoldError::GenesisMissing),
            (Stage::Ceremony(_) | Stage::Open(_), Entry::Genesis(_)) => Err(FoldError::GenesisRepeated),
            (Stage::Ceremony(_) | Stage::Open(_), Entry::Start(start)) => self.start(&start),
            (Stage::Ceremony(_) | Stage::Open(_), Entry::Upgrade(upgrade)) => self.upgrade(&upgrade),
            (Stage::Ceremony(ceremony), Entry::Approve(approve)) => {
                if let Some(vault) = ceremony.approve(&approve)? {
                    self.stage = Stage::Open(Box::new(vault));
                }
                Ok(())
            }
            (Stage::Ceremony(_), entry) => Err(FoldError::VaultNotOpen { found: entry.type_name() }),
            (Stage::Open(vault), entry) => vault.take(self.size, entry),
        }
    }

    /// A new run. It may have forgotten renewals of the run before that were signed but not yet in the log, so every lease
    /// which could have had one is counted for as long as it could then run.
    fn start(&mut self, start: &Start) -> Result<(), FoldError> {
        if self.run == Some(start.run) {
            return Err(FoldError::RunRepeated);
        }
        match (&mut self.stage, start.keeper) {
            (Stage::Open(vault), keeper) => vault.keeper_started(keeper)?,
            (Stage::Empty | Stage::Ceremony(_), None) => {}
            (Stage::Empty | Stage::Ceremony(_), Some(_)) => return Err(FoldError::Join(JoinError::OtherKeeper)),
        }
        self.run = Some(start.run);
        if let Some(founder) = self.genesis().map(|genesis| genesis.keeper().instance) {
            self.upgrades.started(start.keeper.unwrap_or(founder), start);
        }
        if let Stage::Open(vault) = &mut self.stage {
            vault.restart(self.time, start.time);
        }
        Ok(())
    }
}
