//! Standing approvals and break-glass on a real keeper with a software TPM: a rule that asks for approvals releases as much
//! as was approved, after a restart too; break-glass passes a budget, aloud.

use serde_json::Value;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run_ok};

/// Every release of `demo` takes a standing approval, and there is one an hour.
fn world() -> World {
    let world = World::before_ceremony(|_, policy| {
        *policy = policy.replacen("max_leases = 256\n", "max_leases = 256\napprovals = 2\n", 1);
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nbreak_glass_threshold = 2\n", 1);
        policy
            .push_str("[budget.fleet]\nper = \"vault\"\nmodels = \"any\"\nreleases_per_hour = 1\nover = \"refuse\"\n");
    });
    world.sign_genesis();
    world.publish("1");
    world
}

/// The first approver proposes, the others approve.
fn permit(world: &World, kind: &str, releases: &str) {
    let mut propose = world.vaultctl();
    propose.args(["propose", kind, "demo", "--model", "demo", "--any-guest", "--releases", releases, "--for", "1h"]);
    run_ok(propose.args(["--yes", "--key"]).arg(world.path(APPROVERS[0])));
    world.approve(&APPROVERS[1..]);
}

async fn refused(world: &World) -> String {
    let mut guest = Guest::new(world).await;
    let refused = guest.load().await.expect_err("it is refused");
    guest.code_of(refused).await
}

fn status(world: &World) -> Value {
    serde_json::from_str(&run_ok(world.vaultctl().args(["--json", "status"]))).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_approvers_allow_is_released_and_counted_and_break_glass_is_heard() {
    let mut world = world();
    assert_eq!(refused(&world).await, "release-not-approved");
    permit(&world, "standing", "2");
    Guest::new(&world).await.load().await.expect("two are approved");
    assert_eq!(status(&world)["permits"][0]["left"], 1);
    // A standing approval raises no budget.
    assert_eq!(refused(&world).await, "budget-releases");

    permit(&world, "break-glass", "1");
    Guest::new(&world).await.load().await.expect("the glass is broken");
    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
    let now = status(&world);
    let left: Vec<&Value> = now["permits"].as_array().expect("a list").iter().map(|permit| &permit["left"]).collect();
    assert_eq!((left, &now["alarm_count"]), (vec![&Value::from(0); 2], &Value::from(1)), "{now}");
    assert_eq!(refused(&world).await, "budget-releases");

    let said = run_ok(world.vaultctl().arg("status"));
    assert!(said.contains("BREAK-GLASS for at most 1 releases of demo, every version, under rule demo"), "{said}");
    assert!(said.contains("ALARM: 1 release rang") && said.contains("break-glass: demo@1"), "{said}");
    let log = run_ok(world.vaultctl().args(["log", "show", "--count", "1000"]));
    assert!(log.contains("; BY THE BREAK-GLASS of entry "), "{log}");
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let audit = run_ok(world.vaultctl().args(["audit", "verify"]).arg(&bundle));
    for part in [
        "as any 2 of the approvers have allowed: a guest that proves tpm as [release.demo] asks",
        "allowed: standing approval for at most 2 releases of demo",
        "by break-glass, past budgets, holds and approvals: any 2 of the approvers",
        "released demo@1 to ",
        "BY THE BREAK-GLASS of entry ",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}
