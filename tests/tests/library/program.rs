//! Programs in processes of their own: one that does not let go, and one whose memory is searched.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ledger::manifest::unit_path;
use ledger::vault_file::VaultFile;
use vault_enclave::publisher::PublisherSigner;
use vault_enclave::{Overdue, Session};
use vault_tests::memory::Secrets;
use vault_tests::serve::wait_until;
use vault_tests::web::Behaviour;
use vault_tests::world::APPROVERS;
use vault_tests::{Swtpm, Web, World, publisher, run_ok};

use super::{WEIGHTS, files, last_layer, machine, manifest, request_with, revoke, tensors, world};

/// A process that has `demo@1` by the library: it says `loaded`, lets go after a line, says `closed`, and ends after another.
struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
    stdin: ChildStdin,
}

impl Program {
    fn start(world: &World, guest: &Swtpm, name: &str) -> Self {
        let mut program = Self::begin(world, guest, name, "");
        program.wait_for("loaded");
        program
    }

    fn begin(world: &World, guest: &Swtpm, name: &str, source: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        command.args(["--exact", name, "--ignored", "--nocapture"]);
        command.env("PROGRAM_VAULT", world.vault()).env("PROGRAM_TPM", &guest.tcti).env("PROGRAM_HOST", world.url());
        command.env("PROGRAM_SOURCE", source);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, lines: BufReader::new(stdout), stdin }
    }

    fn wait_for(&mut self, said: &str) {
        let mut line = String::new();
        while line.trim_end() != said {
            line.clear();
            assert!(self.lines.read_line(&mut line).expect("it writes text") > 0, "it ended before it said {said}");
        }
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").expect("it listens");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn program(overdue: Overdue) {
    let Ok(vault) = std::env::var("PROGRAM_VAULT") else {
        println!("skipped: a test starts this");
        return;
    };
    let of = |name: &str| std::env::var(name).expect("a test starts this");
    let session = Session::open(machine(vault.into(), &of("PROGRAM_TPM"), &of("PROGRAM_HOST"))).await;
    let model = session.expect("a session").load(request_with(overdue)).await.expect("a model");
    let weights = model.weights().expect("it is lent");
    println!("\nloaded");
    let _ = std::io::stdin().lines().next();
    drop(weights);
    model.close().await.expect("it ends");
    println!("\nclosed");
    let _ = std::io::stdin().lines().next();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a test starts it"]
async fn program_that_is_waited_for() {
    program(Overdue::InsecureWait).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a test starts it"]
async fn program_that_is_ended() {
    program(Overdue::EndProcess).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a test starts it"]
async fn program_that_waits_for_a_source() {
    let Ok(vault) = std::env::var("PROGRAM_VAULT") else {
        println!("skipped: a test starts this");
        return;
    };
    let of = |name: &str| std::env::var(name).expect("a test starts this");
    let machine = machine(vault.into(), &of("PROGRAM_TPM"), &of("PROGRAM_HOST"));
    let mut request = request_with(Overdue::EndProcess);
    request.sources.source = vec![of("PROGRAM_SOURCE").parse().expect("a place")];
    let loading = Session::open(machine).await.expect("a session").stream(request).expect("a load");
    let lease = loading.lease();
    lease.lost().await;
    lease.wiped().await;
    let failure = loading.finish().await.err().expect("nothing is lent without a lease");
    println!("\n{}", failure.code());
    let _ = std::io::stdin().lines().next();
}

/// It has no layer, and its load waits for a source that does not go on.
#[test]
fn a_program_that_holds_nothing_is_not_ended_for_a_load_that_waits_for_its_source() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let stored = world.path("host").join("models/demo/1");
    let held = unit_path(*last_layer(&manifest(&stored)).last().expect("a unit"));
    let stops = held.clone();
    let web = Web::start(&stored, move |path| if path == stops { Behaviour::Stops } else { Behaviour::Serve });
    let source = web.url("127.0.0.1");
    let mut program = Program::begin(&world, &guest, "program::program_that_waits_for_a_source", &source);
    wait_until("the load waits", || web.ranges().iter().any(|(path, _)| *path == held));
    revoke(&world);
    program.wait_for("lease-revoked");
}

#[test]
fn a_program_that_does_not_let_go_in_time_is_ended_and_one_that_is_to_be_waited_for_is_not() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let mut ended = Program::start(&world, &guest, "program::program_that_is_ended");
    let mut waited_for = Program::start(&world, &guest, "program::program_that_is_waited_for");
    revoke(&world);
    assert_eq!(ended.child.wait().expect("it is our child").signal(), Some(6), "it aborts");
    waited_for.go_on();
    waited_for.wait_for("closed");
}

#[test]
fn a_program_has_no_key_after_its_load_and_no_weights_after_it_let_go() {
    if !rustix::process::geteuid().is_root() {
        // A session closes its process to its own user.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can search the memory of such a program");
        return;
    }
    // Whose key memory holds no key but what the test put there, whatever other tests of this file do meanwhile.
    let mut alone = Command::new(std::env::current_exe().expect("a test has a path"));
    run_ok(alone.args(["--exact", "program::a_program_is_searched", "--ignored", "--nocapture"]));
}

#[test]
#[ignore = "a test starts it"]
fn a_program_is_searched() {
    let (world, guest) = World::open_with_guest();
    let vault = VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file");
    let pem = fs::read_to_string(world.path("publisher.pem")).expect("the publisher's key");
    let signer = PublisherSigner::from_pem(&pem, &ring::rand::SystemRandom::new()).expect("a key");
    let sealed = world.path("sealed");
    let keys = publisher::seal_known(&world.source(), &sealed, &vault, &signer);
    run_ok(world.enclave("publish").arg(&sealed).arg("--vault").arg(world.vault()));
    world.approve(&APPROVERS[..2]);
    let mut weights = Secrets::default();
    for (name, bytes) in tensors(&files(&world)[WEIGHTS]).into_iter().filter(|(_, bytes)| bytes.len() > 4096) {
        weights.note(&name, &bytes[bytes.len() / 2..][..32]);
    }
    assert!(weights.names().len() > 8);

    let mut program = Program::start(&world, &guest, "program::program_that_is_waited_for");
    let found = |secrets: &Secrets| secrets.found_in(program.child.id()).expect("root reads any memory");
    assert_eq!(found(&weights), weights.names(), "the search does not find what is there");
    assert_eq!(found(&keys), BTreeSet::new(), "keys are there after a load");
    program.go_on();
    program.wait_for("closed");
    let found = |secrets: &Secrets| secrets.found_in(program.child.id()).expect("root reads any memory");
    assert_eq!(found(&weights), BTreeSet::new(), "weights are there after the model was closed");
    assert_eq!(found(&keys), BTreeSet::new(), "keys are there after the model was closed");
}
