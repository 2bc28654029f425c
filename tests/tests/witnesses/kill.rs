//! A keeper that is killed between its signature and the cosignatures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use attestation::lease_id;
use rustix::process::{Pid, Signal, kill_process};
use vault_tests::relay::{self, Gate};
use vault_tests::{Guest, World};

use super::{verify_log, wait_open, witnesses};

/// More messages than three witnesses send and get for one commit.
const MESSAGES_MAX: usize = 40;

/// How many messages may still pass before the keeper dies; nothing while it is left alone.
type Doom = Arc<Mutex<Option<(Pid, usize)>>>;

fn gate(doom: &Doom) -> Gate {
    let doom = Arc::clone(doom);
    Arc::new(move |_, _| {
        let mut doom = doom.lock().unwrap_or_else(PoisonError::into_inner);
        match *doom {
            None => true,
            Some((keeper, 0)) => {
                kill_process(keeper, Signal::KILL).expect("it is the keeper that this test started");
                *doom = None;
                false
            }
            Some((keeper, left)) => {
                *doom = Some((keeper, left - 1));
                true
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn keeper_killed_while_witnesses_are_asked_leaves_no_grant_without_its_entry() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let doom = Doom::default();
    for index in 0..3 {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, witnesses(&mut world).port(index)));
        relay::tcp(witnesses(&mut world).stand_before(index), to, gate(&doom));
    }
    world.host.take().expect("it runs").terminate();
    world.start_host();

    let mut orphans = 0;
    for last in 0..MESSAGES_MAX {
        let mut guest = Guest::new(&world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let redemption = guest.redemption(&challenge);
        let pid = world.keeper.as_ref().expect("it runs").pid();
        let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
        *doom.lock().unwrap_or_else(PoisonError::into_inner) = Some((pid, last));
        let answer = guest.redeem(redemption).await;
        let killed = doom.lock().unwrap_or_else(PoisonError::into_inner).take().is_none();
        world.keeper.take().expect("it was started").kill();
        world.host.take().expect("it was started").kill();
        world.start_keeper();
        world.start_host();
        wait_open(&mut world, 1);

        let log = verify_log(&world);
        let lease = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key()).to_string();
        // The entry is durable before any witness hears of it, so it is there in any case.
        assert!(log.lines().any(|line| line.contains(" release ") && line.contains(&lease)), "killed at {last}: {log}");
        orphans += usize::from(answer.is_err());
        if !killed {
            assert!(answer.is_ok(), "nobody was killed: {answer:?}");
            assert!(orphans > 0, "none of the kills came before the quorum");
            return;
        }
    }
    panic!("one commit has more than {MESSAGES_MAX} messages with its witnesses");
}
