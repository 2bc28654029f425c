//! An agent holds parts of models, each for readers of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tonic::transport::Endpoint;
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_client::AgentClient;
use vault_tests::nodes::Nodes;
use vault_tests::reader::{Reader, as_user};
use vault_tests::serve::is_root;
use vault_tests::weights::{BY_RANK, BYTES, Files, of_ranks, safetensors, sharded_state, tensors, those};
use vault_tests::{Running, run, run_ok};

/// A reader of the first model, one whose group may read the second, and somebody else.
const FIRST: u32 = 21_021;
const SECOND: u32 = 21_022;
const STRANGER: u32 = 21_023;
const WEIGHTS: &str = "model.safetensors";

fn layers() -> Files {
    let names =
        (0..3).flat_map(|layer| ["q_proj", "up_proj"].map(|part| format!("model.layers.{layer}.{part}.weight")));
    let weights = safetensors(WEIGHTS, &names.map(|name| (name, BYTES)).collect::<Vec<_>>());
    Files::from([(WEIGHTS.to_owned(), weights), ("config.json".to_owned(), b"{}".to_vec())])
}

/// A machine that may have two ranks of `demo@1` and two layers of `demo@2`.
fn nodes() -> Nodes {
    let nodes = Nodes::open(&[("machine", &["files", "rank-0", "rank-1", "layer.0", "layer.1"])]);
    nodes.publish_as("1", &sharded_state(), &BY_RANK);
    nodes.publish_as("2", &layers(), &[]);
    // Others have to reach the sockets.
    let root = nodes.world.path("x").parent().expect("it lies in a directory").to_owned();
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("the directory is ours");
    nodes
}

fn agent(nodes: &Nodes, models: &[&str]) -> Running {
    let log = nodes.world.path("agent.log");
    let _ = fs::remove_file(&log);
    let mut command = nodes.world.enclave("agent");
    command.args(models).args(["--tpm", &nodes.tpm("machine").tcti, "--vault"]).arg(nodes.world.vault());
    command.arg("--sockets").arg(nodes.world.path("sockets")).arg("--memory").arg(nodes.world.path("memory"));
    let mut running = Running::start(&mut command, &log);
    running.wait_for("ready ");
    running
}

fn socket(nodes: &Nodes, name: &str) -> PathBuf {
    nodes.world.path("sockets").join(name)
}

/// The files that a user gets, or the code of the refusal.
fn opened(nodes: &Nodes, uid: u32, gid: u32, model: &str) -> Result<Files, String> {
    let (path, line) = (socket(nodes, "agent.sock"), format!("v1 open {model}\n"));
    as_user(uid, gid, move || {
        let mut reader = Reader::ask(&path, &line);
        loop {
            let frame = reader.frame().expect("the agent goes on");
            match frame["frame"].as_str() {
                Some("refused") => return Err(frame["code"].as_str().expect("a code").to_owned()),
                Some("ready") => break,
                _ => {}
            }
        }
        let read = |file: &fs::File| {
            let mut bytes = vec![0; usize::try_from(file.metadata().expect("it is open").len()).expect("small")];
            std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).expect("it is readable");
            bytes
        };
        Ok(reader.files.iter().map(|(path, file)| (path.clone(), read(file))).collect())
    })
}

/// The versions of `demo` that a user is told of on either socket.
fn told(nodes: &Nodes, uid: u32) -> [Vec<String>; 2] {
    let (readers, control) = (socket(nodes, "agent.sock"), socket(nodes, "control.sock"));
    as_user(uid, uid, move || {
        let list = Reader::ask(&readers, "v1 list\n").frame().expect("an answer");
        let list = list["models"].as_array().expect("a list").iter();
        let list = list.map(|model| model["version"].as_str().expect("a version").to_owned()).collect();
        [list, over_grpc(&control)]
    })
}

fn over_grpc(control: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("unix:{}", control.display())).expect("an address");
        let mut client = AgentClient::new(endpoint.connect().await.expect("the agent listens"));
        let listed = client.list_models(v1::ListModelsRequest {}).await.expect("he may").into_inner();
        let watched =
            client.watch_models(v1::WatchModelsRequest {}).await.expect("he may").into_inner().message().await;
        let versions = |models: Vec<v1::Model>| models.into_iter().map(|model| model.version).collect::<Vec<_>>();
        let (listed, watched) =
            (versions(listed.models), versions(watched.expect("a stream").expect("at once").models));
        assert_eq!(listed, watched);
        listed
    })
}

#[test]
fn each_model_of_an_agent_is_a_part_for_its_own_readers_and_for_no_others() {
    if !is_root() {
        return;
    }
    let nodes = nodes();
    let first = format!("demo@1:machine,rank=0/4,rank=1/4,rank-dirs,allow={FIRST}");
    let second = format!("demo@2:machine,tensor=*.layers.0.q_proj.*,allow=:{SECOND}");
    let running = agent(&nodes, &[&first, &second]);

    // Two ranks, each with its files in a directory.
    let model = sharded_state();
    let ranks = opened(&nodes, FIRST, STRANGER, "demo@1").expect("it is for this user");
    let of = |rank: u32| {
        of_ranks(&model, &[rank]).into_iter().map(move |(path, bytes)| (format!("rank{rank}/{path}"), bytes))
    };
    assert!(ranks == of(0).chain(of(1)).collect::<Files>(), "{:?}", ranks.keys());
    // The units that a tensor is in, found by its name.
    let found = opened(&nodes, STRANGER, SECOND, "demo@2").expect("it is for this group");
    assert_eq!(found.keys().collect::<Vec<_>>(), [WEIGHTS]);
    let is_there = |name: &str| name.contains(".layers.0.");
    assert!(tensors(&found[WEIGHTS]) == those(&tensors(&layers()[WEIGHTS]), is_there));

    // A reader of one gets nothing of the other, and is not told of it.
    for (uid, gid, other) in [(FIRST, STRANGER, "demo@2"), (STRANGER, SECOND, "demo@1")] {
        assert_eq!(opened(&nodes, uid, gid, other), Err("model-not-allowed".to_owned()));
        assert_eq!(opened(&nodes, uid, gid, "demo@9"), Err("model-unknown".to_owned()));
    }
    assert_eq!(opened(&nodes, STRANGER, STRANGER, "demo@1"), Err("peer-not-allowed".to_owned()));
    let versions = |versions: &[&str]| versions.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&nodes, FIRST), [versions(&["1"]), versions(&["1"])]);
    // Without a version: of those that are for him.
    assert!(
        opened(&nodes, FIRST, STRANGER, "demo").is_ok_and(|files| files.keys().all(|path| path.starts_with("rank")))
    );
    // Whoever controls the agent has all of it.
    assert!(opened(&nodes, 0, 0, "demo@1").is_ok() && opened(&nodes, 0, 0, "demo@2").is_ok());

    let status =
        |nodes: &Nodes| run_ok(nodes.world.enclave("status").arg("--agent").arg(socket(nodes, "control.sock")));
    let said = status(&nodes);
    assert!(said.contains(&format!("; rank=0/4,rank=1/4,rank-dirs; for {FIRST} alone")), "{said}");
    assert!(said.contains(&format!("; tensor=*.layers.0.q_proj.*; for :{SECOND} alone")), "{said}");

    // Others come over the control socket, likewise.
    let models = |arguments: &[&str]| {
        run(nodes.world.enclave("models").arg("--agent").arg(socket(&nodes, "control.sock")).args(arguments))
    };
    assert_eq!(models(&["unload", "demo@2"]).0, Some(0));
    assert_eq!(opened(&nodes, STRANGER, SECOND, "demo@1"), Err("peer-not-allowed".to_owned()), "on no list any more");
    let (code, said) = models(&["load", &format!("demo@2:machine,group=layer.1,allow={FIRST}")]);
    assert_eq!(code, Some(0), "{said}");
    let one = opened(&nodes, FIRST, STRANGER, "demo@2").expect("it is for this user now");
    assert!(tensors(&one[WEIGHTS]) == those(&tensors(&layers()[WEIGHTS]), |name| name.contains(".layers.1.")));
    assert_eq!(told(&nodes, FIRST), [versions(&["1", "2"]), versions(&["1", "2"])]);
    let (code, said) = models(&["load", "demo@3:machine,rank=0/4,rank=0/4"]);
    assert!(code == Some(2) && said.contains("rank-twice"), "{said}");
    assert!(status(&nodes).contains("; group=layer.1; "));

    // A lease for each model, and one of the headers that the tensor was found by.
    let log = nodes.log();
    assert_eq!(log.matches(" release ").count(), 4, "{log}");
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn a_model_for_others_is_refused_by_an_agent_that_nobody_else_reaches() {
    if !is_root() {
        return;
    }
    let nodes = nodes();
    let running = agent(&nodes, &[]);
    let load = |model: &str| {
        run(nodes.world.enclave("models").arg("--agent").arg(socket(&nodes, "control.sock")).args(["load", model]))
    };
    let (code, said) = load(&format!("demo@2:machine,group=layer.1,allow={FIRST}"));
    assert!(code == Some(3) && said.contains("readers-unreachable"), "{said}");
    // What is not granted is refused as everywhere.
    let (code, said) = load("demo@2:machine,group=layer.2");
    assert!(code == Some(3) && said.contains("demo@2 is gone: not-loaded"), "{said}");
    let (code, said) = load("demo@2:machine,group=layer.1");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.terminate(), Some(0));
}
