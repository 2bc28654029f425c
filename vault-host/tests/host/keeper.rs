//! A network peer that speaks KeeperLink: it answers what a test tells it to and decides nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use vault_proto::limits::LINK_MESSAGE_BYTES_MAX;
use vault_proto::v1::keeper_link_server::{KeeperLink, KeeperLinkServer};
use vault_proto::v1::{
    AppendLog, AttachRequest, AttachResponse, GetBlob, KeeperRefusal, KeeperReply, LogHead, ProposeCheckpoint, PutBlob,
    PutCheckpoint, ReadLog, StoreCall, TakeTurn, attach_request, attach_response, keeper_call, keeper_reply,
    store_call, store_result,
};

pub type Call = keeper_call::Request;
pub type Reply = keeper_reply::Response;
/// What the peer answers; `None` is never.
pub type Answer = dyn Fn(Call) -> Option<Reply> + Send + Sync;

pub struct Keeper {
    path: PathBuf,
    state: Arc<State>,
    server: JoinHandle<()>,
    attached: watch::Receiver<u64>,
}

struct State {
    answer: Box<Answer>,
    attached: watch::Sender<u64>,
    outgoing: Mutex<Option<mpsc::Sender<Result<AttachResponse, Status>>>>,
    results: Mutex<HashMap<u64, oneshot::Sender<store_result::Result>>>,
    next_id: AtomicU64,
    calls: AtomicU64,
}

impl Keeper {
    /// Listens on `path` and gives every call what `answer` says.
    pub fn start(path: &Path, answer: impl Fn(Call) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (sender, attached) = watch::channel(0);
        let state = Arc::new(State {
            answer: Box::new(answer),
            attached: sender,
            outgoing: Mutex::default(),
            results: Mutex::default(),
            next_id: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        });
        let service = KeeperLinkServer::new(Peer(state.clone()))
            .max_decoding_message_size(LINK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(LINK_MESSAGE_BYTES_MAX);
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = server.serve_with_incoming(UnixListenerStream::new(listener));
        // Aborted with the task, which drops all connections at once.
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { path: path.to_owned(), state, server, attached }
    }

    /// Waits for the host.
    pub async fn attached(&mut self) {
        self.attached_times(1).await;
    }

    /// Waits until the host has attached so many times, and knows it: it answers a store call.
    pub async fn attached_times(&mut self, times: u64) {
        let attached = self.attached.wait_for(|count| *count >= times);
        let attached = tokio::time::timeout(Duration::from_secs(20), attached).await;
        attached.expect("the host attaches").unwrap();
        self.read(0, 0).await.unwrap();
    }

    /// Waits until a call has come.
    pub async fn called(&self) {
        let begun = Instant::now();
        while self.calls() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "a call comes");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Calls that came so far.
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Ends the stream, as a keeper that dies.
    pub async fn kill(self) -> PathBuf {
        // Connections live in tasks of their own: the streams are what can be ended.
        self.end_stream();
        self.server.abort();
        let _ = self.server.await;
        self.path
    }

    /// Ends the stream and goes on listening.
    pub fn end_stream(&self) {
        self.state.outgoing.lock().unwrap().take();
    }

    /// Makes a store call and waits for its result.
    pub async fn store(&self, call: store_call::Call) -> store_result::Result {
        let answered = self.begin_store(call).await;
        tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the host answers").unwrap()
    }

    /// Makes a store call.
    pub async fn begin_store(&self, call: store_call::Call) -> oneshot::Receiver<store_result::Result> {
        let id = self.state.next_id.fetch_add(1, Ordering::SeqCst);
        let (sender, answered) = oneshot::channel();
        self.state.results.lock().unwrap().insert(id, sender);
        let kind = Some(attach_response::Kind::StoreCall(StoreCall { call: Some(call) }));
        self.send(AttachResponse { id, kind }).await;
        answered
    }

    pub async fn send(&self, message: AttachResponse) {
        let outgoing = self.state.outgoing.lock().unwrap().clone().expect("the host is attached");
        outgoing.send(Ok(message)).await.unwrap();
    }

    pub async fn append(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), String> {
        done(self.store(append_call(first, entries)).await)
    }

    pub async fn put_checkpoint(&self, checkpoint: &str, size: u64) -> Result<(), String> {
        let checkpoint = checkpoint.to_owned();
        done(self.store(store_call::Call::PutCheckpoint(PutCheckpoint { checkpoint, size })).await)
    }

    pub async fn propose_checkpoint(&self, checkpoint: &str, size: u64) -> Result<(), String> {
        let checkpoint = checkpoint.to_owned();
        done(self.store(store_call::Call::ProposeCheckpoint(ProposeCheckpoint { checkpoint, size })).await)
    }

    /// How far the log is; with it begins this keeper's turn.
    pub async fn log_head(&self) -> LogHead {
        match self.store(store_call::Call::TakeTurn(TakeTurn {})).await {
            store_result::Result::LogHead(head) => head,
            other => panic!("{other:?}"),
        }
    }

    pub async fn read(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, String> {
        match self.store(store_call::Call::ReadLog(ReadLog { first, count })).await {
            store_result::Result::Entries(list) => Ok(list.entries),
            store_result::Result::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub async fn put_blob(&self, digest: &[u8], blob: &[u8]) -> Result<(), String> {
        let (digest, blob) = (digest.to_vec(), blob.to_vec());
        done(self.store(store_call::Call::PutBlob(PutBlob { digest, blob })).await)
    }

    pub async fn blob(&self, digest: &[u8]) -> Result<Vec<u8>, String> {
        match self.store(store_call::Call::GetBlob(GetBlob { digest: digest.to_vec() })).await {
            store_result::Result::Blob(blob) => Ok(blob),
            store_result::Result::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }
}

pub fn append_call(first: u64, entries: &[Vec<u8>]) -> store_call::Call {
    store_call::Call::AppendLog(AppendLog { first, entries: entries.to_vec() })
}

fn done(result: store_result::Result) -> Result<(), String> {
    match result {
        store_result::Result::Done(true) => Ok(()),
        store_result::Result::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// A refusal as a keeper gives it.
pub fn refusal(coarse: vault_proto::v1::Coarse, code: &str, message: &str) -> Reply {
    let (code, message) = (code.to_owned(), message.to_owned());
    Reply::Refusal(KeeperRefusal { coarse: coarse.into(), code, message })
}

struct Peer(Arc<State>);

#[tonic::async_trait]
impl KeeperLink for Peer {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, stream) = mpsc::channel(64);
        *self.0.outgoing.lock().unwrap() = Some(outgoing.clone());
        let outgoing = outgoing.downgrade();
        let state = self.0.clone();
        state.attached.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                match message.kind.unwrap() {
                    attach_request::Kind::Call(call) => {
                        state.calls.fetch_add(1, Ordering::SeqCst);
                        if let (Some(response), Some(outgoing)) =
                            ((state.answer)(call.request.unwrap()), outgoing.upgrade())
                        {
                            let reply = attach_response::Kind::Reply(KeeperReply { response: Some(response) });
                            let _ = outgoing.send(Ok(AttachResponse { id: message.id, kind: Some(reply) })).await;
                        }
                    }
                    attach_request::Kind::StoreResult(result) => {
                        let waiting = state.results.lock().unwrap().remove(&message.id).expect("a call with this id");
                        let _ = waiting.send(result.result.unwrap());
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
