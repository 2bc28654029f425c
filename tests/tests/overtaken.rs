//! A keeper that its host pauses, while it starts another one on a copy of the same state and the same TPM.

use std::sync::Arc;

use attestation::lease_id;
use rustix::process::{Pid, Signal, kill_process};
use vault_tests::process::copy;
use vault_tests::two::Forked;
use vault_tests::{Guest, Running, World, relay};

fn signal(keeper: &Running, signal: Signal) {
    let pid = Pid::from_raw(keeper.pid().cast_signed()).expect("a process id");
    kill_process(pid, signal).expect("it is the keeper that this test started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_keeper_renews_nothing_once_another_run_has_its_place() {
    let mut world = World::open();
    world.publish("1");
    let mut guest = Guest::new(&world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    let renewal = guest.renewal(&grant, lease).await;
    guest.renew(renewal).await.expect("a renewal");
    // What the renewal stands in is decided on before the pause: nothing but the counter tells.
    let renewal = guest.renewal(&grant, lease).await;

    let first = world.keeper.take().expect("it runs");
    signal(&first, Signal::STOP);
    for dir in ["keeper", "host"] {
        copy(&world.path(dir), &world.path(&format!("{dir}-fork")));
    }
    // The programs of one machine keep off a TPM that is in use; over a wire it is another one to them.
    let tpm = world.keeper_tpm.as_ref().expect("it is on");
    let tcti = relay::tpm(&tpm.tcti, Arc::new(|_, _| true));
    let socket = world.path("keeper-fork.sock");
    let mut second = world.enclave("keeper");
    second.arg("--dir").arg(world.path("keeper-fork")).args(["--tpm", &tcti]);
    second.arg("--listen").arg(format!("unix:{}", socket.display()));
    let mut second = Running::start(&mut second, &world.path("keeper-fork.log"));
    let fork = Forked::start(&world, &socket);
    second.wait_for("the vault is open");
    Guest::at(fork.url.clone(), &world.forge).await.load().await.expect("the second one has the vault");

    signal(&first, Signal::CONT);
    let refused = guest.renew(renewal).await.expect_err("another run has its place");
    assert_eq!(guest.code_of(refused).await, "tpm-counter-claimed");
    let mut first = first;
    first.wait_for("state-older-than-counter");
    Guest::at(fork.url.clone(), &world.forge).await.load().await.expect("the second one goes on");
}
