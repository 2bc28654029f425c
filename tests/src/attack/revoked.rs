//! A guest that goes on after it was revoked.

use vault_proto::v1::ReleaseKeysResponse;

use super::{Report, code_of};
use crate::world::APPROVERS;
use crate::{Guest, World, run_ok};

pub(super) async fn play(world: &World, report: &mut Report) {
    report.attack("revoked");
    let mut guest = Guest::new(world).await;
    let (grant, lease) = granted(&mut guest).await;
    let renewal = guest.renewal(&grant, lease).await;
    let answer = guest.renew(renewal).await;
    report.works("a renewal before the revocation", code_of(&mut guest, answer).await);

    revoke(world, &["--lease", &lease.to_string()]);
    let renewal = guest.renewal(&grant, lease).await;
    let answer = guest.renew(renewal).await;
    report.refused("a renewal of the revoked lease", "revoked", code_of(&mut guest, answer).await);
    let answer = guest.load().await;
    report.works("another lease of the same guest", code_of(&mut guest, answer).await);

    let (grant, lease) = granted(&mut guest).await;
    revoke(world, &["--model", "demo", "--version", "1"]);
    let renewal = guest.renewal(&grant, lease).await;
    let answer = guest.renew(renewal).await;
    report.refused("a renewal of a lease on a revoked model", "revoked", code_of(&mut guest, answer).await);
    let mut other = Guest::new(world).await;
    let answer = other.load().await;
    report.refused("a load of the revoked model by another guest", "revoked", code_of(&mut other, answer).await);
}

async fn granted(guest: &mut Guest) -> (ReleaseKeysResponse, attestation::Sha256Digest) {
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let lease = guest.bind(&challenge).statement().lease_id();
    (guest.redeem(guest.redemption(&challenge)).await.expect("a grant"), lease)
}

fn revoke(world: &World, what: &[&str]) {
    let mut revoke = world.vaultctl();
    revoke.arg("revoke").args(what).args(["--no-wait", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    run_ok(&mut revoke);
}
