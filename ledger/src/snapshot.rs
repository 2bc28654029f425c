//! A fold that was done before, in bytes: the state, and the tree of the log that it is the fold of.
//!
//! It saves a keeper the reading of a long log at its start, and says nothing that the log does not say. It carries no
//! proof of its own: whoever reads it must have written it. Whether it is of *this* log shows when the entries behind it
//! are added, in [`LogReader::resume`](crate::release_log::LogReader::resume): the root of the head comes out only if the
//! tree in it is that of the first entries.
//!
//! ```
//! use ledger::merkle::Tree;
//! use ledger::snapshot::{self, Folded};
//! use ledger::state::State;
//! let bytes = snapshot::encode(&State::new(), &Tree::new())?;
//! let Folded { state, tree } = snapshot::decode(&bytes)?;
//! assert_eq!((state.size(), tree.len()), (0, 0));
//! # Ok::<(), snapshot::SnapshotError>(())
//! ```

use std::fmt;

use crate::merkle::Tree;
use crate::state::State;
use crate::state::stored::{Reader, Stored, Writer};

/// Stands for what the fold means, and for the form of a snapshot: a snapshot under another text is of no use. The
/// number in it is [`FOLD_NUMBER`]; each version of the program folds anew in any case.
pub const FOLD: &str = concat!(env!("CARGO_PKG_VERSION"), " fold 4");

/// Counts up with every change of what an entry does to the state, or of what the state holds, and so with every type of
/// entry that is added. A log says which one its readers must know ([`Upgrade`](crate::entry::Upgrade)).
pub const FOLD_NUMBER: u32 = 4;

/// What a snapshot holds.
#[derive(Debug)]
pub struct Folded {
    /// The fold of as many entries as the tree has.
    pub state: State,
    /// Their tree; the leaves of whole bundles are forgotten.
    pub tree: Tree,
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotError {
    /// They end too early.
    Cut,
    /// Something follows.
    Trailing {
        /// How much.
        bytes: usize,
    },
    /// A part is not what it should be.
    Malformed {
        /// Which.
        what: &'static str,
    },
    /// State and tree are not of the same number of entries.
    Sizes {
        /// Entries of the state.
        state: u64,
        /// Leaves of the tree.
        tree: u64,
    },
}

/// State and tree in bytes: the tree's bundles and leaves, then the state.
///
/// # Errors
/// [`SnapshotError::Sizes`] where the tree is of another number of entries.
pub fn encode(state: &State, tree: &Tree) -> Result<Vec<u8>, SnapshotError> {
    same_size(state, tree)?;
    let (bundles, leaves) = tree.parts();
    let mut to = Writer::default();
    for hashes in [bundles, leaves] {
        hashes.len().store(&mut to);
        hashes.iter().for_each(|hash| to.put(hash));
    }
    state.store(&mut to);
    Ok(to.into_bytes())
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`SnapshotError`]. Bytes that another wrote may give a state that no log has.
pub fn decode(bytes: &[u8]) -> Result<Folded, SnapshotError> {
    let mut from = Reader::new(bytes);
    let (bundles, leaves) = (Vec::restore(&mut from)?, Vec::restore(&mut from)?);
    let state = State::restore(&mut from)?;
    from.finish()?;
    let tree = Tree::from_parts(&bundles, &leaves);
    same_size(&state, &tree)?;
    Ok(Folded { state, tree })
}

fn same_size(state: &State, tree: &Tree) -> Result<(), SnapshotError> {
    match (state.size(), tree.len()) {
        (state, tree) if state == tree => Ok(()),
        (state, tree) => Err(SnapshotError::Sizes { state, tree }),
    }
}

impl SnapshotError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cut => "snapshot-cut",
            Self::Trailing { .. } => "snapshot-trailing",
            Self::Malformed { .. } => "snapshot-malformed",
            Self::Sizes { .. } => "snapshot-sizes",
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the snapshot ends too early"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the snapshot"),
            Self::Malformed { what } => write!(f, "the snapshot has something else in the place of a {what}"),
            Self::Sizes { state, tree } => write!(f, "a state of {state} entries, and a tree of {tree}"),
        }
    }
}

impl std::error::Error for SnapshotError {}
