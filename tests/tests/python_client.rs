//! The Python package `weightvault` against an agent that runs, with a real model.

use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::python::{self, interpreter, is_wanted, minilm};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Guest, Running, Swtpm, World, binary, run, run_ok};

/// Who reads.
const READER: &str = "21011";

fn script(python: &Path, name: &str) -> Command {
    python::script(python, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/tests").join(name))
}

/// A vault, the software TPM of an agent's machine, and the real model as `demo@minilm`.
fn world(python: &Path) -> (World, Swtpm, PathBuf) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        let rule = guest_rule(&tpm);
        policy.push_str(&rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 4s\"", 1));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    let model = minilm(python);
    let mut seal = world.enclave("seal");
    seal.arg(&model).args(["--model", "demo", "--version", "minilm", "--vault"]).arg(world.vault());
    run_ok(seal.arg("--publisher-key").arg(world.path("publisher.pem")));
    world.approve(&APPROVERS[..2]);
    let root = world.path("x").parent().expect("it lies in a directory").to_owned();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(root, mode).expect("the directory is ours");
    (world, guest.expect("the closure ran"), model)
}

#[test]
fn tensors_of_a_real_model_equal_those_of_its_plain_files() {
    let Some(python) = interpreter() else { return };
    let (world, guest, plain) = world(&python);
    let mut agent = world.enclave("agent");
    agent.args(["demo@minilm:guest", "--tpm", &guest.tcti, "--allow", READER, "--vault"]).arg(world.vault());
    agent.arg("--sockets").arg(world.path("sockets")).arg("--memory").arg(world.path("memory"));
    let mut agent = Running::start(&mut agent, &world.path("agent.log"));
    agent.wait_for("is shared");
    let socket = world.path("sockets").join("agent.sock");

    // What needs a library that is not installed says that it is skipped.
    for (name, tests, library) in [
        ("test_agent.py", "Ran 14 tests", "torch"),
        ("test_transformers.py", "Ran 2", "transformers"),
        ("test_vllm.py", "Ran 1", "vllm"),
    ] {
        let mut script = script(&python, name);
        script.env("WEIGHTVAULT_AGENT", &socket).env("WEIGHTVAULT_TEST_MODEL", "demo@minilm");
        let said = run_ok(script.env("WEIGHTVAULT_TEST_PLAIN", &plain).env("WEIGHTVAULT_TEST_UID", READER));
        println!("{name}: {said}");
        assert!(said.contains(tests) && said.contains("OK"), "{said}");
        assert!(!is_wanted(library) || !said.contains("skipped"), "{said}");
    }

    // The end of the lease, as a program sees it.
    let mut held = script(&python, "lease_end.py");
    held.args(["demo", if is_wanted("torch") { "pt" } else { "np" }]).env("WEIGHTVAULT_AGENT", &socket);
    let mut held = Running::start(&mut held, &world.path("held.log"));
    held.wait_for("holds");
    let mut revoke = world.vaultctl();
    run_ok(revoke.args(["revoke", "--model", "demo", "--yes", "--key"]).arg(world.path(APPROVERS[0])));
    let (code, said) = held.wait();
    assert_eq!(code, Some(0), "{said}");
    let expected = "holds True\ndraining lease-revoked True\nunchanged True\ngone lease-revoked\nzeros True\n\
        lost lease-revoked\nno more lease-revoked\n";
    assert_eq!(said, expected);
}

#[test]
fn tensors_of_every_type_are_read_and_what_does_not_fit_is_refused() {
    let Some(python) = interpreter() else { return };
    let (code, said) = run(&mut script(&python, "test_safetensors.py"));
    assert!(code == Some(0) && said.contains("Ran 6 tests"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_grpc_lists_models_gets_a_challenge_and_reads_ciphertext() {
    let Some(python) = interpreter() else { return };
    let world = World::open();
    world.publish("1");
    let guest = Guest::new(&world).await;
    let written = |name: &str, bytes: &[u8]| {
        let path = world.path(name);
        std::fs::write(&path, bytes).expect("the directory is ours");
        path
    };
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/examples/grpc_client.py");
    let ask = |version: &str| {
        let mut example = Command::new(&python);
        example.arg(&client).args([&world.url(), "demo", version, "--rule", "demo", "--unit", "1"]);
        for (number, certificate) in guest.identity.ek_certificates.iter().enumerate() {
            example.arg("--ek-certificate").arg(written(&format!("ek-{number}.der"), certificate));
        }
        run(example.arg("--ak-public").arg(written("ak.bin", &guest.identity.ak_public)))
    };
    let (code, said) = ask("1");
    assert_eq!(code, Some(0), "{said}");
    for part in ["model demo@1: ", "nonce of 32 bytes", "PCRs [0, 2, 4, 7, 9, 11]", "ciphertext, as signed"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said) = ask("9");
    assert!(code == Some(1) && said.contains("NOT_FOUND"), "{said}");
}
