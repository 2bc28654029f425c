//! A minority of approvers, with what they and others signed before.

use std::fs;
use std::process::Command;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::vault_file::VaultFile;
use vault_proto::convert::Approval;

use super::{Report, Seen, code_of};
use crate::{Guest, World, run_ok};

pub(super) async fn play(world: &World, report: &mut Report) {
    report.attack("minority");
    world.seal("2");
    let mut guest = Guest::new(world).await;
    let good = statement(world);
    let mallory = sign(world, "mallory", &good);
    report.refused("a signature of somebody who is no approver", "not-an-approver", submit(&mut guest, mallory).await);
    type Change = fn(&mut ApprovalStatement);
    let cases: [(&str, &'static str, Change); 5] = [
        ("an approval for another vault", "vault-mismatch", |it| it.vault = Sha256Digest::of(b"another vault")),
        ("an approval under an older policy", "serial-mismatch", |it| it.serial = 0),
        ("an approval that ran out", "statement-expired", |it| it.not_after = UnixTime(1_000_000_000)),
        ("an approval of something else", "proposal-unknown", |it| it.object = Sha256Digest::of(b"another model")),
        ("an approval of another act", "action-mismatch", |it| it.action = ApprovalAction::Policy),
    ];
    for (what, code, change) in cases {
        let mut bent = good;
        change(&mut bent);
        report.refused(what, code, submit(&mut guest, sign(world, "alice", &bent)).await);
    }
    let alice = sign(world, "alice", &good);
    let mut swapped = alice.clone();
    swapped.statement = sign(world, "alice", &ApprovalStatement { serial: 7, ..good }).statement;
    report.refused("a signature over another text", "sshsig-invalid", submit(&mut guest, swapped).await);

    report.works("one approver's signature counts", submit(&mut guest, alice.clone()).await);
    report.refused("the same signature again", "already-approved", submit(&mut guest, alice).await);
    let repeated = sign(world, "alice", &ApprovalStatement { not_after: UnixTime(good.not_after.0 - 1), ..good });
    report.refused("another signature of the same approver", "already-approved", submit(&mut guest, repeated).await);
    let mut ask = guest.ask();
    ask.version = "2".to_owned();
    let asked = guest.challenge(ask.clone()).await;
    report.refused("a load of what one of two approved", "model-unknown", code_of(&mut guest, asked).await);

    let bob = sign(world, "bob", &good);
    report.works("the second approver's signature", submit(&mut guest, bob.clone()).await);
    report.refused("an old approval, replayed", "proposal-unknown", submit(&mut guest, bob).await);
    let asked = guest.challenge(ask).await;
    report.works("what two approved is offered", code_of(&mut guest, asked).await);
}

/// What approvers sign for the model that waits.
fn statement(world: &World) -> ApprovalStatement {
    let vault = VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file");
    let pending = run_ok(world.vaultctl().args(["pending", "--json"]));
    let pending: serde_json::Value = serde_json::from_str(&pending).expect("JSON");
    let object = pending["pending"][0]["object"].as_str().expect("one proposal waits");
    let policy = fs::read(world.path("policy.toml")).expect("the policy");
    ApprovalStatement {
        action: ApprovalAction::Model,
        object: object.parse().expect("a digest"),
        previous: Sha256Digest::of(&policy),
        vault: vault.id(),
        serial: 1,
        not_after: UnixTime(u32::MAX.into()),
    }
}

/// The statement, signed by the key of this name; who has none gets one.
fn sign(world: &World, name: &str, statement: &ApprovalStatement) -> Approval {
    let (key, file) = (world.path(name), world.path("statement.json"));
    if !key.exists() {
        run_ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    }
    let _ = fs::remove_file(world.path("statement.json.sig"));
    fs::write(&file, statement.encode()).expect("the directory is ours");
    run_ok(Command::new("ssh-keygen").args(["-Y", "sign", "-n", "weightvault", "-f"]).arg(&key).arg(&file));
    let signature = fs::read_to_string(world.path("statement.json.sig")).expect("ssh-keygen wrote it");
    Approval { statement: statement.encode(), signature, witness: None }
}

async fn submit(guest: &mut Guest, approval: Approval) -> Seen {
    let answer = guest.approve(approval).await;
    code_of(guest, answer).await
}
