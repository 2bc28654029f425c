//! `vaultctl audit verify` of a log that the log key signed, and that its keeper should not have written.

use std::path::PathBuf;

use attestation::{Sha256Digest, Trust};
use ledger::checkpoint::Checkpoint;
use ledger::entry::{Entry, Program, Start, TimeSource, Upgrade};
use ledger::merkle::{Tree, leaf_hash};
use ledger::names::Version;
use ledger::snapshot::FOLD_NUMBER;
use ledger::tiles::decode_bundle;
use vaultctl::bundle::{BundleWriter, Index};

use crate::scene::{Ended, Scene, text};

/// An open vault, and its log as an honest bundle has it.
struct Forge {
    scene: Scene,
    entries: Vec<Vec<u8>>,
}

impl Forge {
    fn new() -> Self {
        let scene = Scene::open();
        let out = scene.path("bundle");
        let exported = scene.with_vault(&["audit", "export", "--out", text(&out)]).done();
        assert_eq!((&exported["size"], &exported["evidence"]), (&4.into(), &6.into()));
        let bundle = std::fs::read(out.join("tile/entries/000.p/4")).unwrap();
        let entries = decode_bundle(&bundle, 4).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        Self { scene, entries }
    }

    /// Signs these entries, and lets the auditor look at them and at the evidence of the honest bundle.
    fn audit(&self, entries: &[Vec<u8>], more: &[&[u8]]) -> Ended {
        let dir: PathBuf = self.scene.path("forged");
        let _ = std::fs::remove_dir_all(&dir);
        let writer = BundleWriter::open(&dir).unwrap();
        let mut tree = Tree::new();
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        writer.entries(0, entries).unwrap();
        writer.hashes(&tree).unwrap();
        for blob in std::fs::read_dir(self.scene.path("bundle").join("blob")).unwrap() {
            let blob = std::fs::read(blob.unwrap().path()).unwrap();
            writer.blob(Sha256Digest::of(&blob), &blob).unwrap();
        }
        more.iter().for_each(|blob| writer.blob(Sha256Digest::of(blob), blob).unwrap());
        let vault = Sha256Digest::of(&self.entries[0]);
        let size = tree.len();
        writer.finish(&Index::new(vault, size, (0, size)), &self.checkpoint(entries)).unwrap();
        let since = self.scene.path("since");
        let since = if since.exists() { vec!["--since", text(&since)] } else { Vec::new() };
        self.scene.with_vault(&[&["audit", "verify", text(&dir)], &since[..]].concat())
    }

    /// What the log key signs for a log of these entries.
    fn checkpoint(&self, entries: &[Vec<u8>]) -> String {
        let mut tree = Tree::new();
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        let (vault, size) = (Sha256Digest::of(&self.entries[0]), tree.len());
        self.scene.peer.keeper().checkpoint_of(vault, Checkpoint { size, root: tree.root(size).unwrap() })
    }

    /// The auditor has seen this log before, and kept its checkpoint.
    fn seen_before(&self, entries: &[Vec<u8>]) {
        std::fs::write(self.scene.path("since"), self.checkpoint(entries)).unwrap();
    }
}

fn report(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}{}", ended.stdout, ended.stderr))
}

#[test]
fn a_signed_log_with_an_entry_that_is_not_permitted_is_the_keepers_fault() {
    let forge = Forge::new();
    assert_eq!(forge.audit(&forge.entries, &[]).done()["verdict"], "verified");
    let mut twice = forge.entries.clone();
    twice.push(forge.entries[1].clone());
    let ended = forge.audit(&twice, &[]);
    assert_eq!(ended.code, 12, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(report(&ended)["verdict"], "fold");
    assert!(report(&ended).get("log").is_none(), "nothing that it says is to be believed");
}

/// A keeper that runs a program of next year.
fn newer_program(forge: &Forge, fold: u32) -> Vec<Vec<u8>> {
    let mut entries = forge.entries.clone();
    let time = Entry::parse(entries.last().unwrap()).unwrap().time();
    let version: Version = "9.9.9".parse().unwrap();
    let start = Start {
        time,
        run: [1; 16],
        version: version.clone(),
        tier: Trust::Emulated,
        time_source: TimeSource::HostClock,
        keeper: None,
    };
    let upgrade = Upgrade { time, from: None, to: Program { version, fold, digest: None }, fold };
    entries.push(Entry::Start(start).encode().unwrap());
    entries.push(Entry::Upgrade(upgrade).encode().unwrap());
    entries
}

#[test]
fn an_auditor_whose_program_is_too_old_for_the_log_is_told_which_one_to_take() {
    let forge = Forge::new();
    let known = forge.audit(&newer_program(&forge, FOLD_NUMBER), &[]).done();
    let says = known["log"]["stands_out"].to_string();
    assert!(says.contains("version 9.9.9") && says.contains("whoever reads the log must know fold"), "{says}");
    let ended = forge.audit(&newer_program(&forge, FOLD_NUMBER + 1), &[]);
    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    for part in ["program-too-old", "use `vaultctl` of version 9.9.9"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn a_log_that_was_cut_or_forked_since_the_auditor_last_looked_is_found_though_the_log_key_signed_it() {
    let forge = Forge::new();
    let fails_with = |entries: &[Vec<u8>], code: &str| {
        let ended = forge.audit(entries, &[]);
        assert_eq!(ended.code, 11, "{}{}", ended.stdout, ended.stderr);
        let report = report(&ended);
        assert_eq!((&report["verdict"], &report["fault"]["code"]), (&"consistency".into(), &code.into()), "{report}");
        assert!(report.get("log").is_none(), "nothing that it says is to be believed");
    };
    forge.seen_before(&forge.entries);
    assert_eq!(forge.audit(&forge.entries, &[]).done()["verdict"], "verified");
    forge.seen_before(&forge.entries[..3]);
    assert_eq!(forge.audit(&forge.entries, &[]).done()["verdict"], "verified");

    // Cut back to before, though all that is left is as it was.
    forge.seen_before(&forge.entries);
    fails_with(&forge.entries[..3], "log-shortened");
    // As long as before, and longer, with another entry in the place of one: each approver signed it, in another order.
    let mut other = forge.entries.clone();
    other.swap(2, 3);
    fails_with(&other, "log-forked");
    forge.seen_before(&forge.entries[..3]);
    fails_with(&other, "log-forked");
}

#[test]
fn a_signed_entry_that_its_evidence_does_not_bear_is_found() {
    let forge = Forge::new();
    let mut entries = forge.entries.clone();
    let Entry::Approve(mut approve) = Entry::parse(&entries[2]).unwrap() else { panic!("the first is the genesis") };
    let mut witness = approve.witness.unwrap();
    let nothing = b"no evidence at all".as_slice();
    witness.evidence = Sha256Digest::of(nothing);
    approve.witness = Some(witness);
    entries[2] = Entry::Approve(approve).encode().unwrap();
    let ended = forge.audit(&entries, &[nothing]);
    assert_eq!(ended.code, 13, "{}{}", ended.stdout, ended.stderr);
    let report = report(&ended);
    assert_eq!((&report["verdict"], &report["log"]["findings"]["count"]), (&"evidence".into(), &1.into()));
    assert_eq!(report["log"]["findings"]["first"][0]["index"], 2);
    // That of another approver is refused by the fold: every approver has to have looked himself.
    let Entry::Approve(other) = Entry::parse(&forge.entries[1]).unwrap() else { panic!("an approval") };
    let Entry::Approve(mut approve) = Entry::parse(&forge.entries[2]).unwrap() else { panic!("an approval") };
    let binding = approve.witness.unwrap().binding;
    approve.witness = other.witness.map(|mut witness| {
        witness.binding = binding;
        witness
    });
    entries[2] = Entry::Approve(approve).encode().unwrap();
    assert_eq!(forge.audit(&entries, &[]).code, 12);
}
