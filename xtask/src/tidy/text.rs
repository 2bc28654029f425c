//! Rules about all text: sizes, words that must not be there, documents that must.

use super::{Finding, Tree};

/// A file longer than this is two files.
const LINES_MAX: usize = 600;
/// A file longer than this is worth a question.
const LINES_GOAL: usize = 400;

/// What a reader of the project has to find.
const DOCUMENTS: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "THREATS.md", "SECURITY.md", "CHANGELOG.md", "vault-enclave/FORMAT.md"];
/// The commands that the README promises to do everything.
const README_COMMANDS: [&str; 2] = ["cargo xtask demo", "cargo xtask test"];

/// Hosts of package registries: which one is used is the machine's own configuration's to say. Split, as all words below, so
/// that this file keeps its own rule.
const HOSTS: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("npmjs", ".org"),
];
/// Places of one machine.
const HOMES: [&str; 4] = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];
/// Notes to oneself.
const MARKERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_lock = |path: &str| path == "Cargo.lock" || path.ends_with("/Cargo.lock");
    for file in tree.files.iter().filter(|file| !is_lock(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(what) = forbidden(line) {
                findings.push(Finding::new(&file.path, number + 1, what));
            }
        }
    }
    for (path, lines) in sizes(tree).filter(|(_, lines)| *lines > LINES_MAX) {
        findings.push(Finding::new(path, 0, format!("{lines} lines, {LINES_MAX} at most: split it")));
    }
    for document in DOCUMENTS {
        if tree.file(document).is_none_or(|file| file.text.trim().is_empty()) {
            findings.push(Finding::new(document, 0, "missing or empty"));
        }
    }
    if let Some(readme) = tree.file("README.md") {
        let unnamed = README_COMMANDS.iter().filter(|command| !readme.text.contains(*command));
        findings.extend(unnamed.map(|command| Finding::new("README.md", 0, format!("does not name `{command}`"))));
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        // A workspace of its own, of which nothing ships: fuzz targets, peers of a bench, examples.
        let stands_alone = file.text.lines().any(|line| line == "[workspace]");
        if !stands_alone && !file.text.contains("[lints]\nworkspace = true\n") {
            findings.push(Finding::new(&file.path, 0, "must take the workspace's lints"));
        }
    }
    findings
}

/// Files above the goal, longest first.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    let mut long: Vec<_> = sizes(tree).filter(|(_, lines)| (LINES_GOAL + 1..=LINES_MAX).contains(lines)).collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    long.iter().map(|(path, lines)| format!("{path} has {lines} lines; the goal is {LINES_GOAL}")).collect()
}

fn sizes(tree: &Tree) -> impl Iterator<Item = (&str, usize)> {
    let rust = tree.files.iter().filter(|file| file.rust.is_some());
    rust.map(|file| (file.path.as_str(), file.text.lines().count()))
}

fn forbidden(line: &str) -> Option<String> {
    if let Some(host) = HOSTS.iter().find(|host| line.contains(*host)) {
        return Some(format!("names a package registry's host ({host})"));
    }
    // Not the middle of a longer path: `target/…`, `$dir/…`.
    let starts = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~}*)".contains(c));
    let is_path = |home: &&&str| line.match_indices(**home).any(|(at, _)| starts(at));
    if let Some(home) = HOMES.iter().find(is_path) {
        return Some(format!("names a place of one machine ({home})"));
    }
    let whole = |word: &&&str| line.split(|c: char| !c.is_alphanumeric()).any(|part| part == **word);
    MARKERS.iter().find(whole).map(|marker| format!("{marker}: finish it or file an issue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLED: &str = "cargo xtask demo, cargo xtask test";

    fn findings(path: &str, text: &str) -> Vec<String> {
        let documents = DOCUMENTS.iter().filter(|document| **document != path).map(|document| (*document, FILLED));
        let files: Vec<(&str, &str)> = documents.chain([(path, text)]).collect();
        check(&Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn assert_finds(path: &str, text: &str, part: &str) {
        let found = findings(path, text);
        assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
    }

    #[test]
    fn forbidden_words_are_found_in_any_file() {
        for host in HOSTS {
            assert_finds("a.md", &format!("see https://{host}/x"), "registry");
        }
        for home in HOMES {
            assert_finds("a.sh", &format!("cd {home}x"), "one machine");
            assert_finds("a.rs", &format!("let a = \"{home}x\";"), "one machine");
            assert_eq!(findings("a.sh", &format!("cd target{home}x $d{home}y ~{home}z")), [""; 0]);
        }
        for marker in MARKERS {
            assert_finds("a.rs", &format!("// {marker}: later"), marker);
        }
        for lock in ["Cargo.lock", "examples/a/Cargo.lock"] {
            assert_eq!(findings(lock, HOSTS[0]), [""; 0]);
        }
    }

    #[test]
    fn long_file_is_found_and_a_longish_one_is_noted() {
        assert_finds("a/src/lib.rs", &"\n".repeat(LINES_MAX + 1), "601 lines");
        let longish = "\n".repeat(LINES_GOAL + 1);
        assert_eq!(findings("a/src/lib.rs", &longish), [""; 0]);
        assert_eq!(notes(&Tree::of(&[("a/src/lib.rs", &longish)])).len(), 1);
        assert_eq!(findings("a.md", &"\n".repeat(2000)), [""; 0]);
    }

    #[test]
    fn missing_or_empty_document_is_found() {
        for document in DOCUMENTS {
            let without: Vec<_> =
                DOCUMENTS.iter().filter(|other| **other != document).map(|path| (*path, FILLED)).collect();
            let found = check(&Tree::of(&without));
            assert_eq!(found, [Finding::new(document, 0, "missing or empty")]);
        }
        assert_finds("THREATS.md", " \n", "THREATS.md: missing or empty");
    }

    #[test]
    fn readme_without_its_commands_is_found() {
        assert_finds("README.md", "cargo xtask demo", "cargo xtask test");
    }

    #[test]
    fn crate_without_the_workspace_lints_is_found() {
        assert_finds("ledger/Cargo.toml", "[package]\n", "lints");
        assert_eq!(findings("ledger/Cargo.toml", "[lints]\nworkspace = true\n"), [""; 0]);
        assert_eq!(findings("fuzz/Cargo.toml", "[workspace]\n\n[package]\n"), [""; 0]);
    }
}
