//! Messages that were good once, and more of them than anybody needs.

use attestation::lease_id;
use ledger::lease::end_message;
use rustix::process::Pid;
use vault_proto::v1;

use super::{Report, Seen, code_of};
use crate::{Guest, World};

/// Connections of a flood, and what each asks.
const CONNECTIONS: usize = 4;
const EACH: usize = 150;
/// What a flood may add to a keeper's memory, in KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

pub(super) async fn play(world: &World, report: &mut Report) {
    report.attack("replay");
    sessions(world, report).await;
    leases(world, report).await;
    report.attack("flood");
    flood(world, report).await;
}

async fn sessions(world: &World, report: &mut Report) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let request = v1::ReleaseKeysRequest::from(guest.redemption(&challenge));
    let first = guest.redeem_wire(request.clone()).await;
    let again = guest.redeem_wire(request.clone()).await;
    let same = first.as_ref().ok() == again.as_ref().ok() && first.is_ok();
    report.works("the same bytes again: the same grant", same.then_some(()).ok_or("another answer".to_owned()));
    let mut changed = request.clone();
    changed.lease_public_key = vec![7; 32];
    let answer = guest.redeem_wire(changed).await;
    report.refused("other bytes on a used challenge", "challenge-consumed", code_of(&mut guest, answer).await);

    let next = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut old = request.clone();
    old.session = next.session.to_vec();
    let answer = guest.redeem_wire(old).await;
    report.refused("old evidence on a new challenge", "binding-mismatch", code_of(&mut guest, answer).await);
    let answer = guest.redeem(guest.redemption(&next)).await;
    report.refused("a second try on that challenge", "challenge-consumed", code_of(&mut guest, answer).await);
    let mut unknown = request;
    unknown.session = vec![9; 16];
    let answer = guest.redeem_wire(unknown).await;
    report.refused("a challenge that was never issued", "challenge-unknown", code_of(&mut guest, answer).await);
}

async fn leases(world: &World, report: &mut Report) {
    let (mut guest, stranger) = (Guest::new(world).await, Guest::new(world).await);
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let id = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    let renewal = guest.renewal(&grant, id).await;
    let answer = guest.renew(renewal.clone()).await;
    report.works("a renewal by its own guest", code_of(&mut guest, answer).await);

    let fresh = guest.renewal(&grant, id).await;
    let old = v1::RenewLeaseRequest { session: fresh.session.clone(), ..renewal };
    let answer = guest.renew(old).await;
    report.refused("an old renewal on a new challenge", "lease-signature", code_of(&mut guest, answer).await);
    type Change = fn(&mut v1::RenewLeaseRequest);
    let cases: [(&str, &'static str, Change); 2] = [
        ("a renewal in the name of another lease", "lease-mismatch", |request| request.lease_id = vec![1; 32]),
        ("a lease that the keeper did not sign", "lease-statement-signature", |request| {
            request.lease.as_mut().expect("it has one").signature[0] ^= 1;
        }),
    ];
    for (what, code, change) in cases {
        let mut request = guest.renewal(&grant, id).await;
        change(&mut request);
        let answer = guest.renew(request).await;
        report.refused(what, code, code_of(&mut guest, answer).await);
    }

    let end = end_message(&challenge.vault_id, &id);
    let by = |key: &ring::signature::Ed25519KeyPair| key.sign(&end).as_ref().to_vec();
    let request = |signature| v1::EndLeaseRequest { lease_id: id.as_bytes().to_vec(), lease_signature: signature };
    let answer = guest.end(request(by(&stranger.lease))).await;
    report.refused("the end of somebody else's lease", "lease-signature", code_of(&mut guest, answer).await);
    let answer = guest.end(request(by(&guest.lease))).await;
    report.works("the end of its own lease", code_of(&mut guest, answer).await);
    let answer = guest.end(request(by(&guest.lease))).await;
    report.refused("the same end again", "lease-unknown", code_of(&mut guest, answer).await);
}

/// Strangers have the certificate of a guest's EK, which is public, and ask for challenges in its name, by connections that
/// each keep within their own limit.
async fn flood(world: &World, report: &mut Report) {
    let keeper = Pid::from_raw(world.keeper.as_ref().expect("it runs").pid().cast_signed()).expect("a process id");
    let before = resident_kib(keeper);
    let mut victim = Guest::new(world).await;
    let waiting = victim.challenge(victim.ask()).await.expect("a challenge");
    let (identity, mut flood) = (victim.identity.clone(), tokio::task::JoinSet::new());
    for _ in 0..CONNECTIONS {
        let mut stranger = Guest::new(world).await;
        stranger.identity = identity.clone();
        flood.spawn(async move {
            for _ in 0..EACH {
                let ask = stranger.ask();
                stranger.challenge(ask).await.map(drop)?;
            }
            Ok::<(), tonic::Status>(())
        });
    }
    let flooded = flood.join_all().await.into_iter().collect::<Result<Vec<()>, _>>();
    let flooded = flooded.map(drop).map_err(|refused| refused.to_string());
    report.works(&format!("{} challenges in the name of one guest", CONNECTIONS * EACH), flooded);
    let answer = victim.redeem(victim.redemption(&waiting)).await;
    report.works("that guest redeems what it asked for before", code_of(&mut victim, answer).await);
    let answer = victim.load().await;
    report.works("and is served after it", code_of(&mut victim, answer).await);
    let growth = resident_kib(keeper).saturating_sub(before);
    let bounded: Seen = if growth <= GROWTH_KIB_MAX { Ok(()) } else { Err(format!("{growth} KiB more")) };
    report.works("the keeper's memory grew by less than 64 MiB", bounded);
}

/// What a process has in memory (proc(5), `VmRSS`).
fn resident_kib(process: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
