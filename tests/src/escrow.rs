//! Custodians of a world's keys, and a keeper that takes the place of a lost one by them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::newcomer::Newcomer;
use crate::process::{Running, binary, run_ok};
use crate::world::{APPROVERS, World};

/// Their names; two of them give the keys.
pub const CUSTODIANS: [&str; 3] = ["notary", "safe", "sister"];

/// A custodian's private key.
pub fn key(world: &World, custodian: &str) -> PathBuf {
    world.path(&format!("{custodian}.key"))
}

/// His share of the escrow with this number.
pub fn share(world: &World, number: u32, custodian: &str) -> PathBuf {
    let index = CUSTODIANS.iter().position(|name| *name == custodian).expect("he is one") + 1;
    world.path(&format!("shares-{number}")).join(format!("share-{number}-{index}-{custodian}.json"))
}

/// Makes the custodians' keys, where there are none.
pub fn keygen(world: &World) {
    for custodian in CUSTODIANS {
        if !key(world, custodian).exists() {
            let mut keygen = Command::new(binary("vaultctl"));
            run_ok(keygen.args(["custodian", "keygen", "--name", custodian, "--out"]).arg(key(world, custodian)));
        }
    }
}

/// Has the keys split, two of three, and fetches the shares of what becomes escrow `number`.
pub fn split(world: &World, number: u32) -> String {
    propose(world);
    world.approve(&APPROVERS[1..]);
    let mut fetch = world.vaultctl();
    fetch.args(["escrow", "fetch", "--out"]).arg(world.path(&format!("shares-{number}")));
    run_ok(&mut fetch)
}

/// Proposed by the first approver, who may not approve it.
pub fn propose(world: &World) -> String {
    keygen(world);
    let mut propose = world.vaultctl();
    propose.args(["escrow", "propose", "--threshold", "2", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    for custodian in CUSTODIANS {
        propose.arg("--custodian").arg(key(world, custodian).with_extension("key.pub"));
    }
    run_ok(&mut propose)
}

/// `vaultctl recover contribute` of this share.
pub fn contribute(world: &World, number: u32, custodian: &str) -> Command {
    let mut contribute = world.vaultctl();
    contribute.args(["recover", "contribute", "--yes", "--share"]).arg(share(world, number, custodian));
    contribute.arg("--key").arg(key(world, custodian));
    contribute
}

/// `vaultctl recover approve` of this approver.
pub fn approve(world: &World, approver: &str) -> Command {
    let mut approve = world.vaultctl();
    approve.args(["recover", "approve", "--yes", "--key"]).arg(world.path(approver));
    approve
}

/// The keeper's process on this machine, in the place of the world's, with these options.
pub fn recovering(world: &World, machine: &Newcomer, options: &[&str]) -> Running {
    let socket = world.path("keeper.sock");
    let _ = fs::remove_file(&socket);
    let log = world.path("recover.log");
    let _ = fs::remove_file(&log);
    let tcti = machine.tcti.as_ref().unwrap_or_else(|| &machine.tpm.as_ref().expect("its machine is on").tcti);
    let mut command = world.enclave("keeper");
    command.arg("--dir").arg(machine.dir(world)).args(["--tpm", tcti]);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    command.arg("--recover").arg(world.vault()).args(options);
    Running::start(&mut command, &log)
}
