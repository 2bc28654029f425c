//! The tree of RFC 9162 and its proofs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::merkle::{Hash, MerkleError, Tree, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion};
use proptest::prelude::*;
use serde_json::Value;

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn tree(count: u64) -> Tree {
    let mut tree = Tree::new();
    leaves(count).into_iter().for_each(|leaf| tree.push(leaf));
    tree
}

/// MTH of RFC 9162, section 2.1.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let k = naive_split(leaves.len());
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

/// PATH of RFC 9162, section 2.1.3.1, word for word.
fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = naive_split(leaves.len());
    let (mut path, sibling) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 9162, section 2.1.4.1, word for word.
fn naive_subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = naive_split(leaves.len());
    let (mut path, sibling) = if m <= k {
        (naive_subproof(m, &leaves[..k], whole), naive_root(&leaves[k..]))
    } else {
        (naive_subproof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

fn naive_split(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

fn hash(value: &Value) -> Option<Hash> {
    BASE64_STANDARD.decode(value.as_str()?).unwrap().try_into().ok()
}

fn proof(value: &Value) -> Option<Vec<Hash>> {
    value.as_array().map_or(Some(Vec::new()), |list| list.iter().map(hash).collect())
}

#[test]
fn inclusion_agrees_with_the_public_cases() {
    let Some(cases) = vectors::json("crypto/merkle/inclusion.json") else { return };
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 75);
    for case in cases {
        // A hash of another length cannot be written in our types: refused before.
        let verified = hash(&case["leafHash"]).zip(hash(&case["root"])).zip(proof(&case["proof"])).is_some_and(
            |((leaf, root), proof)| {
                let number = |field: &str| case[field].as_u64().unwrap();
                verify_inclusion(&leaf, number("leafIdx"), number("treeSize"), &proof, &root).is_ok()
            },
        );
        assert_eq!(verified, !case["wantErr"].as_bool().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn consistency_agrees_with_the_public_cases() {
    let Some(cases) = vectors::json("crypto/merkle/consistency.json") else { return };
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 68);
    for case in cases {
        let verified = hash(&case["root1"]).zip(hash(&case["root2"])).zip(proof(&case["proof"])).is_some_and(
            |((old, new), proof)| {
                let number = |field: &str| case[field].as_u64().unwrap();
                verify_consistency(number("size1"), number("size2"), &proof, &old, &new).is_ok()
            },
        );
        assert_eq!(verified, !case["wantErr"].as_bool().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn roots_and_proofs_are_those_of_the_definition_at_every_size() {
    let (tree, leaves) = (tree(67), leaves(67));
    for size in 0..=67u64 {
        let root = tree.root(size).unwrap();
        assert_eq!(root, naive_root(&leaves[..size as usize]));
        for index in 0..size {
            let path = tree.inclusion(index, size).unwrap();
            assert_eq!(path, naive_path(index as usize, &leaves[..size as usize]));
            assert_eq!(verify_inclusion(&leaves[index as usize], index, size, &path, &root), Ok(()));
        }
        for first in 1..=size {
            let path = tree.consistency(first, size).unwrap();
            assert_eq!(path, naive_subproof(first as usize, &leaves[..size as usize], true));
            assert_eq!(verify_consistency(first, size, &path, &tree.root(first).unwrap(), &root), Ok(()));
        }
    }
}

#[test]
fn a_tree_does_not_answer_for_what_it_does_not_have() {
    let tree = tree(5);
    assert_eq!(tree.root(6), Err(MerkleError::SizePastEnd { size: 6, len: 5 }));
    assert_eq!(tree.inclusion(0, 6), Err(MerkleError::SizePastEnd { size: 6, len: 5 }));
    assert_eq!(tree.inclusion(5, 5), Err(MerkleError::IndexPastSize { index: 5, size: 5 }));
    assert_eq!(tree.inclusion(0, 0), Err(MerkleError::IndexPastSize { index: 0, size: 0 }));
    assert_eq!(tree.consistency(3, 6), Err(MerkleError::SizePastEnd { size: 6, len: 5 }));
    assert_eq!(tree.consistency(4, 3), Err(MerkleError::SizesReversed { first: 4, second: 3 }));
    assert_eq!(tree.consistency(0, 3), Err(MerkleError::EmptyTree));
    assert_eq!(tree.consistency(0, 0), Ok(vec![]));
    assert_eq!((tree.node(2, 0).is_some(), tree.node(2, 1), tree.node(9, 0)), (true, None, None));
}

#[test]
fn each_wrong_input_of_an_inclusion_is_refused() {
    let (tree, leaf) = (tree(7), leaf_hash(&3u64.to_be_bytes()));
    let (path, root) = (tree.inclusion(3, 7).unwrap(), tree.root(7).unwrap());
    assert_eq!(verify_inclusion(&leaf, 3, 7, &path, &root), Ok(()));
    assert_eq!(verify_inclusion(&leaf, 7, 7, &path, &root), Err(MerkleError::IndexPastSize { index: 7, size: 7 }));
    assert_eq!(verify_inclusion(&leaf, 2, 7, &path, &root), Err(MerkleError::RootMismatch));
    assert_eq!(verify_inclusion(&leaf, 3, 17, &path, &root), Err(MerkleError::ProofLength));
    assert_eq!(verify_inclusion(&leaf, 3, 4, &path, &root), Err(MerkleError::ProofLength));
    assert_eq!(verify_inclusion(&leaf, 3, 7, &path[1..], &root), Err(MerkleError::ProofLength));
    assert_eq!(verify_inclusion(&leaf_hash(b"x"), 3, 7, &path, &root), Err(MerkleError::RootMismatch));
    assert_eq!(verify_inclusion(&leaf, 3, 7, &path, &leaf), Err(MerkleError::RootMismatch));
    assert_eq!(verify_inclusion(&leaf, u64::MAX - 1, u64::MAX, &path, &root), Err(MerkleError::ProofLength));
}

#[test]
fn each_wrong_input_of_a_consistency_is_refused() {
    let tree = tree(7);
    let (path, old, new) = (tree.consistency(3, 7).unwrap(), tree.root(3).unwrap(), tree.root(7).unwrap());
    assert_eq!(verify_consistency(3, 7, &path, &old, &new), Ok(()));
    let reversed = MerkleError::SizesReversed { first: 7, second: 3 };
    assert_eq!(verify_consistency(7, 3, &path, &new, &old), Err(reversed));
    assert_eq!(verify_consistency(0, 7, &[], &empty_root(), &new), Err(MerkleError::EmptyTree));
    assert_eq!(verify_consistency(3, 7, &[], &old, &new), Err(MerkleError::ProofLength));
    assert_eq!(verify_consistency(3, 7, &path[..2], &old, &new), Err(MerkleError::ProofLength));
    assert_eq!(verify_consistency(3, 7, &path, &new, &new), Err(MerkleError::RootMismatch));
    assert_eq!(verify_consistency(3, 7, &path, &old, &old), Err(MerkleError::RootMismatch));
    assert_eq!(verify_consistency(7, 7, &[], &new, &new), Ok(()));
    assert_eq!(verify_consistency(7, 7, &[], &old, &new), Err(MerkleError::RootMismatch));
    assert_eq!(verify_consistency(7, 7, &[new], &new, &new), Err(MerkleError::ProofLength));
    assert_eq!(verify_consistency(0, 0, &[], &empty_root(), &empty_root()), Ok(()));
    assert_eq!(verify_consistency(0, 0, &[], &new, &new), Err(MerkleError::RootMismatch));
}

#[test]
fn a_million_leaves_are_nothing_special() {
    let tree = tree(1_000_000);
    let root = tree.root(1_000_000).unwrap();
    let path = tree.inclusion(654_321, 1_000_000).unwrap();
    assert_eq!(path.len(), 20);
    let leaf = leaf_hash(&654_321u64.to_be_bytes());
    assert_eq!(verify_inclusion(&leaf, 654_321, 1_000_000, &path, &root), Ok(()));
    let old = tree.root(999_999).unwrap();
    let path = tree.consistency(999_999, 1_000_000).unwrap();
    assert_eq!(verify_consistency(999_999, 1_000_000, &path, &old, &root), Ok(()));
}

proptest! {
    #[test]
    fn one_changed_bit_breaks_an_inclusion(size in 1u64..300, index: u64, at: usize, bit in 0u8..8) {
        let (tree, index) = (tree(size), index % size);
        let (root, path) = (tree.root(size).unwrap(), tree.inclusion(index, size).unwrap());
        let mut bytes = path.concat();
        prop_assume!(!bytes.is_empty());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let path: Vec<Hash> = bytes.chunks(32).map(|hash| hash.try_into().unwrap()).collect();
        let leaf = leaf_hash(&index.to_be_bytes());
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &path, &root), Err(MerkleError::RootMismatch));
    }

    #[test]
    fn any_numbers_are_verified_or_refused(a: u64, b: u64, hashes in prop::collection::vec(any::<Hash>(), 0..70)) {
        prop_assert!(verify_inclusion(&[0; 32], a, b, &hashes, &[1; 32]).is_err());
        prop_assert!(verify_consistency(a, b, &hashes, &[0; 32], &[1; 32]).is_err());
    }
}

/// A tree that forgets at every bundle has the roots and proofs of one that does not.
#[test]
fn what_is_forgotten_changes_no_root_and_no_proof() {
    let (mut whole, mut short) = (Tree::new(), Tree::new());
    for leaf in leaves(1100) {
        whole.push(leaf);
        short.push(leaf);
        let size = whole.len();
        if size % 97 == 0 || size.is_multiple_of(256) {
            // Proofs about what came since the last bundle, before it is forgotten and after.
            for _ in 0..2 {
                assert_eq!(short.root(size), whole.root(size));
                let from = size / 256 * 256;
                for index in [from, size - 1].into_iter().filter(|index| *index >= from) {
                    assert_eq!(short.inclusion(index, size), whole.inclusion(index, size));
                }
                if from > 0 {
                    assert_eq!(short.consistency(from, size), whole.consistency(from, size));
                }
                short.forget();
            }
        }
    }
}

#[test]
fn a_bundle_is_recalled_by_its_own_leaves_alone() {
    let (leaves, whole) = (leaves(1100), tree(1100));
    let mut short = tree(1100);
    short.forget();
    assert_eq!(short.inclusion(300, 1100), Err(MerkleError::Forgotten { bundle: 1 }));
    assert_eq!(short.consistency(300, 1100), Err(MerkleError::Forgotten { bundle: 1 }));
    assert_eq!(short.root(300), Err(MerkleError::Forgotten { bundle: 1 }));
    assert_eq!(short.recall(1, &leaves[..256]), Err(MerkleError::OtherBundle));
    assert_eq!(short.recall(1, &leaves[256..511]), Err(MerkleError::OtherBundle));
    assert_eq!(short.recall(4, &leaves[1024..]), Err(MerkleError::OtherBundle));
    let mut changed = leaves[256..512].to_vec();
    changed[44][0] ^= 1;
    assert_eq!(short.recall(1, &changed), Err(MerkleError::OtherBundle));
    short.recall(1, &leaves[256..512]).unwrap();
    for index in [256, 300, 511, 1099] {
        assert_eq!(short.inclusion(index, 1100), whole.inclusion(index, 1100));
    }
    assert_eq!(short.consistency(300, 1100), whole.consistency(300, 1100));
    assert_eq!(short.root(300), whole.root(300));
    // One at a time.
    short.recall(0, &leaves[..256]).unwrap();
    assert_eq!(short.inclusion(300, 1100), Err(MerkleError::Forgotten { bundle: 1 }));
}

#[test]
fn a_tree_of_its_parts_goes_on_as_the_tree_would() {
    for size in [0, 1, 255, 256, 257, 1024, 1100] {
        let mut whole = tree(size);
        let (bundles, behind) = whole.parts();
        assert_eq!((bundles.len() as u64, behind.len() as u64), (size / 256, size % 256));
        let mut short = Tree::from_parts(bundles, behind);
        assert_eq!((short.len(), short.root(size)), (size, whole.root(size)));
        for leaf in leaves(600) {
            whole.push(leaf);
            short.push(leaf);
        }
        assert_eq!(short.root(size + 600), whole.root(size + 600));
        assert_eq!(short.parts(), whole.parts());
    }
}
