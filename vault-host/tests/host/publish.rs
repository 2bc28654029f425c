use tonic::Code;
use vault_proto::v1::{Coarse, GetManifestRequest, ListModelsRequest};

use crate::audit::{checkpoint, genesis};
use crate::keeper::{Call, Keeper, refusal};
use crate::model::{SealedModel, proposes, upload};
use crate::setup::{Place, RunningHost, assert_refused, host_and_keeper};
use crate::store_calls::SmallDisk;

/// What ListModels says: name, version, released.
async fn listed(host: &RunningHost) -> Vec<(String, String, bool)> {
    let list = host.vault().await.list_models(ListModelsRequest {}).await.unwrap().into_inner();
    list.models.into_iter().map(|model| (model.model, model.version, model.released)).collect()
}

fn named(model: &str, version: &str, released: bool) -> (String, String, bool) {
    (model.to_owned(), version.to_owned(), released)
}

fn manifest_request() -> GetManifestRequest {
    GetManifestRequest { model: "minilm".to_owned(), version: "1".to_owned() }
}

async fn release(keeper: &Keeper, model: &SealedModel) {
    let log = [genesis("\"any\""), model.entry()];
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 2).await.unwrap();
}

#[tokio::test]
async fn a_model_is_proposed_when_the_keeper_says_so_and_released_when_the_log_does() {
    let place = Place::new();
    let expected = SealedModel::new("minilm", "1", &[100_000, 5], 1);
    let model = expected.clone();
    let (host, keeper) = host_and_keeper(&place, move |call| {
        assert_eq!(call, Call::PublishModel(expected.publication()));
        proposes(call)
    })
    .await;
    let mut client = host.provision().await;
    model.upload_all(&mut client).await;
    client.publish_model(model.publication()).await.unwrap();
    assert_eq!(listed(&host).await, [named("minilm", "1", false)]);
    assert!(std::fs::read_dir(place.data_dir().join("uploads")).unwrap().next().is_none());
    assert_refused(host.vault().await.get_manifest(manifest_request()).await, Code::NotFound, "unknown");

    // An entry above the checkpoint changes nothing yet.
    let log = [genesis("\"any\""), model.entry()];
    keeper.append(0, &log).await.unwrap();
    assert_eq!(listed(&host).await, [named("minilm", "1", false)]);
    keeper.put_checkpoint(&checkpoint(&log), 2).await.unwrap();
    assert_eq!(listed(&host).await, [named("minilm", "1", true)]);
    let answer = host.vault().await.get_manifest(manifest_request()).await.unwrap().into_inner();
    assert_eq!(answer.manifest, model.manifest.bytes());
    assert_eq!(answer.model_signature, model.signature);

    // FORMAT.md, section 6: exactly these files.
    let dir = place.data_dir().join("models/minilm/1");
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["dek.hpke", "manifest.json", "model.sig", "units"]);
    assert_eq!(std::fs::read(dir.join("units/00001.cob")).unwrap(), *model.units[1]);

    host.stop().await;
    let host = RunningHost::start(&place.config("")).await;
    assert_eq!(listed(&host).await, [named("minilm", "1", true)]);
}

#[tokio::test]
async fn a_model_with_missing_units_never_reaches_the_keeper() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, proposes).await;
    let mut client = host.provision().await;
    let model = SealedModel::new("minilm", "1", &[100_000, 5], 1);
    let refused = client.publish_model(model.publication()).await;
    assert_refused(refused, Code::PermissionDenied, "units-missing");
    upload(&mut client, model.upload(0), 0, &model.units[0]).await.unwrap();
    upload(&mut client, model.upload(1), 0, &model.units[1][..7]).await.unwrap();
    let refused = client.publish_model(model.publication()).await;
    assert!(assert_refused(refused, Code::PermissionDenied, "units-missing").message.contains("unit 1"));
    assert_eq!(keeper.calls(), 0);
}

#[tokio::test]
async fn a_publication_with_a_bad_part_never_reaches_the_keeper() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, proposes).await;
    let mut client = host.provision().await;
    let model = SealedModel::new("minilm", "1", &[100_000], 1);
    let good = model.publication();
    let traversal = String::from_utf8(good.manifest.clone()).unwrap().replace("part-00000", "../x");
    let two_alike = {
        let unit =
            r#"{"file":"b","offset":0,"length":5,"group":"files","sealed_sha256":"sha256:HEX","blake3":"blake3:HEX"}"#;
        let unit = unit.replace("HEX", &"0".repeat(64));
        let text = String::from_utf8(good.manifest.clone()).unwrap();
        let begin = text.find("\"units\":[").unwrap() + 9;
        format!("{}{},{}]}}", &text[..begin], unit.replace("\"b\"", "\"a\""), unit)
    };
    let cases = [
        (vec![], good.dek.clone(), good.model_signature.clone(), "malformed-manifest"),
        (good.manifest.clone(), vec![1; 7], good.model_signature.clone(), "malformed-dek"),
        (good.manifest.clone(), good.dek.clone(), vec![], "malformed-model-signature"),
        (good.manifest.clone(), good.dek.clone(), vec![1; (8 << 20) + 1], "malformed-model-signature"),
        (traversal.into_bytes(), good.dek.clone(), good.model_signature.clone(), "manifest-file"),
        (two_alike.into_bytes(), good.dek.clone(), good.model_signature.clone(), "unit-repeated"),
    ];
    for (manifest, dek, model_signature, code) in cases {
        let request = vault_proto::v1::PublishModelRequest { manifest, dek, model_signature };
        let status = client.publish_model(request).await.unwrap_err();
        let refusal = crate::setup::refusal(&status);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(refusal.code.starts_with(code) || code == "manifest-file", "{refusal:?}");
    }
    assert_eq!(keeper.calls(), 0);
}

#[tokio::test]
async fn a_model_that_the_keeper_refuses_is_taken_back_and_can_be_published_again() {
    let place = Place::new();
    let (host, keeper) =
        host_and_keeper(&place, |_| Some(refusal(Coarse::Denied, "publisher-unknown", "no rule has this key"))).await;
    let mut client = host.provision().await;
    let model = SealedModel::new("minilm", "1", &[100_000], 1);
    model.upload_all(&mut client).await;
    let refused = client.publish_model(model.publication()).await;
    assert_refused(refused, Code::PermissionDenied, "publisher-unknown");
    assert_eq!(listed(&host).await, []);
    for dir in ["proposed", "tmp"] {
        assert_eq!(crate::stores::files(&place.data_dir(), dir), [""; 0], "nothing is left");
        assert!(std::fs::read_dir(place.data_dir().join(dir)).unwrap().next().is_none(), "nor a directory in {dir}");
    }
    let path = keeper.kill().await;
    let mut keeper = Keeper::start(&path, proposes);
    keeper.attached().await;
    client.publish_model(model.publication()).await.unwrap();
    assert_eq!(listed(&host).await, [named("minilm", "1", false)]);
}

#[tokio::test]
async fn a_model_whose_keeper_died_in_the_middle_is_there_if_the_log_says_so() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let model = SealedModel::new("minilm", "1", &[100_000], 1);
    let mut client = host.provision().await;
    model.upload_all(&mut client).await;
    let (mut publishing, publication) = (client.clone(), model.publication());
    let waiting = tokio::spawn(async move { publishing.publish_model(publication).await });
    keeper.called().await;
    let path = keeper.kill().await;
    assert_refused(waiting.await.unwrap(), Code::Unavailable, "keeper-lost");
    host.stop().await;
    let mut keeper = Keeper::start(&path, proposes);
    let host = RunningHost::start(&place.config("")).await;
    keeper.attached().await;
    release(&keeper, &model).await;
    assert_eq!(listed(&host).await, [named("minilm", "1", true)]);
}

#[tokio::test]
async fn of_two_proposals_of_one_name_the_one_in_the_log_becomes_the_model() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, proposes).await;
    let mut client = host.provision().await;
    let [first, second] = [1, 2].map(|seed| SealedModel::new("minilm", "1", &[100_000], seed));
    for model in [&first, &second] {
        model.upload_all(&mut client).await;
        client.publish_model(model.publication()).await.unwrap();
    }
    assert_eq!(listed(&host).await, [named("minilm", "1", false), named("minilm", "1", false)]);
    release(&keeper, &first).await;
    let answer = host.vault().await.get_manifest(manifest_request()).await.unwrap().into_inner();
    assert_eq!(answer.manifest, first.manifest.bytes());
    // Published again: it is here already, so its units need not come again.
    client.publish_model(first.publication()).await.unwrap();
}

/// Whoever gives up in the middle would else leave a proposal behind that no keeper took, as often as he likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_goes_to_its_end_though_its_caller_is_gone() {
    let place = Place::new();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (host, keeper) = host_and_keeper(&place, move |_| {
        wait.lock().unwrap().recv().unwrap();
        Some(refusal(Coarse::Denied, "publisher-unknown", "no rule has this key"))
    })
    .await;
    let model = SealedModel::new("minilm", "1", &[100_000], 1);
    model.upload_all(&mut host.provision().await).await;
    let (mut client, publication) = (host.provision().await, model.publication());
    let leaves = tokio::spawn(async move { client.publish_model(publication).await });
    keeper.called().await;
    assert_eq!(listed(&host).await, [named("minilm", "1", false)]);
    leaves.abort();
    leaves.await.unwrap_err();
    go_on.send(()).unwrap();
    let begun = std::time::Instant::now();
    while !listed(&host).await.is_empty() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it is taken back");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_publication_leaves_room_for_the_log() {
    let Some(disk) = SmallDisk::mount(16 << 20) else { return };
    let place = Place::new();
    let config = crate::setup::config(&disk.0.path().join("data"), &place.keeper_socket(), "");
    let mut keeper = Keeper::start(&place.keeper_socket(), proposes);
    let host = RunningHost::start(&config.replace("keep_free_mib = 0", "keep_free_mib = 10")).await;
    keeper.attached().await;
    let mut client = host.provision().await;
    let model = SealedModel::new("minilm", "1", &[100_000], 1);
    model.upload_all(&mut client).await;
    let long = vault_proto::v1::PublishModelRequest { model_signature: vec![1; 7 << 20], ..model.publication() };
    assert_refused(client.publish_model(long).await, Code::Unavailable, "uploads-full");
    client.publish_model(model.publication()).await.unwrap();
}
