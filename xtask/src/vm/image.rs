//! The guest's initrd: the same inputs make the same bytes.

use crate::{Result, shell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What goes in.
pub(super) struct Inputs<'a> {
    pub(super) busybox: &'a Path,
    /// In the order in which the kernel takes them.
    pub(super) modules: &'a [PathBuf],
    /// None: a guest that only shows its event log.
    pub(super) agent: Option<Agent<'a>>,
    /// A file that has nothing to say, to change the image by it.
    pub(super) stray: bool,
}

/// The agent, and what it needs to know.
pub(super) struct Agent<'a> {
    pub(super) program: &'a Path,
    pub(super) vault_file: &'a Path,
    /// `MODEL@VERSION`.
    pub(super) model: &'a str,
    pub(super) rules: &'a [&'a str],
}

/// An initrd is filled up with zeros to a multiple of this, which the kernel skips. QEMU writes address and size of the initrd
/// into the kernel's header, which PCR 4 is of: without this any change of the initrd would first show as another kernel.
const ROUND_BYTES: usize = 1 << 20;
/// The TPM library opens it when it runs, so `ldd` does not name it.
const TCTI: &str = "libtss2-tcti-device.so.0";
const TCTI_BESIDE: &str = "libtss2-tctildr.so.0";

/// Builds the initrd at `out`; files on the way are beside it.
pub(super) fn build(inputs: &Inputs<'_>, out: &Path) -> Result<()> {
    let mut tree = Tree::default();
    for dir in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp"] {
        tree.0.insert(dir.into(), Node::Directory);
    }
    tree.program("init", include_bytes!("init.sh").to_vec());
    tree.program("bin/busybox", fs::read(inputs.busybox)?);
    tree.0.insert("bin/sh".into(), Node::Link("busybox".into()));
    for (place, module) in inputs.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        tree.file(&format!("modules/{place:02}-{name}"), fs::read(module)?);
    }
    if let Some(agent) = &inputs.agent {
        tree.program("bin/vault-enclave", fs::read(agent.program)?);
        for library in libraries(agent.program)? {
            let place = library.to_str().ok_or("a library with a name that is not text")?;
            tree.program(place.trim_start_matches('/'), fs::read(&library)?);
        }
        tree.file("etc/vault.json", fs::read(agent.vault_file)?);
        let configuration = format!("model={}\nrules='{}'\n", agent.model, agent.rules.join(" "));
        tree.file("etc/guest.conf", configuration.into_bytes());
    }
    if inputs.stray {
        tree.file("etc/motd", b"changed\n".to_vec());
    }
    let archive = out.with_extension("cpio");
    fs::write(&archive, tree.archive()?)?;
    // -n: neither name nor time.
    shell::output(Command::new("gzip").args(["-n", "-f", "-k", "-6"]).arg(&archive))?;
    let mut bytes = fs::read(archive.with_extension("cpio.gz"))?;
    bytes.resize(bytes.len().next_multiple_of(ROUND_BYTES), 0);
    Ok(fs::write(out, bytes)?)
}

/// The program without what only debuggers read, which is most of a build of the dev profile.
pub(super) fn strip(program: &Path, out: &Path) -> Result<()> {
    if shell::which("strip").is_none() {
        fs::copy(program, out)?;
        return Ok(());
    }
    shell::output(Command::new("strip").args(["--strip-all", "-o"]).arg(out).arg(program)).map(drop)
}

/// The shared libraries that the program needs, its loader and the TPM library's way to the device among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = shell::output(Command::new("ldd").env("LC_ALL", "C").arg(program))?;
    let mut libraries = named_by_ldd(&said)?;
    let beside =
        libraries.iter().find(|path| path.ends_with(TCTI_BESIDE)).ok_or("the agent is linked to no TPM library")?;
    let tcti = beside.with_file_name(TCTI);
    if !tcti.exists() {
        return Err(format!("{} is not there: install libtss2-tcti-device0", tcti.display()).into());
    }
    libraries.push(tcti);
    Ok(libraries)
}

fn named_by_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.contains("=> not found") {
            return Err(format!("the agent lacks a library: {line}").into());
        }
        let named = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = named.split_once(" (").map_or(named, |(path, _)| path);
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// Files by their names, which is the order in which they are written.
#[derive(Default)]
struct Tree(BTreeMap<String, Node>);

enum Node {
    Directory,
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
}

impl Tree {
    fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.put(name, Node::File { bytes, mode: 0o644 });
    }

    fn program(&mut self, name: &str, bytes: Vec<u8>) {
        self.put(name, Node::File { bytes, mode: 0o755 });
    }

    /// With the directories above it.
    fn put(&mut self, name: &str, node: Node) {
        for (at, _) in name.match_indices('/') {
            self.0.entry(name[..at].to_owned()).or_insert(Node::Directory);
        }
        self.0.insert(name.to_owned(), node);
    }

    /// The archive in the form "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): sorted, of root, at
    /// time 0, numbered as they come.
    fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        for (inode, (name, node)) in (1..).zip(&self.0) {
            let (mode, bytes) = match node {
                Node::Directory => (0o040_755, &[][..]),
                Node::File { bytes, mode } => (0o100_000 | mode, bytes.as_slice()),
                Node::Link(target) => (0o120_777, target.as_bytes()),
            };
            record(&mut archive, inode, mode, name, bytes)?;
        }
        record(&mut archive, 0, 0, "TRAILER!!!", &[])?;
        Ok(archive)
    }
}

/// One file: thirteen numbers of eight hex digits, the name with a NUL, the bytes; name and bytes end at a multiple of four.
fn record(archive: &mut Vec<u8>, inode: u32, mode: u32, name: &str, bytes: &[u8]) -> Result<()> {
    let (size, name_size) = (u32::try_from(bytes.len())?, u32::try_from(name.len() + 1)?);
    archive.extend(b"070701");
    for number in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend(format!("{number:08x}").into_bytes());
    }
    archive.extend(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_sorted_and_has_neither_times_nor_owners() {
        let tree = |names: &[&str]| {
            let mut tree = Tree::default();
            names.iter().for_each(|name| tree.file(name, name.as_bytes().to_vec()));
            tree.archive().unwrap()
        };
        let archive = tree(&["b/c", "a"]);
        assert_eq!(archive, tree(&["a", "b/c"]));
        let text = String::from_utf8(archive).unwrap();
        let record = |inode: &str, mode: &str, size: &str, name_size: &str| {
            let zero = "0".repeat(8);
            format!("070701{inode}{mode}{zero}{zero}00000001{zero}{size}{zero}{zero}{zero}{zero}{name_size}{zero}")
        };
        let a = record("00000001", "000081a4", "00000001", "00000002") + "a\0a\0\0\0";
        let b = record("00000002", "000041ed", "00000000", "00000002") + "b\0";
        assert_eq!(text.get(..a.len() + b.len()), Some((a + &b).as_str()));
        assert!(text.contains("TRAILER!!!\0") && text.len().is_multiple_of(4));
    }

    #[test]
    fn libraries_are_those_that_ldd_names_with_the_loader() {
        let said =
            "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        assert_eq!(named_by_ldd(said).unwrap(), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(named_by_ldd("\tlibx.so => not found\n").is_err());
    }
}
