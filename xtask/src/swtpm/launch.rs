//! One running swtpm: started, given the PCRs of a boot, shut down by `Drop`.

use super::eventlog::{self, Measurement};
use super::{listener, manufacture, wire};
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct TpmOptions {
    /// Directory of this TPM.
    pub(crate) state: PathBuf,
    /// Directory of the throwaway CA.
    pub(crate) ca: PathBuf,
    /// CN of the EK certificate; used when the TPM is made.
    pub(crate) name: String,
    /// Data port; the control port is the next. None: a free pair.
    pub(crate) port: Option<u16>,
    pub(crate) boot_log: BootLog,
    /// File whose SHA-256 goes into PCR 11.
    pub(crate) measure: Option<PathBuf>,
}

/// The boot whose measurements PCRs 0-9 and 14 get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BootLog {
    /// The OVMF boot recorded for this project (xtask/data).
    Recorded,
    /// PCRs stay as the TPM starts them.
    None,
    /// A binary_bios_measurements file.
    File(PathBuf),
}

impl FromStr for BootLog {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "recorded" => Self::Recorded,
            "none" => Self::None,
            path => Self::File(path.into()),
        })
    }
}

/// A software TPM that lives as long as this value.
///
/// Should this process be killed, the kernel ends swtpm too; it does so when the *thread* that called
/// [`SoftTpm::start`] ends, so call it from one that lives as long.
pub(crate) struct SoftTpm {
    child: Child,
    port: u16,
    state: PathBuf,
    ca: PathBuf,
}

impl SoftTpm {
    /// Makes the TPM if `options.state` has none, starts it and extends its PCRs.
    ///
    /// # Errors
    /// swtpm is not installed, the state belongs to a running swtpm, no free port, an unusable event log.
    pub(crate) fn start(options: &TpmOptions) -> Result<Self, Box<dyn Error>> {
        let measurements = boot_measurements(options)?;
        let state = absolute_dir(&options.state)?;
        let ca = absolute_dir(&options.ca)?;
        manufacture::ensure(&state, &ca, &options.name)?;
        let (child, port) = spawn(&state, options.port)?;
        let tpm = Self { child, port, state, ca };
        for Measurement { pcr, digest } in measurements {
            wire::pcr_extend(port, pcr, &digest)?;
        }
        Ok(tpm)
    }

    /// What libtss2 and tpm2-tools take as TCTI.
    pub(crate) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// PEM of the root of the throwaway CA.
    pub(crate) fn ca_root(&self) -> PathBuf {
        manufacture::ca_root(&self.ca)
    }

    /// PEM of the CA certificate that signed the EK certificate.
    pub(crate) fn ca_issuer(&self) -> PathBuf {
        manufacture::ca_issuer(&self.ca)
    }

    /// The absolute directory of this TPM.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Process id of swtpm.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether swtpm is gone.
    pub(crate) fn ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// Makes a TPM that somebody else starts, such as QEMU; the directory of its state file, which is what swtpm is given.
///
/// # Errors
/// As [`SoftTpm::start`].
pub(crate) fn make(state: &Path, ca: &Path, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let (state, ca) = (absolute_dir(state)?, absolute_dir(ca)?);
    manufacture::ensure(&state, &ca, name)?;
    Ok(manufacture::nvram(&state))
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        // Each may fail when swtpm is already gone, which is what is wanted.
        if let Ok(None) = self.child.try_wait() {
            let _ = wire::shutdown(self.port);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

const MEASURED_PCR: u32 = 11;
const PORT_TRIES: u32 = 16;
const READY_TIMEOUT: Duration = Duration::from_secs(10);

fn boot_measurements(options: &TpmOptions) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let log = match &options.boot_log {
        BootLog::Recorded => include_bytes!("../../data/ovmf-swtpm-debian12.bin").to_vec(),
        BootLog::File(path) => fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
        BootLog::None => Vec::new(),
    };
    let mut extends = Vec::new();
    if options.boot_log != BootLog::None {
        let firmware = eventlog::measurements(&log).map_err(|e| format!("boot log: {e}"))?.into_iter();
        extends.extend(firmware.filter(|m| m.pcr <= 9 || m.pcr == 14));
    }
    if let Some(path) = &options.measure {
        extends.push(Measurement { pcr: MEASURED_PCR, digest: sha256_of(path)? });
    }
    Ok(extends)
}

fn sha256_of(path: &Path) -> Result<[u8; 32], Box<dyn Error>> {
    let named = |e: io::Error| format!("{}: {e}", path.display());
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut file = File::open(path).map_err(named)?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(named)? {
            0 => return Ok(context.finish().as_ref().try_into()?),
            n => context.update(buffer.get(..n).ok_or("read past the buffer")?),
        }
    }
}

/// swtpm wants absolute paths.
fn absolute_dir(path: &Path) -> Result<PathBuf, String> {
    let named = |e: io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(path).map_err(named)?;
    path.canonicalize().map_err(named)
}

/// Starts swtpm on the wanted port pair, or on any free one: between finding it free and swtpm's bind another
/// process may take it, so this tries again.
fn spawn(state: &Path, wanted: Option<u16>) -> Result<(Child, u16), Box<dyn Error>> {
    let tries = if wanted.is_some() { 1 } else { PORT_TRIES };
    let mut failure = String::new();
    for _ in 0..tries {
        let port = match wanted {
            Some(port) => port,
            None => free_pair()?,
        };
        let mut child = command(state, port).spawn().map_err(manufacture::missing("swtpm"))?;
        match wait_until_ready(&mut child, port) {
            Ok(()) => return Ok((child, port)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                failure = format!("{error}{}", log_tail(state));
            }
        }
        if !failure.contains("in use") {
            break;
        }
    }
    Err(format!("swtpm does not start on {}: {failure}{}", state.display(), hint(&failure)).into())
}

/// libtss2 takes the control port to be the data port + 1.
fn free_pair() -> io::Result<u16> {
    for _ in 0..PORT_TRIES {
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = data.local_addr()?.port();
        if let Some(control) = port.checked_add(1)
            && TcpListener::bind((Ipv4Addr::LOCALHOST, control)).is_ok()
        {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no two free TCP ports in a row"))
}

fn command(state: &Path, port: u16) -> Command {
    // setpriv (util-linux) execs swtpm with a parent-death signal: a killed launcher leaves nothing running.
    let mut command = match Path::new(SETPRIV).exists() {
        true => {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "TERM", "swtpm"]);
            command
        }
        false => Command::new("swtpm"),
    };
    let local = format!("bindaddr={}", Ipv4Addr::LOCALHOST);
    command
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={}", manufacture::nvram(state).display()))
        .args(["--server", &format!("type=tcp,port={port},{local},disconnect")])
        .args(["--ctrl", &format!("type=tcp,port={},{local}", u32::from(port) + 1)])
        .args(["--flags", "not-need-init,startup-clear"])
        .args(["--log", &format!("file={},level=1,truncate", log_path(state).display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

const SETPRIV: &str = "/usr/bin/setpriv";

fn wait_until_ready(child: &mut Child, port: u16) -> Result<(), String> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let control = port.checked_add(1).ok_or("there is no port after the data port")?;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Err(match status.code() {
                // setpriv found no swtpm to run.
                Some(127) => manufacture::missing("swtpm")(io::ErrorKind::NotFound.into()),
                _ => format!("it ended at once ({status})"),
            });
        }
        if listener::owns(child.id(), &[port, control]) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(format!("not ready after {} s", READY_TIMEOUT.as_secs()))
}

fn log_path(state: &Path) -> PathBuf {
    state.join("swtpm.log")
}

fn log_tail(state: &Path) -> String {
    let log = fs::read_to_string(log_path(state)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(5)).map(|line| format!("\n  {line}")).collect()
}

fn hint(failure: &str) -> &'static str {
    if failure.contains("lock") {
        "\nAnother swtpm may be running on this state; else AppArmor keeps swtpm out of it (Ubuntu): try a directory under /tmp or your home."
    } else if failure.contains("ermission denied") {
        "\nCheck that you own the directory; on Ubuntu AppArmor confines swtpm: try a directory under /tmp or your home."
    } else if failure.contains("in use") {
        "\nThe port pair is taken: leave out --port, or choose another."
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_the_pcrs_of_the_recorded_boot() {
        let dir = tempdir("reboot");
        let measured = dir.join("agent");
        fs::write(&measured, b"binary").unwrap();
        let options = TpmOptions {
            state: dir.join("tpm"),
            ca: dir.join("ca"),
            name: "test".into(),
            port: None,
            boot_log: BootLog::Recorded,
            measure: Some(measured),
        };
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../data/ovmf-swtpm-debian12.pcrs.json")).unwrap();
        for _ in 0..2 {
            let mut tpm = SoftTpm::start(&options).unwrap();
            for pcr in [0u8, 1, 4, 5, 7, 9, 14] {
                let value = hex::encode(wire::tests::pcr_read(tpm.port, pcr).unwrap());
                assert_eq!(recorded["pcrs"]["sha256"][pcr.to_string()], value.as_str(), "PCR {pcr}");
            }
            assert_ne!(wire::tests::pcr_read(tpm.port, 11).unwrap(), [0; 32]);
            assert!(tpm.ca_root().exists() && tpm.ca_issuer().exists());
            assert!(!tpm.ended().unwrap());
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_second_swtpm_on_one_state_is_refused_with_the_reason() {
        let dir = tempdir("twice");
        let options = TpmOptions {
            state: dir.join("tpm"),
            ca: dir.join("ca"),
            name: "test".into(),
            port: None,
            boot_log: BootLog::None,
            measure: None,
        };
        let first = SoftTpm::start(&options).unwrap();
        let error = SoftTpm::start(&options).err().unwrap().to_string();
        assert!(error.contains("Another swtpm"), "{error}");
        drop(first);
        fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-swtpm-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
