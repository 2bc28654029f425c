//! A keeper is killed at every step of a release: whatever it does, its TPM and its host see it do, so each message to
//! either of them and each answer is a step.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use attestation::lease_id;
use rustix::process::{Pid, Signal, kill_process};
use vault_tests::relay::{self, Gate, Way};
use vault_tests::{Guest, World, run_ok};

/// More steps than a release has: then something else never ends.
const STEPS_MAX: usize = 300;
/// Fewer than a commit has: then the messages do not come by here, and nothing is tested.
const STEPS_MIN: usize = 20;

/// Counts steps, and kills at one of them.
#[derive(Default)]
struct Steps(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// The keeper, and how many steps it may still take; `None` while nothing is counted.
    doomed: Option<(Pid, usize)>,
    /// What it did since then.
    taken: Vec<String>,
}

impl Steps {
    /// From now on; the keeper dies instead of taking step `last`.
    fn count(&self, keeper: u32, last: usize) {
        let pid = Pid::from_raw(keeper.try_into().expect("a process id")).expect("a process id");
        *self.lock() = Counted { doomed: Some((pid, last)), taken: Vec::new() };
    }

    /// No more steps; those that were taken, and whether the keeper is dead.
    fn stop(&self) -> (Vec<String>, bool) {
        let mut counted = self.lock();
        let dead = counted.doomed.take().is_none();
        (std::mem::take(&mut counted.taken), dead)
    }

    fn gate(self: &Arc<Self>, with: &'static str) -> Gate {
        let steps = Arc::clone(self);
        Arc::new(move |way, bytes| steps.step(with, way, bytes.len()))
    }

    fn step(&self, with: &str, way: Way, bytes: usize) -> bool {
        let mut counted = self.lock();
        let Some((pid, left)) = counted.doomed else { return true };
        counted.taken.push(format!("{with} {way:?} {bytes}"));
        if left > 0 {
            counted.doomed = Some((pid, left - 1));
            return true;
        }
        counted.doomed = None;
        kill_process(pid, Signal::KILL).expect("it is the keeper that this test started");
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts relays between the keeper and its TPM, and between host and keeper.
fn stand_between(world: &mut World, steps: &Arc<Steps>) {
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
    let tcti = &world.keeper_tpm.as_ref().expect("it is on").tcti;
    let (_, port) = tcti.rsplit_once("port=").expect("a port");
    let port: u16 = port.parse().expect("a port");
    let (commands, control) = listen_on_two_ports();
    let relayed = commands.local_addr().expect("it listens").port();
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    relay::tcp(commands, local(port), steps.gate("tpm"));
    relay::tcp(control, local(port + 1), Arc::new(|_, _| true));
    world.keeper_tcti = Some(format!("swtpm:host=127.0.0.1,port={relayed}"));
    let link = world.path("link.sock");
    relay::unix(&link, &world.path("keeper.sock"), steps.gate("host"));
    world.keeper_link = Some(link);
    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
}

/// libtss2 takes the control port of a software TPM to be the one after its port for commands.
fn listen_on_two_ports() -> (TcpListener, TcpListener) {
    let pairs = (0..64).filter_map(|_| {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let next = first.local_addr().ok()?.port().checked_add(1)?;
        Some((first, TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok()?))
    });
    pairs.into_iter().next().expect("two free ports in a row")
}

#[tokio::test(flavor = "multi_thread")]
async fn keeper_killed_at_any_step_of_a_release_leaves_no_grant_without_its_entry() {
    let mut world = World::open();
    world.publish("1");
    let steps = Arc::new(Steps::default());
    stand_between(&mut world, &steps);
    let vault = std::fs::read(world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file");
    let verifier = ledger::checkpoint::LogVerifier::of(vault.genesis());

    let mut with_entry = 0;
    for last in 0..STEPS_MAX {
        let mut guest = Guest::new(&world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let redemption = guest.redemption(&challenge);
        steps.count(world.keeper.as_ref().expect("it runs").pid(), last);
        let answer = guest.redeem(redemption).await;
        let (taken, killed) = steps.stop();
        // Where it took all its steps, it is killed after the last one. The host is killed too: it would wait longer
        // and longer before it dials a keeper whose streams end at once.
        world.keeper.take().expect("it was started").kill();
        world.host.take().expect("it was started").kill();
        world.start_keeper();
        world.start_host();
        world.keeper.as_mut().expect("it was started").wait_for("the vault is open");

        let log = run_ok(world.vaultctl().args(["log", "show"]));
        let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
        assert!(said.contains("Verified:"), "{said}");
        let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key()).to_string();
        let in_log = log.lines().any(|line| line.contains(" release ") && line.contains(&lease));
        with_entry += usize::from(in_log);
        if let Ok(grant) = &answer {
            verifier.verify_proof(&grant.log_proof, &grant.entry).expect("the grant's proof");
            assert!(in_log, "killed at {:?}: a grant without an entry in\n{log}", taken.last());
        }
        if !killed {
            assert!(answer.is_ok(), "nobody was killed: {answer:?}");
            assert!(last > STEPS_MIN, "a release has more steps than {taken:#?}");
            assert!((2..last).contains(&with_entry), "some kills come before the entry is durable, some after it");
            return;
        }
    }
    panic!("a release has more than {STEPS_MAX} steps");
}
