//! Verification without the tree. Every step is one of the RFC's.

use super::{Hash, MerkleError, empty_root, node_hash};

/// Checks that the entry with this leaf hash is at `index` of the log of `size` entries with this root (RFC 9162, section
/// 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), MerkleError> {
    if index >= size {
        return Err(MerkleError::IndexPastSize { index, size });
    }
    let mut path = Path { node: index, last: size - 1 };
    let mut hash = *leaf;
    for sibling in proof {
        match path.step()? {
            Side::Left => hash = node_hash(sibling, &hash),
            Side::Right => hash = node_hash(&hash, sibling),
        }
    }
    path.check_at_root()?;
    if hash != *root {
        return Err(MerkleError::RootMismatch);
    }
    Ok(())
}

/// Checks that the log of `second` entries and root `new` continues the one of `first` entries and root `old` (RFC 9162,
/// section 2.1.4.2). An empty log is consistent only with itself, and only by its own root.
pub fn verify_consistency(first: u64, second: u64, proof: &[Hash], old: &Hash, new: &Hash) -> Result<(), MerkleError> {
    if first > second {
        return Err(MerkleError::SizesReversed { first, second });
    }
    if first == second {
        return verify_same(first, proof, old, new);
    }
    if first == 0 {
        return Err(MerkleError::EmptyTree);
    }
    // The older tree's last whole subtree. Where that is the whole of it, the proof leaves it out.
    let level = first.trailing_zeros();
    let (start, rest) = match proof {
        _ if first.is_power_of_two() => (old, proof),
        [start, rest @ ..] => (start, rest),
        [] => return Err(MerkleError::ProofLength),
    };
    let mut path = Path { node: (first - 1) >> level, last: (second - 1) >> level };
    let (mut old_hash, mut new_hash) = (*start, *start);
    for sibling in rest {
        match path.step()? {
            Side::Left => {
                old_hash = node_hash(sibling, &old_hash);
                new_hash = node_hash(sibling, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, sibling),
        }
    }
    path.check_at_root()?;
    if old_hash != *old || new_hash != *new {
        return Err(MerkleError::RootMismatch);
    }
    Ok(())
}

fn verify_same(size: u64, proof: &[Hash], old: &Hash, new: &Hash) -> Result<(), MerkleError> {
    if !proof.is_empty() {
        return Err(MerkleError::ProofLength);
    }
    if old != new || (size == 0 && *new != empty_root()) {
        return Err(MerkleError::RootMismatch);
    }
    Ok(())
}

/// On which side of the path a sibling lies.
enum Side {
    Left,
    Right,
}

/// A way up the tree: the RFC's `fn` and `sn`, the node and the last node of its level.
struct Path {
    node: u64,
    last: u64,
}

impl Path {
    /// Goes up to the next level where the node has a sibling, then above it.
    fn step(&mut self) -> Result<Side, MerkleError> {
        if self.last == 0 {
            return Err(MerkleError::ProofLength);
        }
        let side = if self.node & 1 == 1 {
            Side::Left
        } else if self.node == self.last {
            // The last node of a level has no right sibling: it rises until it is a right child.
            let levels = self.node.trailing_zeros();
            self.node >>= levels;
            self.last >>= levels;
            Side::Left
        } else {
            Side::Right
        };
        self.node >>= 1;
        self.last >>= 1;
        Ok(side)
    }

    fn check_at_root(&self) -> Result<(), MerkleError> {
        if self.last != 0 {
            return Err(MerkleError::ProofLength);
        }
        Ok(())
    }
}
