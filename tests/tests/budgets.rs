//! Budgets on a real keeper with a software TPM: what is over one is held, however many ask at once, after a restart too, until
//! approvers let it through, once.

use ledger::entry::{Approve, Entry, Proposal, Propose};
use serde_json::Value;
use vault_proto::convert::Approval;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run, run_ok};

/// As many as ask at once.
const GUESTS: usize = 20;
/// As many as there is room for.
const ROOM: usize = 3;

/// A vault with this budget and a published model.
fn world(over: &str) -> World {
    let world = World::before_ceremony(|_, policy| {
        policy.push_str(&format!(
            "[budget.fleet]\nper = \"vault\"\nmodels = \"any\"\nreleases_per_hour = {ROOM}\nleases = 8\nover = \"{over}\"\n"
        ));
    });
    world.sign_genesis();
    world.publish("1");
    world
}

/// The codes of those who were refused, of all who asked at once.
async fn all_at_once(world: &World) -> Vec<String> {
    let mut ready = Vec::new();
    for _ in 0..GUESTS {
        let mut guest = Guest::new(world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let redemption = guest.redemption(&challenge);
        ready.push((guest, redemption));
    }
    let asked: Vec<_> = ready
        .into_iter()
        .map(|(mut guest, redemption)| {
            tokio::spawn(async move {
                match guest.redeem(redemption).await {
                    Ok(_) => None,
                    Err(refused) => Some(guest.code_of(refused).await),
                }
            })
        })
        .collect();
    let mut refused = Vec::new();
    for answer in asked {
        refused.extend(answer.await.expect("no panic"));
    }
    refused
}

/// What `status` says of the releases.
fn releases_used(world: &World) -> (u64, u64) {
    let status = run_ok(world.vaultctl().args(["--json", "status"]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let lines = status["budgets"].as_array().expect("budgets");
    let line = lines.iter().find(|line| line["unit"] == "releases_per_hour").expect("the limit");
    assert_eq!((&line["limit"], &line["window_secs"]), (&Value::from(ROOM), &Value::from(3600)), "{line}");
    (line["used"].as_u64().expect("a number"), line["raised"].as_u64().expect("a number"))
}

/// The entries of the log, as an auditor has them.
fn entries(world: &World) -> Vec<Entry> {
    let shown = run_ok(world.vaultctl().args(["--json", "log", "show", "--count", "1000"]));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let entries = shown["entries"].as_array().expect("entries").iter();
    entries.filter_map(|entry| of_value(&entry["entry"])).collect()
}

/// Of the proposals of raises and the approvals, which are all that this file looks at.
fn of_value(value: &Value) -> Option<Entry> {
    let mut fields = value.clone();
    let object = fields.as_object_mut()?;
    match object.remove("type")?.as_str()? {
        "propose" if value["action"] == "budget" => {
            object.remove("action");
            let time = serde_json::from_value(object.remove("time")?).ok()?;
            let proposal = Proposal::Budget(serde_json::from_value(fields).ok()?);
            Some(Entry::Propose(Propose { time, proposal }))
        }
        "approve" => serde_json::from_value::<Approve>(fields).ok().map(Entry::Approve),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_budget_is_refused_however_many_ask_and_a_restart_refills_nothing() {
    let mut world = world("refuse");
    let refused = all_at_once(&world).await;
    assert_eq!(refused, vec!["budget-releases"; GUESTS - ROOM]);
    assert_eq!(releases_used(&world), (ROOM as u64, 0));

    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
    let mut guest = Guest::new(&world).await;
    let refused = guest.load().await.expect_err("a restart is no hour");
    let said = guest.explain(refused).await;
    assert_eq!(said.code, "budget-releases", "{}", said.message);
    for part in [
        "at most 3 releases in one hour of the vault",
        "3 used and 1 more asked for",
        "passes at",
        "budget.fleet.releases_per_hour",
    ] {
        assert!(said.message.contains(part), "{part}: {}", said.message);
    }
    assert_eq!(releases_used(&world), (ROOM as u64, 0));
    // No approval lets it through.
    let (code, said) = run(&mut propose(&world, "1"));
    assert!(code == Some(2) && said.contains("budget-not-raisable"), "{said}");
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

fn propose(world: &World, releases: &str) -> std::process::Command {
    let mut propose = world.vaultctl();
    propose.args(["propose", "budget", "fleet", "--releases", releases, "--for", "1h", "--yes", "--key"]);
    propose.arg(world.path(APPROVERS[0]));
    propose
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raise_lets_one_more_through_and_its_replay_none() {
    let mut world = world("hold");
    let mut guest = Guest::new(&world).await;
    for _ in 0..ROOM {
        guest.load().await.expect("there is room");
        guest = Guest::new(&world).await;
    }
    let refused = guest.load().await.expect_err("there is no more");
    let said = guest.explain(refused).await;
    assert_eq!(said.code, "held-for-approval", "{}", said.message);
    assert!(said.message.contains("vaultctl propose budget fleet"), "{}", said.message);

    run_ok(&mut propose(&world, "1"));
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("LOOSER: raises budget fleet by 1 releases in one hour, once, until"), "{pending}");
    assert!(pending.contains("now: fleet, the vault: 3 of 3 releases in one hour"), "{pending}");
    world.approve(&APPROVERS[1..]);
    assert_eq!(releases_used(&world), (3, 1));
    let log = run_ok(world.vaultctl().args(["log", "show", "--count", "1000"]));
    assert!(log.contains("the raise of budget fleet counts"), "{log}");

    guest.load().await.expect("it was raised by one");
    assert_eq!(releases_used(&world), (4, 0));
    let mut guest = Guest::new(&world).await;
    assert!(guest.load().await.is_err());

    // Whoever reads the log sends it all again; a restart changes nothing.
    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
    let mut guest = Guest::new(&world).await;
    for entry in entries(&world) {
        match entry {
            Entry::Propose(Propose { proposal: Proposal::Budget(raise), .. }) => {
                let refused = guest.propose_raise(raise).await.expect_err("it was approved already");
                assert_eq!(guest.code_of(refused).await, "raise-repeated");
            }
            Entry::Approve(Approve { statement, signature, .. }) if statement.contains("\"budget\"") => {
                let approval = Approval { statement: statement.into_bytes(), signature, witness: None };
                let refused = guest.approve(approval).await.expect_err("nothing waits for it");
                assert_eq!(guest.code_of(refused).await, "proposal-unknown");
            }
            _ => {}
        }
    }
    let refused = guest.load().await.expect_err("there is no more");
    assert_eq!(guest.code_of(refused).await, "held-for-approval");
    assert_eq!(releases_used(&world), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_rings_in_log_and_status() {
    let world = World::before_ceremony(|_, policy| {
        policy.push_str(
            "[alarm.bait]\nmodels = [\"demo\"]\non = \"canary\"\nthen = \"alarm\"\n\
             [alarm.image]\nmodels = \"any\"\non = \"new-measurement\"\nthen = \"alarm\"\n\
             [alarm.scale]\nmodels = \"any\"\non = \"more-leases\"\nmore_than = 2\nthen = \"hold\"\n",
        );
    });
    world.sign_genesis();
    world.publish("1");
    for _ in 0..2 {
        Guest::new(&world).await.load().await.expect("an alarm lets it through");
    }
    let log = run_ok(world.vaultctl().args(["log", "show", "--count", "1000"]));
    let rang: Vec<&str> = log.lines().filter(|line| line.contains("ALARM: ")).collect();
    assert_eq!(rang.len(), 2, "{log}");
    assert!(rang[0].contains("bait (any release: a canary), image (the first release to a measurement)"), "{log}");
    assert!(!rang[1].contains("image"), "{log}");

    // The third is one more than expected: it waits.
    let mut guest = Guest::new(&world).await;
    let refused = guest.load().await.expect_err("it is held");
    assert_eq!(guest.code_of(refused).await, "held-by-alarm");
    let mut propose = world.vaultctl();
    propose.args(["propose", "budget", "scale", "--releases", "1", "--for", "1h", "--yes", "--key"]);
    run_ok(propose.arg(world.path(APPROVERS[0])));
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("it lets through what this alarm holds: on more than 2 leases at once"), "{pending}");
    world.approve(&APPROVERS[1..]);
    guest.load().await.expect("approvers let one through");

    let status = run_ok(world.vaultctl().arg("status"));
    assert!(
        status.contains("ALARMS: 3 releases rang; the newest:") && status.contains("bait, scale: demo@1"),
        "{status}"
    );
    let status = run_ok(world.vaultctl().args(["--json", "status"]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        (&status["alarm_count"], status["alarms"].as_array().map(Vec::len)),
        (&Value::from(3), Some(3)),
        "{status}"
    );
    // The auditor finds the alarms that the evidence asks for.
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    run_ok(world.vaultctl().args(["audit", "verify"]).arg(&bundle));
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}
