//! Kernel, firmware and tools of the guest: Debian's packages, unpacked below the target directory. Nothing of them is installed.

use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the guest's network is made of.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_net"];

/// Where the parts of the guest are.
pub(super) struct Packages {
    pub(super) kernel: PathBuf,
    /// In the order in which the kernel takes them.
    pub(super) modules: Vec<PathBuf>,
    pub(super) busybox: PathBuf,
    /// OVMF that measures, and a fresh store of its variables.
    pub(super) firmware: PathBuf,
    pub(super) variables: PathBuf,
    /// Names of the packages with their versions.
    pub(super) names: Vec<String>,
}

impl Packages {
    /// Fetches what is not here.
    ///
    /// # Errors
    /// In words that say what to do, where there is no apt, or a package can't be had.
    pub(super) fn find(dir: &Path, offline: bool) -> Result<Self> {
        let tools = ["apt-get", "dpkg-deb"].iter().all(|tool| shell::which(tool).is_some());
        if std::env::consts::ARCH != "x86_64" || !tools {
            return Err("the guest is made of Debian's packages for x86-64: run this on such a machine".into());
        }
        let kernel = newest_kernel().ok_or_else(|| {
            format!("apt knows no package {KERNEL}: run `apt-get update` first. Ubuntu has none; Debian 12 has it")
        })?;
        let mut names = Vec::new();
        let mut unpacked = |package: &str| -> Result<PathBuf> {
            let (unpacked, name) = unpack(dir, package, offline)?;
            names.push(name);
            Ok(unpacked)
        };
        let (kernel, ovmf, busybox) = (unpacked(&kernel)?, unpacked("ovmf")?, unpacked("busybox-static")?);
        let mut modules = Vec::new();
        MODULES.iter().try_for_each(|name| add_module(&kernel.join("lib"), name, &mut modules))?;
        Ok(Self {
            modules,
            kernel: find(&kernel.join("boot"), &|name| name.starts_with("vmlinuz-"))
                .ok_or("the package has no kernel")?,
            busybox: busybox.join("bin/busybox"),
            firmware: ovmf.join("usr/share/OVMF/OVMF_CODE_4M.fd"),
            variables: ovmf.join("usr/share/OVMF/OVMF_VARS_4M.fd"),
            names,
        })
    }
}

fn newest_kernel() -> Option<String> {
    let depends = shell::output(Command::new("apt-cache").env("LC_ALL", "C").args(["depends", KERNEL]));
    kernel_package(&depends.ok()?)
}

/// The package on which the kernel's depends.
fn kernel_package(depends: &str) -> Option<String> {
    let named = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.map(str::trim).find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// Adds a module behind those that it needs. One that is part of the kernel needs none.
fn add_module(dir: &Path, name: &str, modules: &mut Vec<PathBuf>) -> Result<()> {
    let file = format!("{name}.ko");
    let Some(path) = find(dir, &|found| found == file) else {
        let list = find(dir, &|found| found == "modules.builtin").ok_or("the kernel has no list of modules")?;
        let is_part = fs::read_to_string(list)?.lines().any(|line| line.ends_with(&format!("/{file}")));
        return if is_part { Ok(()) } else { Err(format!("the kernel has no module {name}").into()) };
    };
    if !modules.contains(&path) {
        for needed in needed_by(&fs::read(&path)?) {
            add_module(dir, &needed, modules)?;
        }
        modules.push(path);
    }
    Ok(())
}

/// `depends=` of a module's `.modinfo`: names with commas between.
fn needed_by(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let at = module.windows(key.len()).position(|window| window == key).map_or(module.len(), |at| at + key.len());
    let text: Vec<u8> = module.iter().skip(at).copied().take_while(|byte| *byte != 0).collect();
    let names = String::from_utf8_lossy(&text).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The directory that the package is unpacked in, and its name with the version.
fn unpack(dir: &Path, package: &str, offline: bool) -> Result<(PathBuf, String)> {
    let (place, making) = (dir.join(package), dir.join(format!("{package}.making")));
    if !place.exists() {
        if offline {
            return Err(format!("the package {package} is not here: run this once without --offline").into());
        }
        if making.exists() {
            fs::remove_dir_all(&making)?;
        }
        fs::create_dir_all(&making)?;
        println!("fetching {package}");
        shell::output(Command::new("apt-get").current_dir(&making).args(["--quiet", "download", package]))
            .map_err(|error| format!("{error}\nwhere the lists of packages are old, `apt-get update` helps"))?;
        let file = find(&making, &|name| name.ends_with(".deb")).ok_or("apt-get left no package")?;
        shell::output(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&making))?;
        fs::rename(&making, &place)?;
    }
    let file = find(&place, &|name| name.ends_with(".deb")).ok_or("the package is gone")?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":");
    Ok((place, name))
}

/// The first file below `dir` with such a name.
fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir() && !path.is_symlink());
    let is_wanted = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(wanted);
    files.into_iter().find(is_wanted).or_else(|| dirs.iter().find_map(|dir| find(dir, wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_the_one_that_the_package_depends_on() {
        let said = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n    linux-image-x\n";
        assert_eq!(kernel_package(said).as_deref(), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(kernel_package("N: Unable to locate package\n"), None);
    }

    #[test]
    fn module_comes_behind_those_that_it_needs() {
        let dir = std::env::temp_dir().join(format!("xtask-vm-modules-{}", std::process::id()));
        fs::create_dir_all(dir.join("net")).unwrap();
        fs::write(dir.join("net/virtio_net.ko"), b"ELF\0depends=virtio,part\0name=x\0").unwrap();
        fs::write(dir.join("virtio.ko"), b"ELF\0depends=\0").unwrap();
        fs::write(dir.join("modules.builtin"), "kernel/part.ko\n").unwrap();
        let mut modules = Vec::new();
        add_module(&dir, "virtio_net", &mut modules).unwrap();
        assert_eq!(modules, [dir.join("virtio.ko"), dir.join("net/virtio_net.ko")]);
        assert!(add_module(&dir, "absent", &mut modules).unwrap_err().to_string().contains("absent"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn file_is_found_at_any_depth() {
        let dir = std::env::temp_dir().join(format!("xtask-vm-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/virtio.ko"), "").unwrap();
        assert_eq!(find(&dir, &|name| name == "virtio.ko"), Some(dir.join("a/b/virtio.ko")));
        assert_eq!(find(&dir, &|name| name == "virtio"), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
