//! The header of a safetensors file, and how the file is cut into units. The first 8 bytes are the length that the file has.
#![no_main]

use ledger::manifest::FilePath;
use ledger::safetensors::{Header, layer_group};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, start)) = data.split_first_chunk() else { return };
    let file_len = u64::from_le_bytes(*length);
    let Ok(header) = Header::parse(start, file_len) else { return };
    let covered = header.tensors().iter().fold(header.header_bytes(), |sum, tensor| sum + tensor.length);
    assert_eq!(covered, file_len);
    // A smaller file of some of the tensors is one too.
    let some: Vec<_> = header.places().map(|(_, place)| place).step_by(2).collect();
    let part = header.part(&some).expect("whole tensors");
    let data: u64 = some.iter().map(|place| place.end - place.start).sum();
    let smaller = Header::parse(&part.header, part.header.len() as u64 + data).expect("a header");
    assert_eq!(smaller.tensors().len(), part.tensors);
    let path = FilePath::try_from("model.safetensors").expect("a path");
    let Ok(units) = header.cut(&path, &layer_group) else { return };
    assert_eq!(units.iter().map(|unit| unit.length).sum::<u64>(), file_len);
});
