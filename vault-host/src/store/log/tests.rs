use std::fs;

use ledger::merkle::leaf_hash;
use ledger::tiles::{Tile, decode_bundle};

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Result<(Log, u64), StoreError> {
        Log::open(self.0.path().join("log"), Scratch::open(self.0.path().join("tmp")).unwrap())
    }

    fn log(&self) -> Log {
        self.open().unwrap().0
    }

    fn segment(&self, n: u64) -> PathBuf {
        self.0.path().join(format!("log/entries/{n:012}"))
    }
}

fn entries(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(|n| format!("entry {n}").into_bytes()).collect()
}

fn root(size: u64) -> Hash {
    let mut tree = Tree::new();
    entries(0..size).iter().for_each(|entry| tree.push(leaf_hash(entry)));
    tree.root(size).unwrap()
}

fn checkpoint(size: u64) -> String {
    format!("weightvault.v1/00\n{size}\n{}\n\n— k sig\n", STANDARD.encode(root(size)))
}

fn commit(log: &mut Log, size: u64) {
    put(log, &checkpoint(size), size).unwrap();
}

fn put(log: &mut Log, text: &str, size: u64) -> Result<(), StoreError> {
    log.put_checkpoint(text, size, |_| Ok(()))
}

fn tile(log: &Log, path: &str) -> Option<Vec<u8>> {
    log.tiles().tile(log.committed(), &path.parse::<Tile>().unwrap()).unwrap()
}

#[test]
fn entries_come_back_after_a_restart_across_segments() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..200)).unwrap();
    log.append(200, &entries(200..700)).unwrap();
    drop(log);
    let (log, cut) = place.open().unwrap();
    assert_eq!((log.size(), cut), (700, 0));
    assert_eq!(log.read(0, 4096).unwrap(), entries(0..700));
    assert_eq!(log.read(250, 10).unwrap(), entries(250..260));
    assert_eq!(log.read(700, 10).unwrap(), entries(0..0));
    assert_eq!(log.read(u64::MAX, 10).unwrap(), entries(0..0));
}

#[test]
fn a_commit_of_any_size_gives_the_same_tiles_and_entries() {
    for steps in [vec![1, 2, 255, 256, 257, 700], vec![700], vec![256, 512, 513, 700], vec![3, 3, 600, 700]] {
        let place = Place::new();
        let mut log = place.log();
        let mut size = 0;
        for step in steps {
            log.append(size, &entries(size..step)).unwrap();
            commit(&mut log, step);
            size = step;
            drop(log);
            log = place.log();
            assert_eq!((log.size(), log.committed()), (step, step));
        }
        assert_eq!(log.read(0, 4096).unwrap(), entries(0..700));
        let leaves: Vec<u8> = entries(0..256).iter().flat_map(|entry| leaf_hash(entry)).collect();
        assert_eq!(tile(&log, "tile/0/000"), Some(leaves.clone()));
        assert_eq!(tile(&log, "tile/0/000.p/255"), Some(leaves[..255 * 32].to_vec()));
        assert_eq!(tile(&log, "tile/1/000.p/2").unwrap().len(), 64);
        let bundle = tile(&log, "tile/entries/002.p/188").unwrap();
        assert_eq!(decode_bundle(&bundle, 188).unwrap(), entries(512..700));
        let narrower = tile(&log, "tile/entries/002.p/5").unwrap();
        assert_eq!(decode_bundle(&narrower, 5).unwrap(), entries(512..517));
        for none in ["tile/entries/002.p/189", "tile/entries/002", "tile/entries/003.p/1", "tile/1/000", "tile/9/000"] {
            assert_eq!(tile(&log, none), None, "{none}");
        }
        // Only what is needed stays: segments of full bundles and narrower tiles are gone.
        assert!(!place.segment(1).exists() && place.segment(2).exists());
        let partial = fs::read_dir(place.0.path().join("log/tile/entries/002.p")).unwrap();
        assert_eq!(partial.count(), 1);
        assert!(!place.0.path().join("log/tile/entries/001.p").exists());
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let place = Place::new();
    place.log().append(0, &entries(0..3)).unwrap();
    let whole = fs::read(place.segment(0)).unwrap();
    let third = whole.len() - (4 + 32 + "entry 2".len());
    for length in third + 1..whole.len() {
        fs::write(place.segment(0), &whole[..length]).unwrap();
        let (log, cut) = place.open().unwrap();
        assert_eq!((log.size(), cut), (2, (length - third) as u64));
        assert_eq!(log.read(0, 10).unwrap(), entries(0..2));
    }
    // A file that was extended but never written, and one whose last page was lost.
    fs::write(place.segment(0), [&whole[..], &[0; 4096]].concat()).unwrap();
    assert_eq!(place.log().size(), 3);
    let mut zeroed = whole.clone();
    zeroed[third + 20..].fill(0);
    fs::write(place.segment(0), zeroed).unwrap();
    assert_eq!(place.log().size(), 2);
}

#[test]
fn what_follows_a_cut_is_dropped_too() {
    let place = Place::new();
    place.log().append(0, &entries(0..600)).unwrap();
    let whole = fs::read(place.segment(1)).unwrap();
    fs::write(place.segment(1), &whole[..whole.len() - 1]).unwrap();
    let mut log = place.log();
    assert_eq!(log.size(), 511);
    assert!(!place.segment(2).exists());
    log.append(511, &entries(511..600)).unwrap();
    drop(log);
    assert_eq!(place.log().read(500, 4096).unwrap(), entries(500..600));
}

#[test]
fn a_tail_above_the_checkpoint_can_be_replaced_and_nothing_below() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..300)).unwrap();
    commit(&mut log, 300);
    log.append(300, &vec![b"of a keeper that died".to_vec(); 400]).unwrap();
    log.append(300, &entries(300..301)).unwrap();
    assert_eq!(log.size(), 301);
    drop(log);
    let mut log = place.log();
    assert_eq!(log.read(0, 4096).unwrap(), entries(0..301));
    let refused = log.append(299, &entries(299..300));
    assert!(matches!(refused, Err(StoreError::UnderCheckpoint { first: 299, committed: 300 })));
    let refused = log.append(302, &entries(302..303));
    assert!(matches!(refused, Err(StoreError::LogGap { first: 302, size: 301 })));
    assert_eq!(log.read(0, 4096).unwrap(), entries(0..301));
}

#[test]
fn entries_of_a_wrong_size_are_refused_and_nothing_is_written() {
    let place = Place::new();
    let mut log = place.log();
    for bytes in [0, ENTRY_BYTES_MAX + 1] {
        let refused = log.append(0, &[b"good".to_vec(), vec![7; bytes]]);
        assert!(matches!(refused, Err(StoreError::EntrySize { bytes: found }) if found == bytes));
    }
    let refused = log.append(0, &vec![vec![7; ENTRY_BYTES_MAX]; 513]);
    assert!(matches!(refused, Err(StoreError::CallTooLarge)));
    assert!(matches!(log.read(0, READ_LOG_MAX + 1), Err(StoreError::CallTooLarge)));
    assert_eq!(log.size(), 0);
}

#[test]
fn a_reading_is_bounded_by_bytes_but_gets_on() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &vec![vec![7; ENTRY_BYTES_MAX]; 512]).unwrap();
    log.append(512, &vec![vec![7; ENTRY_BYTES_MAX]; 512]).unwrap();
    assert_eq!(log.read(0, 4096).unwrap().len(), 512);
    assert_eq!(log.read(512, 4096).unwrap().len(), 512);
}

#[test]
fn a_checkpoint_that_does_not_fit_the_entries_is_refused() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..10)).unwrap();
    commit(&mut log, 5);
    let refused = put(&mut log, &checkpoint(11), 11);
    assert!(matches!(refused, Err(StoreError::CheckpointSize { size: 11, committed: 5, stored: 10 })));
    assert!(matches!(put(&mut log, &checkpoint(4), 4), Err(StoreError::CheckpointSize { .. })));
    assert!(matches!(put(&mut log, &checkpoint(8), 9), Err(StoreError::CheckpointSize { .. })));
    for text in ["", "weightvault.v1/00\n7\n", "weightvault.v1/00\nseven\nAAAA\n", &"x\n".repeat(40_000)] {
        assert!(matches!(put(&mut log, text, 7), Err(StoreError::CheckpointForm)));
    }
    let other_root = checkpoint(8).replace("\n8\n", "\n9\n");
    assert!(matches!(put(&mut log, &other_root, 9), Err(StoreError::CheckpointRoot)));
    // The refusals changed nothing: a smaller checkpoint than the refused ones still fits.
    assert_eq!(log.checkpoint().map(|checkpoint| checkpoint.text.clone()), Some(checkpoint(5)));
    commit(&mut log, 7);
    assert_eq!(log.committed(), 7);
}

#[test]
fn damage_below_the_checkpoint_is_refused_at_the_start() {
    let damage = |change: &dyn Fn(&Place)| {
        let place = Place::new();
        let mut log = place.log();
        log.append(0, &entries(0..300)).unwrap();
        commit(&mut log, 300);
        drop(log);
        change(&place);
        assert!(matches!(place.open(), Err(StoreError::Damaged { .. })));
    };
    damage(&|place| fs::remove_file(place.segment(1)).unwrap());
    damage(&|place| fs::write(place.segment(1), b"").unwrap());
    damage(&|place| fs::remove_file(place.0.path().join("log/tile/0/000")).unwrap());
    damage(&|place| fs::write(place.0.path().join("log/tile/0/000"), [7; 256 * 32]).unwrap());
    damage(&|place| fs::write(place.0.path().join("log/checkpoint"), b"x").unwrap());
    damage(&|place| fs::write(place.0.path().join("log/checkpoint"), checkpoint(299)).unwrap());
}

#[test]
fn a_crash_between_tiles_and_checkpoint_is_nothing() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..600)).unwrap();
    commit(&mut log, 300);
    let before = fs::read(place.0.path().join("log/checkpoint")).unwrap();
    let segment = fs::read(place.segment(1)).unwrap();
    commit(&mut log, 600);
    drop(log);
    // As it was before the checkpoint was written and what it replaced was removed, with the new tiles there.
    fs::write(place.0.path().join("log/checkpoint"), before).unwrap();
    fs::write(place.segment(1), segment).unwrap();
    for (kind, width) in [("entries", 44), ("0", 44)] {
        let full = fs::read(place.0.path().join(format!("log/tile/{kind}/001"))).unwrap();
        let narrow = match kind {
            "0" => full[..32 * width].to_vec(),
            _ => ledger::tiles::encode_bundle(&decode_bundle(&full, 256).unwrap()[..width]).unwrap(),
        };
        let partial = place.0.path().join(format!("log/tile/{kind}/001.p"));
        fs::create_dir_all(&partial).unwrap();
        fs::write(partial.join(width.to_string()), narrow).unwrap();
    }
    let mut log = place.log();
    assert_eq!((log.committed(), log.size()), (300, 600));
    commit(&mut log, 600);
    assert_eq!(log.read(0, 4096).unwrap(), entries(0..600));
}

#[test]
fn a_failed_write_that_could_not_be_undone_stops_the_log_until_it_is_opened_again() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..SEGMENT_ENTRIES)).unwrap();
    // The next segment can't be made, nor what came before be made durable.
    let (dir, away) = (place.0.path().join("log/entries"), place.0.path().join("away"));
    fs::rename(&dir, &away).unwrap();
    let next = entries(SEGMENT_ENTRIES..SEGMENT_ENTRIES + 1);
    let failed = log.append(SEGMENT_ENTRIES, &next).unwrap_err();
    assert!(matches!(failed, StoreError::Io { .. }), "{failed:?}");
    fs::rename(&away, &dir).unwrap();
    assert!(matches!(log.append(SEGMENT_ENTRIES, &next), Err(StoreError::LogStopped)));
    drop(log);
    let mut log = place.log();
    log.append(SEGMENT_ENTRIES, &next).unwrap();
    commit(&mut log, SEGMENT_ENTRIES + 1);
}

#[test]
fn what_witnesses_are_asked_about_is_kept_though_its_keeper_never_publishes_it() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..10)).unwrap();
    commit(&mut log, 10);
    // One keeper's entries, which nobody has signed, make room for another's.
    log.append(10, &[b"another".to_vec()]).unwrap();
    assert!(matches!(log.propose(&checkpoint(11), 11), Err(StoreError::CheckpointRoot)));
    assert!(matches!(log.propose(&checkpoint(12), 12), Err(StoreError::CheckpointSize { .. })));
    assert!(matches!(log.propose(&checkpoint(9), 9), Err(StoreError::CheckpointSize { .. })));
    assert!(matches!(log.propose(&checkpoint(10), 11), Err(StoreError::CheckpointSize { .. })));
    log.append(10, &entries(10..12)).unwrap();
    log.propose(&checkpoint(12), 12).unwrap();
    for first in [10, 11] {
        let refused = log.append(first, &[b"another".to_vec()]);
        assert!(matches!(refused, Err(StoreError::UnderCheckpoint { committed: 12, .. })));
    }
    assert_eq!((log.committed(), log.proposed().unwrap().text.as_str()), (10, checkpoint(12).as_str()));
    drop(log);
    // Whoever comes next finds it, proposes it again, and goes on behind it.
    let mut log = place.log();
    assert_eq!(log.proposed().unwrap().size, 12);
    assert!(log.append(11, &[b"another".to_vec()]).is_err());
    log.propose(&checkpoint(12), 12).unwrap();
    log.append(12, &entries(12..300)).unwrap();
    log.propose(&checkpoint(300), 300).unwrap();
    commit(&mut log, 300);
    assert!(log.proposed().is_none());
    // Of what is published there is nothing to keep.
    log.propose(&checkpoint(300), 300).unwrap();
    assert!(log.proposed().is_none());
    drop(log);
    let mut log = place.log();
    assert!(log.proposed().is_none());
    assert_eq!((log.committed(), log.read(0, 4096).unwrap()), (300, entries(0..300)));
    log.append(300, &entries(300..301)).unwrap();
    commit(&mut log, 301);
}

#[test]
fn nothing_is_cut_where_entries_under_the_checkpoint_are_damaged() {
    let place = Place::new();
    let mut log = place.log();
    log.append(0, &entries(0..300)).unwrap();
    commit(&mut log, 260);
    drop(log);
    let good = fs::read(place.segment(1)).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    fs::write(place.segment(1), &bad).unwrap();
    fs::copy(place.segment(1), place.segment(2)).unwrap();
    assert!(matches!(place.open(), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read(place.segment(1)).unwrap(), bad);
    assert!(place.segment(2).exists());
    // Who brings the byte back has all of it.
    fs::write(place.segment(1), &good).unwrap();
    let (log, cut) = place.open().unwrap();
    assert_eq!((log.size(), cut), (300, 0));
}
