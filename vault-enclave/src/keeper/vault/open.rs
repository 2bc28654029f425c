//! The start of a run: fold the log under the head, then two counted commits, and only then serve.

use attestation::{KeptChains, Trust};
use ledger::checkpoint::{Checkpoint, LogVerifier, Seen};
use ledger::entry::{Entry, TimeSource};
use ledger::genesis::{AntiRollback, Core, Genesis};
use ledger::keepers::KeeperMachine;
use ledger::release_log::{Batch, ClosedLog, CurrentLog, LogError};
use ledger::state::State;
use ring::rand::SystemRandom;

use super::epoch::{Epoch, is_of};
use super::renew::OwnRun;
use super::time::{runs_revoked, start_entry};
use super::{Outbox, Pending, Records, Renewals, Vault, is_shared};
use crate::head::Anchor;
use crate::keeper::challenges::Challenges;
use crate::keeper::clock::{self, Clock};
use crate::keeper::commit::{CommitError, Committer};
use crate::keeper::denials::Denials;
use crate::keeper::fold::FoldError;
use crate::keeper::hardware::Hardware;
use crate::keeper::link::{Store, StoreError};
use crate::keeper::models::Models;
use crate::keeper::newest::{NewestError, Turn};
use crate::keeper::recovery::{self, RecoveryAct};
use crate::keeper::refusal::Refusal;
use crate::keeper::retired::Retired;
use crate::keeper::snapshots::{SnapshotError, Snapshots};
use crate::program;
use crate::vault_keys::VaultKeys;

/// Why a run does not begin.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The host's log does not fold to the head.
    Fold(FoldError),
    /// This keeper wrote a snapshot that its head does not continue.
    Snapshot(SnapshotError),
    /// The host shows no head of the log that other keepers may have written to.
    Newest(NewestError),
    /// The first commits of the run failed.
    Commit(LogError<CommitError>),
    /// The log begins with the genesis of another ceremony.
    OtherGenesis,
    /// The log has another keeper than this machine's.
    OtherKeeper,
    /// Approvers called this keeper lost, and another one has its vault.
    DeclaredLost,
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
            Self::Newest(error) => error.code(),
            Self::Commit(error) => error.code(),
            Self::OtherGenesis => "genesis-other",
            Self::OtherKeeper => "log-other-keeper",
            Self::DeclaredLost => "keeper-declared-lost",
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
            Self::Newest(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
            Self::OtherGenesis => f.write_str("the host's log begins with the genesis of another keeper"),
            Self::OtherKeeper => f.write_str("the log names another keeper than this machine's, and not as its successor"),
            Self::DeclaredLost => f.write_str(
                "approvers called this keeper lost, and another one has its vault by the custodians of its keys: switch this \
                 machine off and clear it",
            ),
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

/// The bytes of an entry that the state has taken.
fn applied(state: &mut State, entry: &Entry) -> Result<Vec<u8>, OpenError> {
    let bytes = entry.encode().map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))?;
    let index = state.size();
    state.apply(index, &bytes).map_err(|error| FoldError::Entry { index, error })?;
    Ok(bytes)
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
    /// Shares that wait for their entry.
    pub outbox: Outbox,
    /// Of one that has the keys from custodians: the entries that it begins with.
    pub recovery: Option<RecoveryAct>,
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

impl Run {
    /// Folds the host's log under the head and makes the two counted commits of a run, unless the keeper has retired.
    ///
    /// # Errors
    /// [`OpenError`]. Head and counter may have moved: whoever tries again resumes from the directory.
    pub(crate) fn open(mut self, store: &Store) -> Result<Opened, OpenError> {
        let turn = match self.core.anti_rollback() {
            AntiRollback::Witnesses => {
                Some(store.take_turn().map_err(|error| OpenError::Newest(NewestError::Store(error)))?)
            }
            AntiRollback::Counter | AntiRollback::None => None,
        };
        let (log, mut state) = self.fold(store, turn.as_ref())?;
        recovery::check_not_lost(store, &state, self.instance)?;
        if self.moves_on(&state)? {
            return Ok(Opened::Epoch);
        }
        let act = self.recovery.take().filter(|act| act.size() == state.size());
        let (mut first, blobs) = act.map_or_else(Default::default, RecoveryAct::into_parts);
        for entry in &first {
            let index = state.size();
            state.apply(index, entry).map_err(|error| FoldError::Entry { index, error })?;
        }
        let (genesis, tier) = self.check(&state)?;
        if self.has_retired(&state) {
            return Ok(Opened::Retired(Box::new(self.retired(state, genesis))));
        }
        if is_shared(&state) {
            self.take_head(&log)?;
        }
        let keeper = self.joined.then_some(self.instance);
        let log = self.recosigned(store, log, &state, &genesis)?;
        let witnesses = log.seen().and_then(Seen::not_before);
        // Of a log with witnesses there is a checkpoint that they have just cosigned; else there are none to ask.
        let (time, time_source) = match witnesses {
            Some(witnesses) => (state.time().max(witnesses), TimeSource::Witnesses),
            None => (clock::wall(state.time()), TimeSource::HostClock),
        };
        // A start gives it no more time, so nobody has measured that any has passed for whoever holds it.
        let time = if runs_revoked(&state, state.time()) { state.time() } else { time };
        let start = start_entry(time, time_source, tier, keeper).map_err(OpenError::Refused)?;
        first.push(applied(&mut state, &start)?);
        // Before anything that this program decides.
        if let Some(upgrade) = state.upgrade_due(&program::this()) {
            tracing::info!(version = %upgrade.to.version, fold = upgrade.fold, "this keeper runs another program than it last said");
            first.push(applied(&mut state, &Entry::Upgrade(upgrade))?);
        }
        let mut vault = self.begin(store, log, state, (genesis, tier), (first, blobs))?;
        vault.settle_records()?;
        vault.settle_recovery()?;
        vault.tend_outbox();
        Ok(Opened::Vault(Box::new(vault)))
    }

    /// Has the log cosigned as it is, where it has witnesses: nothing is written to a copy that was put back.
    pub(in crate::keeper) fn recosigned(
        &mut self,
        store: &Store,
        log: ClosedLog,
        state: &State,
        genesis: &Genesis,
    ) -> Result<CurrentLog, OpenError> {
        // The genesis names this keeper's own log key, and the witnesses of the vault.
        let verifier = LogVerifier::of(genesis);
        let shared = is_shared(state);
        let mut committer = Committer { store, anchor: &mut self.anchor, keys: &self.keys, blobs: Vec::new(), shared };
        log.recosign(verifier, &mut committer).map_err(OpenError::Commit)
    }

    /// Starts the run with its first entry: committed twice before anything is signed or served, so that no head of a
    /// killed run can come back.
    pub(in crate::keeper) fn begin(
        mut self,
        store: &Store,
        log: CurrentLog,
        state: State,
        (genesis, tier): (Genesis, Trust),
        (first, blobs): (Vec<Vec<u8>>, Vec<Vec<u8>>),
    ) -> Result<Vault, OpenError> {
        // From the moment at which the first entry was made: what its commit takes is measured.
        let mut clock = Clock::started_by(state.time(), log.seen().and_then(Seen::not_before));
        let mut batch = Batch::new();
        for entry in first {
            batch.add(entry).map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))?;
        }
        let shared = is_shared(&state);
        let mut committer = Committer { store, anchor: &mut self.anchor, keys: &self.keys, blobs, shared };
        let log = log.start(batch, &mut committer).map_err(OpenError::Commit)?;
        // Of a log that nobody has seen before: no host can have kept these.
        clock.heard(log.seen().and_then(Seen::not_before));
        let denials = Denials::new(clock.shown(state.time()));
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
            outbox: self.outbox,
            log,
            state,
            models: Models::default(),
            challenges: Challenges::default(),
            chains: KeptChains::default(),
            denials,
            renewals: Renewals::default(),
            own_run: OwnRun::default(),
            clock,
            rng: SystemRandom::new(),
            pending: Pending::default(),
        })
    }

    fn fold(&self, store: &Store, turn: Option<&Turn>) -> Result<(ClosedLog, State), OpenError> {
        let head = Checkpoint { size: self.anchor.size(), root: *self.anchor.root().as_bytes() };
        let (state, log) = match turn {
            Some(turn) => self.fold_witnessed(store, head, turn)?,
            None => self.fold_to(store, head)?,
        };
        Ok((log, state))
    }

    /// The log is this keeper's, and its machine is what the policy in force asks for.
    fn check(&self, state: &State) -> Result<(Genesis, Trust), OpenError> {
        let genesis = state.genesis().ok_or(OpenError::OtherGenesis)?.clone();
        self.check_genesis(&genesis)?;
        self.check_machine(state, &genesis)?;
        let policy = state.vault().map_or_else(|| genesis.policy(), |vault| vault.policy());
        if let Some(vault) = state.vault() {
            self.records.standing(&vault.sealing_of(self.instance))?;
        }
        let (_, tier) = self.hardware.check(policy, clock::wall(state.time())).map_err(OpenError::Refused)?;
        Ok((genesis, tier))
    }

    fn fold_to(&self, store: &Store, head: Checkpoint) -> Result<(State, ClosedLog), OpenError> {
        self.snapshots.fold(store, head, |genesis| self.check_genesis(genesis).is_ok())
    }

    /// Of a log that only this keeper ever wrote to, its own head says how far it is: whatever lies beyond was written by a
    /// copy of it, and the witnesses will say so. Where there are other keepers, what counts is the newest that the log key
    /// has signed, and this keeper's head may be of a commit that came to nothing.
    fn fold_witnessed(&self, store: &Store, own: Checkpoint, turn: &Turn) -> Result<(State, ClosedLog), OpenError> {
        let newest = turn.newest(&self.verifier(store)?).map_err(OpenError::Newest)?;
        let newest = newest.map(|newest| newest.checkpoint());
        let Some(newest) = newest.filter(|newest| *newest != own) else { return self.fold_to(store, own) };
        if newest.size > own.size {
            let (state, log) = self.fold_to(store, newest)?;
            return if is_shared(&state) { Ok((state, log)) } else { self.fold_to(store, own) };
        }
        self.fold_to(store, own).or_else(|error| match self.fold_to(store, newest) {
            Ok((state, log)) if is_shared(&state) => Ok((state, log)),
            Ok(_) | Err(_) => Err(error),
        })
    }

    /// By the genesis of the host's log, which is checked against this keeper's keys.
    fn verifier(&self, store: &Store) -> Result<LogVerifier, OpenError> {
        let mut first = Vec::new();
        store
            .read_log(0..1, |entry| {
                first = entry;
                Ok::<_, StoreError>(())
            })
            .map_err(|error| OpenError::Fold(error.into()))?;
        let genesis = Genesis::parse(&first).map_err(|_| OpenError::OtherGenesis)?;
        self.check_genesis(&genesis)?;
        Ok(LogVerifier::of(&genesis))
    }

    /// Others wrote to the log, or this keeper's last commit came to nothing: its head becomes that of the log.
    fn take_head(&mut self, log: &ClosedLog) -> Result<(), OpenError> {
        let Checkpoint { size, root } = log.head();
        self.anchor.follow(size, root).map_err(|error| OpenError::Commit(LogError::Commit(CommitError::Anchor(error))))
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
                let left = keepers.is_shared() && keepers.former().iter().any(own);
                keepers.all().any(own) || keepers.successor().is_some_and(|next| own(&next.machine)) || left
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

    /// Whether the log ends with this keeper's last entry, or says that it left.
    fn has_retired(&self, state: &State) -> bool {
        let Some(keepers) = state.vault().map(ledger::state::Vault::keepers) else { return false };
        let successor = keepers.successor().is_some_and(|successor| successor.machine.instance != self.instance);
        successor || keepers.has_left(self.instance)
    }

    fn retired(self, state: State, genesis: Genesis) -> Retired {
        let clock = Clock::started(state.time());
        let Self { keys, anchor, .. } = self;
        let (challenges, chains, rng) = (Challenges::default(), KeptChains::default(), SystemRandom::new());
        Retired { genesis, keys, anchor, state, challenges, chains, clock, rng }
    }
}
