//! The agent as a library: a program of ours attests, has a model in its own memory, and is told when it has to let go.

#[path = "library/program.rs"]
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ledger::manifest::{Manifest, unit_path};
use ledger::safetensors::Header;
use vault_enclave::failure::Kind;
use vault_enclave::{Failure, LeaseLost, LeaseState, MachineArgs, ModelRequest, Overdue, Session};
use vault_tests::relay::{self, Hold};
use vault_tests::serve::wait_until;
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Swtpm, World, binary, run_ok};

const WEIGHTS: &str = "model.safetensors";
/// Bytes from the host after which it stands still: more than manifest and grant, less than a layer.
const HOLD_AFTER: usize = 160 << 10;

/// A vault whose approvers can each revoke, and the software TPM of a machine whose rule `guest` is changed by `rule`.
fn world(rule: impl FnOnce(String) -> String) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&rule(guest_rule(&tpm)));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    (world, guest.expect("the closure ran"))
}

fn machine(vault: PathBuf, tcti: &str, host: &str) -> MachineArgs {
    let mut machine = MachineArgs::new(vault);
    (machine.tpm, machine.host) = (Some(tcti.to_owned()), vec![host.to_owned()]);
    machine
}

async fn session(world: &World, guest: &Swtpm) -> Session {
    Session::open(machine(world.vault(), &guest.tcti, &world.url())).await.expect("a session")
}

fn request() -> ModelRequest {
    request_with(Overdue::InsecureWait)
}

fn request_with(overdue: Overdue) -> ModelRequest {
    let mut request = ModelRequest::new("demo@1".parse().expect("a model"), overdue);
    request.rule = Some("guest".to_owned().try_into().expect("a rule"));
    request
}

fn revoke(world: &World) {
    let mut revoke = world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--no-wait", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    run_ok(&mut revoke);
}

fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(world.source()).expect("the source").map(|file| file.expect("the source").path());
    let name = |file: &Path| file.file_name().expect("a name").to_string_lossy().into_owned();
    files.map(|file| (name(&file), fs::read(&file).expect("a file"))).collect()
}

/// The tensors of a plain file, by name.
fn tensors(file: &[u8]) -> BTreeMap<String, &[u8]> {
    let header = Header::parse(file, file.len() as u64).expect("a header");
    let bytes = |at: u64| usize::try_from(at).expect("small");
    header.places().map(|(tensor, at)| (tensor.name.clone(), &file[bytes(at.start)..bytes(at.end)])).collect()
}

fn entries(world: &World, kind: &str) -> usize {
    run_ok(world.vaultctl().args(["log", "show"])).matches(&format!(" {kind} ")).count()
}

fn manifest(stored: &Path) -> Manifest {
    Manifest::parse(&fs::read(stored.join("manifest.json")).expect("the manifest")).expect("the manifest")
}

/// The units of the last layer, ascending.
fn last_layer(manifest: &Manifest) -> Vec<u32> {
    let layers = (0_u32..).zip(manifest.units()).filter(|(_, unit)| unit.group.as_str().starts_with("layer."));
    let layers: Vec<_> = layers.map(|(index, unit)| (unit.group.clone(), index)).collect();
    let last = layers.iter().map(|(group, _)| group).max().expect("a layer").clone();
    layers.into_iter().filter(|(group, _)| *group == last).map(|(_, index)| index).collect()
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
    let whole = &source[WEIGHTS];
    let header = Header::parse(whole, whole.len() as u64).expect("a header");
    let plain = tensors(whole);
    for (tensor, _) in header.places() {
        let found = weights.tensor(&tensor.name).expect("it is there");
        assert!(found.bytes() == plain[&tensor.name] && found.shape() == tensor.shape() && found.dtype() == "F16");
        assert_eq!(found.file(), WEIGHTS);
    }
    assert_eq!(weights.tensors().count(), plain.len());
    // Where it lies in the file: no copy was made.
    let file = weights.file(WEIGHTS).expect("it is there").as_ptr_range();
    assert!(weights.tensors().all(|tensor| file.contains(&tensor.bytes().as_ptr())));
    let bytes: usize = source.values().map(Vec::len).sum();
    assert_eq!((model.lease().state(), model.bytes()), (LeaseState::Held, bytes as u64));
    assert!(model.lease().left() > std::time::Duration::ZERO && model.place().starts_with("memory of this process"));
    assert!(matches!(model.sources(), [host] if host.starts_with("the vault's host: ")), "{:?}", model.sources());
    // Closed while somebody still has the weights: they stay as they are until he lets go.
    let lease = model.lease();
    let closing = tokio::spawn(model.close());
    assert!(weights.file(WEIGHTS) == Some(whole.as_slice()));
    assert_eq!(lease.state(), LeaseState::Held);
    drop(weights);
    closing.await.expect("no panic").expect("the lease is ended");
    assert_eq!(lease.state(), LeaseState::Wiped(None));
    assert_eq!((lease.lost().await, entries(&world, "release"), entries(&world, "end")), (None, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_in_order_and_a_program_is_told_when_its_lease_is_revoked() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let session = session(&world, &guest).await;
    let mut loading = session.stream(request()).expect("a load");
    let (mut groups, mut seen) = (Vec::new(), BTreeSet::new());
    let source = files(&world);
    let plain = tensors(&source[WEIGHTS]);
    while let Some(layer) = loading.next().await.expect("a layer") {
        assert!(layer.tensors().count() > 0 || layer.files().count() > 0, "{}", layer.group());
        for tensor in layer.tensors() {
            assert!(tensor.bytes() == plain[tensor.name()], "{}", tensor.name());
            assert!(seen.insert(tensor.name().to_owned()), "{} is in two layers", tensor.name());
        }
        groups.push(layer.group().to_owned());
    }
    let layers = groups.iter().filter(|group| group.starts_with("layer.")).count();
    let expected: Vec<String> = (0..layers).map(|layer| format!("layer.{layer}")).collect();
    assert_eq!(groups, [&["files".to_owned(), "other".to_owned()], expected.as_slice()].concat());
    assert!(layers > 1 && seen.iter().eq(plain.keys()));
    let model = loading.finish().await.expect("a model");
    let weights = model.weights().expect("it is lent");
    let lease = model.lease();

    revoke(&world);
    assert!(matches!(lease.lost().await, Some(LeaseLost::Revoked { .. })));
    let lost = model.weights().err().expect("nothing is lent any more");
    assert_eq!((Failure::from(lost).code(), lost.exit_code()), ("lease-revoked", 77));
    // Nothing is wiped under whoever still has it.
    assert!(weights.file(WEIGHTS) == Some(source[WEIGHTS].as_slice()));
    drop(weights);
    lease.wiped().await;
    assert!(matches!(lease.state(), LeaseState::Wiped(Some(LeaseLost::Revoked { .. }))));
    let refused = session.load(request()).await.err().expect("it is revoked");
    assert_eq!(refused.kind(), Kind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_lent_while_the_rule_lets_them_drain() {
    let (world, guest) = world(|rule| rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 10m\"", 1));
    world.publish("1");
    let session = session(&world, &guest).await;
    let model = session.load(request()).await.expect("a model");
    let lease = model.lease();
    revoke(&world);
    assert!(matches!(lease.lost().await, Some(LeaseLost::Revoked { .. })));
    assert!(matches!(lease.state(), LeaseState::Draining(LeaseLost::Revoked { .. })));
    assert!(model.weights().expect("it drains").file(WEIGHTS).is_some());
    // Whoever is done earlier does not wait for it.
    model.close().await.expect("it is over");
    assert!(matches!(lease.state(), LeaseState::Wiped(Some(LeaseLost::Revoked { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_its_tensors_alone_and_a_broken_later_unit_ends_the_stream() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let session = session(&world, &guest).await;
    let mut part = request();
    part.part.group = vec!["layer.0".parse().expect("a group")];
    let mut named = request();
    named.part.tensor = vec!["*.layers.0.*".to_owned()];
    for part in [part, named] {
        let model = session.load(part).await.expect("a part");
        let weights = model.weights().expect("it is lent");
        assert!(weights.tensors().count() > 0);
        assert!(weights.tensors().all(|tensor| tensor.name().contains(".layers.0.")));
        drop(weights);
        model.close().await.expect("it ends");
    }
    // The headers were released before the tensors that were named, under a lease of their own.
    assert_eq!((entries(&world, "release"), entries(&world, "end")), (3, 3));
    let mut nothing = request();
    nothing.part.group = vec!["layer.99".parse().expect("a group")];
    assert_eq!(session.load(nothing).await.err().expect("no such group").kind(), Kind::Usage);

    // The host changes the last unit of the last layer.
    let stored = world.path("host").join("models/demo/1");
    let manifest = manifest(&stored);
    let last = *last_layer(&manifest).last().expect("a unit");
    let path = stored.join(unit_path(last));
    let mut sealed = fs::read(&path).expect("a unit");
    *sealed.last_mut().expect("bytes") ^= 1;
    fs::write(&path, sealed).expect("a unit");
    let mut loading = session.stream(request()).expect("a load");
    let lease = loading.lease();
    let failure = loop {
        match loading.next().await {
            Ok(Some(layer)) => {
                assert_ne!(layer.group(), manifest.unit(last).expect("a unit").group.as_str());
            }
            Ok(None) => panic!("a unit that was changed passed"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.code(), "chunk-refused", "{failure}");
    assert!(loading.finish().await.is_err());
    lease.wiped().await;
    assert_eq!(entries(&world, "release"), 4);
    wait_until("the lease is ended", || entries(&world, "end") == 4);
}

/// A source has all but the last layer, which a host has that stands still.
struct Held {
    world: World,
    guest: Swtpm,
    hold: std::sync::Arc<Hold>,
    request: ModelRequest,
}

impl Held {
    fn new() -> Self {
        let (world, guest) = world(|rule| rule);
        world.publish("1");
        let (stored, near) = (world.path("host").join("models/demo/1"), world.path("near"));
        vault_tests::process::copy(&stored, &near);
        for unit in last_layer(&manifest(&stored)) {
            fs::remove_file(near.join(unit_path(unit))).expect("a unit");
        }
        let (hold, gate) = Hold::after(HOLD_AFTER);
        relay::unix(&world.path("relay.sock"), &world.path("host.sock"), gate);
        let mut request = request();
        request.sources.source = vec![near.to_str().expect("UTF-8").parse().expect("a directory")];
        Self { world, guest, hold, request }
    }

    async fn session(&self) -> Session {
        let host = format!("unix:{}", self.world.path("relay.sock").display());
        Session::open(machine(self.world.vault(), &self.guest.tcti, &host)).await.expect("a session")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_used_while_a_later_one_is_held_back() {
    let held = Held::new();
    let source = files(&held.world);
    let plain = tensors(&source[WEIGHTS]);
    let mut loading = held.session().await.stream(held.request.clone()).expect("a load");
    let layers = plain.keys().filter(|name| name.ends_with("input_layernorm.weight")).count();
    // Files, what is in no layer, and every layer but the last.
    let mut kept = Vec::new();
    for _ in 0..layers + 1 {
        let layer = loading.next().await.expect("a layer").expect("there are more");
        assert!(layer.tensors().all(|tensor| tensor.bytes() == plain[tensor.name()]));
        kept.push(layer);
    }
    // What the last layer lacks stands still meanwhile.
    held.hold.wait();
    held.hold.release();
    let last = loading.next().await.expect("a layer").expect("the last one");
    assert_eq!(last.group(), format!("layer.{}", layers - 1));
    assert!(loading.next().await.expect("no failure").is_none());
    let model = loading.finish().await.expect("a model");
    assert_eq!(model.sources().len(), 2);
}

/// Waits out a lease, of the least length that a policy may give.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_under_a_lease_that_was_lost_meanwhile_gives_nothing() {
    let held = Held::new();
    let mut loading = held.session().await.stream(held.request.clone()).expect("a load");
    let lease = loading.lease();
    assert_eq!((lease.state(), lease.left()), (LeaseState::Asking, std::time::Duration::ZERO));
    let first = loading.next().await.expect("a layer").expect("there are more");
    let (path, bytes) = first.files().next().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).expect("files");
    assert_eq!(lease.state(), LeaseState::Held);
    // No answer reaches the program any more.
    held.hold.wait();
    assert_eq!(lease.lost().await, Some(LeaseLost::NotRenewed));
    assert_eq!((first.files().next()).map(|(_, bytes)| bytes.to_vec()), Some(bytes), "{path} was wiped under a reader");
    // Nor does the load wait for one.
    let failure = loading.next().await.err().expect("nothing is lent without a lease");
    assert_eq!(failure.code(), "lease-lost", "{failure}");
    assert_eq!(loading.finish().await.err().map(|failure| failure.code().to_owned()).as_deref(), Some("lease-lost"));
    drop(first);
    held.hold.release();
    lease.wiped().await;
    assert_eq!(lease.state(), LeaseState::Wiped(Some(LeaseLost::NotRenewed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_given_up_leaves_nothing() {
    let held = Held::new();
    let mut loading = held.session().await.stream(held.request.clone()).expect("a load");
    let lease = loading.lease();
    let layer = loading.next().await.expect("a layer").expect("there are more");
    held.hold.wait();
    drop((loading, layer));
    held.hold.release();
    lease.wiped().await;
    assert_eq!(lease.state(), LeaseState::Wiped(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_machine_is_said_before_anything_is_asked() {
    let (world, guest) = World::open_with_guest();
    let open = |vault: PathBuf, tcti: &str| Session::open(machine(vault, tcti, &world.url()));
    let code = |session: Result<Session, Failure>| session.err().expect("it is refused").code().to_owned();
    assert_eq!(code(open(world.path("nothing"), &guest.tcti).await), "io");
    assert_eq!(code(open(world.path("policy.toml"), &guest.tcti).await), "vault-file-malformed");
    assert_eq!(code(open(world.vault(), "swtpm:host=127.0.0.1,port=1").await), "tpm-unavailable");
    // Nothing was published.
    let session = session(&world, &guest).await;
    let refused = session.load(request()).await.err().expect("there is no such model");
    assert_eq!(refused.code(), "unknown");
    let mut wrong = request();
    wrong.part.tensor = vec!["x".repeat(4096)];
    assert_eq!(session.stream(wrong).err().expect("a pattern that is too long").kind(), Kind::Usage);
    assert_eq!(entries(&world, "release"), 0);
}
