//! The keeper: holds the keys of a vault, verifies evidence itself, decides, logs, and only then wraps keys.
//!
//! ```text
//! link (async) ─▶ queue ─▶ one thread: Keeper ─▶ Vault::batch ─▶ decide ▸ stage ▸ commit ▸ release
//!      ▲                                            │
//!      └──────────── store calls ◀──────────────────┘ entries, blobs and checkpoints on the host's disk
//! ```
//! A keeper is empty until it is given a core, in its ceremony until its genesis is committed, and then opens its vault
//! at every start: it folds the log under its head, makes two counted commits, and serves. A failed commit closes the
//! vault; the keeper folds the log anew, so that what it decides by is always what is durable.

mod ceremony;
mod challenges;
mod clock;
mod commit;
mod denials;
mod dir_state;
mod fold;
mod hardware;
mod join;
mod joiner;
mod link;
mod models;
mod newest;
mod recovery;
mod refusal;
mod retired;
mod service;
mod snapshots;
mod start;
mod vault;
mod witnesses;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::escrow::RecoveryMode;
use ledger::genesis::{AntiRollback, Genesis};
use ledger::release_log::LogError;
use ledger::vault_file::VaultFile;
use vault_proto::v1::{self, keeper_call::Request, keeper_reply::Response};

use crate::keeper_dir::KeeperDir;
use ceremony::Step;
use commit::CommitError;
pub(crate) use dir_state::DirState;
pub use hardware::Devices;
pub use joiner::{JoinRun, Joining, JoiningError};
pub use link::{FRAME_BYTES_MAX, Link, Store, StoreError};
use recovery::{After, Recovering};
pub use refusal::Refusal;
use retired::Retired;
use service::{Answer, Job, Keep};
pub use service::{Queue, Requests, queue};
pub use start::{StartError, reset};
use vault::{OpenError, Opened, Run, Vault};

/// How long the keeper waits before it folds the log again after that failed.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// A keeper and the phase that it is in.
pub struct Keeper {
    dir: Arc<KeeperDir>,
    devices: Devices,
    store: Store,
    phase: Phase,
}

enum Phase {
    /// No root yet.
    Empty,
    /// It has a core, and no committed genesis.
    Ceremony(Run),
    /// It has a head with entries, and must fold the log.
    Closed { run: Run, why: Why, retry: Instant },
    /// It serves.
    Open(Box<Vault>),
    /// It is to take the place of a lost keeper, or practises that.
    Recovering(Box<Recovering>),
    /// Its last entry is written: it serves nothing but the hand-over to its successor.
    Retired(Box<Retired>),
    /// It can't go on; a restart begins anew.
    Stopped(String),
}

/// Why the vault is closed, for whoever asks it for something.
struct Why {
    code: &'static str,
    message: String,
}

impl Keeper {
    /// Opens a keeper's directory: unseals its root and checks head and counter. The log comes with the host.
    ///
    /// # Errors
    /// [`StartError`]: another boot state, another TPM, an older copy of the state, a damaged file.
    pub fn open(dir: KeeperDir, devices: Devices, store: Store) -> Result<Self, StartError> {
        Self::open_in(Arc::new(dir), devices, store)
    }

    fn open_in(dir: Arc<KeeperDir>, devices: Devices, store: Store) -> Result<Self, StartError> {
        let phase = match start::resume(&dir, &devices)? {
            None => Phase::Empty,
            Some(run) if run.anchor.size() == 0 => Phase::Ceremony(run),
            Some(run) => Phase::Closed { run, why: Why::plain("waiting for a host to attach"), retry: Instant::now() },
        };
        Ok(Self { dir, devices, store, phase })
    }

    /// A keeper that takes the place of a lost one, or practises that, in a directory of its own. Where that has the vault's
    /// keys already, it is opened as any other.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn recover(
        dir: KeeperDir,
        devices: Devices,
        store: Store,
        vault: &VaultFile,
        mode: RecoveryMode,
    ) -> Result<Self, JoiningError> {
        // What the lost keeper's head was is known by what it signed; copies of it are kept out by the new one's counter.
        match vault.genesis().core().anti_rollback() {
            AntiRollback::Counter => {}
            AntiRollback::Witnesses | AntiRollback::None => return Err(JoiningError::NoCounter),
        }
        let dir = Arc::new(dir);
        let joining = match Joining::open_in(Arc::clone(&dir), &devices, vault) {
            Err(JoiningError::Joined) if mode == RecoveryMode::Recover => {
                return Self::open_in(dir, devices, store).map_err(|error| JoiningError::Start(Box::new(error)));
            }
            joining => joining?,
        };
        let joining = match mode {
            RecoveryMode::Recover => joining,
            // What custodians practise with must open nothing afterwards.
            RecoveryMode::Drill => joining.with_passing_key()?,
        };
        let phase = Phase::Recovering(Box::new(Recovering::new(joining, mode)));
        Ok(Self { dir, devices, store, phase })
    }

    /// One word for the start-up line.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "empty",
            Phase::Ceremony(_) => "ceremony",
            Phase::Closed { .. } => "closed",
            Phase::Open(_) => "open",
            Phase::Recovering(_) => "recovering",
            Phase::Retired(_) => "retired",
            Phase::Stopped(_) => "stopped",
        }
    }

    /// Replaces the phase by what `next` makes of it.
    fn advance(&mut self, next: impl FnOnce(&mut Self, Phase) -> Phase) {
        let phase = std::mem::replace(&mut self.phase, Phase::Stopped("the keeper's thread failed".to_owned()));
        self.phase = next(self, phase);
    }

    /// Folds the log, if it is time to try.
    fn reopen(&mut self) {
        if let Phase::Recovering(recovering) = &mut self.phase {
            recovering.look(&self.store);
        }
        self.advance(|keeper, phase| match phase {
            Phase::Closed { run, retry, .. } if retry <= Instant::now() => match run.open(&keeper.store) {
                Ok(Opened::Vault(vault)) => {
                    tracing::info!("the vault is open");
                    Phase::Open(vault)
                }
                Ok(Opened::Retired(retired)) => Phase::retired(retired),
                Ok(Opened::Epoch) => keeper.resume_now(Why::epoch()),
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "the vault can't be opened");
                    keeper.resume(Why::of_start(&error))
                }
            },
            phase => phase,
        });
    }

    /// The run as its durable state is: a commit that failed may have moved head and counter.
    fn resume(&self, why: Why) -> Phase {
        match start::resume(&self.dir, &self.devices) {
            Ok(Some(run)) if run.anchor.size() == 0 => Phase::Ceremony(run),
            Ok(Some(run)) => Phase::Closed { run, why, retry: Instant::now() + REOPEN_AFTER },
            Ok(None) => Phase::Stopped("the keeper's directory was emptied while it ran".to_owned()),
            Err(error) => {
                tracing::error!(code = error.code(), %error, "the keeper stops");
                Phase::Stopped(error.to_string())
            }
        }
    }

    /// The same, to be opened with the next turn.
    fn resume_now(&self, why: Why) -> Phase {
        match self.resume(why) {
            Phase::Closed { run, why, .. } => Phase::Closed { run, why, retry: Instant::now() },
            phase => phase,
        }
    }

    /// A request to a keeper that is not open.
    fn answer(&mut self, request: Request) -> Answer {
        match (&self.phase, request) {
            (Phase::Empty, Request::InitKeeper(request)) => self.init(&request),
            (Phase::Empty, Request::Status(_)) => Ok(status("empty", "no core was given: see `vaultctl init`")),
            (Phase::Empty, _) => {
                Err(Refusal::unavailable("keeper-empty", "this keeper was given no core yet: see `vaultctl init`"))
            }
            (Phase::Ceremony(run), request) => match run.before_genesis(request) {
                Step::Answer(answer) => answer,
                Step::Begin(genesis) => self.begin(*genesis),
            },
            (Phase::Closed { run, why, .. }, Request::Status(_)) => Ok(run.closed_status(&why.message)),
            (Phase::Closed { why, .. }, _) => Err(Refusal::unavailable(why.code, &why.message)),
            (Phase::Stopped(why), Request::Status(_)) => Ok(status("stopped", why)),
            (Phase::Stopped(why), _) => Err(Refusal::unavailable("keeper-stopped", why)),
            (Phase::Open(_) | Phase::Recovering(_) | Phase::Retired(_), _) => Err(Refusal::stopping()),
        }
    }

    fn init(&mut self, request: &v1::InitKeeperRequest) -> Answer {
        let run = start::begin(&self.dir, &self.devices, &request.core)?;
        let identity = run.identity();
        self.phase = Phase::Ceremony(run);
        Ok(Response::InitKeeper(v1::InitKeeperResponse { identity: Some(identity.into()) }))
    }

    fn begin(&mut self, genesis: Genesis) -> Answer {
        let vault_id = genesis.vault_id().as_bytes().to_vec();
        let mut answer = Err(Refusal::stopping());
        self.advance(|keeper, phase| {
            let Phase::Ceremony(run) = phase else { return phase };
            match run.open_genesis(genesis, &keeper.store) {
                Ok(vault) => {
                    answer = Ok(Response::SubmitGenesis(v1::SubmitGenesisResponse { vault_id }));
                    Phase::Open(Box::new(vault))
                }
                Err(error) => {
                    answer = Err(Refusal::unavailable(error.code(), &error));
                    keeper.resume(Why::of_start(&error))
                }
            }
        });
        answer
    }

    /// After the commit that named its successor.
    fn retire(&mut self) {
        self.advance(|_, phase| match phase {
            Phase::Open(vault) if vault.is_retired() => Phase::retired(Box::new(vault.retire())),
            phase => phase,
        });
    }

    /// After the commit that began an epoch: its keys are under another root, so the keeper starts anew, with them.
    fn begin_epoch(&mut self) {
        self.advance(|keeper, phase| match phase {
            Phase::Open(vault) if vault.moves_on() => {
                if let Err(refusal) = vault.begin_epoch() {
                    tracing::warn!(%refusal, "the files are not of the epoch that has begun: the next start does it");
                }
                keeper.resume_now(Why::epoch())
            }
            phase => phase,
        });
        self.reopen();
    }

    /// A failed commit closes the vault: the state that was decided on is not the one that is durable.
    fn closed_by(&mut self, error: &LogError<CommitError>) {
        tracing::warn!(code = error.code(), %error, "a commit failed: the log is folded anew");
        let why = Why::of_commit(error);
        self.advance(|keeper, phase| match phase {
            Phase::Open(_) => keeper.resume(why),
            phase => phase,
        });
    }
}

impl Keep for Keeper {
    fn stop(&mut self) {
        if let Phase::Open(vault) = &self.phase {
            vault.stop();
        }
    }

    fn tick(&mut self) {
        self.reopen();
        if let Phase::Open(vault) = &mut self.phase
            && let Err(error) = vault.tick()
        {
            self.closed_by(&error);
        }
        // Another keeper may have written that it left.
        self.retire();
        self.begin_epoch();
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        self.reopen();
        let mut jobs = jobs.into_iter();
        // Before the vault is open, requests are rare and each may change the phase.
        while !matches!(self.phase, Phase::Open(_)) {
            let Some(job) = jobs.next() else { return };
            if let Phase::Retired(retired) = &mut self.phase {
                retired.handle(job);
                continue;
            }
            if let Phase::Recovering(recovering) = &mut self.phase {
                if recovering.handle(job, &self.store) == After::Resumes {
                    self.phase = self.resume(Why::plain("the vault was recovered and is about to open"));
                }
                continue;
            }
            let Job { request, reply } = job;
            let _ = reply.send(self.answer(request));
        }
        if let Phase::Open(vault) = &mut self.phase
            && let Err(error) = vault.batch(jobs.collect())
        {
            self.closed_by(&error);
        }
        self.retire();
        self.begin_epoch();
    }
}

impl Phase {
    fn retired(retired: Box<Retired>) -> Self {
        tracing::info!("this keeper has retired: it serves nothing but a hand-over to its successor, where it has one");
        Self::Retired(retired)
    }
}

impl Why {
    fn plain(message: &str) -> Self {
        Self { code: "vault-closed", message: message.to_owned() }
    }

    fn epoch() -> Self {
        Self { code: "epoch-begins", message: "the vault begins a key epoch: try again in a moment".to_owned() }
    }

    /// Witnesses are not the keeper's own: whoever runs them must hear of it by name.
    fn of_commit(error: &LogError<CommitError>) -> Self {
        match error {
            LogError::NoQuorum(missing) => Self { code: missing.code(), message: missing.to_string() },
            LogError::Stopped
            | LogError::OtherVault
            | LogError::Append(_)
            | LogError::Commit(_)
            | LogError::Sign(_)
            | LogError::Signature(_)
            | LogError::Cosign(_)
            | LogError::Publish(_)
            | LogError::Followed(_) => Self::plain(&error.to_string()),
        }
    }

    fn of_start(error: &OpenError) -> Self {
        match error {
            OpenError::Commit(error) => Self::of_commit(error),
            OpenError::Fold(_)
            | OpenError::Snapshot(_)
            | OpenError::Newest(_)
            | OpenError::OtherGenesis
            | OpenError::OtherKeeper
            | OpenError::DeclaredLost
            | OpenError::OtherEpoch
            | OpenError::Superseded
            | OpenError::Refused(_) => Self::plain(&error.to_string()),
        }
    }
}

fn status(state: &str, reason: &str) -> Response {
    let (state, reason) = (state.to_owned(), reason.to_owned());
    Response::Status(v1::StatusResponse { state, reason, ..v1::StatusResponse::default() })
}
