//! Copies of stores, from a directory to a store that hosts share and on to a directory.

use attestation::Sha256Digest;
use vault_host::{Config, Copied, StoreError, copy_store};
use vault_proto::v1::{FetchUnitsRequest, GetManifestRequest, UnitRange};

use crate::audit::{checkpoint, entries, genesis};
use crate::keeper::Keeper;
use crate::model::{SealedModel, proposes};
use crate::setup::{Place, RunningHost};
use crate::stores::Shared;

async fn copied(from: &str, to: &str) -> Result<Copied, StoreError> {
    let (from, to) = (Config::parse(from).unwrap(), Config::parse(to).unwrap());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || copy_store(&from, &to, &runtime, drop)).await.unwrap()
}

fn code(result: Result<Copied, StoreError>) -> &'static str {
    result.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_a_shared_store_and_one_of_that_in_a_directory_are_what_the_first_was() {
    for store in Shared::all() {
        let (one, two, three) = (Place::new(), Place::new(), Place::new());
        let (source, shared, back) = (one.config(""), two.config(&store.config("copied")), three.config(""));
        let mut keeper = Keeper::start(&one.keeper_socket(), proposes);
        let host = RunningHost::start(&source).await;
        keeper.attached().await;
        let model = SealedModel::new("minilm", "1", &[10_000_000, 5], 1);
        let mut client = host.provision().await;
        model.upload_all(&mut client).await;
        client.publish_model(model.publication()).await.unwrap();
        let mut log = vec![genesis("\"any\""), model.entry()];
        log.extend(entries(2..600));
        keeper.append(0, &log).await.unwrap();
        keeper.put_checkpoint(&checkpoint(&log), 600).await.unwrap();
        keeper.append(600, &entries(600..603)).await.unwrap();
        let digest = Sha256Digest::of(b"evidence");
        keeper.put_blob(digest.as_bytes(), b"evidence").await.unwrap();
        assert_eq!(code(copied(&source, &shared).await), "data-dir-in-use");
        host.stop().await;

        // A blob that went bad is no part of a copy; put right, the copy goes on from there.
        let blob = one.data_dir().join("blobs").join(hex::encode(digest.as_bytes()));
        std::fs::write(&blob, b"evidencf").unwrap();
        // Where tests share a process, one that another test is just starting has the lock for a moment still.
        let mut refused = code(copied(&source, &shared).await);
        for _ in 0..100 {
            if refused != "data-dir-in-use" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            refused = code(copied(&source, &shared).await);
        }
        assert_eq!(refused, "store-damaged");
        std::fs::write(&blob, b"evidence").unwrap();
        let all = Copied { blobs: 1, models: 1, entries: 600, above: 3 };
        assert_eq!(copied(&source, &shared).await.unwrap(), all);
        assert_eq!(copied(&source, &shared).await.unwrap(), all, "a second time");
        assert_eq!(copied(&shared, &back).await.unwrap(), all);

        log.extend(entries(600..603));
        for config in [&shared, &back] {
            let place = if config == &shared { &two } else { &three };
            let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
            let host = RunningHost::start(config).await;
            keeper.attached().await;
            assert_eq!(keeper.read(0, 4096).await.unwrap(), log);
            assert_eq!(keeper.blob(digest.as_bytes()).await.unwrap(), b"evidence");
            let mut vault = host.vault().await;
            let name = GetManifestRequest { model: "minilm".to_owned(), version: "1".to_owned() };
            assert_eq!(vault.get_manifest(name).await.unwrap().into_inner().manifest, model.manifest.bytes());
            let range = UnitRange { unit: 0, offset: 123, length: 9_000_000 };
            let request =
                FetchUnitsRequest { model: "minilm".to_owned(), version: "1".to_owned(), ranges: vec![range] };
            let mut stream = vault.fetch_units(request).await.unwrap().into_inner();
            let mut fetched = Vec::new();
            while let Some(chunk) = stream.message().await.unwrap() {
                fetched.extend_from_slice(&chunk.data);
            }
            assert!(fetched == model.units[0][123..9_000_123], "the fetched bytes are the uploaded ones");
            host.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_another_log_or_a_longer_one_is_not_copied_over() {
    let place = [Place::new(), Place::new(), Place::new()];
    let logs = [(0..5, 5), (0..3, 3), (1..4, 3)];
    for (place, (range, size)) in place.iter().zip(logs) {
        let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
        let host = RunningHost::start(&place.config("")).await;
        keeper.attached().await;
        keeper.append(0, &entries(range.clone())).await.unwrap();
        keeper.put_checkpoint(&checkpoint(&entries(range)), size).await.unwrap();
        host.stop().await;
    }
    let [long, short, other] = place.each_ref().map(|place| place.config(""));
    assert_eq!(code(copied(&short, &long).await), "checkpoint-size");
    assert_eq!(code(copied(&long, &other).await), "checkpoint-root");
    let all = Copied { blobs: 0, models: 0, entries: 5, above: 0 };
    assert_eq!(copied(&long, &short).await.unwrap(), all, "the longer one continues it");
}
