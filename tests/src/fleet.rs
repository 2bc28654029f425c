//! Many agents that ask at the same moment, and the memory that keeper and host need for them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Instant;

use attestation::{Sha256Digest, lease_id};
use ledger::lease::LeaseStatement;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vault_proto::v1::ReleaseKeysResponse;

use crate::process::Resident;
use crate::{Guest, Running, World, binary};

/// Agents with a connection, a TPM of the forge and a lease each.
pub struct Fleet {
    agents: Vec<Agent>,
}

/// An agent with the lease that it has.
struct Agent {
    guest: Guest,
    lease: Sha256Digest,
    grant: ReleaseKeysResponse,
}

/// What one wave took: every agent asked at once, and every one was served.
#[derive(Clone, Copy, Debug)]
pub struct Wave {
    /// From the first request to the last answer.
    pub seconds: f64,
    /// The keeper's memory after it.
    pub keeper: Resident,
    /// The host's.
    pub host: Resident,
}

/// A vault whose leases are long, and numerous enough for two of each agent. Its host was started with no more open files than
/// there will be agents, as a shell or a service manager does; this process takes all that it may have.
pub fn world(agents: usize) -> World {
    let mut world = World::before_ceremony(|_, policy| {
        let leases = format!("lease = \"15m\"\non_lease_end = \"end\"\nmax_leases = {}", agents * 2);
        *policy = policy.replacen("lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 256", &leases, 1);
    });
    world.sign_genesis();
    world.publish("1");
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("up to its maximum");
    start_host_with_few_files(&mut world, agents);
    world
}

fn start_host_with_few_files(world: &mut World, files: usize) {
    world.host.take().expect("it runs").terminate();
    fs::remove_file(world.path("host.log")).expect("it wrote one");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn \"$0\" && exec \"$1\" serve --config \"$2\"", &files.to_string()]);
    shell.arg(binary("vault-host")).arg(world.path("host.toml"));
    let mut host = Running::start(&mut shell, &world.path("host.log"));
    host.wait_for("attached to the keeper");
    world.host = Some(host);
}

impl Fleet {
    /// So many agents, all of which start at once.
    pub async fn start(world: &World, agents: usize) -> (Self, Wave) {
        Self::load(world, (0..agents).map(|_| Guest::unconnected(world)).collect()).await
    }

    /// Every agent restarts at once: on the same machine, with other keys and another connection.
    pub async fn restart(self, world: &World) -> (Self, Wave) {
        Self::load(world, self.agents.into_iter().map(|agent| agent.guest.restarted(world)).collect()).await
    }

    /// Every agent renews its lease at once.
    pub async fn renew(&mut self, world: &World) -> Wave {
        let began = Instant::now();
        let renewals: Vec<_> = self.agents.drain(..).map(|agent| tokio::spawn(agent.renewed())).collect();
        for renewed in renewals {
            self.agents.push(renewed.await.expect("a longer lease"));
        }
        Wave::since(began, world)
    }

    /// How many leases it has: no two agents have the same.
    pub fn leases(&self) -> usize {
        self.agents.iter().map(|agent| agent.lease).collect::<BTreeSet<_>>().len()
    }

    async fn load(world: &World, guests: Vec<Guest>) -> (Self, Wave) {
        let began = Instant::now();
        let loads: Vec<_> = guests.into_iter().map(|guest| tokio::spawn(Agent::load(guest))).collect();
        let mut agents = Vec::new();
        for load in loads {
            agents.push(load.await.expect("a grant"));
        }
        (Self { agents }, Wave::since(began, world))
    }
}

impl Agent {
    async fn load(mut guest: Guest) -> Self {
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
        let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
        Self { guest, lease, grant }
    }

    async fn renewed(mut self) -> Self {
        let renewal = self.guest.renewal(&self.grant, self.lease).await;
        self.grant.lease = self.guest.renew(renewal).await.expect("a longer lease").lease;
        let signed = self.grant.lease.as_ref().expect("a lease");
        assert_eq!(LeaseStatement::parse(&signed.statement).expect("a statement").lease, self.lease);
        self
    }
}

impl Wave {
    /// Before any.
    pub fn none(world: &World) -> Self {
        Self::since(Instant::now(), world)
    }

    fn since(began: Instant, world: &World) -> Self {
        let seconds = began.elapsed().as_secs_f64();
        let resident = |process: &Option<Running>| process.as_ref().expect("it runs").resident();
        Self { seconds, keeper: resident(&world.keeper), host: resident(&world.host) }
    }
}
