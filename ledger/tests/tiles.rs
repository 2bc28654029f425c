//! Tiles and bundles of a log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use ledger::merkle::{Tree, leaf_hash, node_hash};
use ledger::tiles::{TILE_WIDTH, Tile, TileError, TileKind, changed_tiles, decode_bundle, encode_bundle};
use proptest::prelude::*;

fn paths(from: u64, to: u64) -> Vec<String> {
    changed_tiles(from, to).map(|tile| tile.to_string()).collect()
}

fn tree(size: u64) -> Tree {
    let mut tree = Tree::new();
    (0..size).for_each(|i| tree.push(leaf_hash(&i.to_be_bytes())));
    tree
}

#[test]
fn paths_are_those_of_the_specification() {
    let path = |path: &str| path.parse::<Tile>().map(|tile| (tile.kind(), tile.index(), tile.width()));
    assert_eq!(path("tile/0/x001/x234/067"), Ok((TileKind::Hashes(0), 1_234_067, 256)));
    assert_eq!(path("tile/63/000.p/255"), Ok((TileKind::Hashes(63), 0, 255)));
    assert_eq!(path("tile/entries/x001/000.p/1"), Ok((TileKind::Entries, 1000, 1)));
    assert_eq!(path("tile/2/x018/x446/x744/x073/x709/x551/615"), Ok((TileKind::Hashes(2), u64::MAX, 256)));
}

#[test]
fn any_other_path_is_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001/234",
        "tile/0/x001",
        "tile/0/x001/x234",
        "tile/0/X001/234",
        "tile/00/000",
        "tile/-1/000",
        "tile/a/000",
        "tile/Entries/000",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/../000",
        "tile/0/000 ",
        "tile/0/000.p",
        "tile//000",
        "tile/0/x1/000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/٠٠٠",
        "tile/0/000\n",
    ] {
        assert_eq!(path.parse::<Tile>(), Err(TileError::Path), "{path:?}");
    }
    let long = format!("tile/0/{}000", "x000/".repeat(10_000));
    assert_eq!(long.parse::<Tile>(), Err(TileError::Path));
    for level in ["64", "256", "18446744073709551615"] {
        assert_eq!(format!("tile/{level}/000").parse::<Tile>(), Err(TileError::Level), "{level}");
    }
    for width in ["", "0", "256", "01", "1/", "-1", "1.p/1"] {
        assert_eq!(format!("tile/0/000.p/{width}").parse::<Tile>(), Err(TileError::Width), "{width}");
    }
}

#[test]
fn the_tiles_of_a_log_are_those_of_the_specification() {
    // Its own examples: 70,000 and 256 entries.
    let tiles: Vec<Tile> = changed_tiles(0, 70_000).collect();
    let count = |kind, full| tiles.iter().filter(|t| t.kind() == kind && (t.width() == TILE_WIDTH) == full).count();
    assert_eq!((count(TileKind::Hashes(0), true), count(TileKind::Hashes(0), false)), (273, 1));
    assert_eq!((count(TileKind::Hashes(1), true), count(TileKind::Hashes(1), false)), (1, 1));
    assert_eq!((count(TileKind::Hashes(2), true), count(TileKind::Hashes(2), false)), (0, 1));
    assert_eq!((count(TileKind::Entries, true), count(TileKind::Entries, false)), (273, 1));
    assert!(paths(0, 70_000).contains(&"tile/0/273.p/112".to_owned()));
    assert!(paths(0, 70_000).contains(&"tile/1/001.p/17".to_owned()));
    assert_eq!(paths(0, 256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(paths(0, 1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
    assert_eq!(paths(7, 7), Vec::<String>::new());
    assert_eq!(paths(7, 6), Vec::<String>::new());
    let last = paths(u64::MAX - 1, u64::MAX);
    assert_eq!(last.len(), 2);
    assert!(last[1].ends_with(".p/255"));
}

#[test]
fn a_tile_holds_the_nodes_of_its_level() {
    let tree = tree(70_000);
    let hashes = |path: &str| path.parse::<Tile>().unwrap().hashes(&tree);
    let first = hashes("tile/0/000").unwrap();
    assert_eq!(first.len(), 8192);
    assert_eq!(first[32..64], leaf_hash(&1u64.to_be_bytes()));
    // Each hash of level 1 is the root of a whole tile of level 0.
    let mut level: Vec<[u8; 32]> = first.chunks(32).map(|hash| hash.try_into().unwrap()).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    assert_eq!(hashes("tile/1/000").unwrap()[..32], level[0]);
    assert_eq!(hashes("tile/2/000.p/1").unwrap().len(), 32);
    for absent in ["tile/0/273", "tile/0/273.p/113", "tile/2/000.p/2", "tile/3/000.p/1", "tile/63/000.p/1"] {
        assert_eq!(hashes(absent), None, "{absent}");
    }
    assert_eq!(hashes("tile/0/x018/x446/x744/x073/x709/x551/615"), None);
    assert_eq!(hashes("tile/entries/000"), None);
}

#[test]
fn a_bundle_gives_back_its_entries() {
    let entries = [b"abc".to_vec(), vec![], vec![7; 65_535]];
    let bundle = encode_bundle(&entries).unwrap();
    assert_eq!(&bundle[..7], b"\0\x03abc\0\0");
    assert_eq!(decode_bundle(&bundle, 3).unwrap(), entries);
}

#[test]
fn a_bundle_that_is_not_exactly_its_entries_is_refused() {
    let bundle = encode_bundle(&["abc", "d"]).unwrap();
    assert_eq!(decode_bundle(&bundle, 1), Err(TileError::BundleLength));
    assert_eq!(decode_bundle(&bundle, 3), Err(TileError::BundleLength));
    assert_eq!(decode_bundle(&bundle[..bundle.len() - 1], 2), Err(TileError::BundleLength));
    assert_eq!(decode_bundle(&[bundle.as_slice(), &[0]].concat(), 2), Err(TileError::BundleLength));
    assert_eq!(decode_bundle(&[], 0), Err(TileError::EntryCount));
    assert_eq!(decode_bundle(&[0; 514], 257), Err(TileError::EntryCount));
    assert_eq!(encode_bundle::<&[u8]>(&[]), Err(TileError::EntryCount));
    assert_eq!(encode_bundle(&[""; 257]), Err(TileError::EntryCount));
    assert_eq!(encode_bundle(&[vec![0; 65_536]]), Err(TileError::EntryTooLong));
}

proptest! {
    #[test]
    fn a_path_is_its_tile(level in 0u8..=63, index: u64, width in 1u16..=256) {
        let suffix = if width < 256 { format!(".p/{width}") } else { String::new() };
        let mut path = format!("{:03}", index % 1000);
        let mut rest = index / 1000;
        while rest > 0 {
            path = format!("x{:03}/{path}", rest % 1000);
            rest /= 1000;
        }
        let path = format!("tile/{level}/{path}{suffix}");
        let tile: Tile = path.parse().unwrap();
        prop_assert_eq!((tile.kind(), tile.index(), tile.width()), (TileKind::Hashes(level), index, width));
        prop_assert_eq!(tile.to_string(), path);
    }

    #[test]
    fn any_text_is_a_path_or_refused(text in "tile/[0-9]{0,2}/[x0-9/]{0,12}(\\.p/)?[0-9]{0,3}") {
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text);
        }
    }

    #[test]
    fn any_bytes_are_a_bundle_or_refused(bytes in prop::collection::vec(0u8..4, 0..40), width in 0u16..9) {
        if let Ok(entries) = decode_bundle(&bytes, width) {
            prop_assert_eq!(entries.len(), usize::from(width));
            prop_assert_eq!(encode_bundle(&entries), Ok(bytes.clone()));
        }
    }

    /// Writing only what changed, step by step, leaves the same files as writing all at once.
    #[test]
    fn steps_write_what_one_stride_writes(steps in prop::collection::vec(1u64..700, 1..5)) {
        let tree = tree(steps.iter().sum());
        let mut files = BTreeMap::new();
        let mut size = 0;
        for step in steps {
            for tile in changed_tiles(size, size + step) {
                files.insert((tile.kind(), tile.index()), (tile.width(), tile.hashes(&tree)));
            }
            size += step;
        }
        let at_once = changed_tiles(0, size);
        let expected: BTreeMap<_, _> =
            at_once.map(|tile| ((tile.kind(), tile.index()), (tile.width(), tile.hashes(&tree)))).collect();
        prop_assert!(expected.iter().all(|(at, (_, hashes))| hashes.is_some() || at.0 == TileKind::Entries));
        prop_assert_eq!(files, expected);
    }
}
