//! Looking back at an exported log, offline: what a candidate policy would have changed, and why something was refused.

#[path = "look_back/held.rs"]
mod held;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use vault_tests::golden::{self, Golden};
use vault_tests::{Guest, World, binary};

/// A bundle of the golden vault, and the policy that is in force there.
struct Desk {
    dir: tempfile::TempDir,
    vault: PathBuf,
    host: PathBuf,
    policy: String,
}

struct Answer {
    code: Option<i32>,
    report: Value,
    error: Value,
}

impl Desk {
    fn new() -> Self {
        let golden = Golden::open("v1");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut export = golden.world.vaultctl();
        let exported = run(export.args(["--json", "audit", "export", "--out"]).arg(dir.path().join("bundle")));
        assert_eq!(exported.code, Some(0), "{}", exported.error);
        // From here on nothing of the vault runs.
        let host = golden::directory("v1").join("host");
        let policy = fs::read_to_string(host.join("log/policy.toml")).expect("it was recorded");
        Self { dir, vault: golden::directory("v1").join("vault.json"), host, policy }
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn vaultctl(&self, args: &[&str]) -> Answer {
        run(Command::new(binary("vaultctl")).args(["--json", "--vault", text(&self.vault)]).args(args))
    }

    /// `policy simulate` of the policy in force after one change.
    fn simulate_with(&self, edit: impl FnOnce(&str) -> String, more: &[&str]) -> Answer {
        let candidate = self.dir.path().join("candidate.toml");
        fs::write(&candidate, edit(&self.policy)).expect("the directory is ours");
        let bundle = self.bundle();
        let args = ["policy", "simulate", text(&candidate), "--log", text(&bundle)];
        self.vaultctl(&[&args, more].concat())
    }

    /// After the rule `name` was changed.
    fn simulate_rule(&self, name: &str, from: &str, to: &str, more: &[&str]) -> Answer {
        let edit = |policy: &str| {
            let start = policy.find(&format!("[release.{name}]")).expect("it has the rule");
            let (before, rule) = policy.split_at(start);
            assert!(rule.contains(from), "{rule}");
            format!("{before}{}", rule.replacen(from, to, 1))
        };
        self.simulate_with(edit, more)
    }

    fn explain(&self, args: &[&str]) -> Answer {
        let bundle = self.bundle();
        self.vaultctl(&[&["explain", "--log", text(&bundle)], args].concat())
    }
}

fn run(command: &mut Command) -> Answer {
    let output = command.output().expect("the program runs");
    // Progress goes there as well.
    let error = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    Answer {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        error: serde_json::from_str(&error).unwrap_or_default(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// (granted, refused, open).
fn counts(of: &Value) -> (u64, u64, u64) {
    let count = |field: &str| of[field].as_u64().expect("a number");
    (count("granted"), count("refused"), count("open"))
}

/// The one group of a list.
fn only(groups: &Value) -> &Value {
    let list = groups["groups"].as_array().expect("a list");
    assert_eq!(list.len(), 1, "{groups}");
    &list[0]
}

#[test]
fn a_candidate_that_decides_as_before_changes_nothing() {
    let desk = Desk::new();
    let answer = desk.simulate_with(str::to_owned, &[]);
    assert_eq!(answer.code, Some(0), "{} {}", answer.report, answer.error);
    assert_eq!(counts(&answer.report["releases"]), (4, 0, 0));
    assert_eq!(counts(&answer.report["denials"]), (0, 1, 0));
    assert_eq!(answer.report["denials_without_entry"], 1);
    // It is in force already, so it is not the next one.
    assert_eq!(answer.report["candidate"]["not_proposable"]["code"], "policy-serial");
    let next = desk.simulate_with(
        |policy| {
            let prev = attestation::Sha256Digest::of(policy.as_bytes());
            let start = policy.find("prev = ").expect("it has one");
            let policy = policy.replacen("serial = 2", "serial = 3", 1);
            let (before, after) = policy.split_at(start);
            format!("{before}prev = \"{prev}\"{}", &after[after.find('\n').expect("a line")..])
        },
        &[],
    );
    assert_eq!(next.code, Some(0), "{}", next.error);
    assert!(next.report["candidate"].get("not_proposable").is_none(), "{}", next.report);
}

#[test]
fn who_would_lose_access_is_named_with_the_line_that_refuses() {
    let desk = Desk::new();
    let eleven = desk.policy.rfind("11 = [\"").expect("the guest's PCR 11") + "11 = [\"".len();
    let guest = &desk.policy[eleven..eleven + 64];
    let answer = desk.simulate_rule("guest", guest, &"ab".repeat(32), &[]);
    assert_eq!((answer.code, counts(&answer.report["releases"])), (Some(1), (3, 1, 0)), "{}", answer.report);
    let lost = only(&answer.report["loses"]);
    assert_eq!((&lost["model"], &lost["rule"], &lost["decisions"]), (&json!("demo@2"), &json!("guest"), &json!(1)));
    let why = &lost["why"];
    assert_eq!((&why["code"], &why["policy_key"]), (&json!("pcr-not-allowed"), &json!("release.guest.pcrs.11")));
    assert_eq!(why["expected"], format!("one of {}", "ab".repeat(32)));
    assert_eq!(why["seen"], format!("PCR 11 is {guest}"));
    assert!(why["remedy"].as_str().is_some_and(|remedy| remedy.contains("boots what the rule lists")), "{why}");

    let loses = |name: &str, from: &str, to: &str| {
        let answer = desk.simulate_rule(name, from, to, &[]);
        assert_eq!(answer.code, Some(1), "{name}, {to}: {} {}", answer.report, answer.error);
        let (_, refused, open) = counts(&answer.report["releases"]);
        assert_eq!(open, 0, "{}", answer.report);
        (refused, only(&answer.report["loses"])["why"]["code"].as_str().expect("a code").to_owned())
    };
    let is = |refused: u64, code: &str| (refused, code.to_owned());
    assert_eq!(loses("demo", "[release.demo]", "[release.renamed]"), is(3, "rule-unknown"));
    assert_eq!(loses("demo", "models = [\"demo\"]", "models = [\"other\"]"), is(3, "model-not-in-rule"));
    let elsewhere = format!("eks = [\"sha256:{}\"]", "5".repeat(64));
    assert_eq!(loses("guest", "eks = \"any\"", &elsewhere), is(1, "platform-not-listed"));
    // Three leases of the rule ran at once: the second and the third would have found no place.
    assert_eq!(loses("demo", "max_leases = 128", "max_leases = 1"), is(2, "too-many-leases"));
    // Without the anchor of those TPMs nothing of theirs verifies.
    let forgotten = desk.simulate_with(
        |policy| {
            let start = policy.find("[[anchors]]\nname = \"forge\"").expect("it has the anchor");
            let end = start + policy[start..].find("[keeper]").expect("the next section");
            format!("{}{}", &policy[..start], &policy[end..])
        },
        &[],
    );
    assert_eq!((forgotten.code, counts(&forgotten.report["releases"])), (Some(1), (1, 3, 0)), "{}", forgotten.report);
    assert_eq!(only(&forgotten.report["loses"])["why"]["policy_key"], "anchors");
}

#[test]
fn who_would_gain_access_is_named() {
    let desk = Desk::new();
    let answer = desk.simulate_rule("first-layer", "groups = [\"layer.0\"]", "groups = \"any\"", &[]);
    assert_eq!((answer.code, counts(&answer.report["denials"])), (Some(1), (1, 0, 0)), "{}", answer.report);
    let gained = only(&answer.report["gains"]);
    assert_eq!((&gained["code"], &gained["rule"]), (&json!("group-not-granted"), &json!("first-layer")));
    assert_eq!(counts(&answer.report["releases"]), (4, 0, 0));
}

#[test]
fn what_can_not_be_judged_is_no_pass() {
    let desk = Desk::new();
    let open = |answer: &Answer, refused: u64, code: &str| {
        assert_eq!(answer.code, Some(5), "{} {}", answer.report, answer.error);
        assert_eq!(counts(&answer.report["releases"]), (4 - refused, 0, refused), "{}", answer.report);
        assert_eq!(only(&answer.report["open"])["code"], code);
    };
    // Nobody was asked for this PCR.
    let more = format!("pcrs = {{ 1 = [\"{}\"], 0 = [", "cd".repeat(32));
    open(&desk.simulate_rule("guest", "pcrs = { 0 = [", &more, &[]), 1, "pcr-not-quoted");
    // The groups of the units stand in the manifest, which no bundle has.
    let fewer = |more: &[&str]| desk.simulate_rule("demo", "groups = \"any\"", "groups = [\"layer.0\"]", more);
    open(&fewer(&[]), 3, "groups-not-known");
    let manifest = desk.host.join("models/demo/1/manifest.json");
    let known = fewer(&["--manifest", text(&manifest)]);
    assert_eq!((known.code, counts(&known.report["releases"])), (Some(1), (1, 3, 0)), "{}", known.report);
    assert_eq!(only(&known.report["loses"])["why"]["code"], "group-not-granted");
    // That of another model is not taken for it.
    open(&fewer(&["--manifest", text(&desk.host.join("models/demo/2/manifest.json"))]), 3, "groups-not-known");

    let bundle = desk.bundle().join("blob");
    fs::rename(&bundle, desk.dir.path().join("away")).expect("the bundle is ours");
    let blind = desk.simulate_with(str::to_owned, &[]);
    assert_eq!((blind.code, counts(&blind.report["releases"])), (Some(5), (0, 0, 4)), "{}", blind.report);
    assert!(
        blind.report["open"]["groups"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|group| { group["code"] == "evidence-not-at-hand" })
    );
}

#[test]
fn a_simulation_rests_on_a_log_that_verifies() {
    let desk = Desk::new();
    let failed = |answer: &Answer| (answer.code, answer.error["code"].as_str().unwrap_or_default().to_owned());
    let is = |code: i32, name: &str| (Some(code), name.to_owned());
    assert_eq!(failed(&desk.simulate_with(|_| "format = 1".to_owned(), &[])).0, Some(2));
    let missing = desk.simulate_with(str::to_owned, &["--manifest", "/nonexistent"]);
    assert_eq!(failed(&missing), is(2, "file"));
    let changed = |change: &dyn Fn(&Path)| {
        let kept = desk.dir.path().join("kept");
        golden::copy(&desk.bundle(), &kept);
        change(&desk.bundle());
        let answer = desk.simulate_with(str::to_owned, &[]);
        fs::remove_dir_all(desk.bundle()).expect("the bundle is ours");
        fs::rename(&kept, desk.bundle()).expect("the bundle is ours");
        failed(&answer)
    };
    let flip = |path: PathBuf, at: usize| {
        let mut bytes = fs::read(&path).expect("the file is there");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("the bundle is ours");
    };
    let entries = |dir: &Path| fs::read_dir(dir.join("tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(changed(&|dir| flip(entries(dir), 900)), is(4, "log-root-mismatch"));
    assert_eq!(changed(&|dir| flip(dir.join("checkpoint"), 200)).0, Some(4));
    assert_eq!(changed(&|dir| fs::remove_file(entries(dir)).unwrap()), is(2, "file"));
    assert_eq!(changed(&|dir| fs::remove_file(dir.join("bundle.json")).unwrap()), is(2, "not-a-bundle"));
}

#[test]
fn a_refusal_is_explained_from_the_log_by_entry_and_by_request() {
    let desk = Desk::new();
    let journal = desk.host.join("refusals.jsonl");
    let lines = fs::read_to_string(&journal).expect("it was recorded");
    let id_of = |code: &str| {
        let line = lines.lines().find(|line| line.contains(code)).expect("such a refusal");
        let record: Value = serde_json::from_str(line).expect("JSON");
        record["request_id"].as_str().expect("an id").to_owned()
    };
    let by_request = desk.explain(&[&id_of("group-not-granted"), "--journal", text(&journal)]);
    assert_eq!(by_request.code, Some(0), "{}", by_request.error);
    let entry = &by_request.report["entry"];
    let (line, key) = (&entry["line"], &entry["why"]["policy_key"]);
    assert_eq!((key, &line["text"]), (&json!("release.first-layer.groups"), &json!("groups = [\"layer.0\"]")));
    let number = usize::try_from(line["number"].as_u64().expect("a number")).expect("a line");
    assert_eq!(desk.policy.lines().nth(number - 1), Some("groups = [\"layer.0\"]"));
    assert!(entry["not_replayed"].is_string(), "{entry}");
    let index = entry["index"].as_u64().expect("an index").to_string();
    assert_eq!(&desk.explain(&[&index]).report["entry"], entry);

    // It never became an entry.
    let unlogged = desk.explain(&[&id_of("rule-unknown"), "--journal", text(&journal)]);
    assert_eq!((unlogged.code, &unlogged.report["code"]), (Some(0), &json!("rule-unknown")));
    assert!(unlogged.report.get("entry").is_none() && unlogged.report["no_entry"].is_string(), "{}", unlogged.report);
    let failed = |answer: &Answer| (answer.code, answer.error["code"].as_str().unwrap_or_default().to_owned());
    let is = |name: &str| (Some(2), name.to_owned());
    assert_eq!(failed(&desk.explain(&[&"0".repeat(32), "--journal", text(&journal)])), is("request-unknown"));
    assert_eq!(failed(&desk.explain(&["0"])), is("entry-not-a-refusal"));
    assert_eq!(failed(&desk.explain(&["4000"])), is("entry-unknown"));
    assert_eq!(failed(&desk.vaultctl(&["explain", &index])), is("log-missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_the_boot_state_is_decided_again_from_its_evidence() {
    let world = World::open();
    world.publish("1");
    let mut guest = Guest::new(&world).await;
    guest.tpm.pcrs[11][0] ^= 1;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let refused = guest.redeem(guest.redemption(&challenge)).await.expect_err("another program");
    assert_eq!(guest.code_of(refused).await, "pcr-not-allowed");
    let bundle = world.path("bundle");
    let vaultctl = |args: &[&str]| run(world.vaultctl().arg("--json").args(args));
    assert_eq!(vaultctl(&["audit", "export", "--out", text(&bundle)]).code, Some(0));
    let shown = vaultctl(&["log", "show"]).report;
    let entries = shown["entries"].as_array().expect("a list");
    let deny = entries.iter().find(|entry| entry["entry"]["type"] == "deny").expect("a denial");
    let index = deny["index"].to_string();

    let explained = vaultctl(&["explain", &index, "--log", text(&bundle)]).report;
    let entry = &explained["entry"];
    assert!(entry.get("not_replayed").is_none(), "{entry}");
    let why = &entry["why"];
    assert_eq!((&why["code"], &why["policy_key"]), (&json!("pcr-not-allowed"), &json!("release.demo.pcrs.11")));
    let seen = hex::encode(guest.tpm.pcrs[11]);
    assert_eq!(why["seen"], format!("PCR 11 is {seen}"));
    assert!(entry["line"]["text"].as_str().is_some_and(|line| line.contains("11 = [")), "{entry}");

    // A policy that lists what it booted would let it in; one that lists something else would not.
    let simulate = |value: &str| {
        let next = world.next_policy(|policy| {
            let start = policy.find("[release.demo]").expect("it has the rule");
            let (before, rule) = policy.split_at(start);
            *policy = format!("{before}{}", rule.replacen("11 = [", &format!("11 = [\"{value}\", "), 1));
        });
        vaultctl(&["policy", "simulate", text(&next), "--log", text(&bundle)])
    };
    let gains = simulate(&seen);
    assert_eq!((gains.code, counts(&gains.report["denials"])), (Some(1), (1, 0, 0)), "{}", gains.report);
    assert_eq!(only(&gains.report["gains"])["code"], "pcr-not-allowed");
    let same = simulate(&"ef".repeat(32));
    assert_eq!((same.code, counts(&same.report["denials"])), (Some(0), (0, 1, 0)), "{} {}", same.report, same.error);
    // Without the evidence nobody can say, and that is no pass.
    fs::remove_dir_all(bundle.join("blob")).expect("the bundle is ours");
    let blind = simulate(&seen);
    assert_eq!((blind.code, counts(&blind.report["denials"])), (Some(5), (0, 0, 1)), "{}", blind.report);
}
