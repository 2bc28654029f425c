//! The Merkle tree of the log: RFC 9162, section 2.1, with SHA-256.
//!
//! [`Tree`] holds the tree of a log and makes roots and proofs for any of its earlier sizes; [`verify_inclusion`] and
//! [`verify_consistency`] need nothing but the proof.
//!
//! ```
//! use ledger::merkle::{Tree, leaf_hash, verify_consistency, verify_inclusion};
//! let mut tree = Tree::new();
//! for entry in ["a", "b", "c"] {
//!     tree.push(leaf_hash(entry.as_bytes()));
//! }
//! let (old, root) = (tree.root(2).unwrap(), tree.root(3).unwrap());
//! verify_inclusion(&leaf_hash(b"b"), 1, 3, &tree.inclusion(1, 3).unwrap(), &root).unwrap();
//! verify_consistency(2, 3, &tree.consistency(2, 3).unwrap(), &old, &root).unwrap();
//! ```
//!
//! A tree of a long log need not hold every leaf: [`Tree::forget`] leaves one hash of 256 leaves, a bundle, and
//! [`Tree::recall`] takes the leaves of one of them again, from anybody, since that hash says which they are.

mod pruned;
mod verify;

use std::fmt;

use ring::digest::{Context, SHA256};

pub use pruned::BUNDLE_LEAVES;
use pruned::{Level, Recalled};
pub use verify::{verify_consistency, verify_inclusion};

/// Hash of a leaf or a node.
pub type Hash = [u8; 32];

/// Why there is no proof or root, or why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MerkleError {
    /// The tree is smaller than the size asked for.
    SizePastEnd {
        /// The size asked for.
        size: u64,
        /// Leaves of the tree.
        len: u64,
    },
    /// A leaf at or past the end of a tree of this size.
    IndexPastSize {
        /// The leaf.
        index: u64,
        /// The size.
        size: u64,
    },
    /// The older tree is larger than the newer one.
    SizesReversed {
        /// Size of the older tree.
        first: u64,
        /// Size of the newer one.
        second: u64,
    },
    /// Consistency with an empty tree says nothing.
    EmptyTree,
    /// The leaves of this bundle were forgotten: [`Tree::recall`] takes them again.
    Forgotten {
        /// The bundle: 256 leaves each, from 0.
        bundle: u64,
    },
    /// The leaves that were given are not those of the bundle.
    OtherBundle,
    /// The proof has more or fewer hashes than these sizes need.
    ProofLength,
    /// The proof leads to another root.
    RootMismatch,
}

/// An append-only tree in memory: about 64 bytes a leaf, and a quarter of a byte for one that was forgotten.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Node `i` of level `k` is the root of leaves `i << k .. (i + 1) << k`, where all of them are there.
    levels: Vec<Level>,
    /// The one bundle of those that were forgotten whose leaves were given again.
    recalled: Option<Recalled>,
}

impl Tree {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, Level::end)
    }

    /// Whether there is no leaf.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a leaf. At most one hash a level, and one on average.
    pub fn push(&mut self, leaf: Hash) {
        self.push_at(0, leaf);
    }

    fn push_at(&mut self, lowest: usize, node: Hash) {
        let mut hash = node;
        for level in lowest.. {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            match self.levels[level].push(hash) {
                Some((left, right)) => hash = node_hash(left, right),
                None => return,
            }
        }
    }

    /// Root of the first `size` leaves.
    pub fn root(&self, size: u64) -> Result<Hash, MerkleError> {
        self.check_size(size)?;
        if size == 0 { Ok(empty_root()) } else { self.range(0, size) }
    }

    /// Proof that leaf `index` is in the tree of `size` leaves (RFC 9162, section 2.1.3.1): from its sibling upwards.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, MerkleError> {
        self.check_size(size)?;
        if index >= size {
            return Err(MerkleError::IndexPastSize { index, size });
        }
        let (mut start, mut end) = (0, size);
        let mut path = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// Proof that the tree of `second` leaves continues the tree of `first` leaves (RFC 9162, section 2.1.4.1).
    pub fn consistency(&self, first: u64, second: u64) -> Result<Vec<Hash>, MerkleError> {
        self.check_size(second)?;
        if first > second {
            return Err(MerkleError::SizesReversed { first, second });
        }
        if first == 0 && second != 0 {
            return Err(MerkleError::EmptyTree);
        }
        let (mut start, mut end) = (0, second);
        let mut path = Vec::new();
        // The older tree ends somewhere in start..end; go down to where it ends exactly.
        while first != end {
            let middle = start + split(end - start);
            if first <= middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        // Where that is the older tree's root, the verifier knows it.
        if start != 0 {
            path.push(self.range(start, end)?);
        }
        path.reverse();
        Ok(path)
    }

    /// The node over the leaves `index << level .. (index + 1) << level`, where all of them are there and it was not
    /// forgotten.
    pub fn node(&self, level: u32, index: u64) -> Option<&Hash> {
        let kept = self.levels.get(level as usize).and_then(|nodes| nodes.get(index));
        kept.or_else(|| self.recalled.as_ref()?.node(level, index))
    }

    fn check_size(&self, size: u64) -> Result<(), MerkleError> {
        if size > self.len() {
            return Err(MerkleError::SizePastEnd { size, len: self.len() });
        }
        Ok(())
    }

    /// Root of leaves `start..end`, which are there and are a subtree of RFC 9162: `start` is a multiple of the next power
    /// of two of their number.
    fn range(&self, start: u64, end: u64) -> Result<Hash, MerkleError> {
        let count = end - start;
        if count.is_power_of_two() {
            let level = count.trailing_zeros();
            let node = self.node(level, start >> level).copied();
            return node.ok_or(MerkleError::Forgotten { bundle: start / BUNDLE_LEAVES });
        }
        let middle = start + split(count);
        Ok(node_hash(&self.range(start, middle)?, &self.range(middle, end)?))
    }
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Hash of an entry: SHA-256(`00` ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[0x00], entry])
}

/// Hash of two nodes: SHA-256(`01` ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[0x01], left, right])
}

/// Root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    hash(&[])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl MerkleError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            MerkleError::SizePastEnd { .. } => "merkle-size-past-end",
            MerkleError::IndexPastSize { .. } => "merkle-index-past-size",
            MerkleError::SizesReversed { .. } => "merkle-sizes-reversed",
            MerkleError::EmptyTree => "merkle-empty-tree",
            MerkleError::Forgotten { .. } => "merkle-forgotten",
            MerkleError::OtherBundle => "merkle-other-bundle",
            MerkleError::ProofLength => "merkle-proof-length",
            MerkleError::RootMismatch => "merkle-root-mismatch",
        }
    }
}

impl fmt::Display for MerkleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MerkleError::SizePastEnd { size, len } => write!(f, "size {size} of a log of {len} entries"),
            MerkleError::IndexPastSize { index, size } => write!(f, "entry {index} is not in a log of {size} entries"),
            MerkleError::SizesReversed { first, second } => {
                write!(f, "a log of {first} entries cannot become {second}")
            }
            MerkleError::EmptyTree => f.write_str("nothing can be proved about an empty log"),
            MerkleError::Forgotten { bundle } => write!(f, "the hashes of bundle {bundle} are not in memory"),
            MerkleError::OtherBundle => f.write_str("the entries are not those of the bundle"),
            MerkleError::ProofLength => f.write_str("the proof has the wrong number of hashes"),
            MerkleError::RootMismatch => f.write_str("the proof leads to another root"),
        }
    }
}

impl std::error::Error for MerkleError {}
