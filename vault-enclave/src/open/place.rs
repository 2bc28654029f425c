//! Where a thread writes plaintext: lent memory of a mapped file, or memory that goes over to whoever takes it.

use std::ops::{Deref, DerefMut};

use crate::region::WeightRegion;

/// A run of memory for plaintext.
pub(super) enum Place<'m> {
    /// Of somebody who waits until all threads are done.
    Lent(&'m mut [u8]),
    /// It goes with the segment, so that it can be read while other segments are still opened. Wiped where nobody takes it.
    Own(WeightRegion),
}

impl Place<'_> {
    /// Cuts off the first `at` bytes, of at least so many.
    pub(super) fn split_to(&mut self, at: usize) -> Self {
        match self {
            Self::Lent(bytes) => {
                let (first, rest) = std::mem::take(bytes).split_at_mut(at);
                *bytes = rest;
                Self::Lent(first)
            }
            Self::Own(region) => Self::Own(region.split_to(at)),
        }
    }

    /// How many bytes. Asking by this of memory that nobody wrote to leaves it untouched.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lent(bytes) => bytes.len(),
            Self::Own(region) => region.len(),
        }
    }

    /// Likewise.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Deref for Place<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Own(region) => region.bytes(),
        }
    }
}

impl DerefMut for Place<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Own(region) => region.bytes_mut(),
        }
    }
}
