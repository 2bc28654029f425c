//! What a computation with keys leaves on the stack, wiped.
//!
//! `ring` and `hpke` keep copies of keys on the stack that they do not wipe: expanded AES keys, HMAC pads, moved values.
//! The functions here run such a computation and then overwrite the stack below their own frame, which is where those
//! copies lie. Keys that must outlive the call are in a [`crate::region::Region`]; no crate used here leaves key bytes on
//! the heap (the test `no_key_is_left_in_memory` looks for them there too).

use std::hint::black_box;

/// Runs `computation`, which uses AES-GCM, HMAC or HKDF, and wipes the stack that it used. What it returns must hold no
/// key.
pub(crate) fn wiped<R>(computation: impl FnOnce() -> R) -> R {
    let result = on_a_frame_of_its_own(computation);
    wipe_below::<{ 32 * 1024 }>();
    result
}

/// [`wiped`] for public-key cryptography, which reaches deeper: ML-KEM-1024 with P-384 takes some hundred kilobytes in an
/// unoptimised build. The default stack of a thread is 2 MiB.
pub(crate) fn wiped_deep<R>(computation: impl FnOnce() -> R) -> R {
    let result = on_a_frame_of_its_own(computation);
    wipe_below::<{ 768 * 1024 }>();
    result
}

/// Not inlined: the frames of `computation` lie below the caller's, where `wipe_below` reaches them.
#[inline(never)]
fn on_a_frame_of_its_own<R>(computation: impl FnOnce() -> R) -> R {
    black_box(computation())
}

#[inline(never)]
fn wipe_below<const BYTES: usize>() {
    let frames = [0_u8; BYTES];
    // The compiler must take it that somebody reads these zeros, so it has to write them.
    black_box(&frames);
}
