//! A vault that an older version left behind, opened by this one: keeper, host and both software TPMs run on a copy.
//!
//! `tests/golden/vN` holds one vault for each version of the formats; its README says what is in it and how to record one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest::{SHA256, digest};

use crate::process::{Boot, Swtpm, run_ok};
use crate::world::World;

/// Event log of the firmware that both machines booted.
pub const FIRMWARE: &str = "firmware.bin";
/// What the keeper's machine measured into PCR 11: not the program of some build, which the next build would not have.
pub const KEEPER_IMAGE: &str = "keeper-image";
/// What the guest's machine measured into PCR 11.
pub const GUEST_IMAGE: &str = "guest-image";
/// The vault file.
pub const VAULT: &str = "vault.json";
/// The last checkpoint, a signed note.
pub const CHECKPOINT: &str = "checkpoint";
/// What must be found again: see [`Expected`].
pub const EXPECTED: &str = "expected.json";
/// State files of a software TPM below `tpm-keeper` and `tpm-guest`.
pub const TPM_STATE: &str = "tpm2-00.permall";

/// What an opened golden vault must have.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its id, as text.
    pub vault: String,
    /// Entries under the recorded checkpoint.
    pub size: u64,
    /// Its root, as text.
    pub root: String,
    /// SHA-256 in hexadecimal of every plaintext file, by version of the model `demo`.
    pub models: BTreeMap<String, BTreeMap<String, String>>,
}

/// A running copy of a golden vault.
pub struct Golden {
    /// The vault.
    pub world: World,
    /// The TPM of the recorded guest.
    pub guest: Swtpm,
    /// What it must have.
    pub expected: Expected,
    recorded: PathBuf,
}

impl Golden {
    /// Copies `tests/golden/NAME` and starts everything on the copy. The keeper refuses here if it can't read its state.
    pub fn open(name: &str) -> Self {
        let recorded = directory(name);
        let dir = tempfile::Builder::new().prefix("weightvault-").tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        for part in ["keeper", "host"] {
            copy(&recorded.join(part), &path(part));
        }
        fs::create_dir(path("vault")).expect("the directory is ours");
        copy(&recorded.join(VAULT), &path("vault").join(VAULT));
        for (part, to) in [("tpm-keeper", "tpm"), ("tpm-guest", "tpm-guest")] {
            fs::create_dir_all(path(to).join("nvram")).expect("the directory is ours");
            copy(&recorded.join(part).join(TPM_STATE), &path(to).join("nvram").join(TPM_STATE));
        }
        let start = |state: &str, image: &str| Swtpm::booted(&path(state), &path("ca"), &boot(&recorded, image));
        let (keeper_tpm, guest) = (start("tpm", KEEPER_IMAGE), start("tpm-guest", GUEST_IMAGE));
        let expected = Expected::parse(&fs::read_to_string(recorded.join(EXPECTED)).expect("it was recorded"));
        Self { world: World::reopen(dir, keeper_tpm), guest, expected, recorded }
    }

    /// The recorded checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.recorded.join(CHECKPOINT)
    }

    /// `vault-enclave load demo@VERSION` into this place.
    pub fn load(&self, version: &str, into: &Path) -> Command {
        load(&self.world, &self.guest, version, into)
    }
}

impl Expected {
    /// As JSON.
    pub fn encode(&self) -> String {
        let Self { vault, size, root, models } = self;
        let value = serde_json::json!({ "vault": vault, "size": size, "root": root, "models": models });
        serde_json::to_string_pretty(&value).expect("text and numbers") + "\n"
    }

    fn parse(text: &str) -> Self {
        let value: serde_json::Value = serde_json::from_str(text).expect("expected.json is JSON");
        let text = |field: &str| value[field].as_str().expect("a text").to_owned();
        let files = |files: &serde_json::Value| -> BTreeMap<String, String> {
            let files = files.as_object().expect("an object").iter();
            files.map(|(name, sum)| (name.clone(), sum.as_str().expect("a text").to_owned())).collect()
        };
        let models = value["models"].as_object().expect("an object").iter();
        Self {
            vault: text("vault"),
            size: value["size"].as_u64().expect("a number"),
            root: text("root"),
            models: models.map(|(version, model)| (version.clone(), files(model))).collect(),
        }
    }
}

/// `tests/golden/NAME`.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// The boot of a recorded machine: the same PCRs at every start, whatever is built.
pub fn boot(recorded: &Path, image: &str) -> Boot {
    Boot { firmware: Some(recorded.join(FIRMWARE)), image: recorded.join(image) }
}

/// `vault-enclave load demo@VERSION` by a guest with this TPM.
pub fn load(world: &World, guest: &Swtpm, version: &str, into: &Path) -> Command {
    let mut load = world.enclave("load");
    load.args([&format!("demo@{version}"), "--rule", "guest", "--tpm", &guest.tcti, "--host", &world.url()]);
    load.arg("--vault").arg(world.vault()).arg("--into").arg(into);
    load
}

/// SHA-256 of every file of a directory, by name.
pub fn sums(dir: &Path) -> BTreeMap<String, String> {
    let sum = |file: fs::DirEntry| {
        let bytes = fs::read(file.path()).expect("the file can be read");
        (file.file_name().to_string_lossy().into_owned(), hex::encode(digest(&SHA256, &bytes)))
    };
    fs::read_dir(dir).expect("the directory is there").map(|file| sum(file.expect("it can be listed"))).collect()
}

/// A file or a directory with all that is in it, for this user alone: git keeps no other modes.
pub fn copy(from: &Path, to: &Path) {
    run_ok(Command::new("cp").arg("-r").arg(from).arg(to));
    run_ok(Command::new("chmod").args(["-R", "u+rwX,go-rwx"]).arg(to));
}
