//! A vault with `anti_rollback = "witnesses"`: three real witnesses, two of which must have cosigned before anything is
//! released.

#[path = "witnesses/kill.rs"]
mod kill;
#[path = "witnesses/liars.rs"]
mod liars;
#[path = "witnesses/tls.rs"]
mod tls;

use std::fs;
use std::path::Path;
use std::process::Command;

use attestation::JoinerKeys;
use ledger::checkpoint::{LogVerifier, Seen};
use vault_proto::convert::JoinAnswer;
use vault_tests::candidate::Candidate;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, Witnesses, World, run, run_ok};

fn witnesses(world: &mut World) -> &mut Witnesses {
    world.witnesses.as_mut().expect("it has witnesses")
}

fn start(world: &mut World, index: usize) {
    let vkey = world.log_vkey();
    witnesses(world).start(index, &vkey);
}

fn wait_open(world: &mut World, times: usize) {
    let keeper = world.keeper.as_mut().expect("it runs");
    let start = std::time::Instant::now();
    while keeper.log().matches("the vault is open").count() < times {
        assert!(start.elapsed().as_secs() < 60, "the vault does not open:\n{}", keeper.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// One release to a good guest, whose proof is under a checkpoint of the quorum.
async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    let grant = guest.load().await.expect("a grant");
    let log = LogVerifier::of(world.vault_file().genesis());
    log.verify_proof(&grant.log_proof, &grant.entry).expect("the grant's proof");
    let (_, note) = grant.log_proof.split_once("\n\n").expect("a proof ends with its checkpoint");
    let Seen::Cosigned(seen) = log.verify_cosigned(note).expect("a checkpoint") else { panic!("it has witnesses") };
    assert!(seen.cosignatures().len() >= 2);
}

fn verify_log(world: &World) -> String {
    let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
    run_ok(world.vaultctl().args(["log", "show"]))
}

fn releases(world: &World) -> usize {
    verify_log(world).lines().filter(|line| line.contains(" release ")).count()
}

/// Copies a directory, as somebody with root on the host does.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_without_a_quorum_and_all_goes_on_with_one() {
    let mut world = World::open_witnessed();
    world.publish("1");
    release(&world).await;
    let status = run_ok(world.vaultctl().args(["status"]));
    assert!(status.contains("2 of 3 must cosign") && status.contains("cosigned by"), "{status}");

    // One of three is not needed.
    witnesses(&mut world).stop(0);
    release(&world).await;
    let before = releases(&world);

    // Two are: the entry is in the log, and no key leaves.
    witnesses(&mut world).stop(1);
    let mut guest = Guest::new(&world).await;
    let refused = guest.load().await.expect_err("one witness is no quorum");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert_eq!(guest.code_of(refused).await, "witness-quorum-missing");
    let (code, said) = run(world.vaultctl().args(["status"]));
    assert!(code != Some(0) && said.contains("CLOSED") && said.contains("1 of 3 witnesses cosigned"), "{said}");
    // It is asked again and again, and writes nothing meanwhile.
    let log = |world: &World| run_ok(world.vaultctl().args(["log", "show"]));
    let shown = log(&world);
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(log(&world), shown);

    let opened = world.keeper.as_ref().expect("it runs").log().matches("the vault is open").count();
    start(&mut world, 1);
    wait_open(&mut world, opened + 1);
    assert_eq!(releases(&world), before + 1, "the entry that nobody got a key for");
    release(&world).await;
    // The one that was away is brought up to date from where it was.
    start(&mut world, 0);
    witnesses(&mut world).stop(2);
    release(&world).await;
    assert_eq!(releases(&world), before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_copy_of_keeper_and_log_is_refused_and_the_newest_opens() {
    let mut world = World::open_witnessed();
    world.publish("1");
    release(&world).await;
    let stop = |world: &mut World| {
        world.keeper.take().expect("it runs").terminate();
        world.host.take().expect("it runs").terminate();
    };
    stop(&mut world);
    for name in ["keeper", "host"] {
        copy(&world.path(name), &world.path(&format!("{name}-old")));
    }
    world.start_keeper();
    world.start_host();
    wait_open(&mut world, 1);
    release(&world).await;
    stop(&mut world);
    for name in ["keeper", "host"] {
        copy(&world.path(name), &world.path(&format!("{name}-new")));
        copy(&world.path(&format!("{name}-old")), &world.path(name));
    }

    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it runs").wait_for("state-older-than-witnesses");
    let refused = Guest::new(&world).await.load().await.expect_err("an older copy serves nothing");
    assert_eq!(Guest::new(&world).await.code_of(refused).await, "state-older-than-witnesses");

    stop(&mut world);
    for name in ["keeper", "host"] {
        copy(&world.path(&format!("{name}-new")), &world.path(name));
    }
    world.start_keeper();
    world.start_host();
    wait_open(&mut world, 1);
    release(&world).await;
    assert_eq!(releases(&world), 3);
    // The time of its runs is that of the witnesses, not of the guest.
    let starts = verify_log(&world);
    let starts: Vec<&str> = starts.lines().filter(|line| line.contains(" start ")).collect();
    assert!(!starts.is_empty() && starts.iter().all(|line| line.contains("time: its witnesses")), "{starts:?}");
    let status = run_ok(world.vaultctl().args(["status"]));
    assert!(status.contains("time:      witnesses"), "{status}");
}

/// A keeper that its host has paused, and replaced by another one, hears of that from witnesses alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_leaves_behind_a_quorum_and_never_before() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let mut guest = Guest::new(&world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let lease = attestation::lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    let renewal = guest.renewal(&grant, lease).await;
    guest.renew(renewal).await.expect("a renewal");
    assert_eq!(verify_log(&world).matches(" renew ").count(), 1);
    let renewal = guest.renewal(&grant, lease).await;
    witnesses(&mut world).stop(0);
    witnesses(&mut world).stop(1);
    let refused = guest.renew(renewal).await.expect_err("one witness is no quorum");
    assert_eq!(guest.code_of(refused).await, "witness-quorum-missing");
}

/// A host that shows a keeper an older log could have it give the vault's keys to one that approvers have sent away since.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_go_to_another_keeper_behind_a_quorum_of_that_moment() {
    let mut world = World::open_witnessed();
    let mut joiner = Candidate::new(&world).await;
    joiner.keys = JoinerKeys { counter_name: [0; 34], counter: 0, ..joiner.keys };
    joiner.join().await.expect("a proposal");
    world.approve(&APPROVERS[..2]);
    witnesses(&mut world).stop(0);
    witnesses(&mut world).stop(1);
    let challenge = joiner.challenge().await.expect("a challenge");
    let refused = joiner.redeem(joiner.redemption(&challenge)).await.expect_err("one witness is no quorum");
    assert_eq!(Guest::new(&world).await.code_of(refused).await, "witness-quorum-missing");
    let opened = world.keeper.as_ref().expect("it runs").log().matches("the vault is open").count();
    start(&mut world, 0);
    start(&mut world, 1);
    wait_open(&mut world, opened + 1);
    let answer = joiner.join().await.expect("the keys");
    assert!(matches!(answer, JoinAnswer::HandOver(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_of_the_genesis_stay_for_the_life_of_the_vault() {
    let world = World::open_witnessed();
    let changed = world.next_policy(|text| *text = text.replacen("quorum = 2", "quorum = 3", 1));
    let (code, said) = run(&mut world.propose(&changed, "alice"));
    assert!(code != Some(0) && said.contains("policy-witnesses-changed"), "{said}");
    let same = world.next_policy(|text| *text = text.replacen("max_leases = 256", "max_leases = 255", 1));
    run_ok(&mut world.propose(&same, "alice"));
}

/// A folder for an auditor is worth nothing without the quorum that the vault file names, though the log key signed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_without_its_quorum_of_cosignatures_does_not_verify() {
    let mut world = World::open_witnessed();
    world.publish("1");
    release(&world).await;
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
    let good = fs::read_to_string(bundle.join("checkpoint")).expect("the checkpoint");
    let audit = |checkpoint: &str| {
        fs::write(bundle.join("checkpoint"), checkpoint).expect("the folder is ours");
        let output = world.vaultctl().args(["--json", "audit", "verify"]).arg(&bundle).output().expect("it runs");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report["fault"]["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(audit(&good), (Some(0), String::new()));
    let lines: Vec<&str> = good.lines().collect();
    let is_cosignature = |line: &&str| line.starts_with("\u{2014} witness.example/");
    let cosignatures = lines.iter().filter(|line| is_cosignature(line)).count();
    assert!(cosignatures >= 2, "{good}");
    // All but one of them, and none.
    for kept in [1, 0] {
        let (mut left, mut text) = (kept, String::new());
        for line in &lines {
            if is_cosignature(line) {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            text.push_str(line);
            text.push('\n');
        }
        assert_eq!(audit(&text), (Some(10), "witness-quorum-missing".to_owned()), "{kept} left");
    }
    // One that was changed refuses the whole, however many there are.
    let last = lines.iter().rfind(|line| is_cosignature(line)).expect("there is one");
    let at = last.len() - 8;
    let other = if last.as_bytes()[at] == b'A' { "B" } else { "A" };
    let changed = good.replace(*last, &format!("{}{other}{}", &last[..at], &last[at + 1..]));
    assert_eq!(audit(&changed), (Some(10), "cosignature-signature".to_owned()));
    assert_eq!(audit(&good), (Some(0), String::new()));
}
