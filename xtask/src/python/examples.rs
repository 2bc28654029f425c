//! The files of `examples/`, as systemd and Kubernetes read them.

use crate::setup::Venv;
use crate::{Result, demo, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A unit, and the most that `systemd-analyze security` may find exposed, in tenths. Both mount and reach the network, which
/// alone is half of it.
const UNITS: [(&str, u32); 2] = [("agent/weightvault-agent.service", 67), ("weightvault-run.service", 80)];
const MANIFESTS: [&str; 1] = ["agent/kubernetes.yaml"];
/// The release of Kubernetes whose schemas these must fit.
const KUBERNETES: &str = "1.37.0";

/// Checks all of them.
pub(super) fn check(venv: &Venv) -> Result<()> {
    let examples = shell::root().join("examples");
    let mut validate = Command::new(venv.python());
    validate.args(["-m", "kubernetes_validate", "--strict", "-k", KUBERNETES]);
    shell::run(validate.args(MANIFESTS.map(|name| examples.join(name))))?;
    let dir = shell::target_dir().join("units");
    fs::create_dir_all(&dir)?;
    for (name, exposed) in UNITS {
        let unit = with_our_program(&examples.join(name), &dir)?;
        shell::run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit))?;
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--no-pager", &format!("--threshold={exposed}")]).arg(&unit);
        let said = shell::output(&mut security)?;
        println!("{}", said.lines().last().unwrap_or_default());
    }
    Ok(())
}

/// A copy that starts the program which was built: systemd looks whether it is there.
fn with_our_program(unit: &Path, dir: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(unit)?;
    let ours = demo::binary("vault-enclave").display().to_string();
    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).ok_or("a unit without ExecStart")?;
    let program = start.split_whitespace().next().unwrap_or_default();
    let copy = dir.join(unit.file_name().unwrap_or_default());
    fs::write(&copy, text.replace(program, &ours))?;
    Ok(copy)
}
