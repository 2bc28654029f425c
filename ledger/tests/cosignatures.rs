//! Cosignatures, quorums, and what a witness takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use attestation::{LogKey, Sha256Digest, UnixTime};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::checkpoint::{Checkpoint, CheckpointError, LogVerifier, Seen};
use ledger::cosignature::{CosignatureError, WitnessKey, WitnessPolicy, WitnessPolicyError};
use ledger::merkle::{MerkleError, Tree, leaf_hash};
use ledger::note::{NoteError, SIGNATURES_MAX, VerifierKey};
use ledger::witness::{AddCheckpoint, AddCheckpointError, REQUEST_BYTES_MAX, recorded, step};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

const TIME: UnixTime = UnixTime(1_679_315_147);
const VKEY: &str = "witness.example.com/w1+8122a5ab+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
const LINE: &str = "— witness.example.com/w1 \
    gSKlqwAAAABkGFDLWr4Jea05CAgwNVtwky0Jgz6WfX0QJgM//FkB/W9BoT9TX0DkTxG+2cT4p/ViKNhUM/SnUwFcYQzugGFQ15LwDw==\n";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> LogKey {
    LogKey::try_from(pair(seed).public_key().as_ref()).unwrap()
}

fn sign(seed: u8, message: &[u8]) -> [u8; 64] {
    pair(seed).sign(message).as_ref().try_into().unwrap()
}

/// The witness with this seed.
fn witness(seed: u8) -> WitnessKey {
    WitnessKey::new(&format!("witness.example/w{seed}"), public(seed)).unwrap()
}

fn line(seed: u8, text: &str, time: UnixTime) -> String {
    witness(seed).line(text, time, &sign(seed, &WitnessKey::message(text, time))).unwrap()
}

/// Witnesses 11 to 14, of which one may be faulty.
fn policy() -> WitnessPolicy {
    WitnessPolicy::new((11..=14).map(witness).collect(), 3, 1).unwrap()
}

fn unwitnessed() -> LogVerifier {
    LogVerifier::new(Sha256Digest::of(b"genesis"), public(1))
}

fn log() -> LogVerifier {
    unwitnessed().witnessed_by(policy())
}

/// A log of 5 entries, and one that forks off at 3.
fn tree(fork: &str) -> Tree {
    let mut tree = Tree::new();
    (0..5).for_each(|index| {
        let entry = if index < 3 { format!("entry {index}") } else { format!("{fork} {index}") };
        tree.push(leaf_hash(entry.as_bytes()));
    });
    tree
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { size, root: tree("entry").root(size).unwrap() }
}

fn signed(checkpoint: &Checkpoint) -> String {
    let text = log().checkpoint_text(checkpoint);
    log().key().assemble(&text, &sign(1, text.as_bytes())).unwrap()
}

fn text(size: u64) -> String {
    log().checkpoint_text(&checkpoint(size))
}

/// The checkpoint of 5 entries with these cosignatures.
fn cosigned(lines: &[String]) -> String {
    signed(&checkpoint(5)) + &lines.concat()
}

fn refusal(lines: &[String]) -> CosignatureError {
    match log().verify_checkpoint(&cosigned(lines)) {
        Err(CheckpointError::Witnesses(error)) => error,
        // The log's key reads every line before its witnesses are asked.
        Err(CheckpointError::Note(error)) => CosignatureError::Note(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn message_is_that_of_the_specification() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let expected = format!("cosignature/v1\ntime 1679315147\n{text}");
    assert_eq!(WitnessKey::message(text, TIME), expected.into_bytes());
}

/// FORMAT.md §7 has these bytes.
#[test]
fn cosignature_of_the_format_is_made_bit_by_bit() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let key = WitnessKey::new("witness.example.com/w1", public(7)).unwrap();
    assert_eq!(key.to_string(), VKEY);
    assert_eq!(WitnessKey::parse(VKEY), Ok(key.clone()));
    assert_eq!(key.line(text, TIME, &sign(7, &WitnessKey::message(text, TIME))).unwrap(), LINE);
}

#[test]
fn key_of_a_log_is_no_witness_and_a_witness_no_log() {
    assert_eq!(WitnessKey::parse(&log().key().to_string()), Err(NoteError::KeyType));
    assert_eq!(VerifierKey::parse(&witness(11).to_string()), Err(NoteError::KeyType));
    let good = witness(11).to_string();
    assert_eq!(WitnessKey::parse(&good.replacen("w11", "w12", 1)), Err(NoteError::KeyId));
    assert_eq!(WitnessKey::parse("witness"), Err(NoteError::KeyText));
    assert_eq!(WitnessKey::new("a b", public(1)), Err(NoteError::KeyName));
    assert_eq!(WitnessKey::new("a+b", public(1)), Err(NoteError::KeyName));
}

#[test]
fn quorum_is_so_large_that_two_of_them_share_a_faultless_witness() {
    let of = |count: u8, quorum, faulty| WitnessPolicy::new((11..11 + count).map(witness).collect(), quorum, faulty);
    for (count, quorum, faulty) in [(1, 1, 0), (2, 2, 1), (3, 2, 0), (3, 3, 1), (4, 3, 1), (7, 5, 2), (16, 9, 1)] {
        assert!(of(count, quorum, faulty).is_ok(), "{quorum} of {count}, {faulty} faulty");
        let one_less = WitnessPolicyError::QuorumTooSmall { quorum: quorum - 1, count: count.into(), faulty };
        assert_eq!(of(count, quorum - 1, faulty), Err(one_less));
    }
    let all_faulty = WitnessPolicyError::QuorumTooSmall { quorum: 3, count: 3, faulty: 3 };
    assert_eq!(of(3, 3, 3), Err(all_faulty));
    assert_eq!(of(3, 3, usize::MAX).unwrap_err().code(), "witness-quorum-too-small");
    assert_eq!(of(3, 4, 0), Err(WitnessPolicyError::QuorumUnreachable { quorum: 4, count: 3 }));
    assert_eq!(of(3, usize::MAX, 0).unwrap_err().code(), "witness-quorum-unreachable");
    assert_eq!(of(0, 0, 0), Err(WitnessPolicyError::Count { count: 0 }));
    assert_eq!(of(17, 17, 0), Err(WitnessPolicyError::Count { count: 17 }));
}

#[test]
fn nobody_is_two_witnesses() {
    let named = |name: &str, seed| WitnessKey::new(name, public(seed)).unwrap();
    let of = |second| WitnessPolicy::new(vec![named("w", 1), second], 2, 0);
    assert_eq!(of(named("w", 2)), Err(WitnessPolicyError::NameRepeated { name: "w".to_owned() }));
    assert_eq!(of(named("x", 1)), Err(WitnessPolicyError::KeyRepeated { name: "x".to_owned() }));
    assert!(of(named("x", 2)).is_ok());
}

#[test]
fn a_quorum_of_witnesses_makes_a_checkpoint_count() {
    let text = text(5);
    let lines = [line(11, &text, TIME), line(14, &text, TIME.plus(9)), line(12, &text, TIME.plus(2))];
    let note = cosigned(&lines);
    assert_eq!(log().verify_checkpoint(&note), Ok(checkpoint(5)));
    let Ok(Seen::Cosigned(seen)) = log().verify_cosigned(&note) else { panic!("it is cosigned") };
    let by: Vec<&str> = seen.cosignatures().iter().map(|cosignature| cosignature.witness.as_str()).collect();
    assert_eq!(by, ["witness.example/w11", "witness.example/w12", "witness.example/w14"]);
    assert_eq!(seen.time(), TIME.plus(2));
    assert_eq!(seen.checkpoint(), &checkpoint(5));
    assert_eq!(unwitnessed().verify_cosigned(&note), Ok(Seen::Unwitnessed(checkpoint(5))));
}

/// Of 4 witnesses one may be faulty, and 3 cosign.
#[test]
fn no_faulty_witness_sets_the_time_ahead_nor_holds_it_back_behind_all_others() {
    let text = text(5);
    let not_before = |seconds: &[u64]| {
        let lines: Vec<String> =
            (11..).zip(seconds).map(|(seed, seconds)| line(seed, &text, TIME.plus(*seconds))).collect();
        log().verify_cosigned(&cosigned(&lines)).unwrap().not_before().unwrap()
    };
    assert_eq!(not_before(&[4, 2, 3]), TIME.plus(3));
    // One says what it likes: what comes out is between what the others say.
    for ahead in [1_000_000, 5] {
        assert_eq!(not_before(&[ahead, 2, 3]), TIME.plus(3));
    }
    assert_eq!(not_before(&[0, 2, 3]), TIME.plus(2));
    assert_eq!(not_before(&[2, 3, 4, 1_000_000]), TIME.plus(4));
    let unwitnessed = unwitnessed().verify_cosigned(&cosigned(&[line(11, &text, TIME)])).unwrap();
    assert_eq!(unwitnessed.not_before(), None);
}

#[test]
fn too_few_witnesses_are_none_however_often_they_sign() {
    let text = text(5);
    let two = [line(11, &text, TIME), line(12, &text, TIME)];
    assert_eq!(refusal(&[]), CosignatureError::QuorumMissing { counted: 0, quorum: 3 });
    assert_eq!(refusal(&two), CosignatureError::QuorumMissing { counted: 2, quorum: 3 });
    let thrice = [two[0].clone(), two[1].clone(), two[0].clone(), line(11, &text, TIME.plus(1))];
    assert_eq!(refusal(&thrice).code(), "witness-quorum-missing");
    assert_eq!(refusal(&thrice), CosignatureError::QuorumMissing { counted: 2, quorum: 3 });
    let stranger = [two[0].clone(), two[1].clone(), line(20, &text, TIME)];
    assert_eq!(refusal(&stranger), CosignatureError::QuorumMissing { counted: 2, quorum: 3 });
    // The name of a witness over another key has another id: a stranger's too.
    let posing = WitnessKey::new("witness.example/w13", public(20)).unwrap();
    let posing = posing.line(&text, TIME, &sign(20, &WitnessKey::message(&text, TIME))).unwrap();
    assert_eq!(
        refusal(&[two[0].clone(), two[1].clone(), posing]),
        CosignatureError::QuorumMissing { counted: 2, quorum: 3 }
    );
}

#[test]
fn a_cosignature_with_one_thing_wrong_refuses_the_note() {
    let text = text(5);
    let good = [line(11, &text, TIME), line(12, &text, TIME), line(13, &text, TIME)];
    assert!(log().verify_checkpoint(&cosigned(&good)).is_ok());
    let with = |last: String| refusal(&[good[0].clone(), good[1].clone(), last]);
    // Of another checkpoint, and an ordinary signature over this one.
    let other = line(13, &self::text(4), TIME);
    assert_eq!(with(other), CosignatureError::Signature);
    let raw = |bytes: &[u8]| {
        let id = &BASE64_STANDARD.decode(good[2].trim_end().rsplit(' ').next().unwrap()).unwrap()[..4];
        format!("— witness.example/w13 {}\n", BASE64_STANDARD.encode([id, bytes].concat()))
    };
    let of = |time: u64, signature: &[u8]| raw(&[&time.to_be_bytes()[..], signature].concat());
    let signature = sign(13, &WitnessKey::message(&text, TIME));
    let last = of(TIME.0, &signature);
    assert_eq!(last, good[2]);
    assert_eq!(with(of(TIME.0 + 1, &signature)), CosignatureError::Signature);
    assert_eq!(with(of(TIME.0, &sign(13, text.as_bytes()))), CosignatureError::Signature);
    assert_eq!(with(of(TIME.0, &sign(12, &WitnessKey::message(&text, TIME)))), CosignatureError::Signature);
    for time in [0, 253_402_300_800, u64::MAX] {
        let signature = sign(13, &WitnessKey::message(&text, UnixTime(time)));
        assert_eq!(with(of(time, &signature)), CosignatureError::Time, "{time}");
    }
    assert_eq!(with(of(TIME.0, &signature[1..])), CosignatureError::Length);
    assert_eq!(with(of(TIME.0, &[&signature[..], &[0]].concat())), CosignatureError::Length);
    assert_eq!(with(raw(&[1; 7])), CosignatureError::Length);
    assert_eq!(with("— witness.example/w13 !\n".to_owned()), CosignatureError::Note(NoteError::SignatureLine));
    let many = CosignatureError::Note(NoteError::TooManySignatures);
    assert_eq!(log().verify_checkpoint(&cosigned(&vec![last; SIGNATURES_MAX])).unwrap_err().code(), many.code());
}

#[test]
fn a_witness_of_a_log_takes_its_next_checkpoint_and_nothing_else() {
    let key = log().key().clone();
    let proof = |old, new| tree("entry").consistency(old, new).unwrap();
    let request =
        |old, proof, note: String| AddCheckpoint::parse(&AddCheckpoint::new(old, proof, note).encode()).unwrap();
    let first = step(&key, None, request(0, vec![], signed(&checkpoint(3)))).unwrap();
    assert_eq!((first.checkpoint(), first.text()), (checkpoint(3), text(3).as_str()));
    let latest = Some(first.checkpoint());
    let next = step(&key, latest, request(3, proof(3, 5), signed(&checkpoint(5)))).unwrap();
    assert_eq!(next.message(TIME), WitnessKey::message(&text(5), TIME));
    // The same again is the same.
    assert!(step(&key, latest, request(3, vec![], signed(&checkpoint(3)))).is_ok());

    let refused = |old, proof, note: String| {
        let error = step(&key, latest, request(old, proof, note)).unwrap_err();
        (error.status(), error)
    };
    let conflict = AddCheckpointError::Conflict { size: 3 };
    assert_eq!(refused(0, vec![], signed(&checkpoint(5))), (409, conflict));
    assert_eq!(refused(2, proof(2, 5), signed(&checkpoint(5))), (409, conflict));
    // An older checkpoint, a fork, and another root for the size that it has.
    assert_eq!(refused(2, vec![], signed(&checkpoint(2))), (409, conflict));
    let past = AddCheckpointError::OldPastNew { old: 3, size: 2 };
    assert_eq!(refused(3, vec![], signed(&checkpoint(2))), (400, past));
    let other = Checkpoint { size: 5, root: tree("other").root(5).unwrap() };
    assert!(step(&key, latest, request(3, tree("other").consistency(3, 5).unwrap(), signed(&other))).is_ok());
    let mismatch = AddCheckpointError::Inconsistent(MerkleError::RootMismatch);
    assert_eq!(refused(3, proof(3, 5), signed(&other)), (422, mismatch));
    let same_size = Checkpoint { size: 3, root: [9; 32] };
    assert_eq!(refused(3, vec![], signed(&same_size)), (422, mismatch));
    let length = AddCheckpointError::Inconsistent(MerkleError::ProofLength);
    assert_eq!(refused(3, vec![], signed(&checkpoint(5))), (422, length));
    // Not signed, signed by another key, signed badly, of another log.
    let stranger = VerifierKey::new(key.name(), public(2)).unwrap();
    let by_stranger = stranger.assemble(&text(5), &sign(2, text(5).as_bytes())).unwrap();
    assert_eq!(refused(3, proof(3, 5), by_stranger), (403, AddCheckpointError::NotSigned));
    let broken = signed(&checkpoint(5)).replacen("\n5\n", "\n6\n", 1);
    assert_eq!(refused(3, vec![], broken), (403, AddCheckpointError::NotSigned));
    let unknown = signed(&checkpoint(5)).replacen("weightvault.v1/", "weightvault.v2/", 1);
    assert_eq!(refused(3, vec![], unknown), (404, AddCheckpointError::OriginUnknown));
}

#[test]
fn an_empty_log_has_one_root_and_needs_no_proof() {
    let key = log().key().clone();
    let of = |old, proof, checkpoint: &Checkpoint| {
        step(&key, None, AddCheckpoint::new(old, proof, signed(checkpoint))).map(|step| step.checkpoint())
    };
    assert_eq!(of(0, vec![], &checkpoint(0)), Ok(checkpoint(0)));
    let wrong = AddCheckpointError::EmptyRoot;
    assert_eq!((of(0, vec![], &Checkpoint { size: 0, root: [1; 32] }), wrong.status()), (Err(wrong), 422));
    let proof = AddCheckpointError::ProofUnexpected;
    assert_eq!((of(0, vec![[1; 32]], &checkpoint(5)), proof.status()), (Err(proof), 422));
}

#[test]
fn extension_lines_are_signed_with_the_rest() {
    let key = log().key().clone();
    let text = text(3) + "an extension\n";
    let note = key.assemble(&text, &sign(1, text.as_bytes())).unwrap();
    assert_eq!(recorded(&key, note).unwrap().text(), text);
    let gap = self::text(3) + "\nbehind an empty line\n";
    let note = key.assemble(&gap, &sign(1, gap.as_bytes())).unwrap();
    assert_eq!(recorded(&key, note), Err(AddCheckpointError::Malformed));
}

#[test]
fn a_request_of_another_form_is_malformed() {
    let good = AddCheckpoint::new(3, vec![[1; 32]; 63], signed(&checkpoint(5))).encode();
    assert!(AddCheckpoint::parse(&good).is_ok());
    let hash = BASE64_STANDARD.encode([1; 32]);
    for (from, to) in [
        ("old 3\n", ""),
        ("old 3\n", "old 03\n"),
        ("old 3\n", "old -3\n"),
        ("old 3\n", "old  3\n"),
        ("old 3\n", "old 3\r\n"),
        (hash.as_str(), "AAAA"),
        (hash.as_str(), &format!("{hash}\n{hash}")),
    ] {
        assert_eq!(AddCheckpoint::parse(&good.replacen(from, to, 1)), Err(AddCheckpointError::Malformed), "{to:?}");
    }
    assert_eq!(AddCheckpoint::parse("old 3\n\n").unwrap().origin(), Err(AddCheckpointError::Malformed));
    assert_eq!(AddCheckpoint::parse(&"x".repeat(REQUEST_BYTES_MAX + 1)), Err(AddCheckpointError::Malformed));
    let many = format!("old 3\n\n{}", signed(&checkpoint(5)) + &line(11, &text(5), TIME).repeat(SIGNATURES_MAX));
    let many = step(log().key(), Some(checkpoint(3)), AddCheckpoint::parse(&many).unwrap());
    assert_eq!(many, Err(AddCheckpointError::Malformed));
}

proptest! {
    #[test]
    fn arbitrary_text_is_no_quorum_and_no_request(text in ".{0,200}", lines in ".{0,200}") {
        prop_assert!(log().verify_checkpoint(&text).is_err());
        prop_assert!(log().verify_checkpoint(&cosigned(&[lines])).is_err());
        if let Ok(request) = AddCheckpoint::parse(&text) {
            prop_assert!(step(log().key(), None, request).is_err());
        }
    }
}
