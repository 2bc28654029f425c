use attestation::Sha256Digest;
use clap::Parser;
use ledger::manifest::{Blake3Digest, ModelId, Plan, PlanUnit, SealedDigests};

use super::*;
use crate::open::UnitTensors;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    part: PartArgs,
}

fn part(options: &[&str]) -> Part {
    Line::try_parse_from([&["load"], options].concat()).unwrap().part.part().unwrap()
}

fn find(options: &[&str], names: &[TensorsOf]) -> Result<Found, Failure> {
    part(options).by_name().unwrap().find(&manifest(), names)
}

/// config; a.safetensors: header, layers 0 and 1; b.safetensors: header, other.
fn manifest() -> Manifest {
    let unit = |file: &str, offset, group: &str| PlanUnit {
        file: file.parse().unwrap(),
        offset,
        length: 10,
        group: group.parse().unwrap(),
    };
    let (a, b) = ("a.safetensors", "b.safetensors");
    let units = [
        (a, 0, "header"),
        (a, 10, "layer.0"),
        (a, 20, "layer.1"),
        (b, 0, "header"),
        (b, 10, "other"),
        ("config.json", 0, "files"),
    ];
    let plan = Plan::new(units.map(|(file, offset, group)| unit(file, offset, group)).to_vec()).unwrap();
    let digest = SealedDigests { sha256: Sha256Digest::of(b""), blake3: Blake3Digest::from_bytes([0; 32]) };
    let id = ModelId {
        vault: Sha256Digest::of(b"vault"),
        model: "m".parse().unwrap(),
        version: "1".parse().unwrap(),
        publisher: Sha256Digest::of(b"publisher"),
    };
    Manifest::build(id, plan, vec![digest; 6]).unwrap()
}

fn names() -> Vec<TensorsOf> {
    let tensor = |name: &str, units| UnitTensors { name: name.to_owned(), units };
    let a = vec![tensor("h.0.q", 1..2), tensor("h.0.k", 1..2), tensor("h.1.q", 2..3), tensor("nil", 0..0)];
    let b = vec![tensor("embed", 4..5)];
    let file = |name: &str, header, tensors| TensorsOf { file: name.parse().unwrap(), header, tensors };
    vec![file("a.safetensors", 0, a), file("b.safetensors", 3, b)]
}

fn units(options: &[&str]) -> Vec<u32> {
    let model = manifest();
    let selection = part(options).selection(&model).unwrap();
    model.select(&selection).unwrap().iter().collect()
}

#[test]
fn units_come_with_the_headers_of_their_files_and_with_nothing_else() {
    assert_eq!(part(&[]).selection(&manifest()).unwrap(), Selection::All);
    assert_eq!(units(&["--units", "2"]), [0, 2]);
    assert_eq!(units(&["--units", "4-5"]), [3, 4, 5]);
    assert_eq!(units(&["--rank", "0/2"]), [0, 1, 3, 4, 5]);
    assert_eq!(units(&["--rank", "1/2", "--group", "layer.0"]), [0, 1, 2, 3, 4, 5]);
    // As the keeper selects by groups: all headers.
    assert_eq!(units(&["--group", "layer.1"]), [0, 2, 3]);
    let refused = part(&["--units", "9"]).selection(&manifest()).unwrap_err();
    assert_eq!(refused.code(), "select-no-such-unit");
    let refused = part(&["--group", "layer.7"]).selection(&manifest()).unwrap_err();
    assert_eq!(refused.code(), "select-no-such-group");
    assert_eq!(refused.next_step(), Some("its groups are files, header, layer.0, layer.1, other"));
    let refused = part(&["--rank", "0/9"]).selection(&manifest()).unwrap_err();
    assert_eq!(refused.code(), "rank-too-few-layers");
}

/// Directory and units of each view.
fn views(options: &[&str]) -> Vec<(String, Vec<u32>)> {
    let views = part(options).views(&manifest()).unwrap();
    let shown = |view: &View| {
        (view.directory().map_or_else(String::new, ToString::to_string), view.units().as_slice().to_vec())
    };
    views.iter().map(shown).collect()
}

#[test]
fn ranks_of_one_machine_are_together_or_each_in_a_directory() {
    let (zero, one) = (vec![0, 1, 3, 4, 5], vec![0, 2, 3, 4, 5]);
    let both = ["--rank", "1/2", "--rank", "0/2"];
    assert_eq!(units(&both), [0, 1, 2, 3, 4, 5]);
    assert_eq!(views(&both), [(String::new(), vec![0, 1, 2, 3, 4, 5])]);
    let apart = [both.as_slice(), &["--rank-dirs"]].concat();
    assert_eq!(units(&apart), [0, 1, 2, 3, 4, 5], "the keys of the union and no others");
    assert_eq!(views(&apart), [("rank0".to_owned(), zero.clone()), ("rank1".to_owned(), one)]);
    assert_eq!(views(&["--rank", "1/2", "--rank-dirs"]).len(), 1);
    // What is named beside them is in each.
    let beside = views(&["--rank", "0/2", "--rank-dirs", "--group", "layer.1"]);
    assert_eq!(beside, [("rank0".to_owned(), vec![0, 1, 2, 3, 4, 5])]);
    // Tensors that were found, too, and who has which rank is still known.
    let found = find(&["--rank", "0/2", "--rank-dirs", "--tensor", "h.1.*"], &names()).unwrap();
    assert_eq!(
        (found.named.0.units.as_slice(), found.named.0.ranks.as_slice()),
        ([0, 2].as_slice(), ["0/2".to_owned()].as_slice())
    );
    assert_eq!((found.matching, found.tensors), (1, 4));
    let refused =
        |options: &[&str]| Line::try_parse_from([&["load"], options].concat()).unwrap().part.part().unwrap_err();
    assert_eq!(refused(&["--rank", "0/2", "--rank", "0/2"]).code(), "rank-twice");
    assert_eq!(refused(&["--rank", "0/2", "--rank", "0/4"]).code(), "rank-other-number");
    assert!(Line::try_parse_from(["load", "--rank-dirs"]).is_err(), "directories of no rank");
}

#[test]
fn tensors_are_found_by_patterns_of_whole_names() {
    let find = |options: &[&str]| find(options, &names());
    let found = find(&["--tensor", "*.0.?"]).unwrap();
    assert_eq!((found.named.0.units.as_slice(), found.matching, found.tensors), ([0, 1].as_slice(), 2, 2));
    // What shares a unit with it comes along.
    let found = find(&["--tensor", "h.0.k", "--tensor", "embed"]).unwrap();
    assert_eq!((found.named.0.units.as_slice(), found.matching, found.tensors), ([0, 1, 3, 4].as_slice(), 2, 3));
    assert_eq!(find(&["--tensor", "h.1.*", "--group", "files"]).unwrap().named.0.units, [0, 2, 5]);
    for pattern in ["h.0", "H.0.q", "h?0?q?", "[a-z]*"] {
        let refused = find(&["--tensor", pattern]).unwrap_err();
        assert_eq!(refused.code(), "tensor-not-found", "{pattern}");
        assert!(refused.message().contains("5, such as \"h.0.q\""), "{refused}");
    }
}

#[test]
fn tensors_without_bytes_do_not_stand_for_the_whole_model() {
    let empty = UnitTensors { name: "none".to_owned(), units: 1..1 };
    let mut names = names();
    names[0].tensors.push(empty);
    let find = |options: &[&str]| find(options, &names);
    assert_eq!(find(&["--tensor", "none"]).unwrap_err().code(), "tensors-empty");
    assert_eq!(find(&["--tensor", "none", "--group", "files"]).unwrap().named.0.units, [5]);
}

#[test]
fn nothing_named_is_refused_wherever_it_comes_from_and_never_stands_for_all() {
    assert_eq!(part(&[]), Part::All);
    assert_eq!(Part::try_from(&OrderedPart::all()), Ok(Part::All));
    for nothing in [Selection::Groups(Vec::new()), Selection::Units(Vec::new())] {
        let nothing = OrderedPart::new(Some(nothing), None, false, Vec::new()).unwrap();
        assert_eq!(Part::try_from(&nothing), Err(SelectError::Nothing));
    }
    // As a loader is told, and as it tells.
    let read = |json: &str| serde_json::from_str::<Part>(json).map_err(|error| error.to_string());
    assert_eq!(read(r#""all""#), Ok(Part::All));
    for empty in [r#"{"of":{}}"#, r#"{"of":{"units":[],"groups":[],"ranks":[],"rank_dirs":true,"tensors":[]}}"#] {
        assert_eq!(read(empty).unwrap_err(), SelectError::Nothing.to_string());
    }
    for other in ["{}", "null", r#""""#, r#"{"of":{"unit":[1]}}"#, r#"{"units":[1]}"#] {
        assert!(read(other).is_err(), "{other}");
    }
    for options in [["--units", "2"], ["--group", "layer.0"], ["--rank", "0/2"], ["--tensor", "h.*"]] {
        let part = part(&options);
        assert_eq!(read(&serde_json::to_string(&part).unwrap()), Ok(part));
    }
    let found = r#"{"named":{"units":[]},"matching":1,"tensors":0}"#;
    assert!(serde_json::from_str::<Found>(found).is_err());
}

#[test]
fn a_pattern_has_a_bounded_length() {
    for pattern in [String::new(), "a".repeat(PATTERN_BYTES_MAX + 1)] {
        assert_eq!(matcher(&pattern).unwrap_err().code(), "tensor-pattern");
    }
}
