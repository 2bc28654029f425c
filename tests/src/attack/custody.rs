//! A keeper that is lost, and those who would have its vault: some of the custodians, old shares, the lost one come back.

use std::fs;
use std::process::Command;

use tokio::task::block_in_place;

use super::storage::released;
use super::{Report, Seen, said};
use crate::escrow::{self, approve, contribute, recovering};
use crate::newcomer::Newcomer;
use crate::world::APPROVERS;
use crate::{Boot, World, binary, run};

pub(super) async fn play(mut report: Report) {
    let mut world = block_in_place(World::open);
    block_in_place(|| {
        world.publish("1");
        escrow::split(&world, 1);
        escrow::split(&world, 2);
    });
    report.attack("custodians");
    report.works("a release by the keeper", released(&world).await);
    let tried = block_in_place(|| ended(&mut contribute(&world, 2, "safe"), "keeper-not-lost"));
    report.refused("shares for a keeper that is not lost", "keeper-not-lost", tried);
    world.keeper.take().expect("it runs").kill();
    let lost = Newcomer { name: "lost".to_owned(), tpm: world.keeper_tpm.take(), tcti: None };
    fs::rename(world.path("keeper"), lost.dir(&world)).expect("the directory is ours");

    let foreign = Newcomer::booted(&world, "foreign", &Boot { firmware: None, image: binary("vault-host") });
    let mut keeper = recovering(&world, &foreign, &["--accept-rollback"]);
    keeper.wait_for("keeper-pcr-mismatch");
    let tried = ended(&mut contribute(&world, 2, "safe"), "recovery-log");
    report.refused("shares for a machine that booted another program", "recovery-log", tried);
    keeper.kill();

    let newcomer = Newcomer::new(&world, "b");
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    let tried = ended(&mut contribute(&world, 1, "safe"), "share-other-set");
    report.refused("a share of the escrow before", "share-other-set", tried);
    let mut wrong = world.vaultctl();
    wrong.args(["recover", "contribute", "--yes", "--share"]).arg(escrow::share(&world, 2, "safe"));
    let tried = ended(wrong.arg("--key").arg(escrow::key(&world, "notary")), "share-refused");
    report.refused("a share by the key of another custodian", "share-refused", tried);
    report.works("one custodian's share", ended(&mut contribute(&world, 2, "notary"), "-"));
    report.works("one approver", ended(&mut approve(&world, APPROVERS[0]), "-"));
    report.works("another one", ended(&mut approve(&world, APPROVERS[1]), "-"));
    report.works("the same share again", ended(&mut contribute(&world, 2, "notary"), "-"));
    let code = "keeper-recovering";
    report.refused("a release by one of three shares, all approvals", code, released(&world).await);
    keeper.kill();
    // What was given is forgotten, and what was approved must be approved anew.
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    for custodian in ["notary", "sister"] {
        report.works("a share", ended(&mut contribute(&world, 2, custodian), "-"));
    }
    report.works("one approver", ended(&mut approve(&world, APPROVERS[0]), "-"));
    report.refused("the same approver again", "already-approved", {
        ended(&mut approve(&world, APPROVERS[0]), "already-approved")
    });
    report.refused("a release by all shares, one of two approvals", code, released(&world).await);
    report.works("the second approver", ended(&mut approve(&world, APPROVERS[1]), "-"));
    keeper.wait_for("the vault is open");
    report.works("a release by the recovered keeper", released(&world).await);

    report.attack("lost keeper");
    keeper.terminate();
    let mut old = lost.start_keeper_process(&world);
    world.host.take().expect("it runs").terminate();
    world.keeper_link = Some(world.path("keeper-lost.sock"));
    world.start_host();
    old.wait_for("keeper-declared-lost");
    let seen = said(None, &old.log(), "keeper-declared-lost");
    report.refused("the lost keeper, come back with its TPM", "keeper-declared-lost", seen);
}

/// A command that was refused, or not.
fn ended(command: &mut Command, code: &str) -> Seen {
    let (exit, log) = run(command);
    said(exit, &log, code)
}
