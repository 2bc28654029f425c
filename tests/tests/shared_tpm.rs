//! Several processes and one TPM that no resource manager minds: a software TPM has none.

use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::{Running, World, run, run_ok};

/// Enough that some want the TPM while another has it.
const AGENTS: usize = 4;

/// `vault-enclave load demo@1` on a TPM, under the rule `guest`.
fn load(world: &World, tcti: &str, into: &Path) -> Command {
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", tcti, "--vault"]).arg(world.vault()).arg("--into").arg(into);
    load
}

/// A directory in memory.
fn place(world: &World, name: &str) -> PathBuf {
    let dir = world.path("");
    let dir = dir.file_name().expect("the world has a directory").to_string_lossy().into_owned();
    PathBuf::from(format!("/dev/shm/{dir}-{name}"))
}

#[test]
fn agents_at_once_on_one_tpm_take_turns_and_all_load() {
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let mut agents: Vec<_> = (0..AGENTS)
        .map(|index| {
            let into = place(&world, &index.to_string());
            let log = world.path(&format!("load-{index}.log"));
            (Running::start(&mut load(&world, &guest.tcti, &into), &log), into)
        })
        .collect();
    for (agent, into) in &mut agents {
        agent.wait_for("ready");
        assert!(into.join("model.safetensors").exists(), "{}", agent.log());
    }
    for (agent, into) in agents {
        assert_eq!(agent.terminate(), Some(0));
        let _ = std::fs::remove_dir(into);
    }
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    assert_eq!(log.matches(" release ").count(), AGENTS, "{log}");
}

#[test]
fn agent_on_the_tpm_of_a_keeper_is_refused_and_the_keeper_goes_on() {
    let world = World::open();
    world.publish("1");
    let keeper = world.keeper.as_ref().expect("the keeper runs").pid();
    let tcti = world.keeper_tpm.as_ref().expect("its machine is on").tcti.clone();
    let into = place(&world, "refused");
    let (code, said) = run(&mut load(&world, &tcti, &into));
    let _ = std::fs::remove_dir(&into);
    assert_eq!(code, Some(1), "{said}");
    let by = format!("process {keeper} (vault-enclave keeper)");
    assert!(said.contains("tpm-in-use") && said.contains("/dev/tpmrm0"), "{said}");
    assert_eq!(said.matches(&by).count(), 2, "one line while it waits, one at the end:\n{said}");
    // Each answer needs the keeper's TPM: its counter, and a quote.
    world.publish("2");
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}
