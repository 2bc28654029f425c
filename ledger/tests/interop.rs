//! Another implementation of the log's formats, Cloudflare's `tlog_tiles` and `signed_note`, reads what we write, and we
//! what it writes. It descends from Go's checksum database: its tiles have their height in their path, and it keeps
//! hashes in another order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use attestation::{LogKey, Sha256Digest, UnixTime};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::cosignature::WitnessKey;
use ledger::merkle::{Hash, Tree, leaf_hash, verify_consistency, verify_inclusion};
use ledger::note::VerifierKey;
use ledger::tiles::{Tile, TileKind, changed_tiles};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use signed_note::{
    Note, NoteError, Signer, StandardSigner, StandardVerifier, VerificationError, Verifier, VerifierList,
};
use tlog_tiles as peer;
use tlog_tiles::{HashReader, TileReader};

/// Height of the tiles of C2SP tlog-tiles.
const HEIGHT: u8 = 8;
/// Around the borders of tiles: one level, its end, two levels.
const SIZES: [u64; 16] = [1, 2, 3, 4, 7, 8, 255, 256, 257, 511, 512, 513, 700, 1023, 1024, 1025];

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn tree(size: u64) -> Tree {
    let mut tree = Tree::new();
    (0..size).for_each(|index| tree.push(leaf_hash(&entry(index))));
    tree
}

fn root(tree: &Tree, size: u64) -> peer::Hash {
    peer::Hash(tree.root(size).unwrap())
}

fn theirs(hashes: Vec<Hash>) -> Vec<peer::Hash> {
    hashes.into_iter().map(peer::Hash).collect()
}

fn ours(hashes: Vec<peer::Hash>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| hash.0).collect()
}

/// The log as the other implementation keeps it.
#[derive(Default)]
struct PeerLog(Vec<peer::Hash>);

impl HashReader for PeerLog {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<peer::Hash>, peer::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

fn peer_log(size: u64) -> PeerLog {
    let mut log = PeerLog::default();
    for index in 0..size {
        let hashes = peer::stored_hashes(index, &entry(index), &log).unwrap();
        log.0.extend(hashes);
    }
    log
}

/// Our name of the other implementation's tile: C2SP has no height in it, and calls data entries.
fn our_path(tile: &peer::Tile) -> String {
    let path = tile.path();
    path.replacen("tile/8/", "tile/", 1).replacen("tile/data/", "tile/entries/", 1)
}

/// The tiles of a log, as files.
struct Files {
    tiles: BTreeMap<String, Vec<u8>>,
    /// What the other implementation says that it has authenticated.
    verified: RefCell<BTreeSet<String>>,
}

impl Files {
    fn of(tree: &Tree, size: u64) -> Self {
        let tiles = changed_tiles(0, size).filter_map(|tile| Some((tile.to_string(), tile.hashes(tree)?)));
        Self { tiles: tiles.collect(), verified: RefCell::default() }
    }

    /// Every hash of the level-0 tiles, read and authenticated by the other implementation.
    fn read_by_peer(&self, size: u64, root: peer::Hash) -> Result<Vec<peer::Hash>, peer::Error> {
        let leaves: Vec<u64> = (0..size).map(|index| peer::stored_hash_index(0, index)).collect();
        peer::TileHashReader::new(size, root, self).read_hashes(&leaves)
    }
}

impl TileReader for Files {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[peer::Tile]) -> Result<Vec<Vec<u8>>, peer::Error> {
        let read = |tile| self.tiles.get(&our_path(tile)).cloned().ok_or(peer::Error::InvalidTile);
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, tiles: &[peer::Tile], _: &[Vec<u8>]) {
        self.verified.borrow_mut().extend(tiles.iter().map(our_path));
    }
}

#[test]
fn our_tiles_are_read_and_authenticated_by_another_implementation() {
    for size in SIZES {
        let tree = tree(size);
        let files = Files::of(&tree, size);
        let leaves = files.read_by_peer(size, root(&tree, size)).unwrap();
        let expected: Vec<_> = (0..size).map(|index| peer::record_hash(&entry(index))).collect();
        assert_eq!(leaves, expected, "{size} entries");
        // It needed every tile: none of ours is beside what it knows.
        let all: BTreeSet<String> = files.tiles.keys().cloned().collect();
        let needed = files.verified.borrow();
        assert!(needed.is_subset(&all) && needed.iter().any(|path| path.starts_with("tile/0/")), "{size} entries");
    }
}

/// Of 1024 entries alone: of a tree with more whole subtrees than tiles above them (700 entries), `tlog_tiles` 0.2.0 counts
/// the former as tiles, and takes the first full tiles below unseen. Our own readers compute the root from every leaf.
#[test]
fn another_implementation_refuses_each_of_our_tiles_with_one_bit_changed() {
    let size = 1024;
    let tree = tree(size);
    let paths: Vec<String> = Files::of(&tree, size).tiles.into_keys().collect();
    assert_eq!(paths.len(), 5);
    for path in paths {
        let mut files = Files::of(&tree, size);
        files.tiles.get_mut(&path).unwrap()[40] ^= 1;
        let refused = files.read_by_peer(size, root(&tree, size));
        assert!(matches!(refused, Err(peer::Error::InconsistentTile)), "{path}");
    }
}

#[test]
fn both_name_the_same_tiles_when_a_log_grows() {
    for old in SIZES {
        for new in SIZES.into_iter().filter(|new| *new > old) {
            let theirs: BTreeSet<String> =
                peer::Tile::new_tiles(HEIGHT, old, new).into_iter().map(|tile| our_path(&tile)).collect();
            let is_hashes = |tile: &Tile| tile.kind() != TileKind::Entries;
            let ours: BTreeSet<String> =
                changed_tiles(old, new).filter(is_hashes).map(|tile| tile.to_string()).collect();
            assert_eq!(ours, theirs, "{old} to {new}");
        }
    }
}

proptest! {
    #[test]
    fn both_write_and_read_the_same_paths(level in 0_u8..8, index in 0_u64..1 << 40, width in 1_u32..=256) {
        let tile = peer::Tile::new(HEIGHT, level, index, width, false);
        let mut data = peer::Tile::new(HEIGHT, 0, index, width, false);
        data.set_is_data();
        for (theirs, kind) in [(tile, TileKind::Hashes(level)), (data, TileKind::Entries)] {
            let path = our_path(&theirs);
            let ours: Tile = path.parse().unwrap();
            prop_assert_eq!((ours.kind(), ours.index(), u32::from(ours.width())), (kind, index, width));
            prop_assert_eq!(ours.to_string(), path);
        }
    }
}

#[test]
fn both_have_the_same_roots_and_hashes() {
    let last = *SIZES.last().unwrap();
    let (tree, log) = (tree(last), peer_log(last));
    for size in 0..=last {
        assert_eq!(peer::tree_hash(size, &log).unwrap(), root(&tree, size), "{size} entries");
    }
}

#[test]
fn inclusion_proofs_are_the_same_and_hold_in_both() {
    let last = *SIZES.last().unwrap();
    let (tree, log) = (tree(last), peer_log(last));
    for size in SIZES {
        for index in (0..size).filter(|index| size < 10 || index % 37 == 0 || index + 1 == size) {
            let proof = tree.inclusion(index, size).unwrap();
            let their_proof = peer::prove_record(size, index, &log).unwrap();
            assert_eq!(ours(their_proof.clone()), proof, "{index} of {size}");

            let leaf = peer::record_hash(&entry(index));
            assert!(peer::check_record(&theirs(proof), size, root(&tree, size), index, leaf).is_ok());
            let root = tree.root(size).unwrap();
            assert_eq!(verify_inclusion(&leaf_hash(&entry(index)), index, size, &ours(their_proof), &root), Ok(()));
        }
    }
}

#[test]
fn consistency_proofs_are_the_same_and_hold_in_both() {
    let last = *SIZES.last().unwrap();
    let (tree, log) = (tree(last), peer_log(last));
    for new in SIZES {
        for old in SIZES.into_iter().filter(|old| *old < new) {
            let proof = tree.consistency(old, new).unwrap();
            let their_proof = peer::prove_tree(new, old, &log).unwrap();
            assert_eq!(ours(their_proof.clone()), proof, "{old} to {new}");

            let (old_root, new_root) = (root(&tree, old), root(&tree, new));
            assert!(peer::check_tree(&theirs(proof), new, new_root, old, old_root).is_ok());
            assert_eq!(verify_consistency(old, new, &ours(their_proof), &old_root.0, &new_root.0), Ok(()));
        }
    }
}

proptest! {
    /// Whatever is changed in a proof, both give the same verdict, and it is a refusal.
    #[test]
    fn both_refuse_the_same_damaged_proofs(size in 2_u64..600, at in any::<u64>(), bit in any::<usize>(), cut in any::<bool>()) {
        let index = at % size;
        let tree = tree(size);
        let mut proof = tree.inclusion(index, size).unwrap();
        damage(&mut proof, bit, cut);
        let leaf = peer::record_hash(&entry(index));
        prop_assert!(peer::check_record(&theirs(proof.clone()), size, root(&tree, size), index, leaf).is_err());
        prop_assert!(verify_inclusion(&leaf.0, index, size, &proof, &tree.root(size).unwrap()).is_err());

        let old = 1 + index % (size - 1);
        let mut proof = tree.consistency(old, size).unwrap();
        damage(&mut proof, bit, cut);
        let (old_root, new_root) = (root(&tree, old), root(&tree, size));
        prop_assert!(peer::check_tree(&theirs(proof.clone()), size, new_root, old, old_root).is_err());
        prop_assert!(verify_consistency(old, size, &proof, &old_root.0, &new_root.0).is_err());
    }
}

/// One bit of a hash, or the last hash, which every proof here has.
fn damage(proof: &mut Vec<Hash>, bit: usize, cut: bool) {
    if cut {
        proof.pop();
    } else {
        let bits = proof.len() * 256;
        let bit = bit % bits;
        proof[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
    }
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> LogKey {
    LogKey::try_from(pair(seed).public_key().as_ref()).unwrap()
}

fn sign(seed: u8, message: &[u8]) -> [u8; 64] {
    pair(seed).sign(message).as_ref().try_into().unwrap()
}

/// A vault's log, whose key has seed 1.
fn log() -> LogVerifier {
    LogVerifier::new(Sha256Digest::of(b"genesis"), public(1))
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { size, root: tree(size).root(size).unwrap() }
}

/// The other implementation's signer for a key of ours.
fn their_signer(key: &VerifierKey, seed: u8) -> StandardSigner {
    let vkey = key.to_string();
    let id = vkey.split('+').nth(1).unwrap();
    let secret = BASE64_STANDARD.encode([&[1_u8][..], &[seed; 32]].concat());
    StandardSigner::new(&format!("PRIVATE+KEY+{}+{id}+{secret}", key.name())).unwrap()
}

/// It knows the log's key, and nobody's else.
fn they_know(key: &VerifierKey) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&key.to_string()).unwrap())])
}

#[test]
fn our_checkpoints_are_verified_and_parsed_by_another_implementation() {
    let log = log();
    for size in SIZES {
        let text = log.checkpoint_text(&checkpoint(size));
        let note = log.key().assemble(&text, &sign(1, text.as_bytes())).unwrap();
        let theirs = Note::from_bytes(note.as_bytes()).unwrap();
        let (verified, unknown) = theirs.verify(&they_know(log.key())).unwrap();
        assert_eq!((verified.len(), unknown.len()), (1, 0));
        assert_eq!(verified[0].name(), log.origin());
        assert_eq!(theirs.to_bytes(), note.as_bytes());

        let parsed = peer::Checkpoint::from_bytes(theirs.text()).unwrap();
        assert_eq!((parsed.origin(), parsed.size(), parsed.extension()), (log.origin(), size, ""));
        assert_eq!(parsed.hash().0, checkpoint(size).root);
    }
}

#[test]
fn their_checkpoints_are_verified_and_parsed_by_us() {
    let log = log();
    let signer = their_signer(log.key(), 1);
    for size in SIZES {
        let hash = peer::Hash(checkpoint(size).root);
        let text = peer::Checkpoint::new(log.origin(), size, hash, "").unwrap().to_bytes();
        let mut note = Note::new(&text, &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let note = String::from_utf8(note.to_bytes()).unwrap();
        assert_eq!(log.verify_checkpoint(&note), Ok(checkpoint(size)));
    }
}

#[test]
fn cosigned_checkpoints_stay_notes_for_another_implementation() {
    let log = log();
    let text = log.checkpoint_text(&checkpoint(700));
    let mut note = log.key().assemble(&text, &sign(1, text.as_bytes())).unwrap();
    for seed in [11, 12] {
        let witness = WitnessKey::new(&format!("witness.example/w{seed}"), public(seed)).unwrap();
        let time = UnixTime(1_700_000_000);
        note += &witness.line(&text, time, &sign(seed, &WitnessKey::message(&text, time))).unwrap();
    }
    let theirs = Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, unknown) = theirs.verify(&they_know(log.key())).unwrap();
    assert_eq!((verified.len(), unknown.len()), (1, 2));
    assert_eq!(theirs.to_bytes(), note.as_bytes());

    // Its own key ids, of the algorithm that C2SP gives to cosignatures (4).
    for (line, seed) in unknown.iter().zip([11_u8, 12]) {
        let key = [&[4][..], public(seed).as_bytes()].concat();
        assert_eq!(line.id(), signed_note::key_id(line.name(), &key));
        let cosigner = Cosigner { name: line.name().to_owned(), id: line.id(), key: public(seed) };
        let known = VerifierList::new(vec![Box::new(cosigner)]);
        assert_eq!(theirs.verify(&known).unwrap().0.len(), 1);
    }
}

/// A verifier of cosignatures for the other implementation, which has none. The message is C2SP tlog-cosignature's.
struct Cosigner {
    name: String,
    id: u32,
    key: LogKey,
}

impl Verifier for Cosigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let (time, signature) = signature.split_first_chunk::<8>().unwrap();
        let time = u64::from_be_bytes(*time);
        let message = [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat();
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, self.key.as_bytes());
        key.verify(&message, signature).is_ok()
    }
}

#[test]
fn both_refuse_the_same_damaged_notes() {
    let log = log();
    let known = they_know(log.key());
    let text = log.checkpoint_text(&checkpoint(5));
    let note = log.key().assemble(&text, &sign(1, text.as_bytes())).unwrap();
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        let accepted_by_us = std::str::from_utf8(&bytes).is_ok_and(|note| log.verify_checkpoint(note).is_ok());
        let accepted_by_them = Note::from_bytes(&bytes).and_then(|note| note.verify(&known).map(|_| ())).is_ok();
        assert_eq!((accepted_by_us, accepted_by_them), (false, false), "byte {at}");
    }
}

#[test]
fn a_note_of_another_key_is_refused_by_both() {
    let log = log();
    let stranger = LogVerifier::new(Sha256Digest::of(b"genesis"), public(2));
    let text = log.checkpoint_text(&checkpoint(5));
    let mut note = Note::new(text.as_bytes(), &[]).unwrap();
    note.add_sigs(&[&their_signer(stranger.key(), 2)]).unwrap();
    assert!(matches!(note.verify(&they_know(log.key())), Err(NoteError::UnverifiedNote)));
    assert!(log.verify_checkpoint(std::str::from_utf8(&note.to_bytes()).unwrap()).is_err());
}

#[test]
fn both_read_the_same_verifier_keys() {
    let key = log().key().to_string();
    assert_eq!(StandardVerifier::new(&key).unwrap().name(), log().origin());
    for at in 0..key.len() {
        let mut bytes = key.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(damaged) = String::from_utf8(bytes) else { continue };
        let theirs = StandardVerifier::new(&damaged).is_ok();
        assert_eq!((VerifierKey::parse(&damaged).is_ok(), theirs), (false, false), "{damaged}");
    }
    let unknown = they_know(log().key());
    let missing = signed_note::Verifiers::verifier(&unknown, "somebody", 7);
    assert!(matches!(missing, Err(VerificationError::UnknownKey { .. })));
}

#[test]
fn their_signer_has_the_key_ids_of_our_keys() {
    let signer = their_signer(log().key(), 1);
    let id = format!("{:08x}", signer.key_id());
    assert_eq!(log().key().to_string().split('+').nth(1).unwrap(), id);
}
