//! Commands that `vault-enclave run` gives models to, and what is left of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Swtpm;
use crate::world::World;

/// A user that is nobody here.
pub const STRANGER: u32 = 54_321;
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this test can mount; CI sees to it that it can.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount");
    }
    is_root
}

/// `vault-enclave run demo@1 -- sh -c SCRIPT`; the script has the files in `$1`.
pub fn run_command(world: &World, guest: &Swtpm, script: &str) -> Command {
    run_as(world, guest, &[], script)
}

/// The same with more options.
pub fn run_as(world: &World, guest: &Swtpm, options: &[&str], script: &str) -> Command {
    let at = world.path("weights");
    let mut command = world.enclave("run");
    command.args(["demo@1", "--at"]).arg(&at).args(options);
    with_script(&mut command, world, guest, script);
    command.arg(&at);
    command
}

/// The end of such a command line: vault, rule, machine and script; its arguments follow.
pub fn with_script(command: &mut Command, world: &World, guest: &Swtpm, script: &str) {
    command.args(["--rule", "guest", "--tpm", &guest.tcti, "--host", &world.url(), "--vault"]).arg(world.vault());
    command.args(["--", "sh", "-c", script, "sh"]);
}

/// Waits for something that has to come.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose command line has this in it.
pub fn with_command_line(text: &str) -> Vec<u32> {
    each_process(|process| {
        let line = fs::read(process.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then_some(())
    })
}

/// Processes that have something mounted there.
pub fn with_mount(at: &Path) -> Vec<u32> {
    let wanted = format!(" {} ", at.display());
    each_process(|process| {
        let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
        mounts.contains(&wanted).then_some(())
    })
}

/// Every file below `dir`, but for those in `except`.
pub fn each_file(dir: &Path, except: &Path, take: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).expect("it is ours") {
        let path = entry.expect("it is ours").path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() && path.canonicalize().ok() != except.canonicalize().ok() {
            each_file(&path, except, take);
        } else if metadata.is_file() {
            take(&path, &fs::read(&path).unwrap_or_default());
        }
    }
}

fn each_process(look: impl Fn(&Path) -> Option<()>) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| look(Path::new(&format!("/proc/{id}"))).is_some()).collect()
}
