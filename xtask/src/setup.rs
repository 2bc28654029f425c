//! `cargo xtask setup`: installs what is missing and says what and why. Quick and silent where nothing is.

mod apparmor;
mod apt;
mod needs;
mod python;
pub(crate) mod s3;
mod system;

pub(crate) use python::{PythonSet, Venv};

use crate::{Result, shell};
use needs::Need;
use system::{Family, System};

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct SetupArgs {
    /// Install nothing; say what is missing.
    #[arg(long)]
    offline: bool,
    /// Also make the Python environment (target/venv) that tests and demo use; else they make it when they need it.
    #[arg(long)]
    python: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    system_packages(args.offline)?;
    postgres(args.offline)?;
    if args.python {
        Venv::ensure(&[PythonSet::Demo, PythonSet::Test], args.offline)?;
    }
    println!("setup: everything needed is here");
    Ok(())
}

/// Sees to it that every system package is here that building, testing and the demo need.
///
/// # Errors
/// In words that name the commands to type, where this program cannot or may not install.
pub(crate) fn system_packages(offline: bool) -> Result<()> {
    check_rustc()?;
    let missing = needs::missing();
    if !missing.is_empty() {
        install(&missing, offline)?;
    }
    if let Some(note) = apparmor::note() {
        println!("setup: {note}");
    }
    Ok(())
}

/// Sees to it that the programs of a Postgres server are here, which tests start.
///
/// # Errors
/// As [`system_packages`].
pub(crate) fn postgres(offline: bool) -> Result<()> {
    let missing = needs::missing_postgres();
    if missing.is_empty() { Ok(()) } else { install(&missing, offline) }
}

/// Sees to it that QEMU is here, in which `cargo xtask vm` boots a guest.
///
/// # Errors
/// As [`system_packages`].
pub(crate) fn qemu(offline: bool) -> Result<()> {
    let missing = needs::missing_qemu();
    if missing.is_empty() { Ok(()) } else { install(&missing, offline) }
}

/// Sees to it that valgrind is here, by which `cargo xtask bench --instructions` counts.
///
/// # Errors
/// As [`system_packages`].
pub(crate) fn valgrind(offline: bool) -> Result<()> {
    let missing = needs::missing_valgrind();
    if missing.is_empty() { Ok(()) } else { install(&missing, offline) }
}

/// Sees to it that `systemd-analyze` is here.
///
/// # Errors
/// As [`system_packages`].
pub(crate) fn systemd(offline: bool) -> Result<()> {
    let missing = needs::missing_systemd();
    if missing.is_empty() { Ok(()) } else { install(&missing, offline) }
}

/// Whether this is Debian itself, whose packages are not all in the systems that were made of it.
pub(crate) fn is_debian() -> bool {
    System::detect().id == "debian"
}

/// Whether QEMU is here.
pub(crate) fn has_qemu() -> bool {
    needs::missing_qemu().is_empty()
}

fn install(missing: &[&'static Need], offline: bool) -> Result<()> {
    let system = System::detect();
    println!("setup: {} lacks:", system.name);
    for need in missing {
        println!("  {:<18} {}", need.name, need.why);
    }
    if offline || system.family != Family::Debian {
        return Err(by_hand(&system, missing).into());
    }
    if !system.is_tested() {
        println!("setup: not tested on {}; trying the packages of Debian and Ubuntu", system.name);
    }
    apt::install(missing).map_err(|error| format!("{error}\n{}", by_hand(&system, missing)))?;
    let still = needs::still_missing(missing.iter().copied());
    if still.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = still.iter().map(|need| need.name).collect();
    Err(format!("installed, but still not found: {}", names.join(", ")).into())
}

/// What a person has to type.
fn by_hand(system: &System, missing: &[&Need]) -> String {
    let sudo = if shell::is_root() { "" } else { "sudo " };
    let commands: Vec<String> = match system.family {
        Family::Unknown => [Family::Debian, Family::Fedora, Family::Arch, Family::Suse]
            .into_iter()
            .map(|family| format!("{:<16} {}", format!("{}:", family.label()), install_command(family, missing, sudo)))
            .collect(),
        family => vec![install_command(family, missing, sudo)],
    };
    let note = match system.family {
        Family::Debian => "",
        Family::Unknown => " (this system is not known; the nearest of these may serve)",
        _ => " (not tested on this system)",
    };
    format!("install by hand{note}, then run this again:\n  {}", commands.join("\n  "))
}

fn install_command(family: Family, missing: &[&Need], sudo: &str) -> String {
    let mut packages: Vec<&str> = missing.iter().flat_map(|need| need.packages(family)).collect();
    packages.dedup();
    let packages = packages.join(" ");
    match family {
        Family::Debian | Family::Unknown => format!("{sudo}apt-get update && {sudo}apt-get install {packages}"),
        Family::Fedora => format!("{sudo}dnf install {packages}"),
        Family::Arch => format!("{sudo}pacman -S --needed {packages}"),
        Family::Suse => format!("{sudo}zypper install {packages}"),
    }
}

/// Cargo refuses an older compiler by itself; this is for a build directory that was carried over from another toolchain.
fn check_rustc() -> Result<()> {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = shell::output(std::process::Command::new(rustc).arg("--version"))?;
    let found = said.split_whitespace().nth(1).unwrap_or_default();
    if version(found) < version(wanted) {
        return Err(format!("rustc {wanted} or later is needed, this is {found}: `rustup update stable`").into());
    }
    Ok(())
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(family: Family) -> System {
        System { name: "Test OS".into(), family, id: "test".into(), version: "1".into() }
    }

    #[test]
    fn unknown_system_is_told_the_commands_of_all_known_families() {
        let text = by_hand(&system(Family::Unknown), &needs::all());
        for part in ["apt-get install", "dnf install", "pacman -S", "zypper install", "not known"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn fedora_is_told_its_own_package_names() {
        let text = by_hand(&system(Family::Fedora), &needs::all());
        assert!(text.contains("tpm2-tss-devel") && !text.contains("libtss2-dev"), "{text}");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("1.100.0") > version("1.95") && version("1.95.0-nightly") == version("1.95"));
    }
}
