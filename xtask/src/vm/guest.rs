//! One boot of the guest: QEMU with firmware that measures, and a software TPM that keeps its identity from boot to boot.

use super::packages::Packages;
use crate::Result;
use crate::demo::Children;
use crate::swtpm::make_tpm;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// QEMU interprets each instruction, on a machine that may be busy; an idle one needs a tenth of this.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const TPM_LIMIT: Duration = Duration::from_secs(30);
/// The guest's memory in MiB, which `vaultctl measure pcr --loader` is told too.
pub(super) const MEMORY_MIB: u32 = 768;
/// Its name says nothing: both programs run in its directory, since the path of a socket has at most 107 bytes.
const TPM_SOCKET: &str = "tpm.sock";

/// The machine, which is always the same.
pub(super) struct Guest {
    dir: PathBuf,
    nvram: PathBuf,
    firmware: PathBuf,
    variables: PathBuf,
    kernel: PathBuf,
}

/// What a boot printed.
pub(super) struct Seen {
    lines: Vec<String>,
}

impl Guest {
    /// A machine in `dir`, whose TPM has a certificate of the authority in `ca`.
    pub(super) fn new(dir: PathBuf, ca: &Path, packages: &Packages) -> Result<Self> {
        let tpm = dir.join("tpm");
        fs::create_dir_all(&tpm)?;
        let nvram = make_tpm(&tpm, ca, "guest-vm")?;
        Ok(Self {
            dir,
            nvram,
            firmware: packages.firmware.clone(),
            variables: packages.variables.clone(),
            kernel: packages.kernel.clone(),
        })
    }

    /// Boots it and waits until it has turned itself off.
    ///
    /// # Errors
    /// If it does not within its time, or did not come to its end.
    pub(super) fn boot(&self, children: &mut Children, name: &str, initrd: &Path, command_line: &str) -> Result<Seen> {
        let socket = self.dir.join(TPM_SOCKET);
        let _ = fs::remove_file(&socket);
        fs::copy(&self.variables, self.dir.join("variables.fd"))?;
        let (tpm, qemu) = (format!("tpm-{name}"), format!("boot-{name}"));
        children.spawn(&tpm, &self.tpm())?;
        children.wait_ready(&tpm, TPM_LIMIT, || socket.exists().then_some(()))?;
        let finished = children.run(&qemu, &self.qemu(initrd, command_line), BOOT_LIMIT);
        children.end(&tpm)?;
        let seen = Seen::read(&finished?.output);
        if seen.lines.last().is_none_or(|line| line != "vm: done") {
            let log = children.log(&qemu);
            let tail = crate::shell::tail(&log, 0, 25);
            return Err(format!("the guest did not come to its end; the end of {}:\n{tail}", log.display()).into());
        }
        Ok(seen)
    }

    fn tpm(&self) -> Command {
        let mut swtpm = Command::new("swtpm");
        swtpm.current_dir(&self.dir).args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
        swtpm.arg(format!("dir={}", self.nvram.display())).arg("--ctrl");
        swtpm.arg(format!("type=unixio,path={TPM_SOCKET}"));
        swtpm
    }

    fn qemu(&self, initrd: &Path, command_line: &str) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.current_dir(&self.dir).args([
            "-machine",
            "q35,smm=off",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
        ]);
        qemu.arg(MEMORY_MIB.to_string()).args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        let flash = |unit: u8, more: &str, file: &Path| {
            format!("if=pflash,format=raw,unit={unit},{more}file={}", file.display())
        };
        qemu.arg("-drive").arg(flash(0, "readonly=on,", &self.firmware));
        qemu.arg("-drive").arg(flash(1, "", Path::new("variables.fd")));
        qemu.args(["-chardev", &format!("socket,id=tpm,path={TPM_SOCKET}")]);
        qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
        // No boot ROM: the firmware measures one.
        qemu.args(["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(initrd).args(["-append", command_line]);
        qemu.args(["-serial", "stdio", "-monitor", "none"]);
        qemu
    }
}

impl Seen {
    /// The serial console has what the firmware writes on it, too.
    fn read(console: &str) -> Self {
        let lines = console.lines().map(|line| line.trim_end_matches('\r'));
        let ours = lines.filter(|line| line.starts_with("vm: ") || line.starts_with("agent: "));
        Self { lines: ours.map(str::to_owned).collect() }
    }

    /// The firmware's event log, of a guest without an agent.
    pub(super) fn event_log(&self) -> Result<Vec<u8>> {
        let hex: String = self.lines.iter().filter_map(|line| line.strip_prefix("vm: log ")).collect();
        match hex::decode(hex)? {
            log if log.is_empty() => Err("the guest has no event log: does its firmware measure?".into()),
            log => Ok(log),
        }
    }

    /// A PCR as the guest's kernel read it.
    pub(super) fn pcr(&self, index: &str) -> Result<String> {
        let prefix = format!("vm: pcr {index} ");
        let value = self.lines.iter().find_map(|line| line.strip_prefix(&prefix));
        Ok(value.ok_or_else(|| format!("the guest did not show PCR {index}"))?.to_lowercase())
    }

    /// What it loaded under this rule: digests and files. None where it was refused.
    pub(super) fn loaded(&self, rule: &str) -> Vec<(&str, &str)> {
        let digests = self.under(rule).filter_map(|line| line.strip_prefix("vm: sha256 ")?.split_once("  ./"));
        digests.collect()
    }

    /// What the agent said under this rule.
    pub(super) fn agent(&self, rule: &str) -> String {
        let said: Vec<&str> = self.under(rule).filter_map(|line| line.strip_prefix("agent: ")).collect();
        said.join("\n")
    }

    fn under(&self, rule: &str) -> impl Iterator<Item = &str> {
        let begin = format!("vm: rule {rule}");
        let lines = self.lines.iter().map(String::as_str).skip_while(move |line| *line != begin).skip(1);
        lines.take_while(|line| !line.starts_with("vm: rule "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_printed_is_kept_apart_by_rule() {
        let console = "\x1b[2JBdsDxe: loading\r\nvm: pcr 4 AB\r\nvm: rule a\r\nvm: sha256 00  ./model/x\r\nagent: ready\r\n\
                       [ 1.0] noise\r\nvm: rule b\r\nagent: error: refused\r\nvm: done\r\n";
        let seen = Seen::read(console);
        assert_eq!(seen.pcr("4").unwrap(), "ab");
        assert_eq!(seen.loaded("a"), [("00", "model/x")]);
        assert_eq!((seen.agent("a"), seen.agent("b")), ("ready".to_owned(), "error: refused".to_owned()));
        assert!(seen.loaded("b").is_empty() && seen.loaded("c").is_empty());
        assert!(seen.pcr("9").is_err() && seen.event_log().is_err());
    }
}
