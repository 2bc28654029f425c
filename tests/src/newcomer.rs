//! A machine whose keeper asks to take over the vault of a world.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{Boot, Running, Swtpm, binary};
use crate::world::World;

/// A machine with a software TPM of its own, and what its keeper keeps.
pub struct Newcomer {
    /// What its files are called by.
    pub name: String,
    /// `None` while the machine is switched off, and while its keeper is that of the world.
    pub tpm: Option<Swtpm>,
    /// How its keeper reaches the TPM, where something stands between.
    pub tcti: Option<String>,
}

impl Newcomer {
    /// A machine that booted the keeper's image, with a TPM of the world's makers.
    pub fn new(world: &World, name: &str) -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        Self::booted(world, name, &boot)
    }

    /// As [`Newcomer::new`], on a machine that booted so.
    pub fn booted(world: &World, name: &str, boot: &Boot) -> Self {
        let tpm = Swtpm::booted(&world.path(&format!("tpm-{name}")), &world.path("ca"), boot);
        Self { name: name.to_owned(), tpm: Some(tpm), tcti: None }
    }

    /// Its keeper's directory.
    pub fn dir(&self, world: &World) -> PathBuf {
        world.path(&format!("keeper-{}", self.name))
    }

    /// `vault-enclave keeper-join` there.
    pub fn join(&self, world: &World) -> Running {
        let log = world.path(&format!("join-{}.log", self.name));
        let _ = fs::remove_file(&log);
        Running::start(&mut self.command(world), &log)
    }

    /// As [`Newcomer::join`], not started.
    pub fn command(&self, world: &World) -> Command {
        let tcti = self.tcti.as_ref().unwrap_or_else(|| &self.tpm.as_ref().expect("its machine is on").tcti);
        let mut command = world.enclave("keeper-join");
        command.arg("--dir").arg(self.dir(world)).args(["--tpm", tcti, "--vault"]).arg(world.vault());
        command.args(["--host", &world.url()]);
        command
    }

    /// It is the keeper of the world from now on, which the caller starts; what was the keeper becomes a machine of its own.
    pub fn take_over(mut self, world: &mut World, former: &str) -> Self {
        let before = Self { name: former.to_owned(), tpm: world.keeper_tpm.take(), tcti: None };
        fs::rename(world.path("keeper"), before.dir(world)).expect("the directory is ours");
        fs::rename(self.dir(world), world.path("keeper")).expect("the directory is ours");
        world.keeper_tpm = self.tpm.take();
        before
    }

    /// The keeper's own process on this machine: it may refuse.
    pub fn start_keeper_process(&self, world: &World) -> Running {
        let tpm = self.tpm.as_ref().expect("its machine is on");
        let log = world.path(&format!("keeper-{}.log", self.name));
        let _ = fs::remove_file(&log);
        let socket = world.path(&format!("keeper-{}.sock", self.name));
        let _ = fs::remove_file(&socket);
        let mut command = world.enclave("keeper");
        command.arg("--dir").arg(self.dir(world)).args(["--tpm", &tpm.tcti]);
        command.arg("--listen").arg(format!("unix:{}", socket.display()));
        Running::start(&mut command, &log)
    }
}
