//! What is proposed, and what is not.

use std::process::Command;

use attestation::{Evidence, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::state::PROPOSALS_PER_PROPOSER_MAX;
use ledger::vault_file::VaultFile;
use vault_proto::convert::{Approval, EvidenceSet, GenesisWitness};
use vault_tests::world::{APPROVERS, PCRS, guest_pcr};
use vault_tests::{Guest, World, run, run_ok};

#[test]
fn a_policy_that_locks_its_keeper_out_is_not_proposed() {
    let mut world = World::open();
    let here = keeper_pcr(&world);
    let elsewhere = hex::encode(guest_pcr(7));
    type Edit<'a> = (&'a str, Box<dyn Fn(&mut String) + 'a>);
    let locked_out: [Edit; 3] = [
        ("[keeper] eks", Box::new(|policy| *policy = policy.replacen("eks = \"any\"", OTHER_EKS, 1))),
        ("[keeper] pcrs", Box::new(|policy| *policy = policy.replacen(&here, &elsewhere, 1))),
        ("[[anchors]]", Box::new(drop_anchors_of_swtpm)),
    ];
    for (named, edit) in locked_out {
        let next = world.next_policy(|policy| {
            let before = policy.clone();
            edit(policy);
            assert_ne!(*policy, before, "{named}: nothing was changed");
        });
        let (code, said) = run(&mut world.propose(&next, APPROVERS[0]));
        assert_eq!(code, Some(3), "{named}: {said}");
        assert!(said.contains("policy-keeper-locked-out") && said.contains(named), "{named}: {said}");
    }
    // A proof that its evidence never has, whatever devices it is started with.
    let next = world.next_policy(ask_for_a_report);
    let (code, said) = run(&mut world.propose(&next, APPROVERS[0]));
    assert!(code == Some(3) && said.contains("policy-keeper-proof") && said.contains("keeper.require"), "{said}");
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(!pending.contains("sha256:"), "{pending}");

    // Under one that it fits it goes on, also after a restart.
    let next = world.next_policy(|policy| *policy = policy.replacen("max_leases = 256", "max_leases = 128", 1));
    run_ok(&mut world.propose(&next, APPROVERS[0]));
    world.approve(&APPROVERS[1..]);
    world.keeper.take().expect("it runs").terminate();
    world.start_keeper();
    let log = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(log.contains("Verified:"), "{log}");
}

/// Spelled in another way, the bundle of a model that waits verifies all the same. It is no other proposal.
#[test]
fn a_model_waits_once_however_its_signature_is_spelled() {
    let world = World::open();
    let sealed = world.path("sealed");
    let mut seal = world.enclave("seal");
    seal.arg(world.source()).args(["--model", "demo", "--version", "1", "--vault"]).arg(world.vault());
    run_ok(seal.arg("--publisher-key").arg(world.path("publisher.pem")).args(["--no-upload", "--out"]).arg(&sealed));
    let publish = || run(world.enclave("publish").arg(&sealed).arg("--vault").arg(world.vault()));
    for spelling in 0..=PROPOSALS_PER_PROPOSER_MAX {
        let (code, said) = publish();
        assert_eq!(code, Some(0), "spelling {spelling}: {said}");
        let mut bundle = std::fs::read(sealed.join("model.sig")).expect("the signature");
        bundle.push(b' ');
        std::fs::write(sealed.join("model.sig"), bundle).expect("the directory is ours");
    }
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    assert_eq!(log.lines().filter(|line| line.contains(" propose ")).count(), 1, "{log}");
    // The host keeps the files of the one that waits: it becomes the model.
    world.approve(&APPROVERS[..2]);
    let models = run_ok(world.vaultctl().arg("models"));
    assert!(models.contains("demo@1"), "{models}");
    let proposed = std::fs::read_dir(world.path("host").join("proposed")).expect("the host's directory").count();
    assert_eq!(proposed, 0);
}

/// A witness is work for the keeper: nobody makes it do that for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn genesis_takes_no_witness_from_strangers_and_none_once_it_is_complete() {
    let world = World::before_ceremony(|_, _| {});
    let mut guest = Guest::new(&world).await;
    let vault = std::fs::read(world.vault()).expect("the vault file");
    let vault = VaultFile::parse(&vault).expect("the vault file");
    let statement = ApprovalStatement {
        action: ApprovalAction::Genesis,
        object: vault.id(),
        previous: vault.genesis().core().digest(),
        vault: vault.id(),
        serial: 0,
        not_after: UnixTime(u32::MAX.into()),
    };
    let quote = guest.tpm.quote(&guest.identity, &PCRS, &[0; 32]);
    let approval = Approval {
        statement: statement.encode(),
        signature: signed_by_a_stranger(&world, &statement.encode()),
        witness: Some(GenesisWitness {
            evidence: EvidenceSet { evidence: Evidence::Tpm(quote), event_log: None },
            nonce: [0; 32],
            activation_secret: [0; 32],
        }),
    };
    // A stranger's signature: the witness, which is none at all, is not even looked at.
    let refused = guest.approve(approval.clone()).await.expect_err("a stranger's signature");
    assert_eq!(guest.code_of(refused).await, "not-an-approver");
    world.sign_genesis();
    let late = guest.approve(approval).await.expect_err("it is complete");
    assert_eq!(guest.code_of(late).await, "genesis-complete");
}

/// By a key that is no approver's.
fn signed_by_a_stranger(world: &World, statement: &[u8]) -> String {
    let (key, file) = (world.path("mallory"), world.path("statement.json"));
    std::fs::write(&file, statement).expect("the directory is ours");
    run_ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    run_ok(Command::new("ssh-keygen").args(["-Y", "sign", "-n", "weightvault", "-f"]).arg(&key).arg(&file));
    std::fs::read_to_string(world.path("statement.json.sig")).expect("ssh-keygen wrote it")
}

/// Only the EK of some other machine.
const OTHER_EKS: &str = "eks = [\"sha256:5555555555555555555555555555555555555555555555555555555555555555\"]";

/// The value of the keeper's PCR 7, as the policy has it.
fn keeper_pcr(world: &World) -> String {
    let policy = std::fs::read_to_string(world.path("policy.toml")).expect("the policy");
    let (_, keeper) = policy.split_once("[keeper]").expect("it has a keeper");
    let (_, value) = keeper.split_once(" 7 = [\"").expect("it names PCR 7");
    value.chars().take(64).collect()
}

/// No anchor for the keeper's TPM: those of the forge stay.
fn drop_anchors_of_swtpm(policy: &mut String) {
    for name in ["swtpm-root", "swtpm-issuer"] {
        let start = policy.find(&format!("[[anchors]]\nname = \"{name}\"")).expect("it has the anchor");
        let end = policy[start..].find("-----END CERTIFICATE-----\n\"\"\"\n").expect("with its certificate");
        policy.replace_range(start..start + end + "-----END CERTIFICATE-----\n\"\"\"\n".len(), "");
    }
}

/// A keeper that proves its chip; no rule asks guests for anything.
fn ask_for_a_report(policy: &mut String) {
    let snp = format!(
        "[keeper.snp]\ncode_covered_by = \"launch\"\nmeasurements = [\"{}\"]\nchips = \"any\"\n\
         min_tcb.milan = {{ bootloader = 1, tee = 0, snp = 1, microcode = 1 }}\nvmpl = 0\nmin_report_version = 5\n\
         crl = \"required\"\nsmt = true\nprovisional_firmware = false\n",
        "ab".repeat(48)
    );
    let (rules, audit) =
        (policy.find("[release.").expect("it has rules"), policy.find("[audit]").expect("and a section behind them"));
    policy.replace_range(rules..audit, "");
    *policy = policy.replacen("require = [\"tpm\"]", "require = [\"snp\"]", 1);
    policy.insert_str(policy.find("[publish.").expect("it has publishers"), &snp);
}
