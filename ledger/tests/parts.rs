//! Parts of a model: the units of a rank, and the files that a part of their tensors makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::Range;

use attestation::Sha256Digest;
use ledger::manifest::{Blake3Digest, Manifest, ModelId, Plan, PlanUnit, Rank, RankError, Ranks, SealedDigests};
use ledger::safetensors::{Header, SafetensorsError};
use proptest::prelude::*;

/// A manifest of units of one byte, given as (file, group); units of one file follow each other.
fn manifest(units: &[(&str, &str)]) -> Manifest {
    let mut offset = 0;
    let units = units.iter().enumerate().map(|(index, (file, group))| {
        offset = if index > 0 && units[index - 1].0 == *file { offset + 1 } else { 0 };
        PlanUnit { file: file.parse().unwrap(), offset, length: 1, group: group.parse().unwrap() }
    });
    let plan = Plan::new(units.collect()).unwrap();
    let one = SealedDigests { sha256: Sha256Digest::of(b"x"), blake3: Blake3Digest::from_bytes([1; 32]) };
    let digests = vec![one; plan.units().len()];
    let id = ModelId {
        vault: Sha256Digest::of(b"vault"),
        model: "m".parse().unwrap(),
        version: "1".parse().unwrap(),
        publisher: Sha256Digest::of(b"publisher"),
    };
    Manifest::build(id, plan, digests).unwrap()
}

fn rank(manifest: &Manifest, text: &str) -> Result<Vec<u32>, RankError> {
    manifest.rank(text.parse().unwrap())
}

/// Five layers, out of order as files have them (`layer.10` sorts before `layer.2`).
fn layered() -> Manifest {
    manifest(&[
        ("config.json", "files"),
        ("m.safetensors", "header"),
        ("m.safetensors", "other"),
        ("m.safetensors", "layer.0"),
        ("m.safetensors", "layer.10"),
        ("m.safetensors", "layer.2"),
        ("m.safetensors", "layer.3"),
        ("m.safetensors", "layer.7"),
        ("m.safetensors", "layer.0"),
        ("m.safetensors", "other"),
    ])
}

#[test]
fn layers_are_split_in_runs_by_their_numbers_and_the_rest_goes_to_both_ends() {
    let model = layered();
    assert_eq!(rank(&model, "0/1"), Ok(vec![0, 2, 3, 4, 5, 6, 7, 8, 9]));
    // 0 | 2 3 | 7 10 behind borders at 0, 5/3, 10/3, 5.
    assert_eq!(rank(&model, "0/3"), Ok(vec![0, 2, 3, 8, 9]));
    assert_eq!(rank(&model, "1/3"), Ok(vec![0, 5, 6]));
    assert_eq!(rank(&model, "2/3"), Ok(vec![0, 2, 4, 7, 9]));
}

#[test]
fn every_layer_is_some_ranks_and_none_is_twos() {
    let model = layered();
    for count in 1..=5 {
        let mut seen: Vec<u32> =
            (0..count).flat_map(|index| model.rank(Rank::new(index, count).unwrap()).unwrap()).collect();
        seen.retain(|unit| model.unit(*unit).unwrap().group.as_str().starts_with("layer."));
        seen.sort_unstable();
        assert_eq!(seen, [3, 4, 5, 6, 7, 8], "{count}");
    }
}

#[test]
fn files_of_ranks_go_to_their_rank_and_all_others_to_everyone() {
    let model = manifest(&[
        ("config.json", "files"),
        ("model-rank-0-part-0.safetensors", "header"),
        ("model-rank-0-part-0.safetensors", "layer.0"),
        ("model-rank-1-part-0.safetensors", "header"),
        ("model-rank-1-part-0.safetensors", "layer.0"),
        ("model-rank-1-part-1.safetensors", "header"),
        ("model-rank-1-part-1.safetensors", "layer.1"),
    ]);
    assert_eq!(rank(&model, "0/2"), Ok(vec![0, 2]));
    assert_eq!(rank(&model, "1/2"), Ok(vec![0, 4, 6]));
    assert_eq!(rank(&model, "0/4"), Err(RankError::OtherCount { files: 2 }));
}

#[test]
fn ranks_of_one_machine_are_of_one_number_and_none_is_twice() {
    let ranks = |texts: &[&str]| Ranks::try_from(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rank>>());
    let in_order = ranks(&["3/4", "0/4"]).unwrap();
    assert_eq!(in_order.iter().map(Rank::index).collect::<Vec<_>>(), [0, 3]);
    let refused = |texts: &[&str]| ranks(texts).unwrap_err();
    assert_eq!((refused(&[]).code(), refused(&[])), ("rank-none", RankError::NoRank));
    let twice = refused(&["1/4", "0/4", "1/4"]);
    assert_eq!((twice.code(), twice), ("rank-twice", RankError::Twice { rank: Rank::new(1, 4).unwrap() }));
    let other = refused(&["1/4", "0/2"]);
    assert_eq!((other.code(), other), ("rank-other-number", RankError::OtherNumber { counts: [4, 2] }));
}

#[test]
fn a_model_that_is_not_numbered_in_one_way_has_no_ranks() {
    let plain = manifest(&[("a.bin", "files"), ("m.safetensors", "header"), ("m.safetensors", "other")]);
    assert_eq!(rank(&plain, "0/1"), Err(RankError::NoLayers));
    let mixed = manifest(&[("m.safetensors", "experts.0"), ("m.safetensors", "layer.0")]);
    let kinds = ["experts".to_owned(), "layer".to_owned()];
    assert_eq!(rank(&mixed, "0/1"), Err(RankError::SeveralKinds { kinds }));
    assert_eq!(rank(&layered(), "0/6"), Err(RankError::TooFewLayers { layers: 5 }));
    for text in ["", "1", "1/1", "0/0", "-1/2", "0/65537", "0/1/2", " 0/1"] {
        assert_eq!(text.parse::<Rank>(), Err(RankError::Malformed), "{text:?}");
    }
}

/// A header of tensors of bytes with a text of metadata, and the length of the data.
fn header(list: &[(&str, u64)]) -> (Header, u64) {
    let mut at = 0;
    let mut fields = vec![r#""__metadata__":{"format":"pt","na\"me":"é"}"#.to_owned()];
    for (name, length) in list {
        fields.push(format!(r#""{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{at},{}]}}"#, at + length));
        at += length;
    }
    let json = format!("{{{}}}", fields.join(","));
    let start = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    (Header::parse(&start, start.len() as u64 + at).unwrap(), at)
}

/// The part of a header with these ranges of the data, read back: its tensors, and its JSON.
fn part(header: &Header, ranges: &[Range<u64>]) -> Result<(Vec<(String, u64)>, String), SafetensorsError> {
    let behind = |range: &Range<u64>| header.header_bytes() + range.start..header.header_bytes() + range.end;
    let part = header.part(&ranges.iter().map(behind).collect::<Vec<_>>())?;
    let data: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let read = Header::parse(&part.header, part.header.len() as u64 + data).expect("what is written is a header");
    assert_eq!((part.header.len() % 8, part.tensors), (0, read.tensors().len()));
    let tensors = read.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.length)).collect();
    Ok((tensors, String::from_utf8(part.header[8..].to_vec()).unwrap()))
}

#[test]
fn a_part_has_its_tensors_in_their_order_those_without_bytes_and_all_metadata() {
    let (all, _) = header(&[("a", 4), ("b", 6), ("nil", 0), ("c", 1), ("d", 2)]);
    let (tensors, json) = part(&all, &[0..4, 10..11]).unwrap();
    let named =
        |list: &[(&str, u64)]| list.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect::<Vec<_>>();
    assert_eq!(tensors, named(&[("a", 4), ("nil", 0), ("c", 1)]));
    assert!(
        json.starts_with(
            r#"{"__metadata__":{"format":"pt","na\"me":"é"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#
        ),
        "{json}"
    );
    assert_eq!(part(&all, &[]).unwrap().0, named(&[("nil", 0)]));
    // Two units of one tensor are one run.
    assert_eq!(part(&all, &[4..7, 7..10]).unwrap().0, named(&[("b", 6), ("nil", 0)]));
}

#[test]
fn a_part_that_cuts_a_tensor_is_refused() {
    let (all, _) = header(&[("a", 4), ("b", 6), ("c", 1)]);
    for ranges in [&[(0, 3)][..], &[(1, 4)], &[(0, 5)], &[(4, 6), (7, 10)], &[(5, 11)]] {
        let ranges: Vec<Range<u64>> = ranges.iter().map(|(start, end)| *start..*end).collect();
        let refused = part(&all, &ranges).unwrap_err();
        assert!(matches!(refused, SafetensorsError::CutTensor { .. }), "{ranges:?}: {refused:?}");
    }
}

proptest! {
    #[test]
    fn any_choice_of_tensors_makes_a_file_of_just_these(lengths in prop::collection::vec((0u64..50, any::<bool>()), 1..20)) {
        let names: Vec<String> = (0..lengths.len()).map(|index| format!("t{index}")).collect();
        let list: Vec<_> = names.iter().map(String::as_str).zip(lengths.iter().map(|(length, _)| *length)).collect();
        let (all, _) = header(&list);
        let (mut at, mut ranges, mut wanted) = (0, Vec::new(), Vec::new());
        for ((name, length), (_, keep)) in list.iter().zip(&lengths) {
            if *keep && *length > 0 { ranges.push(at..at + length); }
            if *keep || *length == 0 { wanted.push(((*name).to_owned(), *length)); }
            at += length;
        }
        // Tensors without bytes sort among those at the same place by name.
        let sorted = |mut list: Vec<(String, u64)>| { list.sort(); list };
        prop_assert_eq!(sorted(part(&all, &ranges).unwrap().0), sorted(wanted));
    }
}
