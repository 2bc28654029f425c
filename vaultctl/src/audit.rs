//! The log, read and folded: what is known of a vault without believing its host.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use ledger::entry::{EntryError, ExactEntry};
use ledger::merkle::{Tree, leaf_hash};
use ledger::names::Version;
use ledger::state::{FoldError, State, Vault};
use ledger::upgrade::UpgradeError;
use ledger::vault_file::VaultFile;

use crate::client::Remote;
use crate::failure::{Failure, Kind};

/// A log that is being read: entries in order, then the checkpoint. Pure.
pub struct LogReader {
    vault: Sha256Digest,
    tree: Tree,
    state: State,
}

/// A log of which every entry was folded and whose root is that of a checkpoint that the vault's log key signed.
pub struct VerifiedLog {
    checkpoint: Checkpoint,
    tree: Tree,
    state: State,
}

/// Why entries are not the log of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFault {
    /// Entry 0 is not the genesis in the vault file.
    OtherVault {
        /// SHA-256 of entry 0.
        found: Sha256Digest,
    },
    /// Not an entry.
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        error: EntryError,
    },
    /// An entry that no keeper should have written.
    Fold {
        /// Its index.
        index: u64,
        /// What is wrong.
        error: FoldError,
    },
    /// A keeper took the place of a lost one for another log of this length.
    RecoveryRoot {
        /// Index of its entry.
        index: u64,
    },
    /// There are more or fewer entries than the checkpoint says.
    SizeMismatch {
        /// By the checkpoint.
        checkpoint: u64,
        /// Those read.
        entries: u64,
    },
    /// The entries have another root than the checkpoint.
    RootMismatch,
    /// The older checkpoint is of a longer log: this one was cut.
    Shortened {
        /// Entries of the older one.
        earlier: u64,
        /// Entries of this one.
        now: u64,
    },
    /// The older checkpoint is of a log that parted from this one: history was rewritten.
    Forked {
        /// Entries of the older one.
        earlier: u64,
    },
}

impl LogReader {
    /// For the log of this vault.
    pub fn new(vault: Sha256Digest) -> Self {
        Self { vault, tree: Tree::new(), state: State::new() }
    }

    /// The state so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes the next entry.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LogFault> {
        let index = self.state.size();
        self.check_genesis(bytes)?;
        self.state.apply(index, bytes).map_err(|error| LogFault::Fold { index, error })?;
        self.tree.push(leaf_hash(bytes));
        self.check_recovery(index)
    }

    /// The fold has no tree: that a recovery goes on from this very log, and from no other of its length, is seen here.
    fn check_recovery(&self, index: u64) -> Result<(), LogFault> {
        let recovered = self.state.vault().and_then(|vault| vault.escrows().recovered().last());
        let Some(recovered) = recovered.filter(|recovered| recovered.entry() == index) else { return Ok(()) };
        let from = recovered.from();
        match self.tree.root(from.size) {
            Ok(root) if root == *from.root.as_bytes() => Ok(()),
            Ok(_) | Err(_) => Err(LogFault::RecoveryRoot { index }),
        }
    }

    /// The same for one that was read already.
    pub fn push_exact(&mut self, entry: ExactEntry<impl AsRef<[u8]>>) -> Result<(), LogFault> {
        let (index, leaf) = (self.state.size(), leaf_hash(entry.bytes()));
        self.check_genesis(entry.bytes())?;
        self.state.apply_exact(entry).map_err(|error| LogFault::Fold { index, error })?;
        self.tree.push(leaf);
        self.check_recovery(index)
    }

    fn check_genesis(&self, bytes: &[u8]) -> Result<(), LogFault> {
        if self.state.size() > 0 {
            return Ok(());
        }
        let found = Sha256Digest::of(bytes);
        if found == self.vault { Ok(()) } else { Err(LogFault::OtherVault { found }) }
    }

    /// Compares what was read with a verified checkpoint.
    pub fn finish(self, checkpoint: Checkpoint) -> Result<VerifiedLog, LogFault> {
        if checkpoint.size != self.tree.len() {
            return Err(LogFault::SizeMismatch { checkpoint: checkpoint.size, entries: self.tree.len() });
        }
        match self.tree.root(checkpoint.size) {
            Ok(root) if root == checkpoint.root => Ok(VerifiedLog { checkpoint, tree: self.tree, state: self.state }),
            Ok(_) | Err(_) => Err(LogFault::RootMismatch),
        }
    }
}

impl VerifiedLog {
    /// Size and root.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// What the entries amount to.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The vault; a failure while its genesis lacks approvals.
    pub fn vault(&self) -> Result<&Vault, Failure> {
        self.state.vault().ok_or_else(|| {
            Failure::new(Kind::Failed, "vault-not-open", "the vault is not open: approvals of its genesis are missing")
                .next("vaultctl init status --vault FILE says whose")
        })
    }

    /// Checks that this log continues the one of an older checkpoint, which the caller has verified.
    pub fn check_continues(&self, earlier: &Checkpoint) -> Result<(), LogFault> {
        if earlier.size > self.checkpoint.size {
            return Err(LogFault::Shortened { earlier: earlier.size, now: self.checkpoint.size });
        }
        match self.tree.root(earlier.size) {
            Ok(root) if root == earlier.root => Ok(()),
            Ok(_) | Err(_) => Err(LogFault::Forked { earlier: earlier.size }),
        }
    }
}

/// The newest checkpoint that the host shows, verified, with its text.
pub async fn checkpoint(remote: &Remote, vault: &VaultFile) -> Result<(Checkpoint, String), Failure> {
    let note = remote.checkpoint().await?;
    let checkpoint = verify_checkpoint(vault, &note)?;
    Ok((checkpoint, note))
}

/// Checks a checkpoint with the vault's log key.
pub fn verify_checkpoint(vault: &VaultFile, note: &str) -> Result<Checkpoint, Failure> {
    let verifier = LogVerifier::of(vault.genesis());
    verifier.verify_checkpoint(note).map_err(|error: CheckpointError| {
        Failure::new(Kind::NotVerified, error.code(), "the checkpoint is not one of this vault").why(error)
    })
}

/// Reads the whole log up to the newest checkpoint that the host shows.
pub async fn read_log(remote: &Remote, vault: &VaultFile) -> Result<VerifiedLog, Failure> {
    let (checkpoint, _) = checkpoint(remote, vault).await?;
    read_log_to(remote, vault, checkpoint, |_, _| ()).await
}

/// Reads what came since.
pub async fn read_on(remote: &Remote, vault: &VaultFile, log: VerifiedLog) -> Result<VerifiedLog, Failure> {
    let (checkpoint, _) = checkpoint(remote, vault).await?;
    if checkpoint.size < log.checkpoint.size {
        return Err(LogFault::Shortened { earlier: log.checkpoint.size, now: checkpoint.size }.into());
    }
    let mut reader = LogReader { vault: vault.id(), tree: log.tree, state: log.state };
    while reader.state().size() < checkpoint.size {
        let first = reader.state().size();
        for entry in remote.entries(first, checkpoint.size - first).await? {
            reader.push(&entry)?;
        }
    }
    // The root is over all of it: a log that parted from what was read has another.
    Ok(reader.finish(checkpoint)?)
}

/// Reads the whole log up to a verified checkpoint. `seen` is shown each entry and the state before it; what it was shown
/// is verified only once this returns.
pub async fn read_log_to(
    remote: &Remote,
    vault: &VaultFile,
    checkpoint: Checkpoint,
    mut seen: impl FnMut(&State, &[u8]),
) -> Result<VerifiedLog, Failure> {
    let mut reader = LogReader::new(vault.id());
    while reader.state().size() < checkpoint.size {
        let first = reader.state().size();
        for entry in remote.entries(first, checkpoint.size - first).await? {
            seen(reader.state(), &entry);
            reader.push(&entry)?;
        }
    }
    Ok(reader.finish(checkpoint)?)
}

/// The moment at which a verified log is judged: now, but never before its last entry. The keeper's clock may be ahead.
pub fn moment_of(now: UnixTime, state: &State) -> UnixTime {
    now.max(state.time())
}

/// Reads one entry. It was folded, so this does not fail on a verified log.
pub fn entry<B: AsRef<[u8]>>(index: u64, bytes: B) -> Result<ExactEntry<B>, LogFault> {
    ExactEntry::parse(bytes).map_err(|error| LogFault::Entry { index, error })
}

impl LogFault {
    /// Where nothing is wrong with the log, and this program can't read it: the version that can.
    pub fn newer_program(&self) -> Option<&Version> {
        match self {
            Self::Fold { error: FoldError::Upgrade(UpgradeError::ProgramTooOld { version, .. }), .. } => Some(version),
            Self::Fold { .. }
            | Self::OtherVault { .. }
            | Self::Entry { .. }
            | Self::RecoveryRoot { .. }
            | Self::SizeMismatch { .. }
            | Self::RootMismatch
            | Self::Shortened { .. }
            | Self::Forked { .. } => None,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherVault { .. } => "log-other-vault",
            Self::Entry { error, .. } => error.code(),
            Self::Fold { error, .. } => error.code(),
            Self::RecoveryRoot { .. } => "log-recovery-root",
            Self::SizeMismatch { .. } => "log-size-mismatch",
            Self::RootMismatch => "log-root-mismatch",
            Self::Shortened { .. } => "log-shortened",
            Self::Forked { .. } => "log-forked",
        }
    }
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherVault { found } => write!(f, "entry 0 is the genesis of another vault, {found}"),
            Self::Entry { index, error } => write!(f, "entry {index}: {error}"),
            Self::Fold { index, error } => write!(f, "entry {index}: {error}"),
            Self::RecoveryRoot { index } => {
                write!(f, "entry {index}: its approvers were shown another log than the one that it follows")
            }
            Self::SizeMismatch { checkpoint, entries } => {
                write!(f, "the checkpoint covers {checkpoint} entries, and {entries} were given")
            }
            Self::RootMismatch => f.write_str("the entries have another root than the signed checkpoint"),
            Self::Shortened { earlier, now } => {
                write!(f, "the older checkpoint has {earlier} entries, and this log only {now}: it was cut")
            }
            Self::Forked { earlier } => {
                write!(f, "the first {earlier} entries are not those of the older checkpoint: history was rewritten")
            }
        }
    }
}

impl std::error::Error for LogFault {}

impl From<LogFault> for Failure {
    fn from(fault: LogFault) -> Self {
        if let Some(version) = fault.newer_program() {
            let next = format!("use `vaultctl` of version {version}, or a newer one");
            return Failure::new(Kind::Usage, fault.code(), "this program is too old to read the log")
                .why(&fault)
                .next(next);
        }
        Failure::new(Kind::NotVerified, fault.code(), "the log does not verify")
            .why(fault)
            .next("believe nothing that this host shows; keep its answers and ask another host with --host")
    }
}
