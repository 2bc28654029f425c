//! A host that lies about ciphertext, over real gRPC.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use vault_proto::convert::ModelName;
use vault_proto::v1::vault_server::{Vault, VaultServer};
use vault_proto::v1::{self, FetchUnitsResponse};

use super::fetch::RemoteUnits;
use super::remote::Hosts;
use crate::open::UnitSource;

/// What the host sends for its n-th call, which asks from `offset` on.
type Script = dyn Fn(usize, u64) -> Vec<Result<FetchUnitsResponse, Status>> + Send + Sync;

const SEALED: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[derive(Clone)]
struct Host {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
}

type Chunks = tokio_stream::Iter<std::vec::IntoIter<Result<FetchUnitsResponse, Status>>>;

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked here"))
}

#[tonic::async_trait]
impl Vault for Host {
    type FetchUnitsStream = Chunks;

    async fn fetch_units(&self, request: Request<v1::FetchUnitsRequest>) -> Result<Response<Chunks>, Status> {
        let offset = request.into_inner().ranges.first().map_or(0, |range| range.offset);
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(tokio_stream::iter((self.script)(call, offset))))
    }

    async fn get_challenge(
        &self,
        _: Request<v1::GetChallengeRequest>,
    ) -> Result<Response<v1::GetChallengeResponse>, Status> {
        not_asked()
    }
    async fn release_keys(
        &self,
        _: Request<v1::ReleaseKeysRequest>,
    ) -> Result<Response<v1::ReleaseKeysResponse>, Status> {
        not_asked()
    }
    async fn renew_lease(&self, _: Request<v1::RenewLeaseRequest>) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        not_asked()
    }
    async fn end_lease(&self, _: Request<v1::EndLeaseRequest>) -> Result<Response<v1::EndLeaseResponse>, Status> {
        not_asked()
    }
    type WatchLeaseStream = tokio_stream::Empty<Result<v1::WatchLeaseResponse, Status>>;

    async fn watch_lease(&self, _: Request<v1::WatchLeaseRequest>) -> Result<Response<Self::WatchLeaseStream>, Status> {
        not_asked()
    }
    async fn submit_extension(
        &self,
        _: Request<v1::SubmitExtensionRequest>,
    ) -> Result<Response<v1::SubmitExtensionResponse>, Status> {
        not_asked()
    }
    async fn get_key_epochs(
        &self,
        _: Request<v1::GetKeyEpochsRequest>,
    ) -> Result<Response<v1::GetKeyEpochsResponse>, Status> {
        not_asked()
    }
    async fn get_manifest(
        &self,
        _: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestResponse>, Status> {
        not_asked()
    }
    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        not_asked()
    }
}

/// The bytes of the range 5..25 of unit 3 as a reader sees them, and how often the host was asked.
fn read(
    script: impl Fn(usize, u64) -> Vec<Result<FetchUnitsResponse, Status>> + Send + Sync + 'static,
) -> (std::io::Result<Vec<u8>>, usize) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("host.sock");
    let runtime = Runtime::new().unwrap();
    let host = Host { script: Arc::new(script), calls: Arc::default() };
    let calls = host.calls.clone();
    let listener = {
        let _guard = runtime.enter();
        tokio::net::UnixListener::bind(&socket).unwrap()
    };
    let server = Server::builder().add_service(VaultServer::new(host));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let hosts = Hosts { addresses: vec![format!("unix:{}", socket.display())], ca: None };
    let remote = runtime.block_on(hosts.connect()).unwrap();
    let model = ModelName { model: "demo".try_into().unwrap(), version: "1".try_into().unwrap() };
    let units = RemoteUnits::new(remote, model, runtime.handle().clone());
    let mut bytes = Vec::new();
    let seen = units.read(3, 5..25).unwrap().read_to_end(&mut bytes).map(|_| bytes);
    (seen, calls.load(Ordering::SeqCst))
}

fn chunk(unit: u32, from: u64, to: u64) -> Result<FetchUnitsResponse, Status> {
    Ok(FetchUnitsResponse { unit, offset: from, data: SEALED[from as usize..to as usize].to_vec().into() })
}

#[test]
fn pieces_of_any_size_are_joined() {
    let (seen, calls) = read(|_, offset| vec![chunk(3, offset, 6), chunk(3, 6, 20), chunk(3, 20, 25)]);
    assert_eq!((seen.unwrap().as_slice(), calls), (&SEALED[5..25], 1));
}

#[test]
fn a_stream_that_breaks_goes_on_where_it_broke() {
    let (seen, calls) = read(|call, offset| match call {
        0 => vec![chunk(3, offset, 9), Err(Status::unavailable("gone"))],
        1 => vec![chunk(3, offset, 11)],
        _ => vec![chunk(3, offset, 25)],
    });
    assert_eq!((seen.unwrap().as_slice(), calls), (&SEALED[5..25], 3));
}

#[test]
fn anything_but_the_next_bytes_is_refused_and_not_asked_for_again() {
    let empty = || Ok(FetchUnitsResponse { unit: 3, offset: 5, data: Vec::new().into() });
    let lies: [fn(u64) -> Result<FetchUnitsResponse, Status>; 4] =
        [|_| chunk(2, 5, 25), |_| chunk(3, 4, 25), |_| chunk(3, 6, 25), |_| chunk(3, 5, 26)];
    for lie in lies {
        let (seen, calls) = read(move |_, offset| vec![lie(offset)]);
        assert_eq!((seen.unwrap_err().kind(), calls), (std::io::ErrorKind::InvalidData, 1));
    }
    let (seen, calls) = read(move |_, _| vec![empty()]);
    assert_eq!((seen.unwrap_err().kind(), calls), (std::io::ErrorKind::InvalidData, 1));
}

#[test]
fn a_message_beyond_its_limit_is_refused() {
    let large = || Ok(FetchUnitsResponse { unit: 3, offset: 5, data: vec![0; 5 << 20].into() });
    assert!(read(move |_, _| vec![large()]).0.is_err());
}

#[test]
fn a_refusal_is_passed_on_at_once() {
    let (seen, calls) = read(|_, _| vec![Err(Status::not_found("no such unit"))]);
    assert!(seen.unwrap_err().to_string().contains("no such unit"));
    assert_eq!(calls, 1);
}

#[test]
fn a_host_that_never_gets_on_is_given_up() {
    let (seen, calls) = read(|_, _| vec![Err(Status::unavailable("later"))]);
    assert_eq!(seen.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(calls, 5);
}
