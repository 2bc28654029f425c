//! Sends sealed units to the host: a few at a time, each from where the host's copy ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use vault_proto::client::CallError;
use vault_proto::convert::UnitUpload;
use vault_proto::v1::{GetUploadRequest, UploadUnitRequest};

use super::progress::Progress;
use super::remote::Remote;
use super::sealed_dir::SealedDir;
use crate::failure::{Failure, Kind};

/// How a host refuses a unit whose bytes are not those of the manifest.
pub(super) const DAMAGED: &str = "digest-mismatch";
/// Units on their way at a time.
const PARALLEL: usize = 4;
/// Data of one message.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces that are read ahead for each unit.
const PIECES_AHEAD: usize = 2;
/// Tries in a row that bring nothing further: with their pauses, about a minute.
const TRIES_MAX: u32 = 10;
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Bytes that were sent; the rest was there already.
pub(super) async fn upload(remote: &Remote, sealed: Arc<SealedDir>, progress: Arc<Progress>) -> Result<u64, Failure> {
    let run =
        Arc::new(Run { remote: remote.clone(), sealed, progress, next: AtomicU32::new(0), sent: AtomicU64::new(0) });
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL {
        let run = run.clone();
        workers.spawn(async move { run.work().await });
    }
    // The first failure ends the others: a set that is dropped ends its tasks.
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| Failure::new(Kind::Failed, "upload-ended", error))??;
    }
    Ok(run.sent.load(Ordering::Relaxed))
}

/// What the workers share.
struct Run {
    remote: Remote,
    sealed: Arc<SealedDir>,
    progress: Arc<Progress>,
    next: AtomicU32,
    sent: AtomicU64,
}

/// Why a try brought no unit to its end.
enum Stopped {
    Call(Box<CallError>),
    File(Failure),
    /// The host has only this much of it.
    Short(u64),
}

impl Run {
    async fn work(&self) -> Result<(), Failure> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = self.sealed.upload(index) else { return Ok(()) };
            self.send(unit, &self.sealed.unit_file(index)).await?;
        }
    }

    /// Sends one unit, going on after failures that may pass.
    async fn send(&self, unit: UnitUpload, path: &Path) -> Result<(), Failure> {
        let (mut counted, mut best, mut tries) = (0, 0, 0);
        loop {
            let stopped = match self.go_on(unit, path, &mut counted).await {
                Ok(()) => return Ok(()),
                Err(stopped) => stopped,
            };
            if let Stopped::Short(stored) = stopped
                && stored > best
            {
                (best, tries) = (stored, 0);
            }
            tries += 1;
            if tries >= TRIES_MAX || !stopped.may_pass() {
                return Err(stopped.into_failure(unit, path));
            }
            tokio::time::sleep(pause(tries)).await;
        }
    }

    /// One try from where the host's copy ends. `counted` is what progress was told of this unit.
    async fn go_on(&self, unit: UnitUpload, path: &Path, counted: &mut u64) -> Result<(), Stopped> {
        let stored = self.remote.stored(unit).await.map_err(Stopped::Call)?;
        self.recount(counted, stored);
        if stored == unit.bytes {
            return Ok(());
        }
        let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
        let told = Arc::new(AtomicU64::new(0));
        let reader = Reader { path: path.to_owned(), unit, told: told.clone(), progress: self.progress.clone() };
        let reading = tokio::task::spawn_blocking(move || reader.read(stored, &pieces));
        let answer = self.remote.upload(ReceiverStream::new(queue)).await;
        let read = reading.await.map_err(|error| Stopped::File(Failure::new(Kind::Failed, "upload-ended", error)))?;
        let told = told.load(Ordering::Relaxed);
        *counted += told;
        self.sent.fetch_add(told, Ordering::Relaxed);
        // Its own file first: the host only saw a stream that ended.
        read.map_err(|error| Stopped::File(Failure::file("read", path, &error)))?;
        match answer.map_err(Stopped::Call)? {
            stored if stored == unit.bytes => Ok(()),
            stored => Err(Stopped::Short(stored)),
        }
    }

    /// Makes progress say what the host really has.
    fn recount(&self, counted: &mut u64, stored: u64) {
        self.progress.add(stored.saturating_sub(*counted));
        self.progress.take_back(counted.saturating_sub(stored));
        *counted = stored;
    }
}

impl Stopped {
    /// Whether the same may do a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Short(_) => true,
            // Another upload of the same unit ends, the host is busy, or the end of its copy was another than it said.
            Self::Call(error) if error.is_busy() || error.is_try_again() => true,
            Self::Call(error) if error.is_refusal() => ["upload-stalled", "upload-broken"].contains(&error.code()),
            Self::Call(error) => error.code() != "method-unknown",
        }
    }

    fn into_failure(self, unit: UnitUpload, path: &Path) -> Failure {
        match self {
            Self::Call(error) if error.code() == DAMAGED => {
                let next = format!("{} is damaged: seal the model anew", path.display());
                Failure::from(error).next(next)
            }
            Self::Call(error) => error.into(),
            Self::File(failure) => failure,
            Self::Short(stored) => {
                let message =
                    format!("the host keeps only {stored} of the {} bytes of unit {}", unit.bytes, unit.sealed);
                Failure::new(Kind::Failed, "upload-short", message).next("look at the host's journal and its disk")
            }
        }
    }
}

fn pause(tries: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << tries.saturating_sub(1).min(6)).min(PAUSE_MAX)
}

/// Reads one unit's file into messages.
struct Reader {
    path: PathBuf,
    unit: UnitUpload,
    told: Arc<AtomicU64>,
    progress: Arc<Progress>,
}

impl Reader {
    /// Ends early where nobody takes the pieces any more: then the call has failed and says why.
    fn read(&self, offset: u64, pieces: &mpsc::Sender<UploadUnitRequest>) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut at = offset;
        while at < self.unit.bytes {
            let length = (self.unit.bytes - at).min(PIECE_BYTES as u64);
            let mut data = vec![0; length as usize];
            file.read_exact(&mut data)?;
            let first = at == offset;
            let message = UploadUnitRequest {
                unit: first.then(|| GetUploadRequest::from(self.unit)),
                offset: if first { offset } else { 0 },
                data: Bytes::from(data),
            };
            if pieces.blocking_send(message).is_err() {
                break;
            }
            self.told.fetch_add(length, Ordering::Relaxed);
            self.progress.add(length);
            at += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use attestation::Sha256Digest;
    use prost::Message;
    use tonic::metadata::{MetadataMap, MetadataValue};
    use tonic::{Code, Status};
    use vault_proto::client::REFUSAL_TRAILER;
    use vault_proto::v1::Refusal;

    use super::*;

    fn unit(bytes: u64) -> UnitUpload {
        UnitUpload { manifest: Sha256Digest::of(b"manifest"), sealed: Sha256Digest::of(b"unit"), bytes }
    }

    fn messages(bytes: u64, offset: u64) -> Vec<UploadUnitRequest> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), (0..bytes).map(|at| at as u8).collect::<Vec<_>>()).unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        let progress = Arc::new(Progress::new("test", bytes, true));
        let reader = Reader { path: file.path().to_owned(), unit: unit(bytes), told: Arc::default(), progress };
        reader.read(offset, &sender).unwrap();
        assert_eq!(reader.told.load(Ordering::Relaxed), bytes - offset);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn the_first_message_names_the_unit_and_the_others_carry_data_alone() {
        let messages = messages(5 << 19, 0);
        assert_eq!(messages.iter().map(|message| message.data.len()).collect::<Vec<_>>(), [1 << 20, 1 << 20, 1 << 19]);
        assert_eq!(messages[0].unit, Some(unit(5 << 19).into()));
        assert!(messages[1..].iter().all(|message| message.unit.is_none() && message.offset == 0));
    }

    #[test]
    fn an_upload_goes_on_where_the_hosts_copy_ends() {
        let messages = messages(100, 97);
        assert_eq!((messages.len(), messages[0].offset, &messages[0].data[..]), (1, 97, &[97, 98, 99][..]));
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let progress = Arc::new(Progress::new("test", 9, true));
        let reader = Reader { path: file.path().to_owned(), unit: unit(9), told: Arc::default(), progress };
        assert_eq!(reader.read(0, &mpsc::channel(1).0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let call =
            |code| Stopped::Call(Box::new(CallError::new("UploadUnit", "http://vault", &Status::new(code, "x"))));
        for code in [Code::Unavailable, Code::Aborted, Code::ResourceExhausted, Code::Unknown] {
            assert!(call(code).may_pass(), "{code:?}");
        }
        assert!(!call(Code::Unimplemented).may_pass());
        assert!(!Stopped::File(Failure::new(Kind::Failed, "file", "x")).may_pass());
    }

    #[test]
    fn a_damaged_unit_is_named() {
        let mut metadata = MetadataMap::new();
        let refusal = Refusal { code: DAMAGED.to_owned(), ..Default::default() };
        metadata.insert_bin(REFUSAL_TRAILER, MetadataValue::from_bytes(&refusal.encode_to_vec()));
        let status = Status::with_metadata(Code::InvalidArgument, "", metadata);
        let stopped = Stopped::Call(Box::new(CallError::new("UploadUnit", "http://vault", &status)));
        assert!(!stopped.may_pass());
        let failure = stopped.into_failure(unit(1), Path::new("units/00003.cob"));
        assert_eq!(failure.next_step(), Some("units/00003.cob is damaged: seal the model anew"));
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        assert_eq!([1, 2, 3, 9, 99].map(|tries| pause(tries).as_millis()), [250, 500, 1_000, 10_000, 10_000]);
    }
}
