//! Rules about who may depend on whom, from `cargo metadata`.

use super::Finding;
use crate::{Result, shell};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Our crates, and which of ours each may depend on (ARCHITECTURE.md, "The house").
const OURS: [(&str, &[&str]); 8] = [
    ("attestation", &[]),
    ("ledger", &["attestation"]),
    ("vault-proto", &["attestation", "ledger"]),
    ("vault-enclave", &["attestation", "ledger", "vault-proto"]),
    ("vault-host", &["attestation", "ledger", "vault-proto"]),
    ("vaultctl", &["attestation", "ledger", "vault-proto"]),
    ("vault-tests", &["attestation", "ledger", "vault-proto", "vault-enclave", "vault-host", "vaultctl"]),
    // It installs what the others need to be built.
    ("xtask", &[]),
];

/// Crates that only vault-enclave may name as a dependency: the TPM library, and what opens a sealed unit or a wrapped key.
const ENCLAVE_ONLY: [&str; 6] = ["tss-esapi", "tss-esapi-sys", "aes-gcm", "aes-gcm-siv", "chacha20poly1305", "hpke"];

/// But for this: a custodian of a vault's keys opens his own share with vaultctl, and seals it to a keeper.
const CUSTODIANS: (&str, &str) = ("vaultctl", "hpke");

/// What must not be reached from a crate, by way of whatever other crates.
const UNREACHABLE: [(&[&str], &[&str], &str); 3] = [
    (
        &["attestation", "ledger", "vault-proto", "vault-host"],
        &ENCLAVE_ONLY,
        "it must neither see a key nor need a TPM library",
    ),
    // A custodian opens his share of a vault's keys with it: by HPKE, and by that alone.
    (
        &["vaultctl"],
        &["tss-esapi", "tss-esapi-sys", "aes-gcm-siv", "chacha20poly1305"],
        "it needs no TPM library and no AEAD but HPKE's",
    ),
    (
        &["attestation", "ledger"],
        &["tokio", "tonic", "hyper", "mio", "async-std", "smol", "futures-executor", "openssl", "openssl-sys"],
        "it is pure: no async, no network, no C library",
    ),
];

/// One platform, so that every machine sees the same graph.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Who depends on whom. Optional dependencies that nothing turns on may be in it: a rule that holds with them holds.
pub(super) struct Graph {
    packages: BTreeMap<String, Package>,
    /// What is compiled indeed: name and version.
    pub(super) built: BTreeSet<(String, String)>,
}

struct Package {
    name: String,
    ours: bool,
    /// Its Cargo.toml, from the root for ours.
    manifest: String,
    features: Vec<String>,
    /// Ids of dependencies, and whether it is one for tests only.
    dependencies: Vec<(String, bool)>,
}

impl Graph {
    pub(super) fn load() -> Result<Self> {
        let mut metadata = shell::cargo();
        metadata.args(["metadata", "--format-version=1", "--locked", "--filter-platform", PLATFORM]);
        let mut tree = shell::cargo();
        tree.args([
            "tree",
            "--workspace",
            "--locked",
            "--edges=normal,build,dev",
            "--prefix=none",
            "--target",
            PLATFORM,
        ]);
        let packages = parse_metadata(&serde_json::from_str(&shell::output(&mut metadata)?)?)?;
        Ok(Self { packages, built: parse_tree(&shell::output(tree.arg("--format={p}"))?) })
    }

    /// How each package is reached from this one: package name and the names on the way. Dependencies for tests are left out.
    fn reachable(&self, from: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut ahead = vec![(from, Vec::new())];
        while let Some((id, way)) = ahead.pop() {
            let Some(package) = self.packages.get(id) else { continue };
            let mut way = way.clone();
            way.push(package.name.as_str());
            for (next, _) in package.dependencies.iter().filter(|(_, for_tests)| !for_tests) {
                if let Some(next_package) = self.packages.get(next)
                    && !found.contains_key(next_package.name.as_str())
                {
                    found.insert(&next_package.name, way.clone());
                    ahead.push((next, way.clone()));
                }
            }
        }
        found
    }
}

pub(super) fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, package) in graph.packages.iter().filter(|(_, package)| package.ours) {
        let mut find = |message: String| findings.push(Finding::new(&package.manifest, 0, message));
        if !package.features.is_empty() {
            find(format!("has Cargo features ({}): ours have none", package.features.join(", ")));
        }
        let Some((_, may)) = OURS.iter().find(|(name, _)| *name == package.name) else {
            find(format!("{} is a new crate: say in xtask/src/tidy/graph.rs what it may depend on", package.name));
            continue;
        };
        for (dependency, _) in &package.dependencies {
            let Some(dependency) = graph.packages.get(dependency) else { continue };
            if dependency.ours && !may.contains(&dependency.name.as_str()) {
                find(format!("{} must not depend on {}", package.name, dependency.name));
            }
            let own_share = (package.name.as_str(), dependency.name.as_str()) == CUSTODIANS;
            if ENCLAVE_ONLY.contains(&dependency.name.as_str()) && package.name != "vault-enclave" && !own_share {
                find(format!("only vault-enclave may depend on {}", dependency.name));
            }
        }
        let reachable = graph.reachable(id);
        for (crates, unwanted, why) in UNREACHABLE {
            for unwanted in unwanted.iter().filter(|_| crates.contains(&package.name.as_str())) {
                if let Some(way) = reachable.get(unwanted) {
                    find(format!("{} → {unwanted}: {why}", way.join(" → ")));
                }
            }
        }
    }
    findings
}

fn parse_metadata(metadata: &Value) -> Result<BTreeMap<String, Package>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_string).ok_or("cargo metadata: a text is missing");
    let root = text(&metadata["workspace_root"])?;
    let ours: BTreeSet<String> =
        list(&metadata["workspace_members"]).iter().filter_map(|id| Some(id.as_str()?.to_string())).collect();
    let mut packages = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let id = text(&package["id"])?;
        let features = package["features"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        let name = text(&package["name"])?;
        let manifest = text(&package["manifest_path"])?;
        let manifest = manifest.strip_prefix(&root).unwrap_or(&manifest).trim_start_matches('/').to_string();
        let ours = ours.contains(&id);
        packages.insert(id, Package { name, ours, manifest, features, dependencies: Vec::new() });
    }
    for node in list(&metadata["resolve"]["nodes"]) {
        let Some(package) = packages.get_mut(&text(&node["id"])?) else { continue };
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"]);
            let for_tests = !kinds.is_empty() && kinds.iter().all(|kind| kind["kind"] == "dev");
            package.dependencies.push((text(&dependency["pkg"])?, for_tests));
        }
    }
    Ok(packages)
}

/// `name v1.2.3 (proc-macro) (*)` on each line.
fn parse_tree(tree: &str) -> BTreeSet<(String, String)> {
    let packages = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_string(), rest.split_whitespace().next()?.to_string()))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of crates and their dependencies; a `?` before one makes it one for tests. `helper` is ours and new.
    fn graph(packages: &[(&str, &[&str])]) -> Graph {
        let packages = packages.iter().map(|(name, dependencies)| {
            let dependency = |name: &&str| (name.trim_start_matches('?').to_string(), name.starts_with('?'));
            let package = Package {
                name: name.to_string(),
                ours: *name == "helper" || OURS.iter().any(|(ours, _)| ours == name),
                manifest: format!("{name}/Cargo.toml"),
                features: Vec::new(),
                dependencies: dependencies.iter().map(dependency).collect(),
            };
            (name.to_string(), package)
        });
        Graph { packages: packages.collect(), built: BTreeSet::new() }
    }

    #[track_caller]
    fn assert_finds(packages: &[(&str, &[&str])], part: &str) {
        let found = check(&graph(packages));
        assert!(found.iter().any(|finding| finding.to_string().contains(part)), "{found:?}");
    }

    #[test]
    fn house_as_drawn_is_fine() {
        let packages: Vec<_> = OURS.iter().map(|(name, may)| (*name, *may)).collect();
        assert_eq!(check(&graph(&packages)), []);
    }

    #[test]
    fn every_edge_that_is_not_drawn_is_found() {
        for (from, may) in OURS {
            for (to, _) in OURS.iter().filter(|(to, _)| *to != from && !may.contains(to)) {
                assert_finds(&[(from, &[to]), (to, &[])], &format!("{from} must not depend on {to}"));
                let in_tests = format!("?{to}");
                assert_finds(&[(from, &[&in_tests]), (to, &[])], &format!("{from} must not depend on {to}"));
            }
        }
    }

    #[test]
    fn crate_that_is_not_drawn_is_found() {
        assert_finds(&[("helper", &[])], "helper is a new crate");
    }

    #[test]
    fn tpm_library_and_aead_outside_the_enclave_are_found() {
        for name in ENCLAVE_ONLY {
            assert_finds(&[("vault-tests", &[name]), (name, &[])], "only vault-enclave");
            assert_eq!(check(&graph(&[("vault-enclave", &[name]), (name, &[])])), []);
            let found = check(&graph(&[("vaultctl", &[name]), (name, &[])]));
            assert_eq!(found.is_empty(), name == "hpke", "{name}");
        }
    }

    #[test]
    fn way_to_a_key_through_another_crate_is_found_and_shown() {
        let through = [("vault-host", &["store"][..]), ("store", &["hpke"]), ("hpke", &[])];
        assert_finds(&through, "vault-host → store → hpke: it must neither see a key");
        let in_tests = [("vault-host", &["?store"][..]), ("store", &["hpke"]), ("hpke", &[])];
        assert_eq!(check(&graph(&in_tests)), []);
    }

    #[test]
    fn async_below_a_pure_crate_is_found() {
        let through = [("ledger", &["client"][..]), ("client", &["tokio"]), ("tokio", &[])];
        assert_finds(&through, "ledger → client → tokio: it is pure");
    }

    #[test]
    fn cargo_feature_is_found() {
        let mut graph = graph(&[("ledger", &[])]);
        graph.packages.get_mut("ledger").unwrap().features.push("mock".into());
        assert!(check(&graph)[0].message.contains("Cargo features (mock)"));
    }

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({
            "workspace_root": "/src",
            "workspace_members": ["a-id"],
            "packages": [
                {"id": "a-id", "name": "ledger", "version": "0.1.0", "manifest_path": "/src/ledger/Cargo.toml", "features": {"x": []}},
                {"id": "b-id", "name": "tokio", "version": "1.0.0", "manifest_path": "/else/Cargo.toml", "features": {}}],
            "resolve": {"nodes": [{"id": "a-id", "deps": [
                {"pkg": "b-id", "dep_kinds": [{"kind": "dev"}, {"kind": null}]}]}]}});
        let found = check(&Graph { packages: parse_metadata(&metadata).unwrap(), built: BTreeSet::new() });
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].path, "ledger/Cargo.toml");
    }

    #[test]
    fn tree_of_what_is_built_is_read() {
        let tree =
            parse_tree("ledger v0.1.0 (/src/ledger)\nsyn v2.0.1 (*)\nsyn v3.0.1\nserde_derive v1.0.2 (proc-macro)\n\n");
        let built: Vec<_> = tree.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(built, ["ledger 0.1.0", "serde_derive 1.0.2", "syn 2.0.1", "syn 3.0.1"]);
    }
}
