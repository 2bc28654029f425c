//! Signatures by the real `ssh-keygen`: key files, agents, keys that will not do.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use vaultctl::failure::Kind;
use vaultctl::ssh;

use crate::scene::{Scene, text};

fn keygen(path: &Path, kind: &[&str]) {
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(path).args(kind).status().unwrap();
    assert!(made.success());
}

#[test]
fn ecdsa_keys_sign_too() {
    for bits in ["256", "384"] {
        let scene = Scene::new();
        for file in ["alice", "alice.pub"] {
            std::fs::remove_file(scene.path(file)).unwrap();
        }
        keygen(&scene.path("alice"), &["-t", "ecdsa", "-b", bits]);
        std::fs::write(scene.path("policy.toml"), scene.policy("genesis", 1, "none")).unwrap();
        scene.start().done();
        assert_eq!(scene.sign("alice").done()["signed_by"], "alice");
    }
}

#[test]
fn a_key_that_is_not_there_signs_nothing() {
    let failure = ssh::sign(Path::new("/nonexistent/key"), b"statement").unwrap_err();
    assert_eq!((failure.kind(), failure.code()), (Kind::Failed, "not-signed"));
    assert!(failure.next_step().unwrap().contains("ssh-keygen -Y sign -n weightvault"));
}

#[test]
fn a_public_key_is_found_beside_its_private_half_and_the_private_half_is_not_read() {
    let scene = Scene::new();
    let key = scene.path("alice");
    assert!(ssh::public_key(&key).unwrap().is_some());
    // Whatever stands in the private file is OpenSSH's affair.
    std::fs::write(&key, "not a key").unwrap();
    assert_eq!(ssh::public_key(&key).unwrap(), ssh::public_key(&scene.path("alice.pub")).unwrap());
    std::fs::remove_file(scene.path("alice.pub")).unwrap();
    assert!(ssh::public_key(&key).unwrap().is_none());
}

#[test]
fn keys_that_will_not_do_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (rsa, broken) = (directory.path().join("rsa"), directory.path().join("broken.pub"));
    keygen(&rsa, &["-t", "rsa", "-b", "2048"]);
    assert_eq!(ssh::public_key(&rsa).unwrap_err().code(), "ssh-key-unsupported");
    std::fs::write(&broken, "ssh-ed25519 x").unwrap();
    assert_eq!(ssh::public_key(&broken).unwrap_err().code(), "ssh-key-malformed");
}

/// An agent of this test alone; it ends with it.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_public_key_signs_through_the_agent_that_holds_the_other_half() {
    let scene = Scene::new();
    scene.start().done();
    let socket = scene.path("agent");
    let agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let _agent = Agent(agent);
    let added = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(scene.path("carol")).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null());
        add.status().is_ok_and(|status| status.success())
    });
    assert!(added);
    std::fs::remove_file(scene.path("carol")).unwrap();
    let (vault, key) = (scene.vault_file(), scene.path("carol.pub"));
    let signed = Command::new(env!("CARGO_BIN_EXE_vaultctl"))
        .args(["init", "sign", "--json", "--yes", "--vault", text(&vault), "--key", text(&key)])
        .env("SSH_AUTH_SOCK", &socket)
        .output()
        .unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let report: serde_json::Value = serde_json::from_slice(&signed.stdout).unwrap();
    assert_eq!(report["signed_by"], "carol");
}
