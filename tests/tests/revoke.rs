//! Revocations: what runs ends, what is cut off can't go on, and what was revoked stays so until it is lifted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use attestation::Sha256Digest;
use ledger::checkpoint::LogVerifier;
use ledger::lease::end_message;
use ledger::revocation::{Notice, NoticeError, RevokedLease, watch_message};
use ledger::vault_file::VaultFile;
use tonic::Status;
use vault_proto::convert::{RevocationNotice, WatchEvent};
use vault_proto::v1;
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Guest, Running, Swtpm, World, binary, run, run_ok};

/// A vault in which one approver may revoke, with the model and the software TPM of a guest.
fn world(rule: impl FnOnce(String) -> String) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&rule(guest_rule(&tpm)));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    world.publish("1");
    (world, guest.expect("the closure ran"))
}

/// `vaultctl revoke WHAT` in the name of alice.
fn revoke(world: &World, what: &[&str]) -> Command {
    let mut revoke = world.vaultctl();
    revoke.arg("revoke").args(what).args(["--yes", "--key"]).arg(world.path(APPROVERS[0]));
    revoke
}

/// Lines of the log of this type, in order.
fn entries(world: &World, kind: &str) -> Vec<(u64, String)> {
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    let of_kind = log.lines().filter(|line| line.split_whitespace().nth(2) == Some(kind));
    let index = |line: &str| line.split_whitespace().next().and_then(|index| index.parse().ok()).expect("an index");
    of_kind.map(|line| (index(line), line.to_owned())).collect()
}

fn vault_file(world: &World) -> VaultFile {
    VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file")
}

fn verified(world: &World, notice: &RevocationNotice, lease: Sha256Digest) -> Result<RevokedLease, NoticeError> {
    let vault = vault_file(world);
    let log = LogVerifier::of(vault.genesis());
    let RevocationNotice { entry, log_proof, leases, signature } = notice;
    Notice { entry, log_proof, leases, signature }.verify(lease, &log, vault.identity_key())
}

/// Memory that never reaches a disk.
fn memory(world: &World) -> PathBuf {
    let name = world.path("x").parent().and_then(|dir| dir.file_name()).expect("a name").to_os_string();
    PathBuf::from("/dev/shm").join(name)
}

#[test]
fn a_connected_agent_wipes_ends_its_lease_and_says_that_it_was_revoked() {
    let (world, guest) = world(|rule| rule);
    let into = memory(&world);
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    load.arg("--into").arg(&into);
    let mut load = Running::start(&mut load, &world.path("load.log"));
    load.wait_for("ready ");
    let leases = run_ok(world.vaultctl().arg("leases"));
    assert!(leases.contains("demo@1") && leases.contains("If all were revoked now: the last of 1 lease"), "{leases}");
    assert!(leases.contains("even if its agent hears nothing"), "{leases}");

    let said = run_ok(&mut revoke(&world, &["--model", "demo"]));
    // The command waited for the agent's own word.
    assert!(said.contains("1 of 1 lease ended by their holders"), "{said}");
    assert!(said.contains("the last of 1 lease ends by") && said.contains("nothing of it runs any more"), "{said}");
    let (code, log) = load.wait();
    assert_eq!(code, Some(77), "{log}");
    assert!(log.contains("the lease is revoked, by entry") && log.contains("wiped"), "{log}");
    let left = fs::read_dir(&into).expect("the directory is ours").count();
    fs::remove_dir_all(&into).expect("the directory is ours");
    assert_eq!(left, 0);

    // It ended because of the notice: no renewal was tried in between.
    let (revoked, ended) = (entries(&world, "revoke"), entries(&world, "end"));
    assert_eq!((revoked.len(), ended.len()), (1, 1));
    assert!(revoked[0].0 < ended[0].0);
    assert!(revoked[0].1.contains("revoke model demo, every version; ends 1 running lease"), "{revoked:?}");
    assert!(entries(&world, "renew").iter().all(|(index, _)| *index < revoked[0].0));
    let leases = run_ok(world.vaultctl().arg("leases"));
    assert!(leases.contains("No lease runs.") && leases.contains("model demo, every version"), "{leases}");
    // The model is not released any more, and the agent is told so by a refusal of the vault.
    let mut again = world.enclave("load");
    again.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    let (code, said) = run(again.arg("--into").arg(memory(&world)));
    let _ = fs::remove_dir_all(memory(&world));
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn a_revoked_command_gets_the_time_of_its_rule_with_the_files_still_there() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount");
        return;
    }
    let drain = |rule: String| rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 40s\"", 1);
    let (world, guest) = world(drain);
    let at = world.path("weights");
    // Longer than the two seconds of `end`.
    let script = "trap 'sleep 3; test -s \"$1/model.safetensors\" && echo \"is drained\"; exit 0' TERM; \
                  echo \"listens\"; while :; do sleep 0.05; done";
    let mut command = world.enclave("run");
    command.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    command.arg("--at").arg(&at).args(["--", "sh", "-c", script, "sh"]).arg(&at);
    let mut running = Running::start(&mut command, &world.path("run.log"));
    running.wait_for("listens");
    let said = run_ok(&mut revoke(&world, &["--group", "layer.0"]));
    assert!(said.contains("1 of 1 lease ended by their holders"), "{said}");
    let (code, log) = running.wait();
    assert_eq!(code, Some(77), "{log}");
    assert!(log.contains("the command has 40 s") && log.contains("is drained"), "{log}");
}

/// A watch that a guest opens by hand.
async fn watch(
    guest: &mut Guest,
    vault: Sha256Digest,
    lease: Sha256Digest,
) -> Result<tonic::Streaming<v1::WatchLeaseResponse>, Status> {
    let signature = guest.lease.sign(&watch_message(&vault, &lease)).as_ref().to_vec();
    guest.watch(v1::WatchLeaseRequest { lease_id: lease.as_bytes().to_vec(), lease_signature: signature }).await
}

async fn next(events: &mut tonic::Streaming<v1::WatchLeaseResponse>) -> Option<WatchEvent> {
    let event = events.message().await.ok()??;
    Some(WatchEvent::try_from(event).expect("the host answers in form"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_agent_renews_no_more_and_no_policy_or_restart_brings_it_back() {
    let (mut world, _tpm) = world(|rule| rule);
    let vault = vault_file(&world).id();
    let mut guest = Guest::new(&world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let lease = guest.bind(&challenge).statement().lease_id();
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let renewal = guest.renewal(&grant, lease).await;
    guest.renew(renewal).await.expect("not revoked yet");

    let platform = guest.identity.clone();
    let said = run_ok(&mut revoke(&world, &["--lease", &lease.to_string(), "--no-wait"]));
    assert!(said.contains("the last of 1 lease ends by") && said.contains("0 of 1 lease ended"), "{said}");
    let leases = run_ok(world.vaultctl().arg("leases"));
    assert!(leases.contains("REVOKED by entry") && leases.contains("All are revoked:"), "{leases}");
    let revoked = entries(&world, "revoke");
    // The renewal that was signed before stands before it, so that the time that is shown is the last one.
    assert!(entries(&world, "renew").iter().all(|(index, _)| *index < revoked[0].0));
    let renewal = guest.renewal(&grant, lease).await;
    let refused = guest.renew(renewal).await.expect_err("it is revoked");
    assert_eq!(guest.code_of(refused).await, "revoked");
    // The same guest gets another lease: this one was revoked, not the machine.
    assert_eq!(platform, guest.identity);
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");

    // A model stays revoked, through a restart too, until approvers lift it.
    run_ok(&mut revoke(&world, &["--model", "demo", "--version", "1", "--no-wait"]));
    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let refused = guest.redeem(guest.redemption(&challenge)).await.expect_err("it is revoked");
    assert_eq!(guest.code_of(refused).await, "revoked");
    assert!(entries(&world, "deny").iter().any(|(_, line)| line.contains("[revoked]")));
    let refused = revoke(&world, &["--model", "demo", "--version", "1", "--no-wait"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already-revoked"), "{refused:?}");
    let index = entries(&world, "revoke").last().expect("there is one").0.to_string();
    let said = run_ok(&mut revoke(&world, &["--lift", &index]));
    assert!(said.contains("LOOSER") && said.contains("approved by 0 of 2"), "{said}");
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("LOOSER: lift the revocation of model demo@1"), "{pending}");
    world.approve(&APPROVERS[1..]);
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("it was lifted");

    // What the revoked lease's holder is told when he comes back.
    let mut events = watch(&mut guest, vault, lease).await.expect("a watch");
    let Some(WatchEvent::Notice(notice)) = next(&mut events).await else { panic!("a notice") };
    assert_eq!(verified(&world, &notice, lease).map(|revoked| revoked.index()), Ok(revoked[0].0));
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_its_lease_keys_and_hears_of_its_own_lease_alone() {
    let (mut world, _tpm) = world(|rule| rule);
    let vault = vault_file(&world).id();
    let (mut one, mut other) = (Guest::new(&world).await, Guest::new(&world).await);
    let mut leases = Vec::new();
    for guest in [&mut one, &mut other] {
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        leases.push(guest.bind(&challenge).statement().lease_id());
        guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    }
    // Somebody else's key, a signature for something else, and a lease that nobody has.
    let refused = watch(&mut other, vault, leases[0]).await.expect_err("the key of another lease");
    assert_eq!(other.code_of(refused).await, "lease-signature");
    let signature = one.lease.sign(&end_message(&vault, &leases[0])).as_ref().to_vec();
    let request = v1::WatchLeaseRequest { lease_id: leases[0].as_bytes().to_vec(), lease_signature: signature };
    let refused = one.watch(request).await.expect_err("a signature that ends it");
    assert_eq!(one.code_of(refused).await, "lease-signature");
    let refused = watch(&mut one, vault, Sha256Digest::of(b"no lease")).await.expect_err("there is none");
    assert_eq!(one.code_of(refused).await, "lease-unknown");

    let (mut of_one, mut of_other) = (
        watch(&mut one, vault, leases[0]).await.expect("a watch"),
        watch(&mut other, vault, leases[1]).await.expect("a watch"),
    );
    assert_eq!(next(&mut of_one).await, Some(WatchEvent::Watching));
    assert_eq!(next(&mut of_other).await, Some(WatchEvent::Watching));
    run_ok(&mut revoke(&world, &["--lease", &leases[0].to_string(), "--no-wait"]));
    let Some(WatchEvent::Notice(notice)) = next(&mut of_one).await else { panic!("a notice") };
    assert!(verified(&world, &notice, leases[0]).is_ok());
    assert_eq!(verified(&world, &notice, leases[1]), Err(NoticeError::OtherLease));
    // A host that hands the notice to the other, as his own.
    let forged = RevocationNotice { leases: vec![leases[1]], ..notice };
    assert_eq!(verified(&world, &forged, leases[1]), Err(NoticeError::Signature));
    // Without a keeper nobody knows what was missed: the watch ends, and has to be opened again.
    world.keeper.take().expect("it runs").terminate();
    assert_eq!(next(&mut of_other).await, None);
}
