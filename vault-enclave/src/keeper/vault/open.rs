//! The start of a run: fold the log under the head, then two counted commits, and only then serve.

use attestation::{KeptChains, Trust};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::entry::{Entry, Start, TimeSource};
use ledger::genesis::{Core, Genesis};
use ledger::keepers::KeeperMachine;
use ledger::names::Version;
use ledger::release_log::{Batch, ClosedLog, LogError};
use ledger::state::State;
use ring::rand::{SecureRandom, SystemRandom};

use super::epoch::{Epoch, is_of};
use super::{Pending, Records, Renewals, Vault};
use crate::head::Anchor;
use crate::keeper::challenges::Challenges;
use crate::keeper::clock::{self, Clock};
use crate::keeper::commit::{CommitError, Committer};
use crate::keeper::denials::Denials;
use crate::keeper::fold::FoldError;
use crate::keeper::hardware::Hardware;
use crate::keeper::link::Store;
use crate::keeper::models::Models;
use crate::keeper::refusal::Refusal;
use crate::keeper::retired::Retired;
use crate::keeper::snapshots::{SnapshotError, Snapshots};
use crate::vault_keys::VaultKeys;

/// Why a run does not begin.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The host's log does not fold to the head.
    Fold(FoldError),
    /// This keeper wrote a snapshot that its head does not continue.
    Snapshot(SnapshotError),
    /// The first commits of the run failed.
    Commit(LogError<CommitError>),
    /// The log begins with the genesis of another ceremony.
    OtherGenesis,
    /// The log has another keeper than this machine's.
    OtherKeeper,
    /// The vault is in another epoch than this keeper's keys are of.
    OtherEpoch,
    /// The record that opened the root is of a boot state that a reseal took the place of.
    Superseded,
    /// The keeper's own hardware is not what the policy asks for, or another step of the start failed.
    Refused(Refusal),
}

impl OpenError {
    /// Stable name of the refusal.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Fold(error) => error.code(),
            Self::Snapshot(error) => error.code(),
            Self::Commit(error) => error.code(),
            Self::OtherGenesis => "genesis-other",
            Self::OtherKeeper => "log-other-keeper",
            Self::OtherEpoch => "epoch-keys-missing",
            Self::Superseded => "root-superseded",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fold(error) => error.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
            Self::OtherGenesis => f.write_str("the host's log begins with the genesis of another keeper"),
            Self::OtherKeeper => f.write_str("the log names another keeper than this machine's, and not as its successor"),
            Self::OtherEpoch => f.write_str(
                "the log has begun a key epoch whose keys this keeper does not have: restore `root.epoch.json` from a copy, it is \
                 sealed to this machine",
            ),
            Self::Superseded => f.write_str(
                "this machine booted a state that the vault's keeper is no longer sealed to, and its root was opened by a record \
                 of before: boot the state that the last approved reseal names",
            ),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<FoldError> for OpenError {
    fn from(error: FoldError) -> Self {
        Self::Fold(error)
    }
}

/// What a run begins with.
pub(crate) struct Run {
    /// The core that the keeper was given.
    pub core: Core,
    /// Its keys under that core.
    pub keys: VaultKeys,
    /// Its instance.
    pub instance: [u8; 32],
    /// Whether it took the vault over from another keeper.
    pub joined: bool,
    /// Its TPM and, where it seals to it, its chip.
    pub hardware: Hardware,
    /// Head and counter, already checked against each other.
    pub anchor: Anchor,
    /// What the root is sealed to.
    pub records: Records,
    /// Folds that were done before.
    pub snapshots: Snapshots,
}

/// What a log makes of the keeper whose head it ends at.
pub(crate) enum Opened {
    /// It serves.
    Vault(Box<Vault>),
    /// The log has begun an epoch: the keeper's files are of it now, and it starts with them.
    Epoch,
    /// Its last entry named a successor, now or in a run before.
    Retired(Box<Retired>),
}

/// The host's log, folded and equal to the head.
struct Folded {
    log: ClosedLog,
    state: State,
    genesis: Genesis,
    tier: Trust,
}

impl Run {
    /// Folds the host's log under the head and makes the two counted commits of a run, unless the keeper has retired.
    ///
    /// # Errors
    /// [`OpenError`]. Head and counter may have moved: whoever tries again resumes from the directory.
    pub(crate) fn open(self, store: &Store) -> Result<Opened, OpenError> {
        let Folded { log, mut state, genesis, tier } = self.fold(store)?;
        if self.moves_on(&state)? {
            return Ok(Opened::Epoch);
        }
        if self.has_retired(&state) {
            return Ok(Opened::Retired(Box::new(self.retired(state, genesis))));
        }
        let keeper = self.joined.then_some(self.instance);
        let mut run = [0; 16];
        SystemRandom::new()
            .fill(&mut run)
            .map_err(|_| OpenError::Refused(Refusal::unavailable("random", "the system gave no random bytes")))?;
        let version =
            Version::try_from(env!("CARGO_PKG_VERSION").to_owned()).expect("cargo's versions have the grammar of ours");
        let time = clock::wall(state.time());
        let start = Entry::Start(Start { time, run, version, tier, time_source: TimeSource::HostClock, keeper });
        let start = start.encode().map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))?;
        let index = state.size();
        state.apply(index, &start).map_err(|error| FoldError::Entry { index, error })?;
        let mut vault = self.begin(store, log, state, genesis, tier, start)?;
        vault.settle_records()?;
        Ok(Opened::Vault(Box::new(vault)))
    }

    /// Starts the run with its first entry: committed twice before anything is signed or served, so that no head of a
    /// killed run can come back.
    pub(in crate::keeper) fn begin(
        mut self,
        store: &Store,
        log: ClosedLog,
        state: State,
        genesis: Genesis,
        tier: Trust,
        first: Vec<u8>,
    ) -> Result<Vault, OpenError> {
        // From the moment at which the first entry was made: what its commit takes is measured.
        let clock = Clock::started(state.time());
        let mut batch = Batch::new();
        batch.add(first).map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))?;
        // The genesis names this keeper's own log key, and the witnesses of the vault.
        let verifier = LogVerifier::of(&genesis);
        let mut committer = Committer { store, anchor: &mut self.anchor, keys: &self.keys, blobs: Vec::new() };
        let log = log.start(verifier, batch, &mut committer).map_err(OpenError::Commit)?;
        let denials = Denials::new(clock.now(state.time()));
        Ok(Vault {
            genesis,
            instance: self.instance,
            epoch: Epoch::of(&state),
            keys: self.keys,
            hardware: self.hardware,
            tier,
            store: store.clone(),
            anchor: self.anchor,
            records: self.records,
            snapshots: self.snapshots,
            log,
            state,
            models: Models::default(),
            challenges: Challenges::default(),
            chains: KeptChains::default(),
            denials,
            renewals: Renewals::default(),
            clock,
            rng: SystemRandom::new(),
            pending: Pending::default(),
        })
    }

    fn fold(&self, store: &Store) -> Result<Folded, OpenError> {
        let head = Checkpoint { size: self.anchor.size(), root: *self.anchor.root().as_bytes() };
        let (state, log) = self.snapshots.fold(store, head, |genesis| self.check_genesis(genesis).is_ok())?;
        let genesis = state.genesis().ok_or(OpenError::OtherGenesis)?.clone();
        self.check_genesis(&genesis)?;
        self.check_machine(&state, &genesis)?;
        let policy = state.vault().map_or_else(|| genesis.policy(), |vault| vault.policy());
        if let Some(vault) = state.vault() {
            self.records.standing(vault.sealing())?;
        }
        let (_, tier) = self.hardware.check(policy, clock::wall(state.time())).map_err(OpenError::Refused)?;
        Ok(Folded { log, state, genesis, tier })
    }

    /// The keeper opens only a genesis with its own core and log key, which it has for good.
    pub(in crate::keeper) fn check_genesis(&self, genesis: &Genesis) -> Result<(), OpenError> {
        let keeper = genesis.keeper();
        let own = genesis.core().digest() == self.core.digest() && keeper.log_key == *self.keys.log_key();
        if own { Ok(()) } else { Err(OpenError::OtherGenesis) }
    }

    /// The machine that the log names, or the one that is to follow it, is this one.
    fn check_machine(&self, state: &State, genesis: &Genesis) -> Result<(), OpenError> {
        let own = |named: &KeeperMachine| (named.instance, named.ak_name) == (self.instance, self.hardware.ak_name);
        let named = match state.vault().map(ledger::state::Vault::keepers) {
            None => own(&KeeperMachine::from(genesis.keeper())),
            Some(keepers) => {
                own(keepers.current()) || keepers.successor().is_some_and(|successor| own(&successor.machine))
            }
        };
        if named { Ok(()) } else { Err(OpenError::OtherKeeper) }
    }

    /// Whether the log has begun an epoch since the last start, and the files of this keeper are of it now.
    ///
    /// # Errors
    /// `epoch-keys-missing`; what TPM or disk say.
    fn moves_on(&self, state: &State) -> Result<bool, OpenError> {
        let Some(present) = state.vault().map(|vault| vault.epochs().present()) else { return Ok(false) };
        if is_of(&self.keys, present) {
            return Ok(false);
        }
        let moved = self.records.begin_epoch(&self.hardware.devices, &self.anchor, present);
        moved.map_err(OpenError::Refused)?.then_some(true).ok_or(OpenError::OtherEpoch)
    }

    /// Whether the log ends with this keeper's last entry.
    fn has_retired(&self, state: &State) -> bool {
        let successor = state.vault().and_then(|vault| vault.keepers().successor());
        successor.is_some_and(|successor| successor.machine.instance != self.instance)
    }

    fn retired(self, state: State, genesis: Genesis) -> Retired {
        let clock = Clock::started(state.time());
        let Self { keys, anchor, .. } = self;
        let (challenges, chains, rng) = (Challenges::default(), KeptChains::default(), SystemRandom::new());
        Retired { genesis, keys, anchor, state, challenges, chains, clock, rng }
    }
}
