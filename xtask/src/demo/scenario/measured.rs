//! What a guest outside this story needs of it: `cargo xtask vm`.

use super::{APPROVERS, LIMIT, World};
use crate::demo::{Children, Details};
use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

impl World {
    /// A path in the place of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Its processes.
    pub(crate) fn children(&mut self) -> &mut Children {
        &mut self.children
    }

    /// Where its host listens.
    pub(crate) fn url(&self) -> Result<String> {
        Ok(fs::read_to_string(self.place.path("url"))?)
    }

    /// The model as it was before it was sealed.
    pub(crate) fn model_dir(&self) -> &Path {
        &self.model.dir
    }

    /// Its name in the vault.
    pub(crate) fn model_name(&self) -> &str {
        &self.model.name
    }

    /// Puts the policy into force that has these rules besides: one approver proposes it, the other two sign.
    pub(crate) fn adopt(&mut self, rules: &str, details: &mut Details) -> Result<()> {
        let first = self.place.path("policy.toml");
        let digest = shell::output(Command::new("sha256sum").arg(&first))?;
        let digest = digest.split_whitespace().next().ok_or("sha256sum gave no digest")?;
        let vault: serde_json::Value = serde_json::from_slice(&fs::read(self.vault())?)?;
        let vault = vault["vault"].as_str().ok_or("the vault file has no id")?;
        let old = "vault = \"genesis\"\nserial = 1\nprev = \"none\"";
        let new = format!("vault = \"{vault}\"\nserial = 2\nprev = \"sha256:{digest}\"");
        let second = self.place.path("policy-2.toml");
        fs::write(&second, fs::read_to_string(&first)?.replacen(old, &new, 1) + rules)?;
        let [proposer, signers @ ..] = APPROVERS;
        let mut propose = self.vaultctl(&["propose", "policy"]);
        propose.arg(&second).args(["--yes", "--key"]).arg(self.place.path(proposer));
        self.children.run_ok("propose-policy", &propose, LIMIT)?;
        for name in signers {
            let mut approve = self.vaultctl(&["approve", "--latest", "--yes", "--key"]);
            approve.arg(self.place.path(name));
            self.children.run_ok(&format!("approve-policy-{name}"), &approve, LIMIT)?;
        }
        details.line(format!("policy 2: proposed by {proposer}, approved by {}", signers.join(" and ")));
        Ok(())
    }
}
