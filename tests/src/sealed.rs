//! A published model of which a directory has the sealed units too, and loads that take them from somewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::memory::children;
use crate::process::{Running, Swtpm, binary, run, run_ok};
use crate::world::{APPROVERS, World};

/// The model is `demo@1`, its rule `guest`.
pub struct Sealed {
    /// The vault.
    pub world: World,
    /// The machine that may have it.
    pub guest: Swtpm,
    /// What `seal --out` made.
    pub sealed: PathBuf,
}

impl Sealed {
    /// Of the small model.
    pub fn open() -> Self {
        Self::of_size("4M")
    }

    /// Of a model of about so many bytes, as `xtask model` takes them.
    pub fn of_size(size: &str) -> Self {
        let (world, guest) = World::open_with_guest();
        run_ok(Command::new(binary("xtask")).args(["model", "--size", size, "--out"]).arg(world.path("source")));
        let sealed = world.path("sealed");
        let mut seal = world.enclave("seal");
        seal.arg(world.source()).args(["--model", "demo", "--version", "1", "--vault"]).arg(world.vault());
        seal.arg("--publisher-key").arg(world.path("publisher.pem")).arg("--out").arg(&sealed);
        run_ok(&mut seal);
        run_ok(world.enclave("publish").arg(&sealed).arg("--vault").arg(world.vault()));
        world.approve(&APPROVERS[..2]);
        Self { world, guest, sealed }
    }

    /// Where loads put the files.
    pub fn place(&self) -> PathBuf {
        let world = self.world.path("");
        let world = world.file_name().expect("the world has a directory").to_string_lossy().into_owned();
        PathBuf::from(format!("/dev/shm/{world}-sources"))
    }

    /// `vault-enclave load` with these options.
    pub fn command(&self, options: &[&str]) -> Command {
        self.command_of(&self.guest.tcti, &self.place(), options)
    }

    /// The same, with another way to the machine's TPM, or into another place.
    pub fn command_of(&self, tcti: &str, into: &Path, options: &[&str]) -> Command {
        let mut load = self.world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", tcti, "--vault"]).arg(self.world.vault());
        load.arg("--into").arg(into).args(options);
        load
    }

    /// Starts it, with a log of its own.
    pub fn start(&self, command: &mut Command) -> Running {
        let log = self.world.path("load.log");
        // Running adds to what is there.
        let _ = fs::remove_file(&log);
        Running::start(command, &log)
    }

    /// A load with these options: all of it is there, and this is what was said.
    pub fn loads(&self, options: &[&str]) -> String {
        self.loads_by(&mut self.command(options))
    }

    /// The same by this command.
    pub fn loads_by(&self, command: &mut Command) -> String {
        let mut load = self.start(command);
        load.wait_for("ready");
        self.assert_opened(&self.place());
        let said = load.log();
        load.terminate();
        let _ = fs::remove_dir(self.place());
        said
    }

    /// All of it is there.
    pub fn assert_opened(&self, there: &Path) {
        for file in fs::read_dir(self.world.source()).expect("the source") {
            let file = file.expect("the source");
            let opened = fs::read(there.join(file.file_name())).expect("the same file is there");
            assert!(opened == fs::read(file.path()).expect("the source"), "{:?} differs", file.file_name());
        }
    }

    /// A load that fails with these words, and leaves nothing; all that it said.
    pub fn refused(&self, options: &[&str], reason: &str) -> String {
        self.refused_by(&mut self.command(options), reason)
    }

    /// The same by this command.
    pub fn refused_by(&self, command: &mut Command, reason: &str) -> String {
        let (status, said) = run(command);
        assert!(status != Some(0) && said.contains(reason), "{reason}: {said}");
        assert!(!self.has_files(), "plaintext is left: {said}");
        let _ = fs::remove_dir(self.place());
        said
    }

    /// Whether anything lies where loads put the files.
    pub fn has_files(&self) -> bool {
        fs::read_dir(self.place()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The modes of all files there.
    pub fn modes(&self) -> Vec<u32> {
        modes(&self.place())
    }

    /// Whether every release came to its end: no lease is left.
    pub fn assert_no_lease(&self) {
        assert_eq!(self.entries("release"), self.entries("end"), "a lease is left");
    }

    /// The host begins anew, with these lines under `[limits]`.
    pub fn limit_host(&mut self, limits: &str) {
        let socket = self.world.path("keeper.sock");
        self.world.host_keeper = Some(format!("keeper = \"unix:{}\"\n[limits]\n{limits}\n", socket.display()));
        self.world.host.take().expect("it runs").terminate();
        self.world.start_host();
    }

    /// The host loses its ciphertext, not the manifest.
    pub fn host_loses_units(&self) {
        fs::remove_dir_all(self.world.path("host").join("models/demo/1/units")).expect("the host stores them");
    }

    /// A copy of the sealed units.
    pub fn copy(&self, to: &Path) {
        fs::create_dir_all(to.join("units")).expect("the directory is ours");
        for unit in fs::read_dir(self.sealed.join("units")).expect("the sealed units") {
            let unit = unit.expect("the sealed units");
            fs::copy(unit.path(), to.join("units").join(unit.file_name())).expect("the directory is ours");
        }
    }

    /// How many entries of this type the log has.
    pub fn entries(&self, kind: &str) -> usize {
        run_ok(self.world.vaultctl().args(["log", "show"])).matches(&format!(" {kind} ")).count()
    }
}

/// The child that a load has while it loads.
pub fn loader(load: u32) -> u32 {
    let [loader] = children(load).try_into().expect("the loader");
    loader
}

fn modes(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there").path());
    let modes = entries.map(|path| match fs::symlink_metadata(&path).expect("it is there") {
        metadata if metadata.is_dir() => modes(&path),
        metadata => vec![metadata.permissions().mode() & 0o7777],
    });
    modes.collect::<Vec<_>>().concat()
}

/// A path as an option.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("it is ASCII")
}

/// Flips a bit in the middle of a file.
pub fn flip(unit: &Path) {
    let mut bytes = fs::read(unit).expect("a unit");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(unit, bytes).expect("the directory is ours");
}
