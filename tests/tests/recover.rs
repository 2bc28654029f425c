//! The keeper is lost with its TPM: custodians and approvers give its vault to another one, and to nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::escrow::{self, approve, contribute, recovering};
use vault_tests::newcomer::Newcomer;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, Running, Swtpm, World, binary, run, run_ok};

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
}

/// Loads the model into memory, by the world's vault file as it is, and compares it with its source.
fn load(world: &World, guest: &Swtpm) {
    let dir = world.path("");
    let dir = dir.file_name().expect("the world has a directory").to_string_lossy().into_owned();
    let into = PathBuf::from(format!("/dev/shm/{dir}-recover"));
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    let log = world.path("load.log");
    let _ = fs::remove_file(&log);
    let mut load = Running::start(load.arg("--into").arg(&into), &log);
    load.wait_for("ready");
    for file in fs::read_dir(world.source()).expect("the source") {
        let file = file.expect("the source");
        let opened = fs::read(into.join(file.file_name())).expect("the same file is there");
        assert!(opened == fs::read(file.path()).expect("the source"), "{:?} differs", file.file_name());
    }
    load.terminate();
    let _ = fs::remove_dir(&into);
}

#[track_caller]
fn refused(command: &mut Command, code: &str) -> String {
    let (exit, said) = run(command);
    assert!(exit != Some(0) && said.contains(code), "{code}: {said}");
    said
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// The keeper is gone with its machine; what was on it becomes a machine of its own.
fn lose(world: &mut World) -> Newcomer {
    world.keeper.take().expect("it runs").kill();
    let lost = Newcomer { name: "lost".to_owned(), tpm: world.keeper_tpm.take(), tcti: None };
    fs::rename(world.path("keeper"), lost.dir(world)).expect("the directory is ours");
    lost
}

/// It is the world's keeper from now on.
fn install(world: &mut World, mut newcomer: Newcomer, keeper: Running) {
    keeper.terminate();
    fs::rename(newcomer.dir(world), world.path("keeper")).expect("the directory is ours");
    world.keeper_tpm = newcomer.tpm.take();
    world.start_keeper();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_outlives_the_loss_of_its_keeper_and_tpm() {
    let (mut world, guest) = World::open_with_guest();
    world.publish("1");
    load(&world, &guest);
    let (_, status) = run(world.vaultctl().arg("status"));
    says(&status, &["NOT RECOVERABLE", "vaultctl escrow propose"]);
    refused(world.vaultctl().args(["escrow", "fetch", "--out"]).arg(world.path("none")), "escrow-missing");

    // The shares are there once approvers have agreed, and not before.
    escrow::propose(&world);
    let pending = run_ok(world.vaultctl().arg("pending"));
    says(&pending, &["any 2 of these 3 custodians together", "share 2: safe"]);
    world.approve(&APPROVERS[1..2]);
    refused(world.vaultctl().args(["escrow", "fetch", "--out"]).arg(world.path("none")), "escrow-missing");
    world.approve(&APPROVERS[2..]);
    let said = run_ok(world.vaultctl().args(["escrow", "fetch", "--out"]).arg(world.path("shares-1")));
    says(&said, &["share-1-1-notary.json", "share-1-3-sister.json"]);
    assert!(!world.path("keeper/escrow").exists(), "the host has the shares");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(!status.contains("NOT RECOVERABLE") && status.contains("2 of notary, safe, sister"), "{status}");
    says(&run_ok(world.vaultctl().args(["escrow", "status"])), &["escrow 1", "--accept-rollback"]);
    refused(world.vaultctl().args(["recover", "status"]), "keeper-not-lost");

    let lost = lose(&mut world);
    let newcomer = Newcomer::new(&world, "b");
    let (exit, said) = recovering(&world, &newcomer, &[]).wait();
    assert!(exit != Some(0) && said.contains("recover-rollback"), "{said}");
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    let (_, status) = run(world.vaultctl().arg("status"));
    says(&status, &["RECOVERING", "it waits for shares"]);
    let said = run_ok(world.vaultctl().args(["recover", "status"]));
    says(&said, &["NOTHING SHOWS THAT THIS LOG IS THE NEWEST", "Approved by: nobody", "Shares of:   nobody (0 of 2)"]);

    let mut doctor = world.enclave("doctor");
    doctor.args(["--tpm", &guest.tcti, "--host", &world.url(), "--vault"]).arg(world.vault());
    let (exit, said) = run(doctor.arg("--dir").arg(newcomer.dir(&world)));
    assert_ne!(exit, Some(0), "{said}");
    says(&said, &["JOINING or RECOVERING", "keeper: recovering: ", "fix: custodians give their shares"]);

    // Two shares without approvals give nothing, nor do approvals of a minority.
    says(&run_ok(&mut contribute(&world, 1, "notary")), &["notary gave share 1.", "notary (1 of 2)"]);
    run_ok(&mut contribute(&world, 1, "notary"));
    says(&run_ok(&mut approve(&world, APPROVERS[0])), &["alice (1 of 2)"]);
    refused(&mut approve(&world, APPROVERS[0]), "already-approved");
    says(&run_ok(&mut contribute(&world, 1, "sister")), &["notary, sister (2 of 2)"]);
    assert!(!newcomer.dir(&world).join("vault-keys").exists());
    // A restart forgets what was given: the shares were for that moment.
    keeper.kill();
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    says(&run_ok(world.vaultctl().args(["recover", "status"])), &["Shares of:   nobody (0 of 2)"]);
    for approver in &APPROVERS[..2] {
        run_ok(&mut approve(&world, approver));
    }
    run_ok(&mut contribute(&world, 1, "safe"));
    let said = run_ok(&mut contribute(&world, 1, "sister"));
    says(&said, &["are on this machine", "never start the lost keeper again"]);
    keeper.wait_for("the vault is open");

    // The old vault file still gets the model; whoever seals needs one that knows the new keeper.
    load(&world, &guest);
    let (exit, said) = run(world.vaultctl().arg("status"));
    assert!(exit == Some(4) && said.contains("keeper-other"), "{said}");
    let renewed = world.path("renewed.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    fs::copy(&renewed, world.vault()).expect("the directory is ours");
    let status = run_ok(world.vaultctl().arg("status"));
    says(&status, &["Verified now", "A keeper was lost", "ROLLBACK ACCEPTED"]);
    install(&mut world, newcomer, keeper);
    world.publish("2");
    release(&world).await;
    audited(&world);

    // The lost one, come back with its own TPM and its newest state, is no keeper any more.
    let now = world.keeper.take().expect("it runs");
    now.terminate();
    let kept = world.path("keeper-kept");
    fs::rename(world.path("keeper"), &kept).expect("the directory is ours");
    fs::rename(lost.dir(&world), world.path("keeper")).expect("the directory is ours");
    let newest = std::mem::replace(&mut world.keeper_tpm, lost.tpm);
    let _ = fs::remove_file(world.path("keeper.sock"));
    let mut old = world.start_keeper_process();
    old.wait_for("keeper-declared-lost");
    old.terminate();
    fs::rename(world.path("keeper"), world.path("keeper-lost")).expect("the directory is ours");
    fs::rename(kept, world.path("keeper")).expect("the directory is ours");
    let lost_tpm = std::mem::replace(&mut world.keeper_tpm, newest);
    drop(lost_tpm);
    world.start_keeper();
    release(&world).await;
    // The next escrow is of the next number; the shares of the first are of no use with it.
    escrow::split(&world, 2);
}

fn audited(world: &World) {
    run_ok(world.vaultctl().args(["log", "verify"]));
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    says(
        &log,
        &[
            "shares of the vault's keys for notary, safe, sister",
            "split into 3 shares",
            "approves recovery",
            "ROLLBACK ACCEPTED",
        ],
    );
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let mut audit = Command::new(binary("vaultctl"));
    let audit = run_ok(audit.arg("--vault").arg(world.vault()).args(["audit", "verify"]).arg(&bundle));
    says(&audit, &["is lost, and", "ROLLBACK ACCEPTED", "split into 3 shares"]);
    let lines = log.lines().filter(|line| line.contains("approves recovery"));
    assert_eq!(lines.count(), 2, "{log}");
}

fn copy(from: &Path, to: &Path) {
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Practised beside the vault that runs, over a copy of its log: nothing is left, and nothing of it opens the real thing.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_shows_that_the_shares_give_the_keys_and_leaves_none() {
    let mut world = World::open();
    world.publish("1");
    escrow::split(&world, 1);
    let size = run_ok(world.vaultctl().args(["log", "checkpoint"]));

    // The host takes turns; a drill on a copy of its directory has a host of its own.
    world.host.take().expect("it runs").terminate();
    copy(&world.path("host"), &world.path("host-kept"));
    let keeper = world.keeper.take().expect("it runs");
    keeper.terminate();
    let machine = Newcomer::new(&world, "drill");
    let mut drill = recovering(&world, &machine, &["--drill"]);
    world.start_host();
    drill.wait_for("shares and approvals may come");
    says(&run_ok(world.vaultctl().args(["recover", "status"])), &["A DRILL", "wiped"]);
    refused(&mut approve(&world, APPROVERS[0]), "drill-approval");
    run_ok(&mut contribute(&world, 1, "safe"));
    let said = run_ok(&mut contribute(&world, 1, "notary"));
    says(&said, &["The drill is over: the shares give the keys", "-n weightvault-drill"]);
    // A record of it, which its signature makes nobody's approval.
    let record = run_ok(world.vaultctl().args(["--json", "recover", "status"]));
    let said: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!((&said["mode"], &said["done"]), (&"drill".into(), &true.into()), "{record}");
    fs::write(world.path("drill.json"), &record).expect("the directory is ours");
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-Y", "sign", "-n", "weightvault-drill", "-f"]).arg(world.path(APPROVERS[0]));
    run_ok(sign.arg(world.path("drill.json")));
    refused(&mut contribute(&world, 1, "sister"), "recovery-done");
    drill.wait_for("which were wiped");
    drill.terminate();
    for file in ["vault-keys", "recovery"] {
        assert!(!machine.dir(&world).join(file).exists(), "{file}");
    }
    // The log has no trace of it, and the keeper goes on as it was.
    world.host.take().expect("it runs").terminate();
    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it runs").wait_for("the vault is open");
    assert_ne!(run_ok(world.vaultctl().args(["log", "checkpoint"])), size, "but for its start");
    assert!(!run_ok(world.vaultctl().args(["log", "show"])).contains("is lost"));
    release(&world).await;
    // Cleared like any keeper whose ceremony came to nothing.
    let mut clear = world.enclave("keeper");
    let tpm = machine.tpm.as_ref().expect("it is on");
    run_ok(clear.arg("--dir").arg(machine.dir(&world)).args(["--tpm", &tpm.tcti, "--reset-ceremony"]));
}

/// A share is for the newest escrow, and for the keeper that its custodian has seen.
#[tokio::test(flavor = "multi_thread")]
async fn old_shares_wrong_keys_and_changed_files_give_nothing() {
    let mut world = World::open();
    world.publish("1");
    escrow::split(&world, 1);
    escrow::split(&world, 2);
    let _lost = lose(&mut world);
    let newcomer = Newcomer::new(&world, "b");
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    refused(&mut contribute(&world, 1, "safe"), "share-other-set");
    // Another custodian's key.
    let mut wrong = world.vaultctl();
    wrong.args(["recover", "contribute", "--yes", "--share"]).arg(escrow::share(&world, 2, "safe"));
    refused(wrong.arg("--key").arg(escrow::key(&world, "notary")), "share-refused");
    // A field that says something else.
    let (file, changed) = (escrow::share(&world, 2, "safe"), world.path("changed.json"));
    let text = fs::read_to_string(file).expect("it was fetched");
    for (from, to) in
        [("\"index\":2", "\"index\":1"), ("\"threshold\":2", "\"threshold\":3"), ("\"epoch\":1", "\"epoch\":2")]
    {
        fs::write(&changed, text.replace(from, to)).expect("the directory is ours");
        let mut wrong = world.vaultctl();
        wrong.args(["recover", "contribute", "--yes", "--share"]).arg(&changed);
        refused(wrong.arg("--key").arg(escrow::key(&world, "safe")), "share-refused");
    }
    // A machine that booted something else is none that anybody gives a share.
    keeper.kill();
    let boot = vault_tests::Boot { firmware: None, image: binary("vault-host") };
    let foreign = Newcomer::booted(&world, "foreign", &boot);
    let mut keeper = recovering(&world, &foreign, &["--accept-rollback"]);
    keeper.wait_for("keeper-pcr-mismatch");
    refused(&mut contribute(&world, 2, "safe"), "recovery-log");
}

/// Where nothing counts, no keeper takes the place of a lost one: the vault file says it, before a share is asked for.
#[test]
fn a_vault_without_a_counter_is_not_recovered() {
    let mut world = World::open_uncounted();
    lose(&mut world);
    let newcomer = Newcomer::new(&world, "b");
    let (exit, said) = recovering(&world, &newcomer, &["--accept-rollback"]).wait();
    assert!(exit != Some(0) && said.contains("recover-no-counter"), "{said}");
    assert!(!newcomer.dir(&world).join("vault-keys").exists());
}
