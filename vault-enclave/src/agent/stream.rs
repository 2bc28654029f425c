//! Bytes that a task of the runtime receives and a thread opens: a queue of a few pieces between them, so that memory is
//! bounded by ranges × pieces whatever the size of the model, and whoever sends waits for whoever opens.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc::{Receiver, Sender};

/// Pieces of one range that wait to be opened, each at most 1 MiB: `remote::FRAME_BYTES_MAX`, and less over HTTP/1.1.
const PIECES_WAITING: usize = 2;

/// The bytes of one range, in order.
pub(super) struct RangeReader {
    pieces: Receiver<io::Result<Bytes>>,
    current: Bytes,
}

/// The two ends of a range.
pub(super) fn channel() -> (Sender<io::Result<Bytes>>, RangeReader) {
    let (sender, pieces) = tokio::sync::mpsc::channel(PIECES_WAITING);
    (sender, RangeReader { pieces, current: Bytes::new() })
}

impl Read for RangeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            // The receiving task never waits for ever: it sends, fails or ends.
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let bytes = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..bytes]);
        Ok(bytes)
    }

    /// As many parts as one piece fills.
    fn read_vectored(&mut self, parts: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for part in parts.iter_mut().filter(|part| !part.is_empty()) {
            if total > 0 && self.current.is_empty() {
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
