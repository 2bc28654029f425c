//! Why a snapshot is of no use, or was not written.

use std::fmt;

use crate::container::OpenError;
use crate::keeper_dir::KeeperDirError;

/// Why a snapshot is of no use, or was not written.
#[derive(Debug)]
pub(in crate::keeper) enum SnapshotError {
    /// The disk.
    Dir(KeeperDirError),
    /// The file is none.
    NoSnapshot,
    /// It is of a fold that means something else: another version of the program wrote it.
    OtherFold {
        /// Which.
        found: String,
    },
    /// It does not open under this keeper's key as what it says it is: damaged, cut, or another keeper's.
    Damaged,
    /// It opens, and holds no state.
    Content(ledger::snapshot::SnapshotError),
    /// It holds the state of something else than it says.
    OtherContent,
    /// It is of another genesis than this keeper's.
    OtherVault,
    /// It could not be sealed.
    Seal(OpenError),
    /// A state that needs a longer one than is read.
    TooLong {
        /// Its bytes.
        bytes: u64,
    },
    /// This keeper wrote it of a longer log than its head has.
    AheadOfHead {
        /// Its entries.
        snapshot: u64,
        /// Those of the head.
        head: u64,
    },
    /// This keeper wrote it of another log than that of its head.
    Fork,
}

impl SnapshotError {
    /// Whether it shows that the head, or the host's log, was put back to an older one, or that two copies of the keeper ran.
    pub(in crate::keeper) const fn shows_rollback(&self) -> bool {
        match self {
            Self::AheadOfHead { .. } | Self::Fork => true,
            Self::Dir(_)
            | Self::NoSnapshot
            | Self::OtherFold { .. }
            | Self::Damaged
            | Self::Seal(_)
            | Self::Content(_)
            | Self::OtherContent
            | Self::OtherVault
            | Self::TooLong { .. } => false,
        }
    }

    /// Stable name.
    pub(in crate::keeper) fn code(&self) -> &'static str {
        match self {
            Self::Dir(error) => error.code(),
            Self::NoSnapshot => "snapshot-none",
            Self::OtherFold { .. } => "snapshot-other-fold",
            Self::Damaged => "snapshot-damaged",
            Self::Seal(error) => error.code(),
            Self::Content(error) => error.code(),
            Self::OtherContent => "snapshot-other-content",
            Self::OtherVault => "snapshot-other-vault",
            Self::TooLong { .. } => "snapshot-too-long",
            Self::AheadOfHead { .. } => "snapshot-ahead-of-head",
            Self::Fork => "snapshot-of-fork",
        }
    }
}

/// What a person does about a snapshot that the head does not continue.
const PUT_BACK: &str = "its state or the host's log was put back to an older copy, or two copies of the keeper ran. Restore the \
     newest of both; if it was put back on purpose, remove the file `snapshot` from the keeper's directory";

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(error) => error.fmt(f),
            Self::NoSnapshot => f.write_str("the file `snapshot` is none"),
            Self::OtherFold { found } => write!(f, "another version of the program wrote it: {found:?}"),
            Self::Damaged => f.write_str("it is damaged, or another keeper's"),
            Self::Seal(error) => error.fmt(f),
            Self::Content(error) => error.fmt(f),
            Self::OtherContent => f.write_str("it holds something else than it says"),
            Self::OtherVault => f.write_str("it is of another vault"),
            Self::TooLong { bytes } => write!(f, "it would have {bytes} bytes, more than are read"),
            Self::AheadOfHead { snapshot, head } => {
                write!(f, "the keeper has a snapshot of {snapshot} entries, and a head of {head}: {PUT_BACK}")
            }
            Self::Fork => write!(f, "the keeper's snapshot is of another log than its head: {PUT_BACK}"),
        }
    }
}

impl std::error::Error for SnapshotError {}
