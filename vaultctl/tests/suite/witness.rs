//! `vaultctl witness …`: real processes, killed and started again, asked over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use attestation::{LogKey, Sha256Digest};
use ledger::checkpoint::{Checkpoint, LogVerifier, Seen};
use ledger::cosignature::{WitnessKey, WitnessPolicy};
use ledger::merkle::{Tree, leaf_hash};
use ledger::witness::{AddCheckpoint, REQUEST_BYTES_MAX};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tempfile::TempDir;

use crate::scene::{Ended, run, text};

/// A witness's files; its log has seven entries, and a fork of it differs from entry 3 on.
struct Place {
    directory: TempDir,
    vkey: WitnessKey,
}

/// A witness that serves. It is killed when this is dropped.
struct Serving {
    child: Child,
    address: String,
}

/// Status, head in lower case, body.
struct Answer(u16, String, String);

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

fn log() -> LogVerifier {
    LogVerifier::new(Sha256Digest::of(b"genesis"), LogKey::try_from(pair().public_key().as_ref()).unwrap())
}

fn tree(branch: &str) -> Tree {
    let mut tree = Tree::new();
    (0..7).for_each(|index| {
        let entry = if index < 3 { format!("entry {index}") } else { format!("{branch} {index}") };
        tree.push(leaf_hash(entry.as_bytes()));
    });
    tree
}

fn note(branch: &str, size: u64) -> String {
    let text = log().checkpoint_text(&Checkpoint { size, root: tree(branch).root(size).unwrap() });
    log().key().assemble(&text, pair().sign(text.as_bytes()).as_ref().try_into().unwrap()).unwrap()
}

/// The request to go from `old` to `size` entries of a branch.
fn body(branch: &str, old: u64, size: u64) -> String {
    let proof = if old == 0 { Vec::new() } else { tree(branch).consistency(old, size).unwrap() };
    AddCheckpoint::new(old, proof, note(branch, size)).encode()
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let made = run(&["witness", "keygen", "--name", "witness.example/w1", "--out", text(&key), "--json"]).done();
        let vkey = WitnessKey::parse(made["vkey"].as_str().unwrap()).unwrap();
        Self { directory, vkey }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn arguments(&self, logs: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = ["witness", "serve", "--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        for (option, file) in [("--key", "key"), ("--state", "state")] {
            arguments.extend([option.to_owned(), text(&self.path(file)).to_owned()]);
        }
        logs.iter().for_each(|log| arguments.extend(["--log".to_owned(), (*log).to_owned()]));
        arguments
    }

    fn serve(&self) -> Serving {
        let arguments = self.arguments(&[&log().key().to_string()]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_vaultctl"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening: http://").map(str::to_owned));
        // Its report ends with the log; closed before that, it could not say it.
        assert!(lines.any(|line| line.starts_with("log: ")));
        Serving { child, address: address.expect("it says where it listens") }
    }

    /// A start that has to fail.
    fn start(&self, logs: &[&str]) -> Ended {
        let arguments = self.arguments(logs);
        run(&arguments.iter().map(String::as_str).chain(["--json"]).collect::<Vec<_>>())
    }

    /// That a line is this witness's cosignature of the checkpoint.
    fn check(&self, branch: &str, size: u64, lines: &str) {
        let cosigned = log().witnessed_by(WitnessPolicy::new(vec![self.vkey.clone()], 1, 0).unwrap());
        let seen = cosigned.verify_cosigned(&(note(branch, size) + lines)).unwrap();
        let Seen::Cosigned(seen) = seen else { panic!("it is cosigned") };
        assert_eq!(seen.checkpoint().size, size);
    }
}

impl Serving {
    fn ask(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // It may answer, and close, before it has read all.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer(head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&[head.as_bytes(), body].concat())
    }

    fn add(&self, body: &str) -> Answer {
        self.send("POST", "/add-checkpoint", body.as_bytes())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn witness_cosigns_a_log_that_grows_and_no_fork_of_it_though_it_is_killed() {
    let place = Place::new();
    let serving = place.serve();
    let Answer(status, _, line) = serving.add(&body("entry", 0, 3));
    assert_eq!(status, 200, "{line}");
    place.check("entry", 3, &line);
    // Twice the same is the same; nothing is signed that goes back or sideways.
    place.check("entry", 3, &serving.add(&body("entry", 3, 3)).2);
    let Answer(status, head, size) = serving.add(&body("entry", 0, 5));
    assert_eq!((status, size.as_str()), (409, "3\n"));
    assert!(head.contains("content-type: text/x.tlog.size"), "{head}");
    place.check("entry", 5, &serving.add(&body("entry", 3, 5)).2);
    drop(serving);

    let serving = place.serve();
    assert_eq!(serving.add(&body("entry", 0, 3)).0, 409);
    let sideways = AddCheckpoint::new(5, tree("fork").consistency(5, 7).unwrap(), note("fork", 7)).encode();
    assert_eq!(serving.add(&sideways).0, 422);
    assert_eq!(serving.add(&AddCheckpoint::new(5, vec![], note("fork", 5)).encode()).0, 422);
    place.check("entry", 7, &serving.add(&body("entry", 5, 7)).2);
}

#[test]
fn of_two_forks_at_once_one_is_cosigned() {
    let place = Place::new();
    let serving = place.serve();
    assert_eq!(serving.add(&body("entry", 0, 3)).0, 200);
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked = ["entry", "fork", "entry 2", "fork 2", "fork 3", "fork 4"].map(|branch| {
            let serving = &serving;
            scope.spawn(move || serving.add(&body(branch, 3, 7)).0)
        });
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409]);
}

#[test]
fn each_refusal_has_the_status_of_the_specification() {
    let place = Place::new();
    let serving = place.serve();
    let good = body("entry", 0, 3);
    let status = |body: &str| serving.add(body).0;
    assert_eq!(status(""), 400);
    assert_eq!(status(&good.replacen("old 0", "old 4", 1)), 400);
    assert_eq!(status(&good.replacen("\n3\n", "\n2\n", 1)), 403);
    assert_eq!(status(&good.replacen("weightvault.v1/", "weightvault.v9/", 1)), 404);
    assert_eq!(status(&good.replacen("old 0", "old 1", 1)), 409);
    assert_eq!(status(&AddCheckpoint::new(0, vec![[1; 32]], note("entry", 3)).encode()), 422);
    assert_eq!(serving.send("POST", "/add-checkpoint", b"\xff\xfe").0, 400);
    assert_eq!(serving.send("POST", "/add-checkpoint", &vec![b'x'; REQUEST_BYTES_MAX + 1]).0, 413);
    assert_eq!(serving.send("GET", "/add-checkpoint", b"").0, 405);
    assert_eq!(serving.send("POST", "/add-checkpoints", b"").0, 404);
    // Nothing of that was taken for a checkpoint.
    assert_eq!(status(&good), 200);
}

#[test]
fn newest_checkpoint_is_shown_with_its_cosignature() {
    let place = Place::new();
    let serving = place.serve();
    let path = format!("/{}/checkpoint", hex::encode(Sha256Digest::of(log().origin().as_bytes()).as_bytes()));
    assert_eq!(serving.send("GET", &path, b"").0, 404);
    let line = serving.add(&body("entry", 0, 3)).2;
    let Answer(status, _, shown) = serving.send("GET", &path, b"");
    assert_eq!((status, shown), (200, note("entry", 3) + &line));
    assert_eq!(serving.send("POST", &path, b"").0, 405);
    drop(serving);
    let shown = place.serve().send("GET", &path, b"").2;
    place.check("entry", 3, shown.strip_prefix(&note("entry", 3)).unwrap());
}

#[test]
fn state_that_is_damaged_in_use_or_not_writable_cosigns_nothing() {
    let place = Place::new();
    let vkey = log().key().to_string();
    let serving = place.serve();
    assert_eq!(serving.add(&body("entry", 0, 3)).0, 200);
    place.start(&[&vkey]).fails(1, "witness-state-locked");
    let state = place.path("state");
    // A directory that is gone cannot be written to, whoever runs this test.
    std::fs::rename(&state, place.path("elsewhere")).unwrap();
    let Answer(status, _, why) = serving.add(&body("entry", 3, 5));
    assert_eq!((status, why.as_str()), (500, "witness-disk\n"));
    std::fs::rename(place.path("elsewhere"), &state).unwrap();
    assert_eq!(serving.add(&body("fork", 3, 5)).0, 200);
    drop(serving);
    place.start(&[&vkey, &vkey]).fails(2, "witness-log-repeated");
    place.start(&[&place.vkey.to_string()]).fails(2, "note-key-type");
    let origin = hex::encode(Sha256Digest::of(log().origin().as_bytes()).as_bytes());
    let file = state.join(format!("{origin}.checkpoint"));
    let good = std::fs::read_to_string(&file).unwrap();
    for damaged in [good.replacen("\n5\n", "\n4\n", 1), String::new(), good[..good.len() - 9].to_owned()] {
        std::fs::write(&file, damaged).unwrap();
        place.start(&[&vkey]).fails(4, "witness-state-damaged");
    }
}

#[test]
fn certificate_and_key_that_are_none_or_not_of_each_other_serve_nothing() {
    let place = Place::new();
    let pair = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["w".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((certificate, key), (_, other)) = (pair(), pair());
    let serve = |certificate: &str, key: &str| {
        let files = [("cert", certificate), ("tls-key", key)].map(|(name, pem)| {
            std::fs::write(place.path(name), pem).unwrap();
            text(&place.path(name)).to_owned()
        });
        let mut arguments = place.arguments(&[&log().key().to_string()]);
        arguments.extend(["--json", "--tls-cert", &files[0], "--tls-key", &files[1]].map(str::to_owned));
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    serve("no certificate", &key).fails(2, "witness-tls-file");
    serve(&certificate, "no key").fails(2, "witness-tls-file");
    serve(&certificate, &other).fails(2, "witness-tls-identity");
}

#[test]
fn key_is_its_owners_alone_and_none_is_replaced() {
    let place = Place::new();
    let (key, vkey) = (place.path("key"), log().key().to_string());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    run(&["witness", "keygen", "--name", "w", "--out", text(&key), "--json"]).fails(1, "file");
    run(&["witness", "keygen", "--name", "a b", "--out", text(&place.path("other")), "--json"])
        .fails(2, "note-key-name");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    place.start(&[&vkey]).fails(2, "witness-key-open");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let good = std::fs::read_to_string(&key).unwrap();
    for wrong in [good.replacen("/w1", "/w2", 1), good.replacen("PRIVATE", "PUBLIC", 1), good.trim_end().to_owned()] {
        std::fs::write(&key, wrong).unwrap();
        place.start(&[&vkey]).fails(2, "witness-key-malformed");
    }
}
