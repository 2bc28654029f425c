//! The keeper's head and the TPM's counter: how an older copy of the state is noticed.
//!
//! The head says how far the log is committed, encrypted under a key of the keeper's own. A commit replaces it with the
//! next one, then counts in the TPM; whoever puts an older head back finds the counter ahead of it, and the keeper does
//! not start. What a run signs or serves could be undone only as long as a head written earlier might still fit the
//! counter: so a run serves nothing before it has made [`COMMITS_BEFORE_SERVING`] counted commits, after which no head of
//! a run that was killed can come back.
//!
//! A copy of the directory that runs beside the keeper, or that is started and killed again while the keeper runs, could
//! write heads of its own that keep up with the counter without ever counting. So each run first takes the counter: a
//! register beside it names the run, and a commit is counted only where the register still names it afterwards. Starting
//! a copy stops the keeper, and what a copy wrote before the keeper's start falls behind with its first two commits.

mod epoch;
mod record;
mod reset;

use std::fmt;
use std::sync::Arc;

use attestation::Sha256Digest;
use ring::rand::{SecureRandom, SystemRandom};

pub use ledger::genesis::AntiRollback;

use crate::container::OpenError;
use crate::derive::{self, KeeperContext};
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::record::seal_head;
use crate::secret::{CounterAuth, HeadKey, Root, SecretError};
use crate::tpm::{Counter, RunId, Tpm, TpmError, TpmName};
use record::HeadRecord;

/// Counted commits of this run before it may sign or serve anything: one that carries its `start`, one with the same
/// root after it.
pub const COMMITS_BEFORE_SERVING: u64 = 2;

/// Holds the head of a running keeper, the counter behind it, and the one way to move both.
pub struct Anchor {
    dir: Arc<KeeperDir>,
    tpm: Tpm,
    key: HeadKey,
    auth: Arc<CounterAuth>,
    run: RunId,
    head: HeadRecord,
    counted: u64,
    stopped: bool,
}

impl Anchor {
    /// The ceremony's part: defines the counter and writes a head of size 0. `context` is the keeper's instance and core,
    /// where it has been given one.
    ///
    /// # Errors
    /// [`AnchorError::Exists`] where there is a head already.
    pub fn create(
        dir: Arc<KeeperDir>,
        tpm: Tpm,
        root: &Root,
        anti_rollback: AntiRollback,
        context: Option<KeeperContext>,
    ) -> Result<Self, AnchorError> {
        if dir.read(FILE)?.is_some() {
            return Err(AnchorError::Exists);
        }
        let auth = Arc::new(derive::counter_auth(root)?);
        let run = run_id()?;
        let (counter, count) = match anti_rollback {
            AntiRollback::Counter => {
                let (counter, count) = tpm.define_counter(Arc::clone(&auth), run).wait()?;
                (Some(counter), count)
            }
            // Witnesses are asked about the log itself: without their cosignatures an older head is of no use.
            AntiRollback::Witnesses | AntiRollback::None => (None, 0),
        };
        let srk_name = tpm.srk_name().wait()?;
        let head = HeadRecord { size: 0, root: EMPTY_ROOT, count, counter, srk_name, context };
        let anchor = Self { dir, tpm, key: derive::head_key(root)?, auth, run, head, counted: 0, stopped: false };
        anchor.write(&anchor.head)?;
        Ok(anchor)
    }

    /// At every start: opens the head, takes the counter and holds the one against the other. Finishes the increment of a commit that was cut short
    /// between the two.
    ///
    /// # Errors
    /// [`AnchorError`]: each reason not to start is its own.
    pub fn open(dir: Arc<KeeperDir>, tpm: Tpm, root: &Root) -> Result<Self, AnchorError> {
        let auth = derive::counter_auth(root)?;
        Self::open_with(dir, tpm, root, auth)
    }

    /// The same with the authorisation of a counter that was defined under an older root.
    ///
    /// # Errors
    /// As [`Anchor::open`].
    pub fn open_with(dir: Arc<KeeperDir>, tpm: Tpm, root: &Root, auth: CounterAuth) -> Result<Self, AnchorError> {
        let key = derive::head_key(root)?;
        let head = epoch::read(&dir, &key)?;
        let auth = Arc::new(auth);
        let mut anchor = Self { dir, tpm, key, auth, run: run_id()?, head, counted: 0, stopped: false };
        anchor.expect_tpm(anchor.head.srk_name)?;
        if let Some(counter) = anchor.head.counter {
            anchor.expect_count(&counter)?;
        }
        Ok(anchor)
    }

    /// Commits the log of `size` entries whose Merkle root is `root`. The entries must be durable before.
    ///
    /// The same size and root again make an empty commit, which counts too.
    ///
    /// # Errors
    /// [`AnchorError::LogShrinks`] changes nothing. After any other the keeper must not go on: it starts anew, and every
    /// later commit of this value is [`AnchorError::Stopped`].
    pub fn commit(&mut self, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        let root = Sha256Digest::from_bytes(root);
        if size < self.head.size || (size == self.head.size && root != self.head.root) {
            return Err(AnchorError::LogShrinks { committed: self.head.size, size });
        }
        self.advance(HeadRecord { size, root, ..self.head })
    }

    /// Takes the head of a log that other keepers write to as well, though it be of fewer entries than this keeper had
    /// written for a commit that came to nothing. Whether it is the newest, its witnesses say; a counter could not, and a
    /// keeper that counts has no such log.
    ///
    /// # Errors
    /// [`AnchorError::LogShrinks`] where there is a counter; otherwise as [`Anchor::commit`].
    pub fn follow(&mut self, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        if self.is_counted() {
            return Err(AnchorError::LogShrinks { committed: self.head.size, size });
        }
        let root = Sha256Digest::from_bytes(root);
        if (size, root) == (self.head.size, self.head.root) {
            return Ok(());
        }
        self.advance(HeadRecord { size, root, ..self.head })
    }

    /// Gives an empty keeper its core, or another one, as a commit of its own.
    ///
    /// # Errors
    /// [`AnchorError::NotEmpty`] once anything was committed; otherwise as [`Anchor::commit`].
    pub fn give_core(&mut self, context: KeeperContext) -> Result<(), AnchorError> {
        if self.head.size != 0 {
            return Err(AnchorError::NotEmpty);
        }
        self.advance(HeadRecord { context: Some(context), ..self.head })
    }

    /// Entries committed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// Merkle root of the committed log; of the empty one, SHA-256 of nothing (RFC 9162).
    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        self.head.root
    }

    /// The counter and what it reads once the head is in force.
    #[must_use]
    pub fn counter(&self) -> Option<(Counter, u64)> {
        self.head.counter.map(|counter| (counter, self.head.count))
    }

    /// Instance and core of this keeper, once it was given one.
    #[must_use]
    pub fn context(&self) -> Option<KeeperContext> {
        self.head.context
    }

    /// Whether commits are counted in the TPM.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.head.counter.is_some()
    }

    /// Commits that this run has made.
    #[must_use]
    pub fn counted_commits(&self) -> u64 {
        self.counted
    }

    /// Whether this run may sign and serve: nothing that it makes public can be undone by an older head any more.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        !self.stopped && self.counted >= COMMITS_BEFORE_SERVING
    }

    /// Whether this run is still the one that counts: what it signs without a commit of its own is then older than whatever
    /// another run starts with.
    ///
    /// # Errors
    /// [`AnchorError::Tpm`]. Where another run was the reason, this one commits to nothing any more.
    pub fn check_run(&mut self) -> Result<(), AnchorError> {
        if self.stopped {
            return Err(AnchorError::Stopped);
        }
        let Some(counter) = self.head.counter else { return Ok(()) };
        let checked = self.tpm.check_run(&counter, Arc::clone(&self.auth), self.run, self.head.count).wait();
        self.stopped = matches!(checked, Err(TpmError::CounterClaimed | TpmError::CounterMoved { .. }));
        Ok(checked?)
    }

    /// Head first, then counter: cut short between the two, the next start finishes it.
    fn advance(&mut self, next: HeadRecord) -> Result<(), AnchorError> {
        if self.stopped {
            return Err(AnchorError::Stopped);
        }
        self.stopped = true;
        let next = match self.head.counter {
            Some(counter) => {
                let next = HeadRecord { count: self.head.count + 1, ..next };
                self.write(&next)?;
                self.count(&counter, self.head.count)?;
                next
            }
            None => {
                self.write(&next)?;
                next
            }
        };
        self.head = next;
        self.counted += 1;
        self.stopped = false;
        Ok(())
    }

    fn write(&self, head: &HeadRecord) -> Result<(), AnchorError> {
        let sealed = seal_head(&self.key, &head.encode(), &SystemRandom::new())?;
        Ok(self.dir.replace(FILE, &sealed)?)
    }

    /// One increment, from `from`, that this process's own session saw done between two reads. Where its answer got lost
    /// the TPM may well have counted, but so may a copy of this keeper whose increment went through instead: taking the
    /// count for ours would let both go on, step by step. So there is no second look: the keeper stops, and its next run
    /// must make counted commits of its own before it serves.
    fn count(&self, counter: &Counter, from: u64) -> Result<(), AnchorError> {
        let found = self.tpm.increment_counter(counter, Arc::clone(&self.auth), self.run, from).wait()?;
        counted_once(from, found)
    }

    fn expect_tpm(&self, srk_name: TpmName) -> Result<(), AnchorError> {
        match self.tpm.srk_name().wait()? == srk_name {
            true => Ok(()),
            false => Err(AnchorError::OtherTpm),
        }
    }

    /// Takes the counter only where the head fits it: an older copy that is started does not stop the keeper.
    fn expect_count(&mut self, counter: &Counter) -> Result<(), AnchorError> {
        self.fits(self.tpm.read_counter(counter, Arc::clone(&self.auth)).wait()?)?;
        let found = self.tpm.claim_counter(counter, Arc::clone(&self.auth), self.run).wait()?;
        match self.fits(found)? {
            Fit::Whole => Ok(()),
            Fit::Cut => self.count(counter, found),
        }
    }

    fn fits(&self, counter: u64) -> Result<Fit, AnchorError> {
        let head = self.head.count;
        if counter == head {
            Ok(Fit::Whole)
        } else if counter.checked_add(1) == Some(head) {
            Ok(Fit::Cut)
        } else if counter > head {
            Err(AnchorError::OlderState { head, counter })
        } else {
            Err(AnchorError::CounterBehind { head, counter })
        }
    }
}

/// How a head and the counter fit at a start.
enum Fit {
    /// The last commit was finished.
    Whole,
    /// The last commit was cut short between head and counter.
    Cut,
}

/// Whether the TPM counted once, no more and no less.
fn counted_once(from: u64, found: u64) -> Result<(), AnchorError> {
    match from.checked_add(1) == Some(found) {
        true => Ok(()),
        false => Err(AnchorError::Miscounted { expected: from.saturating_add(1), found }),
    }
}

fn run_id() -> Result<RunId, AnchorError> {
    let mut run = [0; 32];
    SystemRandom::new().fill(&mut run).map_err(|_| SecretError::Random)?;
    Ok(run)
}

/// Its file in the keeper's directory.
pub(crate) const FILE: &str = "head";

/// Root of a log without entries: SHA-256 of nothing (RFC 9162 §2.1.1).
const EMPTY_ROOT: Sha256Digest = Sha256Digest::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, //
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Why a keeper does not start, or must stop.
#[derive(Debug)]
pub enum AnchorError {
    /// There is a head already.
    Exists,
    /// There is a root but no head: somebody removed it, or the ceremony was cut short.
    HeadMissing,
    /// The head does not open under this keeper's key, or is not a head.
    HeadDamaged,
    /// The head was written beside another TPM.
    OtherTpm,
    /// The counter is ahead: this head, and the log that it fits, is an older copy.
    OlderState {
        /// The count in the head.
        head: u64,
        /// The count in the TPM.
        counter: u64,
    },
    /// The counter is behind by more than the one increment that a cut can leave.
    CounterBehind {
        /// The count in the head.
        head: u64,
        /// The count in the TPM.
        counter: u64,
    },
    /// The TPM counted something else than one.
    Miscounted {
        /// What it should read.
        expected: u64,
        /// What it reads.
        found: u64,
    },
    /// The log to commit is shorter than what is committed, or another of the same length.
    LogShrinks {
        /// Entries committed.
        committed: u64,
        /// Entries to commit.
        size: u64,
    },
    /// A core is given before the first commit only.
    NotEmpty,
    /// A commit failed earlier: start the keeper anew.
    Stopped,
    /// The TPM.
    Tpm(TpmError),
    /// The disk.
    Dir(KeeperDirError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
    /// The head could not be sealed.
    Seal(OpenError),
}

impl AnchorError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exists => "head-exists",
            Self::HeadMissing => "head-missing",
            Self::HeadDamaged => "head-damaged",
            Self::OtherTpm => "head-other-tpm",
            Self::OlderState { .. } => "state-older-than-counter",
            Self::CounterBehind { .. } => "counter-behind-state",
            Self::Miscounted { .. } => "counter-miscounted",
            Self::LogShrinks { .. } => "log-shrinks",
            Self::NotEmpty => "head-not-empty",
            Self::Stopped => "keeper-stopped",
            Self::Tpm(error) => error.code(),
            Self::Dir(error) => error.code(),
            Self::Secret(error) => error.code(),
            Self::Seal(error) => error.code(),
        }
    }
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => write!(f, "the keeper's directory already holds a head"),
            Self::HeadMissing => write!(f, "the keeper has a root but no head: its state is not complete"),
            Self::HeadDamaged => write!(f, "the head is damaged, or is another keeper's"),
            Self::OtherTpm => write!(f, "the head was written beside another TPM"),
            Self::OlderState { head, counter } => write!(
                f,
                "this is an older copy of the keeper's state: its head counts {head}, the TPM {counter}; restore the newest"
            ),
            Self::CounterBehind { head, counter } => {
                write!(f, "the TPM's counter stands at {counter}, behind the head's {head}: it is not the same counter")
            }
            Self::Miscounted { expected, found } => {
                write!(f, "the TPM's counter reads {found} where it should read {expected}: somebody else counts")
            }
            Self::LogShrinks { committed, size } => {
                write!(f, "a log of {size} entries does not follow the committed one of {committed}")
            }
            Self::NotEmpty => write!(f, "this keeper's vault is open: it takes no other core"),
            Self::Stopped => write!(f, "a commit failed: the keeper must start anew"),
            Self::Tpm(error) => error.fmt(f),
            Self::Dir(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::Seal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AnchorError {}

impl From<TpmError> for AnchorError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<KeeperDirError> for AnchorError {
    fn from(error: KeeperDirError) -> Self {
        Self::Dir(error)
    }
}

impl From<SecretError> for AnchorError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<OpenError> for AnchorError {
    fn from(error: OpenError) -> Self {
        Self::Seal(error)
    }
}

#[cfg(test)]
mod tests;
