//! A seal target that ends where a person interrupts, so that what was begun is removed.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::seal::{SealTarget, SealedDocuments};

/// Refuses every further byte once `stop` is set.
pub(super) struct Stoppable<'a, T> {
    pub(super) target: T,
    pub(super) stop: &'a AtomicBool,
}

/// A unit of such a target.
pub(super) struct StoppableUnit<'a, W> {
    unit: W,
    stop: &'a AtomicBool,
}

impl<'a, T: SealTarget> SealTarget for Stoppable<'a, T> {
    type Unit = StoppableUnit<'a, T::Unit>;

    fn begin_unit(&self, index: u32, sealed_len: u64) -> io::Result<Self::Unit> {
        check(self.stop)?;
        Ok(StoppableUnit { unit: self.target.begin_unit(index, sealed_len)?, stop: self.stop })
    }

    fn end_unit(&self, index: u32, unit: Self::Unit) -> io::Result<()> {
        self.target.end_unit(index, unit.unit)
    }

    fn finish(self, documents: SealedDocuments) -> io::Result<()> {
        check(self.stop)?;
        self.target.finish(documents)
    }
}

impl<W: Write> Write for StoppableUnit<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        check(self.stop)?;
        self.unit.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unit.flush()
    }
}

fn check(stop: &AtomicBool) -> io::Result<()> {
    // Not `Interrupted`, after which `write_all` tries again.
    if stop.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
}
