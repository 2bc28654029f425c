use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use prost::Message;
use tonic::Code;
use vault_proto::v1::{FetchUnitsRequest, FetchUnitsResponse, UnitRange};

use crate::audit::{checkpoint, genesis};
use crate::model::{SealedModel, proposes};
use crate::setup::{Place, RunningHost, assert_refused, host_and_keeper};

pub async fn host_with(place: &Place, model: &SealedModel, more: &str) -> RunningHost {
    publish(place, model).await;
    RunningHost::start(&place.config(more)).await
}

/// The next host there has this model.
pub async fn publish(place: &Place, model: &SealedModel) {
    let (host, keeper) = host_and_keeper(place, proposes).await;
    let mut client = host.provision().await;
    model.upload_all(&mut client).await;
    client.publish_model(model.publication()).await.unwrap();
    let log = [genesis("\"any\""), model.entry()];
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 2).await.unwrap();
    drop(client);
    host.stop().await;
}

pub fn request(ranges: &[(u32, u64, u64)]) -> FetchUnitsRequest {
    let range = |&(unit, offset, length): &(u32, u64, u64)| UnitRange { unit, offset, length };
    FetchUnitsRequest {
        model: "minilm".to_owned(),
        version: "1".to_owned(),
        ranges: ranges.iter().map(range).collect(),
    }
}

#[tokio::test]
async fn ranges_come_in_order_and_without_gaps() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[3_000_000, 0, 70_000], 1);
    let host = host_with(&place, &model, "").await;
    let ranges = [(2, 0, 0), (0, 0, 0), (0, 2_999_999, 7), (1, 71, 1), (0, 5, 1_048_577)];
    let mut stream = host.vault().await.fetch_units(request(&ranges)).await.unwrap().into_inner();
    for (unit, offset, length) in ranges {
        let bytes = &model.units[unit as usize];
        let length = if length == 0 { bytes.len() as u64 - offset } else { length };
        let mut at = offset;
        while at < offset + length {
            let chunk = stream.message().await.unwrap().unwrap();
            assert_eq!((chunk.unit, chunk.offset), (unit, at));
            assert!(!chunk.data.is_empty() && chunk.data.len() <= 1 << 20);
            let start = at as usize;
            assert_eq!(chunk.data, bytes[start..start + chunk.data.len()]);
            at += chunk.data.len() as u64;
        }
        assert_eq!(at, offset + length);
    }
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn ranges_outside_their_unit_are_refused_before_anything_is_sent() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[70_000, 0], 1);
    let host = host_with(&place, &model, "").await;
    let mut client = host.vault().await;
    let end = model.units[0].len() as u64;
    for range in [(0, end, 0), (0, end, 1), (0, end - 1, 2), (0, 0, end + 1), (0, u64::MAX, 1), (0, 1, u64::MAX)] {
        let refused = client.fetch_units(request(&[(0, 0, 1), range])).await.map(drop);
        assert_refused(refused, Code::InvalidArgument, "malformed");
    }
    let refused = client.fetch_units(request(&[(2, 0, 1)])).await.map(drop);
    assert_refused(refused, Code::NotFound, "unknown");
    for (model, version) in [("other", "1"), ("minilm", "2")] {
        let other = FetchUnitsRequest { model: model.to_owned(), version: version.to_owned(), ..request(&[(0, 0, 1)]) };
        assert_refused(client.fetch_units(other).await.map(drop), Code::NotFound, "unknown");
    }
}

#[tokio::test]
async fn a_client_that_goes_gives_its_place_back() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[12_000_000], 1);
    let host = host_with(&place, &model, "[limits]\nstreams = 1").await;
    let mut client = host.vault().await;
    let mut first = client.fetch_units(request(&[(0, 0, 0)])).await.unwrap().into_inner();
    first.message().await.unwrap().unwrap();
    let mut other = client.clone();
    let mut second = tokio::spawn(async move { other.fetch_units(request(&[(0, 0, 1)])).await });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err(), "the second waits its turn");
    drop(first);
    let second = tokio::time::timeout(Duration::from_secs(10), second).await.expect("the place is free again");
    assert_eq!(second.unwrap().unwrap().into_inner().message().await.unwrap().unwrap().data.len(), 1);
}

#[tokio::test]
async fn a_unit_that_is_missing_on_disk_ends_the_stream_with_an_error() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[70_000, 80_000], 1);
    let host = host_with(&place, &model, "").await;
    std::fs::remove_file(place.data_dir().join("models/minilm/1/units/00001.cob")).unwrap();
    let ranges = request(&[(0, 0, 0), (1, 0, 0)]);
    let mut stream = host.vault().await.fetch_units(ranges).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().data, **model.units[0]);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
}

/// Runs the stock gRPC of Python; `None` where there is no such Python.
async fn python_fetches(host: &RunningHost, request: &FetchUnitsRequest) -> Option<Output> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("WEIGHTVAULT_PYTHON").map_or_else(|| package.join("../target/venv/bin/python"), PathBuf::from);
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", python.display());
        eprintln!("skipped: {} is missing; `cargo xtask setup --python` makes it", python.display());
        return None;
    }
    let mut command = tokio::process::Command::new(python);
    command.arg(package.join("tests/fetch_units.py")).arg(host.address.to_string());
    Some(command.arg(hex::encode(request.encode_to_vec())).output().await.unwrap())
}

#[tokio::test]
async fn a_stock_client_in_another_language_reads_the_stream() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[3_000_000, 0, 70_000], 1);
    let host = host_with(&place, &model, "").await;
    let Some(output) = python_fetches(&host, &request(&[(0, 0, 0), (2, 5, 0), (1, 0, 1)])).await else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut rest = output.stdout.as_slice();
    let mut units = [(0, 0), (2, 5), (1, 0)].map(|(unit, offset)| (unit, offset, Vec::new()));
    while let Some((length, after)) = rest.split_first_chunk() {
        let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        let message = FetchUnitsResponse::decode(message).unwrap();
        let (_, offset, data) = units.iter_mut().find(|(unit, ..)| *unit == message.unit).unwrap();
        assert_eq!(message.offset, *offset + data.len() as u64);
        data.extend_from_slice(&message.data);
    }
    let [whole, tail, byte] = units.map(|(.., data)| data);
    assert!(whole == **model.units[0] && tail == model.units[2][5..] && byte == model.units[1][..1]);

    std::fs::remove_file(place.data_dir().join("models/minilm/1/units/00001.cob")).unwrap();
    let broken = python_fetches(&host, &request(&[(2, 0, 0), (1, 0, 0)])).await.unwrap();
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!broken.status.success() && said.starts_with("UNAVAILABLE: "), "{said}");
}
