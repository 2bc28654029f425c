//! People with keys, a policy, a peer, and the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;
use crate::peer::Peer;

pub(crate) const PUBLISHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
";

/// The PCRs that the policy wants quoted.
pub(crate) const PCRS: [u32; 2] = [0, 11];

/// A directory with the keys of alice, bob, carol and mallory, a policy, and a peer with an empty keeper.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) peer: Peer,
    pub(crate) authority: Authority,
    pub(crate) publisher: String,
}

/// How the program ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::new_with(|policy| policy)
    }

    /// The same with a changed policy.
    fn new_with(change: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["alice", "bob", "carol", "mallory"] {
            make_key(directory.path(), name);
        }
        let authority = Authority::root("vendor");
        let peer = Peer::start(SoftTpm::ecc(), &authority, directory.path());
        let scene = Self { directory, peer, authority, publisher: PUBLISHER_KEY.to_owned() };
        std::fs::write(scene.path("policy.toml"), change(scene.policy("genesis", 1, "none"))).unwrap();
        scene
    }

    /// A scene whose vault is open: alice, bob and carol have signed.
    pub(crate) fn open() -> Self {
        Self::open_with(|policy| policy)
    }

    /// The same under a changed policy.
    pub(crate) fn open_with(change: impl FnOnce(String) -> String) -> Self {
        let scene = Self::new_with(change);
        scene.start().done();
        for name in ["alice", "bob", "carol"] {
            scene.sign(name).done();
        }
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A policy that trusts the authority of the scene, for the PCRs of its keeper.
    pub(crate) fn policy(&self, vault: &str, serial: u64, prev: &str) -> String {
        let key = |name: &str| std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned();
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(key);
        let values = self.peer.tpm_pcrs();
        let pcr = |index: usize| hex::encode(values[index]);
        let guest = "77".repeat(32);
        let (pcr_0, pcr_11, anchor) = (pcr(0), pcr(11), self.authority.pem());
        let publisher = &self.publisher;
        format!(
            r#"format = 1
vault = "{vault}"
serial = {serial}
prev = "{prev}"
not_after = "2036-03-01T00:00:00Z"

[approval]
threshold = 2
proposer_may_approve = false
approvers = [
  {{ id = "alice", key = "{alice}" }},
  {{ id = "bob", key = "{bob}" }},
  {{ id = "carol", key = "{carol}" }},
]

[[anchors]]
name = "vendor"
trust = "emulated"
certificate = """{anchor}"""

[keeper]
require = ["tpm"]
pcrs = {{ 0 = ["{pcr_0}"], 11 = ["{pcr_11}"] }}
eks = "any"

[publish.ours]
models = ["minilm"]
keys = ["""{publisher}"""]
approvals = 2

[release.minilm]
models = ["minilm"]
groups = "any"
require = ["tpm"]
pcrs = {{ 0 = ["{pcr_0}"], 11 = ["{guest}"] }}
eks = "any"
lease = "15m"
on_lease_end = "end"
max_leases = 40
verify_units = true

[audit]
readers = "any"
"#
        )
    }

    /// `vaultctl init start`.
    pub(crate) fn start(&self) -> Ended {
        let (policy, out) = (self.path("policy.toml"), self.path("vault"));
        self.run(&[
            "init",
            "start",
            "--anti-rollback",
            "none",
            "--host",
            &self.peer.address(),
            "--policy",
            text(&policy),
            "--out",
            text(&out),
        ])
    }

    /// `vaultctl init sign` by one person.
    pub(crate) fn sign(&self, name: &str) -> Ended {
        self.with_vault(&["init", "sign", "--yes", "--key", text(&self.path(name))])
    }

    /// The program, with the vault file.
    pub(crate) fn with_vault(&self, args: &[&str]) -> Ended {
        let vault = self.vault_file();
        self.run(&[args, &["--vault", text(&vault)]].concat())
    }

    pub(crate) fn vault_file(&self) -> PathBuf {
        self.path("vault").join("vault.json")
    }

    /// The program with `--json`.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run(&[args, &["--json"]].concat())
    }

    /// The program as a person sees it.
    pub(crate) fn say(&self, args: &[&str]) -> Ended {
        let vault = self.vault_file();
        run(&[args, &["--vault", text(&vault)]].concat())
    }
}

/// The program.
pub(crate) fn run(args: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_vaultctl"))
        .args(args)
        .env_remove("SSH_AUTH_SOCK")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    Ended { code: status.code().unwrap(), stdout, stderr }
}

impl Ended {
    /// The report of a command that was done.
    #[track_caller]
    pub(crate) fn done(&self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The report of a command that says: not yet.
    #[track_caller]
    pub(crate) fn not_yet(&self) -> Value {
        assert_eq!(self.code, 5, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Exit code and code of a failure.
    #[track_caller]
    pub(crate) fn failed(&self) -> (i32, String) {
        assert_eq!(self.stdout, "", "a failure has no report");
        let line = self.stderr.lines().last().unwrap_or_default();
        let failure: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", self.stderr));
        (self.code, failure["code"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub(crate) fn fails(&self, exit: i32, code: &str) {
        assert_eq!(self.failed(), (exit, code.to_owned()), "{}", self.stderr);
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn make_key(directory: &Path, name: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(directory.join(name))
        .status()
        .unwrap();
    assert!(made.success());
}

/// `ssh-keygen -Y sign` by hand: gives the path of the signature.
pub(crate) fn sign_by_hand(key: &Path, file: &Path) -> PathBuf {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "weightvault", "-f"])
        .args([key, file])
        .status()
        .unwrap();
    assert!(status.success());
    PathBuf::from(format!("{}.sig", file.display()))
}
