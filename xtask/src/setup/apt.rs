//! Installs packages on Debian and Ubuntu.

use super::needs::Need;
use crate::{Result, shell};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Package lists older than this are fetched anew: servers drop the packages that old lists name.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Installs the packages of these needs.
///
/// # Errors
/// Neither root nor sudo, a package that apt does not know, or what apt said.
pub(super) fn install(missing: &[&Need]) -> Result<()> {
    if !shell::is_root() && shell::which("sudo").is_none() {
        return Err("installing needs root, and there is no sudo".into());
    }
    let mut updated = false;
    if !lists_are_fresh(Path::new("/var/lib/apt/lists")) {
        update()?;
        updated = true;
    }
    let mut packages = resolve(missing, is_known);
    if packages.is_err() && !updated {
        update()?;
        updated = true;
        packages = resolve(missing, is_known);
    }
    let packages = packages?;
    match apt_get(&["install", "--yes", "--no-install-recommends"], &packages) {
        // The lists may name a version that is gone.
        Err(_) if !updated => {
            update()?;
            apt_get(&["install", "--yes", "--no-install-recommends"], &packages)
        }
        done => done,
    }
}

fn update() -> Result<()> {
    apt_get(&["update"], &[])
}

/// For each need the first name of each package that apt can install here.
fn resolve(missing: &[&Need], is_known: impl Fn(&str) -> bool) -> Result<Vec<&'static str>> {
    let names = missing.iter().flat_map(|need| need.debian);
    let chosen = names.map(|names| {
        let known = names.iter().copied().find(|name| is_known(name));
        known.ok_or_else(|| format!("apt knows no package {}", names.join(" or ")))
    });
    Ok(chosen.collect::<std::result::Result<_, _>>()?)
}

fn is_known(package: &str) -> bool {
    let said = shell::output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]));
    said.is_ok_and(|said| has_candidate(&said))
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)"))
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<()> {
    // sudo drops the environment, so `env` sets it on the far side. apt asks nothing and waits for another apt to end.
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300"];
    let mut words = words.iter().chain(arguments).chain(packages);
    let mut command = match words.next() {
        Some(env) if shell::is_root() => Command::new(env),
        Some(env) => {
            let mut sudo = Command::new("sudo");
            sudo.arg(env);
            sudo
        }
        None => return Ok(()),
    };
    shell::run_logged(command.args(words), &shell::target_dir().join("setup.log"))
}

fn lists_are_fresh(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let names_packages = |name: &str| name.ends_with("_Packages") || name.contains("_Packages.");
    let ages = entries.flatten().filter(|entry| names_packages(&entry.file_name().to_string_lossy()));
    // apt sets the lists' own times to the server's; what changes at every update is the directory, and `partial` in it.
    let any = ages.count() > 0;
    let touched =
        [dir.to_path_buf(), dir.join("partial")].into_iter().filter_map(|path| path.metadata().ok()?.modified().ok());
    any && touched.max().and_then(|time| time.elapsed().ok()).is_some_and(|age| age < LISTS_AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::needs;
    use super::*;

    #[test]
    fn renamed_package_is_taken_where_it_exists() {
        let all = needs::all();
        let trixie = resolve(&all, |name| name != "libtss2-tcti-swtpm0").unwrap();
        assert!(trixie.contains(&"libtss2-tcti-swtpm0t64"));
        let bookworm = resolve(&all, |name| !name.ends_with("t64")).unwrap();
        assert!(bookworm.contains(&"libtss2-tcti-swtpm0"));
        assert!(bookworm.contains(&"python3") && bookworm.contains(&"python3-venv"));
    }

    #[test]
    fn package_that_apt_does_not_know_is_named() {
        let error = resolve(&needs::all(), |name| name != "swtpm").unwrap_err().to_string();
        assert_eq!(error, "apt knows no package swtpm");
    }

    #[test]
    fn candidate_none_is_no_package() {
        assert!(has_candidate("x:\n  Installed: (none)\n  Candidate: 1.2\n"));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn machine_without_package_lists_needs_an_update() {
        let dir = std::env::temp_dir().join(format!("xtask-lists-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(!lists_are_fresh(&dir));
        std::fs::write(dir.join("server_dists_stable_Packages"), "").unwrap();
        assert!(lists_are_fresh(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
