//! Signed notes, checkpoints and proofs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

use attestation::{LeaseKey, LogKey, Sha256Digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use ledger::merkle::{MerkleError, Tree, leaf_hash};
use ledger::note::{NOTE_BYTES_MAX, NoteError, SIGNATURES_MAX, VerifierKey};
use ledger::proof::{PROOF_BYTES_MAX, ProofError, proof_text};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> LogKey {
    LogKey::try_from(pair.public_key().as_ref()).unwrap()
}

fn sign(pair: &Ed25519KeyPair, text: &str) -> [u8; 64] {
    pair.sign(text.as_bytes()).as_ref().try_into().unwrap()
}

fn note_of(key: &VerifierKey, pair: &Ed25519KeyPair, text: &str) -> String {
    key.assemble(text, &sign(pair, text)).unwrap()
}

/// The vault of these tests, its log key and a log of 5 entries.
fn verifier() -> LogVerifier {
    LogVerifier::new(Sha256Digest::of(b"genesis"), public(&pair(1)))
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    (0..5).for_each(|index| tree.push(leaf_hash(&entry(index))));
    tree
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { size, root: tree().root(size).unwrap() }
}

fn signed_checkpoint(size: u64) -> String {
    note_of(verifier().key(), &pair(1), &verifier().checkpoint_text(&checkpoint(size)))
}

fn proof() -> String {
    proof_text(3, &tree().inclusion(3, 5).unwrap(), &signed_checkpoint(5))
}

#[test]
fn the_public_note_is_signed_and_verified_bit_by_bit() {
    let Some(case) = vectors::json("crypto/notes/signed-note.json") else { return };
    let field = |name: &str| case[name].as_str().unwrap();
    let key = VerifierKey::parse(field("vkey")).unwrap();
    assert_eq!(key.to_string(), field("vkey"));
    assert_eq!(key.verify(field("note")), Ok(field("text")));
    let secret = BASE64_STANDARD.decode(field("skey").splitn(5, '+').last().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&secret[1..]).unwrap();
    assert_eq!(note_of(&key, &pair, field("text")), field("note"));
    for vkey in case["bad_vkeys"].as_array().unwrap() {
        assert!(VerifierKey::parse(vkey.as_str().unwrap()).is_err(), "{vkey}");
    }
    assert_eq!(VerifierKey::parse(field("skey")), Err(NoteError::KeyText));
}

#[test]
fn every_substring_and_mangling_of_a_public_key_is_refused() {
    let Some(case) = vectors::json("crypto/notes/signed-note.json") else { return };
    let vkey = case["vkey"].as_str().unwrap();
    for start in 0..=vkey.len() {
        for end in start..=vkey.len() {
            let whole = start == 0 && end == vkey.len();
            assert_eq!(VerifierKey::parse(&vkey[start..end]).is_ok(), whole, "{}", &vkey[start..end]);
        }
    }
    for at in 0..vkey.len() {
        let mut mangled = vkey.as_bytes().to_vec();
        mangled[at] += 1;
        let mangled = String::from_utf8(mangled).unwrap();
        assert!(VerifierKey::parse(&mangled).is_err(), "{mangled}");
    }
}

#[test]
fn each_fault_of_a_verifier_key_has_its_own_error() {
    let good = verifier().key().to_string();
    let (name, rest) = good.split_once('+').unwrap();
    let (id, key) = rest.split_once('+').unwrap();
    assert_eq!(VerifierKey::parse(&good).as_ref(), Ok(verifier().key()));
    let typed = |kind: u8, length: usize| BASE64_STANDARD.encode([&[kind][..], &vec![0; length]].concat());
    for (vkey, error) in [
        (format!("{name}+{id}"), NoteError::KeyText),
        (format!("{name}+{id}+{key}="), NoteError::KeyText),
        (format!("{name}+{id}+"), NoteError::KeyType),
        (format!("{name}+{id}+{}", typed(2, 32)), NoteError::KeyType),
        (format!("{name}+{id}+{}", typed(4, 32)), NoteError::KeyType),
        (format!("{name}+{id}+{}", typed(1, 33)), NoteError::KeyType),
        (format!("{name}+{}+{key}", id.to_uppercase()), NoteError::KeyId),
        (format!("{name}+0{id}+{key}"), NoteError::KeyId),
        (format!("{name}x+{id}+{key}"), NoteError::KeyId),
        (format!("+{id}+{key}"), NoteError::KeyName),
        (format!("a b+{id}+{key}"), NoteError::KeyName),
        (format!("a\u{2003}b+{id}+{key}"), NoteError::KeyName),
    ] {
        assert_eq!(VerifierKey::parse(&vkey), Err(error), "{vkey}");
    }
    assert_eq!(VerifierKey::new("a+b", public(&pair(1))), Err(NoteError::KeyName));
}

#[test]
fn signatures_of_other_keys_are_ignored_but_must_have_the_form() {
    let (key, other) = (verifier().key().clone(), VerifierKey::new("other", public(&pair(2))).unwrap());
    let text = "hello\n\nworld\n";
    let note = note_of(&key, &pair(1), text);
    let line = |note: String| note.rsplit_once("\n\n").unwrap().1.to_owned();
    let others = line(note_of(&other, &pair(2), text));
    // Same name, other key; same key, other name.
    let same_name = VerifierKey::new(key.name(), public(&pair(3))).unwrap();
    let same_key = VerifierKey::new("third", public(&pair(1))).unwrap();
    let more = line(note_of(&same_name, &pair(3), text)) + &line(note_of(&same_key, &pair(1), text));
    assert_eq!(key.verify(&format!("{note}{others}{more}")), Ok(text));
    assert_eq!(key.verify(&format!("{text}\n{others}{more}")), Err(NoteError::NotSigned));
    for bad in
        ["x\n", "— x\n", "— x y\n", "-- x AAAAAAA=\n", "— x AAAAAA==\n", "— x AAAA AAAA\n", "— a+b AAAAAAA=\n", "\n"]
    {
        let malformed = key.verify(&format!("{note}{bad}")).unwrap_err();
        assert!(matches!(malformed, NoteError::SignatureLine | NoteError::NoSignatures), "{bad:?}: {malformed:?}");
    }
    let many = |count| format!("{note}{}", others.repeat(count));
    assert_eq!(key.verify(&many(SIGNATURES_MAX - 1)), Ok(text));
    assert_eq!(key.verify(&many(SIGNATURES_MAX)), Err(NoteError::TooManySignatures));
}

#[test]
fn a_note_with_one_thing_wrong_is_refused() {
    let key = verifier().key().clone();
    let note = note_of(&key, &pair(1), "hello\n");
    assert_eq!(key.verify(&note), Ok("hello\n"));
    assert_eq!(key.verify(&note.replace("hello", "hallo")), Err(NoteError::Signature));
    assert_eq!(key.verify(&note.replace("hello\n", "hello\n\n")), Err(NoteError::Signature));
    assert_eq!(key.verify(&note.replace("hello", "hel\tlo")), Err(NoteError::ControlCharacter));
    assert_eq!(key.verify(&note.replace('\n', "\r\n")), Err(NoteError::ControlCharacter));
    assert_eq!(key.verify(note.trim_end()), Err(NoteError::NoSignatures));
    assert_eq!(key.verify(&note.replace("\n\n", "\n")), Err(NoteError::NoSignatures));
    assert_eq!(key.verify("hello\n\n"), Err(NoteError::NoSignatures));
    assert_eq!(key.verify("hello\n"), Err(NoteError::NoSignatures));
    assert_eq!(key.verify(""), Err(NoteError::NoSignatures));
    let long = format!("{}\n{note}", "x".repeat(NOTE_BYTES_MAX));
    assert_eq!(key.verify(&long), Err(NoteError::TooLarge));
    // A good signature does not outweigh a bad one of the same key.
    let (_, line) = note.rsplit_once("\n\n").unwrap();
    let other = note_of(&key, &pair(1), "other\n");
    assert_eq!(key.verify(&format!("{other}{line}")), Err(NoteError::Signature));
}

#[test]
fn a_faulty_signature_makes_no_note() {
    let key = verifier().key().clone();
    let mut signature = sign(&pair(1), "hello\n");
    signature[5] ^= 1;
    assert_eq!(key.assemble("hello\n", &signature), Err(NoteError::Signature));
    assert_eq!(key.assemble("hello", &sign(&pair(1), "hello")), Err(NoteError::NoSignatures));
}

#[test]
fn a_checkpoint_is_three_lines_under_the_vaults_name() {
    let hex = hex::encode(Sha256Digest::of(b"genesis").as_bytes());
    assert_eq!(verifier().origin(), format!("weightvault.v1/{hex}"));
    let text = format!("weightvault.v1/{hex}\n5\n{}\n", BASE64_STANDARD.encode(checkpoint(5).root));
    assert_eq!(verifier().checkpoint_text(&checkpoint(5)), text);
    assert_eq!(verifier().verify_checkpoint(&signed_checkpoint(5)), Ok(checkpoint(5)));
    assert_eq!(verifier().verify_checkpoint(&signed_checkpoint(0)), Ok(checkpoint(0)));
}

#[test]
fn a_checkpoint_with_one_thing_wrong_is_refused() {
    let good = verifier().checkpoint_text(&checkpoint(5));
    let refusal = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let note = note_of(verifier().key(), &pair(1), &good.replacen(from, to, 1));
        verifier().verify_checkpoint(&note).unwrap_err()
    };
    assert_eq!(refusal("weightvault.v1", "weightvault.v2"), CheckpointError::Origin);
    for size in ["05", "+5", "", " 5", "5 ", "five", "18446744073709551616"] {
        assert_eq!(refusal("\n5\n", &format!("\n{size}\n")), CheckpointError::Size, "{size}");
    }
    assert_eq!(refusal("=\n", "\n"), CheckpointError::Root);
    assert_eq!(refusal("=\n", "=\nextension\n"), CheckpointError::Lines);
    assert_eq!(refusal("\n5\n", "\n"), CheckpointError::Lines);
    let other_vault = LogVerifier::new(Sha256Digest::of(b"other"), public(&pair(1)));
    let note = CheckpointError::Note(NoteError::NotSigned);
    assert_eq!(other_vault.verify_checkpoint(&signed_checkpoint(5)), Err(note));
    let other_key = LogVerifier::new(Sha256Digest::of(b"genesis"), public(&pair(2)));
    assert_eq!(other_key.verify_checkpoint(&signed_checkpoint(5)), Err(note));
}

#[test]
fn a_later_checkpoint_continues_the_earlier_one() {
    let proof = tree().consistency(3, 5).unwrap();
    assert_eq!(checkpoint(5).verify_continues(&checkpoint(3), &proof), Ok(()));
    let fork = Checkpoint { root: [1; 32], ..checkpoint(3) };
    let inconsistent = CheckpointError::Inconsistent(MerkleError::RootMismatch);
    assert_eq!(checkpoint(5).verify_continues(&fork, &proof), Err(inconsistent));
    assert!(checkpoint(3).verify_continues(&checkpoint(5), &proof).is_err());
}

#[test]
fn a_proof_shows_where_an_entry_is() {
    assert_eq!(verifier().verify_proof(&proof(), &entry(3)), Ok((3, checkpoint(5))));
    let lines: Vec<String> = proof().lines().map(str::to_owned).collect();
    assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 3"]);
    assert_eq!((lines[5].as_str(), lines[6].as_str()), ("", verifier().origin()));
    // A log of one entry: no hashes.
    let mut tree = Tree::new();
    tree.push(leaf_hash(b"only"));
    let one = Checkpoint { size: 1, root: tree.root(1).unwrap() };
    let note = note_of(verifier().key(), &pair(1), &verifier().checkpoint_text(&one));
    assert_eq!(verifier().verify_proof(&proof_text(0, &[], &note), b"only"), Ok((0, one)));
}

#[test]
fn a_proof_with_one_thing_wrong_is_refused() {
    let good = proof();
    let refusal = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        verifier().verify_proof(&good.replacen(from, to, 1), &entry(3)).unwrap_err()
    };
    assert_eq!(refusal("proof@v1", "proof@v2"), ProofError::Version);
    assert_eq!(refusal("index", "extra AAAA\nindex"), ProofError::Extra);
    for index in ["03", "+3", "", "-1", "x", "18446744073709551616"] {
        assert_eq!(refusal("index 3", &format!("index {index}")), ProofError::Index, "{index}");
    }
    assert_eq!(refusal("index 3", "Index 3"), ProofError::Index);
    assert_eq!(refusal("index 3", "index 2"), ProofError::Inclusion(MerkleError::RootMismatch));
    let past = ProofError::Inclusion(MerkleError::IndexPastSize { index: 5, size: 5 });
    assert_eq!(refusal("index 3", "index 5"), past);
    assert_eq!(refusal("index 3\n", "index 3\nAAAA\n"), ProofError::Hash);
    let hash = format!("{}\n", BASE64_STANDARD.encode([0; 32]));
    let longer = refusal("index 3\n", &format!("index 3\n{hash}"));
    assert_eq!(longer, ProofError::Inclusion(MerkleError::ProofLength));
    assert_eq!(refusal("index 3\n", &format!("index 3\n{}", hash.repeat(64))), ProofError::TooLong);
    assert_eq!(refusal("=\n\nweightvault", "=\nweightvault"), ProofError::Hash);
    let size = ProofError::Checkpoint(CheckpointError::Note(NoteError::Signature));
    assert_eq!(refusal("\n5\n", "\n6\n"), size);
    let path_only = good.split_once("\n\n").unwrap().0.to_owned() + "\n";
    assert_eq!(verifier().verify_proof(&path_only, &entry(3)), Err(ProofError::NoCheckpoint));
    let long = format!("{good}{}", "x".repeat(PROOF_BYTES_MAX));
    assert_eq!(verifier().verify_proof(&long, &entry(3)), Err(ProofError::TooLarge));
    let other = verifier().verify_proof(&good, &entry(2));
    assert_eq!(other, Err(ProofError::Inclusion(MerkleError::RootMismatch)));
    assert_eq!(verifier().verify_proof("", &entry(3)), Err(ProofError::Version));
}

proptest! {
    #[test]
    fn a_changed_byte_of_a_proof_is_never_accepted(at: usize, byte: u8) {
        let good = proof();
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert!(verifier().verify_proof(&text, &entry(3)).is_err(), "{}", text);
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]\n)?[a-zA-Z=\n —]{0,80}") {
        prop_assert!(verifier().verify_proof(&text, b"").is_err());
        prop_assert!(verifier().verify_checkpoint(&text).is_err());
    }
}

/// Every valid case of the public set verifies under a log key, a lease key and as a note's, and every other is refused:
/// a second spelling of a signature, bytes after it, a short one.
#[test]
fn ed25519_agrees_with_wycheproof() {
    let Some(cases) = vectors::json("crypto/wycheproof/ed25519_test.json") else { return };
    let mut count = 0;
    for group in cases["testGroups"].as_array().unwrap() {
        let hex = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let key = hex(&group["publicKey"]["pk"]);
        let (log, lease) = (LogKey::try_from(&*key).unwrap(), LeaseKey::try_from(&*key).unwrap());
        for case in group["tests"].as_array().unwrap() {
            let (message, signature) = (hex(&case["msg"]), hex(&case["sig"]));
            let valid = match case["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("a case of a new kind: {other}"),
            };
            assert_eq!(log.verify(&message, &signature).is_ok(), valid, "{}", case["tcId"]);
            assert_eq!(lease.verify(&message, &signature).is_ok(), valid, "{}", case["tcId"]);
            count += 1;
        }
    }
    assert_eq!(count, cases["numberOfTests"].as_u64().unwrap());
}
