//! What a load and a seal do for every batch: open, seal, hash, and take frames apart.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(unreachable_pub, reason = "a bench has no outside")]

#[path = "../../ledger/benches/hot/mod.rs"]
mod hot;

use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use hot::Hot;
use vault_enclave::bare::Batch;
use vault_proto::bulk::{Messages, head};

/// Data of a message, and of the frame that it comes in.
const MESSAGE_BYTES: usize = 1 << 20;
/// As HTTP/2 cuts where nobody asks for more.
const FRAME_BYTES: usize = 16 << 10;

const HOT: &[Hot] = &[
    Hot { name: "open a batch", bytes: Batch::BYTES, prepare: open },
    Hot { name: "seal a batch", bytes: Batch::BYTES, prepare: seal },
    Hot { name: "hash a batch (BLAKE3)", bytes: Batch::BYTES, prepare: hash },
    Hot { name: "frames of 16 KiB to data", bytes: MESSAGE_BYTES, prepare: frames },
];

fn main() -> ExitCode {
    hot::run(HOT, divan::main)
}

#[divan::bench(args = HOT.iter().map(|hot| hot.name))]
fn data(bencher: divan::Bencher<'_, '_>, name: &str) {
    hot::measure(HOT, bencher, name);
}

fn open() -> Box<dyn FnMut()> {
    let mut batch = Batch::new().unwrap();
    Box::new(move || batch.open().unwrap())
}

fn seal() -> Box<dyn FnMut()> {
    let mut batch = Batch::new().unwrap();
    Box::new(move || batch.seal().unwrap())
}

fn hash() -> Box<dyn FnMut()> {
    let bytes = vec![7; Batch::BYTES];
    Box::new(move || {
        std::hint::black_box(blake3::hash(&bytes));
    })
}

/// A message of the bulk stream as it comes out of HTTP/2, taken apart without a copy.
fn frames() -> Box<dyn FnMut()> {
    let mut message = BytesMut::from(&*head(3, 1 << 30, MESSAGE_BYTES));
    message.resize(message.len() + MESSAGE_BYTES, 7);
    let message = message.freeze();
    let frames: Vec<Bytes> = (0..message.len())
        .step_by(FRAME_BYTES)
        .map(|at| message.slice(at..message.len().min(at + FRAME_BYTES)))
        .collect();
    Box::new(move || {
        let mut messages = Messages::default();
        for frame in &frames {
            let mut frame = frame.clone();
            while let Some(piece) = messages.next(&mut frame).unwrap() {
                std::hint::black_box(piece);
            }
        }
        messages.finish().unwrap();
    })
}
