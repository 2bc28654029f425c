//! Programs that know nothing of a vault, under `vault-enclave run`: llama.cpp reads a model at its usual path.

use std::fs;
use std::path::Path;
use std::process::Command;

use vault_tests::python::{interpreter, is_wanted, minilm, script};
use vault_tests::serve::with_script;
use vault_tests::world::APPROVERS;
use vault_tests::{World, run_ok};

#[test]
fn llama_cpp_reads_a_model_at_its_usual_path_and_computes_what_it_does_of_plain_files() {
    if !is_wanted("xllamacpp") {
        println!("skipped: `cargo xtask python` installs llama.cpp and runs this");
        return;
    }
    let Some(python) = interpreter() else { return };
    let (world, guest) = World::open_with_guest();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/tests");

    // Plain files, where the program expects them.
    let usual = world.path("models");
    fs::create_dir(&usual).expect("it is ours");
    let file = usual.join("minilm.gguf");
    run_ok(script(&python, &programs.join("make_gguf.py")).arg(minilm(&python)).arg(&file));
    let mut program = script(&python, &programs.join("llama_embed.py"));
    program.arg(&file);
    let of_plain_files = embeddings(&run_ok(&mut program));
    assert!(of_plain_files.len() > 2 * 384 * 8, "{of_plain_files}");

    // Sealed, and the plain files gone: the same command line says the same.
    let mut seal = world.enclave("seal");
    seal.arg(&usual).args(["--model", "demo", "--version", "gguf", "--vault"]).arg(world.vault());
    run_ok(seal.arg("--publisher-key").arg(world.path("publisher.pem")));
    world.approve(&APPROVERS[..2]);
    fs::remove_file(&file).expect("it is ours");
    let mut under_run = world.enclave("run");
    under_run.args(["demo@gguf", "--at"]).arg(&usual);
    with_script(&mut under_run, &world, &guest, "exec \"$@\"");
    under_run.arg(program.get_program()).args(program.get_args());
    take_environment(&mut under_run, &program);
    assert_eq!(embeddings(&run_ok(&mut under_run)), of_plain_files);
    assert_eq!(fs::read_dir(&usual).expect("it is a directory").count(), 0);
}

/// The line with the numbers; llama.cpp and `run` say other things beside it.
fn embeddings(said: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix("embeddings "));
    line.unwrap_or_else(|| panic!("no embeddings in {said}")).to_owned()
}

fn take_environment(command: &mut Command, from: &Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}
