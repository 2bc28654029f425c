//! Extensions: a fleet goes on without its keeper as long as approvers have signed, and no longer than the keeper likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::extension::{ExtendedLeases, Extension, ExtensionApproval, ExtensionFile};
use ledger::policy::Policy;
use ledger::vault_file::VaultFile;
use time::format_description::well_known::Rfc3339;
use tokio::task::block_in_place;
use vault_tests::attack::hostile::{Hostile, Lie};
use vault_tests::world::APPROVERS;
use vault_tests::{Running, Swtpm, World, binary, run, run_ok};

/// So far ahead that it outlasts the test; within the seven days.
fn tomorrow() -> String {
    (time::OffsetDateTime::now_utc() + time::Duration::days(1))
        .replace_nanosecond(0)
        .expect("zero")
        .format(&Rfc3339)
        .expect("a year of four digits")
}

/// An extension for all leases of the vault, which nobody has signed.
fn extension(world: &World, name: &str) -> PathBuf {
    let file = world.path(name);
    let new = ["extend", "new", "--all", "--until", &tomorrow(), "--out"];
    run_ok(world.vaultctl().args(new).arg(&file));
    file
}

/// `vaultctl extend sign`, which asks no host.
fn sign(world: &World, file: &Path, name: &str) -> (Option<i32>, String) {
    let mut sign = Command::new(binary("vaultctl"));
    sign.args(["--host", "http://127.0.0.1:1", "--vault"]).arg(world.vault());
    sign.args(["extend", "sign"]).arg(file).args(["--yes", "--key"]);
    run(sign.arg(world.path(name)))
}

fn load(world: &World, guest: &Swtpm, extensions: &Path, into: &Path) -> Running {
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    load.arg("--extensions").arg(extensions).arg("--into").arg(into);
    Running::start(&mut load, &world.path("load.log"))
}

#[test]
fn an_agent_runs_on_by_what_approvers_signed_while_there_is_no_keeper_which_then_logs_it() {
    let (mut world, guest) = World::open_with_guest();
    world.publish("1");
    let name = world.path("x").parent().and_then(|dir| dir.file_name()).expect("a name").to_os_string();
    let (into, dir) = (PathBuf::from("/dev/shm").join(name), world.path("extensions"));
    fs::create_dir(&dir).expect("the directory is ours");
    let file = extension(&world, "extension.json");
    let (code, said) = sign(&world, &file, APPROVERS[0]);
    assert!(code == Some(0) && said.contains("LOOSER: without a keeper") && said.contains("(1 of 2)"), "{said}");
    let (code, said) = sign(&world, &file, APPROVERS[0]);
    assert!(code == Some(2) && said.contains("extension-approver-repeated"), "{said}");
    // One signature is not enough for an agent.
    fs::copy(&file, dir.join("first.json")).expect("the directory is ours");

    let mut agent = load(&world, &guest, &dir, &into);
    agent.wait_for("ready ");
    world.keeper.take().expect("it runs").terminate();
    agent.wait_for("extension-too-few");
    assert!(!agent.log().contains("the lease runs on"), "{}", agent.log());
    let (code, said) = sign(&world, &file, APPROVERS[2]);
    assert!(code == Some(0) && said.contains("(2 of 2)"), "{said}");
    fs::copy(&file, dir.join("second.json")).expect("the directory is ours");
    agent.wait_for("no keeper: the lease runs on by an extension that approvers signed");

    // The keeper is back: it is told by which extension the lease ran on, and renews.
    world.start_keeper();
    agent.wait_for("the keeper is back: the lease is renewed");
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    assert!(log.contains("1 lease ran on without a keeper: every lease of the vault"), "{log}");
    assert!(log.contains("signed by 2 approvers"), "{log}");
    let said = run_ok(world.vaultctl().args(["extend", "submit"]).arg(&file));
    assert!(said.contains("In the log: 1 lease run") || said.contains("No lease runs longer"), "{said}");
    assert_eq!(agent.terminate(), Some(0));
    let _ = fs::remove_dir_all(&into);
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

#[test]
fn an_extension_that_does_not_count_is_not_logged() {
    let world = World::open();
    let file = extension(&world, "extension.json");
    let submit = |file: &Path| run(world.vaultctl().args(["extend", "submit"]).arg(file));
    let (code, said) = submit(&file);
    assert!(code == Some(2) && said.contains("extension-too-few"), "{said}");
    for name in &APPROVERS[..2] {
        assert_eq!(sign(&world, &file, name).0, Some(0));
    }
    // Longer than was signed.
    let text = fs::read_to_string(&file).expect("the file");
    let (head, until) = text.split_once("\\\"until\\\":").expect("it has an end");
    let end: u64 = until.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number");
    let longer = world.path("longer.json");
    fs::write(&longer, format!("{head}\\\"until\\\":{}", until.replacen(&end.to_string(), &(end + 1).to_string(), 1)))
        .expect("the directory is ours");
    let (code, said) = submit(&longer);
    assert!(code == Some(2) && said.contains("extension-other-object"), "{said}");
    let (code, said) = submit(&file);
    assert!(code == Some(0) && said.contains("No lease runs longer by it"), "{said}");
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    assert!(!log.contains(" extend "), "{log}");
    // Longer than any may be.
    let new = ["extend", "new", "--all", "--until", "2099-01-01T00:00:00Z", "--out"];
    let (code, said) = run(world.vaultctl().args(new).arg(world.path("long.json")));
    assert!(code == Some(2) && said.contains("extension-span"), "{said}");
}

/// A policy of Mallory's own, and an extension by its one approver, who is Mallory.
fn of_mallory(world: &World) -> (Sha256Digest, Vec<u8>) {
    let key = world.path("mallory");
    run_ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key));
    let read = |name: &str| fs::read_to_string(world.path(name)).expect("a key");
    let point = |line: String| line.split(' ').nth(1).expect("a key").to_owned();
    let (alice, mallory) = (point(read("alice.pub")), point(read("mallory.pub")));
    let policy = read("policy.toml").replace(&alice, &mallory).replacen("threshold = 2", "threshold = 1", 1);
    let parsed = Policy::parse(&policy).expect("a policy like any other");
    let vault = VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file");
    let now = UnixTime(time::OffsetDateTime::now_utc().unix_timestamp().try_into().expect("after 1970"));
    let until = now.plus(24 * 3600);
    let extension = Extension::new(now, until, ExtendedLeases::All {}).expect("a day");
    let statement = ApprovalStatement {
        action: ApprovalAction::Extend,
        object: extension.object(),
        previous: parsed.digest(),
        vault: vault.id(),
        serial: parsed.serial(),
        not_after: until,
    };
    let file = world.path("statement.json");
    fs::write(&file, statement.encode()).expect("the directory is ours");
    run_ok(Command::new("ssh-keygen").args(["-Y", "sign", "-n", "weightvault", "-f"]).arg(key).arg(&file));
    let [statement, signature] = ["statement.json", "statement.json.sig"].map(read);
    let approvals = vec![ExtensionApproval { statement, signature }];
    let file = ExtensionFile { policy, extension, approvals };
    file.verify(vault.id(), parsed.digest()).expect("good for whoever takes that policy for the vault's");
    (parsed.digest(), file.encode())
}

/// What a host relays of a challenge is its word: here it keeps a renewal back, has the agent ask for the next one by a policy
/// of its own, and answers with the one that it kept, which the keeper did sign.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_can_not_have_its_own_policy_extend_a_lease() {
    let (world, guest) = block_in_place(World::open_with_guest);
    block_in_place(|| world.publish("1"));
    let name = world.path("x").parent().and_then(|dir| dir.file_name()).expect("a name").to_os_string();
    let (into, dir) = (PathBuf::from("/dev/shm").join(name), world.path("extensions"));
    fs::create_dir(&dir).expect("the directory is ours");
    let (policy, extension) = of_mallory(&world);
    fs::write(dir.join("mallory.json"), extension).expect("the directory is ours");
    let hostile = Hostile::start(&world).await;
    hostile.tell(Lie::Policy(*policy.as_bytes()));
    block_in_place(|| {
        let mut load = world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--host", hostile.url(), "--vault"]);
        load.arg(world.vault()).arg("--extensions").arg(&dir).arg("--into").arg(&into);
        let mut agent = Running::start(&mut load, &world.path("load.log"));
        agent.wait_for("ready ");
        agent.wait_for("host-busy");
        // It has taken the renewal, and there is no keeper any more.
        agent.wait_for("mallory.json");
        assert!(agent.log().contains("an extension does not count"), "{}", agent.log());
        assert!(!agent.log().contains("the lease runs on"), "{}", agent.log());
        agent.terminate();
    });
    let _ = fs::remove_dir_all(&into);
}
