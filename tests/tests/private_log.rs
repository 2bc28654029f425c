//! A log whose policy names its readers, read by `vaultctl` with the keys of people.

use std::fs;
use std::process::Command;

use vault_tests::world::APPROVERS;
use vault_tests::{World, run, run_ok};

const READER: &str = "rita";
const STRANGER: &str = "mallory";

/// A vault whose log is private: one reader, beside its approvers.
fn private() -> World {
    let world = World::before_ceremony(|world, policy| {
        let [reader, _] = [READER, STRANGER].map(|name| {
            let key = world.path(name);
            run_ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key));
            let public = fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it");
            public.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        });
        let readers = format!("readers = [{{ id = \"{READER}\", key = \"{reader}\" }}]");
        assert!(policy.contains("readers = \"any\""), "{policy}");
        *policy = policy.replace("readers = \"any\"", &readers);
    });
    world.sign_genesis();
    world
}

/// `vaultctl --reader-key KEY`.
fn read_as(world: &World, name: &str, arguments: &[&str]) -> Command {
    let mut command = world.vaultctl();
    command.arg("--reader-key").arg(world.path(name)).args(arguments);
    command
}

#[test]
fn private_log_is_read_with_the_key_of_a_reader_or_an_approver_and_no_other() {
    let world = private();
    // Index 1 is an approval of the genesis: it rests on evidence, which is a blob of the log.
    let reads: [&[&str]; 4] =
        [&["log", "verify", "--fresh"], &["log", "show"], &["evidence", "verify", "--entry", "1"], &["pending"]];
    for arguments in reads {
        for name in [READER, APPROVERS[2]] {
            run_ok(&mut read_as(&world, name, arguments));
        }
        let (code, said) = run(world.vaultctl().args(arguments));
        assert_eq!(code, Some(3), "{said}");
        for expected in ["audit-reader-missing", "give --reader-key KEY", "WEIGHTVAULT_READER_KEY"] {
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
        let (code, said) = run(&mut read_as(&world, STRANGER, arguments));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("not-a-reader"), "{arguments:?}: {said}");
    }
    let shown = run_ok(&mut read_as(&world, READER, &["log", "show"]));
    assert!(shown.contains("approves the genesis"), "{shown}");
    run_ok(world.vaultctl().args(["log", "verify"]).env("WEIGHTVAULT_READER_KEY", world.path(READER)));
    // A checkpoint is public.
    run_ok(world.vaultctl().args(["log", "checkpoint"]));
}

#[test]
fn approver_of_a_private_log_gives_his_key_once() {
    let world = private();
    world.seal("1");
    world.approve(&APPROVERS[..1]);
    // A reader's key reads, and the approver's signs.
    let mut approve = read_as(&world, READER, &["approve", "--latest", "--yes", "--key"]);
    run_ok(approve.arg(world.path(APPROVERS[1])));
    let models = run_ok(&mut read_as(&world, READER, &["models"]));
    assert!(models.contains("demo"), "{models}");

    // Without a key nothing is read, and a stranger's stays a stranger's.
    world.seal("2");
    let statement = world.path("statement.json");
    let mut unsigned = world.vaultctl();
    let (code, said) = run(unsigned.args(["approve", "--latest", "--print-statement"]).arg(&statement));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("audit-reader-missing") && !statement.exists(), "{said}");
    let (code, said) = run(world.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(world.path(STRANGER)));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("not-a-reader"), "{said}");
}
