//! Machines of which each gets its own part of a model.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Running, Swtpm, binary, run, run_ok};
use crate::weights::{self, Files};
use crate::world::{APPROVERS, World, guest_rule};

/// A vault with machines whose release rules name what they get.
pub struct Nodes {
    /// The vault.
    pub world: World,
    /// The machines, by the names of their rules.
    pub nodes: Vec<(&'static str, Swtpm)>,
    /// The name of their model.
    pub model: &'static str,
    /// Where plaintext goes: memory.
    memory: TempDir,
}

impl Nodes {
    /// A vault whose rule `NAME` gives these groups to that node's TPM and to no other.
    pub fn open(parts: &[(&'static str, &[&str])]) -> Self {
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        Self::with_policy("demo", &names, |_, nodes, policy| {
            for ((name, groups), (_, tpm)) in parts.iter().zip(nodes) {
                policy.push_str(&rule(name, tpm, groups));
            }
        })
    }

    /// A vault with nodes of these names, whose policy `edit` writes.
    pub fn with_policy(
        model: &'static str,
        names: &[&'static str],
        edit: impl FnOnce(&World, &[(&'static str, Swtpm)], &mut String),
    ) -> Self {
        let mut nodes = Vec::new();
        let world = World::before_ceremony(|world, policy| {
            nodes.extend(names.iter().map(|name| {
                let state = world.path(&format!("tpm-{name}"));
                (*name, Swtpm::start(&state, &world.path("ca"), &binary("vault-host")))
            }));
            edit(world, &nodes, policy);
        });
        world.sign_genesis();
        let memory = tempfile::Builder::new().prefix("weightvault-").tempdir_in("/dev/shm").expect("memory");
        Self { world, nodes, model, memory }
    }

    /// Seals these files as version 1 of the model with these options, and has approvers sign: the sealed model.
    pub fn publish(&self, files: &Files, options: &[&str]) -> PathBuf {
        self.publish_as("1", files, options)
    }

    /// The same as another version.
    pub fn publish_as(&self, version: &str, files: &Files, options: &[&str]) -> PathBuf {
        let (source, sealed) =
            (self.world.path(&format!("source-{version}")), self.world.path(&format!("sealed-{version}")));
        weights::write(&source, files);
        let mut seal = self.world.enclave("seal");
        seal.arg(&source).args(["--model", self.model, "--version", version, "--vault"]).arg(self.world.vault());
        seal.arg("--publisher-key").arg(self.world.path("publisher.pem")).arg("--out").arg(&sealed);
        run_ok(seal.args(options));
        self.world.approve(&APPROVERS[..2]);
        sealed
    }

    /// The TPM of a node.
    pub fn tpm(&self, node: &str) -> &Swtpm {
        &self.nodes.iter().find(|(name, _)| *name == node).expect("there is such a node").1
    }

    /// Where [`Nodes::command`] opens to.
    pub fn place(&self) -> PathBuf {
        self.memory.path().join("part")
    }

    /// `vault-enclave load` of version 1 on a node, under its rule.
    pub fn command(&self, node: &str, options: &[&str]) -> Command {
        self.command_under(node, node, options)
    }

    /// The same under this rule.
    pub fn command_under(&self, node: &str, rule: &str, options: &[&str]) -> Command {
        let mut load = self.world.enclave("load");
        load.arg(format!("{}@1", self.model))
            .args(["--rule", rule, "--tpm", &self.tpm(node).tcti, "--vault"])
            .arg(self.world.vault());
        load.arg("--into").arg(self.place()).args(options);
        load
    }

    /// The files that a node has while its load with these options holds its lease, and what it said.
    pub fn load(&self, node: &str, options: &[&str]) -> (Files, String) {
        let log = self.world.path("load.log");
        // Running adds to what is there.
        let _ = std::fs::remove_file(&log);
        let mut load = Running::start(&mut self.command(node, options), &log);
        load.wait_for("ready");
        let (files, said) = (weights::read(&self.place()), load.log());
        assert_eq!(load.terminate(), Some(0));
        assert!(weights::read(&self.place()).is_empty(), "plaintext is left");
        std::fs::remove_dir(self.place()).expect("no directory is left in it");
        (files, said)
    }

    /// A load that must fail with this code and leave nothing; what it said.
    pub fn refused(&self, node: &str, options: &[&str], code: &str) -> String {
        let (status, said) = run(&mut self.command(node, options));
        assert!(status != Some(0) && said.contains(code), "{code}: {said}");
        assert!(!self.place().exists() || weights::read(&self.place()).is_empty(), "{code}: plaintext is left");
        let _ = std::fs::remove_dir(self.place());
        said
    }

    /// `vaultctl log show`.
    pub fn log(&self) -> String {
        run_ok(self.world.vaultctl().args(["log", "show"]))
    }
}

/// A release rule for one TPM.
pub fn rule(name: &str, tpm: &Swtpm, groups: &[&str]) -> String {
    let rule = guest_rule(tpm).replacen("[release.guest]", &format!("[release.{name}]"), 1);
    let rule = rule.replacen("groups = \"any\"", &format!("groups = {groups:?}"), 1);
    rule.replacen("eks = \"any\"", &eks_line(tpm), 1)
}

/// The line of a rule that names this TPM, as `vault-enclave evidence` prints it.
pub fn eks_line(tpm: &Swtpm) -> String {
    let mut evidence = Command::new(binary("vault-enclave"));
    let shown = run_ok(evidence.args(["evidence", "--tpm", &tpm.tcti]));
    let line = shown.lines().map(str::trim).find(|line| line.starts_with("eks = ["));
    line.unwrap_or_else(|| panic!("no eks line in:\n{shown}")).to_owned()
}

/// The ciphertext of a unit.
pub fn sealed_unit(sealed: &Path, unit: u32) -> Vec<u8> {
    std::fs::read(sealed.join(ledger::manifest::unit_path(unit))).expect("a sealed unit")
}
