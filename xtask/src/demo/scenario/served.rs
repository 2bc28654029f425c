//! The guest that is served: attested, loaded, and a program on the weights.

use super::{Findings, LIMIT, LONG_LIMIT, World, private_place, tell};
use crate::demo::{Details, binary};
use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

impl World {
    pub(super) fn load(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let plain = self.place.path("reader.py");
        fs::write(&plain, READER)?;
        let go = self.place.path("go");
        let python = self.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
        let agent = binary("vault-enclave");
        let name = format!("{}@1", self.model.name);
        // Root mounts on no directory of a checkout that is somebody else's.
        let at = private_place();
        let mut command = Command::new(&agent);
        command.arg(if shell::is_root() { "run" } else { "load" }).arg(&name).arg("--vault").arg(self.vault());
        command.args(self.guest.arguments()).arg(if shell::is_root() { "--at" } else { "--into" }).arg(&at);
        if shell::is_root() {
            command.arg("--").arg(&python).arg(&plain).arg(&at).arg(&go);
            self.children.spawn("run", &command)?;
        } else {
            self.children.spawn("run", &command)?;
            self.children.wait_for_line("run", LONG_LIMIT, "ready")?;
            let mut reader = Command::new(&python);
            reader.arg(&plain).arg(&at).arg(&go);
            self.children.spawn("reader", &reader)?;
        }
        let reader = if shell::is_root() { "run" } else { "reader" };
        self.children.wait_for_line(reader, LONG_LIMIT, "reader: done")?;
        let output = fs::read_to_string(self.children.log("run"))?;
        tell(details, &output);
        for line in output.lines().filter(|line| line.contains("GB/s") || line.contains("MULATED")) {
            findings.lines.push(line.trim().to_owned());
        }
        let seen = fs::read_to_string(self.children.log(reader))?;
        self.compare(&seen, details, findings)?;
        self.show_isolation(&at, details, findings)?;
        fs::write(&go, "")?;
        self.children.wait_ready(reader, LIMIT, || None::<()>).err();
        self.children.end(reader)?;
        if !shell::is_root() {
            self.children.end("run")?;
        }
        if fs::read_dir(&at).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(format!("{}: plaintext is left", at.display()).into());
        }
        // Of both commands, which leave the directory to whoever named it.
        let _ = fs::remove_dir(&at);
        details.line("afterwards nothing is left there");
        Ok(())
    }

    /// Every file under `run` has the bytes of the source.
    fn compare(&self, seen: &str, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let files: Vec<(&str, &str)> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("reader: sha256 "))
            .filter_map(|line| line.split_once(' '))
            .collect();
        if files.is_empty() {
            return Err("the program saw no file".into());
        }
        for (digest, file) in &files {
            let source = shell::output(Command::new("sha256sum").arg(self.model.dir.join(file)))?;
            if !source.starts_with(digest) {
                return Err(format!("{file}: the program read other bytes than the source has").into());
            }
        }
        let text = format!("{} files as the program read them equal the source (sha256)", files.len());
        details.line(&text);
        findings.lines.push(text);
        for line in
            seen.lines().filter_map(|line| line.strip_prefix("reader: ")).filter(|line| line.contains("tensors"))
        {
            details.line(line);
            findings.lines.push(line.to_owned());
        }
        Ok(())
    }

    /// A process of another user, without privileges, must not reach the files.
    fn show_isolation(&self, at: &Path, details: &mut Details, findings: &mut Findings) -> Result<()> {
        if !shell::is_root() || shell::which("setpriv").is_none() {
            return Ok(());
        }
        let script = format!("find {} -type f 2>/dev/null | xargs -r cat 2>/dev/null | head -c 1", at.display());
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
        let seen = shell::output(Command::new("setpriv").args(nobody).arg(script))?;
        if !seen.is_empty() {
            return Err("an unprivileged process reads the weights".into());
        }
        details.line("meanwhile a process without privileges sees no file there");
        findings.lines.push("an unprivileged process could not see the files".to_owned());
        Ok(())
    }
}

/// An ordinary program on ordinary files: it knows nothing of the vault.
const READER: &str = r#"
import hashlib, os, sys, time
root, go = sys.argv[1:3]
for where, _, names in sorted(os.walk(root)):
    for name in sorted(names):
        path = os.path.join(where, name)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        print("reader: sha256", digest.hexdigest(), os.path.relpath(path, root), flush=True)
try:
    from safetensors import safe_open
    for where, _, names in sorted(os.walk(root)):
        for name in sorted(n for n in names if n.endswith(".safetensors")):
            with safe_open(os.path.join(where, name), framework="np") as model:
                keys = list(model.keys())
                shape = model.get_slice(keys[0]).get_shape()
            print(f"reader: Python's safetensors opens {name}: {len(keys)} tensors, {keys[0]} is {shape}", flush=True)
except ImportError:
    print("reader: no Python safetensors here: the tensors were compared by their bytes", flush=True)
print("reader: done", flush=True)
for _ in range(300):
    if os.path.exists(go):
        break
    time.sleep(0.1)
"#;
