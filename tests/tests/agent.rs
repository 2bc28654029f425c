//! `vault-enclave agent`: one copy of a model for all programs of a machine, as long as its lease lasts and no longer.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_client::AgentClient;
use vault_proto::v1::UnitSelection;
use vault_proto::v1::unit_selection::Selection;
use vault_tests::reader::{Reader, as_user};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Running, Swtpm, World, binary, run, run_ok};

const WEIGHTS: &str = "model.safetensors";
/// Who may have models; and somebody else.
const ALLOWED: u32 = 21_001;
const STRANGER: u32 = 21_002;
/// How long what follows by itself may take.
const SOON: Duration = Duration::from_secs(20);

/// Only root can mount.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
    if !root {
        println!("skipped: only root can mount");
    }
    root
}

/// A vault with `demo@1`, and the software TPM of a machine whose rule `guest` is changed by `rule`.
fn world(rule: impl FnOnce(String) -> String) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&rule(guest_rule(&tpm)));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    world.publish("1");
    // Others have to reach the sockets.
    let root = world.path("x").parent().expect("it lies in a directory").to_owned();
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("the directory is ours");
    (world, guest.expect("the closure ran"))
}

fn agent(world: &World, guest: &Swtpm) -> Command {
    let mut command = world.enclave("agent");
    command.args(["demo@1:guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    command.arg("--sockets").arg(world.path("sockets")).arg("--memory").arg(world.path("memory"));
    command.args(["--allow", &ALLOWED.to_string()]);
    command
}

fn started(world: &World, guest: &Swtpm) -> Running {
    let log = world.path("agent.log");
    // That of an earlier one.
    let _ = fs::remove_file(&log);
    let mut running = Running::start(&mut agent(world, guest), &log);
    running.wait_for("ready ");
    running
}

fn socket(world: &World) -> PathBuf {
    world.path("sockets").join("agent.sock")
}

fn status(world: &World) -> String {
    run_ok(world.enclave("status").arg("--agent").arg(world.path("sockets").join("control.sock")))
}

/// Waits until something holds.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn first_bytes(reader: &Reader) -> Vec<u8> {
    let mut bytes = vec![1; 4096];
    reader.file(WEIGHTS).read_exact_at(&mut bytes, 0).expect("it is as long as before");
    bytes
}

fn is_wiped(reader: &Reader) -> bool {
    first_bytes(reader).iter().all(|byte| *byte == 0)
}

/// The next frame with what it says, past those of loading.
fn told(reader: &mut Reader) -> Option<(String, String)> {
    let frame = reader.frame()?;
    let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    let word = if frame["frame"] == "refused" { text("code") } else { text("why") };
    Some((text("frame"), word))
}

fn is_told(reader: &mut Reader, frame: &str, word: &str) {
    assert_eq!(told(reader), Some((frame.to_owned(), word.to_owned())));
}

#[test]
fn readers_share_one_copy_that_they_can_not_write_and_strangers_get_nothing() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule);
    let mut running = started(&world, &guest);
    // It may ask before the model is there.
    let path = socket(&world);
    let reader = as_user(ALLOWED, ALLOWED, move || {
        let reader = Reader::open(&path, "demo@1");
        // As libraries do that want a path. Reading is all.
        let again = format!("/proc/self/fd/{}", reader.file(WEIGHTS).as_raw_fd());
        let opened = |flags| rustix::fs::open(&again, flags, Mode::empty()).map(drop);
        assert_eq!((opened(OFlags::RDONLY), opened(OFlags::RDWR)), (Ok(()), Err(Errno::ACCESS)));
        reader
    });
    let source = world.source();
    assert_eq!(reader.files.len(), fs::read_dir(&source).expect("the model").count());
    for (name, file) in &reader.files {
        let mut bytes = vec![0; file.metadata().expect("it is open").len() as usize];
        file.read_exact_at(&mut bytes, 0).expect("it is readable");
        assert!(bytes == fs::read(source.join(name)).expect("the model"), "{name} differs");
    }
    // Nor does root write, who is asked for nothing by the modes of files.
    let own = Reader::open(&socket(&world), "demo");
    let weights = own.file(WEIGHTS);
    let again = format!("/proc/self/fd/{}", weights.as_raw_fd());
    assert_eq!(rustix::fs::open(&again, OFlags::RDWR, Mode::empty()).map(drop), Err(Errno::ROFS));
    assert_eq!(rustix::fs::fchmod(weights, Mode::RWXU), Err(Errno::ROFS));
    assert!(weights.set_len(0).is_err() && weights.write_at(b"x", 0).is_err());
    let same = |reader: &Reader| reader.file(WEIGHTS).metadata().map(|data| (data.dev(), data.ino())).expect("open");
    assert_eq!(same(&own), same(&reader), "one copy");
    // The directory in which the memory is mounted is empty to everybody else.
    assert_eq!(fs::read_dir(world.path("memory")).expect("it was made").count(), 0);

    let path = socket(&world);
    let mut refused = as_user(STRANGER, STRANGER, move || Reader::ask(&path, "v1 open demo@1\n"));
    is_told(&mut refused, "refused", "peer-not-allowed");
    for (line, code) in [
        ("v1 open demo@9\n", "model-unknown"),
        ("v0 list\n", "reader-malformed"),
        (&"x".repeat(300), "reader-too-long"),
    ] {
        is_told(&mut Reader::ask(&socket(&world), line), "refused", code);
    }
    let list = Reader::ask(&socket(&world), "v1 list\n").frame().expect("an answer");
    assert_eq!((&list["models"][0]["model"], &list["models"][0]["state"]), (&"demo".into(), &"ready".into()));

    soon("two readers", || status(&world).contains(" 2 readers"));
    // One that dies is one whose connection the kernel closes.
    drop((own, reader));
    soon("no reader", || status(&world).contains(" 0 readers"));
    assert!(running.log().contains("is shared"));
    // A second agent does not take its sockets.
    let (code, said) = run(&mut agent(&world, &guest));
    assert!(code == Some(1) && said.contains("agent-running"), "{said}");
    assert!(running.ready_or_end("is shared") && status(&world).contains("ready"));
}

async fn control(world: &World) -> AgentClient<Channel> {
    let address = format!("unix:{}", world.path("sockets").join("control.sock").display());
    AgentClient::new(Endpoint::from_shared(address).expect("an address").connect().await.expect("the agent listens"))
}

#[tokio::test]
async fn models_come_and_go_over_grpc_by_those_who_may() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule);
    let running = started(&world, &guest);
    let mut first = Reader::open(&socket(&world), "demo");
    world.publish("2");
    let mut client = control(&world).await;
    let load = |version: &str| v1::LoadModelRequest {
        model: "demo".to_owned(),
        version: version.to_owned(),
        rule: "guest".to_owned(),
        units: Some(UnitSelection { selection: Some(Selection::All(true)) }),
        ..v1::LoadModelRequest::default()
    };
    assert_eq!(client.load_model(load("1")).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(client.load_model(load("")).await.unwrap_err().code(), Code::InvalidArgument);
    let of_nothing = v1::LoadModelRequest { units: None, ..load("2") };
    assert_eq!(client.load_model(of_nothing).await.unwrap_err().code(), Code::InvalidArgument);
    client.load_model(load("2")).await.expect("it begins");
    // The new one beside the old one, which the command waits for.
    let mut models = world.enclave("models");
    models.arg("--agent").arg(world.path("sockets").join("control.sock"));
    let (code, said) = run(models.args(["load", "demo@2:guest"]));
    assert!(code == Some(3) && said.contains("model-there"), "{said}");
    let mut second = Reader::open(&socket(&world), "demo@2");
    let newest = Reader::open(&socket(&world), "demo");
    let inode = |reader: &Reader| reader.file(WEIGHTS).metadata().expect("open").ino();
    let device = |reader: &Reader| reader.file(WEIGHTS).metadata().expect("open").dev();
    assert_eq!((device(&newest), inode(&newest)), (device(&second), inode(&second)));
    assert_ne!(device(&first), device(&second));

    // A reader may look, and not touch.
    let path = world.path("sockets").join("control.sock");
    let codes = as_user(ALLOWED, ALLOWED, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).expect("an address");
            let mut client = AgentClient::new(endpoint.connect().await.expect("the agent listens"));
            let listed = client.list_models(v1::ListModelsRequest {}).await.expect("he may").into_inner();
            let unload = v1::UnloadModelRequest { model: "demo".to_owned(), version: "1".to_owned() };
            (listed.models.len(), client.unload_model(unload).await.unwrap_err().code())
        })
    });
    assert_eq!(codes, (2, Code::PermissionDenied));
    let path = world.path("sockets").join("control.sock");
    let connected = as_user(STRANGER, STRANGER, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).expect("an address");
            let channel = endpoint.connect().await.map_err(drop)?;
            AgentClient::new(channel).list_models(v1::ListModelsRequest {}).await.map(drop).map_err(drop)
        })
    });
    assert_eq!(connected, Err(()));

    let mut watched = client.watch_models(v1::WatchModelsRequest {}).await.expect("he may").into_inner();
    assert_eq!(watched.message().await.expect("a stream").expect("at once").models.len(), 2);
    let unload = v1::UnloadModelRequest { model: "demo".to_owned(), version: "1".to_owned() };
    let mut models = world.enclave("models");
    models.arg("--agent").arg(world.path("sockets").join("control.sock"));
    let said = run_ok(models.args(["unload", "demo@1"]));
    assert!(said.contains("demo@1 is wiped"), "{said}");
    is_told(&mut first, "draining", "unloaded");
    is_told(&mut first, "gone", "unloaded");
    assert!(is_wiped(&first) && !is_wiped(&second));
    assert_eq!(client.unload_model(unload).await.unwrap_err().code(), Code::NotFound);
    let mut last = 2;
    while last == 2 {
        last = watched.message().await.expect("a stream").expect("it goes on").models.len();
    }
    assert_eq!(last, 1);
    let load = |model: &str| {
        let socket = world.path("sockets").join("control.sock");
        run(world.enclave("models").arg("--agent").arg(socket).args(["load", model]))
    };
    let (code, said) = load("demo@1");
    assert!(code == Some(3) && said.contains("demo@1 is gone: not-loaded"), "no PCRs of its rule: {said}");
    // What is gone can be had again, by a rule that it fulfils.
    let (code, said) = load("demo@1:guest");
    assert!(code == Some(0) && said.contains("demo@1 is there: "), "{said}");

    // The end of the agent is the end of all.
    drop(watched);
    assert_eq!(running.terminate(), Some(0));
    is_told(&mut second, "draining", "agent-stopped");
    is_told(&mut second, "gone", "agent-stopped");
    assert!(is_wiped(&second) && !socket(&world).exists());
    let leases = run_ok(world.vaultctl().arg("leases"));
    assert!(leases.contains("No lease runs."), "{leases}");
}

#[test]
fn readers_of_a_revoked_model_are_told_have_their_time_and_then_read_zeros() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 5s\"", 1));
    let _running = started(&world, &guest);
    let mut reader = Reader::open(&socket(&world), "demo@1");
    let blocks = |reader: &Reader| reader.file(WEIGHTS).metadata().expect("it is open").blocks();
    let held = blocks(&reader);
    let mut revoke = world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    let revoke = std::thread::spawn(move || run(&mut revoke));
    is_told(&mut reader, "draining", "lease-revoked");
    assert!(!is_wiped(&reader), "the rule gives it some time");
    is_told(&mut Reader::ask(&socket(&world), "v1 open demo@1\n"), "refused", "model-gone");
    is_told(&mut reader, "gone", "lease-revoked");
    // Given back, although a reader has it open.
    assert!(held > 0 && blocks(&reader) == 0, "{held}, {}", blocks(&reader));
    assert!(is_wiped(&reader));
    assert_eq!(told(&mut reader), None);
    is_told(&mut Reader::ask(&socket(&world), "v1 open demo\n"), "refused", "model-gone");
    let (code, said) = revoke.join().expect("it ran");
    assert!(code == Some(0) && said.contains("1 of 1 lease ended by their holders"), "{said}");
    let status = status(&world);
    assert!(status.contains("gone") && status.contains("lease-revoked"), "{status}");
}

#[test]
fn an_agent_that_is_killed_leaves_no_plaintext_to_its_readers() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule);
    let running = started(&world, &guest);
    let mut reader = Reader::open(&socket(&world), "demo@1");
    assert!(!is_wiped(&reader));
    running.kill();
    // No last word, and that is one.
    assert_eq!(told(&mut reader), None);
    soon("wiped memory", || is_wiped(&reader));
    // Its sockets are in nobody's way.
    let again = started(&world, &guest);
    assert!(!is_wiped(&Reader::open(&socket(&world), "demo@1")));
    assert_eq!(again.terminate(), Some(0));
}

#[test]
fn a_model_that_can_not_be_had_yet_is_tried_again_and_one_that_is_refused_is_not() {
    if !is_root() {
        return;
    }
    let (mut world, guest) = world(|rule| rule);
    world.host = None;
    let mut command = agent(&world, &guest);
    command.arg("demo@7:nothing");
    let mut running = Running::start(&mut command, &world.path("agent.log"));
    running.wait_for("the next try is in 5 s");
    let mut waiting = Reader::ask(&socket(&world), "v1 open demo@1\n");
    world.start_host();
    let mut last = String::new();
    while last != "ready" {
        last = told(&mut waiting).expect("it goes on").0;
        assert!(["loading", "file", "ready"].contains(&last.as_str()), "{last}");
    }
    soon("the refusal", || status(&world).contains("not-loaded"));
    is_told(&mut Reader::ask(&socket(&world), "v1 open demo@7\n"), "refused", "model-gone");
}

/// The one test here that waits out a lease, of the least length that a policy may give.
#[test]
fn readers_are_told_and_wiped_where_the_host_vanished() {
    if !is_root() {
        return;
    }
    let (mut world, guest) = world(|rule| rule);
    let running = started(&world, &guest);
    let mut reader = Reader::open(&socket(&world), "demo@1");
    world.host = None;
    let lease = Duration::from_secs(60);
    let start = Instant::now();
    reader.wait_at_most(lease + SOON);
    is_told(&mut reader, "draining", "lease-lost");
    assert!(!is_wiped(&reader));
    is_told(&mut reader, "gone", "lease-lost");
    assert!(is_wiped(&reader) && start.elapsed() < lease + SOON);
    // It is had again when the host is back, without a word of anybody.
    let mut again = Reader::ask(&socket(&world), "v1 open demo@1\n");
    is_told(&mut again, "loading", "");
    world.start_host();
    while told(&mut again).expect("it goes on").0 != "ready" {}
    assert!(!is_wiped(&again));
    assert_eq!(running.terminate(), Some(0));
}
