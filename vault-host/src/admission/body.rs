//! The body of an answer, with what it holds until its client has taken it.
//!
//! A connection takes the whole of a frame as soon as its client has room for one byte of it, and the end of an answer
//! whether or not there is room: a body that was read to its end has not been sent. So what an answer holds is held by each
//! piece of it, wherever that lies.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// A longer frame is handed on in pieces, so that what the answer holds is freed when it was sent, not when it was
/// begun.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Pieces of one answer that lie in its connection, which counts their bytes and not what each costs beside them.
const PIECES_MAX: usize = 64;

/// How far an answer is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    handed: AtomicU64,
    taken: AtomicU64,
}

impl Progress {
    /// Bytes that left for the client.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether something waits for the client, and not the client for something.
    pub(super) fn is_behind(&self) -> bool {
        self.handed.load(Ordering::Relaxed) > self.taken()
    }
}

/// A body that keeps `held` until it is gone and all that came out of it.
pub(super) struct Holding<T> {
    body: Body,
    rest: Bytes,
    held: Arc<Held<T>>,
}

struct Held<T> {
    progress: Arc<Progress>,
    pieces: AtomicUsize,
    /// The body, where it waits until there are fewer pieces.
    waits: Mutex<Option<Waker>>,
    _what: T,
}

/// Bytes in a connection.
struct Piece<T> {
    bytes: Bytes,
    held: Arc<Held<T>>,
}

impl<T> Holding<T> {
    pub(super) fn new(body: Body, progress: Arc<Progress>, what: T) -> Self {
        let held = Held { progress, pieces: AtomicUsize::new(0), waits: Mutex::default(), _what: what };
        Self { body, rest: Bytes::new(), held: Arc::new(held) }
    }
}

impl<T> Held<T> {
    /// Whether there are so many pieces that no more may come; then `waker` is woken when there are fewer.
    fn is_full(&self, waker: &Waker) -> bool {
        if self.pieces.load(Ordering::SeqCst) < PIECES_MAX {
            return false;
        }
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        // One may have gone before it was known who waits.
        self.pieces.load(Ordering::SeqCst) >= PIECES_MAX
    }
}

impl<T> Piece<T> {
    fn new(bytes: Bytes, held: Arc<Held<T>>) -> Self {
        held.progress.handed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        held.pieces.fetch_add(1, Ordering::SeqCst);
        Self { bytes, held }
    }
}

impl<T> AsRef<[u8]> for Piece<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Drop for Piece<T> {
    fn drop(&mut self) {
        self.held.progress.taken.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
        if self.held.pieces.fetch_sub(1, Ordering::SeqCst) >= PIECES_MAX {
            let waits = self.held.waits.lock().unwrap_or_else(PoisonError::into_inner).take();
            waits.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T: Send + Sync + 'static> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.held.is_full(cx.waker()) {
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        let length = self.rest.len().min(FRAME_BYTES_MAX);
        let piece = Piece::new(self.rest.split_to(length), self.held.clone());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use bytes::Buf as _;
    use http_body::Body as _;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_held_by_every_piece_that_was_not_sent() {
        let (progress, what) = (Arc::<Progress>::default(), Arc::new(()));
        let body = Body::new(Full::new(Bytes::from(vec![7; FRAME_BYTES_MAX + 1])));
        let mut holding = Holding::new(body, progress.clone(), what.clone());
        let first = holding.frame().await.unwrap().unwrap().into_data().unwrap();
        let mut second = holding.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), second.len()), (FRAME_BYTES_MAX, 1));
        assert!(holding.frame().await.is_none());
        drop(holding);
        assert!(Arc::strong_count(&what) == 2 && progress.is_behind());
        drop(first);
        assert_eq!((Arc::strong_count(&what), progress.taken()), (2, FRAME_BYTES_MAX as u64));
        // Sent in part, or to its last byte, is not gone.
        second.advance(1);
        assert_eq!((second.len(), Arc::strong_count(&what)), (0, 2));
        drop(second);
        assert!(Arc::strong_count(&what) == 1 && !progress.is_behind());
    }

    #[tokio::test]
    async fn a_connection_has_so_many_pieces_of_an_answer_and_gets_more_when_one_is_sent() {
        let frames = (0..=PIECES_MAX).map(|_| Ok::<_, Status>(Frame::data(Bytes::from_static(b"a"))));
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let mut holding = Holding::new(body, Arc::default(), ());
        let mut pieces = Vec::new();
        for _ in 0..PIECES_MAX {
            pieces.push(holding.frame().await.unwrap().unwrap());
        }
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut holding).poll_frame(&mut cx).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        pieces.pop();
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(holding.frame().await.is_some());
    }
}
