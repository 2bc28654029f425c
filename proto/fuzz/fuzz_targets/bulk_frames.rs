//! The stream of sealed units below the codec: however frames cut it, the same messages come out, and those that prost reads.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use vault_proto::bulk::{FrameError, Messages, Piece};
use vault_proto::v1::FetchUnitsResponse;

/// Bytes of the input that say how long frames are.
const CUTS: usize = 8;
const PREFIX: usize = 5;

/// Whole messages, and how it ended.
type Read = (Vec<FetchUnitsResponse>, Result<(), FrameError>);

fn read(stream: &[u8], lengths: impl Iterator<Item = usize>) -> Read {
    let (mut messages, mut reader) = (Vec::new(), Messages::default());
    let mut open: Option<(FetchUnitsResponse, usize)> = None;
    let (mut rest, mut lengths) = (stream, lengths);
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(lengths.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = after;
        let mut frame = Bytes::copy_from_slice(frame);
        loop {
            match reader.next(&mut frame) {
                Ok(Some(Piece::Head { unit, offset, bytes })) => {
                    assert!(open.is_none(), "a message began within another");
                    open = Some((FetchUnitsResponse { unit, offset, data: Bytes::new() }, bytes));
                }
                Ok(Some(Piece::Data(data))) => {
                    let (message, _) = open.as_mut().expect("data belongs to a message");
                    assert!(!data.is_empty());
                    message.data = [&message.data[..], &data].concat().into();
                }
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
            if let Some((message, bytes)) = open.take_if(|(message, bytes)| message.data.len() >= *bytes) {
                assert_eq!(message.data.len(), bytes);
                messages.push(message);
            }
        }
    }
    (messages, reader.finish())
}

fuzz_target!(|data: &[u8]| {
    let Some((cuts, stream)) = data.split_at_checked(CUTS) else { return };
    let whole = read(stream, std::iter::empty());
    let cut = read(stream, cuts.iter().cycle().map(|length| usize::from(*length)));
    assert_eq!(whole, cut, "frames say nothing");
    let mut rest = stream;
    for message in &whole.0 {
        let length = u32::from_be_bytes(rest[1..PREFIX].try_into().expect("four bytes")) as usize;
        let (bytes, after) = rest[PREFIX..].split_at(length);
        assert_eq!(FetchUnitsResponse::decode(bytes).as_ref(), Ok(message));
        rest = after;
    }
});
