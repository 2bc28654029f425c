//! Headers of safetensors files, and the units that they are cut into.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

use ledger::manifest::{FilePath, Plan, PlanUnit, UNIT_BYTES_MAX, UNITS_MAX};
use ledger::names::NameError;
use ledger::safetensors::{HEADER_BYTES_MAX, Header, SafetensorsError, layer_group};
use proptest::prelude::*;

type Refusal = SafetensorsError;

/// A whole file: length, JSON, data of zeros.
fn file(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn parse(json: &str, data: usize) -> Result<Header, Refusal> {
    let bytes = file(json, data);
    Header::parse(&bytes, bytes.len() as u64)
}

/// JSON of tensors of bytes, in this order.
fn tensors(list: &[(&str, u64)]) -> String {
    let mut at = 0;
    let mut fields = Vec::new();
    for (name, length) in list {
        fields.push(format!(r#""{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{at},{}]}}"#, at + length));
        at += length;
    }
    format!("{{{}}}", fields.join(","))
}

fn path() -> FilePath {
    "model.safetensors".parse().unwrap()
}

/// Header bytes, and (offset, length, group) of the units.
type Cut = (u64, Vec<(u64, u64, String)>);

/// Cuts a file that need not be there.
fn cut(list: &[(&str, u64)], label: &dyn Fn(&str) -> String) -> Result<Cut, Refusal> {
    let json = tensors(list);
    let start = file(&json, 0);
    let data: u64 = list.iter().map(|(_, length)| length).sum();
    let header = Header::parse(&start, start.len() as u64 + data)?;
    let units = header.cut(&path(), label)?;
    let cut = units.iter().map(|unit| (unit.offset, unit.length, unit.group.to_string())).collect();
    Plan::new(units).unwrap();
    Ok((header.header_bytes(), cut))
}

#[test]
fn the_parser_agrees_with_the_public_cases() {
    let Some(cases) = vectors::json("crypto/safetensors/parser-cases.json") else { return };
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 11);
    for case in cases {
        let bytes = hex::decode(case["hex"].as_str().unwrap()).unwrap();
        let parsed = Header::parse(&bytes, bytes.len() as u64);
        let expected = match case["error"].as_str() {
            None => None,
            Some("MetadataIncompleteBuffer") => Some("safetensors-uncovered"),
            Some("HeaderTooLarge") => Some("safetensors-header-too-large"),
            Some("HeaderTooSmall") => Some("safetensors-too-short"),
            Some("InvalidHeader") => Some("safetensors-not-utf8"),
            Some("InvalidHeaderDeserialization") => Some("safetensors-json"),
            Some("InvalidHeaderLength") => Some("safetensors-header-past-end"),
            Some("ValidationOverflow") => Some("safetensors-shape-overflow"),
            Some(other) => panic!("a case of a new kind: {other}"),
        };
        assert_eq!(parsed.as_ref().err().map(Refusal::code), expected, "{}", case["name"]);
        if let Ok(header) = parsed {
            let units = header.cut(&path(), &layer_group).unwrap();
            assert_eq!(Plan::new(units).unwrap().total_bytes(), bytes.len() as u64);
        }
    }
}

#[test]
fn a_file_is_cut_at_tensor_borders_by_layer() {
    let list =
        [("embed.w", 10), ("m.layers.0.a", 5), ("m.layers.0.b", 7), ("m.layers.1.a", 3), ("norm", 2), ("out", 4)];
    let (h, units) = cut(&list, &layer_group).unwrap();
    let expected = [(h, 10, "other"), (h + 10, 12, "layer.0"), (h + 22, 3, "layer.1"), (h + 25, 6, "other")];
    assert_eq!(units[0], (0, h, "header".to_owned()));
    assert_eq!(units[1..], expected.map(|(at, length, group)| (at, length, group.to_owned())));
}

#[test]
fn the_order_of_the_json_does_not_matter() {
    let json = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},
        "z":{"dtype":"U8","shape":[0,9],"data_offsets":[4,4]},
        "a":{"data_offsets":[0,4],"shape":[],"dtype":"I32"},
        "__metadata__":{"format":"pt","a":"b"}}  "#;
    let header = parse(json, 8).unwrap();
    let names: Vec<_> = header.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.length)).collect();
    assert_eq!(names, [("a", 4), ("z", 0), ("b", 4)]);
    assert_eq!(header.header_bytes(), 8 + json.len() as u64);
}

#[test]
fn only_the_start_of_a_file_is_needed() {
    let bytes = file(&tensors(&[("a", 100)]), 100);
    let needed = Header::bytes_needed(&bytes[..8], bytes.len() as u64).unwrap();
    assert_eq!(needed, bytes.len() - 100);
    assert!(Header::parse(&bytes[..needed], bytes.len() as u64).is_ok());
    let short = Header::parse(&bytes[..needed - 1], bytes.len() as u64);
    assert_eq!(short, Err(Refusal::NotRead { needed, read: needed - 1 }));
    let none = Header::parse(&bytes[..7], bytes.len() as u64);
    assert_eq!(none, Err(Refusal::NotRead { needed: 8, read: 7 }));
}

#[test]
fn a_header_bomb_is_refused_before_it_is_read() {
    let needed = |json_bytes: u64, file_len| Header::bytes_needed(&json_bytes.to_le_bytes(), file_len);
    assert_eq!(needed(HEADER_BYTES_MAX, u64::MAX), Ok(8 + HEADER_BYTES_MAX as usize));
    for bytes in [HEADER_BYTES_MAX + 1, 1 << 40, u64::MAX] {
        assert_eq!(needed(bytes, u64::MAX), Err(Refusal::HeaderTooLarge { bytes }));
    }
    assert_eq!(needed(2, 9), Err(Refusal::HeaderPastEnd { bytes: 2, file: 9 }));
    assert_eq!(needed(0, 7), Err(Refusal::TooShort { bytes: 7 }));
    let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
    assert!(matches!(parse(&deep, 0), Err(Refusal::Json(_))));
}

#[test]
fn a_header_that_is_not_as_the_format_says_is_refused() {
    let good = r#"{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    assert!(parse(good, 4).is_ok());
    let refusal = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        parse(&good.replacen(from, to, 1), 4).unwrap_err()
    };
    assert_eq!(parse(&format!(" {good}"), 4), Err(Refusal::NotAnObject));
    assert_eq!(parse("", 0), Err(Refusal::NotAnObject));
    assert_eq!(parse("[]", 0), Err(Refusal::NotAnObject));
    for (from, to) in [
        (r#""dtype":"U8","#, ""),
        (r#""dtype":"U8""#, r#""dtype":"U8","dtype":"U8""#),
        (r#""dtype":"U8""#, r#""dtype":"U8","x":1"#),
        (r#""dtype":"U8""#, r#""dtype":8"#),
        ("[4]", "[4.0]"),
        ("[4]", "[-4]"),
        ("[4]", "4"),
        ("[0,4]", "[0,4,4]"),
        ("[0,4]", "[0]"),
        (r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#, r#"["U8",[4],[0,4]]"#),
        (r#""v""#, "1"),
        (r#"{"k":"v"}"#, "null"),
        (r#""data_offsets":[0,4]}}"#, r#""data_offsets":[0,4]}}x"#),
    ] {
        assert!(matches!(refusal(from, to), Refusal::Json(_)), "{from} → {to}");
    }
    assert_eq!(refusal(r#""k":"v""#, r#""k":"v","k":"v""#), Refusal::NameTwice { name: "k".into() });
    let twice = good.replace(r#"{"__metadata__""#, r#"{"__metadata__":{},"__metadata__""#);
    assert_eq!(parse(&twice, 4), Err(Refusal::NameTwice { name: "__metadata__".into() }));
    let unknown = Refusal::UnknownType { tensor: "a".into(), dtype: "U4".into() };
    assert_eq!(refusal(r#""U8""#, r#""U4""#), unknown);
    let bytes = file(good, 4);
    let mut bad = bytes.clone();
    bad[10] = 0xff;
    assert_eq!(Header::parse(&bad, bytes.len() as u64), Err(Refusal::NotUtf8));
}

#[test]
fn tensors_that_do_not_cover_the_file_once_are_refused() {
    let json = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    let refusal = |a: &str, b: &str| parse(&json(a, b), 8).unwrap_err();
    let b = || "b".to_owned();
    assert!(parse(&json("[0,4]", "[4,8]"), 8).is_ok());
    assert_eq!(refusal("[0,4]", "[3,7]"), Refusal::Overlap { tensor: b() });
    assert_eq!(refusal("[0,4]", "[0,4]"), Refusal::Overlap { tensor: b() });
    assert_eq!(refusal("[0,4]", "[5,9]"), Refusal::Gap { tensor: b() });
    assert_eq!(refusal("[1,5]", "[5,9]"), Refusal::Gap { tensor: "a".into() });
    assert_eq!(refusal("[0,4]", "[4,9]"), Refusal::PastEnd { tensor: b() });
    assert_eq!(refusal("[0,4]", "[4,18446744073709551615]"), Refusal::PastEnd { tensor: b() });
    assert_eq!(refusal("[0,4]", "[4,0]"), Refusal::OffsetsReversed { tensor: b() });
    assert_eq!(refusal("[0,4]", "[4,7]"), Refusal::Length { tensor: b(), expected: 4, found: 3 });
    assert_eq!(parse(&json("[0,4]", "[4,8]"), 9), Err(Refusal::Uncovered { bytes: 1 }));
    assert_eq!(parse(&json("[0,4]", "[4,8]"), 7), Err(Refusal::PastEnd { tensor: b() }));
    let twice = json("[0,4]", "[4,8]").replace(r#""b""#, r#""a""#);
    assert_eq!(parse(&twice, 8), Err(Refusal::NameTwice { name: "a".into() }));
    assert_eq!(parse("{}", 1), Err(Refusal::Uncovered { bytes: 1 }));
}

#[test]
fn a_length_is_that_of_type_and_shape() {
    let parse = |dtype: &str, shape: &str, length: u64| {
        let json = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{length}]}}}}"#);
        let start = file(&json, 0);
        Header::parse(&start, start.len() as u64 + length).map(drop)
    };
    for (dtype, bits) in [
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("BOOL", 8),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("C64", 64),
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
    ] {
        assert_eq!(parse(dtype, "[2,8]", 2 * bits), Ok(()), "{dtype}");
        assert!(matches!(parse(dtype, "[2,8]", 2 * bits + 1), Err(Refusal::Length { .. })), "{dtype}");
    }
    let tensor = || "t".to_owned();
    assert_eq!(parse("F4", "[3]", 2), Err(Refusal::PartialByte { tensor: tensor() }));
    for shape in ["[4294967296,4294967296]", "[18446744073709551615]", "[4294967296,4294967296,0]"] {
        assert_eq!(parse("F16", shape, 0), Err(Refusal::ShapeOverflow { tensor: tensor() }), "{shape}");
    }
    assert_eq!(parse("F16", "[0,18446744073709551615]", 0), Ok(()));
}

#[test]
fn runs_and_long_tensors_are_cut_at_four_gib() {
    let big = UNIT_BYTES_MAX;
    let one = |_: &str| "g".to_owned();
    let lengths = |list: &[(&str, u64)]| {
        let (_, units) = cut(list, &one).unwrap();
        units[1..].iter().map(|unit| unit.1).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&[("a", big)]), [big]);
    assert_eq!(lengths(&[("a", big + 1)]), [big, 1]);
    assert_eq!(lengths(&[("a", big - 1), ("b", 1)]), [big]);
    assert_eq!(lengths(&[("a", big - 1), ("b", 2), ("c", 3)]), [big - 1, 5]);
    assert_eq!(lengths(&[("a", 1), ("b", 2 * big + 1), ("c", 4)]), [1, big, big, 5]);
    let pieces = PlanUnit::whole_file(path(), 2 * big + 1);
    assert_eq!(pieces.iter().map(|unit| unit.length).collect::<Vec<_>>(), [big, big, 1]);
    assert!(Plan::new(pieces).is_ok());
    assert_eq!(PlanUnit::whole_file(path(), 0).len(), 1);
}

#[test]
fn a_file_of_too_many_units_is_refused_without_listing_them() {
    let huge = [("a", UNIT_BYTES_MAX * UNITS_MAX as u64), ("b", 1 << 60)];
    assert_eq!(cut(&huge, &layer_group), Err(Refusal::TooManyUnits));
    let pieces = PlanUnit::whole_file(path(), u64::MAX);
    assert_eq!(pieces.len(), UNITS_MAX + 1);
    assert!(Plan::new(pieces).is_err());
}

#[test]
fn a_label_must_be_a_group_and_not_that_of_the_header() {
    let header = cut(&[("a", 1)], &|_| "header".to_owned());
    assert_eq!(header, Err(Refusal::ReservedGroup { tensor: "a".into() }));
    let space = cut(&[("a", 1)], &|_| "a b".to_owned());
    assert_eq!(space, Err(Refusal::Group { tensor: "a".into(), error: NameError::Group }));
    // A tensor without bytes needs no label.
    assert!(cut(&[("a", 0)], &|_| String::new()).is_ok());
}

#[test]
fn layers_are_whole_components() {
    for (tensor, group) in [
        ("model.layers.0.w", "layer.0"),
        ("encoder.layer.11.attention.w", "layer.11"),
        ("h.7.attn.w", "layer.7"),
        ("transformer.blocks.03.w", "layer.03"),
        ("layers.1.blocks.2.w", "layer.1"),
        ("layers.x.blocks.2.w", "layer.2"),
        ("layers.5", "other"),
        ("mylayers.5.w", "other"),
        ("layers5.w", "other"),
        ("layers.5a.w", "other"),
        ("layers..w", "other"),
        ("layers.-1.w", "other"),
        ("layers.12345678901.w", "other"),
        ("hh.1.w", "other"),
        ("embed", "other"),
        ("", "other"),
    ] {
        assert_eq!(layer_group(tensor), group, "{tensor}");
    }
}

#[test]
fn a_message_quotes_little_and_escapes_it() {
    let name = format!("\\u001b[2J{}", "x".repeat(5000));
    let error = parse(&tensors(&[(&name, 4)]), 3).unwrap_err();
    let text = error.to_string();
    assert!(text.len() < 300 && !text.chars().any(char::is_control), "{text}");
}

proptest! {
    #[test]
    fn any_list_of_tensors_is_covered_exactly_once(list in prop::collection::vec((0u8..5, 0u64..9), 0..40)) {
        let names: Vec<_> = (0..).zip(&list).map(|(i, (layer, _))| format!("layers.{layer}.t{i:02}")).collect();
        let list: Vec<_> = names.iter().zip(&list).map(|(name, (_, length))| (name.as_str(), *length)).collect();
        let (header, units) = cut(&list, &layer_group).unwrap();
        let data: u64 = list.iter().map(|(_, length)| length).sum();
        prop_assert_eq!(units.iter().map(|unit| unit.1).sum::<u64>(), header + data);
        prop_assert!(units.windows(2).all(|pair| pair[0].2 != pair[1].2 && pair[0].0 + pair[0].1 == pair[1].0));
        // Every tensor lies in a unit of its own layer.
        let mut at = header;
        for (name, length) in list {
            let of = units.iter().find(|unit| unit.0 <= at && at + length <= unit.0 + unit.1);
            prop_assert!(length == 0 || of.unwrap().2 == layer_group(name));
            at += length;
        }
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_uncovers_a_byte(at in 0usize..400, byte: u8) {
        let mut bytes = file(&tensors(&[("layers.0.a", 5), ("layers.1.b", 0), ("layers.1.c", 7), ("d", 1)]), 13);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(header) = Header::parse(&bytes, bytes.len() as u64) {
            let units = header.cut(&path(), &layer_group).unwrap();
            prop_assert_eq!(Plan::new(units).unwrap().total_bytes(), bytes.len() as u64);
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), file_len: u64) {
        let _ = Header::parse(&bytes, file_len);
        let _ = Header::parse(&file(&String::from_utf8_lossy(&bytes), 0), file_len);
    }
}
