//! A web server that serves ranges of a directory, or does worse.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// The range.
    Serve,
    /// This status and no body.
    Status(u16),
    /// All of the file, whatever range was asked for.
    Whole,
    /// The range one byte later.
    Shifted,
    /// The range, with a bit of the byte at this place in the file changed.
    Flipped(u64),
    /// The range up to this place in the file, where the connection breaks.
    Cut(u64),
    /// The next byte of the range, where the connection breaks: each request gets on.
    OneByte,
    /// The range up to this place, and then nothing.
    Stalling(u64),
    /// No answer.
    Silent,
}

pub(super) struct Server {
    address: String,
    requests: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Server {
    /// Serves `directory`; `behave` is told how many requests came before.
    pub(super) fn start(directory: &Path, behave: impl Fn(usize) -> Behaviour + Clone + Send + Sync + 'static) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (requests, directory) = (Arc::<AtomicUsize>::default(), directory.to_owned());
        let counted = requests.clone();
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (behave, requests, directory) = (behave.clone(), counted.clone(), directory.clone());
                let answer = move |request: Request<Incoming>| {
                    let behaviour = behave(requests.fetch_add(1, Ordering::SeqCst));
                    let file = directory.join(request.uri().path().trim_start_matches('/'));
                    async move { Ok::<_, Infallible>(answer(&request, file, behaviour).await) }
                };
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(served);
            }
        });
        Self { address, requests, _runtime: runtime }
    }

    pub(super) fn place(&self) -> String {
        self.address.clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

type Body = StreamBody<std::pin::Pin<Box<dyn tokio_stream::Stream<Item = io::Result<Frame<Bytes>>> + Send>>>;

async fn answer(request: &Request<Incoming>, file: PathBuf, behaviour: Behaviour) -> Response<Body> {
    let empty = || StreamBody::new(Box::pin(tokio_stream::empty()) as _);
    let with = |status: u16| Response::builder().status(status);
    match behaviour {
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Status(status) => return with(status).header(LOCATION, "/elsewhere").body(empty()).unwrap(),
        _ => {}
    }
    let Ok(mut content) = fs::read(file) else { return with(404).body(empty()).unwrap() };
    let range = request.headers()[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap().to_owned();
    let (first, last) = range.split_once('-').unwrap();
    let (mut first, mut last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if let Behaviour::Shifted = behaviour {
        (first, last) = (first + 1, last + 1);
    }
    if let Behaviour::Flipped(at) = behaviour
        && let Some(byte) = content.get_mut(at as usize)
    {
        *byte ^= 1;
    }
    if let Behaviour::Whole = behaviour {
        let length = content.len();
        return with(200).header(CONTENT_LENGTH, length).body(body(content.into(), Behaviour::Serve)).unwrap();
    }
    let (total, last) = (content.len(), last.min(content.len() - 1));
    let mut wanted = Bytes::from(content).slice(first.min(last)..=last);
    let length = wanted.len();
    if let Behaviour::Cut(at) | Behaviour::Stalling(at) = behaviour {
        wanted.truncate((at as usize).saturating_sub(first));
    }
    if let Behaviour::OneByte = behaviour {
        wanted.truncate(1);
    }
    let response =
        with(206).header(CONTENT_RANGE, format!("bytes {first}-{last}/{total}")).header(CONTENT_LENGTH, length);
    response.body(body(wanted, behaviour)).unwrap()
}

fn body(content: Bytes, behaviour: Behaviour) -> Body {
    let sent = tokio_stream::iter([Ok(Frame::data(content))]);
    match behaviour {
        Behaviour::Cut(_) | Behaviour::OneByte => {
            let broken = tokio_stream::iter([Err(io::ErrorKind::ConnectionReset.into())]);
            // What was sent before is not to be thrown away with the connection.
            let later =
                tokio_stream::iter([()]).throttle(Duration::from_millis(20)).map(|()| Ok(Frame::data(Bytes::new())));
            StreamBody::new(Box::pin(sent.chain(later).chain(broken)))
        }
        Behaviour::Stalling(_) => StreamBody::new(Box::pin(sent.chain(tokio_stream::pending()))),
        _ => StreamBody::new(Box::pin(sent)),
    }
}
