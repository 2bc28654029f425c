//! Rules about Cargo.lock: crates that are banned, and crates that are there twice.

use super::{Finding, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// Banned, and why. `.deny.toml` has the same list.
const BANNED: [(&str, &str); 6] = [
    ("bincode", "no longer maintained, and its bytes are not specified"),
    ("native-tls", "TLS is rustls"),
    ("openssl", "one library of cryptography in C is enough: ring's"),
    ("openssl-sys", "one library of cryptography in C is enough: ring's"),
    ("serde_yaml", "no longer maintained, and YAML has many readings"),
    ("sharks", "its shares of a secret are biased"),
];

/// The crates that are built in more than one version, one a line with its versions: `name 0.1 2`.
const DUPLICATES: &str = "xtask/duplicates.txt";

pub(super) fn check(tree: &Tree, built: &BTreeSet<(String, String)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if tree.file("Cargo.lock").is_none() {
        findings.push(Finding::new("Cargo.lock", 0, "missing: what is built must be what was reviewed"));
    }
    // Also of what stands alone.
    for lock in tree.files.iter().filter(|file| file.path.rsplit('/').next() == Some("Cargo.lock")) {
        findings.extend(banned(&lock.path, &lock.text));
    }
    let listed = tree.file(DUPLICATES).map_or("", |file| &file.text);
    findings.extend(duplicates(listed, built));
    findings
}

fn banned(path: &str, lock: &str) -> Vec<Finding> {
    let names = lock.lines().enumerate().filter_map(|(number, line)| {
        let name = line.strip_prefix("name = \"")?.strip_suffix('"')?;
        let (_, why) = BANNED.iter().find(|(banned, _)| *banned == name)?;
        Some(Finding::new(path, number + 1, format!("{name} is banned: {why}")))
    });
    names.collect()
}

fn duplicates(listed: &str, built: &BTreeSet<(String, String)>) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, version) in built {
        versions.entry(name).or_default().insert(compatible(version));
    }
    let twice: BTreeSet<String> = versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} {}", versions.into_iter().collect::<Vec<_>>().join(" ")))
        .collect();
    let lines: Vec<(usize, String)> = listed
        .lines()
        .enumerate()
        .map(|(number, line)| {
            (number + 1, line.split('#').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let new = twice.iter().filter(|line| !lines.iter().any(|(_, listed)| listed == *line));
    let new = new.map(|line| {
        Finding::new(
            DUPLICATES,
            0,
            format!("built in more than one version: `{line}`; avoid it, or list it with the reason"),
        )
    });
    let gone = lines.iter().filter(|(_, line)| !twice.contains(line));
    let gone =
        gone.map(|(number, line)| Finding::new(DUPLICATES, *number, format!("`{line}` is no longer so: take it out")));
    new.chain(gone).collect()
}

/// As much of a version as a change that may break needs: `1`, `0.7`.
fn compatible(version: &str) -> String {
    let version = version.split(['+', '-']).next().unwrap_or_default();
    let mut kept = Vec::new();
    for part in version.split('.') {
        kept.push(part);
        if part != "0" {
            break;
        }
    }
    kept.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_crate_is_found() {
        for (name, _) in BANNED {
            let found = banned("Cargo.lock", &format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n"));
            assert_eq!((found.len(), found[0].line), (1, 2));
        }
        assert_eq!(banned("Cargo.lock", "[[package]]\nname = \"openssl-probe\"\n"), []);
        assert_eq!(banned("Cargo.lock", "dependencies = [\n \"sharks\",\n]\n"), []);
    }

    #[test]
    fn banned_crate_of_what_stands_alone_is_found() {
        let tree = Tree::of(&[("Cargo.lock", ""), ("examples/a/Cargo.lock", "name = \"sharks\"\n")]);
        let found = check(&tree, &BTreeSet::new());
        assert_eq!((found.len(), found[0].path.as_str()), (1, "examples/a/Cargo.lock"));
    }

    #[test]
    fn missing_lock_is_found() {
        assert_eq!(check(&Tree::of(&[]), &BTreeSet::new()).len(), 1);
    }

    fn built(packages: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        packages.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect()
    }

    #[test]
    fn second_version_that_is_not_listed_is_found() {
        let built = built(&[("rand", "0.8.5"), ("rand", "0.10.1")]);
        assert!(duplicates("", &built)[0].message.contains("`rand 0.10 0.8`"));
        assert_eq!(duplicates("# why\nrand 0.10  0.8 # by x\n", &built), []);
        assert_eq!(duplicates("rand 0.10 0.7 0.8", &built).len(), 2);
    }

    #[test]
    fn listed_crate_that_is_there_once_is_found() {
        assert!(duplicates("rand 0.10 0.8", &built(&[("rand", "0.8.5")]))[0].message.contains("take it out"));
    }

    #[test]
    fn versions_that_may_be_exchanged_count_as_one() {
        assert_eq!(
            (compatible("1.2.3"), compatible("0.7.3"), compatible("0.0.3")),
            ("1".into(), "0.7".into(), "0.0.3".into())
        );
        assert_eq!(duplicates("", &built(&[("log", "0.4.1"), ("log", "0.4.2")])), []);
    }
}
