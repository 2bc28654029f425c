//! What `cargo xtask bench` needs of the story's vault: loads by real agents, one or many, and their host as it is asked for.

use super::{HOST_SOCKET, LONG_LIMIT, World, private_place};
use crate::demo::machine::Machine;
use crate::demo::{Children, binary};
use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A load that goes on, and its name in the logs.
pub(in crate::demo) struct Loading {
    pub(in crate::demo) log: String,
    pub(in crate::demo) pid: u32,
    pub(in crate::demo) began: Instant,
    into: PathBuf,
}

impl World {
    /// Begins a load into `into`, or else into memory as it is mounted; by the guest of this number, 0 the one of the story.
    /// `wrap` puts the command into another.
    pub(in crate::demo) fn begin_load(
        &mut self,
        log: &str,
        guest: usize,
        options: &[String],
        into: Option<&Path>,
        wrap: impl FnOnce(Command) -> Command,
    ) -> Result<Loading> {
        let into = into.map_or_else(private_place, Path::to_owned);
        let mut load = self.model_command("load", guest)?;
        load.arg("--into").arg(&into).args(options);
        let began = Instant::now();
        let pid = self.children.spawn(log, &wrap(load))?;
        Ok(Loading { log: log.to_owned(), pid, began, into })
    }

    /// Begins `run` with a command that says `ready` and the time (`date +%s.%N`) as soon as it has read a file of the model,
    /// and then waits.
    pub(in crate::demo) fn begin_run(&mut self, log: &str, options: &[String]) -> Result<Loading> {
        const SEE: &str = "cat \"$0/config.json\" > /dev/null && date +\"ready %s.%N\" && exec sleep 3600";
        let at = self.bench_place("seen")?;
        let mut run = self.model_command("run", 0)?;
        run.arg("--at").arg(&at).args(options).args(["--", "sh", "-c", SEE]).arg(&at);
        let began = Instant::now();
        let pid = self.children.spawn(log, &run)?;
        Ok(Loading { log: log.to_owned(), pid, began, into: at })
    }

    /// `vault-enclave` with what it needs to have the model, on the guest of this number.
    fn model_command(&self, what: &str, guest: usize) -> Result<Command> {
        let machine = match guest.checked_sub(1) {
            None => &self.guest,
            Some(index) => self.more_guests.get(index).ok_or("no such guest")?,
        };
        let mut command = Command::new(binary("vault-enclave"));
        command
            .arg(what)
            .arg(format!("{}@1", self.model.name))
            .arg("--vault")
            .arg(self.vault())
            .args(machine.arguments());
        Ok(command)
    }

    /// Waits until the files are there, and looks meanwhile, every 20 ms: what the agent said.
    pub(in crate::demo) fn wait_loaded(&mut self, loading: &Loading, mut look: impl FnMut()) -> Result<String> {
        let log = self.children.log(&loading.log);
        self.children.wait_ready(&loading.log, LONG_LIMIT, || {
            look();
            let said = fs::read_to_string(&log).unwrap_or_default();
            said.lines().any(|line| line.starts_with("ready ")).then_some(said)
        })
    }

    /// Ends it, and its lease.
    pub(in crate::demo) fn end_load(&mut self, loading: &Loading) -> Result<()> {
        self.children.end(&loading.log)?;
        let _ = fs::remove_dir(&loading.into);
        Ok(())
    }

    /// As many guests as asked for, the one of the story included: each with a TPM of its own, all booted alike.
    pub(in crate::demo) fn have_guests(&mut self, count: usize) -> Result<()> {
        while self.more_guests.len() + 1 < count {
            let name = format!("guest-{}", self.more_guests.len() + 1);
            self.more_guests.push(Machine::with_tpm(&self.place, &name, "ca", &binary("vault-host"))?);
        }
        Ok(())
    }

    /// Starts the host again with TLS at its port, by a certificate in this directory, or without: the options by which an
    /// agent finds it.
    pub(in crate::demo) fn restart_host(&mut self, certificate: Option<&Path>) -> Result<Vec<String>> {
        let url = self.url()?;
        let address = url.trim_start_matches("http://");
        let port = address.rsplit_once(':').ok_or("a URL with a port")?.1.parse()?;
        self.children.end("host")?;
        let Some(place) = certificate else {
            self.start_host(port, "")?;
            return Ok(Vec::new());
        };
        let (cert, key) = (place.join("cert.pem"), place.join("key.pem"));
        self.start_host(port, &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n"))?;
        Ok(vec!["--host".into(), format!("https://{address}"), "--ca".into(), cert.display().to_string()])
    }

    /// The options by which an agent finds the host at its socket.
    pub(in crate::demo) fn at_socket(&self) -> Vec<String> {
        vec!["--host".into(), format!("unix:{}", self.place.path(HOST_SOCKET).display())]
    }

    /// The process that serves.
    pub(in crate::demo) fn host_pid(&self) -> Result<u32> {
        self.children.pid("host")
    }

    /// The sealed units of the model, as the host keeps them, once more under a path: no byte is copied.
    pub(in crate::demo) fn link_units(&self, to: &Path) -> Result<()> {
        let kept = self.place.path("host").join("models").join(&self.model.name).join("1");
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        shell::output(Command::new("cp").arg("-al").arg(kept).arg(to))?;
        Ok(())
    }

    /// An empty directory, to mount memory at.
    pub(in crate::demo) fn bench_place(&self, name: &str) -> Result<PathBuf> {
        let place = self.place.path(name);
        fs::create_dir_all(&place)?;
        Ok(place)
    }

    /// What a finished step wrote.
    pub(in crate::demo) fn said(&self, log: &str) -> Result<String> {
        Ok(fs::read_to_string(self.children.log(log))?)
    }

    /// Its processes, to start more beside them.
    pub(in crate::demo) fn processes(&mut self) -> &mut Children {
        &mut self.children
    }
}
