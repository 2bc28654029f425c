//! Hosts on one store, in a bucket of a real S3 server and in a real Postgres: what holds for both.

use std::collections::BTreeMap;

use attestation::Sha256Digest;
use tonic::Code;
use vault_host::{Config, check_store};
use vault_proto::v1::{
    Coarse, FetchUnitsRequest, GetBlobRequest, GetCheckpointRequest, GetEntriesRequest, GetKeeperIdentityRequest,
    GetManifestRequest, GetUploadRequest, ListModelsRequest, UnitRange,
};

use crate::audit::{checkpoint, entries, genesis};
use crate::keeper::{Keeper, refusal};
use crate::model::{SealedModel, proposes, upload};
use crate::process::Process;
use crate::setup::{Place, RunningHost, assert_refused};
use crate::stores::{Shared, files};

const PREFIX: &str = "prod";

/// A host on the store, and its keeper.
async fn host_on(store: &Shared, place: &Place) -> (RunningHost, Keeper) {
    let mut keeper = Keeper::start(&place.keeper_socket(), proposes);
    let host = RunningHost::start(&place.config(&store.config(PREFIX))).await;
    keeper.attached().await;
    (host, keeper)
}

fn code(result: Result<(), String>) -> String {
    result.unwrap_err().split(':').next().unwrap().to_owned()
}

/// A tile log by the names of its files, with their bytes.
fn tiles(names: Vec<String>, read: impl Fn(&str) -> Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let names = names.into_iter().chain(["log/checkpoint".to_owned()]);
    names.map(|name| (name.clone(), read(&name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_has_the_same_tile_log_as_a_directory_and_outlives_its_host() {
    for store in Shared::all() {
        let (here, there) = (Place::new(), Place::new());
        let mut local = Keeper::start(&there.keeper_socket(), |_| None);
        let _local_host = RunningHost::start(&there.config("")).await;
        local.attached().await;
        let (host, mut keeper) = host_on(&store, &here).await;
        for keeper in [&keeper, &local] {
            for size in [3, 250, 600] {
                let first = keeper.read(0, 4096).await.unwrap().len() as u64;
                keeper.append(first, &entries(first..size)).await.unwrap();
                keeper.put_checkpoint(&checkpoint(&entries(0..size)), size).await.unwrap();
            }
            keeper.append(600, &entries(600..610)).await.unwrap();
        }
        let local = there.data_dir();
        assert_eq!(
            tiles(store.names(PREFIX, "log/tile"), |name| store.read(PREFIX, name)),
            tiles(files(&local, "log/tile"), |name| std::fs::read(local.join(name)).unwrap())
        );
        let digest = Sha256Digest::of(b"evidence");
        keeper.put_blob(digest.as_bytes(), b"evidence").await.unwrap();
        host.stop().await;

        let _host = RunningHost::start(&here.config(&store.config(PREFIX))).await;
        keeper.attached_times(2).await;
        assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..610));
        assert_eq!(keeper.blob(digest.as_bytes()).await.unwrap(), b"evidence");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_that_append_at_one_position_one_is_told_and_nothing_is_overwritten() {
    for store in Shared::all() {
        let (one, two) = (Place::new(), Place::new());
        let (_first, winner) = host_on(&store, &one).await;
        let (_second, loser) = host_on(&store, &two).await;
        winner.append(0, &entries(0..3)).await.unwrap();
        assert_eq!(code(loser.append(0, &entries(7..9)).await), "log-conflict");
        assert_eq!(winner.read(0, 10).await.unwrap(), entries(0..3));
        // Having read what is there, the other host goes on behind it; now the first is the one that does not know.
        assert_eq!(loser.read(0, 10).await.unwrap(), entries(0..3));
        loser.append(3, &entries(3..5)).await.unwrap();
        assert_eq!(code(winner.append(3, &entries(8..9)).await), "log-conflict");
        assert_eq!(winner.read(0, 10).await.unwrap(), entries(0..5));
        // A checkpoint of one is published by the other too, and covers nothing less afterwards.
        winner.put_checkpoint(&checkpoint(&entries(0..5)), 5).await.unwrap();
        loser.append(5, &entries(5..6)).await.unwrap();
        loser.put_checkpoint(&checkpoint(&entries(0..6)), 6).await.unwrap();
        assert_eq!(code(winner.put_checkpoint(&checkpoint(&entries(0..5)), 5).await), "checkpoint-conflict");
        assert_eq!(code(winner.append(5, &entries(9..10)).await), "log-under-checkpoint");
    }
}

/// What a witness may have cosigned, no other host's keeper writes over, and it finds it.
#[tokio::test(flavor = "multi_thread")]
async fn entries_under_a_proposed_checkpoint_stay_whatever_another_host_writes() {
    for store in Shared::all() {
        let (one, two) = (Place::new(), Place::new());
        let (_first, first) = host_on(&store, &one).await;
        let (_second, second) = host_on(&store, &two).await;
        first.append(0, &entries(0..5)).await.unwrap();
        assert_eq!(second.read(0, 10).await.unwrap(), entries(0..5));
        let proposed = checkpoint(&entries(0..3));
        assert_eq!(code(first.propose_checkpoint(&checkpoint(&entries(7..10)), 3).await), "checkpoint-root");
        assert_eq!(code(first.propose_checkpoint(&checkpoint(&entries(0..6)), 6).await), "checkpoint-size");
        first.propose_checkpoint(&proposed, 3).await.unwrap();

        // The other host has not seen it, and may not write; having read, not below it, and behind it as before.
        assert_eq!(code(second.append(1, &entries(8..9)).await), "log-conflict");
        let head = second.log_head().await;
        assert_eq!((head.size, head.checkpoint.as_str(), head.proposed.as_str()), (5, "", proposed.as_str()));
        assert_eq!(code(second.append(2, &entries(8..9)).await), "log-under-checkpoint");
        second.append(3, &entries(20..21)).await.unwrap();
        assert_eq!(code(second.propose_checkpoint(&checkpoint(&entries(0..2)), 2).await), "checkpoint-size");
        // Published, it is no longer proposed.
        second.put_checkpoint(&proposed, 3).await.unwrap();
        let head = second.log_head().await;
        assert_eq!((head.size, head.checkpoint.as_str(), head.proposed.as_str()), (4, proposed.as_str(), ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_came_by_one_host_is_served_by_another() {
    for store in Shared::all() {
        let (one, two) = (Place::new(), Place::new());
        let (first, keeper) = host_on(&store, &one).await;
        // The second has no keeper at all.
        let second = RunningHost::start(&two.config(&store.config(PREFIX))).await;
        let model = SealedModel::new("minilm", "1", &[10_000_000, 5], 1);
        let mut client = first.provision().await;
        model.upload_all(&mut client).await;
        client.publish_model(model.publication()).await.unwrap();
        let manifest = GetManifestRequest { model: "minilm".to_owned(), version: "1".to_owned() };
        assert_refused(second.vault().await.get_manifest(manifest.clone()).await, Code::NotFound, "unknown");
        let log = [genesis("\"any\""), model.entry()];
        keeper.append(0, &log).await.unwrap();
        keeper.put_checkpoint(&checkpoint(&log), 2).await.unwrap();

        let mut vault = second.vault().await;
        let listed = vault.list_models(ListModelsRequest {}).await.unwrap().into_inner().models;
        assert_eq!(
            listed.iter().map(|model| (model.model.as_str(), model.released)).collect::<Vec<_>>(),
            [("minilm", true)]
        );
        assert_eq!(vault.get_manifest(manifest).await.unwrap().into_inner().manifest, model.manifest.bytes());
        let range = UnitRange { unit: 0, offset: 123, length: 9_000_000 };
        let request = FetchUnitsRequest { model: "minilm".to_owned(), version: "1".to_owned(), ranges: vec![range] };
        let mut stream = vault.fetch_units(request).await.unwrap().into_inner();
        let mut fetched = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            fetched.extend_from_slice(&chunk.data);
        }
        assert!(fetched == model.units[0][123..9_000_123], "the fetched bytes are the uploaded ones");
        let mut audit = second.audit().await;
        let newest = audit.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().checkpoint;
        assert_eq!(newest, checkpoint(&log));
        let read = audit.get_entries(GetEntriesRequest { first: 0, count: 10 }).await.unwrap().into_inner().entries;
        assert_eq!(read, log);
    }
}

/// Two hosts take one model at the same moment: the keeper's answer to one is a refusal, to the other a proposal.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_one_host_takes_back_stays_where_another_proposed_it() {
    for store in Shared::all() {
        let (one, two) = (Place::new(), Place::new());
        let (go_on, wait) = std::sync::mpsc::channel();
        let wait = std::sync::Mutex::new(wait);
        let mut refuses = Keeper::start(&one.keeper_socket(), move |_| {
            // A worker that only sleeps would keep the task that it is to run next, which may be the one that is waited for.
            let wait = || wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            tokio::task::block_in_place(wait);
            Some(refusal(Coarse::Busy, "keeper-busy", "later"))
        });
        let refused = RunningHost::start(&one.config(&store.config(PREFIX))).await;
        refuses.attached().await;
        let (taken, keeper) = host_on(&store, &two).await;
        let models = ["1", "2"].map(|version| SealedModel::new("minilm", version, &[100, 5], 1));
        for model in &models {
            model.upload_all(&mut taken.provision().await).await;
        }

        // The refused one came first, and is taken back last.
        let (mut first, publication) = (refused.provision().await, models[0].publication());
        let waiting = tokio::spawn(async move { first.publish_model(publication).await });
        refuses.called().await;
        taken.provision().await.publish_model(models[0].publication()).await.unwrap();
        go_on.send(()).unwrap();
        assert_refused(waiting.await.unwrap(), Code::ResourceExhausted, "keeper-busy");
        // And the other way round.
        taken.provision().await.publish_model(models[1].publication()).await.unwrap();
        go_on.send(()).unwrap();
        let again = refused.provision().await.publish_model(models[1].publication()).await;
        assert_refused(again, Code::ResourceExhausted, "keeper-busy");
        assert_eq!(listed(&refused).await, [("1".to_owned(), false), ("2".to_owned(), false)], "each once");

        let log = [genesis("\"any\""), models[0].entry(), models[1].entry()];
        keeper.append(0, &log).await.unwrap();
        keeper.put_checkpoint(&checkpoint(&log), 3).await.unwrap();
        for host in [&refused, &taken] {
            assert_eq!(listed(host).await, [("1".to_owned(), true), ("2".to_owned(), true)]);
        }
        assert_eq!(store.names(PREFIX, "proposed"), [""; 0], "nothing is left of the proposals");
    }
}

/// Versions of models, and whether each is released.
async fn listed(host: &RunningHost) -> Vec<(String, bool)> {
    let list = host.vault().await.list_models(ListModelsRequest {}).await.unwrap().into_inner();
    list.models.into_iter().map(|model| (model.version, model.released)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_reach_the_keeper_says_which_does() {
    for store in Shared::all() {
        let (one, two) = (Place::new(), Place::new());
        let without = RunningHost::start(&two.config(&store.config(PREFIX))).await;
        let ask =
            async |host: &RunningHost| host.provision().await.get_keeper_identity(GetKeeperIdentityRequest {}).await;
        assert_refused(ask(&without).await, Code::Unavailable, "keeper-unreachable");

        let mut keeper = Keeper::start(&one.keeper_socket(), proposes);
        let advertise = "advertise = \"https://host-a.example:7440\"\n";
        let host = RunningHost::start(&one.config(&format!("{advertise}{}", store.config(PREFIX)))).await;
        keeper.attached().await;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let said = loop {
            let status = ask(&without).await.unwrap_err();
            let refusal = crate::setup::refusal(&status);
            if refusal.code != "keeper-unreachable" || std::time::Instant::now() > until {
                break refusal;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        assert_eq!(said.code, "keeper-elsewhere");
        assert!(said.message.contains("https://host-a.example:7440"), "{}", said.message);
        // An agent knows its hosts from the vault file, and learns of no other.
        let refused = without.vault().await.get_challenge(crate::setup::challenge_request()).await;
        let refusal = assert_refused(refused, Code::Unavailable, "unavailable");
        assert!(!refusal.message.contains("host-a"), "{}", refusal.message);

        // What somebody wrote there who is no host is not repeated.
        for name in store.names(PREFIX, "hosts") {
            store.write(PREFIX, &name, b"https://host-a.example/\x1b[2J call 555");
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_refused(ask(&without).await, Code::Unavailable, "keeper-unreachable");
        host.stop().await;
    }
}

/// Before anybody is known to be a reader, his call costs the policy and no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_the_log_is_looked_up_without_reading_the_log() {
    for store in Shared::all() {
        let place = Place::new();
        let (host, keeper) = host_on(&store, &place).await;
        let log = [genesis("\"any\"")];
        keeper.append(0, &log).await.unwrap();
        keeper.put_checkpoint(&checkpoint(&log), 1).await.unwrap();
        let mut audit = host.audit().await;
        let ask = GetBlobRequest { digest: vec![1; 32] };
        assert_refused(audit.get_blob(ask.clone()).await, Code::NotFound, "not-found");
        store.write(PREFIX, "log/tile/entries/000.p/1", b"what no bundle is");
        assert_refused(audit.get_blob(ask).await, Code::NotFound, "not-found");
        let read = audit.get_entries(GetEntriesRequest { first: 0, count: 1 }).await;
        assert_refused(read, Code::Unavailable, "store-damaged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_reported_as_stored_is_there_for_the_next() {
    for store in Shared::all() {
        let (place, other) = (Place::new(), Place::new());
        let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
        let process = Process::start(&place, &store.config(PREFIX));
        keeper.attached().await;
        let model = SealedModel::new("minilm", "1", &[20_000_000], 1);
        let (unit, bytes) = (model.upload(0), &model.units[0]);
        keeper.append(0, &entries(0..4)).await.unwrap();
        let mut client = crate::setup::provision(process.address).await;
        // In a bucket two whole parts of 8 MiB are kept, and not what came of the third; in a directory every byte.
        let kept = upload(&mut client, unit, 0, &bytes[..18_000_000]).await.unwrap();
        assert_eq!(kept, if matches!(store, Shared::S3(_)) { 16 << 20 } else { 18_000_000 });
        // The keeper dies with the host: whatever of this append is durable, it is whole.
        let late = keeper.begin_store(crate::keeper::append_call(4, &entries(4..9))).await;
        process.kill();
        drop(late);

        let mut next = Keeper::start(&other.keeper_socket(), |_| None);
        let host = RunningHost::start(&other.config(&store.config(PREFIX))).await;
        next.attached().await;
        let read = next.read(0, 100).await.unwrap();
        assert!(read == entries(0..4) || read == entries(0..9), "{} entries", read.len());
        let mut client = host.provision().await;
        let offset = client.get_upload(GetUploadRequest::from(unit)).await.unwrap().into_inner().offset;
        assert_eq!(offset, kept);
        assert_eq!(upload(&mut client, unit, offset, &bytes[kept as usize..]).await.unwrap(), unit.bytes);
        let wrong = SealedModel::new("minilm", "1", &[100], 2);
        let refused = upload(&mut client, wrong.upload(0), 0, &vec![0; wrong.units[0].len()]).await;
        assert_refused(refused, Code::InvalidArgument, "digest-mismatch");
        assert_eq!(client.get_upload(GetUploadRequest::from(wrong.upload(0))).await.unwrap().into_inner().offset, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_lies_or_does_not_let_us_in_has_its_own_code() {
    for mut store in Shared::all() {
        let place = Place::new();
        let (_host, keeper) = host_on(&store, &place).await;
        let digest = Sha256Digest::of(b"evidence");
        keeper.put_blob(digest.as_bytes(), b"evidence").await.unwrap();
        keeper.append(0, &entries(0..2)).await.unwrap();

        let blob = format!("blobs/{}", hex::encode(digest.as_bytes()));
        store.write(PREFIX, &blob, b"evidencf");
        assert_eq!(code(keeper.blob(digest.as_bytes()).await.map(drop)), "store-damaged");
        let good = store.read(PREFIX, "log/tail");
        store.write(PREFIX, "log/tail", &good[..good.len() - 1]);
        assert_eq!(code(keeper.read(0, 9).await.map(drop)), "store-damaged");
        store.write(PREFIX, "log/tail", &good);

        store.stop();
        assert_eq!(code(keeper.append(2, &entries(2..3)).await), "store-unreachable");
        store.restart();
        assert_eq!(keeper.read(0, 9).await.unwrap(), entries(0..2));
        keeper.append(2, &entries(2..3)).await.unwrap();

        let check = |config: String| {
            let config = Config::parse(&config).unwrap();
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || check_store(&config, runtime).map_err(|error| error.code()))
        };
        assert_eq!(check(place.config(&store.config("new"))).await.unwrap(), Ok(()));
        assert_eq!(store.names("new", "probe"), [""; 0], "what the question wrote is gone");
        assert_eq!(check(place.config(&store.wrong_config("new"))).await.unwrap(), Err("store-refused"));
    }
}
