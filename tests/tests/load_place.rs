//! Where `load`, `run` and `agent` work, while somebody who may write to a directory above puts another in its place, and what
//! is left where one is killed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Once, OnceLock};

use vault_tests::reader::Reader;
use vault_tests::relay::{self, Way};
use vault_tests::serve::{STRANGER, is_root, with_script};
use vault_tests::{Running, Swtpm, World, run, run_ok};

/// `vault-enclave load demo@1`; what these tests write on a disk is no secret.
fn load(world: &World, guest: &Swtpm, host: &str, into: &Path) -> Command {
    let mut command = world.enclave("load");
    command.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--host", host, "--vault"]).arg(world.vault());
    command.args(["--insecure-plaintext-on-disk", "--into"]).arg(into);
    command
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn leases(world: &World) -> String {
    run_ok(world.vaultctl().arg("leases"))
}

#[test]
fn a_directory_that_takes_the_destinations_place_while_a_load_begins_gets_nothing() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let (into, away, socket) = (world.path("into"), world.path("away"), world.path("relay.sock"));
    let swap = {
        let (once, into, away) = (Once::new(), into.clone(), away.clone());
        // The loader asks the host before it opens anything, and its parent has the directory open by then.
        move |_: Way, _: &[u8]| {
            once.call_once(|| {
                fs::rename(&into, &away).expect("the load has made it");
                fs::create_dir(&into).expect("it is away");
                fs::set_permissions(&into, fs::Permissions::from_mode(0o700)).expect("it is ours");
            });
            true
        }
    };
    relay::unix(&socket, &world.path("host.sock"), Arc::new(swap));
    let (code, said) = run(&mut load(&world, &guest, &format!("unix:{}", socket.display()), &into));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("destination-replaced"), "{said}");
    assert_eq!((names(&into), names(&away)), (Vec::new(), Vec::new()));
    assert!(leases(&world).contains("No lease runs."), "nothing was asked for");
}

#[test]
fn plaintext_that_a_killed_load_left_is_named_by_the_next_one_and_left_alone() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let into = world.path("into");
    let again = |log: &str| {
        let mut load = Running::start(&mut load(&world, &guest, &world.url(), &into), &world.path(log));
        load.wait_for("ready ");
        load
    };
    again("first.log").kill();
    let left = names(&into);
    assert!(!left.is_empty(), "SIGKILL wipes nothing");
    let (code, said) = run(&mut load(&world, &guest, &world.url(), &into));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("destination-left-behind") && said.contains("rm -r"), "{said}");
    assert_eq!(names(&into).len(), left.len());
    for name in left {
        fs::remove_file(into.join(name)).expect("it is ours");
    }
    assert_eq!(again("second.log").terminate(), Some(0));
    assert_eq!(names(&into), Vec::<String>::new());
}

/// `above/at`, with `above` of this user and mode.
fn below(world: &World, name: &str, uid: u32, mode: u32) -> (PathBuf, PathBuf) {
    let above = world.path(name);
    fs::create_dir(&above).expect("it is ours");
    fs::set_permissions(&above, fs::Permissions::from_mode(mode)).expect("it is ours");
    chown(&above, Some(uid), None).expect("root may");
    (above.clone(), above.join("at"))
}

#[test]
fn nobody_is_given_a_directory_that_he_could_put_there_himself() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    for (path, mode) in [(".", 0o755), ("vault", 0o755), ("vault/vault.json", 0o644), ("host.sock", 0o777)] {
        fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    let run_at = |at: &Path, options: &[&str]| {
        let mut command = world.enclave("run");
        command.args(["demo@1", "--at"]).arg(at).args(options);
        with_script(&mut command, &world, &guest, "stat -c %u \"$1\"");
        command.arg(at);
        command
    };
    let (his, at_his) = below(&world, "his", STRANGER, 0o755);
    let (_, at_open) = below(&world, "open", 0, 0o777);
    let (_, at_sticky) = below(&world, "sticky", 0, 0o1777);
    let user = format!("{STRANGER}:{STRANGER}");
    let as_user: &[&str] = &["--user", &user];
    for (at, code) in [(&at_his, "path-other-owner"), (&at_open, "path-others-write")] {
        let (exit, said) = run(&mut run_at(at, as_user));
        assert_eq!(exit, Some(125), "{said}");
        assert!(said.contains(code) && said.contains("next: "), "{said}");
        for option in ["--memory", "--sockets"] {
            let mut agent = world.enclave("agent");
            agent.args(["demo@1:guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
            // The other one is as it should be.
            let other = if option == "--memory" { "--sockets" } else { "--memory" };
            let (exit, said) = run(agent.arg(option).arg(at).arg(other).arg(world.path("good")));
            assert!(exit == Some(1) && said.contains(code), "{option}: {said}");
        }
    }
    assert!(leases(&world).contains("No lease runs.") && !at_his.exists(), "nothing was asked for, or made");
    for (into, code) in [(&at_his, "path-other-owner"), (&at_open, "path-others-write")] {
        fs::create_dir(into).expect("root may");
        let (exit, said) = run(&mut load(&world, &guest, &world.url(), into));
        assert!(exit == Some(1) && said.contains(code), "{said}");
        fs::remove_dir(into).expect("it is empty");
    }
    // Where everybody may make directories, and take away none of others.
    let (exit, said) = run(&mut run_at(&at_sticky, as_user));
    assert!(exit == Some(0) && said.starts_with(&format!("{STRANGER}\n")), "{said}");
    assert_eq!(fs::metadata(&at_sticky).expect("it was made").uid(), 0, "what lies below the mount is as it was");

    // The same for a user without root, who may have directories of his own.
    let as_stranger = |at: &Path| run(run_at(at, &[]).uid(STRANGER).gid(STRANGER));
    chown(&his, Some(STRANGER + 1), None).expect("root may");
    for (at, code) in [(&at_his, "path-other-owner"), (&at_open, "path-others-write")] {
        let (exit, said) = as_stranger(at);
        assert!(exit == Some(125) && said.contains(code), "{said}");
    }
    let (exit, said) = run(Command::new("unshare").args(["--user", "--mount", "true"]).uid(STRANGER).gid(STRANGER));
    if exit != Some(0) {
        println!("skipped: this system lets users have no namespaces: {said}");
        return;
    }
    chown(&his, Some(STRANGER), None).expect("root may");
    let (exit, said) = as_stranger(&at_his);
    assert!(exit == Some(0) && said.starts_with(&format!("{STRANGER}\n")), "{said}");
}

#[test]
fn a_model_that_can_not_be_shared_is_wiped_and_its_lease_is_ended() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let (memory, sockets, socket) = (world.path("memory"), world.path("sockets"), world.path("relay.sock"));
    // Takes the directory of the first view away, which is there before the loader asks for anything.
    let agent = Arc::new(OnceLock::<u32>::new());
    let (taken, inside) = (Arc::new(Once::new()), (Arc::clone(&agent), memory.clone()));
    let gate = {
        let taken = Arc::clone(&taken);
        move |_: Way, _: &[u8]| {
            let (agent, memory) = &inside;
            let view = agent.get().map(|pid| PathBuf::from(format!("/proc/{pid}/root{}/view-0", memory.display())));
            if view.is_some_and(|view| fs::remove_dir(view).is_ok()) {
                taken.call_once(|| {});
            }
            true
        }
    };
    relay::unix(&socket, &world.path("host.sock"), Arc::new(gate));
    let mut command = world.enclave("agent");
    command.args(["demo@1:guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    command.args(["--host", &format!("unix:{}", socket.display())]);
    command.arg("--sockets").arg(&sockets).arg("--memory").arg(&memory);
    let mut running = Running::start(&mut command, &world.path("agent.log"));
    agent.set(running.pid()).expect("once");
    running.wait_for("the next try is in 5 s");
    assert!(taken.is_completed() && running.log().contains("(mount)"), "{}", running.log());
    let first = leases(&world);
    assert!(first.contains("No lease runs."), "{first}");
    // Nor is it in the way of the next try.
    running.wait_for("is shared");
    assert!(!Reader::open(&sockets.join("agent.sock"), "demo@1").files.is_empty());
    assert_eq!(running.terminate(), Some(0));
}
