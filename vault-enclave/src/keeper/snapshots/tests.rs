use std::path::PathBuf;

use ledger::merkle::leaf_hash;
use ledger::snapshot::FOLD;
use tokio::sync::mpsc;
use vault_proto::v1::{
    AttachResponse, EntryList, StoreResult, attach_response, store_call::Call, store_result::Result as Answer,
};

use super::*;
use crate::keeper::link::StoreError;

/// A log with every type of entry.
fn log() -> Vec<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ledger/tests/governance/data/fold.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

/// The same, but for one number in an entry that no other depends on.
fn fork() -> (Vec<Vec<u8>>, usize) {
    let mut log = log();
    let at = log.iter().position(|entry| entry.windows(14).any(|part| part == b"pcr-mismatch\":")).unwrap();
    let text = String::from_utf8(log[at].clone()).unwrap();
    log[at] = text.replace("\"pcr-mismatch\":3", "\"pcr-mismatch\":4").into_bytes();
    (log, at)
}

fn folded(entries: &[Vec<u8>]) -> (State, Tree) {
    let (mut state, mut tree) = (State::new(), Tree::new());
    for entry in entries {
        state.apply(state.size(), entry).unwrap();
        tree.push(leaf_hash(entry));
    }
    (state, tree)
}

fn head(entries: &[Vec<u8>]) -> Checkpoint {
    let tree = folded(entries).1;
    Checkpoint { size: tree.len(), root: tree.root(tree.len()).unwrap() }
}

/// A host that has these entries.
fn host(entries: Vec<Vec<u8>>) -> Store {
    let store = Store::default();
    let (frames, mut asked) = mpsc::channel::<AttachResponse>(8);
    let number = store.attach(frames);
    let answers = store.clone();
    std::thread::spawn(move || {
        while let Some(AttachResponse { id, kind: Some(attach_response::Kind::StoreCall(call)) }) =
            asked.blocking_recv()
        {
            let Some(Call::ReadLog(read)) = call.call else { panic!("nothing else is asked") };
            let (first, count) = (usize::try_from(read.first).unwrap(), read.count as usize);
            // A few at a time, as a host does with long entries.
            let entries = entries.iter().skip(first).take(count.min(7)).cloned().collect();
            answers.answer(number, id, StoreResult { result: Some(Answer::Entries(EntryList { entries })) });
        }
    });
    store
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE)
    }

    fn snapshots(&self) -> Snapshots {
        self.under([7; 32])
    }

    fn under(&self, key: [u8; 32]) -> Snapshots {
        Snapshots::new(
            Arc::new(KeeperDir::open(self.0.path()).unwrap()),
            SnapshotKey::known(key),
            AntiRollback::Counter,
        )
    }

    /// One of these entries.
    fn with(entries: &[Vec<u8>]) -> Self {
        let place = Self::new();
        let (state, tree) = folded(entries);
        place.snapshots().write(&state, &tree);
        assert!(place.file().exists());
        place
    }
}

fn open(snapshots: &Snapshots, host: &Store, entries: &[Vec<u8>]) -> Result<State, OpenError> {
    snapshots.fold(host, head(entries), |_| true).map(|(state, log)| {
        assert_eq!(log.tree().root(state.size()).unwrap(), head(entries).root);
        state
    })
}

fn refusal(place: &Place, head: Checkpoint) -> SnapshotError {
    place.snapshots().shared.read(head).expect_err("it is of no use")
}

/// However old it is.
#[test]
fn a_start_from_a_snapshot_has_the_state_of_a_whole_fold() {
    let log = log();
    let whole = format!("{:?}", folded(&log).0);
    for cut in 1..=log.len() {
        let place = Place::with(&log[..cut]);
        let snapshots = place.snapshots();
        let read = snapshots.shared.read(head(&log)).unwrap().unwrap();
        assert_eq!(read.state.size(), cut as u64);
        let state = open(&snapshots, &host(log.clone()), &log).unwrap();
        assert_eq!(format!("{state:?}"), whole, "from {cut}");
    }
}

#[test]
fn a_snapshot_that_was_changed_anywhere_is_passed_over() {
    let log = log();
    let place = Place::with(&log[..20]);
    let good = std::fs::read(place.file()).unwrap();
    let tag = b"weightvault/v1 snapshot\0".len();
    let fold = tag + 4;
    let vault = fold + FOLD.len() + 4;
    let (size, root) = (vault + 32 + 4, vault + 32 + 4 + 8 + 4);
    let message = root + 32;
    let cases = [
        (0, "snapshot-none"),
        (tag, "snapshot-none"),
        (fold, "snapshot-other-fold"),
        (vault - 1, "snapshot-none"),
        (vault, "snapshot-damaged"),
        (size + 7, "snapshot-damaged"),
        (root, "snapshot-damaged"),
        (message, "snapshot-damaged"),
        (message + 24, "snapshot-damaged"),
        (message + 56, "snapshot-damaged"),
        (good.len() - 1, "snapshot-damaged"),
    ];
    for (at, code) in cases {
        let mut changed = good.clone();
        changed[at] ^= 1;
        std::fs::write(place.file(), changed).unwrap();
        assert_eq!(refusal(&place, head(&log)).code(), code, "byte {at}");
        // The log is there all the same.
        open(&place.snapshots(), &host(log.clone()), &log).unwrap();
    }
    for length in [0, tag, fold, vault, root, message, message + 60, good.len() - 1] {
        std::fs::write(place.file(), &good[..length]).unwrap();
        let code = refusal(&place, head(&log)).code();
        assert_eq!(code, if length < message { "snapshot-none" } else { "snapshot-damaged" }, "{length} bytes");
        open(&place.snapshots(), &host(log.clone()), &log).unwrap();
    }
}

#[test]
fn a_snapshot_of_another_keeper_or_vault_is_passed_over() {
    let log = log();
    let place = Place::with(&log[..20]);
    let other = place.under([8; 32]);
    assert_eq!(other.shared.read(head(&log)).unwrap_err().code(), "snapshot-damaged");
    open(&other, &host(log.clone()), &log).unwrap();
    drop(other);
    // Sealed under the key, and of a genesis that is not the keeper's.
    let snapshots = place.snapshots();
    assert!(snapshots.usable(head(&log), |_| true).unwrap().is_some());
    assert!(snapshots.usable(head(&log), |_| false).unwrap().is_none());
    assert_eq!(SnapshotError::OtherVault.code(), "snapshot-other-vault");
}

#[test]
fn a_snapshot_holds_what_it_says() {
    let log = log();
    let ((state, tree), (old_state, old_tree)) = (folded(&log[..20]), folded(&log[..19]));
    let key = SnapshotKey::known([7; 32]);
    let seal = |plain: &[u8]| SnapshotFile::seal(&state, &tree, plain, &key).unwrap();
    let opened = |bytes: &[u8]| SnapshotFile::parse(bytes).unwrap().open(&key).map(|folded| folded.state.size());
    assert_eq!(opened(&seal(&snapshot::encode(&state, &tree).unwrap())).unwrap(), 20);
    let other = opened(&seal(&snapshot::encode(&old_state, &old_tree).unwrap())).unwrap_err();
    assert_eq!(other.code(), "snapshot-other-content");
    assert_eq!(opened(&seal(b"")).unwrap_err().code(), "snapshot-cut");
    // A log without a genesis is of no vault.
    let none = SnapshotFile::seal(&State::new(), &Tree::new(), b"", &key).unwrap_err();
    assert_eq!(none.code(), "snapshot-other-content");
}

/// The keeper wrote it, of a commit that was counted: so the head was put back.
#[test]
fn a_snapshot_that_the_head_does_not_continue_stops_the_keeper() {
    let log = log();
    let place = Place::with(&log[..20]);
    let ahead = open(&place.snapshots(), &host(log.clone()), &log[..19]).unwrap_err();
    assert_eq!(ahead.code(), "snapshot-ahead-of-head");
    let (fork, at) = fork();
    for cut in [at + 1, fork.len()] {
        let place = Place::with(&fork[..cut]);
        let forked = open(&place.snapshots(), &host(log.clone()), &log).unwrap_err();
        assert_eq!(forked.code(), "snapshot-of-fork", "{forked}");
        // Before the fork the two are one.
        open(&Place::with(&fork[..at]).snapshots(), &host(log.clone()), &log).unwrap();
    }
}

#[test]
fn a_log_that_is_not_that_of_the_head_is_found_out_behind_a_snapshot_too() {
    let log = log();
    let (fork, at) = fork();
    let place = Place::with(&log[..at]);
    let other = open(&place.snapshots(), &host(fork), &log).unwrap_err();
    assert_eq!(other.code(), "log-root-mismatch");
    let mut unfit = log.clone();
    unfit[at] = log[0].clone();
    assert_eq!(open(&place.snapshots(), &host(unfit), &log).unwrap_err().code(), "log-fold");
    // A host that has lost its newest entries is told so, though there is nothing left to fold.
    let short = |cut: usize| {
        let place = Place::with(&log[..cut]);
        match place.snapshots().fold(&host(log[..log.len() - 1].to_vec()), head(&log), |_| true) {
            Err(OpenError::Fold(FoldError::Store(StoreError::ShortLog { wanted, has }))) => (wanted, has),
            other => panic!("{:?}", other.map(|(state, _)| state.size())),
        }
    };
    let (all, one_less) = (log.len() as u64, log.len() as u64 - 1);
    assert_eq!((short(log.len()), short(at)), ((all, one_less), (all, one_less)));
    let mut last = log.clone();
    *last.last_mut().unwrap() = log[1].clone();
    let read = Place::with(&log).snapshots().shared.read(head(&log)).unwrap();
    let other = fold::fold(&host(last), head(&log), read, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(other.code(), "log-root-mismatch");
}

#[test]
fn the_next_snapshot_is_made_of_the_last_and_what_came_since() {
    let log = log();
    let place = Place::with(&log[..20]);
    let (mut snapshots, host) = (place.snapshots(), host(log.clone()));
    // Not due: nothing is begun.
    snapshots.follow(head(&log), &host);
    assert!(snapshots.worker.is_none());
    snapshots.shared.due.store(30, Ordering::Relaxed);
    snapshots.follow(head(&log), &host);
    snapshots.worker.take().unwrap().join().unwrap();
    assert_eq!(snapshots.shared.due.load(Ordering::Relaxed), log.len() as u64 + EVERY);
    let made = std::fs::read(place.file()).unwrap();
    let read = snapshots.shared.read(head(&log)).unwrap().unwrap();
    assert_eq!(format!("{:?}", read.state), format!("{:?}", folded(&log).0));
    // The same again is not written again.
    let (state, tree) = folded(&log);
    snapshots.write(&state, &tree);
    assert_eq!(std::fs::read(place.file()).unwrap(), made);
}

#[test]
fn a_snapshot_that_would_be_too_long_is_not_written() {
    let log = log();
    let place = Place::new();
    let mut snapshots = place.snapshots();
    Arc::get_mut(&mut snapshots.shared).unwrap().bytes_max = 1000;
    let (state, tree) = folded(&log);
    assert_eq!(snapshots.shared.write(&state, &tree).unwrap_err().code(), "snapshot-too-long");
    assert!(!place.file().exists());
    // Nor read.
    std::fs::write(place.file(), [0; 1001]).unwrap();
    assert_eq!(snapshots.shared.read(head(&log)).unwrap_err().code(), "keeper-dir-file-too-long");
}
