//! What building, testing and the demo need of the system. Each is looked for itself, not by its package: it may have been
//! installed in another way.

use super::system::Family;
use crate::shell;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that has to be here.
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    found_by: FoundBy,
    /// Debian and Ubuntu: one list of names a package, the newest name first (Debian 13 and Ubuntu 24.04 renamed libraries).
    pub(super) debian: &'static [&'static [&'static str]],
    fedora: &'static str,
    arch: &'static str,
    suse: &'static str,
}

enum FoundBy {
    Program(&'static str),
    /// A program that Debian keeps out of the way, by version: `/usr/lib/NAME/VERSION/bin/PROGRAM`.
    Versioned(&'static str, &'static str),
    /// Modules that pkg-config knows.
    Modules(&'static [&'static str]),
    /// A shared library that a program opens when it runs.
    Plugin(&'static str),
    /// Python that can make a virtual environment with pip in it.
    PythonVenv,
}

const NEEDS: &[Need] = &[
    Need {
        name: "pkg-config",
        why: "finds the TPM library when vault-enclave is built",
        found_by: FoundBy::Program("pkg-config"),
        debian: &[&["pkg-config"]],
        fedora: "pkgconf-pkg-config",
        arch: "pkgconf",
        suse: "pkgconf-pkg-config",
    },
    Need {
        name: "libtss2-dev",
        why: "the TPM library that vault-enclave is built with",
        found_by: FoundBy::Modules(&["tss2-sys", "tss2-esys", "tss2-tctildr", "tss2-mu"]),
        debian: &[&["libtss2-dev"]],
        fedora: "tpm2-tss-devel",
        arch: "tpm2-tss",
        suse: "tpm2-0-tss-devel",
    },
    Need {
        name: "libtss2-tcti-swtpm",
        why: "lets the TPM library talk to a software TPM",
        found_by: FoundBy::Plugin("libtss2-tcti-swtpm.so.0"),
        debian: &[&["libtss2-tcti-swtpm0t64", "libtss2-tcti-swtpm0"]],
        fedora: "tpm2-tss",
        arch: "tpm2-tss",
        suse: "libtss2-tcti-swtpm0",
    },
    Need {
        name: "swtpm",
        why: "the software TPMs of tests and demo",
        found_by: FoundBy::Program("swtpm"),
        debian: &[&["swtpm"]],
        fedora: "swtpm",
        arch: "swtpm",
        suse: "swtpm",
    },
    Need {
        name: "swtpm-tools",
        why: "gives a software TPM its keys and its certificate",
        found_by: FoundBy::Program("swtpm_setup"),
        debian: &[&["swtpm-tools"]],
        fedora: "swtpm-tools",
        arch: "swtpm",
        suse: "swtpm",
    },
    Need {
        name: "fuse3",
        why: "mounts the report tree of the soft SNP platform for who is not root",
        found_by: FoundBy::Program("fusermount3"),
        debian: &[&["fuse3"]],
        fedora: "fuse3",
        arch: "fuse3",
        suse: "fuse3",
    },
    Need {
        name: "tpm2-tools",
        why: "tests compare with it, and an engineer reads PCRs with it",
        found_by: FoundBy::Program("tpm2"),
        debian: &[&["tpm2-tools"]],
        fedora: "tpm2-tools",
        arch: "tpm2-tools",
        suse: "tpm2.0-tools",
    },
    Need {
        name: "ssh-keygen",
        why: "approvers sign with it",
        found_by: FoundBy::Program("ssh-keygen"),
        debian: &[&["openssh-client"]],
        fedora: "openssh",
        arch: "openssh",
        suse: "openssh-common",
    },
    Need {
        name: "python3 with venv",
        why: "the demo's safetensors program, and tests against other implementations",
        found_by: FoundBy::PythonVenv,
        debian: &[&["python3"], &["python3-venv"]],
        fedora: "python3",
        arch: "python",
        suse: "python3",
    },
];

/// What tests want, and building and the demo don't: a system may start a server with its package.
const POSTGRES: Need = Need {
    name: "postgresql",
    why: "tests of a store in a database start servers of their own, and use no other",
    found_by: FoundBy::Versioned("postgresql", "initdb"),
    debian: &[&["postgresql"]],
    fedora: "postgresql-server",
    arch: "postgresql",
    suse: "postgresql-server",
};

/// What `cargo xtask vm` wants, and nothing else. Firmware and kernel of its guest it takes out of packages itself.
const QEMU: Need = Need {
    name: "qemu-system-x86",
    why: "boots the measured guest of `cargo xtask vm`",
    found_by: FoundBy::Program("qemu-system-x86_64"),
    debian: &[&["qemu-system-x86"]],
    fedora: "qemu-system-x86",
    arch: "qemu-system-x86",
    suse: "qemu-x86",
};

/// What `cargo xtask bench --instructions` counts by.
const VALGRIND: Need = Need {
    name: "valgrind",
    why: "counts the instructions of hot functions",
    found_by: FoundBy::Program("valgrind"),
    debian: &[&["valgrind"]],
    fedora: "valgrind",
    arch: "valgrind",
    suse: "valgrind",
};

/// What `cargo xtask python` looks at our units with.
const SYSTEMD: Need = Need {
    name: "systemd-analyze",
    why: "checks the units of `examples/`",
    found_by: FoundBy::Program("systemd-analyze"),
    debian: &[&["systemd"]],
    fedora: "systemd",
    arch: "systemd",
    suse: "systemd",
};

/// What is not here. Takes some 50 ms.
pub(super) fn missing() -> Vec<&'static Need> {
    still_missing(NEEDS.iter())
}

/// Postgres, if it is not here.
pub(super) fn missing_postgres() -> Vec<&'static Need> {
    still_missing([&POSTGRES])
}

/// QEMU, if it is not here.
pub(super) fn missing_qemu() -> Vec<&'static Need> {
    still_missing([&QEMU])
}

/// Valgrind, if it is not here.
pub(super) fn missing_valgrind() -> Vec<&'static Need> {
    still_missing([&VALGRIND])
}

/// The tool of systemd that checks units, if it is not here.
pub(super) fn missing_systemd() -> Vec<&'static Need> {
    still_missing([&SYSTEMD])
}

/// What of these is not here.
pub(super) fn still_missing(needs: impl IntoIterator<Item = &'static Need>) -> Vec<&'static Need> {
    needs.into_iter().filter(|need| !need.found_by.is_here()).collect()
}

#[cfg(test)]
pub(super) fn all() -> Vec<&'static Need> {
    NEEDS.iter().chain([&POSTGRES, &QEMU, &VALGRIND, &SYSTEMD]).collect()
}

impl Need {
    /// The names of its packages; where a package has several, the oldest: it is the one that other systems know as well.
    pub(super) fn packages(&self, family: Family) -> Vec<&'static str> {
        match family {
            Family::Debian | Family::Unknown => self.debian.iter().filter_map(|names| names.last().copied()).collect(),
            Family::Fedora => vec![self.fedora],
            Family::Arch => vec![self.arch],
            Family::Suse => vec![self.suse],
        }
    }
}

impl FoundBy {
    fn is_here(&self) -> bool {
        match self {
            Self::Program(name) => shell::which(name).is_some(),
            Self::Versioned(name, program) => {
                let versions = std::fs::read_dir(Path::new("/usr/lib").join(name)).into_iter().flatten().flatten();
                let mut bins = versions.map(|version| version.path().join("bin"));
                bins.any(|bin| bin.join(program).exists()) || shell::which(program).is_some()
            }
            Self::Modules(names) => shell::succeeds(Command::new("pkg-config").arg("--exists").args(*names)),
            Self::Plugin(file) => library_dirs().iter().any(|dir| dir.join(file).exists()),
            Self::PythonVenv => shell::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])),
        }
    }
}

/// Where the loader finds what the TPM library opens: beside that library, and in the system's own places.
fn library_dirs() -> Vec<PathBuf> {
    let of_tss = shell::output(Command::new("pkg-config").args(["--variable=libdir", "tss2-tctildr"]));
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let fixed = ["/usr/lib64", "/usr/lib", "/usr/local/lib", triplet.as_str()].map(PathBuf::from);
    of_tss.ok().map(|dir| Path::new(dir.trim()).to_path_buf()).into_iter().chain(fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_things_are_found_missing() {
        assert!(FoundBy::Program("sh").is_here());
        assert!(!FoundBy::Program("no-such-program").is_here());
        assert!(FoundBy::Versioned("no-such-name", "sh").is_here());
        assert!(!FoundBy::Versioned("no-such-name", "no-such-program").is_here());
        assert!(!FoundBy::Modules(&["no-such-module"]).is_here());
        assert!(!FoundBy::Plugin("libno-such.so.0").is_here());
    }
}
