//! What a tree keeps of leaves that lie far behind: the root of each bundle of 256.

use super::{Hash, MerkleError, Tree};

/// Leaves of a bundle: those of one file of entries (C2SP tlog-tiles).
pub const BUNDLE_LEAVES: u64 = 1 << BUNDLE_LEVEL;
const BUNDLE_LEVEL: usize = 8;

/// The nodes of one level from `first` on.
#[derive(Debug, Clone, Default)]
pub(super) struct Level {
    first: u64,
    nodes: Vec<Hash>,
}

impl Level {
    /// Index of the next node.
    pub(super) fn end(&self) -> u64 {
        self.first + self.nodes.len() as u64
    }

    /// Appends a node; the pair that it completes, if it does.
    pub(super) fn push(&mut self, node: Hash) -> Option<(&Hash, &Hash)> {
        self.nodes.push(node);
        match self.nodes.as_slice() {
            [.., left, right] if self.end().is_multiple_of(2) => Some((left, right)),
            _ => None,
        }
    }

    pub(super) fn get(&self, index: u64) -> Option<&Hash> {
        self.nodes.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Drops the nodes before `index`, which is not behind the end.
    fn drop_before(&mut self, index: u64) {
        let count = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.nodes.drain(..count.min(self.nodes.len()));
        self.first = self.first.max(index);
    }
}

/// The tree of one bundle.
#[derive(Debug, Clone)]
pub(super) struct Recalled {
    bundle: u64,
    tree: Box<Tree>,
}

impl Recalled {
    pub(super) fn node(&self, level: u32, index: u64) -> Option<&Hash> {
        let start = (self.bundle << BUNDLE_LEVEL).checked_shr(level)?;
        self.tree.node(level, index.checked_sub(start)?)
    }
}

impl Tree {
    /// Drops all that lies below the roots of the whole bundles so far. Roots and proofs of this tree's own size need none
    /// of it, but for the inclusion of a leaf in one of them.
    pub fn forget(&mut self) {
        let whole = self.len() >> BUNDLE_LEVEL;
        for (level, nodes) in self.levels.iter_mut().take(BUNDLE_LEVEL).enumerate() {
            nodes.drop_before(whole << (BUNDLE_LEVEL - level));
        }
        self.recalled = None;
    }

    /// Takes the leaves of a bundle again, which its root vouches for. The one that was recalled before is forgotten.
    ///
    /// # Errors
    /// [`MerkleError::OtherBundle`] where they are others, or the bundle is not whole.
    pub fn recall(&mut self, bundle: u64, leaves: &[Hash]) -> Result<(), MerkleError> {
        let mut tree = Tree::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        let (level, kept) = (BUNDLE_LEVEL as u32, self.levels.get(BUNDLE_LEVEL).and_then(|roots| roots.get(bundle)));
        if tree.len() != BUNDLE_LEAVES || kept.is_none() || tree.node(level, 0) != kept {
            return Err(MerkleError::OtherBundle);
        }
        self.recalled = Some(Recalled { bundle, tree: Box::new(tree) });
        Ok(())
    }

    /// The roots of the whole bundles, and the leaves behind them: all that [`Tree::from_parts`] needs.
    #[must_use]
    pub fn parts(&self) -> (&[Hash], &[Hash]) {
        let roots = self.levels.get(BUNDLE_LEVEL).map_or(&[][..], |level| level.nodes.as_slice());
        let behind = |leaves: &Level| usize::try_from(leaves.end() % BUNDLE_LEAVES).unwrap_or(0);
        // The leaves behind the last whole bundle are never forgotten.
        let leaves = self.levels.first().map_or(&[][..], |leaves| &leaves.nodes[leaves.nodes.len() - behind(leaves)..]);
        (roots, leaves)
    }

    /// The tree of which only these are known.
    #[must_use]
    pub fn from_parts(bundles: &[Hash], leaves: &[Hash]) -> Self {
        let count = bundles.len() as u64;
        let mut tree = Self::new();
        for level in 0..BUNDLE_LEVEL {
            tree.levels.push(Level { first: count << (BUNDLE_LEVEL - level), nodes: Vec::new() });
        }
        bundles.iter().for_each(|bundle| tree.push_at(BUNDLE_LEVEL, *bundle));
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree
    }
}
