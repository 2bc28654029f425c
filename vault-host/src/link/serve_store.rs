//! Store calls: the keeper's use of this host's disk.
//!
//! Calls on the log run one after another in the order they came; calls on blobs run beside them. Both are bounded, and
//! the stream is not read further while they are full.

use std::sync::Arc;

use attestation::Sha256Digest;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use vault_proto::v1::{
    AppendLog, AttachRequest, EndTurn, EntryList, GetBlob, LogHead, ProposeCheckpoint, PutBlob, PutCheckpoint, ReadLog,
    StoreCall, StoreResult, TakeTurn, attach_request, store_call, store_result,
};

use super::Witnesses;
use super::dial::Services;
use super::turn::{OwnTurn, Turns};
use crate::store::{Store, StoreError};

const LOG_CALLS_MAX: usize = 16;
const BLOB_CALLS_MAX: usize = 16;

/// The store calls of one stream.
pub(super) struct StoreCalls {
    store: Arc<dyn Store>,
    results: mpsc::Sender<AttachRequest>,
    log_calls: mpsc::Sender<(u64, store_call::Call)>,
    log_worker: JoinHandle<()>,
    blob_calls: JoinSet<()>,
    blob_places: Arc<Semaphore>,
    witnesses: Witnesses,
    witness_calls: JoinSet<()>,
    turns: Turns,
    turn: OwnTurn,
    turn_calls: JoinSet<()>,
    ended: watch::Sender<bool>,
}

impl StoreCalls {
    pub(super) fn new(services: &Services, results: mpsc::Sender<AttachRequest>) -> Self {
        let Services { store, witnesses, turns, .. } = services.clone();
        let (log_calls, queue) = mpsc::channel(LOG_CALLS_MAX);
        let (ended, end) = watch::channel(false);
        let log_worker = tokio::spawn(serve_log(store.clone(), queue, results.clone(), end));
        let blob_places = Arc::new(Semaphore::new(BLOB_CALLS_MAX));
        let (blob_calls, witness_calls, turn_calls) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let turn = OwnTurn::default();
        Self {
            store,
            results,
            log_calls,
            log_worker,
            blob_calls,
            blob_places,
            witnesses,
            witness_calls,
            turns,
            turn,
            turn_calls,
            ended,
        }
    }

    /// Takes a call; waits while there is no place for it.
    pub(super) async fn take(&mut self, id: u64, call: StoreCall) {
        match call.call {
            None => {
                send(&self.results, id, store_result::Result::Error("store-call-empty: nothing was asked".into())).await
            }
            Some(call @ (store_call::Call::PutBlob(_) | store_call::Call::GetBlob(_))) => {
                let place = self.blob_places.clone().acquire_owned().await;
                let (store, results) = (self.store.clone(), self.results.clone());
                self.blob_calls.spawn(async move {
                    let result = perform(store, call).await;
                    // With its place: results are as large as blobs, and wait for a keeper that does not read.
                    send(&results, id, result).await;
                    drop(place);
                });
                while self.blob_calls.try_join_next().is_some() {}
            }
            // Waits for nothing here: each witness has its own bound.
            Some(store_call::Call::AskWitness(ask)) => {
                let (witnesses, results) = (self.witnesses.clone(), self.results.clone());
                self.witness_calls.spawn(async move { send(&results, id, witnesses.ask(ask).await).await });
                while self.witness_calls.try_join_next().is_some() {}
            }
            Some(store_call::Call::TakeTurn(TakeTurn {})) => {
                let (store, results) = (self.store.clone(), self.results.clone());
                let (turns, turn) = (self.turns.clone(), self.turn.clone());
                self.turn_calls.spawn(async move {
                    let result = match turn.take(&turns).await {
                        true => log_head(store).await,
                        false => store_result::Result::Error("log-turn: other keepers write to the log".to_owned()),
                    };
                    send(&results, id, result).await;
                });
                while self.turn_calls.try_join_next().is_some() {}
            }
            Some(store_call::Call::EndTurn(EndTurn {})) => {
                self.turn.end();
                send(&self.results, id, store_result::Result::Done(true)).await;
            }
            Some(call) => {
                // The worker ends only after this sender is gone.
                let _ = self.log_calls.send((id, call)).await;
            }
        }
    }

    /// The stream has ended. Log calls that did not begin are dropped, the one that did is awaited: else it could land
    /// on what the keeper reads and writes over the next stream. Blob calls can't hurt: a blob never changes.
    pub(super) async fn finish(self) {
        let Self { ended, log_worker, mut blob_calls, mut witness_calls, mut turn_calls, .. } = self;
        turn_calls.shutdown().await;
        witness_calls.shutdown().await;
        ended.send_replace(true);
        if log_worker.await.is_err() {
            tracing::error!("the log worker panicked");
        }
        blob_calls.shutdown().await;
    }
}

async fn serve_log(
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<(u64, store_call::Call)>,
    results: mpsc::Sender<AttachRequest>,
    mut ended: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            next = queue.recv() => next,
        };
        let Some((id, call)) = next else { return };
        let result = perform(store.clone(), call).await;
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            () = send(&results, id, result) => {}
        }
    }
}

async fn send(results: &mpsc::Sender<AttachRequest>, id: u64, result: store_result::Result) {
    let kind = Some(attach_request::Kind::StoreResult(StoreResult { result: Some(result) }));
    // The stream may have ended; then nobody wants the result.
    let _ = results.send(AttachRequest { id, kind }).await;
}

async fn log_head(store: Arc<dyn Store>) -> store_result::Result {
    let read = tokio::task::spawn_blocking(move || store.log_head()).await;
    match read {
        Ok(Ok(head)) => store_result::Result::LogHead(LogHead {
            size: head.size,
            checkpoint: head.checkpoint.unwrap_or_default(),
            proposed: head.proposed.unwrap_or_default(),
        }),
        Ok(Err(error)) => store_result::Result::Error(format!("{}: {error}", error.code())),
        Err(_) => store_result::Result::Error("store-panicked: the log could not be asked".to_owned()),
    }
}

async fn perform(store: Arc<dyn Store>, call: store_call::Call) -> store_result::Result {
    let done = tokio::task::spawn_blocking(move || perform_blocking(&*store, call)).await;
    match done {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => {
            tracing::warn!(code = error.code(), %error, "a store call failed");
            store_result::Result::Error(format!("{}: {error}", error.code()))
        }
        Err(_) => store_result::Result::Error("store-panicked: the store call did not come to its end".to_owned()),
    }
}

fn perform_blocking(store: &dyn Store, call: store_call::Call) -> Result<store_result::Result, StoreError> {
    let done = store_result::Result::Done(true);
    match call {
        store_call::Call::AppendLog(AppendLog { first, entries }) => {
            store.append_log(first, &entries)?;
            Ok(done)
        }
        store_call::Call::ReadLog(ReadLog { first, count }) => {
            let entries = store.read_log(first, count)?;
            Ok(store_result::Result::Entries(EntryList { entries }))
        }
        store_call::Call::PutCheckpoint(PutCheckpoint { checkpoint, size }) => {
            store.put_checkpoint(&checkpoint, size)?;
            Ok(done)
        }
        store_call::Call::ProposeCheckpoint(ProposeCheckpoint { checkpoint, size }) => {
            store.propose_checkpoint(&checkpoint, size)?;
            Ok(done)
        }
        store_call::Call::PutBlob(PutBlob { digest, blob }) => {
            store.put_blob(&digest_of(&digest)?, &blob)?;
            Ok(done)
        }
        store_call::Call::GetBlob(GetBlob { digest }) => {
            store.blob(&digest_of(&digest)?).map(store_result::Result::Blob)
        }
        store_call::Call::GetCheckpoint(_) => {
            Ok(store_result::Result::Checkpoint(store.checkpoint()?.unwrap_or_default()))
        }
        store_call::Call::AskWitness(_) | store_call::Call::TakeTurn(_) | store_call::Call::EndTurn(_) => {
            unreachable!("no use of the disk")
        }
    }
}

fn digest_of(bytes: &[u8]) -> Result<Sha256Digest, StoreError> {
    Sha256Digest::try_from(bytes).map_err(|_| StoreError::DigestMismatch)
}
