//! Budgets, alarms, approvals and revocations looked back at: why something was held, what exactly lets it through, and what
//! another policy would have made of it.

use serde_json::{Value, json};
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run_ok};

use super::{Answer, counts, only, run, text};

/// Two releases an hour wait for nobody; the budgets, alarms and approvals of a candidate are `edit`ed in.
struct Past {
    world: World,
    exported: u32,
}

impl Past {
    /// A vault with a model, whose policy has this at its end.
    fn new(more: &str) -> Self {
        let world = World::before_ceremony(|_, policy| {
            let thresholds = "threshold = 2\nrevoke_threshold = 1\nbreak_glass_threshold = 2\n";
            *policy = policy.replacen("threshold = 2\n", thresholds, 1);
            policy.push_str(more);
        });
        world.sign_genesis();
        world.publish("1");
        Self { world, exported: 0 }
    }

    async fn granted(&self) {
        Guest::new(&self.world).await.load().await.expect("it is released");
    }

    async fn refused(&self) -> String {
        let mut guest = Guest::new(&self.world).await;
        let refused = guest.load().await.expect_err("it is refused");
        guest.code_of(refused).await
    }

    fn vaultctl(&self, args: &[&str]) -> Answer {
        run(self.world.vaultctl().arg("--json").args(args))
    }

    /// A bundle of the log as it is now.
    fn export(&mut self) {
        self.exported += 1;
        assert_eq!(self.vaultctl(&["audit", "export", "--out", &self.bundle()]).code, Some(0));
    }

    fn bundle(&self) -> String {
        text(&self.world.path(&format!("bundle-{}", self.exported))).to_owned()
    }

    /// The newest refusal, explained offline.
    fn explained(&mut self) -> Value {
        self.export();
        let shown = self.vaultctl(&["log", "show", "--count", "1000"]).report;
        let entries = shown["entries"].as_array().expect("a list");
        let deny = entries.iter().rev().find(|entry| entry["entry"]["type"] == "deny").expect("a denial");
        let explained = self.vaultctl(&["explain", &deny["index"].to_string(), "--log", &self.bundle()]);
        assert_eq!(explained.code, Some(0), "{}", explained.error);
        let entry = explained.report["entry"].clone();
        assert!(entry.get("not_replayed").is_none(), "{entry}");
        entry
    }

    /// Proposes what an explanation says, and has it approved.
    fn propose(&self, command: &Value) {
        let command = command.as_str().expect("a command");
        let args = command.strip_prefix("vaultctl ").expect("a command of this tool");
        let args = args.strip_suffix(" --vault FILE --key KEY").expect("who signs, and for which vault").split(' ');
        run_ok(self.world.vaultctl().args(args).args(["--yes", "--key"]).arg(self.world.path(APPROVERS[0])));
        self.world.approve(&APPROVERS[1..]);
    }

    fn simulate(&self, edit: impl FnOnce(&mut String)) -> Value {
        let next = self.world.next_policy(edit);
        let answer = self.vaultctl(&["policy", "simulate", text(&next), "--log", &self.bundle()]);
        let differs = answer.report["releases"]["refused"] != 0 || answer.report["denials"]["granted"] != 0;
        let expected = if differs { 1 } else { 0 };
        assert_eq!(answer.code, Some(expected), "{} {}", answer.report, answer.error);
        answer.report
    }
}

/// Code and key of the policy of the only group that would be decided otherwise.
fn why(groups: &Value) -> (u64, &str, &str) {
    let group = only(groups);
    let text = |field: &str| group["why"][field].as_str().expect("text");
    (group["decisions"].as_u64().expect("a number"), text("code"), text("policy_key"))
}

fn nobody(groups: &Value) -> bool {
    groups["groups"].as_array().is_some_and(Vec::is_empty)
}

const FLEET: &str = "[budget.fleet]\nper = \"vault\"\nmodels = \"any\"\nreleases_per_hour = 2\nover = \"hold\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_budget_held_is_explained_and_passes_by_the_command_that_the_explanation_gives() {
    let mut past = Past::new(FLEET);
    past.granted().await;
    past.granted().await;
    assert_eq!(past.refused().await, "held-for-approval");
    let entry = past.explained();
    let why_held = &entry["why"];
    assert_eq!((&why_held["claim"], &why_held["waits"]), (&json!("budget"), &json!(true)));
    assert_eq!(why_held["policy_key"], "budget.fleet.releases_per_hour");
    assert_eq!(entry["line"]["text"], "releases_per_hour = 2");
    assert!(
        why_held["seen"].as_str().is_some_and(|seen| seen.starts_with("2 used and 1 more asked for; passes at ")),
        "{entry}"
    );
    let facts = why_held["facts"].to_string();
    assert!(
        facts.contains("used then: fleet, the vault: 2 of 2") && facts.contains("the oldest counts until"),
        "{facts}"
    );
    let propose = &why_held["propose"];
    assert_eq!(propose[0], "vaultctl propose budget fleet --releases 1 --for 1h --vault FILE --key KEY");
    past.propose(&propose[0]);
    past.granted().await;

    // The raise is used up, and the explanation says so. Break-glass is the other way.
    assert_eq!(past.refused().await, "held-for-approval");
    let entry = past.explained();
    let facts = entry["why"]["facts"].to_string();
    assert!(facts.contains("lets 0 releases") && facts.contains("used then: fleet, the vault: 3 of 2"), "{facts}");
    past.propose(&entry["why"]["propose"][1]);
    past.granted().await;
    assert_eq!(past.refused().await, "held-for-approval");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_budget_alarm_or_approval_would_have_held_refused_or_let_through_by_its_line() {
    let mut past = Past::new(FLEET);
    past.granted().await;
    past.granted().await;
    assert_eq!(past.refused().await, "held-for-approval");
    past.export();
    let same = past.simulate(|_| ());
    assert_eq!((counts(&same["releases"]), counts(&same["denials"])), ((2, 0, 0), (0, 1, 0)), "{same}");
    let fleet = |to: &'static str| move |policy: &mut String| *policy = policy.replacen("releases_per_hour = 2", to, 1);
    let wider = past.simulate(fleet("releases_per_hour = 3"));
    assert_eq!((counts(&wider["releases"]), counts(&wider["denials"])), ((2, 0, 0), (1, 0, 0)), "{wider}");
    assert_eq!(only(&wider["gains"])["code"], "held-for-approval");
    let tighter = past.simulate(fleet("releases_per_hour = 1"));
    assert_eq!((counts(&tighter["releases"]), &tighter["releases"]["waiting"]), ((1, 1, 0), &json!(1)), "{tighter}");
    assert_eq!(why(&tighter["waits"]), (1, "held-for-approval", "budget.fleet.releases_per_hour"));
    assert!(nobody(&tighter["loses"]));
    let refusing = past.simulate(|policy| {
        *policy =
            policy.replacen("releases_per_hour = 2\nover = \"hold\"", "releases_per_hour = 1\nover = \"refuse\"", 1);
    });
    assert_eq!(why(&refusing["loses"]), (1, "budget-releases", "budget.fleet.releases_per_hour"));
    assert!(nobody(&refusing["waits"]));

    let alarm = |on: &str, then: &str| {
        let rule = format!("[alarm.night]\nmodels = \"any\"\non = {on}\nthen = \"{then}\"\n");
        move |policy: &mut String| policy.push_str(&rule)
    };
    assert_eq!(why(&past.simulate(alarm("\"new-platform\"", "hold"))["waits"]), (2, "held-by-alarm", "alarm.night.on"));
    assert!(nobody(&past.simulate(alarm("\"new-platform\"", "alarm"))["waits"]));
    // Both guests booted the same: whoever came first is held, and so is every one after, since none was let through.
    let measured = past.simulate(alarm("\"new-measurement\"", "hold"));
    assert_eq!(why(&measured["waits"]), (2, "held-by-alarm", "alarm.night.on"));
    let asking =
        past.simulate(|policy| *policy = policy.replacen("max_leases = 256\n", "max_leases = 256\napprovals = 2\n", 1));
    assert_eq!(why(&asking["waits"]), (2, "release-not-approved", "release.demo.approvals"));

    // What was revoked stays so under any policy.
    let mut revoke = past.world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--yes", "--key"]).arg(past.world.path(APPROVERS[0]));
    run_ok(&mut revoke);
    assert_eq!(past.refused().await, "revoked");
    let entry = past.explained();
    let lift = entry["why"]["propose"][0].as_str().expect("a command").to_owned();
    assert!(lift.starts_with("vaultctl revoke --lift "), "{lift}");
    assert!(
        entry["why"]["facts"].to_string().contains("revoked: model demo, every version, proposed by alice"),
        "{entry}"
    );
    let wider = past.simulate(fleet("releases_per_hour = 30"));
    assert_eq!(counts(&wider["denials"]), (1, 1, 0), "{wider}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_nobody_approved_is_explained_with_the_permits_that_there_were() {
    let mut past = Past::new("");
    let asking = past.world.next_policy(|policy| {
        *policy = policy.replacen("max_leases = 256\n", "max_leases = 256\napprovals = 2\n", 1);
    });
    run_ok(&mut past.world.propose(&asking, APPROVERS[0]));
    past.world.approve(&APPROVERS[1..]);
    assert_eq!(past.refused().await, "release-not-approved");
    let entry = past.explained();
    let why_held = &entry["why"];
    assert_eq!(
        (&why_held["policy_key"], &entry["line"]["text"]),
        (&json!("release.demo.approvals"), &json!("approvals = 2"))
    );
    assert_eq!(why_held["facts"], json!(["no permit for demo under rule demo was there"]));
    let platform = entry["platform"].as_str().expect("a platform");
    let command = format!(
        "vaultctl propose standing demo --model demo --version 1 --platform {platform} --releases 1 --for 1d --vault FILE --key KEY"
    );
    assert_eq!(why_held["propose"][0], command.as_str());
    past.propose(&why_held["propose"][0]);
    past.granted().await;

    // That one is used up, and the next is for another machine.
    past.propose(&json!(command.replace(platform, &format!("sha256:{}", "5".repeat(64)))));
    assert_eq!(past.refused().await, "release-not-approved");
    let entry = past.explained();
    let facts = entry["why"]["facts"].as_array().expect("a list").clone();
    let [used, other] = facts.as_slice() else { panic!("{facts:?}") };
    let says =
        |fact: &Value, parts: [&str; 2]| parts.iter().all(|part| fact.as_str().is_some_and(|fact| fact.contains(part)));
    assert!(says(used, ["0 of 1 left", "it is used up"]), "{used}");
    assert!(says(other, ["1 of 1 left", "it is for another machine"]), "{other}");
    // A candidate that asks for nothing lets both through that were refused.
    let open = past.simulate(|policy| policy.push('\n'));
    assert_eq!((counts(&open["releases"]), counts(&open["denials"])), ((1, 0, 0), (2, 0, 0)), "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_alarm_held_is_explained_and_passes_once_it_is_raised() {
    let mut past = Past::new("[alarm.fresh]\nmodels = \"any\"\non = \"canary\"\nthen = \"hold\"\n");
    assert_eq!(past.refused().await, "held-by-alarm");
    let entry = past.explained();
    let why_held = &entry["why"];
    assert_eq!((&why_held["policy_key"], &why_held["waits"]), (&json!("alarm.fresh.on"), &json!(true)));
    assert_eq!(entry["line"]["text"], "on = \"canary\"");
    assert_eq!(why_held["propose"][0], "vaultctl propose budget fresh --releases 1 --for 1h --vault FILE --key KEY");
    past.propose(&why_held["propose"][0]);
    past.granted().await;
    assert_eq!(past.refused().await, "held-by-alarm");
    past.export();
    let without = past.simulate(|policy| *policy = policy.replacen("then = \"hold\"", "then = \"alarm\"", 1));
    assert_eq!((counts(&without["releases"]), counts(&without["denials"])), ((1, 0, 0), (2, 0, 0)), "{without}");
    // As it was: the raise that approvers gave counts again.
    let same = past.simulate(|_| ());
    assert_eq!((counts(&same["releases"]), counts(&same["denials"])), ((1, 0, 0), (0, 2, 0)), "{same}");
}
