//! A keeper that is sealed to the boot state of an update before the reboot that brings it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Approve, Entry, Proposal, Propose};
use ledger::reseal::Reseal;
use ledger::vault_file::VaultFile;
use tokio::task::block_in_place;
use tonic::transport::Endpoint;
use vault_proto::convert::{Approval, ResealSubmission};
use vault_proto::v1;
use vault_proto::v1::audit_client::AuditClient;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_tests::process::Boot;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, Swtpm, World, binary, run, run_ok};

/// Images that the policy lets the keeper be, beside the one of its ceremony, and one that it does not.
const NEXT: &str = "next";
const OTHER: &str = "other";
const FOREIGN: &str = "foreign";

/// What PCR 11 has after a boot of this image.
fn pcr_11(image: &[u8]) -> [u8; 32] {
    let measured = Sha256Digest::of(image);
    *Sha256Digest::of(&[[0; 32].as_slice(), measured.as_bytes()].concat()).as_bytes()
}

/// An open vault whose policy allows three images of the keeper.
fn open() -> World {
    let world = World::before_ceremony(|_, policy| {
        let now = hex::encode(pcr_11(&fs::read(binary("vault-enclave")).expect("it was built")));
        let [next, other] = [NEXT, OTHER].map(|image| hex::encode(pcr_11(image.as_bytes())));
        let (old, new) = (format!("11 = [\"{now}\"]"), format!("11 = [\"{now}\", \"{next}\", \"{other}\"]"));
        assert_eq!(policy.matches(&old).count(), 1, "the keeper's rule alone has it");
        *policy = policy.replace(&old, &new);
    });
    world.sign_genesis();
    world
}

/// Switches the keeper's machine off and on, with an image of this text or, without one, that of the ceremony.
fn reboot(world: &mut World, image: Option<&str>) {
    if let Some(keeper) = world.keeper.take() {
        keeper.terminate();
    }
    if let Some(tpm) = world.keeper_tpm.take() {
        tpm.stop();
    }
    let image = match image {
        Some(text) => {
            let path = world.path(&format!("image-{text}"));
            fs::write(&path, text).expect("the directory is ours");
            path
        }
        None => binary("vault-enclave"),
    };
    let boot = Boot { firmware: None, image };
    world.keeper_tpm = Some(Swtpm::booted(&world.path("tpm"), &world.path("ca"), &boot));
}

/// `vaultctl propose reseal` in the name of Alice.
fn propose(world: &World, image: &str) -> Command {
    propose_value(world, pcr_11(image.as_bytes()))
}

/// The same for what PCR 11 is to have.
fn propose_value(world: &World, value: [u8; 32]) -> Command {
    let mut propose = world.vaultctl();
    let pcr = format!("11={}", hex::encode(value));
    propose.args(["propose", "reseal", "--pcr", &pcr, "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    propose
}

/// Proposed, approved, in force, and written.
fn reseal(world: &World, image: &str) {
    run_ok(&mut propose(world, image));
    world.approve(&APPROVERS[1..]);
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("the record is written"), "{status}");
}

/// The keeper's start is refused with this code.
fn refused(world: &World, code: &str) -> String {
    let (exit, log) = world.start_keeper_process().wait();
    assert!(exit != Some(0) && log.contains(code), "{code}: {log}");
    log
}

/// The keeper's start ends in a vault that stays closed, with this code.
fn stays_closed(world: &World, code: &str) {
    let mut keeper = world.start_keeper_process();
    keeper.wait_for(code);
    assert!(!keeper.log().contains("the vault is open"), "{}", keeper.log());
    keeper.terminate();
}

fn record(world: &World, file: &str) -> PathBuf {
    world.path("keeper").join(file)
}

fn verify(world: &World) {
    let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
}

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_opens_its_vault_on_the_boot_state_that_it_was_resealed_to() {
    let mut world = open();
    world.publish("1");
    copy(&world.path("keeper"), &world.path("keeper-old"));
    let old_record = fs::read(record(&world, "root.json")).expect("the record");

    // As measured beforehand: the firmware's PCRs from its log, the image's from the image. Too few approvals are none.
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/data/ovmf-swtpm-debian12.bin");
    let measured = run_ok(Command::new(binary("vaultctl")).args(["measure", "pcr", "--eventlog"]).arg(log));
    fs::write(world.path("measured"), measured).expect("the directory is ours");
    run_ok(propose(&world, NEXT).arg("--pcrs").arg(world.path("measured")));
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("one of 3 that the policy allows") && pending.contains("proposed by alice"), "{pending}");
    world.approve(&APPROVERS[1..2]);
    assert!(!record(&world, "root.next.json").exists());
    world.approve(&APPROVERS[2..]);
    assert!(record(&world, "root.next.json").exists());
    let status = run_ok(world.vaultctl().arg("status"));
    let next = hex::encode(pcr_11(NEXT.as_bytes()));
    assert!(status.contains(&format!("PCR 11 {next}")) && status.contains("a reboot into either"), "{status}");
    let json = run_ok(world.vaultctl().args(["status", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["sealing"]["next"]["changed"], serde_json::json!([11]));
    assert_eq!(json["sealing"]["next"]["written"], true);

    // Both boot states open the vault until the next one did.
    reboot(&mut world, None);
    world.start_keeper();
    verify(&world);
    reboot(&mut world, Some(NEXT));
    world.start_keeper();
    verify(&world);
    release(&world).await;
    assert!(!record(&world, "root.next.json").exists());
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(!status.contains("and to:"), "{status}");
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    for words in ["proposes to seal the keeper to", "approves reseal", "is sealed to another boot state too", "no more"]
    {
        assert!(log.contains(words), "{words}: {log}");
    }

    // The directory of before is of no use on the new boot state, and an older copy on the old one.
    copy(&world.path("keeper"), &world.path("keeper-new"));
    reboot(&mut world, Some(NEXT));
    copy(&world.path("keeper-old"), &world.path("keeper"));
    refused(&world, "root-pcrs-changed");
    reboot(&mut world, None);
    refused(&world, "state-older-than-counter");
    // Nor is the old record beside the newest head.
    copy(&world.path("keeper-new"), &world.path("keeper"));
    refused(&world, "root-pcrs-changed");
    fs::write(record(&world, "root.json"), old_record).expect("the directory is ours");
    stays_closed(&world, "root-superseded");
    // The keeper that was killed before it removed the old record.
    let new_record = world.path("keeper-new").join("root.json");
    fs::copy(new_record, record(&world, "root.next.json")).expect("the directory is ours");
    stays_closed(&world, "root-superseded");
    reboot(&mut world, Some(NEXT));
    world.start_keeper();
    assert!(!record(&world, "root.next.json").exists());
    verify(&world);
    release(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_approved_boot_state_opens_the_vault() {
    let mut world = open();
    world.publish("1");
    let (code, said) = run(&mut propose(&world, FOREIGN));
    assert!(code == Some(2) && said.contains("reseal-pcrs-not-allowed"), "{said}");
    let (code, said) = run(propose(&world, NEXT).args(["--pcr", &format!("16={}", "ab".repeat(32))]));
    assert!(code == Some(2) && said.contains("reseal-pcr-selection"), "{said}");
    let said = run_ok(&mut propose(&world, OTHER));
    assert!(said.contains("all that the policy allows"), "{said}");
    world.approve(&APPROVERS[1..]);
    let record_of_other = fs::read(record(&world, "root.next.json")).expect("the record");
    reboot(&mut world, Some(NEXT));
    let said = refused(&world, "root-pcrs-changed");
    assert!(said.contains("sealed to two boot states, and this is neither"), "{said}");

    // Another one takes its place: what was kept of it does not help.
    reboot(&mut world, None);
    world.start_keeper();
    reseal(&world, NEXT);
    let record_of_next = fs::read(record(&world, "root.next.json")).expect("the record");
    reboot(&mut world, Some(OTHER));
    refused(&world, "root-pcrs-changed");
    fs::write(record(&world, "root.next.json"), &record_of_other).expect("the directory is ours");
    stays_closed(&world, "root-superseded");
    fs::write(record(&world, "root.next.json"), &record_of_next).expect("the directory is ours");
    reboot(&mut world, Some(NEXT));
    world.start_keeper();
    verify(&world);
    release(&world).await;

    // From there on to the third, and back home by a reseal that is approved like any other.
    reseal(&world, OTHER);
    reboot(&mut world, Some(OTHER));
    world.start_keeper();
    verify(&world);
    let (code, said) = run(&mut propose(&world, OTHER));
    assert!(code == Some(3) && said.contains("reseal-already"), "{said}");
}

/// What approvers signed for a reseal is in the log, and counts for days: a host sends it again once they have taken it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_reseal_that_was_taken_back_can_not_be_replayed_from_the_log() {
    let world = open();
    block_in_place(|| reseal(&world, NEXT));
    let channel = Endpoint::from_shared(world.url()).expect("a URL").connect().await.expect("the host listens");
    let request = v1::GetEntriesRequest { first: 0, count: 1024 };
    let entries =
        AuditClient::new(channel.clone()).get_entries(request).await.expect("anybody may").into_inner().entries;
    block_in_place(|| {
        let now = pcr_11(&fs::read(binary("vault-enclave")).expect("it was built"));
        run_ok(&mut propose_value(&world, now));
        world.approve(&APPROVERS[1..]);
    });
    assert!(!record(&world, "root.next.json").exists(), "it was taken back");

    let mut guest = Guest::new(&world).await;
    let (mut proposals, mut approvals) = (0, 0);
    for entry in entries {
        match Entry::parse(&entry).expect("an entry") {
            Entry::Propose(Propose { proposal: Proposal::Reseal(proposed), .. }) => {
                let (reseal, signature) = (proposed.reseal(), proposed.signature);
                let submission = ResealSubmission { reseal, statement: proposed.statement.into_bytes(), signature };
                let mut host = ProvisionClient::new(channel.clone());
                let answer = host.submit_reseal(v1::SubmitResealRequest::from(submission)).await;
                assert_eq!(guest.code_of(answer.expect_err("a replay")).await, "object-mismatch");
                proposals += 1;
            }
            Entry::Approve(Approve { statement, signature, witness: None, .. }) => {
                let approval = Approval { statement: statement.into_bytes(), signature, witness: None };
                let refused = guest.approve(approval).await.expect_err("a replay");
                assert_eq!(guest.code_of(refused).await, "proposal-unknown");
                approvals += 1;
            }
            _ => {}
        }
    }
    assert_eq!((proposals, approvals), (1, 2));
    assert!(!record(&world, "root.next.json").exists());
    verify(&world);
}

/// Approvers let the keeper be another image by a later policy: whoever has the vault file of that policy knows it there.
#[test]
fn a_keeper_on_an_image_of_a_later_policy_is_known_by_the_vault_file_of_that_policy() {
    let mut world = World::open();
    let now = hex::encode(pcr_11(&fs::read(binary("vault-enclave")).expect("it was built")));
    let next = hex::encode(pcr_11(NEXT.as_bytes()));
    let (code, said) = run(&mut propose(&world, NEXT));
    assert!(code == Some(2) && said.contains("reseal-pcrs-not-allowed") && said.contains("policy first"), "{said}");
    let allowing = |policy: &mut String| {
        *policy = policy.replace(&format!("11 = [\"{now}\"]"), &format!("11 = [\"{now}\", \"{next}\"]"));
    };
    run_ok(&mut world.propose(&world.next_policy(allowing), APPROVERS[0]));
    world.approve(&APPROVERS[1..]);
    reseal(&world, NEXT);
    reboot(&mut world, Some(NEXT));
    world.start_keeper();

    let with = |file: &Path, arguments: &[&str]| {
        let mut command = Command::new(binary("vaultctl"));
        run(command.arg("--vault").arg(file).args(["--host", &world.url()]).args(arguments))
    };
    let (code, said) = with(&world.vault(), &["status"]);
    assert!(code == Some(4) && said.contains("keeper-pcr-mismatch") && said.contains("vault-file"), "{said}");
    let renewed = world.path("renewed.json");
    let (code, said) = with(&world.vault(), &["vault-file", "--out", renewed.to_str().expect("a plain path")]);
    assert!(code == Some(0) && said.contains("policy 2"), "{said}");
    let (code, said) = with(&renewed, &["status"]);
    assert!(code == Some(0) && said.contains("Verified now"), "{said}");
    let (code, said) = with(&renewed, &["log", "verify", "--fresh"]);
    assert!(code == Some(0) && said.contains("Verified:"), "{said}");
    fs::copy(&renewed, world.vault()).expect("the directory is ours");
    world.publish("1");
}

#[test]
fn what_was_cut_short_after_the_approval_is_done_at_the_next_start_and_what_fails_is_tried_again() {
    let mut world = open();
    // The disk refuses the record: the approval stands, and everybody sees that it is not written.
    let in_the_way = record(&world, "root.next.json.new");
    fs::create_dir(&in_the_way).expect("the directory is ours");
    run_ok(&mut propose(&world, NEXT));
    world.approve(&APPROVERS[1..]);
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("NOT WRITTEN YET"), "{status}");
    fs::remove_dir(&in_the_way).expect("the directory is ours");
    world.keeper.as_mut().expect("it runs").wait_for("the records of the root are as the log says");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("the record is written"), "{status}");

    // Killed between entry and record.
    world.keeper.take().expect("it runs").kill();
    fs::remove_file(record(&world, "root.next.json")).expect("it was written");
    world.start_keeper();
    let log = world.keeper.as_ref().expect("it runs").log();
    assert!(log.contains("the record for the approved boot state is missing"), "{log}");
    assert!(record(&world, "root.next.json").exists());
    // A record that somebody damaged is written again; on the boot state that needs it, it is named.
    world.keeper.take().expect("it runs").kill();
    fs::write(record(&world, "root.next.json"), "{}").expect("the directory is ours");
    reboot(&mut world, Some(NEXT));
    let said = refused(&world, "root-damaged");
    assert!(said.contains("root.next.json"), "{said}");
    reboot(&mut world, None);
    world.start_keeper();
    reboot(&mut world, Some(NEXT));
    world.start_keeper();
    verify(&world);
}

#[test]
fn a_reseal_is_taken_back_by_one_to_the_present_boot_state() {
    let mut world = open();
    reseal(&world, NEXT);
    let back = format!("11={}", hex::encode(pcr_11(&fs::read(binary("vault-enclave")).expect("it was built"))));
    let mut propose = world.vaultctl();
    propose.args(["propose", "reseal", "--pcr", &back, "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    run_ok(&mut propose);
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("the reseal in force is taken back"), "{pending}");
    world.approve(&APPROVERS[1..]);
    assert!(!record(&world, "root.next.json").exists());
    reboot(&mut world, Some(NEXT));
    refused(&world, "root-pcrs-changed");
    reboot(&mut world, None);
    world.start_keeper();
    verify(&world);
}

/// Bob's signature over a statement, which a test changed.
fn signed(world: &World, statement: &ApprovalStatement) -> Approval {
    let file = world.path("statement.json");
    let _ = fs::remove_file(world.path("statement.json.sig"));
    fs::write(&file, statement.encode()).expect("the directory is ours");
    let key = world.path(APPROVERS[1]);
    run_ok(Command::new("ssh-keygen").args(["-Y", "sign", "-n", "weightvault", "-f"]).arg(key).arg(&file));
    let signature = fs::read_to_string(world.path("statement.json.sig")).expect("ssh-keygen wrote it");
    Approval { statement: statement.encode(), signature, witness: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_a_reseal_counts_once_in_time_and_under_the_policy_in_force() {
    let world = open();
    let said = run_ok(propose(&world, NEXT).arg("--json"));
    // What was shown to the signer follows behind.
    let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
    let said = documents.next().expect("a report").expect("JSON");
    let object: Sha256Digest = said["object"].as_str().expect("a text").parse().expect("a digest");
    let vault = VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file");
    let policy = vault.policy();
    let good = ApprovalStatement {
        action: ApprovalAction::Reseal,
        object,
        previous: policy.digest(),
        vault: vault.id(),
        serial: policy.serial(),
        not_after: UnixTime(u32::MAX.into()),
    };
    let keeper = vault.genesis().keeper();
    let pcrs = said["pcrs"].as_object().expect("a map").iter().map(|(index, value)| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(value.as_str().expect("a text"), &mut bytes).expect("hex");
        (index.parse().expect("a number"), bytes)
    });
    let named = Reseal { instance: keeper.instance, ak_name: keeper.ak_name, pcrs: pcrs.collect(), measurement: None };
    assert_eq!(named.object(0), object);

    let mut guest = Guest::new(&world).await;
    for (code, statement) in [
        ("statement-expired", ApprovalStatement { not_after: UnixTime(1), ..good }),
        ("serial-mismatch", ApprovalStatement { serial: good.serial + 1, ..good }),
        ("previous-mismatch", ApprovalStatement { previous: object, ..good }),
        ("action-mismatch", ApprovalStatement { action: ApprovalAction::Policy, ..good }),
        ("vault-mismatch", ApprovalStatement { vault: object, ..good }),
    ] {
        let refused = guest.approve(signed(&world, &statement)).await.expect_err(code);
        assert_eq!(guest.code_of(refused).await, code);
    }
    let approval = signed(&world, &good);
    guest.approve(approval.clone()).await.expect("Bob approves");
    let again = guest.approve(approval.clone()).await.expect_err("the same again");
    assert_eq!(guest.code_of(again).await, "already-approved");
    // A policy that comes into force voids it, and what was signed under the one before.
    let next = world.next_policy(|policy| *policy = policy.replacen("max_leases = 256", "max_leases = 128", 1));
    run_ok(&mut world.propose(&next, APPROVERS[0]));
    let policy = Sha256Digest::of(&fs::read(&next).expect("the policy")).to_string();
    for name in &APPROVERS[1..] {
        run_ok(world.vaultctl().args(["approve", &policy, "--yes", "--key"]).arg(world.path(name)));
    }
    run_ok(&mut propose(&world, NEXT));
    let replayed = guest.approve(approval).await.expect_err("of the policy before");
    assert_eq!(guest.code_of(replayed).await, "serial-mismatch");
    assert!(!record(&world, "root.next.json").exists());
}
