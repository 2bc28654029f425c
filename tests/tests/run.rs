//! `vault-enclave run`: what its command gets, what it gives back, and what is left of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vault_tests::{Running, Swtpm, World, run};

/// How long the kernel may take to end what a killed process leaves.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// `vault-enclave run demo@1 -- sh -c SCRIPT`; the script has the files in `$1`.
fn run_command(world: &World, guest: &Swtpm, script: &str) -> Command {
    let at = world.path("weights");
    let mut command = world.enclave("run");
    command.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    command.arg("--at").arg(&at).args(["--", "sh", "-c", script, "sh"]).arg(&at);
    command
}

/// Processes whose command line has this in it.
fn with_command_line(text: &str) -> Vec<String> {
    each_process(|process| {
        let line = fs::read(process.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then_some(line)
    })
}

/// Processes that have something mounted there.
fn with_mount(at: &Path) -> Vec<String> {
    let wanted = format!(" {} ", at.display());
    each_process(|process| {
        let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
        mounts.contains(&wanted).then(|| process.display().to_string())
    })
}

fn each_process(look: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok).map(|entry| entry.path());
    processes.filter(|path| path.join("cmdline").exists()).filter_map(|path| look(&path)).collect()
}

#[test]
fn command_of_run_is_alone_and_nothing_of_it_outlives_run() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount");
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");

    // Its exit status is that of the command, which reads the files and sees no other process.
    let script =
        "test -s \"$1/model.safetensors\" && test \"$PPID\" = 1 && set -- /proc/[0-9]* && test $# -lt 6 && exit 7";
    let (code, said) = run(&mut run_command(&world, &guest, script));
    assert_eq!(code, Some(7), "{said}");
    let (code, said) = run(&mut run_command(&world, &guest, "kill -9 $$"));
    assert_eq!(code, Some(128 + 9), "{said}");

    // Signals reach it.
    let log = world.path("signalled.log");
    let script = "trap 'exit 9' TERM; echo \"listens\" ; while :; do sleep 0.05; done";
    let mut signalled = Running::start(&mut run_command(&world, &guest, script), &log);
    signalled.wait_for("listens");
    assert_eq!(signalled.terminate(), Some(9));

    // What it started goes with it, also where `run` is killed and can't end it.
    let marker = format!("{}.25", 100_000 + std::process::id());
    let script = format!("sleep {marker} & echo \"has started\"; wait");
    let (at, log) = (world.path("weights"), world.path("killed.log"));
    let mut killed = Running::start(&mut run_command(&world, &guest, &script), &log);
    killed.wait_for("has started");
    assert!(!with_command_line(&format!("sleep {marker}")).is_empty());
    assert!(!with_mount(&at).is_empty(), "it is mounted in its namespace");
    killed.kill();
    let start = Instant::now();
    loop {
        let left = (with_command_line(&marker), with_mount(&at));
        if left.0.is_empty() && left.1.is_empty() {
            break;
        }
        assert!(start.elapsed() < GONE_WITHIN, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
