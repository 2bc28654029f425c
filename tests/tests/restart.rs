//! What a keeper does after it was killed, rolled back, or moved: it goes on where it was, or says why it does not.

use std::fs;
use std::path::Path;
use std::process::Command;

use vault_tests::{Guest, Swtpm, World, binary, run, run_ok};

/// Copies a directory, as somebody with root on the host does.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// One release to a good guest; the index of its entry.
async fn release(world: &World) -> u64 {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let vault = fs::read(world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file");
    let verifier = ledger::checkpoint::LogVerifier::of(vault.genesis());
    verifier.verify_proof(&grant.log_proof, &grant.entry).expect("the grant's proof").0
}

fn verify_log(world: &World) {
    let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
}

/// A keeper that was killed at any moment opens the same vault, and every grant that was handed out is in its log.
#[tokio::test(flavor = "multi_thread")]
async fn killed_keeper_goes_on_with_every_grant_in_its_log() {
    let mut world = World::open();
    world.publish("1");
    let mut last = 0;
    for delay in [0, 3, 11, 29] {
        last = release(&world).await;
        let mut guest = Guest::new(&world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let redemption = guest.redemption(&challenge);
        // One more is under way when the keeper is killed; whether it is granted or not, nothing is without an entry.
        let under_way = tokio::spawn(async move { guest.redeem(redemption).await });
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        world.keeper.take().expect("it runs").kill();
        let _ = under_way.await.expect("the guest does not panic");
        world.start_keeper();
        verify_log(&world);
    }
    let next = release(&world).await;
    assert!(next > last, "{next} after {last}");
}

/// An older copy of the keeper's directory, of the host's log, or of both, does not start a keeper.
#[tokio::test(flavor = "multi_thread")]
async fn older_state_is_refused_and_the_newest_opens_again() {
    let mut world = World::open();
    world.publish("1");
    release(&world).await;
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
    copy(&world.path("keeper"), &world.path("keeper-old"));
    copy(&world.path("host"), &world.path("host-old"));
    world.start_keeper();
    world.start_host();
    release(&world).await;
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
    copy(&world.path("keeper"), &world.path("keeper-new"));
    copy(&world.path("host"), &world.path("host-new"));

    // The keeper's own state.
    copy(&world.path("keeper-old"), &world.path("keeper"));
    let (code, log) = world.start_keeper_process().wait();
    assert_ne!(code, Some(0));
    assert!(log.contains("state-older-than-counter"), "{log}");

    // The head alone is missing.
    copy(&world.path("keeper-new"), &world.path("keeper"));
    fs::remove_file(world.path("keeper").join("head")).expect("there is a head");
    let (code, log) = world.start_keeper_process().wait();
    assert_ne!(code, Some(0));
    assert!(log.contains("head-missing"), "{log}");

    // The host's log: the keeper runs and stays closed until the newest is back.
    copy(&world.path("keeper-new"), &world.path("keeper"));
    copy(&world.path("host-old"), &world.path("host"));
    let mut keeper = world.start_keeper_process();
    world.start_host();
    keeper.wait_for("log-unavailable");
    world.host.take().expect("it runs").terminate();
    copy(&world.path("host-new"), &world.path("host"));
    world.start_host();
    keeper.wait_for("the vault is open");
    world.keeper = Some(keeper);
    release(&world).await;
    verify_log(&world);
}

/// The log says which program the keeper runs: once, and again when its file is another, be it of the same version.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_with_another_program_says_so_before_it_decides_anything() {
    let mut world = World::open();
    let upgrades = |world: &World| {
        let shown = run_ok(world.vaultctl().args(["--json", "log", "show", "--count", "1000"]));
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let entries = shown["entries"].as_array().expect("a list").clone();
        let of = |kind: &str, entry: &serde_json::Value| entry["entry"]["type"] == kind;
        let pairs = entries.windows(2).filter(|pair| of("upgrade", &pair[1]));
        pairs.map(|pair| (of("start", &pair[0]), pair[1].clone())).collect::<Vec<_>>()
    };
    let digest = |path: &Path| attestation::Sha256Digest::of(&fs::read(path).expect("the program")).to_string();
    let restart = |world: &mut World| {
        world.keeper.take().expect("it runs").terminate();
        world.start_keeper();
    };
    restart(&mut world);
    restart(&mut world);
    let said = upgrades(&world);
    let [(behind_start, first)] = said.as_slice() else { panic!("{said:?}") };
    assert!(behind_start, "{first}");
    let built = digest(&binary("vault-enclave"));
    assert!(first["entry"].get("from").is_none() && first["entry"]["to"]["digest"] == built.as_str(), "{first}");

    // What lies behind an ELF file is not run: this is the same version, and another program.
    let other = world.path("vault-enclave-other");
    let mut bytes = fs::read(binary("vault-enclave")).expect("the program");
    bytes.push(0);
    fs::write(&other, bytes).expect("the directory is ours");
    run_ok(Command::new("chmod").arg("755").arg(&other));
    world.keeper_program = Some(other.clone());
    restart(&mut world);
    world.publish("1");
    release(&world).await;
    verify_log(&world);
    let said = upgrades(&world);
    let [_, (true, second)] = said.as_slice() else { panic!("{said:?}") };
    let entry = &second["entry"];
    assert_eq!((&entry["from"]["digest"], &entry["to"]["digest"]), (&built.into(), &digest(&other).into()));
    assert!(
        second["says"].as_str().is_some_and(|says| says.contains("ANOTHER PROGRAM OF THE SAME VERSION")),
        "{second}"
    );
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let audit = run_ok(world.vaultctl().args(["audit", "verify"]).arg(&bundle));
    assert!(audit.contains("ANOTHER PROGRAM OF THE SAME VERSION"), "{audit}");
}

/// Another boot state or another TPM does not open a keeper's directory; the old one does.
#[test]
fn another_boot_state_and_another_tpm_are_refused() {
    let mut world = World::open();
    world.keeper.take().expect("it runs").terminate();
    world.keeper_tpm.take().expect("it is on").stop();
    let (state, ca) = (world.path("tpm"), world.path("ca"));

    world.keeper_tpm = Some(Swtpm::start(&state, &ca, &binary("vault-host")));
    let (code, log) = world.start_keeper_process().wait();
    assert_ne!(code, Some(0));
    assert!(log.contains("root-pcrs-changed") && log.contains("11"), "{log}");
    world.keeper_tpm.take().expect("it is on").stop();

    world.keeper_tpm = Some(Swtpm::start(&world.path("tpm-other"), &ca, &binary("vault-enclave")));
    let (code, log) = world.start_keeper_process().wait();
    assert_ne!(code, Some(0));
    assert!(log.contains("root-other-tpm"), "{log}");
    world.keeper_tpm.take().expect("it is on").stop();

    world.keeper_tpm = Some(Swtpm::start(&state, &ca, &binary("vault-enclave")));
    world.start_keeper();
    verify_log(&world);
}

/// Somebody else gave the keeper a core, or the core had a mistake: it begins again, and its TPM has no less room for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_that_came_to_nothing_is_begun_again_and_leaves_nothing_in_the_tpm() {
    let mut world = World::before_ceremony(|_, _| {});
    let tcti = world.keeper_tpm.as_ref().expect("it is on").tcti.clone();
    let indices = || {
        let found = run_ok(Command::new("tpm2_getcap").args(["-T", &tcti, "handles-nv-index"]));
        found.lines().filter(|line| line.contains("0x18077")).count()
    };
    let reset = |world: &World| {
        let mut reset = world.enclave("keeper");
        run(reset.arg("--dir").arg(world.path("keeper")).args(["--tpm", &tcti, "--reset-ceremony"]))
    };
    let vault = fs::read(world.vault()).expect("the vault file");
    let core = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file").genesis().core().encode();
    // Keeper and host are empty, as new ones; what the first keeper took of the TPM stays there.
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
    for name in ["keeper", "host", "vault"] {
        fs::remove_dir_all(world.path(name)).expect("the directory is ours");
    }
    let before = indices();
    for _ in 0..2 {
        world.start_keeper();
        world.start_host();
        Guest::new(&world).await.init_keeper(core.clone()).await.expect("it is empty");
        world.host.take().expect("it runs").terminate();
        world.keeper.take().expect("it runs").terminate();
        assert_eq!(indices(), before + 2);
        let (code, said) = reset(&world);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(indices(), before);
        let (code, said) = reset(&world);
        assert!(code != Some(0) && said.contains("root-absent"), "{said}");
    }

    // The owner's own core.
    let policy = fs::read_to_string(world.path("policy.toml")).expect("the policy");
    let policy = policy.replacen("max_leases = 256", "max_leases = 255", 1);
    fs::write(world.path("policy.toml"), policy).expect("the file is ours");
    world.start_keeper();
    world.start_host();
    let mut start = Command::new(binary("vaultctl"));
    start.args(["--host", &world.url(), "init", "start", "--anti-rollback", "counter", "--policy"]);
    run_ok(start.arg(world.path("policy.toml")).arg("--out").arg(world.path("vault")));
    world.sign_genesis();
    verify_log(&world);

    // A vault is not undone like this.
    world.keeper.take().expect("it runs").terminate();
    let (code, said) = reset(&world);
    assert!(code != Some(0) && said.contains("head-not-empty"), "{said}");
    world.start_keeper();
    verify_log(&world);
}

/// The loss of the only keeper is the loss of the vault: a new keeper is empty, says so, and is not that vault.
#[test]
fn loss_of_the_only_keeper_is_the_end_of_its_vault() {
    let mut world = World::open();
    world.keeper.take().expect("it runs").terminate();
    fs::remove_dir_all(world.path("keeper")).expect("the directory is ours");
    let mut keeper = world.start_keeper_process();
    keeper.wait_for("host attached");
    world.keeper = Some(keeper);
    let (code, said) = vault_tests::run(world.vaultctl().args(["status"]));
    assert_ne!(code, Some(0), "{said}");
    let (code, said) =
        vault_tests::run(world.vaultctl().args(["init", "sign", "--yes", "--key"]).arg(world.path("alice")));
    assert_ne!(code, Some(0), "{said}");
}
