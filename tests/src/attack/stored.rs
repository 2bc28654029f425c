//! A hostile host: it changes what it stores, and what it relays between a guest and the keeper.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tokio::task::block_in_place;

use super::hostile::{Hostile, Lie};
use super::{Report, Seen, said};
use crate::{Running, Swtpm, World, run};

pub(super) async fn play(mut report: Report) {
    let (world, tpm) = block_in_place(World::open_with_guest);
    world.publish("1");
    let scene = Scene { world, tpm };
    report.attack("host: stored");
    scene.stored(&mut report);
    report.attack("host: relayed");
    let hostile = Hostile::start(&scene.world).await;
    for (what, code, lie) in LIES {
        hostile.tell(lie.clone());
        let seen = block_in_place(|| scene.load(hostile.url(), code));
        match lie {
            Lie::None => report.works(what, seen),
            _ => report.refused(what, code, seen),
        }
    }
    let (exit, log) = block_in_place(|| run(scene.world.vaultctl().args(["log", "verify", "--fresh"])));
    report.works("the log verifies behind all this", said(exit, &log, "ready"));
}

/// In this order: the first load's grant is what the host swaps in later.
const LIES: &[(&str, &str, Lie)] = &[
    ("relayed as it came", "ready", Lie::None),
    ("a challenge of another vault", "challenge-other-vault", Lie::Challenge(|it| it.vault_id[0] ^= 1)),
    ("a challenge with another manifest", "manifest-mismatch", Lie::Challenge(|it| it.manifest_digest[0] ^= 1)),
    ("a challenge for fewer units", "challenge-other-units", Lie::Challenge(|it| it.units.truncate(1))),
    ("a challenge with another nonce", "binding-mismatch", Lie::Challenge(|it| it.nonce[0] ^= 1)),
    ("a grant with another signature", "grant-signature", Lie::Grant(|it, _| it.signature[0] ^= 1)),
    ("a grant with other wrapped keys", "grant-signature", Lie::Grant(|it, _| it.wrapped_keys[0] ^= 1)),
    ("a grant with another entry", "grant-signature", Lie::Grant(|it, old| it.entry.clone_from(&old.entry))),
    ("a genuine grant of an earlier release", "grant-other-release", Lie::Grant(|it, old| it.clone_from(old))),
    (
        "a grant with the log proof of another",
        "merkle-root-mismatch",
        Lie::Grant(|it, old| {
            it.log_proof.clone_from(&old.log_proof);
        }),
    ),
    ("a grant with the lease of another", "lease-other", Lie::Grant(|it, old| it.lease.clone_from(&old.lease))),
    ("other ciphertext", "key-commitment", Lie::Ciphertext),
    ("relayed as it came, again", "ready", Lie::None),
];

pub(super) struct Scene {
    pub world: World,
    pub tpm: Swtpm,
}

impl Scene {
    /// What lies on the host's disk, changed while it runs.
    fn stored(&self, report: &mut Report) {
        let load = |code: &str| block_in_place(|| self.load(&self.world.url(), code));
        report.works("nothing changed", load("ready"));
        let of_model = |file: &str| self.world.path("host").join("models/demo/1").join(file);
        let (path, manifest) = (of_model("units/00002.cob"), of_model("manifest.json"));
        let read = |path: &PathBuf| fs::read(path).expect("the host stores it");
        let write = |path: &PathBuf, bytes: &[u8]| fs::write(path, bytes).expect("the host's root may");
        let good = read(&path);
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        write(&path, &flipped);
        report.refused("a unit with one bit changed", "chunk-refused", load("chunk-refused"));
        write(&path, &read(&of_model("units/00003.cob")));
        report.refused("another unit in its place", "key-commitment", load("key-commitment"));
        write(&path, &good);
        let text = read(&manifest);
        let edited = String::from_utf8(text.clone()).expect("JSON").replacen("layer.0", "layer.9", 1);
        write(&manifest, edited.as_bytes());
        report.refused("a manifest with another group", "manifest-mismatch", load("manifest-mismatch"));
        write(&manifest, &text);
        report.works("all as it was", load("ready"));
    }

    /// A load by way of this host until it is ready, or its refusal.
    pub(super) fn load(&self, host: &str, code: &str) -> Seen {
        let name = self.world.path("").file_name().expect("a name").to_string_lossy().into_owned();
        let (into, log) = (PathBuf::from(format!("/dev/shm/{name}-attack")), self.world.path("load.log"));
        let _ = fs::remove_file(&log);
        let mut load: Command = self.world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", &self.tpm.tcti, "--host", host, "--vault"]);
        let mut load = Running::start(load.arg(self.world.vault()).arg("--into").arg(&into), &log);
        let seen = match load.ready_or_end("ready") {
            true => {
                load.terminate();
                Ok(())
            }
            false => {
                let (exit, mut log) = load.wait();
                // A guest learns little; its request id leads to what the keeper said.
                let id = log.split_once("vaultctl explain ").and_then(|(_, rest)| rest.split_whitespace().next());
                if let Some(id) = id.map(str::to_owned) {
                    log.push_str(&run(self.world.vaultctl().args(["explain", &id])).1);
                }
                let left = fs::read_dir(&into).is_ok_and(|mut entries| entries.next().is_some());
                if left { Err("plaintext is left".to_owned()) } else { said(exit, &log, code) }
            }
        };
        let _ = fs::remove_dir(&into);
        seen
    }
}
