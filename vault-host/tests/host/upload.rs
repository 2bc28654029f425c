use std::net::SocketAddr;
use std::time::Duration;

use attestation::Sha256Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use vault_proto::convert::UnitUpload;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::{GetUploadRequest, UploadUnitRequest};

use crate::model::{SealedModel, upload};
use crate::s3::S3;
use crate::setup::{Place, RunningHost, assert_refused};
use crate::store_calls::SmallDisk;
use crate::stores::files;

fn model() -> SealedModel {
    SealedModel::new("minilm", "1", &[3_000_000, 0, 70_000], 1)
}

async fn stored(client: &mut ProvisionClient<Channel>, unit: UnitUpload) -> u64 {
    client.get_upload(GetUploadRequest::from(unit)).await.unwrap().into_inner().offset
}

#[tokio::test]
async fn a_unit_that_came_in_parts_is_whole() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(0), model().units[0].clone());
    assert_eq!(stored(&mut client, unit).await, 0);
    assert_eq!(upload(&mut client, unit, 0, &bytes[..1_000_000]).await.unwrap(), 1_000_000);
    assert_eq!(stored(&mut client, unit).await, 1_000_000);
    drop(client);
    host.stop().await;

    let host = RunningHost::start(&place.config("")).await;
    let mut client = host.provision().await;
    assert_eq!(stored(&mut client, unit).await, 1_000_000);
    assert_eq!(upload(&mut client, unit, 1_000_000, &bytes[1_000_000..]).await.unwrap(), unit.bytes);
    assert_eq!(stored(&mut client, unit).await, unit.bytes);
    let again = upload(&mut client, unit, unit.bytes, &[]).await;
    assert_refused(again, Code::Aborted, "upload-offset");
}

#[tokio::test]
async fn a_stream_that_breaks_keeps_what_came() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(0), model().units[0].clone());
    let (messages, stream) = mpsc::channel(1);
    let mut uploading = client.clone();
    let task = tokio::spawn(async move { uploading.upload_unit(ReceiverStream::new(stream)).await });
    let first = UploadUnitRequest { unit: Some(unit.into()), offset: 0, data: Default::default() };
    messages.send(first).await.unwrap();
    for piece in bytes[..900_000].chunks(100_000) {
        messages.send(UploadUnitRequest { data: piece.to_vec().into(), ..Default::default() }).await.unwrap();
    }
    let busy = upload(&mut client, unit, 0, &[]).await;
    assert_refused(busy, Code::ResourceExhausted, "upload-busy");
    // The client disappears in the middle.
    tokio::time::sleep(Duration::from_millis(200)).await;
    task.abort();
    let _ = task.await;
    let mut offset = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        offset = stored(&mut client, unit).await;
        if let Ok(stored) = upload(&mut client, unit, offset, &bytes[offset as usize..]).await {
            assert_eq!(stored, unit.bytes);
            break;
        }
    }
    assert!(offset > 0);
    assert_eq!(stored(&mut client, unit).await, unit.bytes);
}

#[tokio::test]
async fn a_unit_with_another_digest_is_removed_and_can_come_again() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(2), model().units[2].clone());
    let mut wrong = bytes.to_vec();
    wrong[40_000] ^= 1;
    let refused = upload(&mut client, unit, 0, &wrong).await;
    assert_refused(refused, Code::InvalidArgument, "digest-mismatch");
    assert_eq!(stored(&mut client, unit).await, 0);
    assert_eq!(upload(&mut client, unit, 0, &bytes).await.unwrap(), unit.bytes);
}

#[tokio::test]
async fn an_upload_that_does_not_fit_is_refused() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(2), model().units[2].clone());
    assert_refused(upload(&mut client, unit, 5, &bytes).await, Code::Aborted, "upload-offset");
    let longer = [&bytes[..], b"x"].concat();
    assert_refused(upload(&mut client, unit, 0, &longer).await, Code::InvalidArgument, "upload-too-long");
    // What came up to there stays, but counts as whole only after its digest was checked.
    let offset = stored(&mut client, unit).await;
    assert!(offset < unit.bytes || offset == unit.bytes && is_whole(&place, unit));

    let request = |change: &dyn Fn(&mut UploadUnitRequest)| {
        let mut message = UploadUnitRequest { unit: Some(unit.into()), offset: 0, data: Default::default() };
        change(&mut message);
        message
    };
    let cases = [
        (vec![], "malformed-unit"),
        (vec![request(&|m| m.unit = None)], "malformed-unit"),
        (vec![request(&|m| m.unit.as_mut().unwrap().manifest_digest.clear())], "malformed-manifest-digest"),
        (vec![request(&|m| m.unit.as_mut().unwrap().sealed_sha256.push(0))], "malformed-sealed-sha256"),
        (vec![request(&|m| m.unit.as_mut().unwrap().sealed_bytes = 71)], "malformed-sealed-bytes"),
        (vec![request(&|m| m.unit.as_mut().unwrap().sealed_bytes = u64::MAX)], "malformed-sealed-bytes"),
        (vec![request(&|m| m.offset = offset), request(&|m| m.offset = 0)], "malformed-unit"),
        (
            vec![request(&|m| m.offset = offset), UploadUnitRequest { offset: 9, ..Default::default() }],
            "malformed-offset",
        ),
    ];
    for (messages, code) in cases {
        let refused = client.upload_unit(tokio_stream::iter(messages)).await;
        assert_refused(refused, Code::InvalidArgument, code);
    }
}

fn is_whole(place: &Place, unit: UnitUpload) -> bool {
    let hex = |digest: &Sha256Digest| hex::encode(digest.as_bytes());
    place.data_dir().join("uploads").join(hex(&unit.manifest)).join(hex(&unit.sealed)).exists()
}

#[tokio::test]
async fn uploads_leave_room_for_the_log() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let place = Place::new();
    let config = crate::setup::config(&disk.0.path().join("data"), &place.keeper_socket(), "");
    let host = RunningHost::start(&config.replace("keep_free_mib = 0", "keep_free_mib = 6")).await;
    let mut client = host.provision().await;
    let refused = upload(&mut client, model().upload(0), 0, &model().units[0]).await;
    assert_refused(refused, Code::Unavailable, "uploads-full");
    let small = upload(&mut client, model().upload(2), 0, &model().units[2]).await.unwrap();
    assert_eq!(small, model().upload(2).bytes);
}

#[tokio::test]
async fn a_full_disk_keeps_what_came_before() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let place = Place::new();
    let config = crate::setup::config(&disk.0.path().join("data"), &place.keeper_socket(), "");
    let host = RunningHost::start(&config).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(0), model().units[0].clone());
    assert_eq!(upload(&mut client, unit, 0, &bytes[..1_500_000]).await.unwrap(), 1_500_000);
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 2 << 20]).unwrap();
    let refused = upload(&mut client, unit, 1_500_000, &bytes[1_500_000..]).await;
    assert_refused(refused, Code::Unavailable, "disk-full");
    let offset = stored(&mut client, unit).await;
    assert!(offset >= 1_500_000);
    std::fs::remove_file(filler).unwrap();
    let rest = &bytes[offset as usize..];
    assert_eq!(upload(&mut client, unit, offset, rest).await.unwrap(), unit.bytes);
}

/// Parts that were put together can't be gone on with, and the host that was to check the unit may have stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_check_was_disturbed_in_a_bucket_is_checked_again_and_need_not_come_again() {
    let Some(s3) = S3::start() else { return };
    let place = Place::new();
    let host = RunningHost::start(&place.config(&s3.config("prod"))).await;
    let mut client = host.provision().await;
    let (unit, bytes) = (model().upload(2), model().units[2].clone());
    assert_eq!(upload(&mut client, unit, 0, &bytes).await.unwrap(), unit.bytes);
    let disturb = || {
        let names = files(&s3.object("prod"), "units");
        let checked = names.iter().find_map(|name| name.strip_suffix(".checked")).unwrap();
        std::fs::remove_file(s3.object(&format!("prod/{checked}.checked"))).unwrap();
        let state = s3.object(&format!("prod/{}", checked.replacen("units", "uploads", 1)));
        std::fs::create_dir_all(state.parent().unwrap()).unwrap();
        let parts = format!(r#"{{"id":"{}","bytes":{},"parts":["x"]}}"#, "0".repeat(32), unit.bytes);
        std::fs::write(state, parts).unwrap();
        let name = checked.strip_suffix(&format!(".{}", unit.bytes)).unwrap();
        s3.object(&format!("prod/{name}"))
    };
    disturb();
    assert_eq!(stored(&mut client, unit).await, 0);
    assert_refused(upload(&mut client, unit, 0, &bytes).await, Code::Aborted, "upload-offset");
    assert_eq!(stored(&mut client, unit).await, unit.bytes);
    assert_eq!(files(&s3.object("prod"), "uploads"), [""; 0]);

    let mut wrong = bytes.to_vec();
    wrong[7] ^= 1;
    std::fs::write(disturb(), wrong).unwrap();
    assert_eq!(upload(&mut client, unit, 0, &bytes).await.unwrap(), unit.bytes);
    assert_eq!(stored(&mut client, unit).await, unit.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_to_a_bucket_that_nothing_came_of_make_room_once_they_were_let_be() {
    const MODELS_MAX: u8 = 255;
    let Some(s3) = S3::start() else { return };
    let place = Place::new();
    let host = RunningHost::start(&place.config(&s3.config("prod"))).await;
    let mut client = host.provision().await;
    let of = |n: u32| UnitUpload { manifest: Sha256Digest::of(&n.to_be_bytes()), ..model().upload(2) };
    for n in 0..=MODELS_MAX {
        assert_eq!(upload(&mut client, of(n.into()), 0, &[]).await.unwrap(), 0);
    }
    let new = of(1000);
    assert_refused(upload(&mut client, new, 0, &[]).await, Code::ResourceExhausted, "too-many-uploads");
    let states = files(&s3.object("prod"), "uploads");
    let state = s3.object(&format!("prod/{}", states[7]));
    let before = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&state).unwrap().set_modified(before).unwrap();
    assert_eq!(upload(&mut client, new, 0, &model().units[2]).await.unwrap(), new.bytes);
    assert!(!state.exists() && s3.object(&format!("prod/{}", states[8])).exists());
}

/// Services give parts up after a while. The one of these tests takes who asks for such for somebody without a right.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_parts_a_bucket_has_forgotten_begins_anew() {
    const FORGOTTEN: &str = "00000000-0000-0000-0000-000000000000";
    let Some(s3) = S3::start() else { return };
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", relay.local_addr().unwrap());
    let server = s3.address();
    tokio::spawn(async move {
        while let Ok((client, _)) = relay.accept().await {
            tokio::spawn(pass_as_others_answer(client, server, FORGOTTEN));
        }
    });
    let place = Place::new();
    let host = RunningHost::start(&place.config(&s3.config_at(&endpoint, "prod"))).await;
    let mut client = host.provision().await;
    // So short that the server need not close a connection whose request it will not read.
    let (unit, bytes) = (model().upload(1), model().units[1].clone());
    assert_eq!(upload(&mut client, unit, 0, &[]).await.unwrap(), 0);
    let states = files(&s3.object("prod"), "uploads");
    let state = s3.object(&format!("prod/{}", states[0]));
    std::fs::write(&state, format!(r#"{{"id":"{FORGOTTEN}","bytes":0,"parts":[]}}"#)).unwrap();
    assert_refused(upload(&mut client, unit, 0, &bytes).await, Code::Aborted, "upload-offset");
    assert!(!state.exists());
    assert_eq!(upload(&mut client, unit, 0, &bytes).await.unwrap(), unit.bytes);
}

/// Says 404 to requests with these bytes, where the server says 403.
async fn pass_as_others_answer(mut client: TcpStream, server: SocketAddr, bytes: &str) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut request, mut answer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut asked = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                asked |= request[..length].windows(bytes.len()).any(|part| part == bytes.as_bytes());
                server.write_all(&request[..length]).await.unwrap();
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                let (refused, unknown) = (b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 404 Not Found");
                if std::mem::take(&mut asked) && answer.starts_with(refused) {
                    answer[..unknown.len()].copy_from_slice(unknown);
                }
                client.write_all(&answer[..length]).await.unwrap();
            }
        }
    }
}
