//! The rules of a manifest, each with one thing wrong in a good one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use attestation::Sha256Digest;
use ledger::manifest::{
    Blake3Digest, FilePath, MANIFEST_BYTES_MAX, Manifest, ManifestError, ModelId, PathError, Plan, PlanUnit,
    SealedDigests, SelectError, Selection, UNIT_BYTES_MAX, UNITS_MAX, sealed_len, unit_path,
};
use ledger::names::{Group, NameError};
use proptest::prelude::*;

fn unit(file: &str, offset: u64, length: u64, group: &str) -> PlanUnit {
    PlanUnit { file: file.parse().unwrap(), offset, length, group: group.parse().unwrap() }
}

fn good_units() -> Vec<PlanUnit> {
    vec![
        unit("config.json", 0, 612, "files"),
        unit("empty", 0, 0, "files"),
        unit("model.safetensors", 0, 4_096, "header"),
        unit("model.safetensors", 4_096, 100_000, "layer.0"),
        unit("model.safetensors", 104_096, 50_000, "layer.1"),
        unit("model.safetensors", 154_096, 1, "layer.0"),
        unit("tokenizer/vocab.txt", 0, 7, "files"),
    ]
}

fn id() -> ModelId {
    ModelId {
        vault: Sha256Digest::of(b"vault"),
        model: "minilm".parse().unwrap(),
        version: "1.0+a".parse().unwrap(),
        publisher: Sha256Digest::of(b"publisher"),
    }
}

fn digests(count: usize) -> Vec<SealedDigests> {
    let one = |i: usize| SealedDigests {
        sha256: Sha256Digest::of(&i.to_be_bytes()),
        blake3: Blake3Digest::from_bytes([i as u8; 32]),
    };
    (0..count).map(one).collect()
}

fn good() -> Manifest {
    let plan = Plan::new(good_units()).unwrap();
    Manifest::build(id(), plan, digests(7)).unwrap()
}

/// The error of the good manifest after one replacement in its text.
fn refusal(from: &str, to: &str) -> ManifestError {
    let text = String::from_utf8(good().bytes().to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in the manifest");
    Manifest::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
}

/// The error of the good plan after one change.
fn plan_refusal(change: impl FnOnce(&mut Vec<PlanUnit>)) -> ManifestError {
    let mut units = good_units();
    change(&mut units);
    Plan::new(units).unwrap_err()
}

#[test]
fn what_is_built_is_read_back() {
    let manifest = good();
    assert_eq!(Manifest::parse(manifest.bytes()), Ok(manifest.clone()));
    assert_eq!(manifest.digest(), Sha256Digest::of(manifest.bytes()));
    assert_eq!(manifest.total_bytes(), 612 + 154_097 + 7);
    assert_eq!(manifest.id(), &id());
    assert_eq!(manifest.unit(3).unwrap().group.as_str(), "layer.0");
    assert_eq!(manifest.sealed(3), Some(&digests(7)[3]));
    assert_eq!((manifest.unit(7), manifest.sealed(7)), (None, None));
}

#[test]
fn the_text_is_that_of_the_format() {
    let plan = Plan::new(vec![unit("ä\"", 0, 5, "files")]).unwrap();
    let manifest = Manifest::build(id(), plan, digests(1)).unwrap();
    let expected = format!(
        r#"{{"format":1,"vault":"{}","model":"minilm","version":"1.0+a","publisher":"{}","units":[{{"file":"ä\"","offset":0,"length":5,"group":"files","sealed_sha256":"{}","blake3":"blake3:{}"}}]}}"#,
        Sha256Digest::of(b"vault"),
        Sha256Digest::of(b"publisher"),
        Sha256Digest::of(&0usize.to_be_bytes()),
        "00".repeat(32),
    );
    assert_eq!(manifest.bytes(), expected.as_bytes());
}

#[test]
fn the_plan_digest_is_over_every_field_of_every_unit() {
    let mut preimage = b"weightvault/v1 plan\0".to_vec();
    for (index, unit) in (0u32..).zip(good_units()) {
        preimage.extend(attestation::lv(&[
            &index.to_be_bytes(),
            unit.file.as_str().as_bytes(),
            &unit.offset.to_be_bytes(),
            &unit.length.to_be_bytes(),
            unit.group.as_str().as_bytes(),
        ]));
    }
    assert_eq!(good().plan_digest(), Sha256Digest::of(&preimage));
    assert_eq!(Plan::new(good_units()).unwrap().digest(), Sha256Digest::of(&preimage));
}

#[test]
fn a_manifest_that_is_not_the_json_of_the_format_is_refused() {
    let cases = [
        (r#"{"format":1"#, r#"{"x":1,"format":1"#, "unknown field"),
        (r#"{"format":1"#, r#"{"format":1,"format":1"#, "duplicate field"),
        (r#"{"format":1,"#, "{", "missing field"),
        (r#""offset":0"#, r#""offset":0,"offset":0"#, "duplicate field"),
        (r#""offset":0"#, r#""offset":0,"name":"x""#, "unknown field"),
        (r#""offset":0"#, r#""offset":-1"#, "invalid value"),
        (r#""offset":0"#, r#""offset":0.0"#, "invalid type"),
        (r#""offset":0"#, r#""offset":18446744073709551616"#, "invalid type"),
        (r#""offset":0"#, r#""offset":"0""#, "invalid type"),
        ("]}", "]}]", "trailing"),
        ("]}", "]", "EOF"),
        (r#""vault":"sha256:"#, r#""vault":"sha512:"#, ""),
        (r#""sealed_sha256":"sha256:"#, r#""sealed_sha256":"sha256:0"#, ""),
    ];
    for (from, to, message) in cases {
        match refusal(from, to) {
            ManifestError::Json(error) => assert!(error.message.contains(message), "{to}: {error}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn an_array_in_the_place_of_an_object_is_refused() {
    let text = String::from_utf8(good().bytes().to_vec()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields = ["format", "vault", "model", "version", "publisher", "units"];
    let array: Vec<_> = fields.iter().map(|field| value[field].clone()).collect();
    let error = Manifest::parse(&serde_json::to_vec(&array).unwrap()).unwrap_err();
    assert!(matches!(error, ManifestError::Json(_)), "{error:?}");
}

#[test]
fn a_value_outside_its_grammar_is_refused() {
    assert_eq!(refusal(r#""format":1"#, r#""format":2"#), ManifestError::Format { format: 2 });
    assert_eq!(refusal("minilm", "MiniLM"), ManifestError::Model(NameError::Name));
    assert_eq!(refusal("minilm", "../m"), ManifestError::Model(NameError::Name));
    assert_eq!(refusal("1.0+a", "1.0/a"), ManifestError::Version(NameError::Version));
    assert_eq!(refusal("layer.0", "layer 0"), ManifestError::Group { index: 3, error: NameError::Group });
    let path = |error| ManifestError::File { index: 0, error };
    assert_eq!(refusal("config.json", "../config.json"), path(PathError::DotPart));
    assert_eq!(refusal("config.json", "/config.json"), path(PathError::Absolute));
    assert_eq!(refusal("config.json", r"config\u0000json"), path(PathError::ControlCharacter));
    assert_eq!(refusal("config.json", r"config\\json"), path(PathError::Backslash));
    for blake3 in ["sha256:0", "blake3:00", "blake3:", "blake3:A", "blake3:g", ""] {
        let to = format!("{blake3}{}", "0".repeat(63));
        assert_eq!(refusal(&format!("blake3:{}", "00".repeat(32)), &to), ManifestError::Blake3, "{to}");
    }
}

#[test]
fn a_manifest_past_its_limit_is_refused() {
    let mut bytes = good().bytes().to_vec();
    bytes.resize(MANIFEST_BYTES_MAX, b' ');
    assert!(Manifest::parse(&bytes).is_ok());
    bytes.push(b' ');
    assert_eq!(Manifest::parse(&bytes), Err(ManifestError::TooLarge { bytes: MANIFEST_BYTES_MAX + 1 }));
}

#[test]
fn a_plan_that_does_not_cover_each_file_once_is_refused() {
    assert_eq!(plan_refusal(Vec::clear), ManifestError::NoUnits);
    assert_eq!(plan_refusal(|units| units[0].offset = 1), ManifestError::Gap { index: 0 });
    assert_eq!(plan_refusal(|units| units[4].offset += 1), ManifestError::Gap { index: 4 });
    assert_eq!(plan_refusal(|units| units[4].offset -= 1), ManifestError::Overlap { index: 4 });
    assert_eq!(plan_refusal(|units| units[3].length += 1), ManifestError::Overlap { index: 4 });
    assert_eq!(plan_refusal(|units| units[3].length -= 1), ManifestError::Gap { index: 4 });
    assert_eq!(plan_refusal(|units| drop(units.remove(3))), ManifestError::Gap { index: 3 });
    assert_eq!(plan_refusal(|units| drop(units.remove(2))), ManifestError::Gap { index: 2 });
    assert_eq!(plan_refusal(|units| units.insert(3, units[3].clone())), ManifestError::Overlap { index: 4 });
    assert_eq!(plan_refusal(|units| units.swap(3, 4)), ManifestError::Gap { index: 3 });
    assert_eq!(plan_refusal(|units| units.swap(0, 1)), ManifestError::Unordered { index: 1 });
    let twice = plan_refusal(|units| units.push(units[0].clone()));
    assert_eq!(twice, ManifestError::Unordered { index: 7 });
    assert_eq!(plan_refusal(|units| units[6].offset = u64::MAX), ManifestError::Gap { index: 6 });
}

#[test]
fn an_empty_unit_in_a_file_with_others_is_refused() {
    let after = plan_refusal(|units| units.insert(1, unit("config.json", 612, 0, "files")));
    assert_eq!(after, ManifestError::EmptyUnit { index: 1 });
    let before = plan_refusal(|units| units.insert(0, unit("config.json", 0, 0, "files")));
    assert_eq!(before, ManifestError::EmptyUnit { index: 1 });
    let twice = plan_refusal(|units| units.insert(1, unit("empty", 0, 0, "files")));
    assert_eq!(twice, ManifestError::EmptyUnit { index: 2 });
}

#[test]
fn a_tensor_cannot_pass_for_a_header() {
    let error = plan_refusal(|units| units[3].group = Group::header());
    assert_eq!(error, ManifestError::HeaderNotAtStart { index: 3 });
}

#[test]
fn a_file_that_is_a_directory_of_another_is_refused() {
    let error = plan_refusal(|units| units[5].file = "x".parse().unwrap());
    assert_eq!(error, ManifestError::Gap { index: 5 });
    // `tokenizer-2` sorts between the two.
    let error = plan_refusal(|units| {
        units.insert(6, unit("tokenizer", 0, 1, "files"));
        units.insert(7, unit("tokenizer-2", 0, 1, "files"));
    });
    assert_eq!(error, ManifestError::FileIsDirectory { index: 8 });
    let deep = vec![unit("a", 0, 1, "files"), unit("a/b/c", 0, 1, "files")];
    assert_eq!(Plan::new(deep), Err(ManifestError::FileIsDirectory { index: 1 }));
}

#[test]
fn limits_of_units_hold() {
    let long = |length| Plan::new(vec![unit("a", 0, length, "files")]).map(drop);
    assert_eq!(long(UNIT_BYTES_MAX), Ok(()));
    assert_eq!(long(UNIT_BYTES_MAX + 1), Err(ManifestError::UnitTooLong { index: 0 }));
    let many = |count: usize| {
        let units = (0..count as u64).map(|i| unit("a", i * UNIT_BYTES_MAX, UNIT_BYTES_MAX, "files"));
        Plan::new(units.collect()).map(|plan| plan.total_bytes())
    };
    assert_eq!(many(UNITS_MAX), Ok(1 << 46));
    assert_eq!(many(UNITS_MAX + 1), Err(ManifestError::TooManyUnits { count: UNITS_MAX + 1 }));
}

#[test]
fn a_publisher_learns_before_sealing_that_a_manifest_will_not_fit() {
    let name = |i: u64| format!("{}{i:05}", "p".repeat(400));
    let units = (0..UNITS_MAX as u64).map(|i| unit(&name(i), 0, 1, "files"));
    let plan = Plan::new(units.collect()).unwrap();
    assert!(matches!(Manifest::check_fits(&id(), &plan), Err(ManifestError::TooLarge { .. })));
    assert_eq!(Manifest::check_fits(&id(), &Plan::new(good_units()).unwrap()), Ok(()));
}

#[test]
fn each_unit_needs_its_digests() {
    let plan = Plan::new(good_units()).unwrap();
    let error = Manifest::build(id(), plan, digests(6)).unwrap_err();
    assert_eq!(error, ManifestError::DigestCount { units: 7, digests: 6 });
}

#[test]
fn sealed_lengths_are_those_of_the_format() {
    let cases = [(0, 72), (1, 73), (16_383, 16_455), (16_384, 16_472), (16_385, 16_473), (32_768, 32_872)];
    for (plain, sealed) in cases {
        assert_eq!(sealed_len(plain), sealed, "{plain}");
    }
    assert_eq!(sealed_len(UNIT_BYTES_MAX), 56 + UNIT_BYTES_MAX + 16 * 262_145);
    assert_eq!(good().unit(3).unwrap().sealed_len(), sealed_len(100_000));
}

#[test]
fn the_publisher_signs_manifest_dek_and_units() {
    let manifest = good();
    let dek = Sha256Digest::of(b"dek");
    let files: Vec<_> = manifest.signed_files(dek).into_iter().collect();
    assert_eq!(files.len(), 9);
    assert_eq!(files[0], ("dek.hpke".to_owned(), dek));
    assert_eq!(files[1], ("manifest.json".to_owned(), manifest.digest()));
    assert_eq!(files[8], ("units/00006.cob".to_owned(), digests(7)[6].sha256));
    assert_eq!(unit_path(16_383), "units/16383.cob");
}

#[test]
fn a_selection_names_units() {
    let manifest = good();
    let select = |selection| manifest.select(&selection).map(|set| set.iter().collect::<Vec<_>>());
    let groups = |labels: &[&str]| Selection::Groups(labels.iter().map(|label| label.parse().unwrap()).collect());
    assert_eq!(select(Selection::All), Ok(vec![0, 1, 2, 3, 4, 5, 6]));
    assert_eq!(select(groups(&["layer.0"])), Ok(vec![2, 3, 5]));
    assert_eq!(select(groups(&["layer.1", "files"])), Ok(vec![0, 1, 2, 4, 6]));
    assert_eq!(select(groups(&["header"])), Ok(vec![2]));
    assert_eq!(select(Selection::Units(vec![4])), Ok(vec![4]));
    assert_eq!(manifest.header_units().collect::<Vec<_>>(), [2]);
    let set = manifest.select(&groups(&["layer.0"])).unwrap();
    assert_eq!(manifest.bytes_of(&set), Ok(4_096 + 100_000 + 1));
}

#[test]
fn a_selection_that_names_nothing_or_something_else_is_refused() {
    let manifest = good();
    let refusal = |selection| manifest.select(&selection).unwrap_err();
    let group = |label: &str| label.parse::<Group>().unwrap();
    assert_eq!(refusal(Selection::Groups(vec![])), SelectError::Nothing);
    assert_eq!(refusal(Selection::Units(vec![])), SelectError::Nothing);
    let unknown = Selection::Groups(vec![group("layer.0"), group("layer.2")]);
    assert_eq!(refusal(unknown), SelectError::NoSuchGroup { group: group("layer.2") });
    let twice = Selection::Groups(vec![group("layer.0"), group("layer.0")]);
    assert_eq!(refusal(twice), SelectError::GroupTwice { group: group("layer.0") });
    assert_eq!(refusal(Selection::Units(vec![6, 7])), SelectError::NoSuchUnit { index: 7 });
    assert_eq!(refusal(Selection::Units(vec![1, 0])), SelectError::NotAscending);
    assert_eq!(refusal(Selection::Units(vec![1, 1])), SelectError::NotAscending);
    assert_eq!(refusal(Selection::Units((0..20_000).collect())), SelectError::TooMany);
}

proptest! {
    #[test]
    fn bytes_that_parse_are_kept_exactly_and_follow_the_rules(at in 0usize..2000, byte: u8) {
        let mut bytes = good().bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert_eq!(manifest.bytes(), &bytes[..]);
            prop_assert!(Plan::new(manifest.units().to_vec()).is_ok());
        }
    }

    #[test]
    fn no_safe_path_leaves_its_directory(text in "[./a\\\\\u{0}]{0,12}") {
        if let Ok(path) = FilePath::try_from(text.as_str()) {
            let joined = std::path::Path::new("/base").join(&path);
            let depth = joined.components().count();
            prop_assert_eq!(depth, 2 + path.as_str().split('/').count());
            prop_assert!(joined.components().all(|part| part != std::path::Component::ParentDir));
        }
    }
}
