//! Group commit: its order, what a failure leaves, and what a ticket is worth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use attestation::{LogKey, Sha256Digest};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::merkle::{Hash, MerkleError, Tree, leaf_hash, verify_consistency};
use ledger::note::NoteError;
use ledger::release_log::{
    BATCH_ENTRIES_MAX, Batch, ClosedLog, ENTRY_BYTES_MAX, Log, LogError, LogReader, Loggable, OpenError, StageError,
    Ticket, Writer,
};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

const GENESIS: &[u8] = b"genesis";

/// A release of this number, and the end of that lease: two types.
struct Grant(u64);
struct End(u64);

impl Loggable for Grant {
    fn entry_bytes(&self) -> Vec<u8> {
        format!("grant {}", self.0).into_bytes()
    }
}

impl Loggable for End {
    fn entry_bytes(&self) -> Vec<u8> {
        format!("end {}", self.0).into_bytes()
    }
}

/// Bytes of a length.
struct Long(usize);

impl Loggable for Long {
    fn entry_bytes(&self) -> Vec<u8> {
        vec![b'x'; self.0]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Append,
    Commit,
    Sign,
    Publish,
}

/// Keeps everything, and what was asked in which order; fails at one step.
struct Disk {
    key: Ed25519KeyPair,
    entries: Vec<Vec<u8>>,
    heads: Vec<(u64, Hash)>,
    published: Vec<String>,
    steps: Vec<Step>,
    fails_at: Option<Step>,
    signs_wrongly: bool,
}

impl Disk {
    fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let (entries, heads, published, steps) = (vec![], vec![], vec![], vec![]);
        Self { key, entries, heads, published, steps, fails_at: None, signs_wrongly: false }
    }

    fn verifier(&self) -> LogVerifier {
        let key = LogKey::try_from(self.key.public_key().as_ref()).unwrap();
        LogVerifier::new(Sha256Digest::of(GENESIS), key)
    }

    fn step(&mut self, step: Step) -> Result<(), Step> {
        self.steps.push(step);
        if self.fails_at == Some(step) { Err(step) } else { Ok(()) }
    }

    fn head(&self) -> Checkpoint {
        let (size, root) = *self.heads.last().unwrap();
        Checkpoint { size, root }
    }
}

impl Writer for Disk {
    type Error = Step;

    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), Step> {
        self.step(Step::Append)?;
        self.entries.truncate(first as usize);
        assert_eq!(self.entries.len() as u64, first);
        self.entries.extend_from_slice(entries);
        Ok(())
    }

    fn commit(&mut self, size: u64, root: Hash) -> Result<(), Step> {
        self.step(Step::Commit)?;
        assert_eq!(self.entries.len() as u64, size, "entries are durable before the head");
        self.heads.push((size, root));
        Ok(())
    }

    fn sign(&mut self, text: &str) -> Result<[u8; 64], Step> {
        self.step(Step::Sign)?;
        let text = if self.signs_wrongly { "something else\n" } else { text };
        Ok(self.key.sign(text.as_bytes()).as_ref().try_into().unwrap())
    }

    fn publish(&mut self, checkpoint: &str, size: u64) -> Result<(), Step> {
        self.step(Step::Publish)?;
        assert_eq!(self.verifier().verify_checkpoint(checkpoint).unwrap().size, size);
        self.published.push(checkpoint.to_owned());
        Ok(())
    }
}

fn batch(entries: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    entries.iter().for_each(|entry| batch.add(entry.to_vec()).unwrap());
    batch
}

fn started() -> (Disk, Log) {
    let mut disk = Disk::new();
    let log = ClosedLog::empty().start(disk.verifier(), batch(&[GENESIS, b"start"]), &mut disk).unwrap();
    disk.steps.clear();
    (disk, log)
}

#[test]
fn a_commit_has_one_order() {
    let (mut disk, mut log) = started();
    let head = log.commit(batch(&[b"a", b"b"]), &mut disk).unwrap();
    assert_eq!(disk.steps, [Step::Append, Step::Commit, Step::Sign, Step::Publish]);
    assert_eq!((head, log.head()), (disk.head(), disk.head()));
    assert_eq!(head.size, 4);
    assert_eq!(log.checkpoint(), disk.published.last().unwrap());
    assert_eq!(disk.verifier().verify_checkpoint(log.checkpoint()), Ok(head));
}

#[test]
fn a_run_counts_its_first_entries_twice_before_it_signs() {
    let mut disk = Disk::new();
    let log = ClosedLog::empty().start(disk.verifier(), batch(&[GENESIS]), &mut disk).unwrap();
    assert_eq!(disk.steps, [Step::Append, Step::Commit, Step::Commit, Step::Sign, Step::Publish]);
    assert_eq!(disk.heads[0], disk.heads[1]);
    assert_eq!(log.head().size, 1);
}

#[test]
fn an_empty_batch_counts_the_same_head_once_more() {
    let (mut disk, mut log) = started();
    let before = log.head();
    assert_eq!(log.commit(Batch::new(), &mut disk), Ok(before));
    assert_eq!(disk.steps, [Step::Commit, Step::Sign, Step::Publish]);
    assert_eq!(disk.heads.len(), 3);
}

#[test]
fn each_decision_comes_back_as_itself_with_its_own_entry_and_proof() {
    let (mut disk, mut log) = started();
    let mut batch = Batch::new();
    let first = batch.stage(Grant(1)).unwrap();
    batch.add(b"nobody waits".to_vec()).unwrap();
    let end = batch.stage(End(1)).unwrap();
    let second = batch.stage(Grant(2)).unwrap();
    let head = log.commit(batch, &mut disk).unwrap();

    let (first, end, second) = (first.redeem().unwrap(), end.redeem().unwrap(), second.redeem().unwrap());
    assert_eq!((first.value().0, end.value().0, second.value().0), (1, 1, 2));
    assert_eq!((first.index(), end.index(), second.index()), (2, 4, 5));
    assert_eq!((first.entry(), end.entry(), second.entry()), (&b"grant 1"[..], &b"end 1"[..], &b"grant 2"[..]));
    assert_eq!(first.leaf_hash(), &leaf_hash(b"grant 1"));
    for (proof, entry, index) in
        [(first.proof(), "grant 1", 2), (end.proof(), "end 1", 4), (second.proof(), "grant 2", 5)]
    {
        assert_eq!(disk.verifier().verify_proof(&proof, entry.as_bytes()), Ok((index, head)));
        assert!(disk.verifier().verify_proof(&proof, b"grant 3").is_err());
    }
}

#[test]
fn a_ticket_is_worth_nothing_before_its_commit() {
    let (mut disk, mut log) = started();
    let mut batch = Batch::new();
    let ticket = batch.stage(Grant(1)).unwrap();
    let ticket = ticket.redeem().unwrap_err();
    // Another batch is not this one.
    log.commit(self::batch(&[b"other"]), &mut disk).unwrap();
    let ticket = ticket.redeem().unwrap_err();
    log.commit(batch, &mut disk).unwrap();
    assert_eq!(ticket.redeem().unwrap().index(), 3);

    let mut dropped = Batch::new();
    let ticket = dropped.stage(Grant(2)).unwrap();
    drop(dropped);
    assert!(ticket.redeem().is_err());
}

#[test]
fn a_failure_at_any_step_stops_the_log_and_frees_no_decision() {
    for step in [Step::Append, Step::Commit, Step::Sign, Step::Publish] {
        let (mut disk, mut log) = started();
        let before = log.head();
        disk.fails_at = Some(step);
        let mut batch = Batch::new();
        let ticket: Ticket<Grant> = batch.stage(Grant(1)).unwrap();
        let error = log.commit(batch, &mut disk).unwrap_err();
        let expected = match step {
            Step::Append => LogError::Append(step),
            Step::Commit => LogError::Commit(step),
            Step::Sign => LogError::Sign(step),
            Step::Publish => LogError::Publish(step),
        };
        assert_eq!(error, expected);
        assert_eq!(disk.steps.last(), Some(&step), "nothing is asked after a failure");
        assert!(ticket.redeem().is_err());
        assert_eq!(log.head(), before);

        disk.fails_at = None;
        let steps = disk.steps.len();
        let mut batch = Batch::new();
        let ticket = batch.stage(Grant(2)).unwrap();
        assert_eq!(log.commit(batch, &mut disk), Err(LogError::Stopped));
        assert_eq!(disk.steps.len(), steps);
        assert!(ticket.redeem().is_err());
    }
}

#[test]
fn a_run_that_fails_at_its_start_is_gone() {
    for step in [Step::Append, Step::Commit, Step::Sign, Step::Publish] {
        let mut disk = Disk::new();
        disk.fails_at = Some(step);
        assert!(ClosedLog::empty().start(disk.verifier(), batch(&[GENESIS]), &mut disk).is_err());
        assert_eq!(disk.steps.last(), Some(&step));
    }
}

#[test]
fn a_signature_that_does_not_verify_stops_the_log() {
    let (mut disk, mut log) = started();
    disk.signs_wrongly = true;
    let error = log.commit(batch(&[b"a"]), &mut disk);
    assert_eq!(error, Err(LogError::Signature(NoteError::Signature)));
    assert_eq!(disk.published.len(), 1);
    disk.signs_wrongly = false;
    assert_eq!(log.commit(batch(&[b"a"]), &mut disk), Err(LogError::Stopped));
}

#[test]
fn a_panic_of_the_writer_stops_the_log() {
    let (mut disk, mut log) = started();
    disk.entries.clear();
    let commit = std::panic::AssertUnwindSafe(|| log.commit(batch(&[b"a"]), &mut disk));
    assert!(std::panic::catch_unwind(commit).is_err());
    assert_eq!(log.commit(batch(&[b"a"]), &mut disk), Err(LogError::Stopped));
}

#[test]
fn a_log_signs_only_for_the_vault_of_its_entry_0() {
    let mut disk = Disk::new();
    let start = |disk: &mut Disk, log: ClosedLog, first| log.start(disk.verifier(), first, disk).map(drop);
    assert_eq!(start(&mut disk, ClosedLog::empty(), batch(&[b"other genesis"])), Err(LogError::OtherVault));
    assert_eq!(start(&mut disk, ClosedLog::empty(), Batch::new()), Err(LogError::OtherVault));
    let mut tree = Tree::new();
    tree.push(leaf_hash(b"other genesis"));
    let head = Checkpoint { size: 1, root: tree.root(1).unwrap() };
    let other = ClosedLog::open(["other genesis"], head).unwrap();
    assert_eq!(start(&mut disk, other, batch(&[GENESIS])), Err(LogError::OtherVault));
    assert!(disk.steps.is_empty());
}

#[test]
fn a_log_is_opened_where_it_was_left() {
    let (mut disk, mut log) = started();
    log.commit(batch(&[b"a", b"b"]), &mut disk).unwrap();
    let head = disk.head();
    // Written but never committed: a run was killed in between.
    disk.entries.push(b"uncommitted".to_vec());

    let closed = ClosedLog::open(&disk.entries, head).unwrap();
    let log = closed.start(disk.verifier(), batch(&[b"start"]), &mut disk).unwrap();
    assert_eq!(log.head().size, 5);
    assert_eq!(disk.entries[4], b"start");
    let proof = log.consistency(4).unwrap();
    assert_eq!(verify_consistency(4, 5, &proof, &head.root, &log.head().root), Ok(()));
    assert_eq!(disk.verifier().verify_proof(&log.proof(2).unwrap(), b"a").map(|(index, _)| index), Ok(2));
    assert_eq!(log.proof(5), Err(MerkleError::IndexPastSize { index: 5, size: 5 }));
}

#[test]
fn entries_that_are_not_those_of_the_head_are_refused() {
    let (mut disk, mut log) = started();
    log.commit(batch(&[b"a", b"b"]), &mut disk).unwrap();
    let (head, good) = (disk.head(), disk.entries.clone());
    let open = |entries: &[Vec<u8>]| ClosedLog::open(entries, head).map(drop);
    assert_eq!(open(&good), Ok(()));
    assert_eq!(open(&good[..3]), Err(OpenError::Size { expected: 4, found: 3 }));
    for at in 0..4 {
        let mut entries = good.clone();
        entries[at].push(b' ');
        assert_eq!(open(&entries), Err(OpenError::Root), "entry {at}");
    }
    let mut swapped = good.clone();
    swapped.swap(2, 3);
    assert_eq!(open(&swapped), Err(OpenError::Root));
    let mut reader = LogReader::new(head);
    good.iter().for_each(|entry| reader.push(entry).unwrap());
    assert_eq!(reader.push(b"one more"), Err(OpenError::Size { expected: 4, found: 5 }));
    assert!(reader.finish().is_ok());
    let huge = Checkpoint { size: u64::MAX, root: head.root };
    assert_eq!(ClosedLog::open(&good, huge).map(drop), Err(OpenError::Size { expected: u64::MAX, found: 4 }));
    let empty = Checkpoint { size: 0, root: head.root };
    assert_eq!(ClosedLog::open(&good, empty).map(drop), Err(OpenError::Root));
}

#[test]
fn a_batch_and_its_entries_have_limits() {
    let mut batch = Batch::new();
    batch.stage(Long(ENTRY_BYTES_MAX)).map(drop).unwrap();
    let bytes = ENTRY_BYTES_MAX + 1;
    assert_eq!(batch.stage(Long(bytes)).map(drop), Err(StageError::EntryTooLong { bytes }));
    assert_eq!(batch.add(vec![0; bytes]), Err(StageError::EntryTooLong { bytes }));
    while !batch.is_full() {
        batch.add(vec![]).unwrap();
    }
    assert_eq!(batch.len(), BATCH_ENTRIES_MAX);
    assert_eq!(batch.add(vec![]), Err(StageError::BatchFull));
    assert_eq!(batch.stage(Grant(1)).map(drop), Err(StageError::BatchFull));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// However decisions are grouped, each has a proof that verifies, and the log opens to the same head.
    #[test]
    fn any_grouping_gives_every_decision_its_proof(groups in prop::collection::vec(0usize..9, 1..12)) {
        let (mut disk, mut log) = started();
        let mut number = 0;
        for group in groups {
            let mut batch = Batch::new();
            let tickets: Vec<_> = (0..group).map(|_| { number += 1; batch.stage(Grant(number)).unwrap() }).collect();
            let before = log.head();
            let head = log.commit(batch, &mut disk).unwrap();
            let path = log.consistency(before.size).unwrap();
            prop_assert_eq!(head.verify_continues(&before, &path), Ok(()));
            for ticket in tickets {
                let logged = ticket.redeem().unwrap();
                let entry = logged.value().entry_bytes();
                let proven = disk.verifier().verify_proof(&logged.proof(), &entry);
                prop_assert_eq!(proven, Ok((logged.index(), head)));
                prop_assert_eq!(&disk.entries[logged.index() as usize], &entry);
            }
        }
        prop_assert!(ClosedLog::open(&disk.entries, log.head()).is_ok());
    }
}
