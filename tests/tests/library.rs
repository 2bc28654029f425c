//! The agent as a library: a program of ours attests, has a model in its own memory, and is told when it has to let go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ledger::safetensors::Header;
use vault_enclave::{LeaseLost, LeaseState, MachineArgs, ModelRequest, Overdue, Session};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Swtpm, World, binary, run_ok};

async fn session(world: &World, guest: &Swtpm) -> Session {
    let mut machine = MachineArgs::new(world.vault());
    machine.tpm = Some(guest.tcti.clone());
    machine.host = vec![world.url()];
    Session::open(machine).await.expect("a session")
}

fn request() -> ModelRequest {
    let mut request = ModelRequest::new("demo@1".parse().expect("a model"), Overdue::InsecureWait);
    request.rule = Some("guest".to_owned().try_into().expect("a rule"));
    request
}

fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(world.source()).expect("the source").map(|file| file.expect("the source").path());
    let name = |file: &std::path::Path| file.file_name().expect("a name").to_string_lossy().into_owned();
    files.map(|file| (name(&file), fs::read(&file).expect("a file"))).collect()
}

fn entries(world: &World, kind: &str) -> usize {
    run_ok(world.vaultctl().args(["log", "show"])).matches(&format!(" {kind} ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_the_model_as_it_was_published_and_ends_its_lease() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let session = session(&world, &guest).await;
    let model = session.load(request()).await.expect("a model");
    let source = files(&world);
    let weights = model.weights().expect("it is lent");
    let opened: BTreeMap<_, _> = weights.files().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
    assert!(opened == source);
    let whole = &source["model.safetensors"];
    let header = Header::parse(whole, whole.len() as u64).expect("a header");
    let mut names = BTreeSet::new();
    for (tensor, place) in header.places() {
        let found = weights.tensor(&tensor.name).expect("it is there");
        let bytes = &whole[usize::try_from(place.start).expect("small")..usize::try_from(place.end).expect("small")];
        assert!(found.bytes() == bytes && found.shape() == tensor.shape() && found.dtype() == "F16");
        names.insert(tensor.name.clone());
    }
    assert_eq!(weights.tensors().count(), names.len());
    assert_eq!(
        (model.lease().state(), model.bytes()),
        (LeaseState::Held, source.values().map(|f| f.len() as u64).sum())
    );
    // Closed while somebody still has the weights: they stay as they are until he lets go.
    let lease = model.lease();
    let closing = tokio::spawn(model.close());
    assert!(weights.file("model.safetensors") == Some(whole.as_slice()));
    assert_eq!(lease.state(), LeaseState::Held);
    drop(weights);
    closing.await.expect("no panic").expect("the lease is ended");
    assert_eq!(lease.state(), LeaseState::Wiped(None));
    assert_eq!((entries(&world, "release"), entries(&world, "end")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_in_order_and_a_program_is_told_when_its_lease_is_revoked() {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&guest_rule(&tpm));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    world.publish("1");
    let guest = guest.expect("the closure ran");
    let session = session(&world, &guest).await;
    let mut loading = session.stream(request()).expect("a load");
    let mut groups = Vec::new();
    while let Some(layer) = loading.next().await.expect("a layer") {
        assert!(layer.tensors().count() > 0 || layer.files().count() > 0, "{}", layer.group());
        groups.push(layer.group().to_owned());
    }
    let layers = groups.iter().filter(|group| group.starts_with("layer.")).count();
    let expected: Vec<String> = (0..layers).map(|layer| format!("layer.{layer}")).collect();
    assert_eq!(groups, [&["files".to_owned(), "other".to_owned()], expected.as_slice()].concat());
    assert!(layers > 1);
    let model = loading.finish().await.expect("a model");
    let weights = model.weights().expect("it is lent");
    let (lease, before) = (model.lease(), weights.file("model.safetensors").map(<[u8]>::to_vec));

    let mut revoke = world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--no-wait", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    run_ok(&mut revoke);
    assert!(matches!(lease.lost().await, Some(LeaseLost::Revoked { .. })));
    assert!(model.weights().is_err());
    // Nothing is wiped under whoever still has it.
    assert!(weights.file("model.safetensors").map(<[u8]>::to_vec) == before);
    drop(weights);
    lease.wiped().await;
    assert!(matches!(lease.state(), LeaseState::Wiped(Some(LeaseLost::Revoked { .. }))));
    let refused = session.load(request()).await.err().expect("it is revoked");
    assert_eq!(refused.kind(), vault_enclave::failure::Kind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_its_tensors_alone_and_a_broken_later_unit_ends_the_stream() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let session = session(&world, &guest).await;
    let mut part = request();
    part.part.group = vec!["layer.0".parse().expect("a group")];
    let model = session.load(part).await.expect("a part");
    let weights = model.weights().expect("it is lent");
    assert!(weights.tensors().count() > 0 && weights.tensors().all(|tensor| tensor.name().contains(".layers.0.")));
    drop(weights);
    model.close().await.expect("it ends");

    // The host changes the last unit of the last layer.
    let stored = world.path("host").join("models/demo/1");
    let manifest = fs::read(stored.join("manifest.json")).expect("the manifest");
    let manifest = ledger::manifest::Manifest::parse(&manifest).expect("the manifest");
    let last = (0_u32..).zip(manifest.units()).filter(|(_, unit)| unit.group.as_str().starts_with("layer."));
    let (last, _) = last.max_by_key(|(_, unit)| unit.group.clone()).expect("a layer");
    let path = stored.join(ledger::manifest::unit_path(last));
    let mut sealed = fs::read(&path).expect("a unit");
    *sealed.last_mut().expect("bytes") ^= 1;
    fs::write(&path, sealed).expect("a unit");
    let mut loading = session.stream(request()).expect("a load");
    let lease = loading.lease();
    let failure = loop {
        match loading.next().await {
            Ok(Some(layer)) => assert_ne!(layer.group(), manifest.units()[last as usize].group.as_str()),
            Ok(None) => panic!("a unit that was changed passed"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.code(), "chunk-refused", "{failure}");
    assert!(loading.finish().await.is_err());
    lease.wiped().await;
}
