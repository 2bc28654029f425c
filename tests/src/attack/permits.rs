//! What approvers have allowed, for something else, more often or for longer than they did.

use std::time::Duration;

use super::{Report, Seen, code_of};
use crate::world::{APPROVERS, guest_pcrs};
use crate::{Guest, World, run_ok};

/// A rule whose every release takes an approval.
pub(super) fn rule() -> String {
    format!(
        "[release.asks]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\npcrs = {{ {} }}\neks = \"any\"\n\
         lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 8\nverify_units = true\napprovals = 2\n",
        guest_pcrs()
    )
}

pub(super) async fn play(world: &World, report: &mut Report) {
    report.attack("permits");
    let missing = "release-not-approved";
    report.refused("a release that waits for approvals, without one", missing, released(world, |_| {}).await);
    let (platform, value) = (format!("sha256:{}", "11".repeat(32)), format!("11={}", "11".repeat(32)));
    let others: [(&str, &[&str]); 3] = [
        ("another version", &["--version", "9", "--any-guest", "--for", "1h"]),
        ("another machine", &["--platform", &platform, "--for", "1h"]),
        ("another boot state", &["--measurement", &value, "--for", "1h"]),
    ];
    for (what, scope) in others {
        permit(world, "standing", scope, "4");
        report.refused(&format!("the same by what was allowed for {what}"), missing, released(world, |_| {}).await);
    }
    propose(world, "standing", &["--any-guest", "--for", "1h"], "1");
    world.approve(&APPROVERS[1..2]);
    report.refused("by what one of two approvers allowed", missing, released(world, |_| {}).await);
    world.approve(&APPROVERS[2..]);
    report.works("by what two approvers allowed, once", released(world, |_| {}).await);
    report.refused("once more than they allowed", missing, released(world, |_| {}).await);

    report.attack("break-glass");
    permit(world, "break-glass", &["--any-guest", "--for", "1h"], "1");
    let changed = released(world, |guest| guest.tpm.pcrs[11][0] ^= 1).await;
    report.refused("a guest that booted another program, by it", "pcr-not-allowed", changed);
    report.works("a good guest, once", released(world, |_| {}).await);
    report.refused("once more", missing, released(world, |_| {}).await);
}

/// One that ends while this waits for it.
pub(super) async fn outlived(world: &World, report: &mut Report) {
    report.attack("permits");
    permit(world, "standing", &["--any-guest", "--for", "1m"], "2");
    report.works("a release by what approvers allow for a minute", released(world, |_| {}).await);
    tokio::time::sleep(Duration::from_secs(62)).await;
    report.refused("another one after it", "release-not-approved", released(world, |_| {}).await);
}

/// The first approver proposes, the others approve.
fn permit(world: &World, kind: &str, scope: &[&str], releases: &str) {
    propose(world, kind, scope, releases);
    world.approve(&APPROVERS[1..]);
}

fn propose(world: &World, kind: &str, scope: &[&str], releases: &str) {
    let mut propose = world.vaultctl();
    propose.args(["propose", kind, "asks", "--model", "demo", "--releases", releases]).args(scope);
    run_ok(propose.args(["--yes", "--key"]).arg(world.path(APPROVERS[0])));
}

async fn released(world: &World, bend: impl FnOnce(&mut Guest)) -> Seen {
    let mut guest = Guest::new(world).await;
    bend(&mut guest);
    let mut ask = guest.ask();
    ask.rule = "asks".to_owned();
    let challenge = guest.challenge(ask).await.expect("a challenge");
    let extra = guest.bind_as(&challenge, |bound| bound.rule = "asks".to_owned()).tpm_extra_data();
    let answer = guest.redeem(guest.redemption_over(&challenge, &extra)).await;
    code_of(&mut guest, answer).await
}
