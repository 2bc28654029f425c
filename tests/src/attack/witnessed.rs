//! A vault with witnesses: checkpoints that no quorum has cosigned, cosignatures of something else, and an older log.

use std::sync::Arc;

use attestation::UnixTime;
use tokio::task::block_in_place;

use super::hostile::{Hostile, Lie, NoteChange};
use super::storage::{keep, put, released, start, stop};
use super::stored::Scene;
use super::{Report, code_of};
use crate::witnesses::serve;
use crate::{Guest, World};

/// The code of whoever misses a quorum.
const NO_QUORUM: &str = "witness-quorum-missing";

pub(super) async fn play(mut report: Report) {
    let (world, tpm) = block_in_place(World::open_witnessed_with_guest);
    block_in_place(|| world.publish("1"));
    let mut scene = Scene { world, tpm };
    report.attack("witnesses: shown");
    shown(&scene, &report).await;
    report.attack("witnesses: asked");
    asked(&mut scene.world, &report).await;
    report.attack("witnesses: older log");
    older(&mut scene.world, &report).await;
}

/// A host between an agent and the vault.
async fn shown(scene: &Scene, report: &Report) {
    let hostile = Hostile::start(&scene.world).await;
    for (what, code, change) in notes(&scene.world) {
        hostile.tell(change.map_or(Lie::None, Lie::Note));
        let seen = block_in_place(|| scene.load(hostile.url(), code));
        match code {
            "ready" => report.works(what, seen),
            _ => report.refused(what, code, seen),
        }
    }
}

/// What is tried with the note under a grant. The first load's is what is replayed later.
fn notes(world: &World) -> Vec<(&'static str, &'static str, Option<NoteChange>)> {
    let witnesses = world.witnesses.as_ref().expect("it has witnesses");
    let elsewhere = |index| {
        // Of the very same size and root, in a log of another name.
        let text = "weightvault/another\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        witnesses.cosigned_by(index, text, UnixTime(1_790_000_000))
    };
    let (one, two) = (elsewhere(0), elsewhere(1));
    let change = |change: fn(&str, &[&str], &[&str]) -> Vec<String>| -> Option<NoteChange> {
        Some(Arc::new(move |note, old| {
            let (text, lines) = parts(note);
            let (_, old) = parts(old);
            format!("{text}\n\n{}\n", change(text, &lines, &old).join("\n"))
        }))
    };
    let elsewhere: NoteChange = Arc::new(move |note, _| {
        let (text, lines) = parts(note);
        format!("{text}\n\n{}\n{one}{two}", lines[0])
    });
    vec![
        ("relayed as it came", "ready", None),
        ("a checkpoint that nobody cosigned", NO_QUORUM, change(|_, lines, _| vec![lines[0].into()])),
        ("one that one witness cosigned", NO_QUORUM, change(|_, lines, _| vec![lines[0].into(), lines[1].into()])),
        (
            "one that the same witness cosigned twice",
            NO_QUORUM,
            change(|_, lines, _| vec![lines[0].into(), lines[1].into(), lines[1].into()]),
        ),
        (
            "one with the cosignatures of an older one",
            "cosignature-signature",
            change(|_, lines, old| [&lines[..1], &old[1..]].concat().iter().map(|line| (*line).to_owned()).collect()),
        ),
        ("one with cosignatures for a log of another name", "cosignature-signature", Some(elsewhere)),
        (
            "one that the log key did not sign",
            "note-not-signed",
            change(|_, lines, _| lines[1..].iter().map(|line| (*line).to_owned()).collect()),
        ),
        ("relayed as it came, again", "ready", None),
    ]
}

/// Text and signature lines of a note, the log's own first.
fn parts(note: &str) -> (&str, Vec<&str>) {
    let (text, lines) = note.split_once("\n\n").expect("a note");
    (text, lines.lines().collect())
}

/// A host that asks other witnesses than those it says, or none.
async fn asked(world: &mut World, report: &Report) {
    let vkey = world.log_vkey();
    let witnesses = |world: &mut World| world.witnesses.take().expect("it has witnesses");
    report.works("a release with three witnesses", released(world).await);
    let mut named = witnesses(world);
    named.stop(1);
    let policy = world.vault_file();
    let first = policy.policy().witnesses().expect("it has witnesses").witnesses()[0].clone();
    // It says yes, and gives the signature of something else.
    serve(named.stand_before(0), first, |_, _| "yes\n".to_owned());
    world.witnesses = Some(named);
    world.host.take().expect("it runs").terminate();
    world.start_host();
    let mut guest = Guest::new(world).await;
    let answer = guest.load().await;
    report.refused("one of three witnesses, and one that only says yes", NO_QUORUM, code_of(&mut guest, answer).await);
    report.refused("a release asked for again", NO_QUORUM, released(world).await);
    let mut named = witnesses(world);
    named.stand_aside(0);
    named.start(1, &vkey);
    world.witnesses = Some(named);
    block_in_place(|| {
        stop(world);
        start(world);
        world.keeper.as_mut().expect("it runs").wait_for("the vault is open");
    });
    report.works("a release with all of them again", released(world).await);
}

async fn older(world: &mut World, report: &Report) {
    let reopen = |world: &mut World, until: &str| {
        world.start_keeper();
        world.start_host();
        world.keeper.as_mut().expect("it runs").wait_for(until);
    };
    stop(world);
    keep(world, "old");
    block_in_place(|| reopen(world, "the vault is open"));
    report.works("the same storage, started again", released(world).await);
    stop(world);
    keep(world, "new");
    for dir in ["keeper", "host"] {
        put(world, dir, "old");
    }
    let code = "state-older-than-witnesses";
    block_in_place(|| reopen(world, code));
    report.refused("keeper and log of before", code, released(world).await);
    stop(world);
    put(world, "keeper", "new");
    block_in_place(|| reopen(world, "log-unavailable"));
    let said = super::said(None, &world.keeper.as_ref().expect("it runs").log(), "log-unavailable");
    report.refused("the log of before, the newest keeper directory", "log-unavailable", said);
    stop(world);
    for dir in ["keeper", "host"] {
        put(world, dir, "new");
    }
    block_in_place(|| reopen(world, "the vault is open"));
    report.works("the newest of both", released(world).await);
}
