//! `vault-enclave run`: what its command gets, what it gives back, and what is left of it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vault_tests::serve::{STRANGER, is_root, run_as, run_command, wait_until, with_command_line, with_mount};
use vault_tests::{Running, World, run, run_ok};

#[test]
fn command_of_run_is_alone_and_nothing_of_it_outlives_run() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");

    // Its exit status is that of the command, which reads the files and sees no other process.
    let script =
        "test -s \"$1/model.safetensors\" && test \"$PPID\" = 1 && set -- /proc/[0-9]* && test $# -lt 6 && exit 7";
    let (code, said) = run(&mut run_command(&world, &guest, script));
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("first tensor to be read after"), "{said}");
    assert!(said.contains(" % in huge pages") || said.contains("note      small pages"), "{said}");
    let (code, said) = run(&mut run_command(&world, &guest, "kill -9 $$"));
    assert_eq!(code, Some(128 + 9), "{said}");
    let (code, said) = run(&mut run_command(&world, &guest, "exec /nowhere/to/be/found"));
    assert_eq!(code, Some(127), "{said}");

    // The directory is exactly what was sealed, and it is another user's, who has no way back and no core.
    let script = format!(
        "diff -r {} \"$1\" && id -u && id -G && grep -E 'NoNewPrivs|CapEff|CapAmb' /proc/self/status && \
         cat /proc/self/coredump_filter && stat -c %a:%u \"$1\" && cat",
        world.source().display()
    );
    std::fs::set_permissions(world.path("."), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    let mut command = run_as(&world, &guest, &["--user", &format!("{STRANGER}:{STRANGER}")], &script);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    child.stdin.take().expect("a pipe").write_all(b"through stdin").expect("it reads");
    let output = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stdout);
    let none = "0".repeat(16);
    let expected = format!(
        "{STRANGER}\n{STRANGER}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\n{:08x}\n700:{STRANGER}\nthrough stdin",
        0
    );
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), expected.as_str()));

    // Signals reach it.
    let traps: String = ["HUP", "INT", "QUIT", "USR1", "USR2", "WINCH"]
        .iter()
        .map(|name| format!("trap 'echo \"got {name}\"' {name}; "))
        .collect();
    let script = format!("{traps} trap 'exit 9' TERM; echo \"listens\" ; while :; do sleep 0.05; done");
    let mut signalled = Running::start(&mut run_command(&world, &guest, &script), &world.path("signalled.log"));
    signalled.wait_for("listens");
    for name in ["HUP", "INT", "QUIT", "USR1", "USR2", "WINCH"] {
        run_ok(Command::new("sh").args(["-c", &format!("kill -{name} {}", signalled.pid())]));
        signalled.wait_for(&format!("got {name}"));
    }
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
    gone(&marker, &at);

    // So does a load that is killed on its way.
    let killed = Running::start(&mut run_command(&world, &guest, "true"), &world.path("load-killed.log"));
    wait_until("it mounts", || !with_mount(&at).is_empty());
    let pid = killed.pid();
    killed.kill();
    gone(&format!("--parent={pid}"), &at);
}

/// No process has this in its command line, and none has anything mounted there: the memory is the kernel's again.
fn gone(marker: &str, at: &Path) {
    /// How long the kernel may take to end what a killed process leaves.
    const GONE_WITHIN: Duration = Duration::from_secs(10);
    let start = Instant::now();
    loop {
        let left = (with_command_line(marker), with_mount(at));
        if left.0.is_empty() && left.1.is_empty() {
            return;
        }
        assert!(start.elapsed() < GONE_WITHIN, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn run_needs_no_root_where_users_have_namespaces_and_says_what_to_do_where_they_have_not() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    // The user reaches the vault file and the host, and nothing else of this world.
    for (path, mode) in [(".", 0o755), ("vault", 0o755), ("vault/vault.json", 0o644), ("host.sock", 0o777)] {
        std::fs::set_permissions(world.path(path), std::fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    std::fs::create_dir(world.path("weights")).expect("it is ours");

    let without = ["--user", "--map-root-user", "sh", "-c"];
    let refused = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -sys_admin \"$@\"";
    let mut enclave = Command::new("unshare");
    enclave.args(without).args([refused, "sh"]).arg(vault_tests::process::binary("vault-enclave"));
    let refused = run_command(&world, &guest, "true");
    let (code, said) = run(enclave.args(refused.get_args()));
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("namespace") && said.contains("run as root with CAP_SYS_ADMIN"), "{said}");
    assert!(said.contains("`vault-enclave agent`"), "{said}");

    let as_user = |command: &mut Command| run(command.uid(STRANGER).gid(STRANGER));
    let (code, said) = as_user(Command::new("unshare").args(["--user", "--mount", "true"]));
    if code != Some(0) {
        println!("skipped: this system lets users have no namespaces: {said}");
        return;
    }
    let script = "id -u && ls -A \"$1\" | head -1 && test \"$PPID\" = 1 && set -- /proc/[0-9]* && test $# -lt 8 && \
                  grep -E 'CapEff|CapAmb|NoNewPrivs' /proc/self/status; ulimit -c; exit 7";
    let (code, said) = as_user(&mut run_command(&world, &guest, script));
    assert_eq!(code, Some(7), "{said}");
    let none = "0".repeat(16);
    let expected = format!("{STRANGER}\nconfig.json\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\n");
    assert!(said.contains(&expected), "{said}");
    assert!(with_mount(&world.path("weights")).is_empty());
    let (code, said) = as_user(&mut run_as(&world, &guest, &["--user", "7:7"], "true"));
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("user-not-root"), "{said}");
}
