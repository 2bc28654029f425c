//! Both keepers run at once, behind one host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::lease_id;
use rustix::process::{Pid, Signal, kill_process};
use vault_proto::v1;
use vault_tests::newcomer::Newcomer;
use vault_tests::relay::{self, Gate};
use vault_tests::two::{Two, instances, leave, let_in};
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run_ok};

use super::{count, log, release};

async fn guests(world: &World, count: usize) -> Vec<Guest> {
    let mut guests = Vec::new();
    for _ in 0..count {
        guests.push(Guest::new(world).await);
    }
    guests
}

/// A load that is asked for again where the keepers were in each other's way.
async fn load(mut guest: Guest) -> usize {
    for tries in 0..10 {
        match guest.load().await {
            Ok(_) => return tries,
            Err(refused) => {
                let code = guest.code_of(refused).await;
                assert!(code == "commit-failed" || code == "vault-closed", "{code}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    panic!("no grant in ten tries");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_keepers_release_at_once_from_one_log() {
    let two = Two::open();
    let mut loads = tokio::task::JoinSet::new();
    for guest in guests(&two.world, 24).await {
        loads.spawn(load(guest));
    }
    let again: usize = loads.join_all().await.into_iter().sum();
    assert_eq!(again, 0, "they take turns");
    let log = log(&two.world);
    assert_eq!(count(&log, " release "), 24, "{log}");
    assert_eq!(count(&log, " start "), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_one_keeper_is_renewed_by_the_other_and_ended_by_either() {
    let two = Two::open();
    let mut guest = Guest::new(&two.world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    // Challenges go round: of two in a row one is of the keeper that did not grant the lease.
    for _ in 0..4 {
        let request = guest.renewal(&grant, lease).await;
        guest.renew(request).await.expect("a renewal");
    }
    // What was renewed is in the log before anybody hears of it.
    assert_eq!(count(&log(&two.world), " renew "), 4);

    // Limits count what both granted.
    let mut released = 0;
    let refused = loop {
        let mut guest = Guest::new(&two.world).await;
        let mut ask = guest.ask();
        ask.rule = "first-layer".to_owned();
        match guest.challenge(ask).await {
            Ok(challenge) => match guest.redeem(guest.redemption(&challenge)).await {
                Ok(_) => released += 1,
                Err(refused) => break guest.code_of(refused).await,
            },
            Err(refused) => break guest.code_of(refused).await,
        }
        assert!(released < 5, "its rule has room for one lease");
    };
    assert!(released <= 1, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_one_keeper_reaches_who_watches_a_lease_of_the_other() {
    let two = Two::open();
    let mut watched = Vec::new();
    for _ in 0..2 {
        let mut guest = Guest::new(&two.world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
        let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
        let message = ledger::revocation::watch_message(&challenge.vault_id, &lease);
        let lease_signature = guest.lease.sign(&message).as_ref().to_vec();
        let request = v1::WatchLeaseRequest { lease_id: lease.as_bytes().to_vec(), lease_signature };
        let mut events = guest.watch(request).await.expect("a watch");
        events.message().await.expect("the stream goes on").expect("it says that it watches");
        watched.push((guest, events));
    }
    let mut revoke = two.world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--yes", "--no-wait", "--key"]).arg(two.world.path(APPROVERS[0]));
    run_ok(&mut revoke);
    let approved = Instant::now();
    two.world.approve(&APPROVERS[1..2]);
    for (_, events) in &mut watched {
        let event = events.message().await.expect("the stream goes on").expect("a notice");
        assert!(matches!(event.event, Some(v1::watch_lease_response::Event::Notice(_))), "{event:?}");
    }
    eprintln!("heard within {:?} of the last approval's command", approved.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_keeper_goes_on_without_the_other_and_is_caught_up_with() {
    let mut two = Two::open();
    two.world.keeper.take().expect("it runs").kill();
    for _ in 0..2 {
        release(&two.world).await;
    }
    // Whoever seals has to know the keeper that serves.
    let renewed = two.world.path("renewed.json");
    run_ok(two.world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    std::fs::copy(&renewed, two.world.vault()).expect("the directory is ours");
    two.world.publish("2");
    two.world.start_keeper();
    two.second.take().expect("it runs").kill();
    release(&two.world).await;
    two.start_second();
    two.wait_open();
    for _ in 0..2 {
        release(&two.world).await;
    }
    assert_eq!(count(&log(&two.world), " release "), 5);
}

/// How many messages to witnesses may still pass before a keeper dies.
type Doom = Arc<Mutex<Option<(Pid, usize)>>>;

fn gate(doom: &Doom) -> Gate {
    let doom = Arc::clone(doom);
    Arc::new(move |_, _| {
        let mut doom = doom.lock().unwrap_or_else(PoisonError::into_inner);
        match *doom {
            None => true,
            Some((keeper, 0)) => {
                kill_process(keeper, Signal::KILL).expect("it is a keeper that this test started");
                *doom = None;
                true
            }
            Some((keeper, left)) => {
                *doom = Some((keeper, left - 1));
                true
            }
        }
    })
}

/// Killed with its commit half cosigned, a keeper leaves a checkpoint that some witnesses have signed: the other one has to
/// bring that to its end, or these witnesses would be lost to the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_keeper_began_the_other_one_ends() {
    let mut two = Two::open();
    let doom = Doom::default();
    let witnesses = two.world.witnesses.as_mut().expect("it has witnesses");
    for index in 0..3 {
        let to = (std::net::Ipv4Addr::LOCALHOST, witnesses.port(index)).into();
        relay::tcp(witnesses.stand_before(index), to, gate(&doom));
    }
    two.world.host.take().expect("it runs").terminate();
    two.world.start_host();
    two.world.host.as_mut().expect("it runs").wait_for("keeper-b.sock");

    let mut cuts = 0;
    // Challenges go round, from the first keeper on.
    let mut challenges = 0;
    for last in 0..8 {
        let pid = two.second.as_ref().expect("it runs").pid();
        let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
        if challenges % 2 == 0 {
            release(&two.world).await;
            challenges += 1;
        }
        let mut guest = Guest::new(&two.world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        challenges += 1;
        *doom.lock().unwrap_or_else(PoisonError::into_inner) = Some((pid, last));
        let answer = guest.redeem(guest.redemption(&challenge)).await;
        let cut = doom.lock().unwrap_or_else(PoisonError::into_inner).take().is_none();
        // The other one goes on at once, and brings to its end what was begun.
        let mut other = Guest::new(&two.world).await;
        other.load().await.expect("a grant");
        challenges += 1;
        let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key()).to_string();
        let log = log(&two.world);
        assert!(log.lines().any(|line| line.contains(" release ") && line.contains(&lease)), "{last}: {log}");
        cuts += usize::from(cut && answer.is_err());
        two.second.take().expect("it was started").kill();
        two.start_second();
        two.wait_open();
    }
    assert!(cuts >= 3, "{cuts}");
    // No witness was led astray: each alone makes a quorum with any other.
    for away in 0..3 {
        two.world.witnesses.as_mut().expect("it has witnesses").stop(away);
        release(&two.world).await;
        release(&two.world).await;
        let vkey = two.world.log_vkey();
        two.world.witnesses.as_mut().expect("it has witnesses").start(away, &vkey);
    }
}

/// Two keepers are upgraded in turn: a new one comes, the old one leaves, and at no moment does nobody serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_keeper_comes_and_the_old_one_leaves() {
    let mut two = Two::open();
    // Its certificate is some seconds old when it is needed: the keepers' clocks may be one behind this one.
    let third = Newcomer::new(&two.world, "c");
    release(&two.world).await;
    let [founder, second] = &instances(&two.world)[..] else { panic!("two keepers") };
    leave(&two.world, founder);
    // Both hear of it: the one serves on, the other one serves nothing any more, also after a restart.
    two.world.keeper.as_mut().expect("it runs").wait_for("this keeper has retired");
    for _ in 0..4 {
        release(&two.world).await;
    }
    two.world.keeper.take().expect("it runs").terminate();
    let mut keeper = two.world.start_keeper_process();
    keeper.wait_for("this keeper has retired");
    two.world.keeper = Some(keeper);
    for _ in 0..2 {
        release(&two.world).await;
    }
    assert_eq!(instances(&two.world), std::slice::from_ref(second));
    let renewed = two.world.path("renewed.json");
    run_ok(two.world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    std::fs::copy(&renewed, two.world.vault()).expect("the directory is ours");
    two.world.publish("2");
    let status = run_ok(two.world.vaultctl().arg("status"));
    assert!(status.contains("Verified now") && status.contains("NOT RECOVERABLE"), "{status}");
    // Nobody sends the last one away.
    let mut propose = two.world.vaultctl();
    propose.args(["propose", "keeper-leave", second, "--yes", "--key"]).arg(two.world.path(APPROVERS[0]));
    let (code, said) = vault_tests::run(&mut propose);
    assert!(code != Some(0) && said.contains("leave-last-keeper"), "{said}");
    // And a third one comes.
    let_in(&two.world, &third);
    assert_eq!(instances(&two.world).len(), 2);
    let log = log(&two.world);
    for words in ["proposes that keeper", "approves that a keeper leaves", "decides no more"] {
        assert!(log.contains(words), "{words}: {log}");
    }
}
