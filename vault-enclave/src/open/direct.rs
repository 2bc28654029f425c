//! Reads around the page cache: of files that are not in it, and would only push out of it what others need.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ReadWriteFlags};

/// What memory, offset and length of a direct read are multiples of, on every disk.
const BLOCK_BYTES: usize = 4096;
/// One read of the disk.
const READ_BYTES: usize = 1 << 20;

/// A range of a file that was opened with `O_DIRECT`, through a buffer of its own which the disk writes to.
pub struct DirectReader {
    file: OwnedFd,
    memory: Vec<u8>,
    /// Where in `memory` the buffer is, which begins at a block.
    buffer: Range<usize>,
    /// Bytes in the buffer that were not taken yet.
    unread: Range<usize>,
    /// Offset in the file of what is read next, a multiple of the block.
    next: u64,
    /// The end of the block in which the range ends: nothing behind it is asked of the disk.
    end: u64,
    /// Bytes at `next` that come before the range.
    skip: usize,
}

impl DirectReader {
    pub(super) fn new(file: OwnedFd, range: Range<u64>) -> Self {
        let next = range.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let end = range.end.next_multiple_of(BLOCK_BYTES as u64);
        let bytes = end.saturating_sub(next).min(READ_BYTES as u64) as usize;
        let memory = vec![0; bytes + BLOCK_BYTES];
        let aligned = memory.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        let skip = (range.start - next) as usize;
        Self { file, memory, buffer: aligned..aligned + bytes, unread: 0..0, next, end, skip }
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn fill(&mut self) -> io::Result<()> {
        let wanted = (self.end - self.next).min(self.buffer.len() as u64) as usize;
        let buffer = &mut self.memory[self.buffer.start..self.buffer.start + wanted];
        let read = loop {
            match rustix::io::pread(&self.file, &mut *buffer, self.next) {
                Err(Errno::INTR) => {}
                read => break read?,
            }
        };
        self.unread = self.skip.min(read)..read;
        self.skip = 0;
        // Short only at the end of the file: then this is no block's start, and nothing is asked from there.
        self.next += read as u64;
        Ok(())
    }
}

impl Read for DirectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && !into.is_empty() {
            if self.next >= self.end || !self.next.is_multiple_of(BLOCK_BYTES as u64) {
                return Ok(0);
            }
            self.fill()?;
        }
        let bytes = into.len().min(self.unread.len());
        let from = self.buffer.start + self.unread.start;
        into[..bytes].copy_from_slice(&self.memory[from..from + bytes]);
        self.unread.start += bytes;
        Ok(bytes)
    }

    /// Whole parts as far as one read of the disk goes.
    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for part in parts.iter_mut().filter(|part| !part.is_empty()) {
            if total > 0 && self.unread.is_empty() {
                break;
            }
            let bytes = self.read(part)?;
            total += bytes;
            if bytes < part.len() {
                break;
            }
        }
        Ok(total)
    }
}

/// Whether the page of `file` at `offset` can be read without its disk. Where the kernel can't say, it can.
pub(super) fn is_cached(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    !matches!(read, Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{Advice, Mode, OFlags};

    use super::*;

    #[test]
    fn any_range_is_read_as_it_is_up_to_the_end_of_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..3 * READ_BYTES + 77).map(|index| (index / 7) as u8).collect();
        file.write_all(&content).unwrap();
        file.as_file().sync_all().unwrap();
        for start in [0, 1, 56, BLOCK_BYTES - 1, BLOCK_BYTES, READ_BYTES + 16_400, content.len() - 5, content.len()] {
            let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            let Ok(direct) = rustix::fs::open(file.path(), flags, Mode::empty()) else {
                eprintln!("skipped: this file system has no direct reads");
                return;
            };
            let mut read = Vec::new();
            DirectReader::new(direct, start as u64..content.len() as u64).read_to_end(&mut read).unwrap();
            assert!(read == content[start..], "from {start}");
        }
    }

    #[test]
    fn no_block_behind_the_range_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; 8 * BLOCK_BYTES]).unwrap();
        file.as_file().sync_all().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let Ok(direct) = rustix::fs::open(file.path(), flags, Mode::empty()) else {
            eprintln!("skipped: this file system has no direct reads");
            return;
        };
        let range = BLOCK_BYTES as u64 + 5..2 * BLOCK_BYTES as u64 + 1;
        let mut read = Vec::new();
        DirectReader::new(direct, range).read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), 2 * BLOCK_BYTES - 5);
    }

    #[test]
    fn a_direct_read_leaves_nothing_in_the_page_cache() {
        let bytes = 2 * READ_BYTES as u64;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; bytes as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        rustix::fs::fadvise(file.as_file(), 0, None, Advice::DontNeed).unwrap();
        let cached = |page: &u64| is_cached(file.as_file(), *page);
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        // To look at a page has it read, and some behind it: so pages are looked at that are far apart, each once.
        let direct = rustix::fs::open(file.path(), flags, Mode::empty());
        let (Ok(direct), false) = (direct, cached(&0)) else {
            eprintln!("skipped: this file system has no direct reads, or keeps what it has");
            return;
        };
        rustix::fs::fadvise(file.as_file(), 0, None, Advice::DontNeed).unwrap();
        let mut read = Vec::new();
        DirectReader::new(direct, 0..bytes).read_to_end(&mut read).unwrap();
        assert_eq!(read.len() as u64, bytes);
        assert!(![1 << 19, 1 << 20, 3 << 19].iter().any(cached));
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100]).unwrap();
        assert!(is_cached(&file, 0));
    }
}
