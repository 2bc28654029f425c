//! `examples/candle-embed`: a program that is not ours has MiniLM in candle from a vault, by the library. `cargo xtask candle`
//! builds it and runs this.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vault_tests::relay;
use vault_tests::serve::wait_until;
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Swtpm, World, binary, run_ok};

/// Two of them say much the same.
const SENTENCES: &str = "A cat sits on the mat.\nA kitten is sitting on a rug.\nShares fell after the bank's report.\n";
/// Bytes of a load that has its keys, and is far from its end.
const GRANTED: usize = 4 << 20;
/// Numbers of an embedding.
const WIDTH: usize = 384;

/// The program, and the plain files of the model; `None` where they were not asked for.
fn candle() -> Option<(PathBuf, PathBuf)> {
    let [program, model] = ["WEIGHTVAULT_CANDLE", "WEIGHTVAULT_MINILM"].map(std::env::var_os);
    let Some((program, model)) = program.zip(model) else {
        println!("skipped: `cargo xtask candle` builds the program and runs this");
        return None;
    };
    Some((program.into(), model.into()))
}

/// A vault with the model as `demo@1`, and the software TPM of a machine that may have it.
fn world(model: &Path) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&guest_rule(&tpm));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    let mut seal = world.enclave("seal");
    seal.arg(model).args(["--model", "demo", "--version", "1", "--vault"]).arg(world.vault());
    run_ok(seal.arg("--publisher-key").arg(world.path("publisher.pem")));
    world.approve(&APPROVERS[..2]);
    (world, guest.expect("the closure ran"))
}

fn from_vault(program: &Path, world: &World, guest: &Swtpm) -> Command {
    from_host(program, world, guest, &world.url())
}

fn from_host(program: &Path, world: &World, guest: &Swtpm, host: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--vault").arg(world.vault()).args(["--model", "demo@1", "--rule", "guest", "--tpm", &guest.tcti]);
    command.args(["--host", host]);
    command
}

/// What it answers to the sentences, and says.
fn embeds(command: &mut Command) -> (String, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    child.stdin.take().expect("a pipe").write_all(SENTENCES.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is our child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}:\n{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn embeddings_by_weights_of_a_vault_are_those_of_the_plain_files_to_the_bit() {
    let Some((program, plain)) = candle() else { return };
    let (world, guest) = world(&plain);
    let (expected, _) = embeds(Command::new(&program).arg("--plain").arg(&plain));
    let (loaded, said) = embeds(&mut from_vault(&program, &world, &guest));
    println!("{said}");
    // As text: a number is written so that reading it gives the same bits, and no two have the same.
    assert!(loaded == expected, "{loaded}\ndiffers from\n{expected}");
    assert!(said.contains("memory of this process"), "{said}");
    let (in_order, said) = embeds(from_vault(&program, &world, &guest).arg("--in-order"));
    assert!(in_order == expected, "{in_order}\ndiffers from\n{expected}\n{said}");

    let vectors: Vec<Vec<f64>> = expected.lines().map(|line| serde_json::from_str(line).expect("numbers")).collect();
    assert!(vectors.len() == 3 && vectors.iter().all(|vector| vector.len() == WIDTH));
    let likeness = |one: usize, two: usize| vectors[one].iter().zip(&vectors[two]).map(|(a, b)| a * b).sum::<f64>();
    assert!((likeness(0, 0) - 1.0).abs() < 1e-5, "of length {}", likeness(0, 0));
    assert!(likeness(0, 1) > 0.5 && likeness(0, 2) < 0.2, "{} and {}", likeness(0, 1), likeness(0, 2));
    let released = run_ok(world.vaultctl().args(["log", "show"]));
    assert_eq!((released.matches(" release ").count(), released.matches(" end ").count()), (2, 2));
}

#[test]
fn a_program_with_copies_in_candle_lets_go_and_ends_when_its_lease_is_revoked() {
    let Some((program, plain)) = candle() else { return };
    let (world, guest) = world(&plain);
    let mut command = from_vault(&program, &world, &guest);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    stdin.write_all(b"Is anybody there?\n").expect("it reads");
    let answer = lines.next().expect("an answer").expect("text");
    assert_eq!(serde_json::from_str::<Vec<f64>>(&answer).expect("numbers").len(), WIDTH);
    let mut revoke = world.vaultctl();
    run_ok(revoke.args(["revoke", "--model", "demo", "--yes", "--key"]).arg(world.path(APPROVERS[0])));
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it is our child").code(), Some(77), "{said}");
    assert!(said.contains("the lease is revoked"), "{said}");
    assert!(lines.next().is_none());
}

#[test]
fn a_program_whose_lease_is_revoked_while_it_loads_ends_by_that() {
    let Some((program, plain)) = candle() else { return };
    let (world, guest) = world(&plain);
    let (_quick, gate) = relay::slow_after(GRANTED);
    let slow = world.path("slow.sock");
    relay::unix(&slow, &world.path("host.sock"), gate);
    let host = format!("unix:{}", slow.display());
    let start = |options: &[&str]| {
        let mut command = from_host(&program, &world, &guest, &host);
        command.args(options).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it was built")
    };
    let started = [start(&[]), start(&["--in-order"])];
    let released = || run_ok(world.vaultctl().args(["log", "show"])).matches(" release ").count();
    wait_until("both have their keys", || released() == 2);
    let mut revoke = world.vaultctl();
    run_ok(revoke.args(["revoke", "--model", "demo", "--no-wait", "--yes", "--key"]).arg(world.path(APPROVERS[0])));
    for child in started {
        let output = child.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
    }
}
