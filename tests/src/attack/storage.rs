//! Older copies of what is stored, second copies of it, and disks in other machines.

use std::fs;
use std::path::Path;

use super::{Report, Seen, code_of, said};
use crate::process::copy;
use crate::{Guest, Swtpm, World, binary};

pub(super) async fn play(mut report: Report) {
    let mut world = World::open();
    world.publish("1");
    rollback(&mut world, &mut report).await;
    fork(&mut world, &mut report).await;
    disk(&mut world, &mut report).await;
}

async fn rollback(world: &mut World, report: &mut Report) {
    report.attack("rolled-back storage");
    report.works("a release", released(world).await);
    stop(world);
    keep(world, "old");
    start(world);
    report.works("the same storage, started again", released(world).await);
    stop(world);
    keep(world, "new");

    put(world, "keeper", "old");
    report.refused(
        "an older keeper directory, the newest log",
        "state-older-than-counter",
        start_refused(world, "state-older-than-counter"),
    );
    put(world, "host", "old");
    report.refused(
        "both older: the counter has gone on",
        "state-older-than-counter",
        start_refused(world, "state-older-than-counter"),
    );
    put(world, "keeper", "new");
    fs::remove_file(world.path("keeper").join("head")).expect("there is a head");
    report.refused("a keeper directory without its head", "head-missing", start_refused(world, "head-missing"));
    put(world, "keeper", "new");
    fs::copy(world.path("keeper-old").join("head"), world.path("keeper").join("head")).expect("there is a head");
    report.refused(
        "an older head beside the newest records",
        "state-older-than-counter",
        start_refused(world, "state-older-than-counter"),
    );

    put(world, "keeper", "new");
    let mut keeper = world.start_keeper_process();
    world.start_host();
    keeper.wait_for("log-unavailable");
    report.refused(
        "an older log, the newest keeper directory",
        "log-unavailable",
        said(None, &keeper.log(), "log-unavailable"),
    );
    world.host.take().expect("it runs").terminate();
    put(world, "host", "new");
    world.start_host();
    keeper.wait_for("the vault is open");
    world.keeper = Some(keeper);
    report.works("the newest of both", released(world).await);
}

async fn fork(world: &mut World, report: &mut Report) {
    report.attack("fork");
    stop(world);
    keep(world, "fork");
    start(world);
    report.works("the first of two copies of the keeper", released(world).await);
    let mut second = world.enclave("keeper");
    let tpm = world.keeper_tpm.as_ref().expect("it is on");
    second.arg("--dir").arg(world.path("keeper-fork")).args(["--tpm", &tpm.tcti]);
    second.arg("--listen").arg(format!("unix:{}", world.path("fork.sock").display()));
    let (exit, log) = crate::Running::start(&mut second, &world.path("fork.log")).wait();
    // The keeper says this one in words alone.
    let in_use = said(exit, &log, "is in use by process").map_err(|seen| match seen.as_str() {
        "is in use by process" => "tpm-in-use".to_owned(),
        _ => seen,
    });
    report.refused("the second beside it, on the same TPM", "tpm-in-use", in_use);
    report.works("the first goes on", released(world).await);
    stop(world);
    keep(world, "new");
    put(world, "keeper", "fork");
    report.refused("the second after it", "state-older-than-counter", start_refused(world, "state-older-than-counter"));
    put(world, "keeper", "new");
}

async fn disk(world: &mut World, report: &mut Report) {
    let (state, ca) = (world.path("tpm"), world.path("ca"));
    let switch_to = |world: &mut World, state: &Path, image: &str| {
        world.keeper_tpm.take().expect("it is on").stop();
        world.keeper_tpm = Some(Swtpm::start(state, &ca, &binary(image)));
    };
    report.attack("stolen disk");
    let thief = world.path("tpm-thief");
    switch_to(world, &thief, "vault-enclave");
    report.refused(
        "model and keeper directories on another TPM",
        "root-other-tpm",
        start_refused(world, "root-other-tpm"),
    );
    report.attack("changed boot");
    switch_to(world, &state, "vault-host");
    report.refused(
        "the keeper's machine, booted with another program",
        "root-pcrs-changed",
        start_refused(world, "root-pcrs-changed"),
    );
    switch_to(world, &state, "vault-enclave");
    start(world);
    report.works("the keeper's machine, booted as before", released(world).await);
}

pub(super) async fn released(world: &World) -> Seen {
    let mut guest = Guest::new(world).await;
    let answer = guest.load().await;
    code_of(&mut guest, answer).await
}

pub(super) fn start(world: &mut World) {
    world.start_keeper();
    world.start_host();
}

pub(super) fn stop(world: &mut World) {
    world.keeper.take().expect("it runs").terminate();
    world.host.take().expect("it runs").terminate();
}

fn start_refused(world: &World, code: &str) -> Seen {
    let (exit, log) = world.start_keeper_process().wait();
    said(exit, &log, code)
}

/// Copies what is stored, as somebody with root on the host does.
pub(super) fn keep(world: &World, name: &str) {
    for dir in ["keeper", "host"] {
        copy(&world.path(dir), &world.path(&format!("{dir}-{name}")));
    }
}

pub(super) fn put(world: &World, dir: &str, name: &str) {
    copy(&world.path(&format!("{dir}-{name}")), &world.path(dir));
}
