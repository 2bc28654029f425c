//! Readers that take more than their part of an agent, and those whom its user namespace does not know.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_client::AgentClient;
use vault_tests::reader::{Reader, as_user};
use vault_tests::serve::is_root;
use vault_tests::{Running, World, binary, run};

const FLOODS: u32 = 21_001;
const OTHER: u32 = 21_002;
/// On each socket.
const CONNECTIONS: usize = 2000;
/// All descriptors that the agent may have.
const DESCRIPTORS: &str = "256";
/// A lease of 60 s is renewed from a third of it on.
const RENEWED_WITHIN: Duration = Duration::from_secs(55);

/// Connections of which nobody hears anything more; those that were closed are among them.
fn flood(socket: &Path, says: &str) -> Vec<UnixStream> {
    let connect = |_| {
        let mut stream = UnixStream::connect(socket).expect("it listens");
        // One that was turned away does not listen.
        let _ = stream.write_all(says.as_bytes());
        stream
    };
    (0..CONNECTIONS).map(connect).collect()
}

/// Seconds that are left of the model's lease, as the agent tells on its control socket.
fn seconds_left(control: &Path) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", control.display()));
        let channel = endpoint.expect("an address").connect().await.expect("there is a place");
        let listed = AgentClient::new(channel).list_models(v1::ListModelsRequest {}).await.expect("it answers");
        listed.into_inner().models.first().expect("the model").seconds
    })
}

#[test]
fn connections_of_one_reader_keep_neither_another_nor_a_renewal_from_being_served() {
    if !is_root() {
        return;
    }
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to that");
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    std::fs::set_permissions(world.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("it is ours");
    let sockets = world.path("sockets");
    let (readers, control) = (sockets.join("agent.sock"), sockets.join("control.sock"));
    let mut agent = Command::new("sh");
    agent.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$@\""), "sh"]).arg(binary("vault-enclave"));
    agent.args(["agent", "demo@1:guest", "--tpm", &guest.tcti, "--host", &world.url(), "--vault"]).arg(world.vault());
    agent.arg("--sockets").arg(&sockets).arg("--memory").arg(world.path("memory"));
    agent.args(["--allow", &FLOODS.to_string(), "--allow", &OTHER.to_string()]);
    let mut running = Running::start(&mut agent, &world.path("agent.log"));
    running.wait_for("is shared");

    let (path, other) = (readers.clone(), control.clone());
    let floods = as_user(FLOODS, FLOODS, move || (flood(&path, "v1 open demo@1\n"), flood(&other, "")));
    // He has no more than his places.
    let path = readers.clone();
    let refused = as_user(FLOODS, FLOODS, move || Reader::ask(&path, "v1 list\n").frame().expect("an answer"));
    assert_eq!(refused["code"], "too-many-readers");
    // Others have theirs, on both sockets.
    let (path, other) = (readers, control.clone());
    let reader = as_user(OTHER, OTHER, move || (Reader::open(&path, "demo@1"), seconds_left(&other)).0);
    assert!(!reader.files.is_empty());
    // A renewal asks TPM and host, by connections of its own; then there is more time than before.
    let (start, mut least) = (Instant::now(), seconds_left(&control));
    loop {
        let left = seconds_left(&control);
        if left > least {
            break;
        }
        least = left;
        assert!(start.elapsed() < RENEWED_WITHIN, "not renewed; its log:\n{}", running.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(floods);
    assert_eq!(running.terminate(), Some(0));
}

/// The kernel shows whoever this namespace does not know as `nobody`: as the user that was let in.
#[test]
fn nobody_is_not_let_in_where_that_is_everybody_whom_the_namespace_does_not_know() {
    if !is_root() {
        return;
    }
    let world = World::open();
    for option in [["--allow", "65534"], ["--allow", ":65534"], ["--control", "65534"]] {
        let mut agent = Command::new("unshare");
        agent.args(["--user", "--map-root-user"]).arg(binary("vault-enclave")).arg("agent").args(option);
        agent.arg("--vault").arg(world.vault()).arg("--sockets").arg(world.path("sockets"));
        let (code, said) = run(agent.arg("--memory").arg(world.path("memory")));
        assert!(code == Some(2) && said.contains("allow-unknown"), "{option:?}: {said}");
    }
}
