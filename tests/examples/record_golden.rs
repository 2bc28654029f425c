//! Records a golden vault: `cargo build --workspace --bins`, then `cargo run -p vault-tests --example record_golden -- vN`
//! writes `tests/golden/vN`. Once for each version of the formats; what is there stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use attestation::lease_id;
use ledger::lease::end_message;
use vault_proto::v1;
use vault_tests::golden::{
    self, CHECKPOINT, EXPECTED, Expected, FIRMWARE, GUEST_IMAGE, KEEPER_IMAGE, TPM_STATE, VAULT,
};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Guest, Running, Swtpm, World, run_ok};

/// Where the recorded vault file says that its host is: nowhere, whoever opens it says where.
const NOWHERE: &str = "unix:/run/weightvault/host.sock";
/// A refusal that leaves no entry is counted in the entry of its minute.
const DENY_SUMMARY_WITHIN: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() {
    let name = std::env::args().nth(1).expect("the name of the version, as in v1");
    let out = golden::directory(&name);
    fs::create_dir_all(&out).expect("tests/golden can be written");
    assert!(!out.join(EXPECTED).exists(), "{} is recorded: what is there stays as it is", out.display());
    let firmware = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/data/ovmf-swtpm-debian12.bin");
    fs::copy(firmware, out.join(FIRMWARE)).expect("the recorded boot of xtask");
    write(&out.join(KEEPER_IMAGE), format!("the keeper's machine of the golden vault {name}\n").as_bytes());
    write(&out.join(GUEST_IMAGE), format!("the guest's machine of the golden vault {name}\n").as_bytes());

    let (mut world, guest_tpm) = ceremony(&out);
    let mut models = BTreeMap::new();
    run_ok(Command::new(vault_tests::binary("xtask")).args(["model", "--size", "256K", "--out"]).arg(source(&world)));
    world.publish("1");
    models.insert("1".to_owned(), golden::sums(&source(&world)));
    leases(&world).await;
    change_policy(&world);
    restart(&mut world);
    write(&source(&world).join("notes.txt"), b"the second version\n");
    world.publish("2");
    models.insert("2".to_owned(), golden::sums(&source(&world)));
    denials(&world).await;
    load(&world, &guest_tpm);
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    println!("{log}");

    world.keeper.take().expect("it runs").terminate();
    let checkpoint = run_ok(world.vaultctl().args(["--json", "log", "checkpoint", "--out"]).arg(out.join(CHECKPOINT)));
    let checkpoint: serde_json::Value = serde_json::from_str(&checkpoint).expect("JSON");
    let text = |field: &str| checkpoint[field].as_str().expect("a text").to_owned();
    let size = checkpoint["size"].as_u64().expect("a number");
    let expected = Expected { vault: text("vault"), size, root: text("root"), models };
    world.host.take().expect("it runs").terminate();
    world.keeper_tpm.take().expect("it is on").stop();
    guest_tpm.stop();
    keep(&world, &out);
    write(&out.join(EXPECTED), expected.encode().as_bytes());
    println!("recorded {}", out.display());
}

/// Genesis with all signatures; a rule for forged guests, one for a part, and one for the guest whose TPM is recorded.
fn ceremony(out: &Path) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony_on(&golden::boot(out, KEEPER_IMAGE), |world, policy| {
        let boot = golden::boot(out, GUEST_IMAGE);
        let tpm = Swtpm::booted(&world.path("tpm-guest"), &world.path("ca"), &boot);
        policy.push_str(&guest_rule(&tpm));
        guest = Some(tpm);
    });
    world.sign_genesis();
    (world, guest.expect("the closure ran"))
}

/// Three leases: one runs on, one is renewed, one is renewed and ended.
async fn leases(world: &World) {
    for (renewed, ended) in [(false, false), (true, false), (true, true)] {
        let mut guest = Guest::new(world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
        let id = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
        if renewed {
            let renewal = guest.renewal(&grant, id).await;
            guest.renew(renewal).await.expect("a longer lease");
        }
        if ended {
            let signature = guest.lease.sign(&end_message(&challenge.vault_id, &id)).as_ref().to_vec();
            let end = v1::EndLeaseRequest { lease_id: id.as_bytes().to_vec(), lease_signature: signature };
            guest.end(end).await.expect("the end of its own lease");
        }
    }
}

/// The second policy, proposed by one and approved by two.
fn change_policy(world: &World) {
    let second = world.next_policy(|policy| *policy = policy.replacen("max_leases = 256", "max_leases = 128", 1));
    run_ok(&mut world.propose(&second, APPROVERS[0]));
    world.approve(&APPROVERS[1..]);
}

fn restart(world: &mut World) {
    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
}

/// One refusal that is an entry of its own, and one that is counted in the entry of its minute.
async fn denials(world: &World) {
    let mut guest = Guest::new(world).await;
    let mut ask = guest.ask();
    ask.rule = "first-layer".to_owned();
    let challenge = guest.challenge(ask).await.expect("a challenge");
    let extra = guest.bind_as(&challenge, |bound| bound.rule = "first-layer".to_owned()).tpm_extra_data();
    let refused = guest.redeem(guest.redemption_over(&challenge, &extra)).await.expect_err("more than the rule grants");
    assert_eq!(guest.code_of(refused).await, "group-not-granted");
    let mut ask = guest.ask();
    ask.rule = "nobody".to_owned();
    guest.challenge(ask).await.map(drop).expect_err("no such rule");
    let start = std::time::Instant::now();
    while !run_ok(world.vaultctl().args(["log", "show"])).contains(" deny-summary ") {
        assert!(start.elapsed() < DENY_SUMMARY_WITHIN, "no deny-summary");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// The recorded guest loads the second version and ends its lease.
fn load(world: &World, guest: &Swtpm) {
    let into = PathBuf::from(format!("/dev/shm/weightvault-record-{}", std::process::id()));
    let mut load = Running::start(&mut golden::load(world, guest, "2", &into), &world.path("load.log"));
    load.wait_for("ready");
    load.terminate();
    let _ = fs::remove_dir(&into);
}

/// What is recorded: no lock, no log of a process, no key of an approver, publisher or authority.
fn keep(world: &World, out: &Path) {
    for part in ["keeper", "host"] {
        golden::copy(&world.path(part), &out.join(part));
        let _ = fs::remove_file(out.join(part).join("lock"));
    }
    for (from, part) in [("tpm", "tpm-keeper"), ("tpm-guest", "tpm-guest")] {
        fs::create_dir_all(out.join(part)).expect("tests/golden can be written");
        golden::copy(&world.path(from).join("nvram").join(TPM_STATE), &out.join(part).join(TPM_STATE));
    }
    let vault = fs::read(world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file");
    let moved = ledger::vault_file::VaultFile::new(vault.genesis().clone(), vec![NOWHERE.to_owned()]);
    write(&out.join(VAULT), &moved.expect("one host").encode());
}

fn source(world: &World) -> PathBuf {
    world.path("source")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
