//! Two keepers of one vault, behind one host or, with a host that forks the log, behind one each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::checkpoint::LogVerifier;
use tokio::task::JoinSet;

use crate::newcomer::Newcomer;
use crate::process::{Running, binary, run_ok};
use crate::world::APPROVERS;
use crate::{Guest, Witnesses, World};

/// A second keeper beside that of the world, and the host's streams to both.
pub struct Two {
    /// With the first keeper.
    pub world: World,
    /// The machine of the second one.
    pub newcomer: Newcomer,
    /// The second one, while it runs.
    pub second: Option<Running>,
}

impl Two {
    /// A vault with witnesses, its model `demo@1`, and both keepers.
    pub fn open() -> Self {
        let mut world = World::open_witnessed();
        world.publish("1");
        let newcomer = Newcomer::new(&world, "b");
        let_in(&world, &newcomer);
        world.host.take().expect("it runs").terminate();
        let sockets = [world.path("keeper.sock"), world.path("keeper-b.sock")].map(|path| path.display().to_string());
        world.host_keeper =
            Some(format!("keeper = \"unix:{}\"\nother_keepers = [\"unix:{}\"]\n", sockets[0], sockets[1]));
        let second = Some(newcomer.start_keeper_process(&world));
        world.start_host();
        let mut two = Self { world, newcomer, second };
        two.wait_open();
        two
    }

    /// Starts the second one and waits for nothing.
    pub fn start_second(&mut self) {
        self.second = Some(self.newcomer.start_keeper_process(&self.world));
    }

    /// Until both have the vault open.
    pub fn wait_open(&mut self) {
        self.world.keeper.as_mut().expect("it runs").wait_for("the vault is open");
        self.second.as_mut().expect("it runs").wait_for("the vault is open");
    }
}

/// Proposed and approved, and the keys are taken.
pub fn let_in(world: &World, newcomer: &Newcomer) {
    // The certificate of its TPM is of this moment, and the keeper's time is what witnesses said, up to two seconds behind.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut joining = newcomer.join(world);
    joining.wait_for("Proposed as");
    world.approve(&APPROVERS[..2]);
    let (code, said) = joining.wait();
    assert!(code == Some(0) && said.contains("The other keepers go on"), "{said}");
}

/// `vaultctl propose keeper-leave`, approved.
pub fn leave(world: &World, instance: &str) {
    let mut propose = world.vaultctl();
    propose.args(["propose", "keeper-leave", instance, "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    run_ok(&mut propose);
    world.approve(&APPROVERS[1..]);
}

/// Instances, the first keeper's first.
pub fn instances(world: &World) -> Vec<String> {
    let status = run_ok(world.vaultctl().args(["--json", "keeper", "status"]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let others = status["others"].as_array().cloned().unwrap_or_default();
    let all = std::iter::once(&status["keeper"]).chain(others.iter().map(|other| &other["keeper"]));
    all.map(|keeper| keeper["instance"].as_str().expect("an instance").to_owned()).collect()
}

/// A second host of the same adversary, with a copy of the first one's directory and one of the keepers.
pub struct Forked {
    /// The host.
    pub host: Running,
    /// Where it listens.
    pub url: String,
}

impl Forked {
    /// Behind `host-fork`, which the caller has copied, and before the keeper of this socket.
    pub fn start(world: &World, keeper: &Path) -> Self {
        let (dir, socket) = (world.path("host-fork"), world.path("host-fork.sock"));
        let witnesses = world.witnesses.as_ref().map(Witnesses::host_config).unwrap_or_default();
        let lines =
            [("data_dir", &dir), ("unix", &socket)].map(|(name, path)| format!("{name} = \"{}\"\n", path.display()));
        let config = format!("{}keeper = \"unix:{}\"\n{witnesses}", lines.concat(), keeper.display());
        let file: PathBuf = world.path("host-fork.toml");
        fs::write(&file, config).expect("the configuration can be written");
        let mut command = Command::new(binary("vault-host"));
        command.args(["serve", "--config"]).arg(&file);
        let mut host = Running::start(&mut command, &world.path("host-fork.log"));
        host.wait_for("attached to the keeper");
        Self { host, url: format!("unix:{}", socket.display()) }
    }
}

/// Size and root under every grant that was given, from either log.
pub async fn grants(world: &World, url: &str, count: usize) -> Vec<(u64, Vec<u8>)> {
    let log = LogVerifier::of(world.vault_file().genesis());
    let mut loads = JoinSet::new();
    for _ in 0..count {
        let mut guest = Guest::at(url.to_owned(), &world.forge).await;
        loads.spawn(async move { guest.load().await.ok() });
    }
    let granted = loads.join_all().await.into_iter().flatten();
    let seen = granted.map(|grant| {
        let (_, note) = grant.log_proof.split_once("\n\n").expect("a proof ends with its checkpoint");
        let checkpoint = log.verify_checkpoint(note).expect("a quorum cosigned it");
        (checkpoint.size, checkpoint.root.to_vec())
    });
    seen.collect()
}
