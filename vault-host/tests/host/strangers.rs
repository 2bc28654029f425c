//! Clients that want nothing but to be in the way.

use std::time::Duration;

use attestation::Sha256Digest;
use tonic::Code;
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::{FetchUnitsRequest, GetBlobRequest, ListModelsRequest, UnitRange, WatchLeaseRequest};

use crate::audit::{checkpoint, genesis};
use crate::fetch::{host_with, publish, request};
use crate::model::SealedModel;
use crate::process::Process;
use crate::raw_http2::{Client, Kind};
use crate::setup::{Place, RunningHost, assert_refused, channel, host_and_keeper};

const FETCH: &str = "/weightvault.v1.Vault/FetchUnits";
const WATCH: &str = "/weightvault.v1.Vault/WatchLease";
const UPLOAD: &str = "/weightvault.v1.Provision/UploadUnit";
const GET_BLOB: &str = "/weightvault.v1.Audit/GetBlob";
/// Longer than any rule of the host takes.
const PATIENCE: Duration = Duration::from_secs(40);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in {PATIENCE:?}"))
}

fn unknown_model() -> FetchUnitsRequest {
    let ranges = vec![UnitRange { unit: 0, offset: 0, length: 1 }];
    FetchUnitsRequest { model: "minilm".to_owned(), version: "1".to_owned(), ranges }
}

#[tokio::test]
async fn who_sends_no_request_has_no_place_of_a_stream_and_is_told_after_a_while() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("[limits]\nstreams = 1")).await;
    let mut silent = Client::connect(host.address, 1 << 16).await;
    let (fetch, upload) = (silent.begin(FETCH).await, silent.begin(UPLOAD).await);
    silent.is_heard().await;

    let model = SealedModel::new("minilm", "1", &[70_000], 1);
    model.upload_all(&mut host.provision().await).await;
    assert_refused(host.vault().await.fetch_units(unknown_model()).await.map(drop), Code::NotFound, "unknown");

    let mut left = vec![fetch, upload];
    let told = async {
        while !left.is_empty() {
            let frame = silent.frame().await.expect("the connection stays");
            if frame.kind == (Kind::Headers { end: true }) {
                left.retain(|stream| *stream != frame.stream);
            }
        }
    };
    soon("both are told", told).await;
}

#[tokio::test]
async fn who_sends_no_request_has_no_place_of_a_watch() {
    const CONNECTIONS: usize = 64;
    const WATCHES: usize = 64;
    let place = Place::new();
    let config = place.config("[limits]\nrequests_per_second = 100000");
    let host = RunningHost::start(&config).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(host.address, 1 << 16).await;
        for _ in 0..WATCHES {
            client.begin(WATCH).await;
        }
        client.is_heard().await;
        silent.push(client);
    }
    let refused = host.vault().await.watch_lease(WatchLeaseRequest::default()).await;
    assert_refused(refused.map(drop), Code::InvalidArgument, "malformed");
}

/// The whole of a message has left the host once its client had room for a byte of it, and has not.
#[tokio::test]
async fn a_client_without_room_keeps_its_place_until_somebody_waits_for_it() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[70_000], 1);
    let host = host_with(&place, &model, "[limits]\nstreams = 1").await;
    let mut full = Client::connect(host.address, 64).await;
    let stream = full.call(FETCH, &request(&[(0, 0, 0)])).await;
    let mut bytes = 0;
    while bytes < 64 {
        let frame = soon("as much as there is room for", full.frame()).await.unwrap();
        if let Kind::Data { bytes: more } = frame.kind {
            assert_eq!(frame.stream, stream);
            bytes += more;
        }
    }
    let mut vault = host.vault().await;
    let mut waits = tokio::spawn(async move { vault.fetch_units(request(&[(0, 0, 0)])).await });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waits).await.is_err(), "it has its place still");
    let mut answer = waits.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap().unwrap().data, **model.units[0]);
    soon("the connection is closed", full.is_closed()).await;
}

#[tokio::test]
async fn who_asks_for_many_bytes_one_by_one_and_takes_none_has_no_memory_for_each() {
    /// All the places of a host that was not told otherwise.
    const CALLS: usize = 64;
    /// A request that the host takes at once.
    const RANGES: usize = 16_000;
    /// Mostly of the lists of ranges. With the memory of a whole message for each byte, a call had 64.
    const GROWTH_MIB_MAX: u64 = 128;
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[70_000], 1);
    publish(&place, &model).await;
    let host = Process::start(&place, "");
    let before = host.peak_mib();
    let mut full = Client::connect(host.address, 0).await;
    for _ in 0..CALLS {
        let stream = full.call(FETCH, &request(&[(0, 0, 1); RANGES])).await;
        while full.frame().await.unwrap().stream != stream {}
    }
    // From now on it takes all there is, and its socket is not read.
    full.all_have_more_room(1 << 30).await;
    full.each_has_room(1 << 20).await;
    let mut vault = VaultClient::new(channel(host.address).await);
    let waits = soon("a place", vault.fetch_units(request(&[(0, 0, 1)]))).await;
    assert!(waits.unwrap().into_inner().message().await.unwrap().is_some());
    let grown = host.peak_mib() - before;
    println!("the host grew by {grown} MiB");
    assert!(grown < GROWTH_MIB_MAX, "the host grew by {grown} MiB");
}

/// Eight answers have all the memory that there is for them.
#[tokio::test]
async fn answers_that_nobody_takes_give_their_memory_to_who_waits_for_it() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let log = [genesis("\"any\"")];
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 1).await.unwrap();
    let blob = vec![7; 8 << 20];
    let digest = Sha256Digest::of(&blob).as_bytes().to_vec();
    keeper.put_blob(&digest, &blob).await.unwrap();
    let ask = GetBlobRequest { digest };
    let mut full = Client::connect(host.address, 64).await;
    for _ in 0..8 {
        full.call(GET_BLOB, &ask).await;
    }
    let mut answers = 0;
    while answers < 8 {
        let frame = soon("all are answered", full.frame()).await.unwrap();
        answers += usize::from(frame.kind == Kind::Headers { end: false });
    }
    let got = soon("there is memory again", host.audit().await.get_blob(ask)).await.unwrap().into_inner();
    assert!(got.blob == blob);
    soon("the connection is closed", full.is_closed()).await;
}

#[tokio::test]
async fn connections_without_a_call_make_room_for_new_ones() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("[limits]\nconnections = 2")).await;
    let list = async |host: &RunningHost| {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", host.address)).unwrap();
        let channel = endpoint.connect().await.ok()?;
        let mut client = VaultClient::new(channel);
        client.list_models(ListModelsRequest {}).await.ok()?;
        Some(client)
    };
    let mut idle = Client::connect(host.address, 1 << 16).await;
    idle.call("/weightvault.v1.Vault/ListModels", &ListModelsRequest {}).await;
    idle.is_heard().await;
    let mut at_work = Client::connect(host.address, 1 << 16).await;
    at_work.begin(UPLOAD).await;
    at_work.is_heard().await;
    let third = async {
        loop {
            if let Some(client) = list(&host).await {
                return client;
            }
            // Not at once: both were used a moment ago. An upload without a message is told so, and is no call any more.
            at_work.begin(UPLOAD).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let _third = soon("the third", third).await;
    soon("the idle one is closed", idle.is_closed()).await;
    at_work.is_heard().await;
}
