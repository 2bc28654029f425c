//! Several keepers of one vault: one that nobody let in, one that left, and a host that shows each a log of its own.

use attestation::JoinerKeys;
use tokio::task::block_in_place;
use vault_proto::convert::{JoinAnswer, JoinRequest};

use super::storage::released;
use super::{Report, Seen, code_of, said};
use crate::candidate::Candidate;
use crate::process::copy;
use crate::two::{Forked, Two, grants, instances, leave};
use crate::world::APPROVERS;
use crate::{Guest, World};

pub(super) async fn play(mut report: Report) {
    let mut two = block_in_place(Two::open);
    report.attack("keepers: forked");
    for which in ["one", "the other"] {
        // Challenges go round.
        report.works(&format!("a release by {which} of two keepers"), released(&two.world).await);
    }
    forked(&mut two, &report).await;
    report.attack("keepers: left");
    left(&mut two, &report).await;
    report.attack("keepers: joining");
    joining(&two.world, &report).await;
}

async fn joining(world: &World, report: &Report) {
    let mut candidate = Candidate::new(world).await;
    // No counter shows what is the newest here, but witnesses.
    candidate.keys = JoinerKeys { counter_name: [0; 34], counter: 0, ..candidate.keys };
    let challenge = candidate.challenge().await.expect("a challenge");
    let request = candidate.redemption(&challenge);
    let first = candidate.redeem(request.clone()).await;
    report.works("a keeper asks to be let in", code(world, first.as_ref().map(drop).map_err(Clone::clone)).await);
    report.refused("the vault's keys, by its proof alone", NOT_APPROVED, keys(world, first).await);
    world.approve(&APPROVERS[..1]);
    let answer = candidate.join().await;
    report.refused("its proof and one of two approvers", NOT_APPROVED, keys(world, answer).await);
    let again = candidate.redeem(request.clone()).await;
    report.refused("the same bytes again, after it", NOT_APPROVED, keys(world, again).await);
    let stranger = Candidate::new(world).await;
    let stolen = candidate.redeem(JoinRequest { joiner: stranger.keys.clone(), ..request.clone() }).await;
    report.refused("other keys on its used challenge", "challenge-consumed", keys(world, stolen).await);
    let challenge = candidate.challenge().await.expect("a challenge");
    let mut stolen = candidate.redemption(&challenge);
    stolen.joiner.hpke_key = stranger.keys.hpke_key.clone();
    let answer = candidate.redeem(stolen).await;
    report.refused("its evidence, the thief's key to wrap to", "binding-mismatch", keys(world, answer).await);
    let challenge = candidate.challenge().await.expect("a challenge");
    let replayed = candidate.redeem(JoinRequest { session: challenge.session, ..request }).await;
    report.refused("its old evidence on a new challenge", "binding-mismatch", keys(world, replayed).await);
    let good = candidate.tpm.pcrs[11];
    candidate.tpm.pcrs[11] = [0x2f; 32];
    let answer = candidate.join().await;
    report.refused("a machine that booted another program", "keeper-pcr-mismatch", keys(world, answer).await);
    candidate.tpm.pcrs[11] = good;
}

/// What this suite calls an answer without keys.
const NOT_APPROVED: &str = "join-not-approved";

async fn keys(world: &World, answer: Result<JoinAnswer, tonic::Status>) -> Seen {
    match answer {
        Ok(JoinAnswer::Proposal(_)) => Err(NOT_APPROVED.to_owned()),
        Ok(_) => Ok(()),
        Err(refused) => Err(Guest::new(world).await.code_of(refused).await),
    }
}

async fn code(world: &World, answer: Result<(), tonic::Status>) -> Seen {
    let mut guest = Guest::new(world).await;
    code_of(&mut guest, answer).await
}

/// Each keeper behind a host of its own, over a copy of the log: neither waits for its turn, nor sees what the other wrote.
async fn forked(two: &mut Two, report: &Report) {
    let sockets = [two.world.path("keeper.sock"), two.world.path("keeper-b.sock")];
    let usual = two.world.host_keeper.replace(format!("keeper = \"unix:{}\"\n", sockets[0].display()));
    two.world.host.take().expect("it runs").terminate();
    copy(&two.world.path("host"), &two.world.path("host-fork"));
    block_in_place(|| two.world.start_host());
    let fork = block_in_place(|| Forked::start(&two.world, &sockets[1]));
    let urls = [two.world.url(), fork.url.clone()];
    let (first, second) = tokio::join!(grants(&two.world, &urls[0], 6), grants(&two.world, &urls[1], 6));
    let alone = |one: &[(u64, Vec<u8>)]| if one.is_empty() { Err("nobody released".to_owned()) } else { Ok(()) };
    report.works("one of the two goes on", alone(&[first.clone(), second.clone()].concat()));
    let forks = first.iter().any(|(size, root)| second.iter().any(|(other, it)| other == size && it != root));
    // The one that lost was refused by its witnesses; which one that is, they decide.
    let logs = [two.world.keeper.as_ref(), two.second.as_ref()].map(|keeper| keeper.expect("it runs").log()).concat();
    let codes = ["state-older-than-witnesses", "log-forked-from-witnesses", "witness-quorum-missing"];
    let stopped = codes.into_iter().any(|code| logs.contains(code));
    let seen = match (forks, stopped) {
        (true, _) => Ok(()),
        (false, true) => Err(NO_FORK.to_owned()),
        (false, false) => Err("no witness refused".to_owned()),
    };
    report.refused("both decide, without turns, on copies of the log", NO_FORK, seen);
    // The log that counts is the one that a quorum has cosigned further.
    let newest = |of: &[(u64, Vec<u8>)]| of.iter().map(|(size, _)| *size).max().unwrap_or(0);
    let of_fork = newest(&second) > newest(&first);
    fork.host.terminate();
    two.world.host.take().expect("it runs").terminate();
    if of_fork {
        copy(&two.world.path("host-fork"), &two.world.path("host"));
    }
    two.world.host_keeper = usual;
    block_in_place(|| {
        two.world.keeper.take().expect("it runs").terminate();
        two.second.take().expect("it runs").terminate();
        let _ = std::fs::remove_file(two.world.path("keeper.sock"));
        two.world.keeper = Some(two.world.start_keeper_process());
        two.start_second();
        two.world.start_host();
        two.wait_open();
    });
    for which in ["one", "the other"] {
        report.works(&format!("over one log again, {which} of two keepers"), released(&two.world).await);
    }
}

/// One fork alone has a quorum.
const NO_FORK: &str = "one-log-cosigned";

async fn left(two: &mut Two, report: &Report) {
    block_in_place(|| {
        two.second.take().expect("it runs").terminate();
        copy(&two.newcomer.dir(&two.world), &two.world.path("keeper-b-before"));
        two.start_second();
        two.wait_open();
    });
    let second = instances(&two.world).pop().expect("two keepers");
    block_in_place(|| {
        leave(&two.world, &second);
        two.second.as_mut().expect("it runs").wait_for("this keeper has retired");
    });
    for _ in 0..2 {
        report.works("the keeper that stays goes on", released(&two.world).await);
    }
    let retired = |log: &str| said(None, log, "this keeper has retired").map_err(|_| "keeper-retired".to_owned());
    let restarted = |two: &mut Two| {
        block_in_place(|| {
            two.second.take().expect("it runs").kill();
            two.start_second();
            let second = two.second.as_mut().expect("it runs");
            second.wait_for("this keeper has retired");
            second.log()
        })
    };
    let log = restarted(two);
    report.refused("the one that left, started again", "keeper-retired", retired(&log));
    block_in_place(|| two.second.take().expect("it runs").kill());
    copy(&two.world.path("keeper-b-before"), &two.newcomer.dir(&two.world));
    two.start_second();
    let log = restarted(two);
    report.refused("with its directory of before it left", "keeper-retired", retired(&log));
    report.works("the keeper that stays, beside it", released(&two.world).await);
}
