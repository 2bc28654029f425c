//! Against prost, and against everything else.

use proptest::prelude::*;

use super::super::head;
use super::*;

/// A message as tonic frames it.
fn framed(message: &v1::FetchUnitsResponse) -> Vec<u8> {
    with_prefix(&message.encode_to_vec())
}

fn with_prefix(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Reads a stream that is cut into frames of these lengths over and over, and puts its messages together.
fn read(stream: &[u8], cuts: &[usize]) -> Result<Vec<v1::FetchUnitsResponse>, FrameError> {
    let mut messages = Messages::default();
    let mut read: Vec<(v1::FetchUnitsResponse, usize, Vec<u8>)> = Vec::new();
    let mut rest = stream;
    for cut in cuts.iter().cycle() {
        let (frame, after) = rest.split_at(rest.len().min(*cut));
        rest = after;
        let mut frame = Bytes::copy_from_slice(frame);
        while let Some(piece) = messages.next(&mut frame)? {
            match piece {
                Piece::Head { unit, offset, bytes } => {
                    read.push((v1::FetchUnitsResponse { unit, offset, ..Default::default() }, bytes, Vec::new()));
                }
                Piece::Data(data) => read.last_mut().expect("a head came first").2.extend_from_slice(&data),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    messages.finish()?;
    let whole = read.into_iter().map(|(message, bytes, data)| {
        assert_eq!(data.len(), bytes);
        v1::FetchUnitsResponse { data: data.into(), ..message }
    });
    Ok(whole.collect())
}

fn messages() -> impl Strategy<Value = Vec<v1::FetchUnitsResponse>> {
    let number = prop_oneof![Just(0), Just(1), any::<u64>()];
    let message = (number.clone(), number, prop::collection::vec(any::<u8>(), 0..300));
    let message = message.prop_map(|(unit, offset, data)| v1::FetchUnitsResponse {
        unit: unit as u32,
        offset,
        data: data.into(),
    });
    prop::collection::vec(message, 0..5)
}

proptest! {
    #[test]
    fn what_prost_writes_is_read_wherever_frames_end(
        messages in messages(), cuts in prop::collection::vec(1_usize..400, 1..8),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(framed).collect();
        prop_assert_eq!(read(&stream, &cuts), Ok(messages));
    }

    #[test]
    fn what_we_write_is_what_prost_writes(unit: u32, offset: u64, data in prop::collection::vec(any::<u8>(), 1..300)) {
        let message = v1::FetchUnitsResponse { unit, offset, data: data.into() };
        let ours = [head(unit, offset, message.data.len()), message.data.clone()].concat();
        prop_assert_eq!(ours, framed(&message));
    }

    #[test]
    fn any_bytes_are_read_or_refused_alike_wherever_frames_end(
        mut stream in prop::collection::vec(any::<u8>(), 0..200), cut in 1_usize..20, plausible: bool,
    ) {
        if let (true, Some(prefix)) = (plausible, stream.first_chunk_mut::<4>()) {
            *prefix = [0; 4];
        }
        prop_assert_eq!(read(&stream, &[usize::MAX]), read(&stream, &[cut]));
    }
}

#[test]
fn a_message_of_a_later_version_is_read() {
    let message = v1::FetchUnitsResponse { unit: 3, offset: 300, data: Bytes::from_static(b"data") };
    let mut bytes = Vec::new();
    // Fields 9, 10, 11 and 12, one of each kind, before the data.
    bytes.extend_from_slice(&[9 << 3, 0x81, 1, 10 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 11 << 3 | 2, 2, b'x', b'y']);
    bytes.extend_from_slice(&[12 << 3 | 5, 1, 2, 3, 4]);
    bytes.extend_from_slice(&message.encode_to_vec());
    assert_eq!(read(&with_prefix(&bytes), &[1]), Ok(vec![message]));
}

#[test]
fn what_is_no_piece_of_a_unit_is_refused() {
    let good = framed(&v1::FetchUnitsResponse { unit: 3, offset: 5, data: vec![7; 20].into() });
    assert!(read(&good, &[usize::MAX]).is_ok());
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let refused = read(&bytes, &[usize::MAX]).unwrap_err();
        assert_eq!(read(&bytes, &[1]), Err(refused));
        refused.code()
    };
    assert_eq!(refused(&|bytes| bytes[0] = 1), "message-compressed");
    assert_eq!(refused(&|bytes| bytes[1] = 1), "message-too-long");
    assert_eq!(refused(&|bytes| bytes.truncate(bytes.len() - 1)), "message-cut-short");
    assert_eq!(refused(&|bytes| bytes.truncate(3)), "message-cut-short");
    assert_eq!(refused(&|bytes| bytes[4] -= 1), "message-malformed");
    // The length of the data.
    assert_eq!(refused(&|bytes| bytes[10] += 1), "message-malformed");
    // A group, and a key that never ends.
    assert_eq!(refused(&|bytes| bytes[5] = 1 << 3 | 3), "message-malformed");
    assert_eq!(refused(&|bytes| bytes[5..].fill(0xff)), "message-malformed");
    // A field of another message, longer than any before the data.
    assert_eq!(
        refused(&|bytes| *bytes = with_prefix(&[&[9 << 3 | 2, 100][..], &[0; 100]].concat())),
        "message-malformed"
    );
    // Data twice, of which prost would take the last.
    assert_eq!(refused(&|bytes| *bytes = with_prefix(&[3 << 3 | 2, 1, 7, 3 << 3 | 2, 1, 8])), "message-malformed");
}
