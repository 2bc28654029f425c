//! Real evidence, read where it lies, and policies around it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scene::{Ended, PUBLISHER_KEY, run, text};

/// Every certificate but the VLEK is valid.
pub(crate) const NOW: &str = "2026-07-01T00:00:00Z";
/// The VLEK is.
pub(crate) const NOW_OF_VLEK: &str = "2025-07-01T00:00:00Z";

/// A real report and what comes with it.
pub(crate) struct Vector {
    pub(crate) folder: PathBuf,
    pub(crate) expected: Value,
    roots: PathBuf,
}

/// A folder of vectors; nothing where they are not, which is a failure only in CI.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var("WEIGHTVAULT_VECTORS").unwrap_or_else(|_| default.to_owned());
    let folder = PathBuf::from(root).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no vectors at {}", folder.display());
    println!("skipped: there are no vectors at {}; set WEIGHTVAULT_VECTORS", folder.display());
    None
}

/// The vectors of a folder: 10 of `snp`, 4 of `azure-snp-vtpm`.
pub(crate) fn all(name: &str) -> Vec<Vector> {
    let (Some(folder), Some(snp)) = (folder(name), folder("snp")) else { return Vec::new() };
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut vectors: Vec<Vector> = folders
        .filter(|folder| folder.join("report.bin").is_file())
        .map(|folder| {
            let expected: Value =
                serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
            let roots = format!("amd-roots/{}_ask_ark_asvk.pem", expected["generation"].as_str().unwrap());
            Vector { folder, expected, roots: snp.join(roots) }
        })
        .collect();
    vectors.sort_by(|a, b| a.folder.cmp(&b.folder));
    vectors
}

/// The vector of this name.
pub(crate) fn named(folder: &str, name: &str) -> Option<Vector> {
    let found = all(folder).into_iter().find(|vector| vector.folder.ends_with(name));
    assert!(found.is_some() || self::folder(folder).is_none(), "there is no vector {name}");
    found
}

impl Vector {
    pub(crate) fn name(&self) -> &str {
        self.folder.file_name().unwrap().to_str().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn leaf(&self) -> PathBuf {
        self.path(if self.is_vlek() { "vlek.der" } else { "vcek.der" })
    }

    pub(crate) fn roots(&self) -> &Path {
        &self.roots
    }

    pub(crate) fn is_vlek(&self) -> bool {
        self.expected["vek"] == "vlek"
    }

    pub(crate) fn now(&self) -> &'static str {
        if self.is_vlek() { NOW_OF_VLEK } else { NOW }
    }

    pub(crate) fn field(&self, name: &str) -> &Value {
        &self.expected["fields"][name]
    }

    /// `evidence verify --kind snp` of this report with the chain of the vector.
    pub(crate) fn verify_report(&self, report: &Path, more: &[&str]) -> Ended {
        let (leaf, roots) = (self.leaf(), self.roots());
        let args = ["evidence", "verify", "--kind", "snp", "--report", text(report), "--chain", text(&leaf)];
        run(&[&args[..], &["--chain", text(roots), "--now", self.now(), "--json"], more].concat())
    }

    pub(crate) fn verify(&self, more: &[&str]) -> Ended {
        self.verify_report(&self.path("report.bin"), more)
    }
}

impl Ended {
    /// The claims of evidence that verified.
    #[track_caller]
    pub(crate) fn verified(&self) -> Value {
        let verdict = self.done();
        assert_eq!(verdict["verified"], true);
        verdict["claims"].clone()
    }

    /// The refusal of evidence.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (1, ""), "{}", self.stdout);
        let verdict: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!((&verdict["verified"], verdict["code"].as_str()), (&Value::Bool(false), Some(code)), "{verdict}");
        for said in ["why", "expected", "seen"] {
            assert!(verdict[said].as_str().is_some_and(|text| !text.is_empty()), "{said}: {verdict}");
        }
        verdict
    }
}

const KEYS: [(&str, &str); 3] = [
    ("ALICE_KEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVDBTmwHVi0DWcFS9xzs3BHy2lDCFDdgeL5JJ3hbMJd"),
    ("BOB_KEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKcfXfCLdGZd9VQYPnEpmNJZjyXa8SZPmZSbrIRTJ6rG"),
    ("CAROL_KEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKIOm4m9Tj6UbPNzMRhiz6f5JQHN9IsRHpWUvXKeQY"),
];

const SNP_KEEPER: &str = r#"[keeper]
require = ["snp"]
pcrs = { 11 = ["EEEE"] }
eks = "any"

[keeper.snp]
code_covered_by = "launch"
measurements = ["FFFF"]
chips = "any"
min_tcb = { genoa = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } }
vmpl = 0
min_report_version = 3
crl = "required"
smt = false
provisional_firmware = false

"#;

/// The template of `policy template`, filled in, with this rule in the place of its own; where the rule wants SNP its keeper
/// does too.
pub(crate) fn policy_with(rule: &str) -> String {
    let template = run(&["policy", "template"]).stdout;
    let template = template.replace("END_OF_POLICY", "2027-03-01T00:00:00Z").replace("PUBLISHER_KEY", PUBLISHER_KEY);
    let template = template.replace("PCR_VALUE", &"ab".repeat(32));
    let template = KEYS.iter().fold(template, |text, (word, key)| text.replace(word, key));
    let (before, keeper_on) = template.split_once("\n[keeper]\n").unwrap();
    let (keeper, publish_on) = keeper_on.split_once("\n[publish.default]").unwrap();
    let (publish, release_on) = publish_on.split_once("\n[release.default]\n").unwrap();
    let (_, audit) = release_on.split_once("\n[audit]").unwrap();
    let keeper = match rule.contains("[\"snp\"") {
        true => SNP_KEEPER.replace("EEEE", &"ab".repeat(32)).replace("FFFF", &"fe".repeat(48)),
        false => format!("[keeper]\n{keeper}"),
    };
    format!("{before}\n{keeper}\n[publish.default]{publish}\n{rule}\n[audit]{audit}")
}
