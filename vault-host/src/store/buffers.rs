//! Memory for ciphertext on its way out, used again and again. A megabyte that is allocated anew is mapped, faulted in page
//! by page and unmapped, which costs more than to read a file into it.

use std::sync::{Mutex, PoisonError};

/// Data of one message: whole sealed chunks of 16 KiB, and one frame of those that our clients take.
pub(crate) const BUFFER_BYTES: usize = 63 * (16 * 1024 + 16);
/// Fewer bytes get no more memory than they need: whoever asks for a byte at a time is not to have a megabyte for each.
const SHORT_BYTES: usize = BUFFER_BYTES / 4;
/// Buffers that are kept while nobody needs them: 33 MB.
const SPARE_MAX: usize = 32;

static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Bytes that are read and sent, and then used again.
pub(super) struct Buffer {
    memory: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// Of `length` bytes. What is in them is what somebody left there. One much shorter or longer than others is not kept.
    pub(super) fn new(length: usize) -> Self {
        if !(SHORT_BYTES..=BUFFER_BYTES).contains(&length) {
            return Self { length, memory: vec![0; length].into_boxed_slice() };
        }
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
        Self { length, memory }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX && self.memory.len() == BUFFER_BYTES {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_length_that_was_asked_for_whatever_it_had_before() {
        for length in [7, BUFFER_BYTES, 1, SHORT_BYTES, BUFFER_BYTES + 1] {
            let mut buffer = Buffer::new(length);
            buffer.as_mut().fill(1);
            assert_eq!(buffer.as_ref().len(), length);
            assert!(buffer.memory.len() <= 4 * length, "{length}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        drop((0..2 * SPARE_MAX).map(|_| Buffer::new(BUFFER_BYTES)).collect::<Vec<_>>());
        assert!(SPARE.lock().unwrap().len() <= SPARE_MAX);
    }
}
